"""Group norm that gives a picture the same bits alone and in a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALL_MAP = 1024  # pixels below which PyTorch's sums do not depend on the batch


class RowGroupNorm(nn.GroupNorm):
    """Group norm, row by row where pictures are only looked at.

    On a CPU with several threads, the sums over a batch with channels last are cut into other pieces than those of a
    single picture, and rounded otherwise, unless pictures are small. What one of many environments shows must not
    depend on the others.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the normalised pictures (B, C, H, W)."""
        num_pixels = x_BCHW.shape[2] * x_BCHW.shape[3]
        is_alike = num_pixels < SMALL_MAP and x_BCHW.is_contiguous(memory_format=torch.channels_last)
        is_learned = torch.is_grad_enabled() or x_BCHW.device.type != "cpu" or torch.compiler.is_compiling()
        if len(x_BCHW) == 1 or is_alike or is_learned:
            return super().forward(x_BCHW)
        normalised_BCHW = torch.empty_like(x_BCHW)
        for row, x_1CHW in enumerate(x_BCHW.split(1)):
            normalised_BCHW[row] = super().forward(x_1CHW).squeeze(0)
        return normalised_BCHW
