"""Speed of the learned world: `python -m benchmarks.speed --out F.json`.

Env steps per second, memory and the milliseconds of the stages for one car and for eight, those of one beside what
this machine's matrix and copy rates allow, three reference decoders of the same budget, and how the cost grows.
Everything that is compared is timed in turns within this one run. ``--quick`` takes fewer samples; ``--long`` drives
5,000 steps and no more; ``--cars 8 64 256`` times environments of so many cars and no more, with ``--device`` on an
accelerator.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.compiled import add_compiled
from benchmarks.decoders.comparison import add_comparison, compare, parameters, reference_decoders
from benchmarks.env_speed import VECTOR_CARS, add_env, add_vector_env
from benchmarks.growth import add_curves, add_long_run, curves, peak_memory_mb
from benchmarks.report import Report, check_out, parsed, run_command, run_facts, weights_facts
from benchmarks.roofline import add_stages
from benchmarks.speed_tables import TARGETS, show
from benchmarks.timing import Timing
from benchmarks.vector_speed import add_batches, add_saving, time_batches
from drivesim.checkpoint import usable_device
from drivesim.episode import EpisodeConfig
from drivesim.errors import InputError
from drivesim.hazard import HazardHead
from drivesim.scene.types import Scene
from drivesim.shared_models import hazard_head_name, shared_hazard_head
from drivesim.world_model.compiled import require_compiler
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.world_model import WorldModel
from envs.world_dreamer_drive import WorldDreamerDriveEnv

LONG_STEPS = 5000
MAX_VECTOR_ROUNDS = 3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
QUICK: dict[str, Any] = {
    "num_steps": 40,
    "num_rounds": 3,
    "num_long_steps": 0,
    "is_batch_compared": False,
}


@dataclass(kw_only=True, slots=True)
class SpeedConfig:
    """How much is measured."""

    num_steps: int = 120  # env steps to time
    num_rounds: int = 9  # samples of everything that is timed in turns
    batch_sizes: list[int] = field(default_factory=lambda: [1, 2, 4, 8])  # of the curve over the batch
    num_long_steps: int = 400  # 0: no long run
    is_batch_compared: bool = True  # the decoders with eight cars, too
    is_compiled: bool = False
    cars: list[int] = field(default_factory=list)  # of environments that are timed, and nothing else

    def __post_init__(self) -> None:
        """Refuse to measure nothing."""
        if self.num_steps < 1 or min(self.batch_sizes, default=1) < 1:
            raise InputError(
                f"--steps and --batch must be at least 1, got {self.num_steps} and {list(self.batch_sizes)}"
            )
        if min(self.cars, default=2) < 2:
            raise InputError(f"--cars are timed against one car, so each is at least 2, got {self.cars}")
        if self.num_rounds < 1 or self.num_long_steps < 0:
            raise InputError(
                f"--rounds must be at least 1 and --long-steps at least 0, got {self.num_rounds} and "
                f"{self.num_long_steps}"
            )


def measure(model: WorldModel, config: SpeedConfig, head: HazardHead | None = None) -> Report:
    """Time the env, its stages, the reference decoders and the curves."""
    env = open_env(model, head)
    sampler = env.worlds.sampler
    facts = {"decode_steps": sampler.num_decode_steps, "revisions": sampler.num_revisions}
    report = Report(title="speed", targets=TARGETS, facts=facts)
    # Peaks only grow, so before the machine and other models are measured.
    stage_ms = add_env(report, env, model, num_steps=config.num_steps)
    add_vector_env(report, model, head, env.scene, num_envs=VECTOR_CARS, num_steps=config.num_steps)
    add_stages(report, model, env.scene.camera, stage_ms)
    sizes = sorted({1, VECTOR_CARS, *config.batch_sizes})
    measured = curves(model, env.scene, batch_sizes=sizes, num_rounds=config.num_rounds)
    add_batch(report, measured["batch"])
    num_rounds = 2 * config.num_rounds
    cars = time_batches(model, head, env.scene, batch_sizes=(1, VECTOR_CARS), num_rounds=num_rounds)
    add_batches(report, cars)
    add_saving(report, model, head, env.scene)
    add_decoders(report, model, env.scene, config)
    add_curves(report, measured)
    if config.num_long_steps:
        add_long_run(report, model, env.scene, num_steps=config.num_long_steps)
    if config.is_compiled:
        add_compiled(report, model, env.scene.camera, num_rounds=config.num_rounds)
    report.add("peak_memory_mb_whole_run", peak_memory_mb(), note="models of other sizes and decoders, too")
    env.close()
    return report


def measure_long(model: WorldModel, config: SpeedConfig) -> Report:
    """Time one long episode and nothing else."""
    env = open_env(model)
    report = Report(title="speed", targets=TARGETS)
    add_long_run(report, model, env.scene, num_steps=config.num_long_steps)
    report.add("peak_memory_mb", peak_memory_mb(), note="whole process")
    return report


def measure_cars(model: WorldModel, config: SpeedConfig, head: HazardHead | None) -> Report:
    """Time environments of several cars against one, and nothing else."""
    env = open_env(model, head)
    report = Report(title="speed", targets=TARGETS)
    sizes = (1, *sorted(set(config.cars)))
    timings = time_batches(model, head, env.scene, batch_sizes=sizes, num_rounds=2 * config.num_rounds)
    report.add("env_steps_per_s_batch1", 1 / timings[1].median_s, note="one gym.make, in turns")
    add_batches(report, timings)
    if config.is_compiled:
        for cars in sizes:
            add_compiled(report, model, env.scene.camera, num_rounds=config.num_rounds, batch_size=cars)
    report.add("peak_memory_mb", peak_memory_mb(), note="whole process")
    env.close()
    return report


def open_env(model: WorldModel, head: HazardHead | None = None) -> WorldDreamerDriveEnv:
    """Return the env of the first embedded scene.

    Raises:
        InputError: the model is not one that an env can drive.
    """
    if not model.config.stpt.is_frame_causal:
        raise InputError(
            "these weights attend to frames on both sides and cannot drive an env; name frame-causal ones, "
            "such as drive-tiny"
        )
    return WorldDreamerDriveEnv(world_model=model, hazard_head=head)


def add_batch(report: Report, by_batch: Mapping[str, Timing]) -> None:
    """Add the frames per second of the model alone by the number of cars."""
    for key, timing in by_batch.items():
        report.add("batch_frames_per_s", int(key) / timing.median_s, key=key, note="the model alone")


def add_decoders(report: Report, model: WorldModel, scene: Scene, config: SpeedConfig) -> None:
    """Add the model beside the reference decoders, for one car and, if asked for, for eight."""
    decoders = reference_decoders(model)
    for name, (budget, total) in parameters(model, decoders).items():
        report.add("decoder_parameters", budget, key=name, note="of the layers: the budget")
        report.add("decoder_parameters_total", total, key=name, note="with embeddings, heads, motion field")
    facts = {}
    for batch_size in (1, VECTOR_CARS) if config.is_batch_compared else (1,):
        num_rounds = config.num_rounds if batch_size == 1 else min(config.num_rounds, MAX_VECTOR_ROUNDS)
        comparison = compare(model, scene.camera, decoders, batch_size=batch_size, num_rounds=num_rounds)
        add_comparison(report, comparison)
        facts[f"batch {batch_size}"] = comparison.precisions
    report.facts["decoder_precision"] = facts


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print, write."""
    options = parse(arguments)
    check_out(options.out)
    config = config_from(options)
    if config.is_compiled:
        require_compiler(torch.device(usable_device(options.device)).type)
    torch.set_num_threads(options.threads)
    model = load_world_model(options.weights, device=options.device, dtype=DTYPES.get(options.dtype))
    hashes = weights_facts(weights=options.weights, hazard_head="" if options.long else head_name(options))
    started_s = time.perf_counter()
    head = head_of(options)
    if config.cars:
        report = measure_cars(model, config, head)
    else:
        report = measure_long(model, config) if options.long else measure(model, config, head)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    report.facts = {
        "weights": options.weights,
        **hashes,
        "dtype": dtype,
        "device": options.device,
        **report.facts,
        **run_facts(options, num_threads=options.threads),
        "took_s": round(time.perf_counter() - started_s),
    }
    show(report)
    report.write(options.out)


