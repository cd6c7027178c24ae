"""What a run shows and leaves to read: progress, log.jsonl, TensorBoard curves and sample pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.console import progress_bar, warn
from drivesim.files import atomic_path
from drivesim.training.task import Evaluation
from drivesim.training.throughput import RunFacts, Throughput
from drivesim.video import write_image

LOG_NAME = "log.jsonl"


class Reports:
    """The visible side of a run; use as a context manager.

    Args:
        out: The run's folder.
        name: What is trained.
        facts: What runs where.
        step: Train steps done before; what a killed run wrote beyond them is dropped, as it comes again.
        total: Train steps of the whole run, at most.
        share_done: How far along the run is, by steps or by time.
    """

    def __init__(
        self, out: Path, name: str, facts: RunFacts, *, step: int, total: int, share_done: float
    ) -> None:
        self.speed = Throughput(peak_tflop_per_s=facts.peak_tflop_per_s)
        self._out, self._total = out, total
        self._stack = ExitStack()
        _drop_lines_after(out / LOG_NAME, step)
        self._file = self._stack.enter_context((out / LOG_NAME).open("a", encoding="utf-8", buffering=1))
        self._writer = _summary_writer(out / "tensorboard", step)
        if self._writer is not None:
            self._stack.callback(self._writer.close)
        done = round(total * share_done)
        self._bar = self._stack.enter_context(progress_bar(f"train {name}", total, done=done))
        self._start(step, facts)

    def __enter__(self) -> Reports:
        """Start to measure the speed."""
        self.speed.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files and the bar."""
        self._stack.close()

    def train(self, step: int, means: Mapping[str, float], *, elapsed_s: float, share_done: float) -> None:
        """Report the means and the speed since the last call; ``share_done`` of the run is behind us."""
        speed = self.speed.read()
        self._write(step, {**means, **speed, "elapsed_s": round(elapsed_s, 1)}, kind="train")
        note = (
            f"step {step}, loss {means['loss']:.4f}, {speed['frames_per_s']:.0f} frames/s, "
            f"{speed['model_tflop_per_s']:.3g} TFLOP/s ({speed['flop_utilisation']:.0%} of peak)"
        )
        self._bar.update(round(share_done * self._total), note)

    def evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Report held-out figures and keep the picture as pictures/<step>.png and in TensorBoard."""
        self._write(step, evaluation.metrics, kind="evaluation")
        figures = ", ".join(f"{name} {value:.4g}" for name, value in evaluation.metrics.items())
        self._bar.say(f"step {step}: {figures or 'evaluated'}")
        if evaluation.picture is not None:
            self._show(step, evaluation.picture)

    def _start(self, step: int, facts: RunFacts) -> None:
        self._file.write(json.dumps({"step": step, "kind": "start", **asdict(facts)}) + "\n")
        where = f"{facts.num_processes} x {facts.device}" if facts.num_processes > 1 else facts.device
        self._bar.say(
            f"from step {step}: {facts.num_parameters:,} parameters, {facts.precision} on {where}, "
            f"peak {facts.peak_tflop_per_s:.3g} TFLOP/s"
        )

    def _write(self, step: int, scalars: Mapping[str, float], *, kind: str) -> None:
        self._file.write(json.dumps({"step": step, "kind": kind, **scalars}) + "\n")
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def _show(self, step: int, picture: NDArray[np.uint8]) -> None:
        write_image(self._out / "pictures" / f"{step:08d}.png", picture)
        if self._writer is not None:
            self._writer.add_image("sample", picture, step, dataformats="HWC")


def _summary_writer(folder: Path, start_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warn(f"tensorboard is not installed, so there are no curves; {LOG_NAME} holds the same figures")
        return None
    return SummaryWriter(str(folder), purge_step=start_step, flush_secs=20)


def _drop_lines_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return float("inf")  # the kill cut this line
