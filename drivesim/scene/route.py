"""A route: a polyline to follow, with arc length, projection and look-ahead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from drivesim.errors import InputError
from drivesim.scene.geometry import FloatArray, spaced, wrap_angle
from drivesim.scene.types import Command, Scene

MIN_SPACING_M = 0.05
STANDING_ROUTE_M = 100.0
TIE_M = 0.5
SEARCH_BACK_M = 10.0
SEARCH_AHEAD_M = 30.0
TURN_WITHIN_M = 25.0
TURN_RAD = np.pi / 4


@dataclass(kw_only=True, slots=True, frozen=True)
class RoutePosition:
    """Where a car is relative to a route."""

    distance_m: float  # along the route from its start
    lateral_m: float  # signed distance from the route, left positive
    heading_error_rad: float  # car's yaw minus the route's heading, left positive


class Route:
    """A polyline with arc length.

    A route may cross or repeat itself (a lap, a roundabout); ``project`` therefore searches near the last
    known place when it is told one.
    """

    def __init__(self, xy_m: ArrayLike) -> None:
        """Measure the polyline.

        Args:
            xy_m: (R, 2) global points, R >= 2; points closer than 5 cm to their predecessor are dropped.

        Raises:
            InputError: fewer than two distinct points, or a point that is not finite.
        """
        points = np.asarray(xy_m, dtype=np.float64)
        if points.ndim != 2 or points.shape[-1] != 2 or not np.isfinite(points).all():
            raise InputError(
                f"a route is an (R, 2) array of finite metres, got an array of shape {points.shape}"
            )
        self.xy_m = spaced(points, least_m=MIN_SPACING_M)
        if len(self.xy_m) < 2:
            raise InputError("a route needs two points that lie apart; give it at least two distinct points")
        steps_m = np.diff(self.xy_m, axis=0)
        self._segment_m = np.linalg.norm(steps_m, axis=1)
        self._direction = steps_m / self._segment_m[:, None]
        self._start_m = np.concatenate([[0.0], np.cumsum(self._segment_m)])
        self._heading_rad = np.unwrap(np.arctan2(steps_m[:, 1], steps_m[:, 0]))

    @property
    def length_m(self) -> float:
        """Return the length from the first point to the last."""
        return float(self._start_m[-1])

    def points_at(self, distance_m: ArrayLike) -> FloatArray:
        """Return the (..., 2) points at distances along the route; both ends are continued straight."""
        distance = np.asarray(distance_m, dtype=np.float64)
        segment = np.clip(
            np.searchsorted(self._start_m, distance, side="right") - 1, 0, len(self._segment_m) - 1
        )
        beyond = distance - self._start_m[segment]
        return np.asarray(self.xy_m[segment] + beyond[..., None] * self._direction[segment])

    def headings_at(self, distance_m: ArrayLike) -> FloatArray:
        """Return the route's heading at distances along it, not wrapped so that differences are turns."""
        middle_m = self._start_m[:-1] + 0.5 * self._segment_m
        return np.asarray(np.interp(np.asarray(distance_m, dtype=np.float64), middle_m, self._heading_rad))

    def project(self, xy_m: ArrayLike, yaw_rad: float, *, near_m: float | None = None) -> RoutePosition:
        """Find the nearest place on the route.

        Args:
            xy_m: (2,) global point.
            yaw_rad: heading of the car there.
            near_m: the last known distance along the route; the search stays 10 m behind to 30 m ahead of it.
                Without it the whole route is searched, and of equally near places (within 0.5 m) the first
                is taken.
        """
        offset = np.asarray(xy_m, dtype=np.float64) - self.xy_m[:-1]
        along = np.clip(np.sum(offset * self._direction, axis=1), 0.0, self._segment_m)
        gap = np.linalg.norm(offset - along[:, None] * self._direction, axis=1)
        if near_m is not None:
            is_near = (self._start_m[1:] >= near_m - SEARCH_BACK_M) & (
                self._start_m[:-1] <= near_m + SEARCH_AHEAD_M
            )
            gap = np.where(is_near, gap, np.inf)
            best = int(np.argmin(gap))
        else:
            best = _first_valley(gap)
        distance_m = float(self._start_m[best] + along[best])
        dx, dy = self._direction[best]
        lateral_m = float(dx * offset[best, 1] - dy * offset[best, 0])
        heading = float(wrap_angle(yaw_rad - self.headings_at(distance_m)))
        return RoutePosition(distance_m=distance_m, lateral_m=lateral_m, heading_error_rad=heading)

    def command_at(self, distance_m: float) -> Command:
        """Return LEFT or RIGHT if the route turns 45 degrees or more within the next 25 m, else FOLLOW."""
        ahead = self.headings_at(distance_m + np.linspace(0.0, TURN_WITHIN_M, 26)) - self.headings_at(
            distance_m
        )
        turn = float(ahead[np.argmax(np.abs(ahead))])
        if abs(turn) < TURN_RAD:
            return Command.FOLLOW
        return Command.LEFT if turn > 0 else Command.RIGHT


def route_of(scene: Scene) -> Route:
    """Return the scene's route; without one the recorded path, for a standing car 100 m straight on."""
    for points in (scene.route_xy_m, scene.xy_m):
        if points is None:
            continue
        if len(spaced(points, least_m=MIN_SPACING_M)) >= 2 and _length_m(points) >= 1.0:
            return Route(points)
    yaw = float(scene.yaw_rad[0])
    return Route([scene.xy_m[0], scene.xy_m[0] + STANDING_ROUTE_M * np.array([np.cos(yaw), np.sin(yaw)])])


def _length_m(points: FloatArray) -> float:
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def _first_valley(gap: FloatArray) -> int:
    """Return the bottom of the first stretch whose gap comes within ``TIE_M`` of the smallest one."""
    is_candidate = gap <= gap.min() + TIE_M
    first = int(np.argmax(is_candidate))
    end = first + int(np.argmin(np.append(is_candidate[first:], False)))
    return first + int(np.argmin(gap[first:end]))
