"""Quantizers: continuous latents to token ids with a straight-through gradient.

Both quantizers compute in float32 whatever the autocast says: in bfloat16 the nearest-code search collapses.
Letters: `B` batch, `S` tokens per frame, `Q` numbers per code, `K` codebook size, `G` digit values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional


@dataclass(kw_only=True, slots=True)
class Quantized:
    """What a quantizer returns."""

    codes_BSQ: Tensor  # codebook vectors, with the straight-through gradient
    token_ids_BS: Tensor  # int64
    loss: Tensor  # scalar; zero for finite scalar quantization


class Quantizer(Protocol):
    """What the tokenizer and the world model ask of a quantizer."""

    codebook_size: int
    code_dim: int
    levels: tuple[int, ...]

    def __call__(self, latents_BSQ: Tensor) -> Quantized:
        """Quantize latents."""
        ...

    def codes(self, token_ids: Tensor) -> Tensor:
        """Return the codebook vectors of token ids, shape (..., Q)."""
        ...

    def bounded(self, latents_BSQ: Tensor) -> Tensor:
        """Return the continuous point of code space that would be rounded to a code."""
        ...

    def nearest(self, bounded_BSQ: Tensor) -> Tensor:
        """Return the token ids (B, S) nearest to points of code space."""
        ...


class FiniteScalarQuantizer(nn.Module):
    """Finite scalar quantization (Mentzer et al., 2023): every number is squashed and rounded to a few levels.

    Args:
        levels: number of levels per dimension; the codebook size is their product.
    """

    levels_Q: Tensor
    strides_Q: Tensor

    def __init__(self, levels: list[int]) -> None:
        """Refuse fewer than two levels per dimension."""
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"fsq_levels needs at least one dimension of two levels or more, got {levels}")
        self.levels = tuple(levels)
        self.code_dim = len(levels)
        self.codebook_size = math.prod(levels)
        strides = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("levels_Q", torch.tensor(levels, dtype=torch.float32), persistent=False)
        self.register_buffer("strides_Q", torch.tensor(strides, dtype=torch.int64), persistent=False)

    def bounded(self, latents_BSQ: Tensor) -> Tensor:
        """Squash to [-1, 1]: the code grid divides this interval into equal cells."""
        return torch.tanh(latents_BSQ.float())

    def digits(self, bounded_BSQ: Tensor) -> Tensor:
        """Return the level index of each number, int64 in [0, level)."""
        cells = torch.floor((bounded_BSQ + 1) / 2 * self.levels_Q)
        return torch.minimum(cells, self.levels_Q - 1).clamp_min(0).long()

    def nearest(self, bounded_BSQ: Tensor) -> Tensor:
        """Return the token ids (B, S) of the cells that points of [-1, 1] lie in."""
        return (self.digits(bounded_BSQ.float()) * self.strides_Q).sum(-1)

    def forward(self, latents_BSQ: Tensor) -> Quantized:
        """Round ``latents_BSQ`` of shape (B, S, Q) to the middle of their cells."""
        with torch.autocast(latents_BSQ.device.type, enabled=False):
            bounded_BSQ = self.bounded(latents_BSQ)
            digits_BSQ = self.digits(bounded_BSQ)
            rounded_BSQ = self.values(digits_BSQ)
            codes_BSQ = bounded_BSQ + (rounded_BSQ - bounded_BSQ).detach()
        token_ids_BS = (digits_BSQ * self.strides_Q).sum(-1)
        return Quantized(codes_BSQ=codes_BSQ, token_ids_BS=token_ids_BS, loss=latents_BSQ.new_zeros(()))

    def values(self, digits: Tensor) -> Tensor:
        """Return the middle of each digit's cell, in (-1, 1)."""
        return (digits.float() + 0.5) / self.levels_Q * 2 - 1

    def digits_of(self, token_ids: Tensor) -> Tensor:
        """Return the digits (..., Q) of token ids."""
        return (token_ids.unsqueeze(-1) // self.strides_Q) % self.levels_Q.long()

    def codes(self, token_ids: Tensor) -> Tensor:
        """Return the codebook vectors (..., Q) of token ids."""
        return self.values(self.digits_of(token_ids))


class VectorQuantizer(nn.Module):
    """Nearest-code quantization with an exponential-moving-average codebook (VQ-VAE, VQGAN).

    Several training processes count together, so that their codebooks stay one.
    Codes that are used less than ``revive_below`` times the uniform rate are replaced by random latents of the batch.
    """

    codebook_KQ: Tensor
    ema_count_K: Tensor
    ema_sum_KQ: Tensor

    def __init__(
        self,
        codebook_size: int,
        code_dim: int,
        *,
        decay: float = 0.99,
        commitment: float = 0.25,
        revive_below: float = 0.03,
    ) -> None:
        """Start from random codes; they are drawn to the data within the first steps."""
        super().__init__()
        if codebook_size < 2 or code_dim < 1:
            raise ValueError(
                f"codebook_size must be >= 2 and code_dim >= 1, got {codebook_size} and {code_dim}"
            )
        self.codebook_size = codebook_size
        self.code_dim = code_dim
        self.levels: tuple[int, ...] = ()
        self.decay, self.commitment, self.revive_below = decay, commitment, revive_below
        codebook_KQ = torch.randn(codebook_size, code_dim) / math.sqrt(code_dim)
        self.register_buffer("codebook_KQ", codebook_KQ)
        self.register_buffer("ema_count_K", torch.ones(codebook_size))
        self.register_buffer("ema_sum_KQ", codebook_KQ.clone())

    def bounded(self, latents_BSQ: Tensor) -> Tensor:
        """Return the latents in float32; code space is not bounded here."""
        return latents_BSQ.float()

    def codes(self, token_ids: Tensor) -> Tensor:
        """Return the codebook vectors (..., Q) of token ids."""
        return functional.embedding(token_ids, self.codebook_KQ.float())

    def nearest(self, bounded_BSQ: Tensor) -> Tensor:
        """Return the token ids (B, S) of the codes nearest to points of code space."""
        distances = torch.cdist(bounded_BSQ.float().flatten(0, 1), self.codebook_KQ.float())
        return distances.argmin(-1).reshape(bounded_BSQ.shape[:2])

    def forward(self, latents_BSQ: Tensor) -> Quantized:
        """Replace every latent by its nearest code; in training mode also move the codes."""
        with torch.autocast(latents_BSQ.device.type, enabled=False):
            latents_BSQ = latents_BSQ.float()
            token_ids_BS = self.nearest(latents_BSQ.detach())
            codes_BSQ = self.codes(token_ids_BS)
            loss = self.commitment * functional.mse_loss(latents_BSQ, codes_BSQ)
            if self.training:
                self._update(latents_BSQ.detach().flatten(0, 1), token_ids_BS.flatten())
            codes_BSQ = latents_BSQ + (codes_BSQ - latents_BSQ).detach()
        return Quantized(codes_BSQ=codes_BSQ, token_ids_BS=token_ids_BS, loss=loss)

    @torch.no_grad()
    def _update(self, latents_NQ: Tensor, token_ids_N: Tensor) -> None:
        count_K = torch.bincount(token_ids_N, minlength=self.codebook_size).float()
        sum_KQ = torch.zeros_like(self.ema_sum_KQ).index_add_(0, token_ids_N, latents_NQ)
        _add_over_processes(count_K, sum_KQ)
        self.ema_count_K.lerp_(count_K, 1 - self.decay)
        self.ema_sum_KQ.lerp_(sum_KQ, 1 - self.decay)
        rate = self.ema_count_K / self.ema_count_K.sum() * self.codebook_size
        is_dead_K = rate < self.revive_below
        codebook_KQ = self.ema_sum_KQ / self.ema_count_K.clamp_min(1e-5).unsqueeze(-1)
        chosen_K = torch.randint(len(latents_NQ), (self.codebook_size,), device=latents_NQ.device)
        latents_KQ = _of_the_first_process(latents_NQ[chosen_K])
        self.codebook_KQ.copy_(torch.where(is_dead_K.unsqueeze(-1), latents_KQ, codebook_KQ))
        mean_count = self.ema_count_K.mean()
        self.ema_count_K.copy_(torch.where(is_dead_K, mean_count, self.ema_count_K))
        revived_KQ = self.codebook_KQ * mean_count
        self.ema_sum_KQ.copy_(torch.where(is_dead_K.unsqueeze(-1), revived_KQ, self.ema_sum_KQ))


def _is_one_of_several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _add_over_processes(*tensors: Tensor) -> None:
    if _is_one_of_several():
        for tensor in tensors:
            distributed.all_reduce(tensor)


def _of_the_first_process(tensor: Tensor) -> Tensor:
    if _is_one_of_several():
        distributed.broadcast(tensor, src=0)
    return tensor


def codebook_usage(token_ids: Tensor, codebook_size: int) -> float:
    """Return the share of the codebook that occurs in ``token_ids``."""
    return float(torch.unique(token_ids).numel()) / codebook_size
