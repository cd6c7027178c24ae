"""Training of the driving world model on cached tokens.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from drivesim.checkpoint import save_module
from drivesim.metrics.image import psnr
from drivesim.scene.types import Camera
from drivesim.tokenizer.vqgan import VQGAN
from drivesim.training.data import RecordedClips
from drivesim.training.loop import Evaluation
from drivesim.training.token_cache import TokenCache, crop, stack
from drivesim.world_model.conditioning import guide_features
from drivesim.world_model.masking import MaskKind, draw_mask
from drivesim.world_model.world_model import WorldModel, WorldModelConfig

UNJUDGED = -100  # target of tokens that are not part of the loss


@dataclass(kw_only=True, slots=True)
class WorldModelTrainingConfig:
    """What world-model training needs besides the loop's own settings."""

    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    tokenizer: str = "drive-tiny"  # weights whose tokenizer is used: a shipped name or a file
    mask: MaskKind = MaskKind.NEXT_FRAME
    frames_per_clip: int = 36  # of each recorded clip, how many are tokenized
    frames_per_window: int = 12
    context_noise: float = 0.1  # tokens of the past replaced at random: the rate is uniform in [0, this]
    horizon: int = 6  # steps of the open-loop check during training

    def __post_init__(self) -> None:
        """Refuse windows without a past."""
        if self.frames_per_window < 2 or not 0 <= self.context_noise < 1 or self.horizon < 1:
            raise ValueError("frames_per_window must be >= 2, context_noise in [0, 1) and horizon >= 1")
        if not self.model.stpt.is_frame_causal:
            raise ValueError(
                "driving worlds are trained frame by frame: leave model.stpt.is_frame_causal=true"
            )
        if self.frames_per_window > self.frames_per_clip:
            raise ValueError(
                f"frames_per_window={self.frames_per_window} exceeds frames_per_clip={self.frames_per_clip}"
            )


