"""Mask schedules and masks: pure functions (WorldDreamer section 3.3, MaskGIT).

Letters: `B` batch, `T` frames, `S` tokens per frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from einops import rearrange
from torch import Tensor

Chance = torch.Generator | Callable[[tuple[int, ...]], Tensor] | None
"""Where random numbers come from: a generator, PyTorch's own, or what returns uniform ones of a shape."""


class MaskKind(Enum):
    """Which tokens of a training clip are hidden."""

    TUBE = "tube"  # the paper: the same tokens in all frames, at a cosine rate
    PER_FRAME = "per_frame"  # a cosine rate and random tokens for every frame
    NEXT_FRAME = "next_frame"  # half of the frames wholly hidden, the others as PER_FRAME
    MIXED = "mixed"  # most frames wholly hidden, the others as PER_FRAME or, in half of the clips, as TUBE


_WHOLE_SHARE = {MaskKind.NEXT_FRAME: 0.5, MaskKind.MIXED: 0.75}
"""Share of the frames that are wholly hidden: what an env step begins with. The others are what its rounds see."""

_TUBE_SHARE = {MaskKind.TUBE: 1.0, MaskKind.MIXED: 0.5}
"""Share of the clips whose frames, where not wholly hidden, hide the same tokens."""


def cosine_rate(progress: float) -> float:
    """Return the share of tokens still hidden when ``progress`` in [0, 1] of the decoding is over."""
    return math.cos(0.5 * math.pi * min(max(progress, 0.0), 1.0))


def num_masked_after(round_index: int, num_rounds: int, num_tokens: int) -> int:
    """Return how many tokens stay hidden after a decoding round: strictly falling, and 0 after the last.

    Args:
        round_index: 0 for the first round.
        num_rounds: rounds in all, at most ``num_tokens``.
        num_tokens: tokens hidden at the start.
    """
    if not num_rounds >= 1:
        raise ValueError(f"num_decode_steps must be at least 1, got {num_rounds}")
    wanted = math.floor(cosine_rate((round_index + 1) / num_rounds) * num_tokens)
    if round_index + 1 >= num_rounds:
        return 0
    return max(0, min(wanted, num_tokens - 1 - round_index))


def random_mask(shape: tuple[int, ...], rate: Tensor, chance: Chance) -> Tensor:
    """Hide ``max(1, round(rate * S))`` random tokens of the last dimension; ``rate`` has shape ``shape[:-1]``."""
    num_tokens = shape[-1]
    count = (rate * num_tokens).round().clamp_min(1).unsqueeze(-1)
    order = _uniform(shape, chance).argsort(dim=-1).argsort(dim=-1)
    return order < count


def draw_mask(kind: MaskKind, batch: int, frames: int, tokens: int, chance: Chance) -> Tensor:
    """Return ``is_masked_BTS`` for a training batch, on the CPU.

    The rate is ``cos(pi * u / 2)`` with ``u`` uniform (Muse; the paper's expression in section 3.3 is its density).
    """
    rate_BT = _cosine_rates((batch, frames), chance)
    is_masked_BTS = random_mask((batch, frames, tokens), rate_BT, chance)
    if kind in _TUBE_SHARE:
        tube_B1S = random_mask((batch, 1, tokens), _cosine_rates((batch, 1), chance), chance)
        is_tube_B11 = _uniform((batch, 1, 1), chance) < _TUBE_SHARE[kind]
        is_masked_BTS = torch.where(is_tube_B11, tube_B1S, is_masked_BTS)
    if kind in _WHOLE_SHARE:
        is_masked_BTS |= _uniform((batch, frames, 1), chance) < _WHOLE_SHARE[kind]
    return is_masked_BTS


