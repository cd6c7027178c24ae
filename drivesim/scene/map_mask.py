"""Drivable areas as nuScenes keeps them: the mask of a map."""

from __future__ import annotations

from typing import Any

import numpy as np

from drivesim.scene.types import DrivableArea, Image

MAP_RESOLUTION_M = 0.1


def map_mask(drivable: DrivableArea) -> Image:
    """Return a (rows, columns) mask of 0 and 255 at 0.1 m per pixel; its lower left is the global origin.

    The devkit compares pixels with 255, so the file must be 8-bit grey; where coordinates are negative a map
    cannot reach.
    """
    size_m = np.array(drivable.mask.shape[::-1]) * drivable.resolution_m + drivable.origin_xy_m
    columns, rows = np.maximum(2, 2 * np.ceil(size_m / MAP_RESOLUTION_M / 2 - 1e-6).astype(int))
    x = (np.arange(columns) + 0.5) * MAP_RESOLUTION_M - drivable.origin_xy_m[0]
    y = (rows - np.arange(rows) - 0.5) * MAP_RESOLUTION_M - drivable.origin_xy_m[1]
    column = np.floor(x / drivable.resolution_m).astype(int)
    row = drivable.mask.shape[0] - 1 - np.floor(y / drivable.resolution_m).astype(int)
    is_column, is_row = _is_within(column, drivable.mask.shape[1]), _is_within(row, drivable.mask.shape[0])
    cells = drivable.mask[np.ix_(np.where(is_row, row, 0), np.where(is_column, column, 0))]
    return np.where(cells & is_row[:, None] & is_column[None], 255, 0).astype(np.uint8)


def _is_within(index: np.ndarray[Any, np.dtype[np.int64]], size: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return (index >= 0) & (index < size)
