"""Planning inside the world model: the cross-entropy method (CEM) and model predictive path integral control (MPPI).

Two floors, because a frame costs a thousand times what a pose costs. Many plans are searched by exact geometry: the
project's reward along the route in sight, and the gap to what the picture shows ahead. Of the best, a few that differ
are imagined in the world model, and what the hazard head sees there decides. A plan is followed for some steps; every
new picture is assessed, and danger brings a new plan at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np

from drivesim.errors import InputError
from drivesim.policy_loading import Action
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera, Image
from drivesim.shared_models import shared_hazard_head, shared_world_model
from drivesim.world_model.world_model import WorldModel
from policies.idm import GapTracker
from policies.imagined_hazards import Assessor, HazardSight
from policies.plan_search import PlanCosts, cost_function, distinct, driven, knots_of, pursued, shifted
from policies.planning import Plans
from policies.road_vision import free_way

SPREAD = (0.06, 1.5)  # rad, m/s2: of the first draw
LEAST_SPREAD = (0.004, 0.15)
BRAKING_MPS2 = 6.0
WATCHED_S = 3.0  # a gap that is not reached within this time is no reason to imagine
SAMPLING = (
    "horizon_steps",
    "num_knots",
    "num_samples",
    "num_iterations",
)  # counts of plans and of their parts
IMAGINING = ("num_imagined", "imagined_steps", "replan_every")  # counts of what is looked at of them


@dataclass(kw_only=True, slots=True)
class PlanningPolicy(ABC):
    """What both planners share; how the draw is narrowed is theirs."""

    seed: int | None = 0
    horizon_steps: int = 12
    num_knots: int = 4
    num_samples: int = 128
    num_iterations: int = 3
    num_imagined: int = 4  # plans, "brake" included
    imagined_steps: int = 5
    replan_every: int = 3
    quiet_collision: float = 0.02  # below these and with nothing ahead, nothing is imagined
    quiet_off_road: float = 0.2
    collision_cost: float = 4.0  # mean reward per step that a collision is worth
    off_road_cost: float = 2.0
    costs: PlanCosts = field(default_factory=PlanCosts)
    weights: str = "drive-tiny"
    hazard_weights: str = "hazard-tiny"
    device: str = "cpu"
    world_model: WorldModel | None = None  # instead of ``weights``
    hazard_head: Assessor | None = None  # instead of ``hazard_weights``
    camera: Camera | None = None  # of the pictures; the front camera of their size if left out
    _sight: HazardSight = field(init=False, repr=False)
    _rng: np.random.Generator = field(init=False, repr=False)
    _gap: GapTracker = field(default_factory=GapTracker, init=False, repr=False)
    _knots: FloatArray | None = field(default=None, init=False, repr=False)
    _plan: Plans | None = field(default=None, init=False, repr=False)
    _num_driven: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        """Load what imagines and what judges.

        Raises:
            InputError: counts or costs that make no plan, or weights that cannot be used.
        """
        self._require_counts(*SAMPLING, *IMAGINING)
        for name in ("collision_cost", "off_road_cost"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be a number of at least 0, got {getattr(self, name)}")
        if not max(self.imagined_steps, self.replan_every, self.num_knots) <= self.horizon_steps:
            raise InputError(
                f"a plan of horizon_steps={self.horizon_steps} is too short for num_knots={self.num_knots}, "
                f"imagined_steps={self.imagined_steps} and replan_every={self.replan_every}"
            )
        world_model = self.world_model or shared_world_model(self.weights, self.device)
        head = self.hazard_head or shared_hazard_head(self.hazard_weights, self.device)
        self._sight = HazardSight(world_model, head, camera=self.camera, seed=self.seed)
        self._rng = np.random.default_rng(self.seed)

    def _require_counts(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, got {value}")

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action of the plan, which is made anew every few steps, or when danger comes up."""
        risk = self._sight.see(observation, info)
        collision = float(risk.collision[0])
        self._look_ahead(observation, info)
        is_alarm = collision >= self._sight.collision_threshold
        if self._plan is None or self._num_driven >= self.replan_every or is_alarm:
            is_quiet = collision < self.quiet_collision and float(risk.off_road[0]) < self.quiet_off_road
            self._plan = self._planned(info, is_quiet=is_quiet and not self._is_gap_near(info))
            self._num_driven = 0
        step, self._num_driven = self._num_driven, self._num_driven + 1
        return np.array([self._plan.steering_rad[0, step], self._plan.speed_mps[0, step]], dtype=np.float32)

    @abstractmethod
    def narrowed(self, knots: FloatArray, costs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and spread (K, 2) of the next draw, given this one's knots (P, K, 2) and costs (P,)."""

    def _look_ahead(self, observation: Image, info: dict[str, Any]) -> None:
        way = free_way(observation, np.asarray(info["route_ahead_m"], dtype=np.float64), camera=self.camera)
        front_m = info["vehicle"]["length_m"] - info["vehicle"]["rear_overhang_m"]
        read_m = way.distance_m - front_m if way.is_blocked else None
        self._gap.update(read_m, info["ego"]["speed_mps"], info["dt_s"])

    def _is_gap_near(self, info: dict[str, Any]) -> bool:
        reach_m = self.costs.standing_gap_m + WATCHED_S * info["ego"]["speed_mps"]
        return self._gap.gap_m is not None and self._gap.gap_m < reach_m

    def _planned(self, info: dict[str, Any], *, is_quiet: bool) -> Plans:
        """Return the plan to follow, as a single row."""
        car, cost = cost_function(info, self.costs, self._gap, self.horizon_steps)
        knots = self._searched(info, cost)
        plans, costs = cost(knots)
        chosen = distinct(plans, costs, self.num_imagined if is_quiet else max(self.num_imagined - 1, 1))
        if not is_quiet:
            braking = knots[chosen[:1]].copy()
            braking[..., 1] = -BRAKING_MPS2
            knots = np.concatenate([knots[chosen], braking])
            plans, costs = cost(knots)
            costs = costs + self._hazard_costs(plans)
        best = int(np.argmin(costs))
        self._knots = knots[best]
        return driven(knots[best : best + 1], car, self.horizon_steps)

    def _hazard_costs(self, plans: Plans) -> FloatArray:
        """Return what the hazards cost (P,) that the plans meet where they are imagined."""
        risk = self._sight.imagine(plans.twist[:, : self.imagined_steps])
        return np.asarray(self.collision_cost * risk.collision + self.off_road_cost * risk.off_road)

    def _searched(self, info: dict[str, Any], cost: Any) -> FloatArray:
        """Return the knots (P, K, 2) of the last draw and of the first guesses."""
        guesses = self._guesses(info)
        _, costs = cost(guesses)
        mean, spread = guesses[int(np.argmin(costs))], np.broadcast_to(SPREAD, guesses.shape[1:])
        for _ in range(self.num_iterations):
            drawn = mean + spread * self._rng.standard_normal((self.num_samples, *mean.shape))
            knots = np.concatenate([drawn, mean[None], guesses])
            _, costs = cost(knots)
            mean, spread = self.narrowed(knots, costs)
            spread = np.maximum(spread, LEAST_SPREAD)
        return np.concatenate([knots, mean[None]])

    def _guesses(self, info: dict[str, Any]) -> FloatArray:
        """Return knots (G, K, 2): pure pursuit at some speeds, and the plan so far."""
        cruise_mps = self.costs.cruise_speed_mps
        controls = [
            pursued(info, cruise_speed_mps=share * cruise_mps, num_steps=self.horizon_steps)
            for share in (1.0, 0.6, 0.2)
        ]
        guesses = [knots_of(control, self.num_knots) for control in controls]
        if self._knots is not None:
            guesses.append(shifted(self._knots, self._num_driven, self.horizon_steps))
        return np.stack(guesses)


@dataclass(kw_only=True, slots=True)
class CemPolicy(PlanningPolicy):
    """Narrow the draw to its cheapest plans (Rubinstein 1999)."""

    num_elites: int = 16

    def __post_init__(self) -> None:
        """Refuse to narrow a draw to nothing.

        Raises:
            InputError: no elites, or what no planner can use.
        """
        self._require_counts("num_elites")
        PlanningPolicy.__post_init__(self)

    def narrowed(self, knots: FloatArray, costs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and spread of the cheapest plans."""
        elites = knots[np.argsort(costs, kind="stable")[: self.num_elites]]
        return elites.mean(axis=0), elites.std(axis=0)


@dataclass(kw_only=True, slots=True)
class MppiPolicy(PlanningPolicy):
    """Average all plans, the cheap ones with exponentially more weight (Williams et al. 2017)."""

    temperature: float = 0.03  # of the mean reward per step

    def __post_init__(self) -> None:
        """Refuse weights that are no numbers.

        Raises:
            InputError: a temperature that is not positive, or what no planner can use.
        """
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"temperature must be a positive number, got {self.temperature}")
        PlanningPolicy.__post_init__(self)

    def narrowed(self, knots: FloatArray, costs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the weighted mean; the spread is halved."""
        share = np.exp(-(costs - costs.min()) / self.temperature)
        mean = np.einsum("p,pkc->kc", share / share.sum(), knots)
        spread = np.sqrt(np.einsum("p,pkc->kc", share / share.sum(), (knots - mean) ** 2))
        return mean, 0.5 * (spread + 0.5 * np.broadcast_to(SPREAD, mean.shape))
