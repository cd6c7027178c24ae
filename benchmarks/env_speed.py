"""Env steps of one car and of several: their time, stage by stage, and what the process holds meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from benchmarks.growth import peak_memory_mb, resident_memory_mb
from benchmarks.report import Report
from benchmarks.stages import StageClock
from benchmarks.timing import Timing
from drivesim.hazard import HazardHead
from drivesim.scene.types import Scene
from drivesim.world_model.world_model import WorldModel
from envs.world_dreamer_drive import WorldDreamerDriveEnv
from envs.world_dreamer_vector import WorldDreamerVectorEnv

VECTOR_CARS = 8  # imagined together
WARM_UP_STEPS = 5
ACTION = np.array([0.02, 8.0], dtype=np.float32)
OWN_NOTE = "the rest that is not the world model: hazards, ego, metrics, reward"


@dataclass(kw_only=True, slots=True, frozen=True)
class Driven:
    """Env steps one after another."""

    timing: Timing
    growth_mb: float  # of the resident memory, from the first counted step to the last


def time_env(
    env: WorldDreamerDriveEnv | WorldDreamerVectorEnv, num_steps: int, *, clock: StageClock | None = None
) -> Driven:
    """Drive ``num_steps`` steps; neither warm-up nor resets are counted, by ``clock`` too.

    Several cars begin anew together, as soon as one of them has ended: those that rest would cost nothing.
    """
    action = np.broadcast_to(ACTION, env.action_space.shape or ACTION.shape)
    env.reset(seed=0)
    samples_s = []
    before_mb = 0.0
    for index in range(-WARM_UP_STEPS, num_steps):
        is_counted = index >= 0
        if index == 0:
            before_mb = resident_memory_mb()
        with clock.counting() if clock is not None and is_counted else nullcontext():
            started_s = time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            samples_s += [time.perf_counter() - started_s] * is_counted
        if np.any(terminated) or np.any(truncated):
            env.reset(seed=0)
    return Driven(timing=Timing(samples_s=samples_s), growth_mb=resident_memory_mb() - before_mb)


def add_env(
    report: Report, env: WorldDreamerDriveEnv, model: WorldModel, *, num_steps: int
) -> dict[str, float]:
    """Add env steps per second and memory of one car; returns the milliseconds of its stages."""
    timing = time_env(env, num_steps).timing
    seconds = sum(timing.samples_s)
    note = "one car, picture decoded"
    report.add("env_steps_per_s_batch1", num_steps / seconds, note=note)
    report.add("env_steps_per_s", num_steps / seconds, note="the same")
    _add_steps(report, timing, "")
    return _add_clocked(report, model, lambda clock: time_env(env, num_steps, clock=clock), "")


def add_vector_env(
    report: Report, model: WorldModel, head: HazardHead | None, scene: Scene, *, num_envs: int, num_steps: int
) -> None:
    """Add time, stages and memory of a step of ``num_envs`` cars that are imagined together."""
    env = WorldDreamerVectorEnv(
        num_envs=num_envs,
        scenes=scene,
        world_model=model,
        hazard_head=head,
        max_episode_steps=None,
        autoreset_mode="Disabled",
    )
    suffix = f"_batch{num_envs}"

    def drive(clock: StageClock) -> Driven:
        driven = time_env(env, num_steps, clock=clock)
        _add_steps(report, driven.timing, suffix)
        return driven

    for stage, milliseconds in _add_clocked(report, model, drive, suffix).items():
        report.add(
            f"stage_ms{suffix}",
            milliseconds,
            key=stage,
            note=f"per step of {num_envs} cars imagined together",
        )
    env.close()


def _add_steps(report: Report, timing: Timing, suffix: str) -> None:
    """Add the milliseconds of a step of all cars."""
    report.add(f"env_step_ms{suffix}", 1e3 * sum(timing.samples_s) / len(timing.samples_s), note="mean")
    for name, value_s in (("median", timing.median_s), ("min", timing.min_s), ("max", timing.max_s)):
        report.add(f"env_step_ms{suffix}_{name}", 1e3 * value_s)


def _add_clocked(
    report: Report, model: WorldModel, drive: Callable[[StageClock], Driven], suffix: str
) -> dict[str, float]:
    """Add what the process holds while it drives with a clock in the model; returns the milliseconds of the stages."""
    with StageClock(model) as clock:
        driven = drive(clock)
    num_steps, staged_s = len(driven.timing.samples_s), sum(driven.timing.samples_s)
    own_ms = 1e3 * (staged_s - clock.model_total) / num_steps
    report.add(f"env_own_ms{suffix}", own_ms, note=OWN_NOTE)
    report.add(f"resident_memory_mb{suffix}", resident_memory_mb(), note="whole process, after the drive")
    report.add(
        f"resident_growth_mb{suffix}", driven.growth_mb, note=f"over {num_steps} steps, after the first few"
    )
    report.add(f"peak_memory_mb{suffix}", peak_memory_mb(), note="whole process so far")
    return {name: 1e3 * total / num_steps for name, total in clock.totals(staged_s).items()}
