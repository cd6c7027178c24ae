"""The transformer's frame pass through `torch.compile`, against the same pass as it is."""

from __future__ import annotations

import time

from benchmarks.imagined_step import imagined_step
from benchmarks.report import Report
from benchmarks.timing import add_timings, take_turns
from drivesim.scene.types import Camera
from drivesim.world_model.compiled import compiled
from drivesim.world_model.world_model import WorldModel


def add_compiled(report: Report, model: WorldModel, camera: Camera, *, num_rounds: int) -> None:
    """Add the milliseconds of the model's step with and without compilation, taken in turns."""
    model_compiled = compiled(model)
    steps = {"eager": imagined_step(model, camera, batch_size=1)}
    started_s = time.perf_counter()
    steps["compiled"] = imagined_step(model_compiled, camera, batch_size=1)
    steps["compiled"]()
    compile_s = time.perf_counter() - started_s
    timings = take_turns("compiled", steps, num_rounds=num_rounds, num_warm_up=2)
    add_timings(report, "compile_step_ms", timings, note="the model's part of a step, one car")
    report.add("compile_s", compile_s, note="reading the history and the first step")
    report.add("compile_speedup", timings["eager"].median_s / timings["compiled"].median_s)
