"""The search for a plan by exact geometry: what plans cost, and the first guesses they are searched from.

A plan is given by a few knots of road-wheel angle and acceleration, with straight lines between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from drivesim.errors import InputError
from drivesim.rewards import RewardConfig
from drivesim.scene.geometry import FloatArray, global_from_ego, transform_points
from policies.idm import GapTracker
from policies.planning import CarNow, OnRoute, Plans, RouteAhead, broken_comfort, drive, plan_rewards
from policies.pure_pursuit import PurePursuitPolicy

NEAR_ROUTE_M = 0.9  # from the route; a lane leaves little more to a car
FAR_FROM_ROUTE_M = 0.8  # beyond that the car is off the road or in the next lane


@dataclass(kw_only=True, slots=True)
class PlanCosts:
    """What is weighed besides the project's reward, per step."""

    reward: RewardConfig = field(default_factory=RewardConfig)
    cruise_speed_mps: float = 12.0
    discomfort: float = 0.6  # per share of comfort limits broken, on top of the reward's
    over_cruise: float = 0.3  # per m/s above it
    lateral: float = 0.01  # per (m/s2)**2 across
    off_route: float = 1.0  # when the car cannot be on its lane any more
    closeness: float = 2.0  # when it touches what the picture shows ahead
    standing_gap_m: float = 2.5
    time_gap_s: float = 1.0

    def __post_init__(self) -> None:
        """Refuse negative weights, no speed to drive at and no gap to keep.

        Raises:
            InputError: one of them.
        """
        for name in (one.name for one in fields(self) if one.name != "reward"):
            value, is_positive = getattr(self, name), name in ("cruise_speed_mps", "standing_gap_m")
            if not 0 <= value < float("inf") or (is_positive and value == 0):
                expected = "a positive number" if is_positive else "a number of at least 0"
                raise InputError(f"costs.{name} must be {expected}, got {value}")

    def of(self, plans: Plans, place: OnRoute, car: CarNow, gap: GapTracker) -> FloatArray:
        """Return the cost (P,) of plans, mean over steps."""
        off_route = np.clip((np.abs(place.lateral_m) - NEAR_ROUTE_M) / FAR_FROM_ROUTE_M, 0.0, 1.0)
        costs = (
            -plan_rewards(plans, place, car, self.reward)
            + self.discomfort * broken_comfort(plans, car)
            + self.over_cruise * np.maximum(plans.speed_mps - self.cruise_speed_mps, 0.0)
            + self.lateral * (plans.speed_mps * plans.yaw_rate_radps) ** 2
            + self.off_route * off_route
            + self.closeness * self._closeness(plans, place, car, gap)
        )
        return np.asarray(costs.mean(axis=1))

    def _closeness(self, plans: Plans, place: OnRoute, car: CarNow, gap: GapTracker) -> FloatArray:
        """Return (P, T) from 0, out of the way, to 1, touching, by the gap ahead and how fast it closes."""
        if gap.gap_m is None:
            return np.zeros_like(plans.speed_mps)
        time_s = car.dt_s * np.arange(1, plans.speed_mps.shape[1] + 1)
        left_m = gap.gap_m + max(car.speed_mps - gap.closing_mps, 0.0) * time_s - place.distance_m
        wanted_m = self.standing_gap_m + self.time_gap_s * plans.speed_mps
        return np.asarray(np.clip(1.0 - left_m / wanted_m, 0.0, 1.0) ** 2)


def knot_weights(num_knots: int, num_steps: int) -> FloatArray:
    """Return (T, K): how much of each knot is in each step."""
    place = np.linspace(0.0, num_knots - 1.0, num_steps)
    return np.maximum(1.0 - np.abs(place[:, None] - np.arange(num_knots)), 0.0)


def driven(knots: FloatArray, car: CarNow, num_steps: int) -> Plans:
    """Drive plans given by knots (P, K, 2) of road-wheel angle and acceleration."""
    controls = np.einsum("tk,pkc->ptc", knot_weights(knots.shape[1], num_steps), knots)
    return drive(controls[..., 0], controls[..., 1], car)


