"""Many plans at once: what the car does under them, and what the project's reward says of it, before anything is drawn.

Everything is in the ego frame at the start of the plans. The motion is that of ``drivesim.dynamics``, the reward that
of ``drivesim.rewards`` on ``drivesim.metrics.driving``, both for `P` plans of `T` steps in arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.metrics.driving import NUPLAN_COMFORT, ComfortLimits
from drivesim.rewards import RewardConfig
from drivesim.scene.geometry import FloatArray, wrap_angle


@dataclass(kw_only=True, slots=True, frozen=True)
class CarNow:
    """The car when a plan begins."""

    speed_mps: float
    accel_mps2: float
    yaw_rate_radps: float
    vehicle: Mapping[str, float]  # fields of ``VehicleConfig``
    dt_s: float

    @classmethod
    def of(cls, info: dict[str, Any]) -> CarNow:
        """Read the car from an environment's info."""
        ego = info["ego"]
        return cls(
            speed_mps=ego["speed_mps"],
            accel_mps2=ego["accel_mps2"],
            yaw_rate_radps=ego["yaw_rate_radps"],
            vehicle=info["vehicle"],
            dt_s=info["dt_s"],
        )


@dataclass(kw_only=True, slots=True)
class Plans:
    """What plans do; the states are those at the ends of the steps."""

    steering_rad: FloatArray  # (P, T)
    speed_mps: FloatArray  # (P, T)
    mean_speed_mps: FloatArray  # (P, T) over the step
    yaw_rate_radps: FloatArray  # (P, T)
    accel_mps2: FloatArray  # (P, T)
    xy_m: FloatArray  # (P, T, 2)
    yaw_rad: FloatArray  # (P, T)

    def __len__(self) -> int:
        """Return the number of plans."""
        return len(self.speed_mps)

    def chosen(self, indices: NDArray[np.int_]) -> Plans:
        """Return some of the plans."""
        return Plans(**{name: getattr(self, name)[indices] for name in self.__slots__})

    @property
    def twist(self) -> FloatArray:
        """Return (P, T, 2) mean speed and yaw rate, as the world model is told of motion."""
        return np.stack([self.mean_speed_mps, self.yaw_rate_radps], axis=-1)


def drive(steering_rad: FloatArray, accel_mps2: FloatArray, car: CarNow) -> Plans:
    """Drive plans (P, T) of road-wheel angle and acceleration, within the car's limits."""
    vehicle, dt_s = car.vehicle, car.dt_s
    limit_rad = vehicle["max_steering_rad"]
    steering_rad = np.clip(steering_rad, -limit_rad, limit_rad)
    accel_mps2 = np.clip(accel_mps2, -vehicle["max_braking_mps2"], vehicle["max_accel_mps2"])
    num_plans, num_steps = steering_rad.shape
    speed_mps = np.empty((num_plans, num_steps + 1))
    speed_mps[:, 0] = car.speed_mps
    for step in range(num_steps):
        reached = speed_mps[:, step] + accel_mps2[:, step] * dt_s
        speed_mps[:, step + 1] = np.clip(reached, 0.0, vehicle["max_speed_mps"])
    mean_mps = 0.5 * (speed_mps[:, 1:] + speed_mps[:, :-1])
    grip_1pm = vehicle["max_lateral_accel_mps2"] / np.maximum(mean_mps, 1e-3) ** 2
    yaw_rate = mean_mps * np.clip(np.tan(steering_rad) / vehicle["wheelbase_m"], -grip_1pm, grip_1pm)
    turned = yaw_rate * dt_s
    yaw_rad = np.cumsum(turned, axis=1)
    chord_m, middle_rad = mean_mps * dt_s * np.sinc(0.5 * turned / np.pi), yaw_rad - 0.5 * turned
    moved_m = np.stack([chord_m * np.cos(middle_rad), chord_m * np.sin(middle_rad)], axis=-1)
    return Plans(
        steering_rad=steering_rad,
        speed_mps=speed_mps[:, 1:],
        mean_speed_mps=mean_mps,
        yaw_rate_radps=yaw_rate,
        accel_mps2=np.diff(speed_mps, axis=1) / dt_s,
        xy_m=np.cumsum(moved_m, axis=1),
        yaw_rad=yaw_rad,
    )


