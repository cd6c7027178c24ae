"""Group norm that gives a picture the same bits alone and in a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RowGroupNorm(nn.GroupNorm):
    """Group norm, row by row where pictures are only looked at.

    On a CPU with several threads, the sums over a batch with channels last are cut into other pieces than those of a
    single picture, and rounded otherwise. What one of many environments shows must not depend on the others.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the normalised pictures (B, C, H, W)."""
        if len(x_BCHW) == 1 or x_BCHW.device.type != "cpu" or torch.is_grad_enabled():
            return super().forward(x_BCHW)
        return torch.cat([super(RowGroupNorm, self).forward(row) for row in x_BCHW.split(1)])
