"""Runs that are killed, resumed, or resumed with what does not fit them."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_task import ToyTask, assert_same_run, equal, read_log, start, toy_config

from drivesim.errors import InputError
from drivesim.training import checkpoints
from drivesim.training.checkpoints import load_checkpoint
from drivesim.training.loop import FitResult, OptimizerKind, TrainingConfig, fit


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
    changes: dict[str, object] = {"optimizer": OptimizerKind.muon, "seed": 3, "batch_size": 2}
    for name, value in (changes | {"grad_accumulation": 2}).items():
        with pytest.raises(InputError, match=rf"was made with training\.{name}="):
            fit(ToyTask(), toy_config(**{name: value}), tmp_path, resume=True)
    stranger = ToyTask()
    stranger.name = "stranger"
    with pytest.raises(InputError, match="is of the model toy, not stranger"):
        fit(stranger, toy_config(), tmp_path, resume=True)
    other = ToyTask()
    other.model.head = torch.nn.Linear(32, 17)
    with pytest.raises(InputError, match="other sizes"):
        fit(other, toy_config(), tmp_path, resume=True)
    (tmp_path / "last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        fit(ToyTask(), toy_config(), tmp_path, resume=True)


def test_start_is_told_only_when_the_run_fits(tmp_path: Path) -> None:
    told: list[str] = []
    fit(ToyTask(), toy_config(num_train_steps=2), tmp_path, on_start=lambda: told.append("first"))
    with pytest.raises(InputError, match=r"training\.seed"):
        fit(ToyTask(), toy_config(seed=4), tmp_path, resume=True, on_start=lambda: told.append("second"))
    assert told == ["first"]
