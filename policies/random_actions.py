"""Random actions, each held for a while: the floor below the constant policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drivesim.errors import InputError
from drivesim.policy_loading import Action
from drivesim.scene.types import Image


@dataclass(kw_only=True, slots=True)
class RandomPolicy:
    """Draw wheel and speed evenly from what the car can do, and hold them for ``hold_s``."""

    seed: int | None = 0  # None draws anew each time
    hold_s: float = 1.0
    _rng: np.random.Generator = field(init=False, repr=False)
    _action: Action = field(init=False, repr=False)
    _left_s: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        """Start the draw."""
        if not self.hold_s > 0:
            raise InputError(f"hold_s must be positive, got {self.hold_s}")
        self._rng = np.random.default_rng(self.seed)
        self._action = np.zeros(2, dtype=np.float32)

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action of this stretch; nothing is looked at but the limits of the car."""
        if self._left_s < 0.5 * info["dt_s"]:
            car: dict[str, float] = info["vehicle"]
            low, high = (-car["max_steering_rad"], 0.0), (car["max_steering_rad"], car["max_speed_mps"])
            self._action = self._rng.uniform(low, high).astype(np.float32)
            self._left_s = self.hold_s
        self._left_s -= info["dt_s"]
        return self._action.copy()
