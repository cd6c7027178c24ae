"""Speed of the learned world: `python -m benchmarks.speed --out F.json`.

Env steps per second (one car, picture decoded), the milliseconds of its stages, imagined frames per second in
batches, and the peak of the process's memory.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import Report, machine_facts, run_command
from drivesim.errors import InputError
from drivesim.scene.types import Scene
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.world_model import WorldModel
from envs.world_dreamer_drive import WorldDreamerDriveEnv

WARM_UP_STEPS = 5
REST_NOTE = "per env step; the rest is sampling, motion guide, ego, metrics and reward"
ACTION = np.array([0.02, 8.0], dtype=np.float32)


class StageClock:
    """Adds up the seconds that env steps spend in chosen methods of a model's parts while it is active."""

    def __init__(self, model: WorldModel) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._is_counting = False
        self._methods: list[tuple[Any, str, str]] = [
            (model.stpt, "frame", "transformer"),
            (model.stpt.head, "forward", "logits"),
            (model.tokenizer, "decode", "picture"),
        ]

    def __enter__(self) -> StageClock:
        for part, method, stage in self._methods:
            setattr(part, method, self._timed(getattr(part, method), stage))
        return self

    def __exit__(self, *_: object) -> None:
        for part, method, _stage in self._methods:
            delattr(part, method)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what happens inside the block; outside of such blocks nothing is counted."""
        self._is_counting = True
        try:
            yield
        finally:
            self._is_counting = False

    def _timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started_s = time.perf_counter()
            result = function(*args, **kwargs)
            if self._is_counting:
                self.seconds[stage] += time.perf_counter() - started_s
            return result

        return timed


def time_env(env: WorldDreamerDriveEnv, num_steps: int, *, clock: StageClock | None = None) -> float:
    """Return the seconds of ``num_steps`` env steps; neither warm-up nor resets are counted, by ``clock`` too."""
    env.reset(seed=0)
    total_s = 0.0
    for index in range(-WARM_UP_STEPS, num_steps):
        is_counted = index >= 0
        with clock.counting() if clock is not None and is_counted else nullcontext():
            started_s = time.perf_counter()
            _, _, terminated, truncated, _ = env.step(ACTION)
            total_s += is_counted * (time.perf_counter() - started_s)
        if terminated or truncated:
            env.reset(seed=0)
    return total_s


@torch.inference_mode()
def time_batch(model: WorldModel, scene: Scene, *, batch_size: int, num_steps: int) -> float:
    """Return imagined frames per second for ``batch_size`` cars at once."""
    count = model.num_context_frames
    frames = torch.from_numpy(np.stack([scene.frames[index] for index in range(count)]))
    frames_BTHWC = frames.expand(batch_size, *frames.shape)
    twist_BTA = torch.tensor([8.0, 0.05]).expand(batch_size, count, 2)
    state = model.observe(frames_BTHWC, twist_BTA, scene.camera)
    started_s = 0.0
    for index in range(-1, num_steps):
        if index == 0:
            started_s = time.perf_counter()
        state = model.imagine(state, twist_BTA[:, 0]).state
    return batch_size * num_steps / (time.perf_counter() - started_s)


def peak_memory_mb() -> float:
    """Return the largest resident size of this process so far, in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def measure(model: WorldModel, *, num_steps: int, batch_sizes: Sequence[int]) -> Report:
    """Time the env, its stages and the batched model."""
    if num_steps < 1 or min(batch_sizes, default=1) < 1:
        raise InputError(f"--steps and --batch must be at least 1, got {num_steps} and {list(batch_sizes)}")
    env = WorldDreamerDriveEnv(world_model=model)
    report = Report(title="speed")
    seconds = time_env(env, num_steps)
    report.add("env_steps_per_s", num_steps / seconds, note="one car, picture decoded")
    report.add("env_step_ms", 1e3 * seconds / num_steps)
    with StageClock(model) as clock:
        staged_s = time_env(env, num_steps, clock=clock)
    rest_s = staged_s - sum(clock.seconds.values())
    for stage, stage_s in {**clock.seconds, "rest": rest_s}.items():
        report.add("stage_ms", 1e3 * stage_s / num_steps, key=stage, note=REST_NOTE)
    for batch_size in batch_sizes:
        rate = time_batch(model, env.scene, batch_size=batch_size, num_steps=max(4, num_steps // 8))
        report.add("imagined_frames_per_s", rate, key=f"batch {batch_size}")
    report.facts["decode_steps"] = env.sampler.num_decode_steps
    env.close()
    report.add("peak_memory_mb", peak_memory_mb(), note="whole process")
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print, write."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    model = load_world_model(options.weights)
    report = measure(model, num_steps=options.steps, batch_sizes=options.batch)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    report.facts = {
        "weights": options.weights,
        "dtype": dtype,
        **report.facts,
        **machine_facts(num_threads=options.threads),
    }
    report.show()
    report.write(options.out)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--weights", default="drive-tiny", help="shipped name or .safetensors file")
    parser.add_argument("--steps", type=int, default=80, help="env steps to time")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8], help="batch sizes of the model alone")
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    parser.add_argument("--out", type=Path, required=True, help="json file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
