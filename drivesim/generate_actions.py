"""Actions of a drive as rows of numbers: read from a file, checked, turned into the motion they lead to."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.dynamics import VehicleConfig, control_from_action, step
from drivesim.errors import InputError
from drivesim.scene.types import EgoState

COLUMNS = ("steering_rad", "speed_mps")
Actions = NDArray[np.float64]
"""(N, 2): road-wheel steering in rad, left positive, and target speed in m/s."""


DEFAULT_SPEED_MPS, DEFAULT_STEPS = 8.0, 24


def actions_of(
    path: Path | None, steering_rad: float | None, speed_mps: float | None, num_steps: int | None
) -> Actions:
    """Return the actions of a file, or the same one again and again; what is None has a default.

    Raises:
        InputError: both are given, or the actions cannot be read or followed.
    """
    if path is None:
        speed_mps = DEFAULT_SPEED_MPS if speed_mps is None else speed_mps
        return checked_actions([(steering_rad or 0.0, speed_mps)] * (num_steps or DEFAULT_STEPS))
    if any(value is not None for value in (steering_rad, speed_mps, num_steps)):
        raise InputError(
            f"actions {path} say how to drive, so leave out steering, speed and steps, or the file"
        )
    return read_actions(path)


def read_actions(path: Path) -> Actions:
    """Read a CSV file with the columns ``steering_rad`` and ``speed_mps``, one row per frame to come.

    Raises:
        InputError: it is missing, lacks a column or a row, or a row is no pair of numbers a car can follow.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(csv.DictReader(file), path))
    except OSError as error:
        raise InputError(f"cannot read actions {path} ({error.strerror}); check the path") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"cannot read actions {path} ({error}); save it as CSV in UTF-8") from error
    if not rows:
        raise InputError(f"actions {path} hold no row; write one per frame to come")
    return checked_actions(rows)


def _rows(reader: csv.DictReader[str], path: Path) -> Iterator[list[float]]:
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
    if missing:
        raise InputError(f"actions {path} lack the column {missing[0]}; name the columns {','.join(COLUMNS)}")
    for number, row in enumerate(reader):
        try:
            yield [float(row[name] or "") for name in COLUMNS]
        except ValueError as error:
            values = [row[name] for name in COLUMNS]
            raise InputError(f"row {number} of actions {path} is {values}; write two numbers") from error


def checked_actions(actions: object) -> Actions:
    """Return actions as an (N, 2) array.

    Raises:
        InputError: another shape, no row, or a row that is not finite or beyond what the car can do.
    """
    try:
        checked = np.asarray(actions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("actions are rows of two numbers: steering (rad) and speed (m/s)") from error
    if checked.ndim != 2 or checked.shape[1] != 2 or len(checked) == 0:
        raise InputError(
            f"actions are rows of steering (rad) and speed (m/s), at least one, got an array {checked.shape}"
        )
    vehicle = VehicleConfig()
    low, high = (-vehicle.max_steering_rad, 0.0), (vehicle.max_steering_rad, vehicle.max_speed_mps)
    is_good = ((checked >= low) & (checked <= high)).all(axis=1)
    if not is_good.all():
        row = int(np.argmin(is_good))
        raise InputError(
            f"action {row} is {checked[row].tolist()}; steering must be within {high[0]:g} rad to either side and the "
            f"speed from 0 to {high[1]:g} m/s"
        )
    return checked


def twists(actions: Actions, dt_s: float) -> NDArray[np.float32]:
    """Return (N, 2) mean speed in m/s and yaw rate in rad/s that actions lead to, by the env's bicycle.

    The car begins straight ahead at the first action's speed.
    """
    vehicle = VehicleConfig()
    state = EgoState(x_m=0.0, y_m=0.0, yaw_rad=0.0, speed_mps=float(actions[0, 1]))
    rows = []
    for steering_rad, speed_mps in actions:
        control = control_from_action(float(steering_rad), float(speed_mps), state, vehicle, dt_s)
        after = step(state, control, vehicle, dt_s)
        rows.append((0.5 * (state.speed_mps + after.speed_mps), after.yaw_rate_radps))
        state = after
    return np.array(rows, dtype=np.float32)
