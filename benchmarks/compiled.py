"""The transformer's frame pass through `torch.compile`, against the same pass as it is."""

from __future__ import annotations

import time

from benchmarks.imagined_step import imagined_step
from benchmarks.report import Report
from benchmarks.timing import add_timings, take_turns
from drivesim.scene.types import Camera
from drivesim.world_model.compiled import compiled
from drivesim.world_model.world_model import WorldModel


def add_compiled(
    report: Report, model: WorldModel, camera: Camera, *, num_rounds: int, batch_size: int = 1
) -> None:
    """Add the milliseconds of the model's step for so many cars with and without compilation, taken in turns."""
    suffix = "" if batch_size == 1 else f"_batch{batch_size}"
    model_compiled = compiled(model)
    steps = {"eager": imagined_step(model, camera, batch_size=batch_size)}
    started_s = time.perf_counter()
    steps["compiled"] = imagined_step(model_compiled, camera, batch_size=batch_size)
    steps["compiled"]()
    compile_s = time.perf_counter() - started_s
    timings = take_turns("compiled", steps, num_rounds=num_rounds, num_warm_up=2)
    add_timings(report, f"compile_step_ms{suffix}", timings, note="the model's part of a step of all cars")
    report.add(f"compile_s{suffix}", compile_s, note="reading the history and the first step")
    report.add(f"compile_speedup{suffix}", timings["eager"].median_s / timings["compiled"].median_s)
