"""The action and observation spaces of all environments, and the check of an action."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from drivesim.dynamics import VehicleConfig
from drivesim.errors import InputError
from drivesim.scene.types import Camera

ACTION_NAMES = ("steering_rad", "target_speed_mps")
TOLERANCE = 1e-5


def action_space(vehicle: VehicleConfig) -> spaces.Box:
    """Return the box of road-wheel steering in rad (left positive) and target speed in m/s."""
    low = np.array([-vehicle.max_steering_rad, 0.0], dtype=np.float32)
    high = np.array([vehicle.max_steering_rad, vehicle.max_speed_mps], dtype=np.float32)
    return spaces.Box(low, high, dtype=np.float32)


def observation_space(camera: Camera) -> spaces.Box:
    """Return the space of the camera's pictures: (height, width, 3) uint8 RGB."""
    return spaces.Box(0, 255, shape=(camera.height_px, camera.width_px, 3), dtype=np.uint8)


def checked_action(action: Any, space: spaces.Box) -> NDArray[np.float64]:
    """Return the (2,) action, clipped onto the space by at most 1e-5.

    Raises:
        InputError: wrong shape or type, a value that is not finite or lies outside its range.
    """
    try:
        values = np.asarray(action, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"an action is two numbers {ACTION_NAMES}, got {action!r}") from error
    if values.shape != space.shape:
        raise InputError(f"an action has shape {space.shape} {ACTION_NAMES}, got shape {values.shape}")
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    for name, value, least, most in zip(ACTION_NAMES, values, low, high, strict=True):
        if not least - TOLERANCE <= value <= most + TOLERANCE:
            raise InputError(
                f"action {name} = {value:g} must be a number in [{least:g}, {most:g}]; "
                "clip it to env.action_space before the step"
            )
    return np.asarray(np.clip(values, low, high))


def batched_actions(actions: Any, space: spaces.Box, count: int) -> NDArray[np.float64]:
    """Return ``count`` actions (N, 2), each as :func:`checked_action` returns it.

    Raises:
        InputError: another shape, or an action that is not finite or out of range.
    """
    rows = np.asarray(actions)
    if rows.shape != (count, *(space.shape or ())):
        raise InputError(f"a batch takes actions of shape {(count, *(space.shape or ()))}, got {rows.shape}")
    return np.stack([checked_action(row, space) for row in rows])
