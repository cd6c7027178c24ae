"""VQGAN (Esser et al., 2021; WorldDreamer section 3.1): a frame becomes a grid of tokens, 16 x 16 pixels each.

A pixel-unshuffle stem and a pixel-shuffle head keep the convolutions off full resolution, so that a frame decodes in
milliseconds on a CPU. Letters: see ``drivesim/tokenizer/__init__.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from drivesim.tokenizer.convolution import Convolution
from drivesim.tokenizer.interface import Tokenizer
from drivesim.tokenizer.quantizer import FiniteScalarQuantizer, Quantized, VectorQuantizer
from drivesim.tokenizer.row_norm import RowGroupNorm

STEM_STRIDE = 4


class QuantizerKind(Enum):
    """How latents become tokens."""

    FSQ = "fsq"
    VQ = "vq"


@dataclass(kw_only=True, slots=True)
class VQGANConfig:
    """Sizes of a VQGAN. ``channels`` are the widths at strides 4, 8 and 16."""

    height_px: int = 128
    width_px: int = 224
    channels: list[int] = field(default_factory=lambda: [64, 128, 192])
    num_res_blocks: list[int] = field(default_factory=lambda: [1, 2, 2])
    quantizer: QuantizerKind = QuantizerKind.FSQ
    fsq_levels: list[int] = field(default_factory=lambda: [8, 8, 6, 5])
    codebook_size: int = 8192  # of the VQ quantizer; FSQ has the product of its levels
    code_dim: int = 8  # of the VQ quantizer; FSQ has one number per level entry

    def __post_init__(self) -> None:
        """Refuse sizes that the strides do not divide."""
        if len(self.channels) != len(self.num_res_blocks) or not self.channels:
            raise ValueError(
                f"channels {self.channels} and num_res_blocks {self.num_res_blocks} must pair up"
            )
        if self.height_px % self.stride or self.width_px % self.stride:
            raise ValueError(
                f"height_px and width_px must divide by {self.stride}, got {self.height_px}x{self.width_px}"
            )

    @property
    def stride(self) -> int:
        """Return the pixels per token and side."""
        return STEM_STRIDE * 2 ** (len(self.channels) - 1)

    @property
    def grid(self) -> tuple[int, int]:
        """Return the token rows and columns of a frame."""
        return self.height_px // self.stride, self.width_px // self.stride


class ResBlock(nn.Module):
    """Two 3x3 convolutions with group norm, added to the input."""

    def __init__(self, channels: int) -> None:
        """Build the block; the second convolution starts at zero."""
        super().__init__()
        self.norm_in = RowGroupNorm(8, channels)
        self.conv_in = Convolution(channels, channels, 3, padding=1)
        self.norm_out = RowGroupNorm(8, channels)
        self.conv_out = Convolution(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return ``x_BCHW`` plus its refinement."""
        h_BCHW = self.conv_in(functional.silu(self.norm_in(x_BCHW)))
        return x_BCHW + self.conv_out(functional.silu(self.norm_out(h_BCHW)))


def _encoder(config: VQGANConfig, code_dim: int) -> nn.Sequential:
    widths = config.channels
    layers: list[nn.Module] = [
        nn.PixelUnshuffle(STEM_STRIDE),
        Convolution(3 * STEM_STRIDE**2, widths[0], 3, padding=1),
    ]
    for i, width in enumerate(widths):
        if i > 0:
            layers.append(Convolution(widths[i - 1], width, 3, stride=2, padding=1))
        layers += [ResBlock(width) for _ in range(config.num_res_blocks[i])]
    return nn.Sequential(
        *layers, RowGroupNorm(8, widths[-1]), nn.SiLU(), Convolution(widths[-1], code_dim, 1)
    )


def _decoder(config: VQGANConfig, code_dim: int) -> nn.Sequential:
    widths = config.channels
    layers: list[nn.Module] = [Convolution(code_dim, widths[-1], 3, padding=1)]
    for i in reversed(range(len(widths))):
        layers += [ResBlock(widths[i]) for _ in range(config.num_res_blocks[i])]
        if i > 0:
            layers += [Convolution(widths[i], 4 * widths[i - 1], 1), nn.PixelShuffle(2)]
    head = Convolution(widths[0], 3 * STEM_STRIDE**2, 3, padding=1)
    return nn.Sequential(*layers, RowGroupNorm(8, widths[0]), nn.SiLU(), head, nn.PixelShuffle(STEM_STRIDE))


@dataclass(kw_only=True, slots=True)
class Reconstruction:
    """A frame through the tokenizer and back."""

    frames_BCHW: Tensor  # in [-1, 1], not clipped
    quantized: Quantized


class VQGAN(Tokenizer):
    """Image tokenizer: frames (B, 3, H, W) in [-1, 1] to token ids (B, S) and back."""

    config: VQGANConfig

    def __init__(self, config: VQGANConfig) -> None:
        """Build encoder, quantizer and decoder."""
        super().__init__()
        self.config = config
        if config.quantizer is QuantizerKind.FSQ:
            self.quantizer = FiniteScalarQuantizer(config.fsq_levels)
        else:
            self.quantizer = VectorQuantizer(config.codebook_size, config.code_dim)
        self.encoder = _encoder(config, self.quantizer.code_dim)
        self.decoder = _decoder(config, self.quantizer.code_dim)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def latents(self, frames_BCHW: Tensor) -> Tensor:
        """Return the latents (B, S, Q) before quantization."""
        self._check_frames(frames_BCHW)
        weight = next(self.encoder.parameters())
        z_BQHW = self.encoder(frames_BCHW.to(weight.dtype).contiguous(memory_format=torch.channels_last))
        return rearrange(z_BQHW, "b q h w -> b (h w) q")

    def decode_codes(self, codes_BSQ: Tensor) -> Tensor:
        """Return frames (B, 3, H, W), not clipped, for codebook vectors (B, S, Q)."""
        rows, columns = self.config.grid
        z_BQHW = rearrange(codes_BSQ, "b (h w) q -> b q h w", h=rows, w=columns)
        weight = next(self.decoder.parameters())
        z_BQHW = z_BQHW.to(weight.dtype).contiguous(memory_format=torch.channels_last)
        frames_BCHW: Tensor = self.decoder(z_BQHW)
        return frames_BCHW.float()

    def forward(self, frames_BCHW: Tensor) -> Reconstruction:
        """Encode, quantize and decode, with gradients."""
        quantized = self.quantizer(self.latents(frames_BCHW))
        return Reconstruction(frames_BCHW=self.decode_codes(quantized.codes_BSQ), quantized=quantized)

    def reconstruct(self, frames_BCHW: Tensor) -> Tensor:
        """Return what is left of frames after tokenization, in [-1, 1]."""
        return self.decode(self.encode(frames_BCHW))


def normalized(frames_BHWC: Tensor) -> Tensor:
    """Turn uint8 frames (B, H, W, 3) into float frames (B, 3, H, W) in [-1, 1]."""
    return rearrange(frames_BHWC, "b h w c -> b c h w").float() / 127.5 - 1


def to_uint8(frames_BCHW: Tensor) -> Tensor:
    """Turn float frames (B, 3, H, W) in [-1, 1] into uint8 frames (B, H, W, 3)."""
    scaled = (frames_BCHW.float().clamp(-1, 1) + 1) * 127.5
    return rearrange(scaled.round().to(torch.uint8), "b c h w -> b h w c")
