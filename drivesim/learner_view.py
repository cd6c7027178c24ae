"""What learners see and do: a small picture and a vector of plain numbers; an action in [-1, 1]^2.

Wrappers, vector environments and policies share it, so that an agent trained in one drives in the other.

The vector, in this order: route points 4, 8, 12, 16, 24, 32 and 40 m ahead (x, y in the car's frame / 20 m),
speed / 20 m/s, steering / 0.5 rad, yaw rate (rad/s), acceleration / 8 m/s2, distance from the route / 2 m, angle to it
/ 0.5 rad; with ``has_hazards`` also the probabilities of a collision and of leaving the road within a second, 0 where
nothing tells them. All lie in [-3, 3]. The reference world has no such probabilities: who is to drive in both worlds
does without.

The first number of an action is the wheel: fine about the middle, full lock at the ends. The second is the pedal:
the speed to reach in one step changes by at most the car's braking or acceleration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drivesim.scene.types import Image
from drivesim.video import resize

Floats = NDArray[np.float32]

AHEAD = np.array([4, 8, 12, 16, 24, 32, 40]) // 2 - 1
"""Which of the route points, every 2 m from 2 m on."""
STATE_SIZE = 2 * len(AHEAD) + 6
NUM_HAZARDS = 2  # more, if they are asked for
STATE_LIMIT = 3.0
FINE_SHARE = 0.3  # of the wheel's travel that answers in proportion; the rest grows with the third power


@dataclass(kw_only=True, slots=True, frozen=True)
class LearnerViewConfig:
    """How large the picture is; SB3's convolutions need at least 36 rows and columns."""

    width_px: int = 64
    height_px: int = 36
    has_image: bool = True
    has_hazards: bool = False

    @property
    def state_size(self) -> int:
        """Return how many numbers the vector has."""
        return STATE_SIZE + NUM_HAZARDS * self.has_hazards

    def __post_init__(self) -> None:
        """Refuse pictures without pixels."""
        if min(self.width_px, self.height_px) < 1:
            raise ValueError(f"a picture has pixels, got {self.width_px}x{self.height_px}")


def learner_observation(
    frame: Image, info: Mapping[str, Any], config: LearnerViewConfig
) -> dict[str, NDArray[Any]]:
    """Return ``state`` (state_size,) float32 and, if asked for, ``image`` (height_px, width_px, 3) uint8.

    Args:
        frame: the environment's picture.
        info: what the environment returned with it.
        config: size of the picture.
    """
    seen: dict[str, NDArray[Any]] = {"state": state_vector(info, has_hazards=config.has_hazards)}
    if config.has_image:
        seen["image"] = resize(frame, config.width_px, config.height_px)
    return seen


def state_vector(info: Mapping[str, Any], *, has_hazards: bool = False) -> Floats:
    """Return the numbers (20,) or (22,) float32 of an environment's info; the module's docstring says which."""
    ego, metrics, hazards = info["ego"], info["metrics"], info.get("hazards", {})
    points = np.asarray(info["route_ahead_m"], dtype=np.float64)[AHEAD] / 20.0
    numbers = [
        ego["speed_mps"] / 20.0,
        ego["steering_rad"] / 0.5,
        ego["yaw_rate_radps"],
        ego["accel_mps2"] / 8.0,
        _valid(metrics.get("lateral_error_m")) / 2.0,
        _valid(metrics.get("heading_error_rad")) / 0.5,
    ]
    if has_hazards:
        numbers += [_valid(hazards.get("collision")), _valid(hazards.get("off_road"))]
    state = np.concatenate([points.ravel(), numbers])
    return np.clip(state, -STATE_LIMIT, STATE_LIMIT).astype(np.float32)


def car_action(action: ArrayLike, info: Mapping[str, Any]) -> Floats:
    """Turn an action in [-1, 1]^2 into the environment's (2,): steering in rad, target speed in m/s.

    Args:
        action: wheel (left positive) and pedal; what lies outside is clipped.
        info: what the environment returned last: the car, its speed, the length of a step.
    """
    wheel, pedal = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
    car: Mapping[str, float] = info["vehicle"]
    steering_rad = car["max_steering_rad"] * (FINE_SHARE * wheel + (1 - FINE_SHARE) * wheel**3)
    accel_mps2 = pedal * (car["max_accel_mps2"] if pedal > 0 else car["max_braking_mps2"])
    speed_mps = np.clip(info["ego"]["speed_mps"] + accel_mps2 * info["dt_s"], 0.0, car["max_speed_mps"])
    return np.array([steering_rad, speed_mps], dtype=np.float32)


def _valid(result: Mapping[str, Any] | None) -> float:
    return float(result["value"]) if result is not None and result["is_valid"] else 0.0
