"""What a recording knows of its place: the route to follow and the drivable area around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drivesim.scene.geometry import FloatArray, spaced
from drivesim.scene.types import DrivableArea

MAP_MARGIN_M = 100.0  # more than the world model is shown, see ``road_map.FARTHEST_M``
MAX_ROUTE_DISTANCE_M = 10.0
STRAIGHT_AFTER_M = 60.0
MIN_SPACING_M = 0.05


class Mask(Protocol):
    """A raster of a whole map, (rows, columns), of which parts can be taken."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return rows and columns."""
        ...

    def __getitem__(self, part: tuple[slice, slice], /) -> NDArray[Any]:
        """Return a part."""
        ...


@dataclass(kw_only=True, slots=True)
class Surroundings:
    """Route and drivable area of a scene."""

    route_xy_m: FloatArray  # (R, 2)
    drivable: DrivableArea | None
    problems: list[str] = field(default_factory=list)


def route_is_near(route_xy_m: FloatArray, xy_m: FloatArray) -> bool:
    """Tell whether a car at (T, 2) was, more than half of the time, within 10 m of the (R, 2) route."""
    distances = [float(np.linalg.norm(route_xy_m - point, axis=1).min()) for point in xy_m]
    return float(np.median(distances)) <= MAX_ROUTE_DISTANCE_M


def as_polyline(points: Sequence[Any]) -> FloatArray | None:
    """Return (R, 2) finite points, repeats dropped; None if fewer than two are left or they are no points."""
    try:
        xy_m = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if xy_m.ndim != 2 or xy_m.shape[1] < 2:
        return None
    kept = spaced(xy_m[np.isfinite(xy_m).all(axis=1), :2], least_m=MIN_SPACING_M)
    return kept if len(kept) >= 2 else None


def route_from_path(xy_m: FloatArray, yaw_rad: FloatArray) -> FloatArray:
    """Return the driven path, about 1 m between points, and 60 m straight on from its end."""
    kept = spaced(xy_m, least_m=1.0)
    heading = np.array([np.cos(yaw_rad[-1]), np.sin(yaw_rad[-1])])
    ahead_m = np.arange(1.0, STRAIGHT_AFTER_M + 1.0)[:, None]
    return np.concatenate([kept, kept[-1] + ahead_m * heading])


def drivable_around(mask: Mask, resolution_m: float, points_xy_m: FloatArray) -> DrivableArea | None:
    """Cut the part of a map around (N, 2) points, ``MAP_MARGIN_M`` on every side; None if nothing there is drivable.

    Args:
        mask: (rows, columns) of a whole map, not zero where drivable; its lower left is the global origin.
        resolution_m: metres per cell.
        points_xy_m: places of interest.
    """
    rows, columns = mask.shape[:2]
    low = np.floor((points_xy_m.min(axis=0) - MAP_MARGIN_M) / resolution_m).astype(int)
    high = np.ceil((points_xy_m.max(axis=0) + MAP_MARGIN_M) / resolution_m).astype(int)
    left, right = np.clip([low[0], high[0]], 0, columns)
    bottom, top = np.clip([low[1], high[1]], 0, rows)
    part = np.asarray(mask[rows - top : rows - bottom, left:right]) != 0
    part = part if part.ndim == 2 else part.any(axis=2)
    if not part.any():
        return None
    return DrivableArea(
        mask=part.copy(),
        resolution_m=resolution_m,
        origin_xy_m=np.array([left * resolution_m, bottom * resolution_m]),
    )
