"""Pictures of any size as pictures of one size, and what that does to their camera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from drivesim.imports.mounting import mounted_camera
from drivesim.imports.options import Fit, ImportConfig
from drivesim.scene.media import cover
from drivesim.scene.types import Camera, Image
from drivesim.video import resize

FIELD_OF_VIEW_RAD = 2 * float(np.arctan(112 / 160))
"""Of the reference world's camera: 160 px focal length at 224 px width, 70 degrees."""


@dataclass(slots=True)
class FittedFrames(Sequence[Image]):
    """Some of the pictures of a recording, fitted to (height_px, width_px) when they are indexed."""

    pictures: Sequence[Image]
    indices: list[int]  # of the pictures shown
    width_px: int
    height_px: int
    how: Fit

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.indices)

    def __iter__(self) -> Iterator[Image]:
        """Read the pictures one after another."""
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Image: ...

    @overload
    def __getitem__(self, index: slice) -> FittedFrames: ...

    def __getitem__(self, index: int | slice) -> Image | FittedFrames:
        """Read one picture, or return the sequence of a part of them without reading."""
        if isinstance(index, slice):
            return replace(self, indices=self.indices[index])
        image = self.pictures[self.indices[index]]
        return fitted(image, width_px=self.width_px, height_px=self.height_px, how=self.how)


def fitted(image: Image, *, width_px: int, height_px: int, how: Fit) -> Image:
    """Return an (H, W, 3) picture at another size."""
    if how is Fit.STRETCH:
        return resize(image, width_px, height_px)
    if how is Fit.CROP:
        return cover(image, (height_px, width_px))
    width, height = _size_within(image.shape[1], image.shape[0], width_px, height_px)
    padded = np.zeros((height_px, width_px, 3), dtype=np.uint8)
    top, left = (height_px - height) // 2, (width_px - width) // 2
    padded[top : top + height, left : left + width] = resize(image, width, height)
    return padded


def fitted_camera(camera: Camera, *, width_px: int, height_px: int, how: Fit) -> Camera:
    """Return the camera of the pictures after :func:`fitted`."""
    if how is Fit.STRETCH:
        return camera.resized(width_px=width_px, height_px=height_px)
    if how is Fit.CROP:
        scale = max(height_px / camera.height_px, width_px / camera.width_px)
        width = max(min(round(width_px / scale), camera.width_px), 1)
        height = max(min(round(height_px / scale), camera.height_px), 1)
        part = replace(
            camera,
            width_px=width,
            height_px=height,
            cx_px=camera.cx_px - (camera.width_px - width) // 2,
            cy_px=camera.cy_px - (camera.height_px - height) // 2,
        )
        return part.resized(width_px=width_px, height_px=height_px)
    width, height = _size_within(camera.width_px, camera.height_px, width_px, height_px)
    small = camera.resized(width_px=width, height_px=height)
    return replace(
        small,
        width_px=width_px,
        height_px=height_px,
        cx_px=small.cx_px + (width_px - width) // 2,
        cy_px=small.cy_px + (height_px - height) // 2,
    )


def _size_within(width: int, height: int, width_px: int, height_px: int) -> tuple[int, int]:
    """Return the largest (width, height) of the same shape within (width_px, height_px)."""
    scale = min(height_px / height, width_px / width)
    return max(min(round(width * scale), width_px), 1), max(min(round(height * scale), height_px), 1)


def assumed_camera(width_px: int, height_px: int, config: ImportConfig) -> Camera:
    """Return the camera of recorded pictures as the configuration describes it; square pixels, centre in the middle."""
    angle_rad = config.field_of_view_rad or FIELD_OF_VIEW_RAD
    focal_px = width_px / 2 / float(np.tan(angle_rad / 2))
    return mounted_camera(config, size=(height_px, width_px), focal_px=focal_px)
