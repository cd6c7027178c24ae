"""Bad on purpose: follows the route too far to the left, over the line where lanes are narrow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from drivesim.policy_loading import Action
from drivesim.scene.types import Image
from policies.pure_pursuit import PurePursuitPolicy


@dataclass(kw_only=True, slots=True)
class LeftDriftingPolicy(PurePursuitPolicy):
    """Pure pursuit with a wheel that is mounted askew; it settles where pursuit and bias are even."""

    bias_rad: float = 0.1

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action of pure pursuit with the bias added to the wheel."""
        steering_rad, speed_mps = PurePursuitPolicy.select_action(self, observation, info)
        limit_rad = info["vehicle"]["max_steering_rad"]
        biased_rad = np.clip(steering_rad + self.bias_rad, -limit_rad, limit_rad)
        return np.array([biased_rad, speed_mps], dtype=np.float32)
