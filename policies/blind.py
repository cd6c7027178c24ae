"""Bad on purpose: straight on at cruising speed, whatever comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from drivesim.policy_loading import Action
from drivesim.scene.types import Image


@dataclass(kw_only=True, slots=True)
class BlindPolicy:
    """Hold the wheel straight and a fixed speed; neither picture nor route is looked at."""

    cruise_speed_mps: float = 10.0

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action, always the same."""
        speed_mps = min(max(self.cruise_speed_mps, 0.0), info["vehicle"]["max_speed_mps"])
        return np.array([0.0, speed_mps], dtype=np.float32)
