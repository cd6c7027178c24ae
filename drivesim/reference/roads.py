"""Roads of the reference world: HighwayEnv's networks and our own winding roads, each with a route."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from highway_env.envs.common.abstract import AbstractEnv
from highway_env.envs.intersection_env import IntersectionEnv
from highway_env.envs.lane_keeping_env import LaneKeepingEnv
from highway_env.envs.merge_env import MergeEnv
from highway_env.envs.racetrack_env import RacetrackEnv, RacetrackEnvLarge, RacetrackEnvOval
from highway_env.envs.roundabout_env import RoundaboutEnv
from highway_env.envs.two_way_env import TwoWayEnv
from highway_env.road.lane import LineType
from highway_env.road.road import LaneIndex, RoadNetwork

from drivesim.errors import InputError
from drivesim.reference.layout import RoadLayout, finish
from drivesim.reference.winding import LaneStyle, Piece, continue_course, draw_course, lay_lane

_LOOP_SHARE = 0.45
_ROAD_WORDS = {  # by lanes per direction, and whether there are two directions
    (1, True): "two-lane road",
    (2, True): "four-lane road",
    (1, False): "one-way road",
    (2, False): "two-lane one-way road",
    (3, False): "three-lane one-way road",
}
_ROAD_SHARES = (0.5, 0.18, 0.1, 0.14, 0.08)


def build_road(family: str, rng: np.random.Generator) -> RoadLayout:
    """Build the road of a family; everything random comes from ``rng``.

    Raises:
        InputError: for a family that does not exist.
    """
    if family not in _BUILDERS:
        raise InputError(f"unknown road family {family!r}; choose one of {', '.join(_BUILDERS)}")
    layout = _BUILDERS[family](rng)
    finish(layout)
    return layout


def _winding(rng: np.random.Generator) -> RoadLayout:
    per_direction, is_two_way = list(_ROAD_WORDS)[int(rng.choice(5, p=_ROAD_SHARES))]
    right_hand, width_m = bool(rng.random() < 0.6), float(rng.uniform(3.0, 4.0))
    styles = _draw_lanes(rng, per_direction, is_two_way=is_two_way, width_m=width_m, right_hand=right_hand)
    half_width_m = width_m * per_direction * (1.0 if is_two_way else 0.5)
    is_loop = bool(rng.random() < _LOOP_SHARE)
    radius_m = max(12.0, half_width_m + 5.5)
    pieces = draw_course(rng, is_loop=is_loop, min_radius_m=radius_m, half_width_m=half_width_m)
    is_loop = is_loop and bool(np.hypot(*np.subtract(pieces[-1].end_m, pieces[0].start_m)) < 0.5)
    network = RoadNetwork()
    nodes = [str(index) for index in range(len(pieces))] + ["0" if is_loop else str(len(pieces))]
    for index, piece in enumerate(pieces):
        _lay_piece(network, piece, styles, (nodes[index], nodes[index + 1]))
    lane_id = int(rng.integers(per_direction))
    return RoadLayout(
        network=network,
        route=[(nodes[index], nodes[index + 1], lane_id) for index in range(len(pieces))],
        right_hand=right_hand,
        words=_ROAD_WORDS[per_direction, is_two_way],
        is_loop=is_loop,
    )


def _lay_piece(network: RoadNetwork, piece: Piece, styles: list[LaneStyle], nodes: tuple[str, str]) -> None:
    for style in styles:
        start, end = nodes if style.is_forward else (f"{nodes[1]}back", f"{nodes[0]}back")
        network.add_lane(start, end, lay_lane(piece, style, piece.speed_limit_mps))


def _draw_lanes(
    rng: np.random.Generator, per_direction: int, *, is_two_way: bool, width_m: float, right_hand: bool
) -> list[LaneStyle]:
    """Draw the lanes of a carriageway from left to right: widths, offsets and paint."""
    kinds = [LineType.CONTINUOUS_LINE, LineType.STRIPED, LineType.NONE]
    edge_line, middle_line = (
        int(rng.choice(kinds, p=[0.62, 0.13, 0.25])),
        int(rng.choice(kinds, p=[0.33, 0.55, 0.12])),
    )
    count = per_direction * (2 if is_two_way else 1)
    styles = []
    for index in range(count):
        # With right-hand traffic our own lanes are the right half; with left-hand traffic the left one.
        is_forward = not is_two_way or (index >= per_direction) == right_hand
        left = (
            edge_line
            if index == 0
            else (middle_line if is_two_way and index == per_direction else LineType.STRIPED)
        )
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
    middle_m = exit_lane.position(exit_lane.length, 2.0)
    heading_rad = float(exit_lane.heading_at(exit_lane.length))
    pieces = continue_course(rng, start_m=(float(middle_m[0]), float(middle_m[1])), heading_rad=heading_rad)
    styles = [
        LaneStyle(offset_m=-2.0, width_m=4.0, left_line=LineType.STRIPED, right_line=LineType.CONTINUOUS),
        LaneStyle(offset_m=2.0, width_m=4.0, is_forward=False, right_line=LineType.CONTINUOUS),
    ]
    route: list[LaneIndex] = [(entry, inner, 0), (inner, outer, 0), (outer, leave, 0)]
    nodes = [leave, "bend", "end"]
    for index, piece in enumerate(pieces):
        for style in styles:
            start, end = (
                (nodes[index], nodes[index + 1]) if style.is_forward else (nodes[index + 1], nodes[index])
            )
            network.add_lane(start, end, lay_lane(piece, style, 10.0))
        route.append((nodes[index], nodes[index + 1], 0))
    return RoadLayout(
        network=network,
        route=route,
        right_hand=False,
        words="two-lane road to an intersection",
        is_loop=False,
    )


def _roundabout(rng: np.random.Generator) -> RoadLayout:
    network = _maintained_network(RoundaboutEnv, rng)
    come_from, exits = int(rng.integers(4)), int(rng.integers(1, 4))
    ring = "senw"  # against the clock, as HighwayEnv's circle runs
    names = [ring[(come_from + step) % 4] for step in range(exits + 1)]
    entry, leave = names[0], names[-1]
    route: list[LaneIndex] = [(f"{entry}er", f"{entry}es", 0), (f"{entry}es", f"{entry}e", 0)]
    for here, following in pairwise(names):
        route.append((f"{here}e", f"{following}x", 1))
        if following != leave:
            route.append((f"{following}x", f"{following}e", 1))
    route += [(f"{leave}x", f"{leave}xs", 0), (f"{leave}xs", f"{leave}xr", 0)]
    return RoadLayout(
        network=network, route=route, right_hand=False, words="two-lane road to a roundabout", is_loop=False
    )


def _lane_keeping(rng: np.random.Generator) -> RoadLayout:
    network = _maintained_network(LaneKeepingEnv, rng)
    return RoadLayout(
        network=network,
        route=[("a", "b", 0)],
        right_hand=False,
        words="wide wavy road",
        is_loop=False,
        traffic_lanes=[("a", "b", 0)],
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
    env: AbstractEnv = object.__new__(env_class)
    env.config = env_class.default_config()
    env.np_random = rng
    env._make_road()
    network: RoadNetwork = env.road.network
    return network
