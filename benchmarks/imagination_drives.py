"""Drives of policies in the reference world, on roads that no training saw: what learning curves are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.imagination_training import HORIZON, start_of_road
from benchmarks.statistics import Estimate, bootstrap_mean, bootstrap_ratio, wilson_share
from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.learner_view import car_action
from drivesim.metrics.scores import ROUTE_SPEED_MPS
from drivesim.rollout import Action, EpisodeConfig, Policy, make_env, rollout
from drivesim.scene.types import Image
from envs.ride import GOAL_RADIUS_M

REFERENCE = "Reference-Drive-v0"


@dataclass(kw_only=True, slots=True)
class DrivenRoad:
    """How one episode went."""

    road_seed: int
    route_completion: float  # of the route that was asked for, in [0, 1]
    progress_m: float
    num_steps: int
    total_reward: float
    end_reason: str


class RandomLearner:
    """Wheel and pedal at random: where a learner begins."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action of a wheel and a pedal drawn evenly from their ranges."""
        del observation
        return car_action(self._rng.uniform(-1, 1, 2), info)


def drive_roads(
    make_policy: Callable[[int], Policy],
    road_seeds: Sequence[int],
    *,
    on_road: Callable[[], None] | None = None,
) -> list[DrivenRoad]:
    """Drive an episode on each road in the reference world, each with a policy of its own.

    Args:
        make_policy: gives the policy for a road's seed.
        road_seeds: of roads.
        on_road: called after each road.
    """
    driven = []
    for seed in road_seeds:
        driven.append(_drive(make_policy(seed), seed))
        if on_road is not None:
            on_road()
    return driven


def drive_once(
    path: Path,
    make_policy: Callable[[int], Policy],
    road_seeds: Sequence[int],
    *,
    on_road: Callable[[], None] | None = None,
) -> list[DrivenRoad]:
    """Return what an earlier run noted in ``path``, or drive and note it.

    Raises:
        InputError: the file is of other roads or damaged.
    """
    if path.is_file():
        try:
            noted = [DrivenRoad(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} cannot be read ({error}); remove it to drive again") from error
        if [road.road_seed for road in noted] != list(road_seeds):
            raise InputError(f"{path} is of other roads; name a new folder for --out, or remove it")
        for _ in noted if on_road is not None else ():
            assert on_road is not None
            on_road()
        return noted
    driven = drive_roads(make_policy, road_seeds, on_road=on_road)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps([asdict(road) for road in driven], indent=1) + "\n", encoding="utf-8")
    return driven


def _drive(policy: Policy, road_seed: int) -> DrivenRoad:
    episode = EpisodeConfig(env_id=REFERENCE, horizon=HORIZON)
    with closing(make_env(episode, scene=start_of_road(road_seed))) as env:
        result = rollout(env, policy, seed=road_seed)
        left_m = _route_left_m(env)
        dt_s = float(env.get_wrapper_attr("dt_s"))
    summary = result.summary()
    asked_m = min(left_m + summary["progress_m"], ROUTE_SPEED_MPS * HORIZON * dt_s)
    return DrivenRoad(
        road_seed=road_seed,
        route_completion=float(np.clip(summary["progress_m"] / asked_m, 0.0, 1.0)),
        progress_m=float(summary["progress_m"]),
        num_steps=int(summary["num_steps"]),
        total_reward=float(summary["total_reward"]),
        end_reason=result.end_reason,
    )


def _route_left_m(env: Any) -> float:
    """Return the metres from where the car is to its goal."""
    route, position = env.get_wrapper_attr("route"), env.get_wrapper_attr("position")
    return max(float(route.length_m - GOAL_RADIUS_M - position.distance_m), 0.0)


def completion(driven: Sequence[DrivenRoad]) -> Estimate:
    """Return the mean route completion with its interval over roads."""
    return bootstrap_mean(_completions(driven), [road.road_seed for road in driven])


def completion_ratio(above: Sequence[DrivenRoad], below: Sequence[DrivenRoad]) -> Estimate:
    """Return the ratio of two mean route completions on the same roads."""
    return bootstrap_ratio(_completions(above), _completions(below), [road.road_seed for road in above])


def end_share(driven: Sequence[DrivenRoad], end_reason: str) -> Estimate:
    """Return the share of the roads on which the drive ended so."""
    return wilson_share([road.end_reason == end_reason for road in driven])


def _completions(driven: Sequence[DrivenRoad]) -> NDArray[np.float64]:
    return np.array([road.route_completion for road in driven])
