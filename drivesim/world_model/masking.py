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
    NEXT_FRAME = (
        "next_frame"  # half of the frames wholly hidden, the others as PER_FRAME: what an env step sees
    )


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
    if kind is MaskKind.TUBE:
        rate = torch.cos(0.5 * math.pi * torch.rand(batch, generator=generator))
        tube_BS = random_mask((batch, tokens), rate, generator)
        return tube_BS.unsqueeze(1).expand(batch, frames, tokens).clone()
    rate = torch.cos(0.5 * math.pi * torch.rand(batch, frames, generator=generator))
    is_masked_BTS = random_mask((batch, frames, tokens), rate, generator)
    if kind is MaskKind.NEXT_FRAME:
        is_whole_BT = torch.rand(batch, frames, generator=generator) < 0.5
        is_masked_BTS = is_masked_BTS | is_whole_BT.unsqueeze(-1)
    return is_masked_BTS
