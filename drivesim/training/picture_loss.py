"""How far pictures are from what they should be, in every task that draws pictures for the world model."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

ABSOLUTE_WEIGHT = 0.5
EDGE_CELL_PX = 8


def picture_distance(pictures_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Return the distance of each pixel (B, H, W): its absolute and its squared difference, weighed."""
    difference_BCHW = pictures_BCHW - target_BCHW
    return (ABSOLUTE_WEIGHT * difference_BCHW.abs() + difference_BCHW.square()).mean(1)


def edge_distance(pictures_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Return how far edges are from as strong as they should be, a mean over cells of ``EDGE_CELL_PX`` pixels."""
    return (_edge_cells(target_BCHW) - _edge_cells(pictures_BCHW)).abs().mean()


def _edge_cells(frames_BCHW: Tensor) -> Tensor:
    return functional.avg_pool2d(edges(frames_BCHW), EDGE_CELL_PX)


def edges(frames_BCHW: Tensor) -> Tensor:
    """Return the differences to the pixel below and to the right, summed, (B, 1, H, W)."""
    down = functional.pad(frames_BCHW.diff(dim=2).abs(), (0, 0, 0, 1))
    right = functional.pad(frames_BCHW.diff(dim=3).abs(), (0, 1))
    return (down + right).mean(1, keepdim=True)