@dataclass(kw_only=True, slots=True)
class OnRoute:
    """Where plans are relative to the route."""

    distance_m: FloatArray  # (P, T) gained since the start
    lateral_m: FloatArray  # (P, T) left positive
    heading_error_rad: FloatArray  # (P, T)


class RouteAhead:
    """The route in sight as a polyline from beside the car on; it goes on straight at its end."""

    def __init__(self, route_ahead_m: FloatArray) -> None:
        """Take ``info["route_ahead_m"]``; its first point lies one spacing before the car."""
        ahead = np.asarray(route_ahead_m, dtype=np.float64)
        beyond = ahead[-1] + (ahead[-1] - ahead[-2]) * np.array([[1.0], [20.0]])
        behind = ahead[0] - (ahead[1] - ahead[0]) * np.array([[3.0], [1.0]])
        points = np.concatenate([behind, ahead, beyond])
        steps = np.diff(points, axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        is_there = lengths > 1e-3
        self._first, self._length = points[:-1][is_there], lengths[is_there]
        self._direction = steps[is_there] / self._length[:, None]
        self._start = np.concatenate([[0.0], np.cumsum(self._length)[:-1]])
        self._heading = np.arctan2(self._direction[:, 1], self._direction[:, 0])

    def locate(self, plans: Plans) -> OnRoute:
        """Return where plans are."""
        distance_m, lateral_m, heading = self._project(plans.xy_m)
        start_m = self._project(np.zeros((1, 1, 2)))[0]
        return OnRoute(
            distance_m=distance_m - start_m,
            lateral_m=lateral_m,
            heading_error_rad=wrap_angle(plans.yaw_rad - heading),
        )

    def _project(self, xy_m: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        offset = xy_m[..., None, :] - self._first
        along = np.clip(np.sum(offset * self._direction, axis=-1), 0.0, self._length)
        gap = np.linalg.norm(offset - along[..., None] * self._direction, axis=-1)
        best = np.argmin(gap, axis=-1)
        picked = np.take_along_axis(offset, best[..., None, None], axis=-2)[..., 0, :]
        direction = self._direction[best]
        lateral = direction[..., 0] * picked[..., 1] - direction[..., 1] * picked[..., 0]
        distance = self._start[best] + np.take_along_axis(along, best[..., None], axis=-1)[..., 0]
        return distance, lateral, self._heading[best]


def plan_rewards(plans: Plans, place: OnRoute, car: CarNow, config: RewardConfig) -> FloatArray:
    """Return progress, lateral, heading and comfort (P, T) of the reward of every step.

    Its other parts, off-road, collision and speeding, are left out: neither the edges of the road nor other cars nor
    the speed limit is known from the route in sight.
    """
    gained_m = np.diff(place.distance_m, axis=1, prepend=0.0)
    broken = broken_comfort(plans, car)
    return np.asarray(
        config.progress * np.clip(gained_m / config.full_progress_m, -1.0, 1.0)
        - config.lateral * np.minimum(np.abs(place.lateral_m) / config.full_lateral_m, 1.0)
        - config.heading * np.minimum(np.abs(place.heading_error_rad) / config.full_heading_rad, 1.0)
        - config.comfort * broken
    )


def broken_comfort(plans: Plans, car: CarNow, limits: ComfortLimits = NUPLAN_COMFORT) -> FloatArray:
    """Return the share (P, T) of the six comfort limits that a step breaks, see ``driving.comfort``."""
    speed, yaw_rate, accel = plans.speed_mps, plans.yaw_rate_radps, plans.accel_mps2
    lateral = speed * yaw_rate
    jerk = np.diff(accel, axis=1, prepend=car.accel_mps2) / car.dt_s
    lateral_jerk = np.diff(lateral, axis=1, prepend=car.speed_mps * car.yaw_rate_radps) / car.dt_s
    yaw_accel = np.diff(yaw_rate, axis=1, prepend=car.yaw_rate_radps) / car.dt_s
    is_broken = [
        (accel < limits.min_accel_mps2) | (accel > limits.max_accel_mps2),
        np.abs(lateral) > limits.max_lateral_accel_mps2,
        np.abs(yaw_rate) > limits.max_yaw_rate_radps,
        np.abs(yaw_accel) > limits.max_yaw_accel_radps2,
        np.abs(jerk) > limits.max_longitudinal_jerk_mps3,
        np.hypot(jerk, lateral_jerk) > limits.max_jerk_mps3,
    ]
    return np.asarray(np.mean(is_broken, axis=0))
