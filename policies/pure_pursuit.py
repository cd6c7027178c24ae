"""Pure pursuit (Coulter 1992): steer onto the arc to a point of the route ahead, and slow down for bends.

It drives by ``info["route_ahead_m"]`` and the ego speed; it sees neither the picture nor other cars.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drivesim.dynamics import VehicleConfig
from drivesim.rollout import Action
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Image

MIN_SPEED_MPS = 2.0


@dataclass(kw_only=True, slots=True)
class PurePursuitPolicy:
    """Follow the route at a cruising speed that bends, braking and comfort allow."""

    cruise_speed_mps: float = 10.0
    lookahead_s: float = 0.7
    min_lookahead_m: float = 4.0
    max_lookahead_m: float = 16.0
    lateral_accel_mps2: float = 2.0  # in bends
    accel_mps2: float = 1.5
    braking_mps2: float = 2.5
    jerk_mps3: float = 4.0
    rate_hz: float = 6.0
    vehicle: VehicleConfig = field(default_factory=VehicleConfig)

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action from the route ahead, speed and acceleration in ``info``."""
        route_m = np.concatenate([np.zeros((1, 2)), np.asarray(info["route_ahead_m"], dtype=np.float64)])
        speed_mps, accel_mps2 = info["ego"]["speed_mps"], info["ego"]["accel_mps2"]
        steering = self._steering_rad(route_m, speed_mps)
        speed = self._next_speed_mps(self._allowed_speed_mps(route_m[1:]), speed_mps, accel_mps2)
        limits = self.vehicle
        return np.array(
            [
                np.clip(steering, -limits.max_steering_rad, limits.max_steering_rad),
                np.clip(speed, 0.0, limits.max_speed_mps),
            ],
            dtype=np.float32,
        )

    def _steering_rad(self, route_m: FloatArray, speed_mps: float) -> float:
        """Return the angle whose arc passes through the route's point one look-ahead away."""
        lookahead_m = float(np.clip(self.lookahead_s * speed_mps, self.min_lookahead_m, self.max_lookahead_m))
        gaps_m = np.linalg.norm(route_m[1:], axis=1)
        is_beyond = gaps_m >= lookahead_m
        index = int(np.argmax(is_beyond)) if is_beyond.any() else len(gaps_m) - 1
        x_m, y_m = _point_at_gap(route_m[index], route_m[index + 1], lookahead_m)
        curvature = 2.0 * y_m / max(x_m**2 + y_m**2, 1e-6)
        return float(np.arctan(curvature * self.vehicle.wheelbase_m))

    def _allowed_speed_mps(self, route_m: FloatArray) -> float:
        """Return the speed now from which every bend ahead can still be braked for."""
        legs = np.diff(route_m, axis=0)
        lengths_m = np.linalg.norm(legs, axis=1)
        turns = np.diff(np.unwrap(np.arctan2(legs[:, 1], legs[:, 0])))
        # Three turns together: single ones are as noisy as the route's points.
        curvature = np.abs(
            np.convolve(turns / np.maximum(lengths_m[1:], 1e-3), np.full(3, 1 / 3), mode="same")
        )
        in_bend_mps2 = self.lateral_accel_mps2 / np.maximum(curvature, 1e-4)
        distance_m = np.cumsum(lengths_m)[: len(curvature)]
        now_mps = np.sqrt(in_bend_mps2 + 2.0 * 0.6 * self.braking_mps2 * distance_m)
        return float(np.clip(now_mps.min(), MIN_SPEED_MPS, self.cruise_speed_mps))

    def _next_speed_mps(self, allowed_mps: float, speed_mps: float, accel_mps2: float) -> float:
        """Approach the allowed speed within the limits of acceleration, braking and jerk."""
        wanted = float(np.clip(allowed_mps - speed_mps, -self.braking_mps2, self.accel_mps2))
        change = self.jerk_mps3 / self.rate_hz
        accel = float(np.clip(wanted, accel_mps2 - change, accel_mps2 + change))
        return speed_mps + accel / self.rate_hz


def _point_at_gap(near_m: FloatArray, far_m: FloatArray, gap_m: float) -> FloatArray:
    """Return the point between two (2,) points that is nearest to ``gap_m`` from the origin."""
    near_gap, far_gap = float(np.linalg.norm(near_m)), float(np.linalg.norm(far_m))
    share = (gap_m - near_gap) / (far_gap - near_gap) if far_gap > near_gap else 1.0
    return np.asarray(near_m + float(np.clip(share, 0.0, 1.0)) * (far_m - near_m))
