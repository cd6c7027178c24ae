"""Convolution whose weights are laid out for the processor once, and not at every use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

_Key = tuple[int, int]
_is_asked_for = True


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Let convolutions run as PyTorch's own meanwhile, for counting their work."""
    global _is_asked_for
    before, _is_asked_for = _is_asked_for, False
    try:
        yield
    finally:
        _is_asked_for = before


@cache
def _can_lay_out() -> bool:
    """Tell whether this build of PyTorch and this processor can lay out bfloat16 weights."""
    names = ("_reorder_convolution_weight", "_convolution_pointwise", "_is_mkldnn_bf16_supported")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Convolution(nn.Conv2d):
    """A 2D convolution with zeros beyond the border, in one group.

    oneDNN computes with weights in blocks of its own, into which PyTorch brings them anew at every use: for a picture
    of few pixels that is up to a quarter of the time. Where nothing is learned and numbers are bfloat16 on a CPU, it is
    done once instead; results are the same to the bit. Weights that change are laid out anew.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, padding: int = 0
    ) -> None:
        """Build the convolution; arguments as PyTorch's."""
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding)
        self._laid_out: tuple[_Key, Tensor] | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the convolved pictures (B, C, H, W)."""
        if not self._is_laid_out_for(x_BCHW):
            return super().forward(x_BCHW)
        sizes = ([self.padding[0]] * 2, [self.stride[0]] * 2, [1, 1], 1)
        # A weight that is written in place counts its versions, one that is replaced lies elsewhere.
        key = (self.weight.data_ptr(), self.weight._version)
        if self._laid_out is None or self._laid_out[0] != key:
            laid_out: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight.detach(), *sizes, list(x_BCHW.shape)
            )
            self._laid_out = (key, laid_out)
        convolved: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x_BCHW, self._laid_out[1], self.bias, *sizes, "none", [], ""
        )
        return convolved

    def _is_laid_out_for(self, x_BCHW: Tensor) -> bool:
        return (
            not torch.compiler.is_compiling()
            and _is_asked_for
            and x_BCHW.dtype == self.weight.dtype == torch.bfloat16
            and x_BCHW.device.type == self.weight.device.type == "cpu"
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not self.weight.is_inference()
            and _can_lay_out()
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is derived, which cannot be copied."""
        return self.__dict__ | {"_laid_out": None}
