"""Prompts read by a frozen T5 and mapped to the transformer's width (WorldDreamer section 3.2).

The T5 itself is no part of the model's weights. Letters: see ``drivesim/world_model/__init__.py``; `K` prompt tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from drivesim.errors import InputError
from drivesim.world_model.prompts import PreparedPrompts, PromptEmbedding
from drivesim.world_model.t5 import T5Embeddings


class T5Encoder(nn.Module):
    """A T5's last hidden states through a learned projection; the T5 is opened when the first text is read."""

    def __init__(self, t5: str, *, embedding_dim: int, max_tokens: int, dim: int, cache: str = "") -> None:
        """Build the projection from ``embedding_dim`` to ``dim`` numbers.

        Args:
            t5: name or folder of the T5.
            embedding_dim: the width of its hidden states.
            max_tokens: longer texts are cut.
            dim: the width C of the transformer.
            cache: folder in which the hidden states of texts are kept; none are with "".
        """
        super().__init__()
        self.t5, self.embedding_dim, self.max_tokens = t5, embedding_dim, max_tokens
        self.cache_folder = Path(cache) if cache else None
        self.projection = nn.Linear(embedding_dim, dim)
        self._encoder: T5Embeddings | None = None

    def prepared(self, texts: Sequence[str], *, is_cut: bool = False) -> PreparedPrompts:
        """Return the T5's ``tokens`` (B, K, D) and which are given, (B, K); too long texts are cut with a warning.

        Raises:
            InputError: no T5 is named, it is not on this machine, or it is of another width.
        """
        known = [text.encode("utf-8", errors="replace").decode() for text in texts] if is_cut else list(texts)
        embedding = self._opened().encode(known)
        return {"tokens": embedding.tokens_BKC, "is_given": embedding.is_given_BK}

    def forward(self, prepared: PreparedPrompts) -> PromptEmbedding:
        """Return the prompts' tokens in the transformer's width."""
        tokens_BKC = self.projection(prepared["tokens"].to(self.projection.weight.dtype))
        return PromptEmbedding(tokens_BKC=tokens_BKC, is_given_BK=prepared["is_given"])

    def _opened(self) -> T5Embeddings:
        if self._encoder is None:
            if not self.t5:
                raise InputError(
                    "prompts are to be read by a T5, but none is named; name one with --t5 or model.t5"
                )
            encoder = T5Embeddings(
                self.t5, max_tokens=self.max_tokens, cache_folder=self.cache_folder, is_lazy=True
            )
            if encoder.dim != self.embedding_dim:
                raise InputError(
                    f"T5 {self.t5!r} has {encoder.dim} numbers per token, the model reads {self.embedding_dim}; "
                    f"set model.t5_dim={encoder.dim} or name another"
                )
            self._encoder = encoder
        return self._encoder
