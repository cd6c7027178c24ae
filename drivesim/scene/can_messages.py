"""CAN bus messages of a recording, in the units and layout of the nuScenes CAN bus expansion.

Written is what the car knows of its own motion: ``pose`` (50 Hz), ``steeranglefeedback`` (radians of the
steering wheel, left positive), ``vehicle_monitor`` (2 Hz; km/h, degrees of the wheel, degrees per second),
the ``route`` and the ``meta`` statistics. The reference world has no pedals, battery and wheel revolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from drivesim.dynamics import planar_motion
from drivesim.scene.can_motion import STEERING_RATIO
from drivesim.scene.geometry import FloatArray, quaternion_from_yaw
from drivesim.scene.types import Scene

GRAVITY_MPS2 = 9.81
MONITOR_RATE_HZ = 2.0

Message = dict[str, Any]


def can_messages(
    scene: Scene, start_us: int, *, pose_rate_hz: float, steering_rate_hz: float
) -> dict[str, Any]:
    """Return the contents of ``scene-NNNN_<name>.json`` by name, ``meta`` and ``route`` included.

    Args:
        scene: the recording.
        start_us: the time of its first frame, microseconds.
        pose_rate_hz: messages per second of ``pose``; 50 in nuScenes.
        steering_rate_hz: messages per second of ``steeranglefeedback``; 100 in nuScenes.
    """
    messages: dict[str, Any] = {
        "pose": _pose(scene, start_us, pose_rate_hz),
        "steeranglefeedback": _steering(scene, start_us, steering_rate_hz),
        "vehicle_monitor": _monitor(scene, start_us),
    }
    messages["meta"] = {name: _statistics(series) for name, series in messages.items()}
    route_xy_m = scene.xy_m if scene.route_xy_m is None else scene.route_xy_m
    messages["route"] = np.round(route_xy_m, 3).tolist()
    return messages


def _instants(scene: Scene, rate_hz: float) -> FloatArray:
    count = int(np.floor(scene.timestamps_s[-1] * rate_hz + 1e-6)) + 1
    return np.arange(count) / rate_hz


def _interval(scene: Scene, instants_s: FloatArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return for each instant the index of the frame its motion leads into."""
    after = np.searchsorted(scene.timestamps_s, instants_s - 1e-9, side="left")
    return np.clip(after, 1, len(scene) - 1)


def _utime(start_us: int, instant_s: float) -> int:
    return start_us + round(instant_s * 1e6)


def _pose(scene: Scene, start_us: int, rate_hz: float) -> list[Message]:
    """Each interval between frames is an arc of constant twist, so positions agree with the frames."""
    instants = _instants(scene, rate_hz)
    speeds, yaw_rates = np.asarray(scene.speed_mps), np.asarray(scene.yaw_rate_radps)
    accels = np.gradient(speeds) * scene.rate_hz if len(scene) > 1 else np.zeros_like(speeds)
    messages = []
    for instant, index in zip(instants, _interval(scene, instants), strict=True):
        speed, yaw_rate = float(speeds[index]), float(yaw_rates[index])
        elapsed = float(instant - scene.timestamps_s[index - 1])
        forward, left, turn = planar_motion(speed, yaw_rate, elapsed)
        yaw = float(scene.yaw_rad[index - 1])
        x = float(scene.xy_m[index - 1, 0]) + np.cos(yaw) * forward - np.sin(yaw) * left
        y = float(scene.xy_m[index - 1, 1]) + np.sin(yaw) * forward + np.cos(yaw) * left
        messages.append(
            {
                "accel": [round(float(accels[index]), 2), round(speed * yaw_rate, 2), GRAVITY_MPS2],
                "orientation": [round(float(q), 5) for q in quaternion_from_yaw(yaw + turn)],
                "pos": [round(float(x), 3), round(float(y), 3), 0],
                "rotation_rate": [0, 0, round(yaw_rate, 4)],
                "utime": _utime(start_us, float(instant)),
                "vel": [round(speed, 3), 0, 0],
            }
        )
    return messages


def _steering(scene: Scene, start_us: int, rate_hz: float) -> list[Message]:
    """A frame's road-wheel angle was held over the interval that leads into it."""
    instants = _instants(scene, rate_hz)
    wheel_rad = np.asarray(scene.steering_rad)[_interval(scene, instants)] * STEERING_RATIO
    return [
        {"utime": _utime(start_us, float(instant)), "value": round(float(value), 4)}
        for instant, value in zip(instants, wheel_rad, strict=True)
    ]


def _monitor(scene: Scene, start_us: int) -> list[Message]:
    instants = _instants(scene, MONITOR_RATE_HZ)
    indices = _interval(scene, instants)
    wheel_deg = np.rad2deg(np.asarray(scene.steering_rad) * STEERING_RATIO)
    wheel_degps = np.gradient(wheel_deg) * scene.rate_hz if len(scene) > 1 else np.zeros_like(wheel_deg)
    return [
        {
            "steering": round(float(wheel_deg[index]), 1),
            "steering_speed": round(float(wheel_degps[index]), 1),
            "utime": _utime(start_us, float(instant)),
            "vehicle_speed": round(float(scene.speed_mps[index]) * 3.6, 2),
            "yaw_rate": round(float(np.rad2deg(scene.yaw_rate_radps[index])), 1),
        }
        for instant, index in zip(instants, indices, strict=True)
    ]


def _statistics(series: list[Message]) -> Mapping[str, Any]:
    times_s = np.array([message["utime"] for message in series]) / 1e6
    timespan_s = float(times_s[-1] - times_s[0])
    stats = {}
    for key in series[0]:
        if key != "utime":
            values = np.array([message[key] for message in series], dtype=np.float64)
            stats[key] = _summary(values) | {"diff": _summary(np.diff(values, axis=0))}
    return {
        "message_count": len(series),
        "message_freq": round((len(series) - 1) / timespan_s, 3) if timespan_s > 0 else 0.0,
        "timespan": round(timespan_s, 3),
        "var_stats": stats,
    }


def _summary(values: FloatArray) -> dict[str, Any]:
    if len(values) == 0:
        return {}
    return {
        name: np.round(getattr(values, name)(axis=0), 4).tolist() for name in ("max", "mean", "min", "std")
    }
