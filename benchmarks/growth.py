"""How the cost of a step grows: with window, rounds, batch and picture size, and with the length of an episode."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.imagined_step import imagined_step, random_model, with_size, with_window
from benchmarks.report import Report
from benchmarks.timing import Timing, seconds_of, take_turns
from drivesim import console
from drivesim.episode import EpisodeConfig
from drivesim.scene.types import Scene
from drivesim.world_model.world_model import WorldModel, WorldModelConfig
from envs.world_dreamer_drive import WorldDreamerDriveEnv

WINDOWS = (3, 6, 12, 24)
ROUNDS = (1, 2, 4, 8)
SIZES_PX = (
    (64, 128),
    (96, 160),
    (128, 224),
    (192, 320),
)  # height, width; rows and columns of tokens are even
NUM_COMPARED_STEPS = 100
CIRCLE = np.array([0.1, 8.0], dtype=np.float32)  # never reaches the end of a route


def curves(
    model: WorldModel, scene: Scene, *, batch_sizes: Sequence[int], num_rounds: int
) -> dict[str, dict[str, Timing]]:
    """Return by curve and value the time of a step of the model; the values of a curve take turns."""
    config, camera, dtype = model.config, scene.camera, next(model.parameters()).dtype
    sizes = [size for size in SIZES_PX if _fits(config, size)]
    settings = {rounds: replace(config.sampler, num_decode_steps=rounds) for rounds in ROUNDS}
    contenders: dict[str, dict[str, Callable[[], object]]] = {
        "window": {
            str(window): imagined_step(random_model(with_window(config, window), dtype), camera, batch_size=1)
            for window in WINDOWS
        },
        "rounds": {
            str(rounds): imagined_step(model, camera, batch_size=1, sampler=sampler)
            for rounds, sampler in settings.items()
        },
        "batch": {str(size): imagined_step(model, camera, batch_size=size) for size in batch_sizes},
        "resolution": {
            f"{size[0]}x{size[1]}": imagined_step(
                random_model(with_size(config, size), dtype), camera, batch_size=1
            )
            for size in sizes
        },
    }
    return {
        name: take_turns(f"cost against {name}", steps, num_rounds=num_rounds)
        for name, steps in contenders.items()
    }


def _fits(config: WorldModelConfig, size_px: tuple[int, int]) -> bool:
    """Tell whether a picture cuts into whole tokens and these into whole patches."""
    unit = config.vqgan.stride * config.stpt.patch_stride
    return size_px[0] % unit == 0 and size_px[1] % unit == 0


def add_curves(report: Report, measured: dict[str, dict[str, Timing]]) -> None:
    """Add every curve as ``step_ms_by_NAME``; that over the batch is divided by its size."""
    notes = {
        "window": "frames that attention sees; random weights",
        "rounds": "decoding rounds",
        "batch": "per car, the model's part of a step",
        "resolution": "height x width in pixels; random weights",
    }
    for name, timings in measured.items():
        for key, timing in timings.items():
            cars = int(key) if name == "batch" else 1
            report.add(f"step_ms_by_{name}", 1e3 * timing.median_s / cars, key=key, note=notes[name])


def add_long_run(report: Report, model: WorldModel, scene: Scene, *, num_steps: int) -> None:
    """Compare an env that has driven ``num_steps`` steps without a reset with one that has just begun.

    The two step in turns, so that whatever else the machine does hits both. Neither is told of other cars, which an old
    env no longer is and which cost a little, nor has it a hazard head, which would end it at the first collision.
    """
    old = _endless_env(model, scene)
    samples_s = []
    memory_mb = 0.0
    with console.progress_bar("long run", num_steps) as bar:
        for index in range(num_steps):
            samples_s.append(seconds_of(lambda: old.step(CIRCLE)))
            if index == min(NUM_COMPARED_STEPS, num_steps) - 1:
                memory_mb = resident_memory_mb()
            bar.advance()
    growth_mb = resident_memory_mb() - memory_mb
    young = _endless_env(model, scene)
    turns = take_turns(
        "old against young",
        {"old": lambda: old.step(CIRCLE), "young": lambda: young.step(CIRCLE)},
        num_rounds=min(NUM_COMPARED_STEPS, num_steps),
    )
    ratio = turns["old"].median_s / turns["young"].median_s
    note = f"the env after {num_steps} steps without a reset against a new one, in turns; 0.05 is 5 % dearer"
    report.add(f"cost_growth_after_{num_steps}", ratio - 1, note=note)
    report.add(f"memory_growth_mb_after_{num_steps}", growth_mb, note="resident, since the 100th step")
    report.add("long_run_steps_per_s", num_steps / sum(samples_s))
    for name, part in (
        ("first 100", slice(NUM_COMPARED_STEPS)),
        ("last 100", slice(-NUM_COMPARED_STEPS, None)),
    ):
        report.add("long_run_step_ms", 1e3 * Timing(samples_s=samples_s[part]).median_s, key=name)
    for name, timing in turns.items():
        report.add("long_run_step_ms", 1e3 * timing.median_s, key=f"{name}, in turns")
    old.close()
    young.close()


def _endless_env(model: WorldModel, scene: Scene) -> WorldDreamerDriveEnv:
    """Return an env, reset, that nothing ends."""
    episode = EpisodeConfig(off_road_limit=1.0, min_confidence=None, uses_agents=False)
    env = WorldDreamerDriveEnv(world_model=model, scene=scene, episode=episode)
    env.reset(seed=0)
    return env


def resident_memory_mb() -> float:
    """Return the memory that the process holds now, in megabytes; its peak where the system does not tell."""
    status = Path("/proc/self/statm")
    if status.is_file():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return peak_memory_mb()


def peak_memory_mb() -> float:
    """Return the largest resident size of this process so far, in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # elsewhere it is told in KiB
