"""Training of the tokenizer on single frames of recorded clips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from drivesim.checkpoint import save_module
from drivesim.metrics.image import psnr
from drivesim.tokenizer.losses import TokenizerLoss, TokenizerLossConfig
from drivesim.tokenizer.quantizer import codebook_usage
from drivesim.tokenizer.vqgan import VQGAN, VQGANConfig, normalized, to_uint8
from drivesim.training.data import FrameClips, FrameSource
from drivesim.training.row_draws import RowDraws, rows_of
from drivesim.training.task import Evaluation


@dataclass(kw_only=True, slots=True)
class TokenizerTrainingConfig:
    """What tokenizer training needs besides the loop's own settings."""

    vqgan: VQGANConfig = field(default_factory=VQGANConfig)
    losses: TokenizerLossConfig = field(default_factory=TokenizerLossConfig)
    num_validation_frames: int = 96


class TokenizerModule(nn.Module):
    """The tokenizer and its losses as one module: a batch of frames in, loss terms out."""

    def __init__(self, config: TokenizerTrainingConfig) -> None:
        """Build both parts."""
        super().__init__()
        self.vqgan = VQGAN(config.vqgan)
        self.criterion = TokenizerLoss(config.losses)

    def forward(self, frames_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the loss terms of frames in [-1, 1]."""
        terms: dict[str, Tensor] = self.criterion(frames_BCHW, self.vqgan(frames_BCHW))
        return terms


class TokenizerTask:
    """Random single frames, half of them mirrored."""

    name = "tokenizer"

    def __init__(self, config: TokenizerTrainingConfig, train: FrameSource, validation: FrameClips) -> None:
        """Build the model; the validation frames are spread evenly over the validation clips."""
        self.model: nn.Module = TokenizerModule(config)
        self.train = train
        flat = np.linspace(
            0, len(validation) * validation.frames_per_clip - 1, config.num_validation_frames
        ).astype(int)
        frames = [
            validation.frames[i // validation.frames_per_clip, i % validation.frames_per_clip] for i in flat
        ]
        self.validation_BHWC = torch.from_numpy(np.stack(frames))

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[Tensor]:
        """Yield uint8 frames (B, H, W, 3); a row depends on the seed and its number alone."""
        held = self.train.per_step(start_step=start_step, seed=seed, rank=rank, world_size=world_size)
        for step, clips in enumerate(held, start=start_step):
            draws = RowDraws(seed, rows_of(step, batch_size, rank=rank, world_size=world_size))
            chosen = draws.whole(len(clips)).tolist()
            times = draws.whole(clips.frames_per_clip).tolist()
            is_flipped = draws.chance(0.5).tolist()
            frames = [clips.frames[i, t] for i, t in zip(chosen, times, strict=True)]
            frames = [
                frame[:, ::-1] if flip else frame for frame, flip in zip(frames, is_flipped, strict=True)
            ]
            yield torch.from_numpy(np.stack(frames))

    def losses(self, model: nn.Module, batch: Tensor, draws: RowDraws) -> dict[str, Tensor]:
        """Return the named loss terms of one batch."""
        del draws  # nothing random beyond the batch
        terms: dict[str, Tensor] = model(normalized(batch))
        return terms

    def num_frames(self, batch: Tensor) -> int:
        """Return the frames in a batch."""
        return len(batch)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        """Return PSNR and codebook use on the validation frames, and a picture of originals above reconstructions."""
        vqgan: VQGAN = model.vqgan  # type: ignore[assignment]
        device = next(vqgan.parameters()).device
        outputs, ids = [], []
        for frames in self.validation_BHWC.split(16):
            token_ids_BS = vqgan.encode(normalized(frames.to(device)))
            ids.append(token_ids_BS.cpu())
            outputs.append(to_uint8(vqgan.decode(token_ids_BS)).cpu())
        output_BHWC = torch.cat(outputs)
        quality_db = float(psnr(output_BHWC.numpy(), self.validation_BHWC.numpy()).mean())
        usage = codebook_usage(torch.cat(ids), vqgan.codebook_size)
        shown = slice(None, None, max(1, len(output_BHWC) // 6))
        pairs = torch.stack([self.validation_BHWC[shown][:6], output_BHWC[shown][:6]])
        picture = rearrange(pairs, "k n h w c -> (n h) (k w) c").numpy()
        return Evaluation(metrics={"psnr_db": quality_db, "codebook_usage": usage}, picture=picture)


def make_task(config: TokenizerTrainingConfig, train: FrameSource, validation: FrameClips) -> TokenizerTask:
    """Return the training task of the tokenizer."""
    return TokenizerTask(config, train, validation)


def save_tokenizer(model: nn.Module, path: Path, *, facts: dict[str, Any] | None = None) -> None:
    """Write the trained tokenizer of a training module as a checkpoint of its own."""
    vqgan: VQGAN = model.vqgan  # type: ignore[assignment]
    save_module(vqgan, path, kind="tokenizer", config=vqgan.config, facts=facts)
