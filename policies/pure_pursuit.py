"""Pure pursuit (Coulter 1992): steer onto the arc to a point of the route ahead, and slow down for bends.

It drives by ``info["route_ahead_m"]``, the ego speed, and the car and the length of a step that ``info`` names; it
sees neither the picture nor other cars.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

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

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action from route, motion, car and step length in ``info``."""
        route_m = np.concatenate([np.zeros((1, 2)), np.asarray(info["route_ahead_m"], dtype=np.float64)])
        speed_mps, accel_mps2 = info["ego"]["speed_mps"], info["ego"]["accel_mps2"]
        car: dict[str, float] = info["vehicle"]
        steering = self._steering_rad(route_m, speed_mps, wheelbase_m=car["wheelbase_m"])
        accel = self._accel_mps2(self._allowed_speed_mps(route_m[1:]) - speed_mps, accel_mps2, info["dt_s"])
        return np.array(
            [
                np.clip(steering, -car["max_steering_rad"], car["max_steering_rad"]),
                np.clip(speed_mps + accel * info["dt_s"], 0.0, car["max_speed_mps"]),
            ],
            dtype=np.float32,
        )

    def _steering_rad(self, route_m: FloatArray, speed_mps: float, *, wheelbase_m: float) -> float:
        """Return the angle whose arc passes through the route's point one look-ahead away."""
        lookahead_m = float(np.clip(self.lookahead_s * speed_mps, self.min_lookahead_m, self.max_lookahead_m))
        gaps_m = np.linalg.norm(route_m[1:], axis=1)
        is_beyond = gaps_m >= lookahead_m
        index = int(np.argmax(is_beyond)) if is_beyond.any() else len(gaps_m) - 1
        x_m, y_m = _point_at_gap(route_m[index], route_m[index + 1], lookahead_m)
        curvature = 2.0 * y_m / max(x_m**2 + y_m**2, 1e-6)
        return float(np.arctan(curvature * wheelbase_m))

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

    def _accel_mps2(self, missing_mps: float, accel_mps2: float, dt_s: float) -> float:
        """Return the acceleration towards the allowed speed within the limits of comfort and jerk."""
        wanted = float(np.clip(missing_mps, -self.braking_mps2, self.accel_mps2))
        change = self.jerk_mps3 * dt_s
        return float(np.clip(wanted, accel_mps2 - change, accel_mps2 + change))


def _point_at_gap(near_m: FloatArray, far_m: FloatArray, gap_m: float) -> FloatArray:
    """Return the point between two (2,) points that is nearest to ``gap_m`` from the origin."""
    near_gap, far_gap = float(np.linalg.norm(near_m)), float(np.linalg.norm(far_m))
    share = (gap_m - near_gap) / (far_gap - near_gap) if far_gap > near_gap else 1.0
    return np.asarray(near_m + float(np.clip(share, 0.0, 1.0)) * (far_m - near_m))
