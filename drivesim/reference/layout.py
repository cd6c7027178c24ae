"""A road network moved into the global frame, with the route through it and what follows which lane."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from highway_env.road.lane import AbstractLane, CircularLane, StraightLane
from highway_env.road.road import LaneIndex, RoadNetwork

from drivesim.scene.geometry import FloatArray, wrap_angle

MARGIN_M = 60.0
"""Distance of every lane centre from the edges of the world."""

_ROUTE_SPACING_M = 1.0


@dataclass(kw_only=True, slots=True)
class RoadLayout:
    """A road network in the global frame and one route through it."""

    network: RoadNetwork
    route: list[LaneIndex]  # lanes that the route runs through; one lap of it where the road is a loop
    right_hand: bool  # traffic keeps to the right
    words: str  # "two-lane road"
    is_loop: bool
    obstacles_xy_m: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))  # (O, 2)
    traffic_lanes: list[LaneIndex] = field(default_factory=list)  # where other cars may appear
    successors: dict[LaneIndex, list[LaneIndex]] = field(default_factory=dict)  # where a lane goes on
    offset_m: FloatArray = field(default_factory=lambda: np.zeros(2))  # global = lanes + offset_m
    route_xy_m: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))  # (R, 2) about 1 m apart


def finish(layout: RoadLayout) -> None:
    """Move a layout away from the origin and fill in its route, successors and traffic lanes."""
    _move_from_origin(layout)
    layout.successors = _find_successors(layout.network)
    layout.route_xy_m = _route_polyline(layout)
    if not layout.traffic_lanes:
        layout.traffic_lanes = list(layout.network.lanes_dict())


def _move_from_origin(layout: RoadLayout) -> None:
    lanes = layout.network.lanes_list()
    points = np.array([lane.position(s, 0.0) for lane in lanes for s in np.linspace(0.0, lane.length, 9)])
    shift = MARGIN_M - points.min(axis=0)
    for lane in lanes:
        _move_lane(lane, shift)
    layout.obstacles_xy_m = layout.obstacles_xy_m + shift


def _move_lane(lane: AbstractLane, shift: FloatArray) -> None:
    if isinstance(lane, CircularLane):
        lane.center = lane.center + shift
    else:
        assert isinstance(lane, StraightLane)
        lane.start, lane.end = lane.start + shift, lane.end + shift


def _find_successors(network: RoadNetwork) -> dict[LaneIndex, list[LaneIndex]]:
    """Return for each lane the lanes that go on where it ends, U-turns excluded, nearest first."""
    successors: dict[LaneIndex, list[LaneIndex]] = {}
    for index, lane in network.lanes_dict().items():
        end, heading = lane.position(lane.length, 0.0), lane.heading_at(lane.length)
        found = []
        for to, lanes in network.graph.get(index[1], {}).items():
            gaps = [float(np.hypot(*(other.position(0.0, 0.0) - end))) for other in lanes]
            best = int(np.argmin(gaps))
            if gaps[best] < 9.0 and abs(wrap_angle(lanes[best].heading_at(0.0) - heading)) < 1.2:
                found.append((gaps[best], (index[1], to, best)))
        successors[index] = [following for _, following in sorted(found)]
    return successors


def _route_polyline(layout: RoadLayout) -> FloatArray:
    """Return the route's lane centres as points about a metre apart, with smooth changes between lanes."""
    parts: list[FloatArray] = []
    for position, index in enumerate(layout.route):
        lane = layout.network.get_lane(index)
        steps = np.linspace(0.0, lane.length, max(int(lane.length), 2) + 1)[:-1]
        points = np.array([lane.position(s, 0.0) for s in steps])
        if position + 1 < len(layout.route):
            points = points + _blend_to(lane, layout.network.get_lane(layout.route[position + 1]), steps)
        parts.append(points)
    track = np.concatenate(parts)
    track = resample(np.vstack([track, track[:1]]) if layout.is_loop else track, _ROUTE_SPACING_M)
    return _smoothed(track, is_loop=layout.is_loop)


def _smoothed(xy_m: FloatArray, *, is_loop: bool) -> FloatArray:
    """Round off kinks between lanes with a moving mean over seven points."""
    reach, points = 3, xy_m[:-1] if is_loop else xy_m
    if is_loop:
        padded = np.concatenate([points[-reach:], points, points[: reach + 1]])
    else:
        steps = np.arange(reach, 0, -1)[:, None]
        before = points[0] - steps * (points[1] - points[0])
        after = points[-1] + steps[::-1] * (points[-1] - points[-2])
        padded = np.concatenate([before, points, after])
    kernel = np.ones(2 * reach + 1) / (2 * reach + 1)
    return np.stack([np.convolve(padded[:, axis], kernel, mode="valid") for axis in (0, 1)], axis=1)


def _blend_to(lane: AbstractLane, following: AbstractLane, steps: FloatArray) -> FloatArray:
    """Return (N, 2) shifts that lead over the last 45 m of a lane to one that goes on beside it."""
    gap = following.position(0.0, 0.0) - lane.position(lane.length, 0.0)
    heading = lane.heading_at(lane.length)
    ahead_m = float(gap @ np.array([np.cos(heading), np.sin(heading)]))
    if ahead_m > 0.7 * float(np.hypot(*gap)):
        return np.zeros((len(steps), 2))
    weight = np.clip((steps - lane.length + 45.0) / 45.0, 0.0, 1.0)
    return np.asarray((weight * weight * (3 - 2 * weight))[:, None] * gap)


def resample(xy_m: FloatArray, spacing_m: float) -> FloatArray:
    """Return the polyline through (N, 2) points with evenly spaced points about ``spacing_m`` apart."""
    lengths = np.hypot(*np.diff(xy_m, axis=0).T)
    keep = np.concatenate([[True], lengths > 1e-6])
    xy_m = xy_m[keep]
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy_m, axis=0).T))])
    targets = np.linspace(0.0, along[-1], max(round(float(along[-1]) / spacing_m), 1) + 1)
    return np.stack([np.interp(targets, along, xy_m[:, axis]) for axis in (0, 1)], axis=1)
