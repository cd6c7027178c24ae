"""What every tokenizer offers to those who train and imagine on its tokens, whoever made it.

Letters: see ``drivesim/tokenizer/__init__.py``.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from drivesim.tokenizer.quantizer import Quantizer


@runtime_checkable
class Tokenizer(Protocol):
    """Frames of one size to token ids and back: drivesim's own ``VQGAN``, or a ``PublicVQGAN``."""

    @property
    def codebook_size(self) -> int:
        """Return the number of codes K."""
        ...

    @property
    def grid(self) -> tuple[int, int]:
        """Return the token rows and columns of a frame."""
        ...

    @property
    def num_tokens(self) -> int:
        """Return the tokens per frame S."""
        ...

    @property
    def quantizer(self) -> Quantizer:
        """Return what knows the codebook vectors."""
        ...

    def encode(self, frames_BCHW: Tensor) -> Tensor:
        """Return the token ids (B, S), int64, row by row, of frames (B, 3, H, W) in [-1, 1]."""
        ...

    def decode(self, token_ids_BS: Tensor) -> Tensor:
        """Return frames (B, 3, H, W) in [-1, 1] for token ids (B, S)."""
        ...
