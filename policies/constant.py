"""The floor any policy must beat: always the same action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from drivesim.rollout import Action
from drivesim.scene.types import Image


@dataclass(kw_only=True, slots=True)
class ConstantPolicy:
    """Hold the wheel still; without a target speed, hold the speed as well."""

    steering_rad: float = 0.0
    target_speed_mps: float | None = None

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action; it depends on nothing but the speed to hold."""
        speed = info["ego"]["speed_mps"] if self.target_speed_mps is None else self.target_speed_mps
        return np.array([self.steering_rad, speed], dtype=np.float32)
