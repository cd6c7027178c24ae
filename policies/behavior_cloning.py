"""Drives by camera with a cloned driver (``drivesim/behavior_cloning.py``): picture, speed, command, no route."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from drivesim.behavior_cloning import CameraDriver, load_camera_driver
from drivesim.rollout import Action
from drivesim.scene.types import Command, Image


@dataclass(kw_only=True, slots=True)
class BehaviorCloningPolicy:
    """Steer as the network says; reach its speed as gently as the gap to it allows."""

    weights: str = "driver-tiny"  # a shipped name or a file
    device: str = "cpu"
    accel_mps2: float = 1.5
    braking_mps2: float = 6.0
    time_to_speed_s: float = 0.8
    _driver: CameraDriver = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Load the weights, once per name.

        Raises:
            InputError: no such weights, or weights of something else.
        """
        self._driver = _loaded(self.weights, self.device)

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action for the picture; of ``info`` speed, command, car and step length are read."""
        speed_mps, car = info["ego"]["speed_mps"], info["vehicle"]
        steering_rad, wanted_mps = self._driver.drive(
            observation, speed_mps=speed_mps, command=Command(info["command"])
        )
        accel = float(
            np.clip((wanted_mps - speed_mps) / self.time_to_speed_s, -self.braking_mps2, self.accel_mps2)
        )
        limit = car["max_steering_rad"]
        return np.array(
            [
                np.clip(steering_rad, -limit, limit),
                np.clip(speed_mps + accel * info["dt_s"], 0.0, car["max_speed_mps"]),
            ],
            dtype=np.float32,
        )


@lru_cache(maxsize=4)
def _loaded(weights: str, device: str) -> CameraDriver:
    return load_camera_driver(weights, device=device)
