"""Small HighwayEnv networks for tests of the reference world's pictures."""

from __future__ import annotations

import numpy as np
from highway_env.road.lane import CircularLane, LineType, SineLane, StraightLane
from highway_env.road.road import RoadNetwork

OFFSET_M = np.array([80.0, 120.0])


def straight_network(*, length_m: float = 200.0, num_lanes: int = 2, width_m: float = 4.0) -> RoadNetwork:
    """Lanes along +x from the offset on; lane k is centred at y = k * width, edges solid, stripes between."""
    network = RoadNetwork()
    for k in range(num_lanes):
        lines = [
            LineType.CONTINUOUS_LINE if k == 0 else LineType.NONE,
            LineType.CONTINUOUS_LINE if k == num_lanes - 1 else LineType.STRIPED,
        ]
        lane = StraightLane([0.0, k * width_m], [length_m, k * width_m], width=width_m, line_types=lines)
        network.add_lane("a", "b", lane)
    return network


def curved_network() -> RoadNetwork:
    """A sine lane and an arc."""
    network = RoadNetwork()
    solid = [LineType.CONTINUOUS, LineType.CONTINUOUS]
    network.add_lane("a", "b", SineLane([0, 0], [120, 0], 8.0, 2 * np.pi / 120, 0.0, line_types=solid))
    network.add_lane("b", "c", CircularLane([120.0, 40.0], 40.0, -np.pi / 2, np.pi / 2, line_types=solid))
    return network
