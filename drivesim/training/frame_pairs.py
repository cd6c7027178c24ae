"""Pairs of neighbouring frames, and the ways in which they are spoiled as a tokenizer or world model would.

Letters: `B` pairs, `P` = 2 frames of a pair, `C H W` picture, `A` = 2 (speed in m/s, yaw rate in rad/s).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from drivesim.tokenizer.vqgan import normalized
from drivesim.training.data import RecordedClips
from drivesim.training.row_draws import RowDraws

RUINED_PX = 32
ReconstructFn = Callable[[Tensor], Tensor]  # uint8 (B, H, W, 3) -> the same through a tokenizer


@dataclass(kw_only=True, slots=True)
class SpoilingConfig:
    """How training pairs are degraded; shares are probabilities per pair."""

    flip_share: float = 0.5
    blur_share: float = 0.3
    max_blur_px: int = 5
    block_share: float = 0.4
    max_block_noise: float = 0.15  # on the [-1, 1] scale, drawn anew for each frame
    brightness: float = 0.25
    contrast: float = 0.3
    mismatch_share: float = 0.03  # whose later frame is another one
    ruined_share: float = 0.03  # blurred until nothing is left to be read
    reconstructed_share: float = 0.35  # of the pairs, when reconstructions are given

    def __post_init__(self) -> None:
        """Refuse shares outside [0, 1]."""
        for name in (name for name in self.__slots__ if name.endswith("_share")):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"spoiling.{name} is a share between 0 and 1, got {getattr(self, name)}")


@dataclass(kw_only=True, slots=True)
class PairBatch:
    """Frame pairs with the motion between them."""

    previous_BHWC: Tensor  # uint8
    current_BHWC: Tensor  # uint8
    twist_BA: Tensor  # float32: speed m/s, yaw rate rad/s

    def to(self, device: torch.device) -> PairBatch:
        """Return the batch on another device."""
        return PairBatch(
            previous_BHWC=self.previous_BHWC.to(device),
            current_BHWC=self.current_BHWC.to(device),
            twist_BA=self.twist_BA.to(device),
        )


@dataclass(kw_only=True, slots=True)
class SpoiledPairs:
    """What the network is trained on."""

    previous_BCHW: Tensor  # float in [-1, 1]
    current_BCHW: Tensor  # float in [-1, 1]
    twist_BA: Tensor  # float32: speed m/s, yaw rate rad/s


def draw_pairs(clips: RecordedClips, draws: RowDraws) -> PairBatch:
    """Draw neighbouring frames from random clips, with the motion that leads from one to the next."""
    clip = draws.whole(len(clips)).numpy()
    time = 1 + draws.whole(clips.frames_per_clip - 1).numpy()
    previous = np.stack([clips.frames[i, t - 1] for i, t in zip(clip, time, strict=True)])
    current = np.stack([clips.frames[i, t] for i, t in zip(clip, time, strict=True)])
    return PairBatch(
        previous_BHWC=torch.from_numpy(previous),
        current_BHWC=torch.from_numpy(current),
        twist_BA=torch.from_numpy(clips.twist[clip, time].astype(np.float32)),
    )


def replace_some(batch: PairBatch, pool: PairBatch, draws: RowDraws, share: float) -> None:
    """Replace about a ``share`` of a batch, in place, by pairs drawn from ``pool``."""
    is_replaced = draws.chance(share)
    chosen = draws.whole(len(pool.twist_BA))[is_replaced]
    batch.previous_BHWC[is_replaced] = pool.previous_BHWC[chosen]
    batch.current_BHWC[is_replaced] = pool.current_BHWC[chosen]
    batch.twist_BA[is_replaced] = pool.twist_BA[chosen]


def mismatch_some(batch: PairBatch, clips: RecordedClips, draws: RowDraws, share: float) -> None:
    """Replace the later frame of about a ``share`` of a batch, in place, by any frame; the motion is then not seen."""
    clip, time = draws.whole(len(clips)).tolist(), draws.whole(clips.frames_per_clip).tolist()
    for row in torch.nonzero(draws.chance(share)).flatten().tolist():
        batch.current_BHWC[row] = torch.from_numpy(clips.frames[clip[row], time[row]])


@torch.no_grad()
def reconstructed(pairs: PairBatch, reconstruct_fn: ReconstructFn, *, batch_size: int = 16) -> PairBatch:
    """Return the pairs as a tokenizer gives them back."""
    previous = torch.cat([reconstruct_fn(part).cpu() for part in pairs.previous_BHWC.split(batch_size)])
    current = torch.cat([reconstruct_fn(part).cpu() for part in pairs.current_BHWC.split(batch_size)])
    return PairBatch(previous_BHWC=previous, current_BHWC=current, twist_BA=pairs.twist_BA)


@torch.no_grad()
def spoil(batch: PairBatch, config: SpoilingConfig, draws: RowDraws) -> SpoiledPairs:
    """Mirror, brighten, blur and make blocky, each by the config's chance.

    A mirrored pair has its yaw rate negated; a ruined pair keeps its motion, which can then not be read.
    """
    pair_BPCHW = torch.stack([normalized(batch.previous_BHWC), normalized(batch.current_BHWC)], dim=1)
    is_flipped_B = draws.chance(config.flip_share)
    pair_BPCHW = torch.where(_per_pair(is_flipped_B), pair_BPCHW.flip(-1), pair_BPCHW)
    sign_B = 1.0 - 2.0 * is_flipped_B.float()
    twist_BA = torch.stack([batch.twist_BA[:, 0], batch.twist_BA[:, 1] * sign_B], dim=-1)
    gain_B, lift_B = 1 + _spread(draws, config.contrast), _spread(draws, config.brightness)
    pair_BPCHW = pair_BPCHW * _per_pair(gain_B) + _per_pair(lift_B)
    pair_BPCHW = _blur_some(pair_BPCHW, config, draws)
    is_ruined_B = draws.chance(config.ruined_share)
    if bool(is_ruined_B.any()):
        pair_BPCHW[is_ruined_B] = _blur(pair_BPCHW[is_ruined_B], RUINED_PX)
    strength_B = config.max_block_noise * _spread(draws, 1.0).abs() * draws.chance(config.block_share)
    pair_BPCHW = (pair_BPCHW + _per_pair(strength_B) * _block_noise(pair_BPCHW, draws)).clamp(-1, 1)
    previous_BCHW, current_BCHW = pair_BPCHW.unbind(1)
    return SpoiledPairs(previous_BCHW=previous_BCHW, current_BCHW=current_BCHW, twist_BA=twist_BA)


def _spread(draws: RowDraws, width: float) -> Tensor:
    return width * (2 * draws.uniform((len(draws),)) - 1)


def _per_pair(values_B: Tensor) -> Tensor:
    return rearrange(values_B, "B -> B 1 1 1 1")


def _blur_some(pair_BPCHW: Tensor, config: SpoilingConfig, draws: RowDraws) -> Tensor:
    is_blurred_B = draws.chance(config.blur_share)
    factors_B = 2 + (draws.uniform((len(draws),)) * (config.max_blur_px - 1)).long()
    for factor in range(2, config.max_blur_px + 1):
        is_chosen_B = is_blurred_B & (factors_B == factor)
        if bool(is_chosen_B.any()):
            pair_BPCHW[is_chosen_B] = _blur(pair_BPCHW[is_chosen_B], factor)
    return pair_BPCHW


def _blur(pair_BPCHW: Tensor, factor: int) -> Tensor:
    """Average over ``factor`` pixels and stretch back: the detail that a tokenizer loses."""
    height, width = pair_BPCHW.shape[-2:]
    flat_BCHW = rearrange(pair_BPCHW, "B P C H W -> (B P) C H W")
    small_BCHW = functional.interpolate(
        flat_BCHW, size=(height // factor, width // factor), mode="bilinear", antialias=True
    )
    soft_BCHW = functional.interpolate(small_BCHW, size=(height, width), mode="bilinear")
    return rearrange(soft_BCHW, "(B P) C H W -> B P C H W", P=pair_BPCHW.shape[1])


def _block_noise(pair_BPCHW: Tensor, draws: RowDraws) -> Tensor:
    """Return noise that is smooth within token-sized blocks and differs from frame to frame."""
    pairs, per_pair, channels, height, width = pair_BPCHW.shape
    small = draws.normal((pairs, per_pair, channels, height // 8, width // 8)).flatten(0, 1)
    noise_BCHW = functional.interpolate(small, size=(height, width), mode="bilinear")
    return rearrange(noise_BCHW, "(B P) C H W -> B P C H W", P=per_pair)


@torch.no_grad()
def blurred(pairs: PairBatch, *, factor: int) -> PairBatch:
    """Return the pairs averaged over ``factor`` pixels."""
    pair_BPCHW = torch.stack([normalized(pairs.previous_BHWC), normalized(pairs.current_BHWC)], dim=1)
    bytes_BPCHW = ((_blur(pair_BPCHW, factor) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    frames_BPHWC = rearrange(bytes_BPCHW, "B P C H W -> B P H W C")
    return PairBatch(
        previous_BHWC=frames_BPHWC[:, 0], current_BHWC=frames_BPHWC[:, 1], twist_BA=pairs.twist_BA
    )
