"""What a video model in training is worth: losses on validation clips, and clips made from their captions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.tokenizer.vqgan import to_uint8
from drivesim.training.captioned_tokens import CaptionedTokens
from drivesim.training.task import Evaluation
from drivesim.video import contact_sheet
from drivesim.world_model.prompts import played_backwards
from drivesim.world_model.video_model import VideoModel

NUM_SHOWN = 4
CLIPS_PER_BATCH = 8
PrepareFn = Callable[[list[str]], dict[str, Tensor]]


@torch.no_grad()
def evaluation_of(
    module: nn.Module, validation: CaptionedTokens, prepared: PrepareFn, *, has_backward: bool
) -> Evaluation:
    """Return the loss, half hidden or more, what the prompt is worth, and a picture.

    Args:
        module: a ``VideoModelModule``.
        validation: clips with captions.
        prepared: captions as the module reads them.
        has_backward: measure ``loss_backwards`` too, of the clips played backwards.
    """
    captions = [wordings[0] if wordings else "" for wordings in validation.content.clip_captions]
    own = _cross_entropy(module, validation.clips, captions, prepared)
    others = _cross_entropy(module, validation.clips, captions[1:] + captions[:1], prepared)
    metrics = {"loss": own, "prompt_gain_nats": others - own}
    if has_backward:
        marked = [played_backwards(text) for text in captions]
        metrics["loss_backwards"] = _cross_entropy(module, validation.clips[:, ::-1], marked, prepared)
    video_model: VideoModel = module.video_model  # type: ignore[assignment]
    return Evaluation(metrics=metrics, picture=_drawn(video_model, captions[:NUM_SHOWN], validation))


def _cross_entropy(
    module: nn.Module, clips_NTS: NDArray[np.int32], captions: list[str], prepared: PrepareFn
) -> float:
    """Return the mean over clips of which a random half to all tokens are hidden."""
    device = next(module.parameters()).device
    generator = torch.Generator().manual_seed(0)
    losses = []
    for start in range(0, len(captions), CLIPS_PER_BATCH):
        ids = torch.from_numpy(np.array(clips_NTS[start : start + CLIPS_PER_BATCH]))
        share = torch.rand((len(ids), 1, 1), generator=generator).sqrt()
        batch: dict[str, Any] = {
            "token_ids": ids,
            "is_masked": torch.rand(ids.shape, generator=generator) < share.clamp_min(0.5),
            **prepared(captions[start : start + CLIPS_PER_BATCH]),
        }
        terms = module({name: value.to(device) for name, value in batch.items()})
        losses.append(float(terms["loss"]))
    return math.fsum(losses) / len(losses)


def _drawn(model: VideoModel, captions: list[str], validation: CaptionedTokens) -> np.ndarray[Any, Any]:
    """Return clips made from captions alone, every fifth frame, below the true ones."""
    device = model.device
    true_BTS = torch.from_numpy(np.array(validation.clips[: len(captions)])).long().to(device)
    generator = torch.Generator().manual_seed(0)
    sampled = model.complete(
        true_BTS, torch.ones_like(true_BTS, dtype=torch.bool), captions, generator=generator
    )
    ids = rearrange(sampled.token_ids_BS, "b (t s) -> b t s", t=true_BTS.shape[1])
    shown = slice(None, None, max(1, true_BTS.shape[1] // 3))
    rows = []
    for clip in (true_BTS, ids):
        frames = model.decode(clip[:, shown])
        rows.append(to_uint8(rearrange(frames, "b t c h w -> (b t) c h w")).cpu())
    columns = rows[0].shape[0] // len(captions)
    pairs = rearrange(torch.stack(rows), "k (b t) h w c -> (b k t) h w c", b=len(captions))
    return contact_sheet(list(pairs.numpy()), columns)