def head_of(options: argparse.Namespace) -> HazardHead | None:
    """Return the hazard head that an environment takes with these weights."""
    name = head_name(options)
    return shared_hazard_head(name, options.device) if name else None


def head_name(options: argparse.Namespace) -> str:
    """Return the name of that head; "" is none."""
    return hazard_head_name(EpisodeConfig(weights=options.weights))


def config_from(options: argparse.Namespace) -> SpeedConfig:
    """Return what to measure: what the options name, else the default of the mode.

    Raises:
        InputError: nothing would be measured, or options that exclude each other.
    """
    if options.threads < 1:
        raise InputError(f"--threads must be at least 1, got {options.threads}")
    if options.long and (options.quick or options.compile):
        raise InputError("--long measures the long run alone; leave --quick and --compile out")
    if options.cars and (options.quick or options.long):
        raise InputError("--cars measures environments of so many cars alone; leave --quick and --long out")
    if options.device != "cpu" and not options.cars:
        raise InputError(
            f"--device {options.device} is for --cars; stages, decoders and roofs are those of a processor"
        )
    named = {
        "num_steps": options.steps,
        "num_rounds": options.rounds,
        "batch_sizes": options.batch,
        "num_long_steps": options.long_steps,
    }
    defaults = QUICK if options.quick else {"num_long_steps": LONG_STEPS} if options.long else {}
    chosen = {name: value for name, value in named.items() if value is not None}
    config = SpeedConfig(**{**defaults, "is_compiled": options.compile, "cars": options.cars or [], **chosen})
    if options.long and not config.num_long_steps:
        raise InputError("--long needs --long-steps of at least 1")
    return config


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--weights", default="drive-tiny", help="shipped name or .safetensors file")
    parser.add_argument("--quick", action="store_true", help="fewer samples, no long run: under 2 minutes")
    parser.add_argument("--long", action="store_true", help=f"only the long run, of {LONG_STEPS} steps")
    parser.add_argument("--compile", action="store_true", help="torch.compile of the frame pass, too")
    parser.add_argument("--cars", type=int, nargs="+", help="only environments of so many cars against one")
    parser.add_argument("--device", default="cpu", help="of the models, with --cars (cpu)")
    parser.add_argument("--steps", type=int, help="env steps to time")
    parser.add_argument("--rounds", type=int, help="samples of everything that is timed in turns")
    parser.add_argument("--batch", type=int, nargs="+", help="batch sizes of the curve over the batch")
    parser.add_argument("--long-steps", type=int, help="steps of the long run; 0 leaves it out")
    parser.add_argument(
        "--dtype",
        choices=sorted(DTYPES),
        help="of the weights; by default what the env takes on this machine",
    )
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    parser.add_argument("--out", type=Path, required=True, help="json file")
    return parsed(parser, arguments)


if __name__ == "__main__":
    run_command(main)
