"""What every tokenizer offers to those who train and imagine on its tokens, whoever made it.

Letters: see ``drivesim/tokenizer/__init__.py``.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from drivesim.tokenizer.quantizer import Quantizer


class FrameConfig(Protocol):
    """The frames that a tokenizer is for."""

    height_px: int
    width_px: int

    @property
    def stride(self) -> int:
        """Return the pixels per token and side."""
        ...

    @property
    def grid(self) -> tuple[int, int]:
        """Return the token rows and columns of a frame."""
        ...


class Tokenizer(nn.Module):
    """Frames (B, 3, H, W) in [-1, 1] to token ids (B, S) and back: drivesim's own ``VQGAN``, or a ``PublicVQGAN``."""

    config: FrameConfig
    quantizer: Quantizer

    @property
    def codebook_size(self) -> int:
        """Return the number of codes K."""
        return self.quantizer.codebook_size

    @property
    def grid(self) -> tuple[int, int]:
        """Return the token rows and columns of a frame."""
        return self.config.grid

    @property
    def num_tokens(self) -> int:
        """Return the tokens per frame S."""
        rows, columns = self.grid
        return rows * columns

    def latents(self, frames_BCHW: Tensor) -> Tensor:
        """Return the latents (B, S, Q) before quantization."""
        raise NotImplementedError

    def encode(self, frames_BCHW: Tensor) -> Tensor:
        """Return the token ids (B, S), int64, row by row, of ``frames_BCHW`` in [-1, 1]."""
        return self.quantizer(self.latents(frames_BCHW)).token_ids_BS

    def decode(self, token_ids_BS: Tensor) -> Tensor:
        """Return frames (B, 3, H, W) in [-1, 1] for token ids (B, S)."""
        if token_ids_BS.ndim != 2 or token_ids_BS.shape[1] != self.num_tokens:
            raise ValueError(f"token ids must be (B, {self.num_tokens}), got {tuple(token_ids_BS.shape)}")
        return self.decode_codes(self.quantizer.codes(token_ids_BS)).clamp(-1, 1)

    def decode_codes(self, codes_BSQ: Tensor) -> Tensor:
        """Return frames (B, 3, H, W), not clipped, for codebook vectors (B, S, Q)."""
        raise NotImplementedError

    def _check_frames(self, frames_BCHW: Tensor) -> None:
        expected = (3, self.config.height_px, self.config.width_px)
        if frames_BCHW.ndim != 4 or tuple(frames_BCHW.shape[1:]) != expected:
            raise ValueError(
                f"frames must be (B, 3, {expected[1]}, {expected[2]}), got {tuple(frames_BCHW.shape)}"
            )