@dataclass(kw_only=True, slots=True)
class ClipMaskConfig:
    """Shares of what is hidden in the training clips of a video model.

    The paper has tubes only, which never show the model what most tasks ask for. Frame by frame, where earlier frames
    are always given, ``prefix`` hides all of every frame.
    """

    tube: float = 0.15  # the same tokens of all frames (the paper)
    scattered: float = 0.35  # tokens anywhere in the clip: what decoding rounds leave behind
    prefix: float = 0.3  # the first frames are given, of the others scattered tokens are hidden: prediction
    box: float = 0.2  # a rectangle of all frames, and of it scattered tokens: inpainting

    def __post_init__(self) -> None:
        """Refuse shares that are no shares."""
        if not (min(self.shares()) >= 0 and abs(sum(self.shares()) - 1) <= 1e-6):
            raise ValueError(f"shares of clip masks must be >= 0 and add up to 1, got {self.shares()}")

    def shares(self) -> tuple[float, ...]:
        """Return the shares in the order of the fields."""
        return self.tube, self.scattered, self.prefix, self.box


def draw_clip_mask(
    config: ClipMaskConfig, batch: int, frames: int, grid: tuple[int, int], chance: Chance
) -> Tensor:
    """Return ``is_masked_BTS`` for clips, or images where ``frames`` is 1; every clip hides one token at least.

    For models that see all frames at once; :func:`draw_frame_masks` is for those that finish frame after frame.
    """
    tokens = grid[0] * grid[1]
    rate_B1 = _cosine_rates((batch, 1), chance)
    kind_B11 = _kinds(config, batch, chance)
    tube_BTS = random_mask((batch, 1, tokens), rate_B1, chance).expand(-1, frames, -1)
    scattered_BS = random_mask((batch, frames * tokens), rate_B1[:, 0], chance)
    scattered_BTS = rearrange(scattered_BS, "b (t s) -> b t s", t=frames)
    # One frame is given most often: image to video.
    given_B1 = (_uniform((batch, 1), chance) ** 3 * (frames - 1)).floor() + 1
    is_later_BT1 = (torch.arange(frames) >= given_B1.clamp(max=max(frames - 1, 0))).unsqueeze(-1)
    box_B1S = _random_boxes(batch, grid, chance)
    parts = [tube_BTS, scattered_BTS, scattered_BTS & is_later_BT1, scattered_BTS & box_B1S]
    masks = torch.stack([part.expand(-1, frames, -1) for part in parts])
    is_masked_BTS = masks.gather(0, kind_B11.expand(-1, frames, tokens).unsqueeze(0)).squeeze(0)
    is_empty_B11 = ~is_masked_BTS.flatten(1).any(-1)[:, None, None]
    return torch.where(is_empty_B11, scattered_BTS, is_masked_BTS)


def draw_frame_masks(
    config: ClipMaskConfig,
    batch: int,
    frames: int,
    grid: tuple[int, int],
    chance: Chance,
    *,
    whole_share: float = 0.0,
) -> Tensor:
    """Return ``is_masked_BTS`` for clips that are finished frame after frame; every frame hides one token at least.

    Args:
        config: shares of the kinds of masks.
        batch: clips.
        frames: of a clip.
        grid: rows and columns of tokens.
        chance: source of all randomness.
        whole_share: share of the frames after the first whose mask is full: all tokens if it is scattered, all of the
            rectangle if it is a box; tubes are unaffected. Visible tokens show where things went, so that a model
            learns to rely on them and not on the text.
    """
    tokens = grid[0] * grid[1]
    rate_BT = _cosine_rates((batch, frames), chance)
    if whole_share and frames > 1:
        is_whole_BT = _uniform((batch, frames - 1), chance) < whole_share
        rate_BT[:, 1:] = torch.where(is_whole_BT, 1.0, rate_BT[:, 1:])
    kind_B11 = _kinds(config, batch, chance)
    tube_BTS = random_mask((batch, 1, tokens), rate_BT[:, :1], chance).expand(-1, frames, -1)
    scattered_BTS = random_mask((batch, frames, tokens), rate_BT, chance)
    boxed_BTS = scattered_BTS & _random_boxes(batch, grid, chance)
    boxed_BTS = torch.where(boxed_BTS.any(-1, keepdim=True), boxed_BTS, scattered_BTS)
    masks = torch.stack([tube_BTS, scattered_BTS, torch.ones_like(scattered_BTS), boxed_BTS])
    return masks.gather(0, kind_B11.expand(-1, frames, tokens).unsqueeze(0)).squeeze(0)


