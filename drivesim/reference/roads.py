"""Roads of the reference world: HighwayEnv's networks and our own winding roads, each with a route to follow.

Everything is in the global frame: lanes are moved so that all coordinates keep a margin from zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from highway_env.envs.common.abstract import AbstractEnv
from highway_env.envs.intersection_env import IntersectionEnv
from highway_env.envs.lane_keeping_env import LaneKeepingEnv
from highway_env.envs.merge_env import MergeEnv
from highway_env.envs.racetrack_env import RacetrackEnv, RacetrackEnvLarge, RacetrackEnvOval
from highway_env.envs.roundabout_env import RoundaboutEnv
from highway_env.envs.two_way_env import TwoWayEnv
from highway_env.road.lane import AbstractLane, CircularLane, LineType, StraightLane
from highway_env.road.road import LaneIndex, RoadNetwork

from drivesim.errors import InputError
from drivesim.reference.winding import LaneStyle, Piece, continue_course, draw_course, lay_lane
from drivesim.scene.geometry import FloatArray, wrap_angle

MARGIN_M = 60.0
"""Distance of every lane centre from the edges of the world."""

_LOOP_SHARE = 0.45
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
    successors: dict[LaneIndex, list[LaneIndex]] = field(default_factory=dict)  # lanes that go on from a lane's end
    offset_m: FloatArray = field(default_factory=lambda: np.zeros(2))  # global = lanes + offset_m
    route_xy_m: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))  # (R, 2) about 1 m apart


def build_road(family: str, rng: np.random.Generator) -> RoadLayout:
    """Build the road of a family; everything random comes from ``rng``.

    Raises:
        InputError: for a family that does not exist.
    """
    if family not in _BUILDERS:
        raise InputError(f"unknown road family {family!r}; choose one of {', '.join(_BUILDERS)}")
    layout = _BUILDERS[family](rng)
    _move_from_origin(layout)
    layout.successors = _find_successors(layout.network)
    layout.route_xy_m = _route_polyline(layout)
    if not layout.traffic_lanes:
        layout.traffic_lanes = list(layout.network.lanes_dict())
    return layout


def _winding(rng: np.random.Generator) -> RoadLayout:
    per_direction, is_two_way = ((1, True), (2, True), (1, False), (2, False), (3, False))[
        int(rng.choice(5, p=[0.5, 0.18, 0.1, 0.14, 0.08]))
    ]
    right_hand, width_m = bool(rng.random() < 0.6), float(rng.uniform(3.0, 4.0))
    styles = _draw_lanes(rng, per_direction=per_direction, is_two_way=is_two_way, width_m=width_m, right_hand=right_hand)
    half_width_m = width_m * per_direction * (1.0 if is_two_way else 0.5)
    is_loop = bool(rng.random() < _LOOP_SHARE)
    pieces = draw_course(rng, is_loop=is_loop, min_radius_m=max(12.0, half_width_m + 5.5), half_width_m=half_width_m)
    is_loop = is_loop and bool(np.hypot(*np.subtract(pieces[-1].end_m, pieces[0].start_m)) < 0.5)
    network = RoadNetwork()
    nodes = [str(index) for index in range(len(pieces))] + ["0" if is_loop else str(len(pieces))]
    for index, piece in enumerate(pieces):
        _lay_piece(network, piece, styles, (nodes[index], nodes[index + 1]))
    lane_id = int(rng.integers(per_direction))
    width_word = {1: "two-lane", 2: "four-lane"}[per_direction] if is_two_way else ("one-way", "two-lane one-way", "three-lane one-way")[per_direction - 1]
    return RoadLayout(
        network=network,
        route=[(nodes[index], nodes[index + 1], lane_id) for index in range(len(pieces))],
        right_hand=right_hand,
        words=f"{width_word} road",
        is_loop=is_loop,
    )


def _lay_piece(network: RoadNetwork, piece: Piece, styles: list[LaneStyle], nodes: tuple[str, str]) -> None:
    for style in styles:
        start, end = nodes if style.is_forward else (f"{nodes[1]}back", f"{nodes[0]}back")
        network.add_lane(start, end, lay_lane(piece, style, piece.speed_limit_mps))


def _draw_lanes(rng: np.random.Generator, *, per_direction: int, is_two_way: bool, width_m: float, right_hand: bool) -> list[LaneStyle]:
    """Draw the lanes of a carriageway from left to right: widths, offsets and paint."""
    edge_line = int(rng.choice([LineType.CONTINUOUS_LINE, LineType.STRIPED, LineType.NONE], p=[0.62, 0.13, 0.25]))
    middle_line = int(rng.choice([LineType.STRIPED, LineType.CONTINUOUS_LINE, LineType.NONE], p=[0.55, 0.33, 0.12]))
    count = per_direction * (2 if is_two_way else 1)
    styles = []
    for index in range(count):
        # With right-hand traffic our own lanes are the right half; with left-hand traffic the left one.
        is_forward = not is_two_way or (index >= per_direction) == right_hand
        left = edge_line if index == 0 else (middle_line if is_two_way and index == per_direction else LineType.STRIPED)
        right = edge_line if index == count - 1 else LineType.NONE
        styles.append(
            LaneStyle(
                offset_m=((count - 1) / 2 - index) * width_m,
                width_m=width_m,
                is_forward=is_forward,
                left_line=left if is_forward else right,
                right_line=right if is_forward else left,
            )
        )
    return styles


def _racetrack(env_class: type[AbstractEnv]) -> Callable[[np.random.Generator], RoadLayout]:
    def build(rng: np.random.Generator) -> RoadLayout:
        network = _maintained_network(env_class, rng)
        start = next(iter(network.graph))
        end = next(iter(network.graph[start]))
        lane_id = int(rng.integers(len(network.graph[start][end])))
        route = [(start, end, lane_id)]
        while route[-1][1] != start:
            following = next(iter(network.graph[route[-1][1]]))
            route.append((route[-1][1], following, lane_id))
        return RoadLayout(network=network, route=route, right_hand=False, words="race track", is_loop=True)

    return build


def _two_way(rng: np.random.Generator) -> RoadLayout:
    # Lane ("a", "b", 0) is the overtaking path over the oncoming lane: painted, but not where cars appear.
    return RoadLayout(
        network=_maintained_network(TwoWayEnv, rng),
        route=[("a", "b", 1)],
        right_hand=False,
        words="straight two-lane road",
        is_loop=False,
        traffic_lanes=[("a", "b", 1), ("b", "a", 0)],
    )


def _merge(rng: np.random.Generator) -> RoadLayout:
    network = _maintained_network(MergeEnv, rng)
    lane_id = int(rng.integers(3))
    through: list[LaneIndex] = [("a", "b", lane_id), ("b", "c", lane_id), ("c", "d", lane_id)]
    ramp: list[LaneIndex] = [("j", "k", 0), ("k", "b", 0), ("b", "c", 2), ("c", "d", 1)]
    end_of_ramp = network.get_lane(("b", "c", 2))
    return RoadLayout(
        network=network,
        route=ramp if lane_id == 2 else through,
        right_hand=False,
        words="two-lane highway with a merging lane",
        is_loop=False,
        traffic_lanes=[index for index in network.lanes_dict() if index[0] in "abc" and index[2] < 2],
        obstacles_xy_m=end_of_ramp.position(end_of_ramp.length, 0)[None],
    )


def _intersection(rng: np.random.Generator) -> RoadLayout:
    network = _maintained_network(IntersectionEnv, rng)
    come_from, turn = int(rng.integers(4)), int(rng.integers(1, 4))
    go_to = (come_from + turn) % 4
    entry, inner, outer, leave = f"o{come_from}", f"ir{come_from}", f"il{go_to}", f"o{go_to}"
    exit_lane = network.get_lane((outer, leave, 0))
    pieces = continue_course(
        rng, start_m=tuple(exit_lane.position(exit_lane.length, 2.0)), heading_rad=exit_lane.heading_at(exit_lane.length)
    )
    styles = [
        LaneStyle(offset_m=-2.0, width_m=4.0, left_line=LineType.STRIPED, right_line=LineType.CONTINUOUS),
        LaneStyle(offset_m=2.0, width_m=4.0, is_forward=False, right_line=LineType.CONTINUOUS),
    ]
    route: list[LaneIndex] = [(entry, inner, 0), (inner, outer, 0), (outer, leave, 0)]
    nodes = [leave, "bend", "end"]
    for index, piece in enumerate(pieces):
        for style in styles:
            start, end = (nodes[index], nodes[index + 1]) if style.is_forward else (nodes[index + 1], nodes[index])
            network.add_lane(start, end, lay_lane(piece, style, 10.0))
        route.append((nodes[index], nodes[index + 1], 0))
    return RoadLayout(network=network, route=route, right_hand=False, words="two-lane road to an intersection", is_loop=False)


def _roundabout(rng: np.random.Generator) -> RoadLayout:
    network = _maintained_network(RoundaboutEnv, rng)
    come_from, exits = int(rng.integers(4)), int(rng.integers(1, 4))
    ring = "senw"  # against the clock, as HighwayEnv's circle runs
    names = [ring[(come_from + step) % 4] for step in range(exits + 1)]
    entry, leave = names[0], names[-1]
    route: list[LaneIndex] = [(f"{entry}er", f"{entry}es", 0), (f"{entry}es", f"{entry}e", 0)]
    for here, following in zip(names[:-1], names[1:], strict=True):
        route.append((f"{here}e", f"{following}x", 1))
        if following != leave:
            route.append((f"{following}x", f"{following}e", 1))
    route += [(f"{leave}x", f"{leave}xs", 0), (f"{leave}xs", f"{leave}xr", 0)]
    return RoadLayout(network=network, route=route, right_hand=False, words="two-lane road to a roundabout", is_loop=False)


def _lane_keeping(rng: np.random.Generator) -> RoadLayout:
    network = _maintained_network(LaneKeepingEnv, rng)
    return RoadLayout(
        network=network, route=[("a", "b", 0)], right_hand=False, words="wide wavy road", is_loop=False, traffic_lanes=[("a", "b", 0)]
    )


_BUILDERS: dict[str, Callable[[np.random.Generator], RoadLayout]] = {
    "winding": _winding,
    "two-way": _two_way,
    "merge": _merge,
    "intersection": _intersection,
    "roundabout": _roundabout,
    "racetrack": _racetrack(RacetrackEnv),
    "racetrack-large": _racetrack(RacetrackEnvLarge),
    "racetrack-oval": _racetrack(RacetrackEnvOval),
    "lane-keeping": _lane_keeping,
}
FAMILIES = tuple(_BUILDERS)
"""Names of all road families; "winding" is ours and endless, the others are HighwayEnv's networks."""


def _maintained_network(env_class: type[AbstractEnv], rng: np.random.Generator) -> RoadNetwork:
    """Return the network an env of HighwayEnv builds, without the env's own vehicles and viewer."""
    env = env_class.__new__(env_class)
    env.config = env_class.default_config()
    env.np_random = rng
    env._make_road()
    network: RoadNetwork = env.road.network
    return network


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
    targets = np.linspace(0.0, along[-1], max(int(round(along[-1] / spacing_m)), 1) + 1)
    return np.stack([np.interp(targets, along, xy_m[:, axis]) for axis in (0, 1)], axis=1)
