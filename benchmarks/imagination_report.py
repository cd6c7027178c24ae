"""The run behind `benchmarks/imagination.py`: both agents trained, all drivers driven, figures and curves."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.drive_contents import contents_of_models, contents_of_weights
from benchmarks.imagination_drives import (
    DrivenRoad,
    RandomLearner,
    completion,
    completion_ratio,
    drive_once,
    end_share,
)
from benchmarks.imagination_training import HORIZON, PPOConfig, TrainingPlan, train
from benchmarks.report import Curve, Report
from drivesim import console
from drivesim.rollout import EpisodeConfig, Policy, load_policy
from drivesim.shared_models import models_of

IMAGINATION, REFERENCE = "imagination", "reference"
WORLDS = {IMAGINATION: "WorldDreamer-Drive-v0", REFERENCE: "Reference-Drive-v0"}
PPO_POLICY = "policies.stable_baselines:StableBaselinesPolicy"
CLONED_POLICY = "policies.behavior_cloning:BehaviorCloningPolicy"
Curves = dict[int, list[DrivenRoad]]
"""Drives by the environment steps that the agent had learned from."""


def checked_contents(options: argparse.Namespace) -> dict[str, str]:
    """Return the hashes of all weights of a run, after what it would stumble over later was tried.

    Raises:
        InputError: weights or a driver that cannot be used, or more steps than there are roads to learn on.
    """
    plan_of(IMAGINATION, options)
    episode = EpisodeConfig(weights=options.weights)
    models_of(episode, None, None)
    driver = "" if options.driver == "none" else options.driver
    if driver:
        load_policy(CLONED_POLICY, weights=driver)
    return contents_of_models(episode) | contents_of_weights({"driver": driver})


def make_report(options: argparse.Namespace, roads: Sequence[int]) -> Report:
    """Train and drive what is not there yet; return all figures."""
    curves = {world: _evaluated(world, _trained(world, options), options, roads) for world in WORLDS}
    others = _other_drivers(options, roads)
    report = Report(title="imagination")
    report.facts = _facts(options)
    _add_figures(report, curves, others)
    _add_curves(report, curves, others)
    return report


def _trained(world: str, options: argparse.Namespace) -> dict[int, Path]:
    """Return the agents of one world by their steps."""
    plan = plan_of(world, options)
    total = plan.num_segments * plan.steps_per_segment
    with console.progress_bar(f"learning ({world})", total) as bar:
        return train(
            plan,
            options.out / world,
            kept_segments=plan.evaluation_segments(options.evaluations),
            env_settings=env_settings(world, options),
            on_progress=bar.update,
        )


def env_settings(world: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the environments of a world are made with, beside the plan; models are loaded once for all segments.

    The weights are named, so that their hazard head comes with them: imagined collisions cost and end episodes, too.
    """
    return {"weights": options.weights} if world == IMAGINATION else {}


def plan_of(world: str, options: argparse.Namespace) -> TrainingPlan:
    """Return the training of one world's agent: the same in both but for the world."""
    return TrainingPlan(
        env_id=WORLDS[world],
        num_steps=options.steps,
        num_envs=options.envs,
        seed=options.seed,
        ppo=PPOConfig(has_image=not options.no_image),
    )


def _evaluated(
    world: str, agents: Mapping[int, Path], options: argparse.Namespace, roads: Sequence[int]
) -> Curves:
    driven: Curves = {}
    with console.progress_bar(f"driving ({world})", len(agents) * len(roads)) as bar:
        for steps, agent in agents.items():
            driven[steps] = drive_once(
                agent.with_suffix(".json"),
                partial(_loaded, PPO_POLICY, checkpoint=str(agent)),
                roads,
                on_road=bar.advance,
            )
    return driven


def _other_drivers(options: argparse.Namespace, roads: Sequence[int]) -> dict[str, list[DrivenRoad]]:
    drivers: dict[str, Any] = {
        "random": RandomLearner,
        "pure_pursuit": partial(_loaded, "pure-pursuit"),
    }
    if options.driver != "none":
        drivers["behavior_cloning"] = partial(_loaded, CLONED_POLICY, weights=options.driver)
    folder, driven = options.out / "others", {}
    with console.progress_bar("driving (others)", len(drivers) * len(roads)) as bar:
        for name, make_policy in drivers.items():
            driven[name] = drive_once(folder / f"{name}.json", make_policy, roads, on_road=bar.advance)
    return driven


def _loaded(name: str, road_seed: int, **settings: Any) -> Policy:
    del road_seed  # these policies have no chance in them
    return load_policy(name, **settings)


def _facts(options: argparse.Namespace) -> dict[str, Any]:
    plan = plan_of(IMAGINATION, options)
    return {
        "weights": options.weights,
        "steps": plan.num_segments * plan.steps_per_segment,
        "training_roads": f"{plan.first_road_seed}.."
        f"{plan.first_road_seed + plan.num_segments * plan.num_envs - 1}",
        "seed": options.seed,
        "horizon": HORIZON,
        "ppo": asdict(plan.ppo),
        "reward": asdict(plan.reward),
    }


def _add_figures(
    report: Report, curves: Mapping[str, Curves], others: Mapping[str, list[DrivenRoad]]
) -> None:
    last = {world: curve[max(curve)] for world, curve in curves.items()}
    drivers = {**last, **others}
    note = "share driven of what is left of the route, or of what 10 m/s reach, in 100 steps of the reference world"
    for name, driven in drivers.items():
        report.add_estimate(
            f"route_completion_{name}", completion(driven), note=note if name == IMAGINATION else ""
        )
    ratio = completion_ratio(last[IMAGINATION], last[REFERENCE])
    report.add_estimate("route_completion_ratio", ratio, note="imagination over reference")
    for name, driven in drivers.items():
        report.add_estimate(f"off_road_rate_{name}", end_share(driven, "off_road"))
        report.add_estimate(f"collision_rate_{name}", end_share(driven, "collision"))
    for name, driven in drivers.items():
        report.add(f"progress_m_{name}", sum(road.progress_m for road in driven) / len(driven))


def _add_curves(report: Report, curves: Mapping[str, Curves], others: Mapping[str, list[DrivenRoad]]) -> None:
    """Add the learning curves, and level lines for who does not learn here."""
    ends = [0, max(max(curve) for curve in curves.values())]
    for world, curve in curves.items():
        steps = sorted(curve)
        report.curves[f"completion_{world}"] = Curve(
            steps=steps, estimates=[completion(curve[step]) for step in steps]
        )
        report.curves[f"off_road_{world}"] = Curve(
            steps=steps, estimates=[end_share(curve[step], "off_road") for step in steps]
        )
    for name, driven in others.items():
        report.curves[f"completion_{name}"] = Curve(steps=ends, estimates=[completion(driven)] * 2)