def draw_hole_mask(hole_BS: Tensor, frames: int, chance: Chance, *, whole_share: float = 0.0) -> Tensor:
    """Return ``is_masked_BTS`` of clips or images with a hole: all tokens of it, or scattered ones, one at least.

    Args:
        hole_BS: the same in all frames.
        frames: of a clip; images have one.
        chance: source of all randomness.
        whole_share: share of the frames after the first that hide all of it; of first ones half do.
    """
    batch, tokens = hole_BS.shape
    is_whole_BT = _uniform((batch, frames), chance) < torch.tensor([0.5] + [whole_share] * (frames - 1))
    rate_BT = torch.where(is_whole_BT, 1.0, _cosine_rates((batch, frames), chance))
    hole_B1S = hole_BS.unsqueeze(1)
    is_masked_BTS = hole_B1S & random_mask((batch, frames, tokens), rate_BT, chance)
    return torch.where(is_masked_BTS.any(-1, keepdim=True), is_masked_BTS, hole_B1S)


def hidden_about(box_B4: Tensor, grid: tuple[int, int], chance: Chance) -> Tensor:
    """Hide tokens of a box and up to two around it on every side: all, or in half of the rows scattered ones.

    Decoding fixes first what is most certain, and that is scenery: its last rounds see a hole where a thing is to be.

    Args:
        box_B4: left, top, right, bottom in shares of the frame; NaN hides nothing.
        grid: rows and columns of tokens.
        chance: source of all randomness.

    Returns:
        ``is_masked_BS``.
    """
    batch = len(box_B4)
    margin_B4 = (3 * _uniform((batch, 4), chance)).floor()
    spans = []
    for size, low, high in ((grid[0], 1, 3), (grid[1], 0, 2)):
        first_B1 = (box_B4[:, low, None] * size).floor() - margin_B4[:, low, None]
        spans.append((first_B1, (box_B4[:, high, None] * size).ceil() + margin_B4[:, high, None]))
    is_inside_BS = rectangles(grid, spans)
    rate_B = torch.where(_uniform((batch,), chance) < 0.5, 1.0, _cosine_rates((batch,), chance))
    return is_inside_BS & random_mask((batch, grid[0] * grid[1]), rate_B, chance)


def _kinds(config: ClipMaskConfig, batch: int, chance: Chance) -> Tensor:
    """Return which kind of mask each clip has, (B, 1, 1)."""
    ends = torch.tensor(config.shares()).cumsum(0)
    return torch.bucketize(_uniform((batch, 1, 1), chance), ends[:-1], right=True)


def _random_boxes(batch: int, grid: tuple[int, int], chance: Chance) -> Tensor:
    """Return rectangles of a third to three quarters of each side, (B, 1, S)."""
    spans = []
    for size in grid:
        length = (size * (0.33 + 0.42 * _uniform((batch, 1), chance))).round().clamp_min(1)
        first = (_uniform((batch, 1), chance) * (size - length + 1)).floor()
        spans.append((first, first + length))
    return rectangles(grid, spans).unsqueeze(1)


def rectangles(grid: tuple[int, int], spans: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return which tokens (B, S) lie in rectangles, from their first row and column (B, 1) to before their ends."""
    rows, columns = (
        (torch.arange(size) >= first_B1) & (torch.arange(size) < end_B1)
        for size, (first_B1, end_B1) in zip(grid, spans, strict=True)
    )
    return (rows.unsqueeze(-1) & columns.unsqueeze(1)).flatten(1)


def _cosine_rates(shape: tuple[int, ...], chance: Chance) -> Tensor:
    return torch.cos(0.5 * math.pi * _uniform(shape, chance))


def _uniform(shape: tuple[int, ...], chance: Chance) -> Tensor:
    return chance(shape) if callable(chance) else torch.rand(shape, generator=chance)
