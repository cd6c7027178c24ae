"""Other cars: HighwayEnv's IDM/MOBIL vehicles on a road layout, kept few and near the ego car.

The ego car is mirrored into HighwayEnv, so that traffic reacts to it and collisions are HighwayEnv's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from highway_env.road.lane import AbstractLane
from highway_env.road.road import LaneIndex, Road
from highway_env.vehicle.behavior import IDMVehicle
from highway_env.vehicle.kinematics import Vehicle
from highway_env.vehicle.objects import Obstacle, RoadObject

from drivesim.dynamics import VehicleConfig
from drivesim.reference.camera import VehicleBox
from drivesim.reference.roads import RoadLayout
from drivesim.scene.geometry import FloatArray, wrap_angle
from drivesim.scene.types import EgoState

_SIGHT_M = 70.0  # how far traffic looks along its lane
_FORGET_M = 130.0
_FORGET_BEHIND_M = 70.0
_SPAWN_SPACING_M = 7.0
_CLEARANCE_M = 14.0
_BRAKING_MPS2 = -0.6

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
    length_m, width_m, height_m = {"car": (4.3, 1.8, 1.5), "van": (5.2, 2.0, 2.2), "truck": (8.4, 2.4, 3.2)}[kind]
    scale = float(rng.uniform(0.93, 1.07))
    color = list(COLORS)[int(rng.integers(len(COLORS)))]
    return CarBody(kind=kind, color=color, length_m=length_m * scale, width_m=width_m, height_m=height_m * scale)


class TrafficCar(IDMVehicle):
    """An IDM/MOBIL vehicle with a body of its own; it looks for its lane only where it can have gone."""

    def __init__(self, road: TrafficRoad, lane_index: LaneIndex, along_m: float, *, speed_mps: float, target_speed_mps: float, body: CarBody) -> None:
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
        super().__init__(None, lane.position(along_m, 0.0), lane.heading_at(along_m), speed_mps, lane_index, target_speed_mps)
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
        self.lane_index = min(candidates, key=lambda index: get_lane(index).distance_with_heading(self.position, self.heading))
        self.lane = get_lane(self.lane_index)

    def lane_distance_to(self, other: RoadObject, lane: AbstractLane | None = None) -> float:
        """Return the distance to another object as the crow flies, negative behind: it holds across lane ends."""
        if not other:
            return float("nan")
        dx, dy = (other.position - self.position).tolist()
        is_ahead = dx * np.cos(self.heading) + dy * np.sin(self.heading) >= 0
        return float(np.hypot(dx, dy)) * (1.0 if is_ahead else -1.0)


class EgoCar(Vehicle):
    """The mirror image of the ego car: others see it and collide with it, but it moves only where it is put."""

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
    """A HighwayEnv road that knows which lanes follow which, so that cars see past the ends of their lanes."""

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

    def neighbour_vehicles(self, vehicle: Vehicle, lane_index: LaneIndex | None = None) -> tuple[Vehicle | None, Vehicle | None]:
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
        """Return a lane, those within sight ahead and those just behind, each with its distance along the first."""
        if index not in self._sight:
            lane = self.network.get_lane(index)
            found = [(lane, 0.0)]
            ahead, ahead_m = index, lane.length
            while self.successors[ahead] and ahead_m < lane.length + _SIGHT_M:
                ahead = self.successors[ahead][0]
                found.append((self.network.get_lane(ahead), ahead_m))
                ahead_m += found[-1][0].length
            found += [(other, -other.length) for other in map(self.network.get_lane, self._predecessors[index])]
            self._sight[index] = found
        return self._sight[index]


class Traffic:
    """The cars around the ego car: moved, removed when far away, added out of sight."""

    def __init__(self, layout: RoadLayout, *, vehicle: VehicleConfig, rng: np.random.Generator) -> None:
        """Make the road without cars; ``populate`` adds them.

        Args:
            layout: roads.
            vehicle: size of the ego car.
            rng: all chance of the traffic.
        """
        self._rng = rng
        self.road = TrafficRoad(layout, rng)
        self._ego = EgoCar(vehicle)
        self.road.vehicles.append(self._ego)
        self._spots: list[tuple[LaneIndex, float]] = []
        for index in layout.traffic_lanes:
            steps = np.arange(2.0, layout.network.get_lane(index).length - 2.0, _SPAWN_SPACING_M)
            self._spots += [(index, float(s)) for s in steps]
        lanes = [(layout.network.get_lane(index), s) for index, s in self._spots]
        self._spots_xy_m = np.array([lane.position(s, 0.0) for lane, s in lanes])
        self._spots_yaw_rad = np.array([lane.heading_at(s) for lane, s in lanes])
        self._route_edges = {(index[0], index[1]) for index in layout.route}
        self._num_cars = int(rng.choice([0, 1, 2, 3, 4, 5, 6], p=[0.14, 0.14, 0.18, 0.18, 0.16, 0.12, 0.08]))

    @property
    def cars(self) -> list[TrafficCar]:
        """Return all cars but the ego car."""
        return [car for car in self.road.vehicles if isinstance(car, TrafficCar)]

    @property
    def boxes(self) -> list[VehicleBox]:
        """Return what the camera draws: cars, and obstacles on the road."""
        boxes = [_box_of(car) for car in self.cars]
        return boxes + [_box_of_obstacle(obstacle) for obstacle in self.road.objects]

    def populate(self, ego: EgoState) -> None:
        """Put the first cars around the ego car, ahead of it more often than not."""
        self._ego.place(np.array([ego.x_m, ego.y_m]), ego.yaw_rad, ego.speed_mps)
        for _ in range(self._num_cars):
            bearing = float(self._rng.choice([0.0, np.pi], p=[0.85, 0.15]))
            reach_m = (14.0, 60.0) if self._rng.random() < 0.6 else (14.0, 110.0)
            self._spawn(ego, reach_m=reach_m, bearing_rad=bearing, half_angle_rad=0.9)

    def advance(self, before: EgoState, after: EgoState, *, duration_s: float, max_step_s: float = 1 / 12) -> bool:
        """Let traffic act and move while the ego car goes from one state to the next; tell whether it hit something."""
        num_steps = int(np.ceil(duration_s / max_step_s - 1e-9))
        turn_rad = float(wrap_angle(after.yaw_rad - before.yaw_rad))
        start, end = np.array([before.x_m, before.y_m]), np.array([after.x_m, after.y_m])
        self._ego.crashed = False
        for step in range(1, num_steps + 1):
            share = step / num_steps
            speed_mps = before.speed_mps + share * (after.speed_mps - before.speed_mps)
            self._ego.place(start + share * (end - start), before.yaw_rad + share * turn_rad, speed_mps)
            self.road.act()
            self.road.step(duration_s / num_steps)
        self._refresh(after)
        return bool(self._ego.crashed)

    def _refresh(self, ego: EgoState) -> None:
        """Drop cars that are far away or out of road, and let new ones come where they are hardly seen."""
        self.road.vehicles = [self._ego] + [car for car in self.cars if not self._is_gone(car, ego)]
        if len(self.road.vehicles) <= self._num_cars and self._rng.random() < 0.25:
            if self._rng.random() < 0.8:
                self._spawn(ego, reach_m=(75.0, 120.0), bearing_rad=0.0, half_angle_rad=1.0)
            else:
                self._spawn(ego, reach_m=(22.0, 55.0), bearing_rad=np.pi, half_angle_rad=0.8)

    def _is_gone(self, car: TrafficCar, ego: EgoState) -> bool:
        dx, dy = float(car.position[0]) - ego.x_m, float(car.position[1]) - ego.y_m
        is_behind = dx * np.cos(ego.yaw_rad) + dy * np.sin(ego.yaw_rad) < 0
        return car.is_at_dead_end or bool(np.hypot(dx, dy) > (_FORGET_BEHIND_M if is_behind else _FORGET_M))

    def _spawn(self, ego: EgoState, *, reach_m: tuple[float, float], bearing_rad: float, half_angle_rad: float) -> None:
        """Put a car on a free spot in a sector around the ego car, if there is one."""
        delta = self._spots_xy_m - np.array([ego.x_m, ego.y_m])
        distance_m = np.hypot(delta[:, 0], delta[:, 1])
        bearing = wrap_angle(np.arctan2(delta[:, 1], delta[:, 0]) - ego.yaw_rad - bearing_rad)
        is_free = (distance_m > reach_m[0]) & (distance_m < reach_m[1]) & (np.abs(bearing) < half_angle_rad)
        for other in (*self.road.vehicles, *self.road.objects):
            is_free &= np.hypot(*(self._spots_xy_m - other.position).T) > _CLEARANCE_M
        if bearing_rad:  # from behind only in our direction: the others would be driving away
            is_free &= np.abs(wrap_angle(self._spots_yaw_rad - ego.yaw_rad)) < 1.2
        free = np.flatnonzero(is_free)
        if not len(free):
            return
        weights = np.array([2.0 if self._spots[spot][0][:2] in self._route_edges else 1.0 for spot in free])
        lane_index, along_m = self._spots[int(self._rng.choice(free, p=weights / weights.sum()))]
        target_mps = float(self._rng.uniform(2.5, 5.0) if self._rng.random() < 0.1 else self._rng.uniform(6.0, 15.0))
        limit_mps = float(self.road.network.get_lane(lane_index).speed_limit or 12.0)
        self.road.vehicles.append(
            TrafficCar(
                self.road,
                lane_index,
                along_m,
                speed_mps=min(target_mps, limit_mps),
                target_speed_mps=target_mps,
                body=draw_body(self._rng),
            )
        )


def _box_of(car: TrafficCar) -> VehicleBox:
    return VehicleBox(
        x_m=float(car.position[0]),
        y_m=float(car.position[1]),
        yaw_rad=float(wrap_angle(car.heading)),
        length_m=car.body.length_m,
        width_m=car.body.width_m,
        height_m=car.body.height_m,
        color_rgb=COLORS[car.body.color],
        is_braking=bool(car.crashed or car.action["acceleration"] < _BRAKING_MPS2),
    )


def _box_of_obstacle(obstacle: Obstacle) -> VehicleBox:
    return VehicleBox(
        x_m=float(obstacle.position[0]),
        y_m=float(obstacle.position[1]),
        yaw_rad=float(obstacle.heading),
        length_m=float(obstacle.LENGTH),
        width_m=float(obstacle.WIDTH),
        height_m=1.1,
        color_rgb=COLORS["orange"],
        is_braking=False,
    )
