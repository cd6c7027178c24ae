"""Bad on purpose: follows the route with a wheel that never rests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drivesim.errors import InputError
from drivesim.policy_loading import Action
from drivesim.scene.types import Image
from policies.pure_pursuit import PurePursuitPolicy


@dataclass(kw_only=True, slots=True)
class OscillatingPolicy(PurePursuitPolicy):
    """Pure pursuit with a sine added to the wheel."""

    amplitude_rad: float = 0.12
    period_s: float = 2.0
    _time_s: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a sine without a period."""
        if not self.period_s > 0:
            raise InputError(f"period_s must be positive, got {self.period_s}")

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action of pure pursuit, the wheel swinging around it."""
        steering_rad, speed_mps = PurePursuitPolicy.select_action(self, observation, info)
        self._time_s += info["dt_s"]
        swing_rad = self.amplitude_rad * np.sin(2.0 * np.pi * self._time_s / self.period_s)
        limit_rad = info["vehicle"]["max_steering_rad"]
        return np.array(
            [np.clip(steering_rad + swing_rad, -limit_rad, limit_rad), speed_mps], dtype=np.float32
        )
