"""Frames per second and core of the reference world: `python -m benchmarks.reference_speed --out F.json`.

The process is bound to one core and its processor time counts, so other work on the machine does not. A frame is
one step of the ego car and the traffic, and its picture; building a world (road, ground, scenery) is timed apart.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.report import Report, parsed, run_command, run_facts
from benchmarks.statistics import bootstrap_mean
from drivesim import console
from drivesim.dynamics import VehicleConfig, control_from_action, step
from drivesim.errors import InputError
from drivesim.reference.behavior import named_driver
from drivesim.reference.seeds import FIRST_HELD_OUT_SEED
from drivesim.reference.simulator import ReferenceWorld, draw_spec


@dataclass(kw_only=True, slots=True)
class WorldTiming:
    """Processor seconds that one world took."""

    build_s: float  # up to its first picture
    frames_s: float
    pictures_s: float  # the share of frames_s spent on drawing


def time_world(seed: int, num_frames: int) -> WorldTiming:
    """Build the world of a seed and let a good driver drive it."""
    started_s = time.process_time()
    world = ReferenceWorld(draw_spec(seed))
    world.render()
    build_s = time.process_time() - started_s
    driver, vehicle = named_driver("good", np.random.default_rng(seed)), VehicleConfig()
    frames_s = pictures_s = 0.0
    for _ in range(num_frames):
        dt_s = 1.0 / world.rate_hz
        action = driver.act(world)
        ego = step(world.ego, control_from_action(*action, world.ego, vehicle, dt_s), vehicle, dt_s)
        before_s = time.process_time()
        world.advance(ego)
        moved_s = time.process_time()
        world.render()
        after_s = time.process_time()
        frames_s += after_s - before_s
        pictures_s += after_s - moved_s
    return WorldTiming(build_s=build_s, frames_s=frames_s, pictures_s=pictures_s)


def measure(*, first_seed: int, num_worlds: int, num_frames: int) -> Report:
    """Time ``num_worlds`` worlds of ``num_frames`` frames each."""
    if num_worlds < 1 or num_frames < 1:
        raise InputError(f"--worlds and --frames must be at least 1, got {num_worlds} and {num_frames}")
    timings = []
    with console.progress_bar("driving the reference world", num_worlds) as bar:
        for seed in range(first_seed, first_seed + num_worlds):
            timings.append(time_world(seed, num_frames))
            bar.advance()
    report = Report(title="reference speed")
    seconds = np.array([timing.frames_s for timing in timings])
    pictures_s = np.array([timing.pictures_s for timing in timings])
    builds_s = np.array([timing.build_s for timing in timings])
    report.add("frames_per_s", num_frames * num_worlds / seconds.sum(), note="per core, picture included")
    report.add("slowest_world_frames_per_s", num_frames / seconds.max())
    report.add("pictures_per_s", num_frames * num_worlds / pictures_s.sum(), note="drawing alone")
    report.add_estimate("build_s", bootstrap_mean(builds_s, range(num_worlds)), note="once per world")
    building_too = num_frames * num_worlds / (seconds.sum() + builds_s.sum())
    report.add("frames_per_s_with_building", building_too, note=f"worlds of {num_frames} frames")
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print, write."""
    options = parse(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    report = measure(first_seed=options.seed, num_worlds=options.worlds, num_frames=options.frames)
    report.facts = {"size": "128x224", "worlds": options.worlds, **run_facts(options, num_threads=1)}
    report.show()
    report.write(options.out)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reference_speed", description=__doc__)
    parser.add_argument("--seed", type=int, default=FIRST_HELD_OUT_SEED, help="first road seed")
    parser.add_argument("--worlds", type=int, default=20, help="worlds to drive")
    parser.add_argument("--frames", type=int, default=100, help="frames per world")
    parser.add_argument("--out", type=Path, required=True, help="json file")
    return parsed(parser, arguments)


if __name__ == "__main__":
    run_command(main)
