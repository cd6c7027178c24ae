"""Text prompts: a text becomes a few tokens that every frame attends to (WorldDreamer section 3.2).

All encoders share one interface: :meth:`PromptEncoder.prepared` turns texts into plain tensors on the CPU, which is
what a data loader does, and the module turns those into a :class:`PromptEmbedding` of the transformer's width. Of every
prompt one token is always there, so that an empty text, and a prompt dropped for guidance, is a prompt too.

Letters: see ``drivesim/world_model/__init__.py``; `K` prompt tokens, `M` bytes of a piece.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from drivesim.errors import InputError

BYTES_PER_PIECE = 12
_WORD = re.compile(rb"[^\s,.;:!?]+|[,.;:!?]")
PreparedPrompts = dict[str, Tensor]
BACKWARDS = "backwards: "


def played_backwards(text: str) -> str:
    """Return the prompt for a clip played backwards, from the one for the clip; a left out prompt stays one."""
    return BACKWARDS + text if text.strip() else text


class PromptKind(Enum):
    """Which encoder reads the texts."""

    BYTES = "bytes"  # a small transformer over UTF-8 bytes, trained with the model
    T5 = "t5"  # the paper's: a pretrained T5 with a learned projection


@dataclass(kw_only=True, slots=True)
class PromptEmbedding:
    """Prompts as tokens."""

    tokens_BKC: Tensor
    is_given_BK: Tensor  # bool; where False the token is padding

    def repeated(self, count: int) -> PromptEmbedding:
        """Return every prompt ``count`` times in a row: one per frame of its clip."""
        return PromptEmbedding(
            tokens_BKC=self.tokens_BKC.repeat_interleave(count, dim=0),
            is_given_BK=self.is_given_BK.repeat_interleave(count, dim=0),
        )


class PromptEncoder(Protocol):
    """What the video model asks of an encoder."""

    def prepared(self, texts: Sequence[str], *, is_cut: bool = False) -> PreparedPrompts:
        """Return the texts as tensors on the CPU, batch first; with ``is_cut`` too long ones lose their end."""
        ...

    def __call__(self, prepared: PreparedPrompts) -> PromptEmbedding:
        """Return the prompts' tokens (B, K, C) on the module's device."""
        ...


@dataclass(kw_only=True, slots=True)
class BytesEncoderConfig:
    """Sizes of the encoder of UTF-8 bytes."""

    dim: int = 128
    num_layers: int = 2
    num_heads: int = 4
    max_pieces: int = 32  # words, or parts of twelve bytes of longer ones

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        if self.dim % self.num_heads or self.num_layers < 0 or self.max_pieces < 1:
            raise ValueError(
                f"the bytes encoder needs dim {self.dim} to divide by num_heads {self.num_heads}, num_layers >= 0 "
                f"and max_pieces >= 1"
            )


def pieces_of(text: str, max_pieces: int, *, is_cut: bool = False) -> list[bytes]:
    """Cut a text into words and punctuation marks, and longer words into parts of twelve UTF-8 bytes.

    With ``is_cut``, as for captions of the wild, there are ``max_pieces`` at most and what is no character is "?".

    Raises:
        InputError: the text is not Unicode, or gives more than ``max_pieces``.
    """
    try:
        words = _WORD.findall(text.lower().encode("utf-8", errors="replace" if is_cut else "strict"))
    except UnicodeEncodeError as error:
        raise InputError(
            f"the prompt holds {error.object[error.start]!r}, which is no character; leave it out"
        ) from error
    pieces = [word[i : i + BYTES_PER_PIECE] for word in words for i in range(0, len(word), BYTES_PER_PIECE)]
    if is_cut:
        return pieces[:max_pieces]
    if len(pieces) > max_pieces:
        raise InputError(
            f"the prompt has {len(text)} characters in {len(pieces)} words or parts of twelve bytes, these weights "
            f"read {max_pieces}; shorten it"
        )
    return pieces


def byte_ids(texts: Sequence[str], max_pieces: int, *, is_cut: bool = False) -> Tensor:
    """Return the bytes of texts plus one, int64 (B, K, M); 0 pads. K is the longest of these texts."""
    cut = [pieces_of(text, max_pieces, is_cut=is_cut) for text in texts]
    ids_BKM = torch.zeros(len(texts), max(map(len, cut), default=0), BYTES_PER_PIECE, dtype=torch.int64)
    for row, pieces in enumerate(cut):
        for column, piece in enumerate(pieces):
            ids_BKM[row, column, : len(piece)] = torch.tensor(list(piece)) + 1
    return ids_BKM


class BytesEncoder(nn.Module):
    """Reads prompts byte by byte: no vocabulary, no download, every script.

    The bytes of a word, each in its place, pass through an MLP into one vector; a transformer relates the words.
    """

    def __init__(self, config: BytesEncoderConfig, dim: int) -> None:
        """Build the encoder; ``dim`` is the width C of its output."""
        super().__init__()
        self.config = config
        width = config.dim
        self.embed = nn.Embedding(257, 16, padding_idx=0)
        self.word = nn.Sequential(
            nn.Linear(16 * BYTES_PER_PIECE, 2 * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(2 * width, width),
        )
        self.start_C = nn.Parameter(torch.randn(width) * 0.02)
        self.place_KC = nn.Parameter(torch.randn(config.max_pieces + 1, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width,
            config.num_heads,
            3 * width,
            dropout=0.0,
            activation=functional.gelu,
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.num_layers, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))

    def prepared(self, texts: Sequence[str], *, is_cut: bool = False) -> PreparedPrompts:
        """Return ``byte_ids`` (B, K, M) of texts; with ``is_cut`` too long ones lose their end."""
        return {"byte_ids": byte_ids(texts, self.config.max_pieces, is_cut=is_cut)}

    def forward(self, prepared: PreparedPrompts) -> PromptEmbedding:
        """Return one token per word after a first one that stands for the text as a whole."""
        ids_BKM = prepared["byte_ids"][:, : self.config.max_pieces]  # beyond there is padding only
        words_BKC = self.word(rearrange(self.embed(ids_BKM), "b k m c -> b k (m c)"))
        start_B1C = self.start_C.to(words_BKC.dtype).expand(len(ids_BKM), 1, -1)
        x_BKC = torch.cat([start_B1C, words_BKC], dim=1)
        is_given_BK = functional.pad((ids_BKM != 0).any(-1), (1, 0), value=True)
        x_BKC = x_BKC + self.place_KC[: x_BKC.shape[1]].to(x_BKC.dtype)
        x_BKC = self.layers(x_BKC, src_key_padding_mask=~is_given_BK)
        return PromptEmbedding(tokens_BKC=self.out(x_BKC), is_given_BK=is_given_BK)
