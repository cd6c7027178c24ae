"""Metrics of one step of driving: pure functions of ego states, route, drivable area and the recorded log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivesim.dynamics import VehicleConfig
from drivesim.metrics.base import NOT_MEASURABLE, MetricResult
from drivesim.scene.geometry import FloatArray, global_from_ego, transform_points
from drivesim.scene.route import RoutePosition
from drivesim.scene.types import DrivableArea, EgoState

FOOTPRINT_POINTS = (5, 3)
"""Points along and across the car that stand for its footprint, corners included."""


@dataclass(kw_only=True, slots=True, frozen=True)
class ComfortLimits:
    """Limits of a comfortable ride, as nuPlan's (arXiv 2106.11810, devkit 1.2)."""

    min_accel_mps2: float = -4.05
    max_accel_mps2: float = 2.40
    max_lateral_accel_mps2: float = 4.89
    max_yaw_rate_radps: float = 0.95
    max_yaw_accel_radps2: float = 1.93
    max_jerk_mps3: float = 8.37
    max_longitudinal_jerk_mps3: float = 4.13


NUPLAN_COMFORT = ComfortLimits()


@dataclass(kw_only=True, slots=True, frozen=True)
class DrivenStep:
    """Everything the metrics look at: the two ends of one step and what is known of the place.

    ``drivable`` and what follows is None where it is not known.
    """

    previous: EgoState
    current: EgoState
    dt_s: float
    previous_route: RoutePosition
    current_route: RoutePosition
    route_length_m: float
    vehicle: VehicleConfig
    drivable: DrivableArea | None = None
    is_collision: bool | None = None
    is_off_road: bool | None = None  # as the picture shows it; asked only where ``drivable`` is None
    time_to_collision_s: float | None = None
    speed_limit_mps: float | None = None
    log_xy_m: FloatArray | None = None  # (2,) recorded rear axle at the end of the step


def measure(step: DrivenStep) -> dict[str, MetricResult]:
    """Return every driving metric of one step by name."""
    return {
        "progress_m": progress(step.previous_route, step.current_route),
        "route_completion": route_completion(step.current_route, step.route_length_m),
        "lateral_error_m": MetricResult(value=step.current_route.lateral_m),
        "heading_error_rad": MetricResult(value=step.current_route.heading_error_rad),
        "speed_mps": MetricResult(value=step.current.speed_mps),
        "comfort": comfort(step.previous, step.current, dt_s=step.dt_s),
        "off_road": off_road(step.current, step.drivable, step.vehicle, seen=step.is_off_road),
        "collision": collision(step.is_collision),
        "time_to_collision_s": time_to_collision(step.time_to_collision_s),
        "speed_over_limit_mps": speed_over_limit(step.current, step.speed_limit_mps),
        "log_deviation_m": log_deviation(step.current, step.log_xy_m),
    }


def progress(previous: RoutePosition, current: RoutePosition) -> MetricResult:
    """Return the metres gained along the route in this step; negative when going back."""
    return MetricResult(value=current.distance_m - previous.distance_m)


def route_completion(position: RoutePosition, route_length_m: float) -> MetricResult:
    """Return the share of the route that lies behind, in [0, 1]."""
    return MetricResult(value=float(np.clip(position.distance_m / route_length_m, 0.0, 1.0)))


def footprint(ego: EgoState, vehicle: VehicleConfig) -> FloatArray:
    """Return (15, 2) global points spread over the car's outline and inside, corners included."""
    num_along, num_across = FOOTPRINT_POINTS
    along = np.linspace(-vehicle.rear_overhang_m, vehicle.length_m - vehicle.rear_overhang_m, num_along)
    across = np.linspace(-0.5, 0.5, num_across) * vehicle.width_m
    points = np.stack(np.meshgrid(along, across, indexing="ij"), axis=-1).reshape(-1, 2)
    return transform_points(global_from_ego((ego.x_m, ego.y_m), ego.yaw_rad), points)


def off_road(
    ego: EgoState, drivable: DrivableArea | None, vehicle: VehicleConfig, *, seen: bool | None = None
) -> MetricResult:
    """Return the share of the car's footprint outside the drivable area, in [0, 1].

    Without a map it is 1 where the picture shows that most of the car has left the road, else 0, and invalid where
    nothing can tell (``seen`` is None).
    """
    if drivable is None:
        return NOT_MEASURABLE if seen is None else MetricResult(value=float(seen))
    return MetricResult(value=float(1.0 - drivable.contains(footprint(ego, vehicle)).mean()))


def comfort(
    previous: EgoState, current: EgoState, *, dt_s: float, limits: ComfortLimits = NUPLAN_COMFORT
) -> MetricResult:
    """Return the share of the six comfort limits that the step keeps, in [0, 1]; 1 is a comfortable step.

    The limits bound longitudinal and lateral acceleration, yaw rate and yaw acceleration, longitudinal and
    total jerk. Jerk and yaw acceleration are differences of the step's means to those of the step before.
    """
    lateral_mps2 = current.speed_mps * current.yaw_rate_radps
    jerk_mps3 = (current.accel_mps2 - previous.accel_mps2) / dt_s
    lateral_jerk_mps3 = (lateral_mps2 - previous.speed_mps * previous.yaw_rate_radps) / dt_s
    yaw_accel = (current.yaw_rate_radps - previous.yaw_rate_radps) / dt_s
    is_kept = [
        limits.min_accel_mps2 <= current.accel_mps2 <= limits.max_accel_mps2,
        abs(lateral_mps2) <= limits.max_lateral_accel_mps2,
        abs(current.yaw_rate_radps) <= limits.max_yaw_rate_radps,
        abs(yaw_accel) <= limits.max_yaw_accel_radps2,
        abs(jerk_mps3) <= limits.max_longitudinal_jerk_mps3,
        float(np.hypot(jerk_mps3, lateral_jerk_mps3)) <= limits.max_jerk_mps3,
    ]
    return MetricResult(value=sum(is_kept) / len(is_kept))


def collision(is_collision: bool | None) -> MetricResult:
    """Return 1.0 while the car touches another, 0.0 otherwise; invalid where the world cannot tell."""
    return NOT_MEASURABLE if is_collision is None else MetricResult(value=float(is_collision))


def time_to_collision(time_s: float | None) -> MetricResult:
    """Return the seconds until the car would touch another, see ``closeness.py``; invalid where none can tell."""
    return NOT_MEASURABLE if time_s is None else MetricResult(value=float(time_s))


def speed_over_limit(ego: EgoState, limit_mps: float | None) -> MetricResult:
    """Return by how much the car is faster than allowed, at least 0; invalid without a limit."""
    return NOT_MEASURABLE if limit_mps is None else MetricResult(value=max(ego.speed_mps - limit_mps, 0.0))


def log_deviation(ego: EgoState, log_xy_m: FloatArray | None) -> MetricResult:
    """Return the metres to where the recorded car was at this time; invalid once the log is over."""
    if log_xy_m is None:
        return NOT_MEASURABLE
    return MetricResult(value=float(np.hypot(ego.x_m - log_xy_m[0], ego.y_m - log_xy_m[1])))
