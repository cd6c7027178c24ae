"""Cars as HighwayEnv sees them: IDM/MOBIL vehicles with bodies, the mirrored ego car, their road."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from highway_env.road.lane import AbstractLane
from highway_env.road.road import LaneIndex, Road
from highway_env.vehicle.behavior import IDMVehicle
from highway_env.vehicle.kinematics import Vehicle
from highway_env.vehicle.objects import Obstacle, RoadObject

from drivesim.dynamics import VehicleConfig
from drivesim.reference.layout import RoadLayout
from drivesim.scene.geometry import FloatArray

_SIGHT_M = 70.0  # how far traffic looks along its lane

COLORS: dict[str, tuple[int, int, int]] = {
    "white": (226, 226, 224),
    "silver": (160, 164, 168),
    "black": (34, 34, 38),
    "red": (176, 36, 32),
    "blue": (38, 70, 150),
    "green": (44, 104, 62),
    "yellow": (214, 172, 40),
    "orange": (214, 104, 30),
}


@dataclass(kw_only=True, slots=True, frozen=True)
class CarBody:
    """Size and colour of a car."""

    kind: str  # "car", "van" or "truck"
    color: str
    length_m: float
    width_m: float
    height_m: float


def draw_body(rng: np.random.Generator) -> CarBody:
    """Draw a car, a van or a truck."""
    kind = ("car", "van", "truck")[int(rng.choice(3, p=[0.68, 0.18, 0.14]))]
    length_m, width_m, height_m = {"car": (4.3, 1.8, 1.5), "van": (5.2, 2.0, 2.2), "truck": (8.4, 2.4, 3.2)}[
        kind
    ]
    scale = float(rng.uniform(0.93, 1.07))
    color = list(COLORS)[int(rng.integers(len(COLORS)))]
    return CarBody(
        kind=kind, color=color, length_m=length_m * scale, width_m=width_m, height_m=height_m * scale
    )


class TrafficCar(IDMVehicle):
    """An IDM/MOBIL vehicle with a body of its own; it looks for its lane only where it can have gone."""

    target_lane_index: LaneIndex

    def __init__(
        self,
        road: TrafficRoad,
        lane_index: LaneIndex,
        along_m: float,
        *,
        speed_mps: float,
        target_speed_mps: float,
        body: CarBody,
    ) -> None:
        """Put a car on a lane.

        Args:
            road: the road it drives on.
            lane_index: its lane.
            along_m: where on the lane.
            speed_mps: initial speed.
            target_speed_mps: speed it likes.
            body: size and colour.
        """
        lane: AbstractLane = road.network.get_lane(lane_index)
        self.LENGTH, self.WIDTH = body.length_m, body.width_m
        # Without a road the base class does not search the whole network for the lane, which we know.
        position, heading = lane.position(along_m, 0.0), lane.heading_at(along_m)
        super().__init__(None, position, heading, speed_mps, lane_index, target_speed_mps)
        self.road, self.lane_index, self.lane = road, lane_index, lane
        self.body = body
        self.is_at_dead_end = False
        self.enable_lane_change = body.kind != "truck"
        self.randomize_behavior()

    def follow_road(self) -> None:
        """Go on to a random lane where the target lane ends."""
        target: AbstractLane = self.road.network.get_lane(self.target_lane_index)
        if not target.after_end(self.position):
            return
        following: list[LaneIndex] = self.road.successors[self.target_lane_index]
        if following:
            self.target_lane_index = following[int(self.road.np_random.integers(len(following)))]
        elif target.local_coordinates(self.position)[0] > target.length:
            self.is_at_dead_end = True

    def on_state_update(self) -> None:
        """Find the lane among the current and the target lanes, their neighbours and successors."""
        candidates = dict.fromkeys(
            (*self.road.around(self.lane_index), *self.road.around(self.target_lane_index))
        )
        get_lane = self.road.network.get_lane
        self.lane_index = min(
            candidates, key=lambda index: get_lane(index).distance_with_heading(self.position, self.heading)
        )
        self.lane = get_lane(self.lane_index)

    def lane_distance_to(self, other: RoadObject, lane: AbstractLane | None = None) -> float:
        """Return the straight distance to another object, negative behind: it holds across lane ends."""
        if not other:
            return float("nan")
        dx, dy = (other.position - self.position).tolist()
        is_ahead = dx * np.cos(self.heading) + dy * np.sin(self.heading) >= 0
        return float(np.hypot(dx, dy)) * (1.0 if is_ahead else -1.0)


class EgoCar(Vehicle):
    """The mirror image of the ego car: seen and hit by others, it moves only where it is put."""

    def __init__(self, config: VehicleConfig) -> None:
        """Make a car of the size in ``config``; ``place`` puts it on the road."""
        self.LENGTH, self.WIDTH = config.length_m, config.width_m
        self._axle_to_center_m = config.length_m / 2 - config.rear_overhang_m
        super().__init__(None, (0.0, 0.0))

    def place(self, xy_m: FloatArray, yaw_rad: float, speed_mps: float) -> None:
        """Put the rear axle at (2,) ``xy_m``."""
        direction = np.array([np.cos(yaw_rad), np.sin(yaw_rad)])
        self.position = xy_m + direction * self._axle_to_center_m
        self.heading, self.speed = yaw_rad, speed_mps

    def act(self, action: dict[str, float] | str | None = None) -> None:
        """Do nothing: the driver is elsewhere."""

    def step(self, dt: float) -> None:
        """Stay where it was put; an impact moves only the others."""
        self.impact = None

    def lane_distance_to(self, other: RoadObject, lane: AbstractLane | None = None) -> float:
        """Return the distance straight ahead to another object."""
        return float(self.front_distance_to(other)) if other else float("nan")


class TrafficRoad(Road):
    """A HighwayEnv road whose cars see past the ends of their lanes."""

    def __init__(self, layout: RoadLayout, rng: np.random.Generator) -> None:
        """Build an empty road.

        Args:
            layout: lanes and obstacles.
            rng: chance of the traffic's behaviour.
        """
        super().__init__(network=layout.network, np_random=rng)
        self.successors = layout.successors
        self._predecessors: dict[LaneIndex, list[LaneIndex]] = {index: [] for index in layout.successors}
        for index, following in layout.successors.items():
            for lane in following:
                self._predecessors[lane].append(index)
        self._around: dict[LaneIndex, list[LaneIndex]] = {}
        self._sight: dict[LaneIndex, list[tuple[AbstractLane, float]]] = {}
        for xy_m in layout.obstacles_xy_m:
            self.objects.append(Obstacle(None, xy_m))

    def around(self, index: LaneIndex) -> list[LaneIndex]:
        """Return the lanes beside a lane, itself included, and those that go on from them."""
        if index not in self._around:
            beside = self.network.all_side_lanes(index)
            self._around[index] = beside + [lane for side in beside for lane in self.successors[side]]
        return self._around[index]

    def neighbour_vehicles(
        self, vehicle: Vehicle, lane_index: LaneIndex | None = None
    ) -> tuple[Vehicle | None, Vehicle | None]:
        """Return the vehicle ahead and the one behind on a lane, also on the lanes before and after it."""
        index = lane_index or vehicle.lane_index
        if not index:
            return None, None
        sight = self._lanes_in_sight(index)
        own_m = sight[0][0].local_coordinates(vehicle.position)[0]
        ahead, behind, ahead_m, behind_m = None, None, np.inf, -np.inf
        for other in (*self.vehicles, *self.objects):
            if other is vehicle or np.abs(other.position - vehicle.position).max() > _SIGHT_M:
                continue
            for lane, offset_m in sight:
                along_m, left_m = lane.local_coordinates(other.position)
                if not lane.on_lane(other.position, along_m, left_m, margin=1):
                    continue
                along_m += offset_m
                if own_m <= along_m < ahead_m:
                    ahead, ahead_m = other, along_m
                elif behind_m < along_m < own_m:
                    behind, behind_m = other, along_m
                break
        return ahead, behind

    def _lanes_in_sight(self, index: LaneIndex) -> list[tuple[AbstractLane, float]]:
        """Return a lane, those ahead and those just behind, each with where it begins along the first."""
        if index not in self._sight:
            lane = self.network.get_lane(index)
            found = [(lane, 0.0)]
            ahead, ahead_m = index, lane.length
            while self.successors[ahead] and ahead_m < lane.length + _SIGHT_M:
                ahead = self.successors[ahead][0]
                found.append((self.network.get_lane(ahead), ahead_m))
                ahead_m += found[-1][0].length
            before = [self.network.get_lane(other) for other in self._predecessors[index]]
            found += [(other, -other.length) for other in before]
            self._sight[index] = found
        return self._sight[index]