class WorldModelModule(nn.Module):
    """The world model with its training loss: a batch of token windows in, loss terms out. The tokenizer is frozen."""

    def __init__(self, model: WorldModel) -> None:
        """Freeze the tokenizer of ``model``."""
        super().__init__()
        self.world_model = model
        model.tokenizer.requires_grad_(False)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` (cross-entropy of the hidden tokens, nats) and ``accuracy``."""
        model = self.world_model
        guide_BTSG = batch_guide(model.tokenizer, batch["expected"], batch["motion"])
        prompt_BTLC = model.action_encoder(batch["twist"])
        is_masked_BTS, target_BTS = batch["is_masked"], batch["token_ids"].long()
        features_BTSC = model.stpt.hidden_stream(
            batch["context_ids"].long(), target_BTS, is_masked_BTS, prompt_BTLC, guide_BTSG=guide_BTSG
        )
        # The first frame has no past to be predicted from. Shapes stay fixed: every new one costs a CPU kernel.
        logits_BTSK = model.stpt.head(features_BTSC[:, 1:], guide_BTSG[:, 1:]).float()
        targets_BTS = target_BTS[:, 1:].masked_fill(~is_masked_BTS[:, 1:], UNJUDGED)
        loss = functional.cross_entropy(
            logits_BTSK.flatten(0, 2), targets_BTS.flatten(), ignore_index=UNJUDGED
        )
        is_right_BTS = (logits_BTSK.detach().argmax(-1) == targets_BTS)[targets_BTS != UNJUDGED]
        return {"loss": loss, "accuracy": is_right_BTS.float().mean()}


def batch_guide(tokenizer: VQGAN, expected_BTSQ: Tensor, motion_BTS3: Tensor) -> Tensor:
    """Return the guide (B, T, S, G) of a window; its first frame has none, as in :meth:`WorldModel.observe`."""
    batch = expected_BTSQ.shape[0]
    flat = guide_features(
        tokenizer,
        rearrange(expected_BTSQ.float(), "b t s q -> (b t) s q"),
        rearrange(motion_BTS3.float(), "b t s m -> (b t) s m"),
    )
    guide_BTSG = rearrange(flat, "(b t) s g -> b t s g", b=batch).clone()
    guide_BTSG[:, 0] = 0
    return guide_BTSG


class WorldModelTask:
    """Random windows of cached clips; every frame of a window is predicted from its past at once."""

    name = "world-model"

    def __init__(
        self,
        config: WorldModelTrainingConfig,
        cache: TokenCache,
        validation: RecordedClips,
        tokenizer: VQGAN,
        camera: Camera,
    ) -> None:
        """Build the model around a trained tokenizer."""
        self.config, self.cache, self.camera = config, cache, camera
        self.codebook_size = tokenizer.codebook_size
        model_config = replace(config.model, vqgan=tokenizer.config)
        self.model: nn.Module = WorldModelModule(WorldModel(model_config, tokenizer=tokenizer))
        num_frames = config.model.num_context_frames + config.horizon
        self.validation_BTHWC = torch.from_numpy(np.array(validation.frames[:, :num_frames]))
        self.validation_twist_BTA = torch.from_numpy(validation.twist[:, :num_frames])

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[dict[str, Tensor]]:
        """Yield token windows (B, T, ...); batch ``i`` depends on seed and step alone."""
        config, step = self.config, start_step
        num_frames, total = config.frames_per_window, self.cache.token_ids.shape[1]
        while True:
            rng = np.random.default_rng([seed, step, rank, world_size])
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            clips = rng.integers(len(self.cache), size=batch_size)
            starts = rng.integers(total - num_frames + 1, size=batch_size)
            batch = stack(
                [crop(self.cache, int(i), int(t), num_frames) for i, t in zip(clips, starts, strict=True)]
            )
            shape = batch["token_ids"].shape
            batch["is_masked"] = draw_mask(config.mask, shape[0], shape[1], shape[2], generator)
            rate = torch.rand(batch_size, 1, 1, generator=generator) * config.context_noise
            is_noise = torch.rand(shape, generator=generator) < rate
            noise = torch.randint(self.codebook_size, shape, generator=generator, dtype=torch.int32)
            batch["context_ids"] = torch.where(is_noise, noise, batch["context_ids"])
            yield batch
            step += 1

    def losses(
        self, model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the named loss terms of one batch."""
        del generator  # the masks come with the batch
        terms: dict[str, Tensor] = model(batch)
        return terms

    def num_frames(self, batch: dict[str, Tensor]) -> int:
        """Return the frames in a batch."""
        return batch["token_ids"].shape[0] * batch["token_ids"].shape[1]

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        """Imagine the validation clips open loop; PSNR gain over repeating the last frame, per step, and a picture."""
        world_model: WorldModel = model.world_model  # type: ignore[assignment]
        device = next(world_model.parameters()).device
        context = self.config.model.num_context_frames
        twist_BTA = self.validation_twist_BTA.to(device)
        imagined = []
        with torch.autocast(device.type, torch.bfloat16):
            state = world_model.observe(
                self.validation_BTHWC[:, :context], twist_BTA[:, :context], self.camera
            )
            for t in range(context, self.validation_BTHWC.shape[1]):
                step = world_model.imagine(state, twist_BTA[:, t])
                state = step.state
                imagined.append(step.frames_BHWC)
        imagined_BTHWC = torch.stack(imagined, dim=1)
        true_BTHWC = self.validation_BTHWC[:, context:]
        last_BTHWC = self.validation_BTHWC[:, context - 1 : context].expand_as(true_BTHWC)
        is_moving_B = self.validation_twist_BTA[:, context, 0].numpy() > 1.0  # else repeating is exact
        last_BT = psnr(last_BTHWC.numpy(), true_BTHWC.numpy())
        gain_BT = psnr(imagined_BTHWC.numpy(), true_BTHWC.numpy()) - last_BT
        gain_T = gain_BT[is_moving_B].mean(axis=0) if is_moving_B.any() else np.zeros(gain_BT.shape[1])
        metrics = {f"gain_db_at_{t + 1}": float(gain_T[t]) for t in range(len(gain_T))}
        shown = torch.cat([true_BTHWC[:4], imagined_BTHWC[:4]], dim=1)
        picture = rearrange(shown, "b (k t) h w c -> (b k h) (t w) c", k=2).numpy()
        return Evaluation(metrics=metrics, picture=picture)


def make_task(
    config: WorldModelTrainingConfig,
    cache: TokenCache,
    validation: RecordedClips,
    *,
    tokenizer: VQGAN,
    camera: Camera,
) -> WorldModelTask:
    """Return the training task of the world model."""
    return WorldModelTask(config, cache, validation, tokenizer, camera)


def save_world_model(model: nn.Module, path: Path, *, facts: dict[str, Any] | None = None) -> None:
    """Write the trained world model of a training module, with its tokenizer, as a checkpoint."""
    world_model: WorldModel = model.world_model  # type: ignore[assignment]
    save_module(world_model, path, kind="world-model", config=world_model.config, facts=facts)
