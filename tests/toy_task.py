"""A small regression task for the tests of the training loop; as a script it trains, to be killed or doubled.

python tests/toy_task.py OUT [--resume] [name=value of a TrainingConfig field ...]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from drivesim.training.checkpoints import load_checkpoint
from drivesim.training.loop import Evaluation, FitResult, OptimizerKind, TrainingConfig, fit
from drivesim.training.row_draws import RowDraws, rows_of

TIMING_KEYS = ("frames_per_s", "elapsed_s", "model_tflop_per_s", "flop_utilisation")


class ToyModel(nn.Module):
    """What needs care in one network: an embedding, a head, dropout, a buffer that the forward moves."""

    seen: Tensor

    def __init__(self, *, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 16)
        self.body = nn.Sequential(
            nn.Linear(16, 32), nn.LayerNorm(32), nn.Dropout(dropout), nn.GELU(), nn.Linear(32, 32)
        )
        self.head = nn.Linear(32, 16)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        if self.training:
            self.seen += len(x)
        return self.head(self.body(x + self.embedding(index)))


class ToyTask:
    """Learn to reverse a vector."""

    name = "toy"

    def __init__(self, *, dropout: float = 0.1, crash_at_batch: int | None = None, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model: nn.Module = ToyModel(dropout=dropout)
        self.crash_at_batch = crash_at_batch
        self.num_evaluations = 0

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[Tensor]:
        step = start_step
        while True:
            if step == self.crash_at_batch:
                raise RuntimeError("crash")
            draws = RowDraws(seed, rows_of(step, batch_size, rank=rank, world_size=world_size))
            yield draws.normal((batch_size, 16))
            step += 1

    def losses(self, model: nn.Module, batch: Tensor, draws: RowDraws) -> dict[str, Tensor]:
        noise = 0.01 * draws.normal(batch.shape)
        index = (batch[:, 0] > 0).long()
        output = model(batch + noise, index)
        loss = (output - batch.flip(1)).square().mean()
        return {"loss": loss, "size": output.abs().mean()}

    def evaluate(self, model: nn.Module) -> Evaluation:
        self.num_evaluations += 1
        assert not model.training
        assert not torch.is_grad_enabled()
        x = torch.linspace(-1, 1, 64).reshape(4, 16)
        error = (model(x, torch.zeros(4, dtype=torch.int64)) - x.flip(1)).square().mean().item()
        return Evaluation(metrics={"error": error}, picture=np.zeros((8, 8, 3), np.uint8))

    def num_frames(self, batch: Tensor) -> int:
        return len(batch)


def toy_config(**changes: object) -> TrainingConfig:
    """Return settings for a run of a second."""
    settings: dict[str, object] = {
        "num_train_steps": 24,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "warmup_steps": 4,
        "ema_decay": 0.9,
        "accelerator": "cpu",
        "precision": "32-true",
        "num_threads": 1,
        "log_every": 5,
        "evaluate_every": 10,
        "checkpoint_every_s": 0.0,
    }
    return TrainingConfig(**(settings | changes))  # type: ignore[arg-type]


def read_log(out: Path) -> list[dict[str, float]]:
    """Return the lines of a run's log without what depends on the clock and the process."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key not in TIMING_KEYS}
        for line in lines
        if line["kind"] != "start"
    ]


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Tell whether tensors of the same names are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def assert_same_run(first: Path, second: Path) -> None:
    """Compare logs, weights and optimizers of two folders."""
    assert read_log(first) == read_log(second)
    assert equal(load_file(first / "ema.safetensors"), load_file(second / "ema.safetensors"))
    ends = load_checkpoint(first / "last.ckpt"), load_checkpoint(second / "last.ckpt")
    assert equal(ends[0].model, ends[1].model)
    assert equal(*(_moments(end.optimizers) for end in ends))


def _moments(optimizers: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {
        f"{i} {number} {name}": torch.as_tensor(value)
        for i, optimizer in enumerate(optimizers)
        for number, moments in optimizer["state"].items()
        for name, value in moments.items()
    }


def start(out: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start this file as a process."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(out), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def wait_for_step(out: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Return once a run that is a process of its own has logged a step."""
    deadline_s = time.monotonic() + 300
    while time.monotonic() < deadline_s and process.poll() is None:
        log = out / "log.jsonl"
        if log.exists() and any(f'"step": {step},' in line for line in log.read_text().splitlines()):
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not logged in time, exit code {process.poll()}")


def main(arguments: list[str]) -> FitResult:
    """Train as the command line says."""
    changes: dict[str, object] = {}
    dropout = 0.1
    for argument in arguments[1:]:
        name, _, value = argument.partition("=")
        if name == "dropout":
            dropout = float(value)
        elif name == "optimizer":
            changes[name] = OptimizerKind(value)
        elif value:
            changes[name] = value if name == "strategy" else json.loads(value)
    task = ToyTask(dropout=dropout)
    return fit(task, toy_config(**changes), Path(arguments[0]), resume="--resume" in arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
