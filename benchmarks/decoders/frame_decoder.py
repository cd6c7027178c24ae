"""What the reference decoders share: a history, one frame per step, a precision, and the tokenizer at the end.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from enum import Enum
from typing import Self

import torch
from torch import Tensor, nn

from drivesim.tokenizer.vqgan import VQGAN, to_uint8


class Precision(Enum):
    """Numbers that a decoder's transformer computes with."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"  # weights and activations of the linear layers, scales found on the fly; the rest float32

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of everything that is not quantized."""
        return torch.bfloat16 if self is Precision.BF16 else torch.float32


class FrameDecoder(ABC):
    """Draws one frame after another for a batch of cars: history in, action in, picture out."""

    transformer: nn.Module
    layers: nn.ModuleList  # the part of the transformer that is built to the budget

    def __init__(self, tokenizer: VQGAN) -> None:
        """Keep the tokenizer, which every decoder shares as it is."""
        self.tokenizer = tokenizer
        self.precision = Precision.FP32

    @abstractmethod
    def observe(self, token_ids_BTS: Tensor, twist_BTA: Tensor) -> None:
        """Start from a history of frames, as token ids, and the twists that led into them."""

    @abstractmethod
    def next_tokens(self, twist_BA: Tensor) -> Tensor:
        """Return the token ids (B, S) of the next frame and remember it."""

    @torch.inference_mode()
    def step(self, twist_BA: Tensor) -> Tensor:
        """Return the next picture, uint8 (B, H, W, 3)."""
        return to_uint8(self.tokenizer.decode(self.next_tokens(twist_BA)))

    def in_precision(self, precision: Precision) -> Self:
        """Return a copy that computes in another precision and has no history."""
        other = copy.copy(self)
        other.transformer = converted(self.transformer, precision)
        other.layers = other.transformer.get_submodule("layers")  # type: ignore[assignment]
        other.precision = precision
        return other


def converted(module: nn.Module, precision: Precision) -> nn.Module:
    """Return a copy of a float32 module in another precision, for inference."""
    module = copy.deepcopy(module).to(precision.dtype).eval().requires_grad_(False)
    return _quantized(module) if precision is Precision.INT8 else module


def _quantized(module: nn.Module) -> nn.Module:
    """Return a module whose linear layers multiply int8 matrices.

    Raises:
        NotImplementedError: this build of PyTorch cannot.
    """
    try:
        with warnings.catch_warnings():  # every release announces the end of this interface
            warnings.simplefilter("ignore")
            from torch.ao.quantization import quantize_dynamic

            quantized: nn.Module = quantize_dynamic(module, _large_linear_layers(module), dtype=torch.qint8)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise NotImplementedError(f"int8 linear layers: {error}") from error
    return quantized


def _large_linear_layers(module: nn.Module) -> set[str]:
    """Return the names of the linear layers that every token passes; what runs once per frame is not worth it."""
    return {
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and ("layers." in name or "head." in name)
    }


def num_parameters(module: nn.Module) -> int:
    """Return how many numbers a module learns."""
    return sum(parameter.numel() for parameter in module.parameters())


def randomize_zeros(module: nn.Module) -> None:
    """Give random values to matrices that start at zero, so that every part of an untrained network acts."""
    for parameter in module.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
