"""Bad on purpose: follows the route at walking pace and arrives nowhere."""

from __future__ import annotations

from dataclasses import dataclass

from policies.pure_pursuit import PurePursuitPolicy


@dataclass(kw_only=True, slots=True)
class TimidPolicy(PurePursuitPolicy):
    """Pure pursuit at 3 m/s."""

    cruise_speed_mps: float = 3.0
