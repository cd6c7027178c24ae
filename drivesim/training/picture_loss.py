"""How far pictures are from recorded ones, in every task that draws pictures for the world model."""

from __future__ import annotations

from torch import Tensor

ABSOLUTE_WEIGHT = 0.5


def picture_distance(pictures_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Return the distance of each pixel (B, H, W): its absolute and its squared difference, weighed."""
    difference_BCHW = pictures_BCHW - target_BCHW
    return (ABSOLUTE_WEIGHT * difference_BCHW.abs() + difference_BCHW.square()).mean(1)
