"""The transformer's frame pass through `torch.compile`, against the same pass as it is."""

from __future__ import annotations

import copy
import os
import shutil
import time
from typing import Any

import torch

from benchmarks.imagined_step import imagined_step
from benchmarks.report import Report
from benchmarks.timing import add_timings, take_turns
from drivesim.errors import InputError
from drivesim.scene.types import Camera
from drivesim.world_model.world_model import WorldModel

FRAME_PASSES = ("hidden_frame", "frame")
COMPILERS = ("g++", "clang++", "c++", "cl")


def require_compiler() -> None:
    """Refuse to go on without a C++ compiler, which `torch.compile` calls for code on a processor.

    Raises:
        InputError: there is none.
    """
    named = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ((named,) if named else COMPILERS)):
        wanted = f"CXX names {named!r}, which is not there" if named else "there is none"
        raise InputError(
            f"--compile needs a C++ compiler such as g++ and {wanted}; install one or leave --compile out"
        )


def compiled(model: WorldModel) -> WorldModel:
    """Return a copy of the model whose frame passes are compiled at their first use, weights frozen in."""
    model = copy.deepcopy(model)
    stpt: Any = model.stpt
    for name in FRAME_PASSES:
        if hasattr(stpt, name):
            frozen = torch.compile(getattr(stpt, name), dynamic=False, options={"freezing": True})
            setattr(stpt, name, frozen)
    return model


def add_compiled(report: Report, model: WorldModel, camera: Camera, *, num_rounds: int) -> None:
    """Add the milliseconds of the model's step with and without compilation, taken in turns."""
    model_compiled = compiled(model)
    steps = {"eager": imagined_step(model, camera, batch_size=1)}
    started_s = time.perf_counter()
    try:
        steps["compiled"] = imagined_step(model_compiled, camera, batch_size=1)
        steps["compiled"]()
    except RuntimeError as error:  # what torch.compile raises derives from it
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"torch.compile failed here ({reason}); leave --compile out") from error
    compile_s = time.perf_counter() - started_s
    timings = take_turns("compiled", steps, num_rounds=num_rounds, num_warm_up=2)
    add_timings(report, "compile_step_ms", timings, note="the model's part of a step, one car")
    report.add("compile_s", compile_s, note="reading the history and the first step")
    report.add("compile_speedup", timings["eager"].median_s / timings["compiled"].median_s)
