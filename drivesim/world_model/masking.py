"""Mask schedules and masks: pure functions (WorldDreamer section 3.3, MaskGIT).

Letters: `B` batch, `T` frames, `S` tokens per frame.
"""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor


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


def random_mask(shape: tuple[int, ...], rate: Tensor, generator: torch.Generator | None) -> Tensor:
    """Hide ``max(1, round(rate * S))`` random tokens of the last dimension; ``rate`` has shape ``shape[:-1]``."""
    num_tokens = shape[-1]
    count = (rate * num_tokens).round().clamp_min(1).unsqueeze(-1)
    order = torch.rand(shape, generator=generator).argsort(dim=-1).argsort(dim=-1)
    return order < count


def draw_mask(
    kind: MaskKind, batch: int, frames: int, tokens: int, generator: torch.Generator | None
) -> Tensor:
    """Return ``is_masked_BTS`` for a training batch, on the CPU.

    The rate is ``cos(pi * u / 2)`` with ``u`` uniform (Muse; the paper's expression in section 3.3 is its density).
    """
    rate_BT = _cosine_rates((batch, frames), generator)
    is_masked_BTS = random_mask((batch, frames, tokens), rate_BT, generator)
    if kind in _TUBE_SHARE:
        tube_B1S = random_mask((batch, 1, tokens), _cosine_rates((batch, 1), generator), generator)
        is_tube_B11 = torch.rand(batch, 1, 1, generator=generator) < _TUBE_SHARE[kind]
        is_masked_BTS = torch.where(is_tube_B11, tube_B1S, is_masked_BTS)
    if kind in _WHOLE_SHARE:
        is_masked_BTS |= torch.rand(batch, frames, 1, generator=generator) < _WHOLE_SHARE[kind]
    return is_masked_BTS


def _cosine_rates(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    return torch.cos(0.5 * math.pi * torch.rand(shape, generator=generator))
