"""Policies that drive by the pictures, some of them badly: what the imagined world must tell apart by its pictures.

Most policies that are bad on purpose follow the route by exact geometry, and drive the same way in every world. These
look; what is wrong with them is how: pictures that are old, a speed beyond what is seen, a distance that is too short.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from drivesim.policy_loading import Action
from drivesim.scene.types import Image
from policies.idm import IdmPolicy
from policies.lane_keeping import LaneKeepingPolicy


@dataclass(slots=True)
class OldPictures:
    """Hands pictures on late; the first one until there is an older one."""

    delay_s: float
    _kept: deque[Image] = field(default_factory=deque)

    def next(self, observation: Image, dt_s: float) -> Image:
        """Take the newest picture and return the one of ``delay_s`` ago."""
        self._kept.append(observation)
        while len(self._kept) > 1 + round(self.delay_s / dt_s):
            self._kept.popleft()
        return self._kept[0]


@dataclass(kw_only=True, slots=True)
class LateLaneKeeping(LaneKeepingPolicy):
    """Lane keeping by pictures that are half a second old."""

    delay_s: float = 0.5
    _pictures: OldPictures | None = field(default=None, init=False, repr=False)

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action that was right a while ago."""
        if self._pictures is None:
            self._pictures = OldPictures(self.delay_s)
        return LaneKeepingPolicy.select_action(self, self._pictures.next(observation, info["dt_s"]), info)


@dataclass(kw_only=True, slots=True)
class HastyLaneKeeping(LaneKeepingPolicy):
    """Lane keeping faster than lanes are read."""

    cruise_speed_mps: float = 16.0
    unsure_speed_mps: float = 12.0
    lateral_accel_mps2: float = 6.0


@dataclass(kw_only=True, slots=True)
class LateIdm(IdmPolicy):
    """Keeps its distance by pictures that are a second old."""

    delay_s: float = 1.0
    _pictures: OldPictures | None = field(default=None, init=False, repr=False)

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action; the wheel is that of now."""
        if self._pictures is None:
            self._pictures = OldPictures(self.delay_s)
        return IdmPolicy.select_action(self, self._pictures.next(observation, info["dt_s"]), info)


@dataclass(kw_only=True, slots=True)
class TailgatingIdm(IdmPolicy):
    """Keeps a distance that is too short, faster than it should, and brakes gently."""

    cruise_speed_mps: float = 14.0
    time_gap_s: float = 0.3
    standing_gap_m: float = 1.0
    hard_braking_mps2: float = 3.0
