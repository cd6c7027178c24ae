"""Ego motion at a steady rate: from nuScenes CAN bus messages where they can be trusted, else from the poses.

Messages come in three kinds: ``pose`` (50 Hz, SI units), ``steeranglefeedback`` (100 Hz, radians of the
steering wheel) and ``vehicle_monitor`` (2 Hz; km/h, degrees of the wheel, degrees per second). Any may be
missing, start late or pause. Speed, yaw rate, steering ratio and the sign of the wheel are checked against the driven
curve of every scene.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drivesim.dynamics import VehicleConfig, inverse
from drivesim.scene.faults import Fault
from drivesim.scene.geometry import FloatArray

STEERING_RATIO = 16.0
"""Steering-wheel angle per road-wheel angle; the +-7.7 rad of the wheel are then +-0.48 rad on the road."""

MAX_GAP_S = {"pose": 0.3, "steeranglefeedback": 0.3, "vehicle_monitor": 1.3}
MAX_READING = 1e4  # m/s, rad/s or rad; more is damage, which is left out
MAX_SPEED_DISAGREEMENT_MPS = 1.5
MAX_YAW_RATE_DISAGREEMENT_RADPS = 0.05  # and half of what the car turns
RATIO_LIMITS = (0.6 * STEERING_RATIO, 1.6 * STEERING_RATIO)
TURNING_RAD = 0.03  # road wheels; less tells nothing of the ratio
MOVING_MPS = 2.0
MIN_TURNING_FRAMES = 8
MIN_CORRELATION = 0.9
POSES = "ego_pose"
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
    signal_sources: dict[str, str] = field(default_factory=dict)  # kind of message or "ego_pose", by signal
    steering_ratio: float | None = None  # wheel angle per driven angle; None where the car hardly turns
    problems: list[str] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class _Reading:
    """One signal as a kind of message tells it."""

    values: FloatArray  # (T,)
    message: str


def motion_from_poses(xy_m: FloatArray, yaw_rad: FloatArray, rate_hz: float) -> Motion:
    """Return the arcs between (T, 2) poses, T >= 2; the first frame repeats the motion into the second."""
    speed, steering = inverse(xy_m, yaw_rad, 1.0 / rate_hz, VehicleConfig())
    yaw_rate = np.diff(np.unwrap(yaw_rad)) * rate_hz
    return Motion(
        speed_mps=_repeat_first(speed),
        yaw_rate_radps=_repeat_first(yaw_rate),
        steering_rad=_repeat_first(steering),
        source=POSES,
        signal_sources={"speed": POSES, "yaw rate": POSES, "steering": POSES},
    )


def motion_of_scene(
    messages: Mapping[str, Messages],
    instants_us: FloatArray,
    poses: Motion,
    *,
    has_can: bool,
    are_poses_wrong: bool = False,
) -> Motion:
    """Choose between CAN bus and poses, signal by signal, and tell in ``problems`` what was done without.

    Args:
        messages: by message name; those that do not exist are left out.
        instants_us: (T,) times of the frames, microseconds.
        poses: the motion that the poses tell.
        has_can: False if the data set has no CAN bus at all; then its absence is no problem of the scene.
        are_poses_wrong: the poses are known to be wrong, so nothing is checked against them.
    """
    speed, yaw_rate, steering = (
        _reading(messages, readers, instants_us) for readers in (_SPEED, _YAW_RATE, _STEERING)
    )
    problems: list[str] = []
    if not are_poses_wrong and (doubt := _disagreement(speed, yaw_rate, poses)):
        problems.append(Fault(f"{doubt}; motion is taken from the poses"))
        speed = steering = None
    elif has_can and (speed is None or yaw_rate is None):
        problems.append("CAN bus has no unbroken speed and yaw rate; motion is taken from the ego poses")
    if steering is None and has_can:
        problems.append("CAN bus has no unbroken steering; it is computed from the ego poses")
    ratio = None
    if steering is not None and not are_poses_wrong:
        ratio = steering_ratio(steering.values * STEERING_RATIO, poses)
        steering = _checked_steering(steering, poses, ratio, problems)
    is_can = speed is not None and yaw_rate is not None
    return Motion(
        speed_mps=speed.values if is_can and speed else poses.speed_mps,
        yaw_rate_radps=yaw_rate.values if is_can and yaw_rate else poses.yaw_rate_radps,
        steering_rad=steering.values if steering else poses.steering_rad,
        source="can" if is_can else POSES,
        signal_sources={
            "speed": speed.message if is_can and speed else POSES,
            "yaw rate": yaw_rate.message if is_can and yaw_rate else POSES,
            "steering": steering.message if steering else POSES,
        },
        steering_ratio=ratio,
        problems=problems,
    )


def steering_ratio(wheel_rad: FloatArray, poses: Motion) -> float | None:
    """Return wheel angle (T,) per road-wheel angle of the driven curve, by regression over the frames that turn.

    Negative where the wheel turns against the curve; None where the car hardly turns, or wheel and curve have little
    to do with each other.
    """
    driven = poses.steering_rad
    is_turning = (np.abs(driven) > TURNING_RAD) & (poses.speed_mps > MOVING_MPS)
    if int(is_turning.sum()) < MIN_TURNING_FRAMES:
        return None
    wheel, driven = wheel_rad[is_turning], driven[is_turning]
    size = float(np.linalg.norm(wheel) * np.linalg.norm(driven))
    if size == 0 or abs(float(wheel @ driven)) / size < MIN_CORRELATION:
        return None
    return float(wheel @ driven) / float(driven @ driven)


def _disagreement(speed: _Reading | None, yaw_rate: _Reading | None, poses: Motion) -> str:
    """Say how the CAN bus differs from the poses; "" if it does not."""
    if speed is not None:
        gap_mps = float(np.median(np.abs(speed.values - poses.speed_mps)))
        if gap_mps > MAX_SPEED_DISAGREEMENT_MPS:
            return f"CAN bus speed is off the ego poses by {gap_mps:.1f} m/s"
    if yaw_rate is not None:
        gap_radps = _root_mean_square(yaw_rate.values - poses.yaw_rate_radps)
        if gap_radps > MAX_YAW_RATE_DISAGREEMENT_RADPS + 0.5 * _root_mean_square(poses.yaw_rate_radps):
            return f"CAN bus yaw rate is off the ego poses by {gap_radps:.2f} rad/s"
    return ""


def _checked_steering(
    steering: _Reading, poses: Motion, ratio: float | None, problems: list[str]
) -> _Reading | None:
    """Return the steering with the sign of the driven curve; None if its ratio is not that of a car."""
    if ratio is not None and not RATIO_LIMITS[0] <= abs(ratio) <= RATIO_LIMITS[1]:
        problems.append(
            Fault(
                f"the steering wheel turns {abs(ratio):.2g} times the driven angle where {STEERING_RATIO:g} is usual; "
                "steering is computed from the ego poses"
            )
        )
        return None
    if _is_opposite(steering.values, poses.steering_rad):
        problems.append(Fault("CAN bus steering has the opposite sign of the driven curve; it was flipped"))
        return _Reading(values=-steering.values, message=steering.message)
    return steering


def _root_mean_square(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _reading(
    messages: Mapping[str, Messages], readers: Mapping[str, Reader], instants_us: FloatArray
) -> _Reading | None:
    """Return the means over the intervals between frames of the first kind of message without a gap."""
    for name, read in readers.items():
        series = _series(messages.get(name, ()), read)
        if series is not None and _is_covering(series[0], instants_us, MAX_GAP_S[name] * 1e6):
            values = means_into(series[0], series[1], instants_us)
            if np.isfinite(values).all():
                return _Reading(values=values, message=name)
    return None


def _series(messages: Messages, read: Reader) -> tuple[FloatArray, FloatArray] | None:
    """Return the strictly increasing times (N,) and values (N,) of one signal; None if it cannot be read."""
    try:
        times = np.array([message["utime"] for message in messages], dtype=np.float64)
        values = np.array([read(message) for message in messages], dtype=np.float64)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return None
    if times.ndim != 1 or values.shape != times.shape:
        return None
    is_good = np.isfinite(times) & (np.abs(values) < MAX_READING)  # False for NaN
    times, first = np.unique(times[is_good], return_index=True)
    return times, values[is_good][first]


def _is_covering(times_us: FloatArray, instants_us: FloatArray, max_gap_us: float) -> bool:
    inside = times_us[(times_us > instants_us[0] - max_gap_us) & (times_us < instants_us[-1] + max_gap_us)]
    if len(inside) < 2:
        return False
    marks = np.concatenate([[instants_us[0]], inside[(inside > instants_us[0]) & (inside < instants_us[-1])]])
    return bool(np.diff(np.append(marks, instants_us[-1])).max() <= max_gap_us)


def interval_means(times: FloatArray, values: FloatArray, instants: FloatArray) -> FloatArray:
    """Return the (T - 1,) means between (T,) increasing instants of the straight lines between (M,) readings.

    The first and the last reading are held beyond. Times may have any unit.
    """
    ends = np.array([min(times[0], instants[0]) - 1.0, max(times[-1], instants[-1]) + 1.0])
    times = np.concatenate([ends[:1], times, ends[1:]])
    values = np.concatenate([values[:1], values, values[-1:]])
    knots = np.union1d(times, instants)
    heights = np.interp(knots, times, values)
    area = np.concatenate([[0.0], np.cumsum(0.5 * (heights[1:] + heights[:-1]) * np.diff(knots))])
    return np.asarray(np.diff(area[np.searchsorted(knots, instants)]) / np.diff(instants))


def means_into(times: FloatArray, values: FloatArray, instants: FloatArray) -> FloatArray:
    """Return the (T,) means that lead into each of T instants; the first is the reading at the first instant."""
    return np.concatenate([np.interp(instants[:1], times, values), interval_means(times, values, instants)])


def _is_opposite(steering_rad: FloatArray, driven_rad: FloatArray) -> bool:
    """Tell whether the wheel clearly turned against the driven curve."""
    size = float(np.linalg.norm(steering_rad) * np.linalg.norm(driven_rad))
    return size > 1e-6 and float(steering_rad @ driven_rad) / size < -0.5


def _repeat_first(values: FloatArray) -> FloatArray:
    return np.concatenate([values[:1], values])
