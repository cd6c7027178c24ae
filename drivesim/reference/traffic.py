"""Other cars: HighwayEnv's IDM/MOBIL vehicles on a road layout, kept few and near the ego car.

The ego car is mirrored into HighwayEnv, so that traffic reacts to it and collisions are HighwayEnv's own.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
from highway_env.road.road import LaneIndex
from highway_env.vehicle.objects import Obstacle

from drivesim.dynamics import VehicleConfig
from drivesim.reference.cars import COLORS, EgoCar, TrafficCar, TrafficRoad, draw_body
from drivesim.reference.layout import RoadLayout
from drivesim.reference.vehicles import VehicleBox
from drivesim.scene.geometry import wrap_angle
from drivesim.scene.types import EgoState

_FORGET_M = 130.0
_FORGET_BEHIND_M = 70.0
_SPAWN_SPACING_M = 7.0
_CLEARANCE_M = 14.0
_BRAKING_MPS2 = -0.6


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

    def advance(
        self, before: EgoState, after: EgoState, *, duration_s: float, max_step_s: float = 1 / 12
    ) -> bool:
        """Let traffic act and move while the ego car does; tell whether the ego car hit something.

        Args:
            before: the ego car at the start.
            after: the ego car at the end.
            duration_s: time between the two.
            max_step_s: longest step of the simulation.
        """
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

    def copied(self) -> Traffic:
        """Return traffic that goes on alike, on the same roads."""
        memo = {id(shared): shared for shared in (self.road.network, self._spots, self._spots_xy_m)}
        return deepcopy(self, memo)

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

    def _spawn(
        self, ego: EgoState, *, reach_m: tuple[float, float], bearing_rad: float, half_angle_rad: float
    ) -> None:
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
        is_slow = self._rng.random() < 0.1
        target_mps = float(self._rng.uniform(2.5, 5.0) if is_slow else self._rng.uniform(6.0, 15.0))
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
        speed_mps=float(car.speed),
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