def pursued(info: dict[str, Any], *, cruise_speed_mps: float, num_steps: int) -> FloatArray:
    """Return the controls (T, 2) of pure pursuit along the route in sight: road-wheel angle and acceleration."""
    policy = PurePursuitPolicy(cruise_speed_mps=cruise_speed_mps)
    car, route_m = CarNow.of(info), np.asarray(info["route_ahead_m"], dtype=np.float64)
    controls = np.zeros((num_steps, 2))
    pose, picture = np.zeros(3), np.zeros((1, 1, 3), dtype=np.uint8)
    spacing_m = float(np.linalg.norm(route_m[1] - route_m[0]))
    for step in range(num_steps):
        here_m = transform_points(np.linalg.inv(global_from_ego(pose[:2], pose[2])), route_m)
        nearest = int(np.argmin(np.linalg.norm(here_m, axis=1)))
        is_passed = here_m[nearest, 0] < 0.5 * spacing_m
        ahead_m = here_m[min(nearest + int(is_passed), len(here_m) - 3) :]
        ego = {"speed_mps": car.speed_mps, "accel_mps2": car.accel_mps2}
        steering_rad, speed_mps = policy.select_action(
            picture, {**info, "route_ahead_m": ahead_m, "ego": ego}
        )
        controls[step] = steering_rad, (speed_mps - car.speed_mps) / car.dt_s
        moved = drive(controls[step : step + 1, :1], controls[step : step + 1, 1:], car)
        pose = _moved(pose, moved)
        car = CarNow(
            speed_mps=float(moved.speed_mps[0, 0]),
            accel_mps2=float(moved.accel_mps2[0, 0]),
            yaw_rate_radps=float(moved.yaw_rate_radps[0, 0]),
            vehicle=car.vehicle,
            dt_s=car.dt_s,
        )
    return controls


def _moved(pose: FloatArray, plans: Plans) -> FloatArray:
    xy_m = transform_points(global_from_ego(pose[:2], pose[2]), plans.xy_m[0, 0])
    return np.array([*xy_m, pose[2] + plans.yaw_rad[0, 0]])


def knots_of(controls: FloatArray, num_knots: int) -> FloatArray:
    """Return the knots (K, 2) that come nearest to controls (T, 2)."""
    weights = knot_weights(num_knots, len(controls))
    return np.asarray(np.linalg.lstsq(weights, controls, rcond=None)[0])


def shifted(knots: FloatArray, num_passed: int, num_steps: int) -> FloatArray:
    """Return knots (K, 2) of what is left of a plan after some steps; its end is held."""
    controls = knot_weights(len(knots), num_steps) @ knots
    later = np.minimum(np.arange(num_steps) + num_passed, num_steps - 1)
    return knots_of(controls[later], len(knots))


def distinct(plans: Plans, costs: FloatArray, count: int, *, apart_m: float = 1.0) -> list[int]:
    """Return the indices of the cheapest plans whose ends lie apart from each other, the cheapest first."""
    kept: list[int] = []
    ends = np.concatenate([plans.xy_m[:, -1], 0.5 * plans.xy_m[:, plans.xy_m.shape[1] // 2]], axis=1)
    for index in np.argsort(costs, kind="stable").tolist():
        if all(float(np.linalg.norm(ends[index] - ends[other])) >= apart_m for other in kept):
            kept.append(index)
        if len(kept) == count:
            break
    return kept


def cost_function(
    info: dict[str, Any], weights: PlanCosts, gap: GapTracker, num_steps: int
) -> tuple[CarNow, Any]:
    """Return the car now and a function from knots (P, K, 2) to plans and their costs (P,)."""
    car, route = CarNow.of(info), RouteAhead(info["route_ahead_m"])

    def cost(knots: FloatArray) -> tuple[Plans, FloatArray]:
        plans = driven(knots, car, num_steps)
        return plans, weights.of(plans, route.locate(plans), car, gap)

    return car, cost
