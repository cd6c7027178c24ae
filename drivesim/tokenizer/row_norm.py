"""Group norm that gives a picture the same bits alone and in a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALL_MAP = 1024  # pixels below which PyTorch's sums do not depend on the batch


class RowGroupNorm(nn.GroupNorm):
    """Group norm, row by row where pictures are only looked at.

    On a CPU with several threads, the sums over a batch with channels last are cut into other pieces than those of a
    single picture, and rounded otherwise, unless pictures are small. What one of many environments shows must not
    depend on the others. With gradients, and on other devices, all rows are normalised at once.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the normalised pictures (B, C, H, W)."""
        is_small = x_BCHW.shape[2] * x_BCHW.shape[3] < SMALL_MAP
        may_differ = torch.is_grad_enabled() or x_BCHW.device.type != "cpu"
        if len(x_BCHW) == 1 or is_small or may_differ:
            return super().forward(x_BCHW)
        normalised_BCHW = torch.empty_like(x_BCHW)
        for row, x_1CHW in enumerate(x_BCHW.split(1)):
            normalised_BCHW[row] = super().forward(x_1CHW).squeeze(0)
        return normalised_BCHW
