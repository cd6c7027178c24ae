"""A polyline to drive along: where is a point along and beside it, where is it some metres ahead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivesim.scene.geometry import FloatArray

_WINDOW_M = 40.0
_GIVE_UP_M = 45.0


@dataclass(kw_only=True, slots=True, frozen=True)
class RoutePoint:
    """A position relative to a route: metres along it and metres to its left."""

    along_m: float
    left_m: float


class Route:
    """A polyline with its arc length; it may cross or repeat itself, so searches start near a known place."""

    def __init__(self, xy_m: FloatArray) -> None:
        """Take (R, 2) points, about evenly spaced."""
        self.xy_m = xy_m
        legs = np.diff(xy_m, axis=0)
        lengths = np.hypot(legs[:, 0], legs[:, 1])
        self.along_m: FloatArray = np.concatenate([[0.0], np.cumsum(lengths)])
        self.heading_rad: FloatArray = np.unwrap(np.arctan2(legs[:, 1], legs[:, 0]))
        self.heading_rad = np.append(self.heading_rad, self.heading_rad[-1])
        self.length_m = float(self.along_m[-1])
        self._spacing_m = self.length_m / max(len(legs), 1)

    def locate(self, xy_m: FloatArray, near_m: float) -> RoutePoint:
        """Return where a (2,) point lies, searched around ``near_m`` first, everywhere if that is far."""
        first, last = self._window(near_m - _WINDOW_M, near_m + _WINDOW_M)
        index = first + int(np.argmin(((self.xy_m[first:last] - xy_m) ** 2).sum(axis=1)))
        if ((self.xy_m[index] - xy_m) ** 2).sum() > _GIVE_UP_M**2:
            index = int(np.argmin(((self.xy_m - xy_m) ** 2).sum(axis=1)))
        return self._at_index(xy_m, index)

    def locate_ahead(self, xy_m: FloatArray, *, from_m: float, reach_m: float) -> list[RoutePoint]:
        """Return where (V, 2) points lie beside the stretch from ``from_m`` to ``from_m + reach_m``."""
        first, last = self._window(from_m, from_m + reach_m)
        squared = ((self.xy_m[None, first:last] - xy_m[:, None]) ** 2).sum(axis=2)
        return [
            self._at_index(point, first + int(index))
            for point, index in zip(xy_m, squared.argmin(axis=1), strict=True)
        ]

    def point_at(self, along_m: float) -> FloatArray:
        """Return the (2,) point ``along_m`` metres along; beyond the ends the route goes on straight."""
        index = self._index(along_m)
        heading = self.heading_rad[index]
        return np.asarray(
            self.xy_m[index] + (along_m - self.along_m[index]) * np.array([np.cos(heading), np.sin(heading)])
        )

    def heading_at(self, along_m: float) -> float:
        """Return the heading of the route ``along_m`` metres along (unwrapped)."""
        return float(self.heading_rad[self._index(along_m)])

    def curvature_between(self, from_m: float, to_m: float) -> float:
        """Return the largest curvature (1/m, as a magnitude) of eight-metre pieces of a stretch ahead."""
        stride = max(round(8.0 / self._spacing_m), 1)
        first, last = self._window(from_m, to_m)
        later = self.heading_rad[first + stride : last + stride]
        turned = np.abs(later - self.heading_rad[first : first + len(later)])
        return float(turned.max() / (stride * self._spacing_m)) if len(turned) else 0.0

    def _at_index(self, xy_m: FloatArray, index: int) -> RoutePoint:
        heading = float(self.heading_rad[index])
        dx, dy = float(xy_m[0] - self.xy_m[index, 0]), float(xy_m[1] - self.xy_m[index, 1])
        cos, sin = np.cos(heading), np.sin(heading)
        return RoutePoint(
            along_m=float(self.along_m[index] + dx * cos + dy * sin), left_m=float(dy * cos - dx * sin)
        )

    def _index(self, along_m: float) -> int:
        return int(np.clip(round(along_m / self._spacing_m), 0, len(self.xy_m) - 1))

    def _window(self, from_m: float, to_m: float) -> tuple[int, int]:
        first = min(self._index(from_m), len(self.xy_m) - 2)
        return first, max(self._index(to_m), first + 1) + 1
