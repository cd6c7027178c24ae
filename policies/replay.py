"""The recorded drive, turned into actions by inverse dynamics: the ceiling while the log lasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from drivesim.rollout import Action
from drivesim.scene.types import Image


@dataclass(kw_only=True, slots=True)
class ReplayPolicy:
    """Repeat the log; after its end, go straight on at the last speed."""

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return ``info["log_action"]`` while it is valid."""
        if info["is_log_valid"]:
            return np.array(info["log_action"], dtype=np.float32)
        return np.array([0.0, info["ego"]["speed_mps"]], dtype=np.float32)
