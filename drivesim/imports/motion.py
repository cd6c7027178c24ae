"""Readings of a log -> the car's motion at the instants of its pictures.

The yaw rate is the measured one where there is one, else that of the track, else what steering and speed make of a
kinematic bicycle, as far as tyres grip.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from drivesim.dynamics import VehicleConfig, inverse, planar_motion
from drivesim.errors import InputError
from drivesim.imports.drive_log import DriveLog, Signal, Track
from drivesim.imports.options import ImportConfig
from drivesim.imports.remarks import Loss
from drivesim.scene.can_motion import means_into
from drivesim.scene.geometry import FloatArray, wrap_angle

MAX_SPEED_MPS, MAX_STEERING_RAD, MAX_YAW_RATE_RADPS = 100.0, 1.2, 4.0
MAX_WRONG_SHARE = 0.01  # of readings beyond what a car does; more are no slips but another unit
MAX_SPEED_DISAGREEMENT_MPS = 1.5
_LEAST_SPEED_MPS = 0.5

MEASURED, DRIVEN, STEERED = "yaw rate", "track", "steering"
"""Where a yaw rate comes from, best first."""


@dataclass(kw_only=True, slots=True)
class LogMotion:
    """Poses at T instants and the mean motion into each."""

    xy_m: FloatArray  # (T, 2)
    yaw_rad: FloatArray  # (T,)
    speed_mps: FloatArray  # (T,)
    yaw_rate_radps: FloatArray  # (T,)
    steering_rad: FloatArray  # (T,)


@dataclass(kw_only=True, slots=True)
class Sources:
    """In words, where the motion of a log comes from."""

    speed: str
    yaw_rate: str
    poses: str
    steering: str


# --------------------------------------------------------------------------------------- corrections


def corrected(log: DriveLog, config: ImportConfig) -> DriveLog:
    """Return the log with its lag and signs set right as configured, and without readings that no car has.

    Raises:
        InputError: so many readings are beyond what a car does that their unit must be another one.
    """
    delay_s = config.lag_frames * picture_interval_s(log)
    problems = list(log.problems)

    def cleaned(signal: Signal | None, limit: float, what: str, flag: str, sign: float) -> Signal | None:
        if signal is None:
            return None
        kept = _without_slips(signal, limit, f"{log.name}: {what}", flag, problems)
        return Signal(times_s=kept.times_s + delay_s, values=sign * kept.values)

    return replace(
        log,
        speed_mps=cleaned(log.speed_mps, MAX_SPEED_MPS, "speeds (m/s)", "--speed-unit", 1.0),
        steering_rad=cleaned(
            log.steering_rad,
            MAX_STEERING_RAD,
            "steering angles of the road wheels (rad)",
            "--steering-unit and --steering-ratio",
            -1.0 if config.flip_steering else 1.0,
        ),
        yaw_rate_radps=cleaned(
            log.yaw_rate_radps,
            MAX_YAW_RATE_RADPS,
            "yaw rates (rad/s)",
            "the unit in the column's heading",
            -1.0 if config.flip_yaw_rate else 1.0,
        ),
        track=None if log.track is None else replace(log.track, times_s=log.track.times_s + delay_s),
        problems=problems,
    )


def picture_interval_s(log: DriveLog) -> float:
    """Return the usual time from one picture to the next; 0 where there is only one."""
    return float(np.median(np.diff(log.frame_times_s))) if len(log.frame_times_s) > 1 else 0.0


def _without_slips(signal: Signal, limit: float, what: str, flag: str, problems: list[str]) -> Signal:
    is_wrong = np.abs(signal.values) > limit
    if not is_wrong.any():
        return signal
    worst = float(signal.values[np.argmax(np.abs(signal.values))])
    if is_wrong.mean() > MAX_WRONG_SHARE:
        raise InputError(f"{what} reach {worst:.4g}, which no car does; check {flag}")
    problems.append(Loss(f"{int(is_wrong.sum())} readings left out: {what} reach {worst:.4g}"))
    return Signal(times_s=signal.times_s[~is_wrong], values=signal.values[~is_wrong])


# ------------------------------------------------------------------------------------------ yaw rates


def yaw_signals(log: DriveLog, config: ImportConfig) -> dict[str, Signal]:
    """Return every yaw rate (rad/s) that a log tells, best first."""
    signals = {}
    if log.yaw_rate_radps is not None and len(log.yaw_rate_radps.times_s) > 1:
        signals[MEASURED] = log.yaw_rate_radps
    if log.track is not None and len(log.track.times_s) > 1:
        signals[DRIVEN] = _track_rates(log.track)[1]
    if log.steering_rad is not None and len(log.steering_rad.times_s) > 1:
        signals[STEERED] = _bicycle_yaw_rate(log.steering_rad, _speed_signal(log), config)
    return signals


def _speed_signal(log: DriveLog) -> Signal | None:
    if log.speed_mps is not None and len(log.speed_mps.times_s):
        return log.speed_mps
    if log.track is not None and len(log.track.times_s) > 1:
        return _track_rates(log.track)[0]
    return None


def _track_rates(track: Track) -> tuple[Signal, Signal]:
    """Return speed and yaw rate between the poses of a track, at the middle of each interval."""
    steps_s = np.diff(track.times_s)
    turn = wrap_angle(np.diff(track.yaw_rad))
    middle = track.yaw_rad[:-1] + 0.5 * turn
    delta = np.diff(track.xy_m, axis=0)
    along = (delta[:, 0] * np.cos(middle) + delta[:, 1] * np.sin(middle)) / np.sinc(0.5 * turn / np.pi)
    times_s = track.times_s[:-1] + 0.5 * steps_s
    return (
        Signal(times_s=times_s, values=along / steps_s),
        Signal(times_s=times_s, values=np.asarray(turn / steps_s)),
    )


def _bicycle_yaw_rate(steering: Signal, speed: Signal | None, config: ImportConfig) -> Signal:
    """Return the yaw rate of a kinematic bicycle, as far as tyres grip."""
    wanted, grip = _wanted_yaw_rate(steering, speed, config)
    return Signal(times_s=wanted.times_s, values=np.clip(wanted.values, -grip, grip))


def _wanted_yaw_rate(
    steering: Signal, speed: Signal | None, config: ImportConfig
) -> tuple[Signal, FloatArray]:
    """Return the yaw rate of a kinematic bicycle that never slides, and the largest that tyres allow.

    Where nobody knows the speed it is 10 m/s.
    """
    times_s, speed_mps = steering.times_s, np.full(len(steering.times_s), 10.0)
    if speed is not None:
        times_s = np.union1d(steering.times_s, speed.times_s)
        times_s = times_s[(times_s >= steering.times_s[0]) & (times_s <= steering.times_s[-1])]
        speed_mps = np.interp(times_s, speed.times_s, speed.values)
    angle = np.interp(times_s, steering.times_s, steering.values)
    wanted = speed_mps * np.tan(angle) / config.wheelbase_m
    grip = VehicleConfig().max_lateral_accel_mps2 / np.maximum(np.abs(speed_mps), 0.1)
    return Signal(times_s=times_s, values=wanted), grip


def beyond_grip(log: DriveLog, config: ImportConfig) -> tuple[int, int]:
    """Return in how many pictures steering and speed ask for more than tyres hold, and of how many."""
    if log.steering_rad is None or len(log.steering_rad.times_s) < 2:
        return 0, 0
    wanted, grip = _wanted_yaw_rate(log.steering_rad, _speed_signal(log), config)
    excess = np.abs(wanted.values) - grip
    is_told = (log.frame_times_s >= wanted.times_s[0]) & (log.frame_times_s <= wanted.times_s[-1])
    at_pictures = np.interp(log.frame_times_s[is_told], wanted.times_s, excess)
    return int((at_pictures > 0).sum()), len(at_pictures)


# ------------------------------------------------------------------------------------------ at instants


def sources_of(log: DriveLog) -> Sources:
    """Say where the motion of a log comes from.

    Raises:
        InputError: the log tells no speed, or nothing of its turns.
    """
    has_track = log.track is not None and len(log.track.times_s) > 1
    if log.speed_mps is None and not has_track:
        raise InputError(
            f"{log.name} holds no speed and no positions, so nobody knows how it moved; add a speed"
        )
    if log.yaw_rate_radps is None and log.steering_rad is None and not has_track:
        raise InputError(f"{log.name} holds no steering, yaw rate or positions; add one of them")
    unmeasured = DRIVEN if has_track else STEERED
    return Sources(
        speed="speed" if log.speed_mps is not None else DRIVEN,
        yaw_rate=unmeasured if log.yaw_rate_radps is None else MEASURED,
        poses=DRIVEN if has_track else "integrated",
        steering=STEERED if log.steering_rad is not None else "computed from the motion",
    )


def _into(signal: Signal, instants_s: FloatArray) -> FloatArray:
    return means_into(signal.times_s, signal.values, instants_s)


def motion_at(log: DriveLog, instants_s: FloatArray, config: ImportConfig) -> LogMotion:
    """Return the motion at T >= 2 instants at a steady rate, all within the readings.

    Steering is that of drivesim's car on the same curve, as all that reads scenes takes it for.
    """
    signals, speed_signal = yaw_signals(log, config), _speed_signal(log)
    assert speed_signal is not None
    dt_s = float(instants_s[1] - instants_s[0])
    speed = _into(speed_signal, instants_s)
    yaw_rate = _into(signals[sources_of(log).yaw_rate], instants_s)
    if log.track is not None and len(log.track.times_s) > 1:
        xy_m, yaw_rad = _poses_at(log.track, instants_s)
    else:
        xy_m, yaw_rad = _integrated(speed, yaw_rate, dt_s)
    if log.steering_rad is not None:
        turned = _into(log.steering_rad, instants_s)
        steering = np.arctan(np.tan(turned) * VehicleConfig().wheelbase_m / config.wheelbase_m)
    else:
        _, angles = inverse(xy_m, yaw_rad, dt_s, VehicleConfig())
        is_moving = np.abs(speed[1:]) > _LEAST_SPEED_MPS
        angles = np.where(is_moving, angles, 0.0)
        steering = np.concatenate([angles[:1], angles])
    return LogMotion(
        xy_m=xy_m, yaw_rad=yaw_rad, speed_mps=speed, yaw_rate_radps=yaw_rate, steering_rad=steering
    )


def speed_disagreement_mps(log: DriveLog) -> float:
    """Return by how much speed and track of a log usually disagree; 0 where it holds only one of them."""
    if log.speed_mps is None or log.track is None or len(log.track.times_s) < 2:
        return 0.0
    driven = _track_rates(log.track)[0]
    told = np.interp(driven.times_s, log.speed_mps.times_s, log.speed_mps.values)
    return float(np.median(np.abs(told - driven.values)))


def _poses_at(track: Track, instants_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    xy_m = np.stack([np.interp(instants_s, track.times_s, track.xy_m[:, axis]) for axis in (0, 1)], axis=-1)
    return xy_m, wrap_angle(np.interp(instants_s, track.times_s, np.unwrap(track.yaw_rad)))


def _integrated(speed: FloatArray, yaw_rate: FloatArray, dt_s: float) -> tuple[FloatArray, FloatArray]:
    """Return the poses from the origin on, each arc integrated exactly."""
    xy_m, yaw_rad = np.zeros((len(speed), 2)), np.zeros(len(speed))
    for index in range(1, len(speed)):
        forward, left, turn = planar_motion(float(speed[index]), float(yaw_rate[index]), dt_s)
        cos, sin = np.cos(yaw_rad[index - 1]), np.sin(yaw_rad[index - 1])
        xy_m[index] = xy_m[index - 1] + [cos * forward - sin * left, sin * forward + cos * left]
        yaw_rad[index] = yaw_rad[index - 1] + turn
    return xy_m, wrap_angle(yaw_rad)
