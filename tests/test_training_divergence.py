"""A run whose loss or gradient is no longer finite stops and leaves what is needed to look into it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_task import ToyTask, read_log, toy_config

from drivesim.errors import InputError
from drivesim.training.checkpoints import load_checkpoint
from drivesim.training.divergence import BatchRecord, DivergenceGuard, StepRecord
from drivesim.training.loop import fit
from drivesim.training.row_draws import RowDraws


class Diverging(ToyTask):
    """The loss (or the gradient alone) of one batch is not finite."""

    def __init__(self, at_batch: int, *, factor: float = float("nan"), is_gradient: bool = False) -> None:
        super().__init__()
        self.factor, self.is_gradient = factor, is_gradient
        self.bad = next(self.batches(start_step=at_batch, batch_size=4, seed=0, rank=0, world_size=1))

    def losses(self, model, batch, draws) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
        terms = ToyTask.losses(self, model, batch, draws)
        if torch.equal(batch, self.bad):
            if self.is_gradient:
                terms["loss"] = terms["loss"] + (0.0 * model.head.bias.sum()).sqrt()
            else:
                terms["loss"] = terms["loss"] * self.factor
        return terms


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_with_a_report_and_leaves_the_checkpoint(
    tmp_path: Path, factor: float
) -> None:
    config = toy_config(grad_accumulation=2, log_every=1000, evaluate_every=0)
    with pytest.raises(
        InputError, match=r"the loss is (nan|inf) for toy at step 8, batch seed \d+; .*json"
    ) as caught:
        fit(Diverging(15, factor=factor), config, tmp_path)
    assert "lower training.learning_rate, then go on from the last checkpoint with --resume" in str(
        caught.value
    )
    report = json.loads((tmp_path / "diverged-step-00000008.json").read_text())
    assert (report["step"], report["saved_batches"]) == (8, [15])
    assert [batch["number"] for batch in report["batches"]] == [14, 15]
    assert f"batch seed {report['batches'][1]['seed']};" in str(caught.value)
    assert np.isfinite(report["batches"][0]["losses"]["loss"])
    assert not np.isfinite(report["batches"][1]["losses"]["loss"])
    assert report["learning_rate"] > 0
    assert not np.isfinite(report["grad_norm"])

    saved = load_checkpoint(tmp_path / "last.ckpt")
    assert saved.step == 7
    assert all(torch.isfinite(tensor).all() for tensor in saved.model.values())
    batch = next(ToyTask().batches(start_step=15, batch_size=4, seed=0, rank=0, world_size=1))
    assert torch.equal(load_file(tmp_path / report["tensors"])["15/batch"], batch)
    assert fit(ToyTask(), config, tmp_path, resume=True).step == 24


def test_seed_and_batch_of_a_report_give_the_loss_again(tmp_path: Path) -> None:
    losses: list[float] = []

    class Recording(Diverging):
        def losses(self, *arguments) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
            losses.append(ToyTask.losses(self, *arguments)["loss"].item())
            return {"loss": losses[-1] * arguments[0].head.bias.sum() * float("nan")}

    with pytest.raises(InputError):
        fit(Recording(0), toy_config(), tmp_path)
    report = json.loads((tmp_path / "diverged-step-00000001.json").read_text())
    seed, first_row = (report["batches"][0][name] for name in ("seed", "first_row"))
    task = ToyTask()
    torch.manual_seed(seed)
    batch = load_file(tmp_path / report["tensors"])["0/batch"]
    again = task.losses(task.model, batch, RowDraws(0, range(first_row, first_row + 4), purpose="losses"))[
        "loss"
    ]
    assert again.item() == losses[-1]


def test_gradient_alone_stops_the_run_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the gradient is not finite for toy at step 4"):
        fit(Diverging(3, is_gradient=True), toy_config(log_every=1), tmp_path)
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3]
    report = json.loads((tmp_path / "diverged-step-00000004.json").read_text())
    assert np.isfinite(report["batches"][0]["losses"]["loss"])
    assert report["saved_batches"] == [3]


def step_record(step: int, loss: float) -> StepRecord:
    batch = BatchRecord(
        number=step, seed=5, first_row=0, batch=torch.ones(2), losses={"loss": torch.tensor(loss)}
    )
    return StepRecord(step=step, learning_rate=0.1, batches=[batch], grad_norm=torch.tensor(1.0))


def test_delayed_guard_looks_one_step_later_and_before_anything_is_saved(tmp_path: Path) -> None:
    guard = DivergenceGuard(tmp_path, "toy", rank=0, is_delayed=True)
    guard.watch(step_record(1, 1.0))
    guard.watch(step_record(2, float("nan")))
    with pytest.raises(InputError, match="at step 2"):
        guard.watch(step_record(3, 1.0))
    guard = DivergenceGuard(tmp_path, "toy", rank=0, is_delayed=True)
    guard.watch(step_record(4, float("inf")))
    with pytest.raises(InputError, match="loss is inf for toy at step 4"):
        guard.check()
    guard.check()


def test_other_processes_report_their_own_losses_only(tmp_path: Path) -> None:
    guard = DivergenceGuard(tmp_path, "toy", rank=2, is_delayed=False)
    record = step_record(1, 1.0)
    record.grad_norm = torch.tensor(float("nan"))
    with pytest.raises(InputError, match="gradient is not finite"):
        guard.watch(record)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="loss is nan"):
        guard.watch(step_record(1, float("nan")))
    assert (tmp_path / "diverged-step-00000001-process-2.json").exists()


def test_batches_of_every_make_are_saved(tmp_path: Path) -> None:
    @dataclass
    class Pair:
        first: Tensor
        second: np.ndarray

    record = step_record(1, float("nan"))
    record.batches[0].batch = {
        "pair": Pair(torch.zeros(2), np.arange(3)),
        "more": [torch.ones(1)],
        "name": "x",
    }
    with pytest.raises(InputError):
        DivergenceGuard(tmp_path, "toy", rank=0, is_delayed=False).watch(record)
    tensors = load_file(tmp_path / "diverged-step-00000001.safetensors")
    assert set(tensors) == {"1/batch.pair.first", "1/batch.pair.second", "1/batch.more.0"}
    assert torch.equal(tensors["1/batch.pair.second"], torch.arange(3))


def test_report_that_cannot_be_written_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    guard = DivergenceGuard(tmp_path / "out", "toy", rank=0, is_delayed=False)
    with pytest.raises(InputError, match=r"loss is nan for toy at step 1.*a report could not be written"):
        guard.watch(step_record(1, float("nan")))
