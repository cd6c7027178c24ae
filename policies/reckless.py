"""Bad on purpose: too fast, through bends too, and hard on pedals and passengers."""

from __future__ import annotations

from dataclasses import dataclass

from policies.pure_pursuit import PurePursuitPolicy


@dataclass(kw_only=True, slots=True)
class RecklessPolicy(PurePursuitPolicy):
    """Pure pursuit at 18 m/s that takes bends at the edge of grip."""

    cruise_speed_mps: float = 18.0
    lateral_accel_mps2: float = 6.0
    accel_mps2: float = 4.0
    braking_mps2: float = 7.0
    jerk_mps3: float = 60.0
