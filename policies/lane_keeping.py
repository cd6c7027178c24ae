"""Lane keeping by eye: steers along the lane that the picture shows; the route is not looked at.

What ``lane_vision`` reads is handed to pure pursuit as if it were the route, so bends in sight set the speed. Where
nothing is seen any more the last lane is followed on, more slowly. Other cars are not minded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drivesim.policy_loading import Action
from drivesim.scene.types import Camera, Image
from policies.lane_vision import LaneTracker
from policies.pure_pursuit import PurePursuitPolicy

AHEAD_M = np.arange(1, 11) * 2.0  # 20 m: as far as lanes are read
SURE = 0.6  # confidence from which on the cruising speed is driven


@dataclass(kw_only=True, slots=True)
class LaneKeepingPolicy(PurePursuitPolicy):
    """Follow the lane in the picture at a speed that its bend and its visibility allow."""

    cruise_speed_mps: float = 9.0
    unsure_speed_mps: float = 4.0
    camera: Camera | None = None  # of the pictures; the front camera of their size if left out
    _tracker: LaneTracker | None = field(default=None, init=False, repr=False)
    _last_speed_mps: float = field(default=0.0, init=False, repr=False)

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action by the lane in the picture and the car's own motion."""
        ego, dt_s = info["ego"], info["dt_s"]
        if self._tracker is None:
            self._tracker = LaneTracker(camera=self.camera)
            self._last_speed_mps = ego["speed_mps"]
        mean_mps = 0.5 * (self._last_speed_mps + ego["speed_mps"])
        self._last_speed_mps = ego["speed_mps"]
        lane = self._tracker.update(
            observation, distance_m=mean_mps * dt_s, turned_rad=ego["yaw_rate_radps"] * dt_s
        )
        steering_rad, speed_mps = PurePursuitPolicy.select_action(
            self, observation, {**info, "route_ahead_m": lane.points(AHEAD_M)}
        )
        share = min(lane.confidence / SURE, 1.0)
        allowed_mps = self.unsure_speed_mps + share * (self.cruise_speed_mps - self.unsure_speed_mps)
        slowing_mps = max(allowed_mps, ego["speed_mps"] - self.braking_mps2 * dt_s)
        return np.array([steering_rad, min(float(speed_mps), slowing_mps)], dtype=np.float32)
