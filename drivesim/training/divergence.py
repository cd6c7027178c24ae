"""A loss or a gradient that is no longer finite: the run stops there and leaves what is needed to look into it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from drivesim.errors import InputError
from drivesim.files import atomic_path


@dataclass(kw_only=True, slots=True)
class BatchRecord:
    """A batch that a step was made of."""

    number: int  # of this process, from the start of the run
    seed: int  # of torch's generators while it was computed
    first_row: int  # its number in the run, which with the run's seed gives the draws of the rows
    batch: Any
    losses: dict[str, Tensor]


@dataclass(kw_only=True, slots=True)
class StepRecord:
    """A step whose figures may still be on their way from the device."""

    step: int
    learning_rate: float
    batches: list[BatchRecord] = field(default_factory=list)
    grad_norm: Tensor | None = None  # of all batches and processes, before clipping

    def bad_batches(self) -> list[BatchRecord]:
        """Return the batches with a loss that is not finite; all of them if only the gradient is not."""
        bad = [record for record in self.batches if not _is_finite(record.losses["loss"])]
        return bad or self.batches

    def is_finite(self) -> bool:
        """Tell whether the weights can take this step; one look at the device."""
        figures = [record.losses["loss"].detach().float() for record in self.batches]
        if self.grad_norm is not None:
            figures.append(self.grad_norm.detach().float())
        return _is_finite(torch.stack(figures))


class DivergenceGuard:
    """Looks at every step, on a CPU before the weights move, on an accelerator one step later.

    An accelerator computes behind our back, and to wait for the present step would cost time. No checkpoint is
    written before `check`.

    Args:
        out: The run's folder.
        name: What is trained.
        rank: Of this process; in the others the gradient diverges with it, and the first one reports.
        is_delayed: Look one step later.
    """

    def __init__(self, out: Path, name: str, *, rank: int, is_delayed: bool) -> None:
        self._out, self._name, self._rank, self._is_delayed = out, name, rank, is_delayed
        self._held: StepRecord | None = None

    def watch(self, record: StepRecord) -> None:
        """Take in a step that is about to move the weights.

        Raises:
            InputError: it, or the one before, is not finite.
        """
        if self._is_delayed:
            self.check()
        self._held = record
        if not self._is_delayed:
            self.check()

    def check(self) -> None:
        """Look at the step that was not yet looked at.

        Raises:
            InputError: it is not finite.
        """
        record, self._held = self._held, None
        if record is not None and not record.is_finite():
            self._stop(record)

    def _stop(self, record: StepRecord) -> None:
        bad = record.bad_batches()
        losses = [float(batch.losses["loss"]) for batch in bad]
        value = next(
            (f"loss is {loss}" for loss in losses if not math.isfinite(loss)), "gradient is not finite"
        )
        where = ""
        if self._rank == 0 or value.startswith("loss"):
            where = f"; {self._report(record, bad)}"
        raise InputError(
            f"the {value} for {self._name} at step {record.step}, batch seed {bad[0].seed}{where}; "
            "lower training.learning_rate, then go on from the last checkpoint with --resume"
        )

    def _report(self, record: StepRecord, bad: Sequence[BatchRecord]) -> str:
        try:
            return f"{self._write(record, bad)} has the batch and the figures"
        except OSError as error:  # a full disk must not hide what happened
            return f"a report could not be written ({error})"

    def _write(self, record: StepRecord, bad: Sequence[BatchRecord]) -> Path:
        stem = f"diverged-step-{record.step:08d}" + (f"-process-{self._rank}" if self._rank else "")
        tensors = self._out / f"{stem}.safetensors"
        with atomic_path(tensors) as temporary:
            temporary.write_bytes(save({f"{b.number}/{k}": v for b in bad for k, v in _tensors(b.batch)}))
        report = {
            "task": self._name,
            "step": record.step,
            "process": self._rank,
            "learning_rate": record.learning_rate,
            "grad_norm": None if record.grad_norm is None else float(record.grad_norm),
            "batches": [
                {
                    "number": b.number,
                    "seed": b.seed,
                    "first_row": b.first_row,
                    "losses": {k: float(v) for k, v in b.losses.items()},
                }
                for b in record.batches
            ],
            "saved_batches": [b.number for b in bad],
            "tensors": tensors.name,
        }
        path = self._out / f"{stem}.json"
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        return path


def _is_finite(figures: Tensor) -> bool:
    return bool(torch.isfinite(figures).all())


def _tensors(batch: Any, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor and array of a batch, named by its place in it."""
    if isinstance(batch, np.ndarray):
        batch = torch.from_numpy(np.ascontiguousarray(batch))
    if isinstance(batch, Tensor):
        yield name, batch.detach().cpu().contiguous().clone()
        return
    for key, part in _parts(batch):
        yield from _tensors(part, f"{name}.{key}")


def _parts(batch: Any) -> list[tuple[str, Any]]:
    if isinstance(batch, Mapping):
        return [(str(key), part) for key, part in batch.items()]
    if is_dataclass(batch):
        return [(part.name, getattr(batch, part.name)) for part in fields(batch)]
    if isinstance(batch, list | tuple):
        return [(str(index), part) for index, part in enumerate(batch)]
    return []
