"""Other graphics for the reference world: the same drives as another camera and another renderer would show them.

What a world model learned of the reference world's own pictures does not fit them any more, while what happens in them
is as exactly known as ever. That is what fine-tuning is measured on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera, Image, front_camera

_YIQ_FROM_RGB = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


@dataclass(kw_only=True, slots=True)
class Graphics:
    """How a picture is changed, in this order; the defaults are those of the published figure."""

    hue_rad: float = 1.9  # by which all colours are turned
    saturation: float = 1.4
    gamma: float = 1.3
    levels: int = 12  # of each colour channel: flat, cartoon-like shading
    vignette: float = 0.45  # by how much the corners are darker than the middle
    grain: float = 2.0  # standard deviation of the noise of a cheap sensor, of 255

    def __post_init__(self) -> None:
        """Refuse what makes no picture."""
        if self.levels < 2 or not 0 <= self.vignette < 1 or not self.gamma > 0:
            raise ValueError(
                f"graphics need levels >= 2, vignette in [0, 1) and gamma > 0, got {self.levels}, "
                f"{self.vignette} and {self.gamma}"
            )
        if min(self.saturation, self.grain) < 0:
            raise ValueError(
                f"graphics need saturation and grain >= 0, got {self.saturation} and {self.grain}"
            )


def other_camera(*, scale: int = 2) -> Camera:
    """Return a camera with a wider view that is mounted higher than the front camera; 224x128 px times ``scale``."""
    return front_camera(
        width_px=224 * scale,
        height_px=128 * scale,
        focal_px=132.0 * scale,
        horizon_row_px=64.0 * scale,
        forward_m=1.2,
        above_ground_m=1.9,
    )


def restyled(picture: Image, graphics: Graphics, rng: Generator) -> Image:
    """Return a picture (H, W, 3) in other graphics; ``rng`` draws the grain."""
    light = (picture / 255.0) @ _colors(graphics).T
    light = np.clip(light, 0.0, 1.0) ** graphics.gamma
    flat = np.round(light * (graphics.levels - 1)) / (graphics.levels - 1)
    shown = 255.0 * flat * _shade(picture.shape[0], picture.shape[1], graphics.vignette)[..., None]
    if graphics.grain > 0:
        shown = shown + rng.normal(scale=graphics.grain, size=(*shown.shape[:2], 1))
    return np.clip(np.round(shown), 0, 255).astype(np.uint8)


def _colors(graphics: Graphics) -> FloatArray:
    """Return the (3, 3) map of colours that turns hues and stretches saturation, and leaves greys alone."""
    cos, sin = np.cos(graphics.hue_rad), np.sin(graphics.hue_rad)
    turned = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) * [
        [1],
        [graphics.saturation],
        [graphics.saturation],
    ]
    colors: FloatArray = np.linalg.inv(_YIQ_FROM_RGB) @ turned @ _YIQ_FROM_RGB
    return colors


def _shade(height_px: int, width_px: int, vignette: float) -> FloatArray:
    """Return (H, W) factors: one in the middle, less towards the corners."""
    rows, columns = np.mgrid[0:height_px, 0:width_px]
    y, x = (rows + 0.5) / height_px * 2 - 1, (columns + 0.5) / width_px * 2 - 1
    shade: FloatArray = 1.0 - vignette * 0.5 * (x**2 + y**2)
    return shade
