"""Bad on purpose: steers where the road asked a while ago."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drivesim.errors import InputError
from drivesim.policy_loading import Action
from drivesim.scene.types import Image
from policies.pure_pursuit import PurePursuitPolicy


@dataclass(kw_only=True, slots=True)
class LateSteeringPolicy(PurePursuitPolicy):
    """Pure pursuit whose wheel follows ``delay_s`` late; its speed is in time."""

    delay_s: float = 0.5
    _waiting: deque[float] = field(default_factory=deque, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse to steer before it is asked."""
        if not self.delay_s >= 0:
            raise InputError(f"delay_s must not be negative, got {self.delay_s}")

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action: the speed of now, the wheel of ``delay_s`` ago; at first the wheel is straight."""
        steering_rad, speed_mps = PurePursuitPolicy.select_action(self, observation, info)
        self._waiting.append(float(steering_rad))
        num_steps = round(self.delay_s / info["dt_s"])
        late_rad = self._waiting.popleft() if len(self._waiting) > num_steps else 0.0
        return np.array([late_rad, speed_mps], dtype=np.float32)
