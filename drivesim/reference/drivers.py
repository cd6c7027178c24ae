"""Drivers of the reference world, from good to reckless.

A driver follows the route and, now and then, carries out a stunt that ignores the road: what policies try, a
world model must have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from drivesim.dynamics import VehicleConfig
from drivesim.errors import InputError
from drivesim.reference.route import RoutePoint
from drivesim.reference.simulator import ReferenceWorld
from drivesim.reference.stunts import Stunt, draw_stunt
from drivesim.scene.geometry import wrap_angle
from drivesim.scene.types import EgoState

_LOST_M = 15.0


class Driver(Protocol):
    """Whoever moves the ego car of a reference world."""

    name: str
    words: str

    def act(self, world: ReferenceWorld) -> tuple[float, float]:
        """Return (road-wheel steering in rad, target speed in m/s) for the next step."""
        ...


@dataclass(kw_only=True, slots=True)
class Habits:
    """How a driver drives: the normal way, and how often and how he departs from it."""

    words: str = ""  # for the caption
    speed_mps: tuple[float, float] = (4.0, 18.0)  # range of the cruising speed
    lateral_accel_mps2: tuple[float, float] = (2.5, 6.0)  # range taken in bends; large = does not slow down
    headway_s: float = 1.2  # kept to the car ahead; 0 = does not look
    wander_rad: float = 0.0  # size of the slow wheel noise
    offset_m: float = 0.2  # spread of the place within the lane
    sway_m: float = 0.0  # amplitude of swerving about the route
    stunts_per_s: float = 0.0  # half the rate at which a rested driver begins one
    stunts: dict[str, float] | None = None  # weights by kind
    is_hunting: bool = False  # steers into other cars


_TURNS = {"hard-turn": 0.45, "speed-step": 0.2, "both": 0.15, "slalom": 0.1, "random": 0.1}
HABITS: dict[str, Habits] = {
    "good": Habits(words="keeping its lane"),
    "sloppy": Habits(
        words="driving sloppily",
        wander_rad=0.05,
        offset_m=0.7,
        headway_s=0.9,
        stunts_per_s=0.06,
        stunts=_TURNS,
    ),
    "swerving": Habits(words="swerving", speed_mps=(4.0, 14.0), sway_m=2.2, stunts_per_s=0.08, stunts=_TURNS),
    "leaving-road": Habits(
        words="leaving the road",
        speed_mps=(4.0, 14.0),
        stunts_per_s=0.22,
        stunts={"run-off": 0.8, "hard-turn": 0.2},
    ),
    "stop-and-go": Habits(
        words="stopping and starting", stunts_per_s=0.5, stunts={"speed-step": 0.85, "both": 0.15}
    ),
    "speeding": Habits(
        words="speeding",
        speed_mps=(13.0, 20.0),
        lateral_accel_mps2=(5.5, 9.0),
        headway_s=0.5,
        stunts_per_s=0.06,
        stunts=_TURNS,
    ),
    "bursts": Habits(
        words="steering at random",
        speed_mps=(3.0, 18.0),
        lateral_accel_mps2=(3.0, 8.0),
        stunts_per_s=0.4,
        stunts=_TURNS,
    ),
    "random": Habits(
        words="driving at random",
        speed_mps=(3.0, 14.0),
        stunts_per_s=0.6,
        stunts={"random": 0.6, "frozen": 0.4},
    ),
    "near-collision": Habits(
        words="coming close to other cars",
        speed_mps=(8.0, 16.0),
        headway_s=0.12,
        offset_m=0.8,
        stunts_per_s=0.1,
        stunts=_TURNS,
    ),
    "collision": Habits(
        words="hitting other cars",
        speed_mps=(6.0, 16.0),
        headway_s=0.0,
        is_hunting=True,
        stunts_per_s=0.05,
        stunts=_TURNS,
    ),
}
"""All kinds of drivers by name."""

_SHARES = {
    "good": 0.15,
    "sloppy": 0.08,
    "swerving": 0.09,
    "leaving-road": 0.09,
    "stop-and-go": 0.1,
    "speeding": 0.1,
    "bursts": 0.24,
    "random": 0.06,
    "near-collision": 0.05,
    "collision": 0.04,
}


def named_driver(name: str, rng: np.random.Generator) -> RoadDriver:
    """Return a driver of a kind; his temper within the kind, and all he does, comes from ``rng``.

    Raises:
        InputError: for a kind that does not exist.
    """
    if name not in HABITS:
        raise InputError(f"unknown driver {name!r}; choose one of {', '.join(HABITS)}")
    return RoadDriver(name, HABITS[name], rng)


def draw_driver(rng: np.random.Generator) -> Driver:
    """Draw a driver: about one in six is a good one, more than half do what the road does not ask for."""
    names = list(_SHARES)
    return named_driver(names[int(rng.choice(len(names), p=list(_SHARES.values())))], rng)


class RoadDriver:
    """Follows the route by pure pursuit, minds bends and cars ahead, and performs stunts."""

    def __init__(self, name: str, habits: Habits, rng: np.random.Generator) -> None:
        """Draw this driver's cruising speed and place in the lane.

        Args:
            name: kind of driver.
            habits: how this kind drives.
            rng: all chance of the driver.
        """
        self.name, self.words = name, habits.words
        self._habits, self._rng = habits, rng
        self.cruise_mps = float(rng.uniform(*habits.speed_mps))
        self._lateral_accel_mps2 = float(rng.uniform(*habits.lateral_accel_mps2))
        self._return_mps = float(rng.uniform(4.5, 10.0))
        self._offset_m = float(np.clip(rng.normal(0.0, habits.offset_m), -1.2, 1.2))
        self._sway_m = habits.sway_m * float(rng.uniform(0.4, 1.3))
        self._sway_rad_per_s = 2 * np.pi / float(rng.uniform(3.0, 7.0))
        self._wander_rad = 0.0
        self._time_s = 0.0
        self._along_m = 0.0
        self._stunt: Stunt | None = None
        self._rest_s = float(rng.uniform(0.3, 2.5))
        # Most give up a stunt that would end in another car.
        self._is_careful = not habits.is_hunting and rng.random() < 0.75

    def act(self, world: ReferenceWorld) -> tuple[float, float]:
        """Return (steering, target speed) for the next step."""
        habits, ego, dt_s = self._habits, world.ego, 1.0 / world.rate_hz
        here = world.route.locate(np.array([ego.x_m, ego.y_m]), self._along_m)
        self._along_m, self._time_s = here.along_m, self._time_s + dt_s
        is_lost = abs(here.left_m) > _LOST_M or here.along_m > world.route.length_m - 2.0
        self._choose_stunt(world, here, is_lost=is_lost)
        instant = self._stunt.pop() if self._stunt else None
        offset_m = self._offset_m + self._sway_m * float(np.sin(self._sway_rad_per_s * self._time_s))
        if instant and instant.shift_m is not None:
            offset_m = instant.shift_m
        noise = habits.wander_rad * np.sqrt(dt_s) * self._rng.normal()
        self._wander_rad += -0.7 * dt_s * self._wander_rad + noise
        steering_rad = self._steer(world, here, offset_m=offset_m) + self._wander_rad
        speed_mps = self._cruise(world, here, is_lost=is_lost)
        if habits.is_hunting and not is_lost:
            steering_rad = self._hunt(world, steering_rad)
        if instant and instant.steering_rad is not None:
            steering_rad = instant.steering_rad
        if instant and instant.speed_mps is not None:
            speed_mps = instant.speed_mps
        limit = world.vehicle.max_steering_rad
        speed_mps = float(np.clip(speed_mps, 0.0, world.vehicle.max_speed_mps))
        return float(np.clip(steering_rad, -limit, limit)), speed_mps

    def _choose_stunt(self, world: ReferenceWorld, here: RoutePoint, *, is_lost: bool) -> None:
        """Begin a stunt once the car is back on its way; end it where it leads too far."""
        dt_s = 1.0 / world.rate_hz
        is_blocked = self._is_careful and _is_car_close(world)
        if self._stunt is not None and (is_lost or is_blocked or self._stunt.is_over):
            self._stunt, self._rest_s = None, float(self._rng.uniform(0.3, 1.5))
        self._rest_s -= dt_s if abs(here.left_m) < 3.0 else 0.25 * dt_s
        weights = self._habits.stunts
        may_begin = self._stunt is None and not (is_lost or is_blocked) and self._rest_s < 0
        if may_begin and weights and self._rng.random() < self._habits.stunts_per_s * dt_s * 2.0:
            self._stunt = draw_stunt(self._rng, weights=weights, rate_hz=world.rate_hz)

    def _steer(self, world: ReferenceWorld, here: RoutePoint, *, offset_m: float) -> float:
        """Return the wheel angle towards a point ahead, ``offset_m`` to the left of the route."""
        ego = world.ego
        reach_m = float(np.clip(0.55 * ego.speed_mps + 3.5, 5.0, 14.0))
        reach_m = max(reach_m, min(0.9 * abs(here.left_m - offset_m), 14.0))
        along_m = here.along_m + reach_m
        heading = world.route.heading_at(along_m)
        target = world.route.point_at(along_m) + offset_m * np.array([-np.sin(heading), np.cos(heading)])
        return _wheel_towards(ego, world.vehicle, float(target[0]), float(target[1]))

    def _cruise(self, world: ReferenceWorld, here: RoutePoint, *, is_lost: bool) -> float:
        """Return the speed that suits the bend, the car ahead and the state of the drive."""
        ego, habits = world.ego, self._habits
        if here.along_m > world.route.length_m - 2.0 * ego.speed_mps - 4.0:
            return 0.0
        reach_m = 6.0 + 1.6 * ego.speed_mps
        bend = world.route.curvature_between(here.along_m, here.along_m + reach_m)
        speed_mps = min(self.cruise_mps, float(np.sqrt(self._lateral_accel_mps2 / max(bend, 1e-3))))
        if is_lost or abs(here.left_m) > 6.0:
            speed_mps = min(speed_mps, self._return_mps)
        if habits.headway_s > 0:
            gap_m = self._gap_ahead(world, here)
            speed_mps = min(speed_mps, max(0.0, (gap_m - 3.0) / (habits.headway_s + 0.25)))
        return speed_mps

    def _gap_ahead(self, world: ReferenceWorld, here: RoutePoint) -> float:
        """Return the free metres to the nearest car on our way, infinity if there is none."""
        boxes = world.traffic
        if not boxes:
            return float("inf")
        nose_m = world.vehicle.length_m - world.vehicle.rear_overhang_m
        centers_m = np.array([[box.x_m, box.y_m] for box in boxes])
        places = world.route.locate_ahead(centers_m, from_m=here.along_m, reach_m=60.0)
        gaps = [
            place.along_m - here.along_m - nose_m - box.length_m / 2
            for place, box in zip(places, boxes, strict=True)
            if abs(place.left_m) < 1.9 and 0.0 < place.along_m - here.along_m < 60.0
        ]
        return max(min(gaps, default=float("inf")), 0.0)

    def _hunt(self, world: ReferenceWorld, steering_rad: float) -> float:
        """Return the wheel angle towards the nearest car ahead within 40 m, else ``steering_rad``."""
        ego = world.ego
        best_m, best = 40.0, steering_rad
        for box in world.traffic:
            dx, dy = box.x_m - ego.x_m, box.y_m - ego.y_m
            distance_m = float(np.hypot(dx, dy))
            if distance_m < best_m and abs(float(wrap_angle(np.arctan2(dy, dx) - ego.yaw_rad))) < 0.6:
                best_m, best = distance_m, _wheel_towards(ego, world.vehicle, box.x_m, box.y_m)
        return best


def _is_car_close(world: ReferenceWorld) -> bool:
    """Tell whether another car is in front, so near that it takes care not to hit it."""
    ego, reach_m = world.ego, 9.0 + 0.8 * world.ego.speed_mps
    for box in world.traffic:
        dx, dy = box.x_m - ego.x_m, box.y_m - ego.y_m
        forward_m = dx * np.cos(ego.yaw_rad) + dy * np.sin(ego.yaw_rad)
        if np.hypot(dx, dy) < reach_m and forward_m > 0:
            return True
    return False


def _wheel_towards(ego: EgoState, vehicle: VehicleConfig, x_m: float, y_m: float) -> float:
    """Return the wheel angle whose arc leads the rear axle to a point."""
    dx, dy = x_m - ego.x_m, y_m - ego.y_m
    angle = float(wrap_angle(np.arctan2(dy, dx) - ego.yaw_rad))
    if abs(angle) > np.pi / 2:
        return float(np.sign(angle)) * vehicle.max_steering_rad
    return float(np.arctan2(2 * vehicle.wheelbase_m * np.sin(angle), max(np.hypot(dx, dy), 1.0)))
