"""Pure pursuit that keeps its distance: speed by the Intelligent Driver Model (Treiber, Hennecke, Helbing 2000).

The gap to what stands or drives on the way is read from the picture (``road_vision.free_way``); how fast it closes
follows from the gaps of the last steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drivesim.policy_loading import Action
from drivesim.scene.types import Camera, Image
from policies.pure_pursuit import PurePursuitPolicy
from policies.road_vision import free_way

EXPONENT = 4.0
FASTEST_MPS = 20.0  # of what drives ahead, and
FACING_MPS = 3.0  # of what comes towards the car
FORGOTTEN_AFTER = 3  # readings in a row that do not see it any more


@dataclass(kw_only=True, slots=True)
class IdmPolicy(PurePursuitPolicy):
    """Follow the route behind whatever is on it."""

    time_gap_s: float = 1.4
    standing_gap_m: float = 3.0
    hard_braking_mps2: float = 7.0
    camera: Camera | None = None  # of the pictures; the front camera of their size if left out
    _gap: GapTracker = field(default_factory=lambda: GapTracker(), init=False, repr=False)

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action: the wheel of pure pursuit, the speed of the gap in the picture."""
        steering_rad, wanted_mps = PurePursuitPolicy.select_action(self, observation, info)
        speed_mps, dt_s, car = info["ego"]["speed_mps"], info["dt_s"], info["vehicle"]
        route_m = np.asarray(info["route_ahead_m"], dtype=np.float64)
        way = free_way(observation, route_m, camera=self.camera)
        front_m = car["length_m"] - car["rear_overhang_m"]
        self._gap.update(way.distance_m - front_m if way.is_blocked else None, speed_mps, dt_s)
        if self._gap.gap_m is not None:
            allowed_mps = self._allowed_speed_mps(route_m)
            accel = self.following_accel_mps2(self._gap.gap_m, self._gap.closing_mps, speed_mps, allowed_mps)
            wanted_mps = min(float(wanted_mps), speed_mps + accel * dt_s)
        return np.array([steering_rad, np.clip(wanted_mps, 0.0, car["max_speed_mps"])], dtype=np.float32)

    def following_accel_mps2(
        self, gap_m: float, closing_mps: float, speed_mps: float, allowed_mps: float
    ) -> float:
        """Return the model's acceleration at a gap that closes, at most ``hard_braking_mps2`` backwards."""
        braking = speed_mps * closing_mps / (2.0 * np.sqrt(self.accel_mps2 * self.braking_mps2))
        wanted_m = self.standing_gap_m + max(0.0, speed_mps * self.time_gap_s + braking)
        share = (speed_mps / max(allowed_mps, 0.1)) ** EXPONENT + (wanted_m / max(gap_m, 0.1)) ** 2
        return float(np.clip(self.accel_mps2 * (1.0 - share), -self.hard_braking_mps2, self.accel_mps2))


@dataclass(kw_only=True, slots=True)
class GapTracker:
    """The gap ahead and how fast it closes, by an alpha-beta filter over noisy readings."""

    gap_m: float | None = None
    closing_mps: float = 0.0
    gain: float = 0.5
    closing_gain: float = 0.25  # per reading
    most_jump_m: float = 6.0
    _num_missed: int = 0

    def update(self, read_m: float | None, speed_mps: float, dt_s: float) -> None:
        """Take one reading; None sees nothing. A new thing is taken to stand."""
        expected_m = None if self.gap_m is None else self.gap_m - self.closing_mps * dt_s
        is_missed = read_m is None or (expected_m is not None and read_m > expected_m + self.most_jump_m)
        self._num_missed = self._num_missed + 1 if is_missed else 0
        if expected_m is not None and is_missed and self._num_missed < FORGOTTEN_AFTER:
            self.gap_m = max(expected_m, 0.0)
        elif read_m is None:
            self.gap_m, self.closing_mps = None, 0.0
        elif expected_m is None or abs(read_m - expected_m) > self.most_jump_m:
            self.gap_m, self.closing_mps, self._num_missed = max(read_m, 0.0), speed_mps, 0
        else:
            error_m = read_m - expected_m
            self.gap_m = max(expected_m + self.gain * error_m, 0.0)
            self.closing_mps = _closing(self.closing_mps - self.closing_gain * error_m / dt_s, speed_mps)


def _closing(closing_mps: float, speed_mps: float) -> float:
    """Return a closing speed that a thing can have: it neither comes towards the car nor flees faster than a car."""
    return float(np.clip(closing_mps, speed_mps - FASTEST_MPS, speed_mps + FACING_MPS))
