"""Tokens in and out of the transformer by what they mean: a code is its numbers, not only its name.

With finite scalar quantization every code is a row of digits; codes that share digits share most of their embedding
and logits, so that neighbouring codes, which look alike, are learned together. Any other codebook uses its vectors.

Letters: see ``drivesim/world_model/__init__.py``; `G` guide numbers per token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from drivesim.tokenizer.quantizer import FiniteScalarQuantizer, Quantizer


def code_features(quantizer: Quantizer) -> Tensor:
    """Return a feature row per code (K, M): one-hot digits for FSQ, else the codebook vectors."""
    token_ids_K = torch.arange(quantizer.codebook_size)
    if isinstance(quantizer, FiniteScalarQuantizer):
        digits_KQ = quantizer.digits_of(token_ids_K)
        rows = [functional.one_hot(digits_KQ[:, i], level) for i, level in enumerate(quantizer.levels)]
        return torch.cat(rows, dim=-1).float()
    return quantizer.codes(token_ids_K).clone()


def soft_digits(bounded: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Return (..., sum of levels): each number in [-1, 1] spread linearly over its two nearest levels.

    The middle of a level gives that level's one-hot row, so a code's own point gives its :func:`code_features`.
    """
    parts = []
    for i, level in enumerate(levels):
        position = ((bounded[..., i] + 1) / 2 * level - 0.5).clamp(0, level - 1).unsqueeze(-1)
        cells = torch.arange(level, device=bounded.device, dtype=position.dtype)
        parts.append((1 - (position - cells).abs()).clamp_min(0))
    return torch.cat(parts, dim=-1)


class TokenEmbedding(nn.Module):
    """Embedding of visible and hidden tokens, their place, and the guide."""

    features_KM: Tensor

    def __init__(self, dim: int, quantizer: Quantizer, *, num_tokens: int, guide_dim: int) -> None:
        """Build tables for ``num_tokens`` places; ``guide_dim`` 0 means no guide."""
        super().__init__()
        features_KM = code_features(quantizer)
        self.register_buffer("features_KM", features_KM, persistent=not quantizer.levels)
        self.code = nn.Linear(features_KM.shape[1], dim, bias=False)
        self.name = nn.Embedding(quantizer.codebook_size, dim)
        self.mask_C = nn.Parameter(torch.randn(dim) * 0.02)
        self.place_SC = nn.Parameter(torch.randn(num_tokens, dim) * 0.02)
        self.guide = nn.Linear(guide_dim, dim) if guide_dim else None
        nn.init.zeros_(self.name.weight)

    def forward(self, token_ids_BTS: Tensor, is_masked_BTS: Tensor, guide_BTSG: Tensor | None) -> Tensor:
        """Return (B, T, S, C); where a token is masked its id is not read."""
        known = self._codes(token_ids_BTS) + self.name(token_ids_BTS)
        x_BTSC = torch.where(is_masked_BTS.unsqueeze(-1), self.mask_C.to(known.dtype), known) + self.place_SC
        if self.guide is not None and guide_BTSG is not None:
            x_BTSC = x_BTSC + self.guide(guide_BTSG.to(self.guide.weight.dtype))
        return x_BTSC.to(known.dtype)

    def _codes(self, token_ids_BTS: Tensor) -> Tensor:
        """Return what the codes' features become (B, T, S, C), worked out for whichever are fewer: codes or tokens."""
        if token_ids_BTS.numel() < len(self.features_KM):
            projected: Tensor = self.code(functional.embedding(token_ids_BTS, self.features_KM))
            return projected
        return functional.embedding(token_ids_BTS, self.code(self.features_KM))


class TokenHead(nn.Module):
    """Logits over the codebook: a part shared through the codes' features, and a part for each code.

    A guide that begins with soft digits is added to the shared part directly, so that an untrained model already
    predicts what motion compensation expects.
    """

    features_KM: Tensor

    def __init__(self, dim: int, quantizer: Quantizer, *, guide_dim: int) -> None:
        """Build the head; the part per code starts at zero."""
        super().__init__()
        features_KM = code_features(quantizer)
        self.register_buffer("features_KM", features_KM, persistent=not quantizer.levels)
        num_features = features_KM.shape[1]
        self.norm = nn.LayerNorm(dim)
        self.shared = nn.Linear(dim, num_features)
        self.per_code = nn.Linear(dim, quantizer.codebook_size, bias=True)
        self.skip = nn.Linear(num_features, num_features, bias=False) if guide_dim >= num_features else None
        nn.init.zeros_(self.shared.weight)
        nn.init.zeros_(self.per_code.weight)
        nn.init.zeros_(self.per_code.bias)
        if self.skip is not None:
            with torch.no_grad():
                self.skip.weight.copy_(2.0 * torch.eye(num_features))

    def forward(self, x: Tensor, guide: Tensor | None) -> Tensor:
        """Return logits (..., K) for features (..., C)."""
        h = self.norm(x)
        shared = self.shared(h)
        if self.skip is not None and guide is not None:
            shared = shared + self.skip(guide[..., : self.skip.in_features].to(shared.dtype))
        logits: Tensor = shared @ self.features_KM.T.to(shared.dtype) + self.per_code(h)
        return logits
