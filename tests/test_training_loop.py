"""Training runs learn, are decided by their seed, and refuse what cannot work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from toy_task import ToyTask, assert_same_run, equal, read_log, start, toy_config

from drivesim.errors import InputError
from drivesim.training.loop import fit


def test_run_learns_and_leaves_its_files(tmp_path: Path) -> None:
    task = ToyTask(dropout=0.0)
    result = fit(task, toy_config(num_train_steps=150, evaluate_every=50, log_every=50), tmp_path)
    losses = [line["loss"] for line in read_log(tmp_path) if line["kind"] == "train"]
    assert losses[-1] < 0.5 * losses[0]
    assert result.step == 150
    assert task.num_evaluations == 3
    assert [line["step"] for line in read_log(tmp_path) if line["kind"] == "evaluation"] == [50, 100, 150]
    with Image.open(tmp_path / "pictures/00000050.png") as picture:
        assert picture.size == (8, 8)
    assert list((tmp_path / "tensorboard").iterdir())
    assert json.loads((tmp_path / "training.json").read_text())["optimizer"] == "adamw"
    assert equal(task.model.state_dict(), load_file(result.weights))
    assert not list(tmp_path.glob(".*"))


def test_log_says_what_runs_and_how_fast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(ToyTask(), toy_config(num_train_steps=10), tmp_path)
    start, line = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()[:2]]
    assert (start["kind"], start["precision"], start["num_processes"]) == ("start", "32-true", 1)
    assert start["num_parameters"] == sum(p.numel() for p in ToyTask().model.parameters())
    assert start["peak_tflop_per_s"] > 0
    assert line["frames_per_s"] > 0
    assert line["elapsed_s"] >= 0
    assert line["grad_norm"] > 0
    assert line["flop_utilisation"] == pytest.approx(
        line["model_tflop_per_s"] / start["peak_tflop_per_s"], rel=0.01
    )
    # Three linear layers; the first one's input needs no gradient, but the embedding's does.
    assert line["model_tflop_per_s"] / line["frames_per_s"] == pytest.approx(
        3 * 2 * (16 * 32 + 32 * 32 + 32 * 16) / 1e12, rel=0.01
    )
    assert f"{start['num_parameters']:,} parameters, 32-true on cpu, 1 threads" in capsys.readouterr().out


def test_seed_decides_everything(tmp_path: Path) -> None:
    torch.manual_seed(1)
    fit(ToyTask(), toy_config(), tmp_path / "first")
    torch.manual_seed(2)
    fit(ToyTask(), toy_config(), tmp_path / "second")
    fit(ToyTask(), toy_config(seed=5), tmp_path / "other")
    assert_same_run(tmp_path / "first", tmp_path / "second")
    assert read_log(tmp_path / "first") != read_log(tmp_path / "other")


def test_evaluation_leaves_training_alone(tmp_path: Path) -> None:
    fit(ToyTask(), toy_config(evaluate_every=0), tmp_path / "once")
    fit(ToyTask(), toy_config(evaluate_every=3), tmp_path / "often")
    often = [line for line in read_log(tmp_path / "often") if line["kind"] == "train"]
    assert often == [line for line in read_log(tmp_path / "once") if line["kind"] == "train"]


def test_accumulated_batches_equal_a_large_one(tmp_path: Path) -> None:
    class Halves(ToyTask):
        def batches(self, *, start_step: int, batch_size: int, **kwargs: int):  # type: ignore[no-untyped-def,override]
            per_step = 8 // batch_size
            whole = ToyTask.batches(self, start_step=start_step // per_step, batch_size=8, **kwargs)
            for batch in whole:
                yield from batch.split(batch_size)

    large, small = Halves(dropout=0.0), Halves(dropout=0.0)
    fit(large, toy_config(batch_size=8), tmp_path / "large")
    fit(small, toy_config(batch_size=4, grad_accumulation=2), tmp_path / "small")
    for name, weight in large.model.state_dict().items():
        torch.testing.assert_close(weight, small.model.state_dict()[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("precision", "float7"),
        ("ema_decay", 1.0),
        ("max_minutes", 0.0),
        ("betas", [0.9]),
        ("learning_rate", float("nan")),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"training.{name}"):
        toy_config(**{name: value})


def test_missing_fabric_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivesim.training.launch.find_spec", lambda _: None)
    with pytest.raises(InputError, match="pip install lightning-fabric"):
        fit(ToyTask(), toy_config(), tmp_path)


@pytest.mark.slow
def test_two_processes_train_as_one_with_accumulation(tmp_path: Path) -> None:
    settings = ["num_train_steps=10", "dropout=0"]
    process = start(tmp_path / "two", "devices=2", "strategy=ddp", *settings)
    assert process.wait(timeout=600) == 0
    task = ToyTask(dropout=0.0)
    fit(task, toy_config(num_train_steps=10, grad_accumulation=2), tmp_path / "one")
    two = load_file(tmp_path / "two/ema.safetensors")
    for name, weight in task.model.state_dict().items():
        if name != "seen":
            torch.testing.assert_close(weight, two[name], atol=1e-5, rtol=1e-4)
    assert [line["step"] for line in read_log(tmp_path / "two")] == [5, 10, 10]
    resumed = start(tmp_path / "two", "devices=2", "strategy=ddp", "--resume", *settings)
    assert resumed.wait(timeout=600) == 0
