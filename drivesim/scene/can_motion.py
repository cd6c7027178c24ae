"""Ego motion at a steady rate: from nuScenes CAN bus messages where they can be trusted, else from the poses.

Messages come in three kinds: ``pose`` (50 Hz, SI units), ``steeranglefeedback`` (100 Hz, radians of the
steering wheel) and ``vehicle_monitor`` (2 Hz; km/h, degrees of the wheel, degrees per second). Any may be
missing, start late or pause. Sources disagree on the sign of the wheel, so the driven curve decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drivesim.dynamics import VehicleConfig, inverse
from drivesim.scene.geometry import FloatArray

STEERING_RATIO = 16.0
"""Steering-wheel angle per road-wheel angle; the +-7.7 rad of the wheel are then +-0.48 rad on the road."""

MAX_GAP_S = {"pose": 0.3, "steeranglefeedback": 0.3, "vehicle_monitor": 1.3}
MAX_SPEED_DISAGREEMENT_MPS = 1.5
_KMH = 3.6

Messages = Sequence[Mapping[str, Any]]
Reader = Callable[[Mapping[str, Any]], float]

_SPEED: dict[str, Reader] = {
    "pose": lambda message: message["vel"][0],
    "vehicle_monitor": lambda message: message["vehicle_speed"] / _KMH,
}
_YAW_RATE: dict[str, Reader] = {
    "pose": lambda message: message["rotation_rate"][2],
    "vehicle_monitor": lambda message: np.deg2rad(message["yaw_rate"]),
}
_STEERING: dict[str, Reader] = {
    "steeranglefeedback": lambda message: message["value"] / STEERING_RATIO,
    "vehicle_monitor": lambda message: np.deg2rad(message["steering"]) / STEERING_RATIO,
}


@dataclass(kw_only=True, slots=True)
class Motion:
    """The mean motion that leads into each of T frames."""

    speed_mps: FloatArray  # (T,)
    yaw_rate_radps: FloatArray  # (T,)
    steering_rad: FloatArray  # (T,) road wheels
    source: str  # "can" or "ego_pose", of speed and yaw rate
    problems: list[str] = field(default_factory=list)


def motion_from_poses(xy_m: FloatArray, yaw_rad: FloatArray, rate_hz: float) -> Motion:
    """Return the arcs between (T, 2) poses, T >= 2; the first frame repeats the motion into the second."""
    speed, steering = inverse(xy_m, yaw_rad, 1.0 / rate_hz, VehicleConfig())
    yaw_rate = np.diff(np.unwrap(yaw_rad)) * rate_hz
    return Motion(
        speed_mps=_repeat_first(speed),
        yaw_rate_radps=_repeat_first(yaw_rate),
        steering_rad=_repeat_first(steering),
        source="ego_pose",
    )


def motion_of_scene(
    messages: Mapping[str, Messages], instants_us: FloatArray, poses: Motion, *, has_can: bool
) -> Motion:
    """Choose between CAN bus and poses, signal by signal, and tell in ``problems`` what was done without.

    Args:
        messages: by message name; those that do not exist are left out.
        instants_us: (T,) times of the frames, microseconds.
        poses: the motion that the poses tell.
        has_can: False if the data set has no CAN bus at all; then its absence is no problem of the scene.
    """
    readings = {name: _mean_into_frames(messages, read, instants_us) for name, read in _signals().items()}
    speed, yaw_rate, steering = readings["speed"], readings["yaw rate"], readings["steering"]
    problems = []
    if (
        speed is not None
        and (gap := float(np.median(np.abs(speed - poses.speed_mps)))) > MAX_SPEED_DISAGREEMENT_MPS
    ):
        problems.append(
            f"CAN bus speed is off the ego poses by {gap:.1f} m/s; motion is taken from the poses"
        )
        speed = steering = None
    elif has_can and (speed is None or yaw_rate is None):
        problems.append("CAN bus has no unbroken speed and yaw rate; motion is taken from the ego poses")
    if speed is None or yaw_rate is None:
        speed, yaw_rate, source = poses.speed_mps, poses.yaw_rate_radps, "ego_pose"
    else:
        source = "can"
    if steering is None:
        steering = poses.steering_rad
        if has_can:
            problems.append("CAN bus has no unbroken steering; it is computed from the ego poses")
    elif _is_opposite(steering, poses.steering_rad):
        steering = -steering
        problems.append("CAN bus steering has the opposite sign of the driven curve; it was flipped")
    return Motion(
        speed_mps=speed, yaw_rate_radps=yaw_rate, steering_rad=steering, source=source, problems=problems
    )


def _signals() -> dict[str, dict[str, Reader]]:
    return {"speed": _SPEED, "yaw rate": _YAW_RATE, "steering": _STEERING}


def _mean_into_frames(
    messages: Mapping[str, Messages], readers: Mapping[str, Reader], instants_us: FloatArray
) -> FloatArray | None:
    """Return the (T,) means over the intervals between frames of the first kind of message without a gap."""
    for name, read in readers.items():
        series = _series(messages.get(name, ()), read)
        if series is not None and _is_covering(series[0], instants_us, MAX_GAP_S[name] * 1e6):
            return _interval_means(series[0], series[1], instants_us)
    return None


def _series(messages: Messages, read: Reader) -> tuple[FloatArray, FloatArray] | None:
    """Return the strictly increasing times (N,) and values (N,) of one signal; None if it cannot be read."""
    try:
        times = np.array([message["utime"] for message in messages], dtype=np.float64)
        values = np.array([read(message) for message in messages], dtype=np.float64)
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    is_finite = np.isfinite(times) & np.isfinite(values)
    times, first = np.unique(times[is_finite], return_index=True)
    return times, values[is_finite][first]


def _is_covering(times_us: FloatArray, instants_us: FloatArray, max_gap_us: float) -> bool:
    inside = times_us[(times_us > instants_us[0] - max_gap_us) & (times_us < instants_us[-1] + max_gap_us)]
    if len(inside) < 2:
        return False
    marks = np.concatenate([[instants_us[0]], inside[(inside > instants_us[0]) & (inside < instants_us[-1])]])
    return bool(np.diff(np.append(marks, instants_us[-1])).max() <= max_gap_us)


def _interval_means(times_us: FloatArray, values: FloatArray, instants_us: FloatArray) -> FloatArray:
    """Integrate the straight lines between readings; the first and the last are held beyond."""
    ends_us = np.array([min(times_us[0], instants_us[0]) - 1.0, max(times_us[-1], instants_us[-1]) + 1.0])
    times_us = np.concatenate([ends_us[:1], times_us, ends_us[1:]])
    values = np.concatenate([values[:1], values, values[-1:]])
    knots_us = np.union1d(times_us, instants_us)
    heights = np.interp(knots_us, times_us, values)
    area = np.concatenate([[0.0], np.cumsum(0.5 * (heights[1:] + heights[:-1]) * np.diff(knots_us))])
    means = np.diff(area[np.searchsorted(knots_us, instants_us)]) / np.diff(instants_us)
    return np.concatenate([np.interp(instants_us[:1], times_us, values), means])


def _is_opposite(steering_rad: FloatArray, driven_rad: FloatArray) -> bool:
    """Tell whether the wheel clearly turned against the driven curve."""
    size = float(np.linalg.norm(steering_rad) * np.linalg.norm(driven_rad))
    return size > 1e-6 and float(steering_rad @ driven_rad) / size < -0.5


def _repeat_first(values: FloatArray) -> FloatArray:
    return np.concatenate([values[:1], values])
