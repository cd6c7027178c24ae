from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from toy_task import ToyTask, read_log, toy_config

from drivesim.errors import InputError
from drivesim.training import checkpoints
from drivesim.training.checkpoints import load_checkpoint
from drivesim.training.loop import FitResult, OptimizerKind, TrainingConfig, fit

SCRIPT = Path(__file__).with_name("toy_task.py")


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def assert_same_run(first: Path, second: Path) -> None:
    assert read_log(first) == read_log(second)
    assert equal(load_file(first / "ema.safetensors"), load_file(second / "ema.safetensors"))
    ends = load_checkpoint(first / "last.ckpt"), load_checkpoint(second / "last.ckpt")
    assert equal(ends[0].model, ends[1].model)
    states = [{str(k): v["exp_avg"] for k, v in end.optimizers[0]["state"].items()} for end in ends]
    assert equal(*states)


def start(out: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(out), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def wait_for_step(out: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 300
    while time.monotonic() < deadline_s and process.poll() is None:
        log = out / "log.jsonl"
        if log.exists() and any(f'"step": {step},' in line for line in log.read_text().splitlines()):
            return
        time.sleep(0.01)
    pytest.fail(f"step {step} was not logged in time, exit code {process.poll()}")


def wait_for_new_checkpoint(out: Path, process: subprocess.Popen[bytes]) -> None:
    path = out / "last.ckpt"
    before = path.stat().st_ino if path.exists() else None
    while process.poll() is None and (not path.exists() or path.stat().st_ino == before):
        time.sleep(0.01)


def crash_and_resume(out: Path, config: TrainingConfig, *, at_batch: int) -> FitResult:
    with pytest.raises(RuntimeError, match="crash"):
        fit(ToyTask(crash_at_batch=at_batch), config, out)
    return fit(ToyTask(seed=99), config, out, resume=True)


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


def test_log_says_speed_and_time(tmp_path: Path) -> None:
    fit(ToyTask(), toy_config(num_train_steps=10), tmp_path)
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert line["frames_per_s"] > 0
    assert line["elapsed_s"] >= 0
    assert line["grad_norm"] > 0


@pytest.mark.parametrize("at_batch", [1, 8, 22])
def test_resumed_run_equals_an_unbroken_one(tmp_path: Path, at_batch: int) -> None:
    fit(ToyTask(), toy_config(), tmp_path / "whole")
    crash_and_resume(tmp_path / "broken", toy_config(), at_batch=at_batch)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": OptimizerKind.muon},
        {"grad_accumulation": 2},
        {"precision": "bf16-mixed"},
        {"num_prefetch_batches": 2},
    ],
)
def test_resumed_run_equals_an_unbroken_one_whatever_the_settings(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    config = toy_config(num_train_steps=12, **changes)
    fit(ToyTask(), config, tmp_path / "whole")
    crash_and_resume(tmp_path / "broken", config, at_batch=7)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_killed_process_resumes_bit_for_bit(tmp_path: Path) -> None:
    process = start(tmp_path / "killed", "num_train_steps=300")
    wait_for_step(tmp_path / "killed", 35, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 34 <= load_checkpoint(tmp_path / "killed/last.ckpt").step < 300
    config = toy_config(num_train_steps=300, checkpoint_every_s=1000.0)
    fit(ToyTask(), config, tmp_path / "killed", resume=True)
    fit(ToyTask(), config, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_run_survives_kills_at_random_moments(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    out = tmp_path / "killed"
    settings = ["num_train_steps=1500", "log_every=50", "evaluate_every=500", "checkpoint_every_s=0.02"]
    out.mkdir()
    for _ in range(3):
        process = start(out, "--resume", *settings)
        wait_for_new_checkpoint(out, process)
        time.sleep(float(rng.uniform(0.0, 0.3)))
        process.kill()
        process.wait()
    config = toy_config(num_train_steps=1500, log_every=50, evaluate_every=500, checkpoint_every_s=1000.0)
    fit(ToyTask(), config, out, resume=True)
    fit(ToyTask(), config, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", out)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_signal_saves_after_the_step_and_then_acts(
    tmp_path: Path, number: signal.Signals, error: type[BaseException]
) -> None:
    class Signalled(ToyTask):
        def num_frames(self, batch: Tensor) -> int:
            signal.raise_signal(number)
            return len(batch)

    handler = signal.getsignal(number)
    with pytest.raises(error):
        fit(Signalled(), toy_config(checkpoint_every_s=1000.0), tmp_path / "stopped")
    assert signal.getsignal(number) is handler
    assert load_checkpoint(tmp_path / "stopped/last.ckpt").step == 1
    fit(ToyTask(), toy_config(), tmp_path / "stopped", resume=True)
    fit(ToyTask(), toy_config(), tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


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


def test_time_budget_ends_the_run_annealed_and_counts_over_resumes(tmp_path: Path) -> None:
    config = toy_config(num_train_steps=10**9, max_minutes=1.0 / 60, log_every=1, evaluate_every=0)
    started_s = time.monotonic()
    result = fit(ToyTask(), config, tmp_path)
    assert 0 < time.monotonic() - started_s < 10
    rates = [line["learning_rate"] for line in read_log(tmp_path) if line["kind"] == "train"]
    floor = config.learning_rate * config.min_learning_rate_ratio
    assert rates[-1] == pytest.approx(floor, rel=0.2)
    assert fit(ToyTask(), config, tmp_path, resume=True).step == result.step


def test_crash_while_writing_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(ToyTask(), toy_config(num_train_steps=5), tmp_path)
    before = (tmp_path / "last.ckpt").read_bytes()

    def full_disk(_: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", full_disk)
    with pytest.raises(InputError, match=r"No space left on device.*free some disk space"):
        fit(ToyTask(), toy_config(), tmp_path, resume=True)
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert not list(tmp_path.glob(".last*"))


def test_leftovers_of_a_kill_while_writing_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".last-0123abcd.ckpt").write_bytes(b"half")
    (tmp_path / "log.jsonl").write_text('{"step": 5, "kind": "tr')
    fit(ToyTask(), toy_config(num_train_steps=5), tmp_path, resume=True)
    assert not list(tmp_path.glob(".*"))
    assert [line["step"] for line in read_log(tmp_path)] == [5, 5]


def test_finished_run_resumes_to_its_result(tmp_path: Path) -> None:
    first = fit(ToyTask(), toy_config(), tmp_path)
    task = ToyTask(seed=7)
    assert fit(task, toy_config(), tmp_path, resume=True) == first
    assert equal(task.model.state_dict(), load_file(first.weights))


def test_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    fit(ToyTask(), toy_config(num_train_steps=2), tmp_path)
    with pytest.raises(InputError, match="already holds a run; add --resume"):
        fit(ToyTask(), toy_config(num_train_steps=2), tmp_path)


def test_resume_needs_a_folder_and_a_fitting_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run in"):
        fit(ToyTask(), toy_config(), tmp_path / "nowhere", resume=True)
    fit(ToyTask(), toy_config(num_train_steps=2), tmp_path)
    with pytest.raises(InputError, match="another model or optimizer"):
        fit(ToyTask(), toy_config(optimizer=OptimizerKind.muon), tmp_path, resume=True)
    other = ToyTask()
    other.model.head = torch.nn.Linear(32, 17)
    with pytest.raises(InputError, match="other sizes"):
        fit(other, toy_config(), tmp_path, resume=True)
    (tmp_path / "last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        fit(ToyTask(), toy_config(), tmp_path, resume=True)


def test_diverged_run_stops_before_it_saves(tmp_path: Path) -> None:
    class Diverging(ToyTask):
        def losses(self, *arguments) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
            terms = ToyTask.losses(self, *arguments)
            return {name: term * float("nan") for name, term in terms.items()}

    with pytest.raises(InputError, match=r"loss of toy is nan at step 1; lower training\.learning_rate"):
        fit(Diverging(), toy_config(), tmp_path)
    assert not (tmp_path / "last.ckpt").exists()


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
