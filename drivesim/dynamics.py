"""The ego car: a kinematic bicycle with its reference point at the rear axle, forward and inverse.

A step holds steering and acceleration for ``dt_s`` and is integrated exactly: the speed is linear in time, the
path is an arc of constant curvature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivesim.errors import InputError
from drivesim.scene.geometry import FloatArray, wrap_angle
from drivesim.scene.types import Control, EgoState


@dataclass(kw_only=True, slots=True)
class VehicleConfig:
    """Limits and sizes of the ego car."""

    wheelbase_m: float = 2.8
    length_m: float = 4.6
    width_m: float = 1.9
    rear_overhang_m: float = 1.0
    max_steering_rad: float = 0.5
    max_speed_mps: float = 20.0
    max_accel_mps2: float = 4.0
    max_braking_mps2: float = 8.0
    max_lateral_accel_mps2: float = 7.0

    def __post_init__(self) -> None:
        """Refuse sizes and limits that are not positive."""
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"vehicle.{name} must be positive, got {getattr(self, name)}")


def control_from_action(
    steering_rad: float, target_speed_mps: float, state: EgoState, config: VehicleConfig, dt_s: float
) -> Control:
    """Turn a Gym action into a control: the acceleration that reaches the target speed within the car's limits."""
    wanted = (target_speed_mps - state.speed_mps) / dt_s
    accel = float(np.clip(wanted, -config.max_braking_mps2, config.max_accel_mps2))
    return Control(steering_rad=float(steering_rad), accel_mps2=accel)


def checked_actions(actions: object) -> FloatArray:
    """Return actions as an array (N, 2): road-wheel steering in rad, left positive, and target speed in m/s.

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
    config = VehicleConfig()
    low, high = (-config.max_steering_rad, 0.0), (config.max_steering_rad, config.max_speed_mps)
    is_good = ((checked >= low) & (checked <= high)).all(axis=1)
    if not is_good.all():
        row = int(np.argmin(is_good))
        raise InputError(
            f"action {row} is {checked[row].tolist()}; steering must be within {high[0]:g} rad to either side and the "
            f"speed from 0 to {high[1]:g} m/s"
        )
    return checked


def twists(
    actions: FloatArray, dt_s: float, *, num_before: int = 0, before: FloatArray | None = None
) -> FloatArray:
    """Return mean speed in m/s and yaw rate in rad/s over the steps that actions (N, 2) lead to.

    Args:
        actions: steering and speed.
        dt_s: time of a step.
        num_before: steps before, over which the car comes straight on at the first action's speed.
        before: (num_before, 2) its twists over these steps, where they are known; the car then begins at the last of
            their speeds.

    Returns:
        (num_before + N, 2), those before first.
    """
    config = VehicleConfig()
    rows: list[tuple[float, float]] = [(float(actions[0, 1]), 0.0)] * num_before
    if before is not None:
        rows = [(speed_mps, yaw_rate_radps) for speed_mps, yaw_rate_radps in before.tolist()]
    speed_mps = rows[-1][0] if rows else float(actions[0, 1])
    state = EgoState(x_m=0.0, y_m=0.0, yaw_rad=0.0, speed_mps=speed_mps)
    for steering_rad, speed_mps in actions:
        control = control_from_action(float(steering_rad), float(speed_mps), state, config, dt_s)
        after = step(state, control, config, dt_s)
        rows.append((0.5 * (state.speed_mps + after.speed_mps), after.yaw_rate_radps))
        state = after
    return np.array(rows)


def curvature_from_steering(steering_rad: float, speed_mps: float, config: VehicleConfig) -> float:
    """Return the path curvature in 1/m, limited by tyre grip: ``speed**2 * |curvature| <= max_lateral_accel``."""
    curvature = float(np.tan(steering_rad)) / config.wheelbase_m
    limit = config.max_lateral_accel_mps2 / max(speed_mps, 1e-3) ** 2
    return float(np.clip(curvature, -limit, limit))


def step(state: EgoState, control: Control, config: VehicleConfig, dt_s: float) -> EgoState:
    """Advance the car by ``dt_s``; speed stays within [0, max_speed]."""
    end_speed = float(np.clip(state.speed_mps + control.accel_mps2 * dt_s, 0.0, config.max_speed_mps))
    mean_speed = 0.5 * (state.speed_mps + end_speed)
    steering = float(np.clip(control.steering_rad, -config.max_steering_rad, config.max_steering_rad))
    curvature = curvature_from_steering(steering, mean_speed, config)
    dx, dy, dyaw = planar_motion(mean_speed, mean_speed * curvature, dt_s)
    cos, sin = np.cos(state.yaw_rad), np.sin(state.yaw_rad)
    return EgoState(
        x_m=state.x_m + cos * dx - sin * dy,
        y_m=state.y_m + sin * dx + cos * dy,
        yaw_rad=float(wrap_angle(state.yaw_rad + dyaw)),
        speed_mps=end_speed,
        yaw_rate_radps=mean_speed * curvature,
        accel_mps2=(end_speed - state.speed_mps) / dt_s,
        steering_rad=steering,
    )


def planar_motion(speed_mps: float, yaw_rate_radps: float, dt_s: float) -> tuple[float, float, float]:
    """Return (dx, dy, dyaw) in the ego frame at the start, for a constant twist held for ``dt_s``."""
    dyaw = yaw_rate_radps * dt_s
    distance = speed_mps * dt_s
    half = 0.5 * dyaw
    chord = distance * float(np.sinc(half / np.pi))
    return chord * float(np.cos(half)), chord * float(np.sin(half)), dyaw


def inverse(
    xy_m: FloatArray, yaw_rad: FloatArray, dt_s: float, config: VehicleConfig
) -> tuple[FloatArray, FloatArray]:
    """Return (mean speed (T-1,), road-wheel steering (T-1,)) that lead from each pose of a track to the next.

    ``xy_m``: (T, 2) rear axle; ``yaw_rad``: (T,). At standstill the steering is reported as zero.
    """
    dyaw = wrap_angle(np.diff(yaw_rad))
    delta = np.diff(xy_m, axis=0)
    middle = yaw_rad[:-1] + 0.5 * dyaw
    along = delta[:, 0] * np.cos(middle) + delta[:, 1] * np.sin(middle)
    speed = along / np.sinc(0.5 * dyaw / np.pi) / dt_s
    is_moving = np.abs(speed) > 0.1
    curvature = np.where(is_moving, dyaw / np.where(is_moving, speed * dt_s, 1.0), 0.0)
    return np.asarray(speed), np.asarray(np.arctan(curvature * config.wheelbase_m))
