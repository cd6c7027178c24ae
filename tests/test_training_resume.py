"""Runs that are killed, resumed, or resumed with what does not fit them."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_task import ToyTask, assert_same_run, equal, read_log, start, toy_config, wait_for_step

from drivesim.errors import InputError
from drivesim.training import checkpoints, clock
from drivesim.training.checkpoints import load_checkpoint, save_checkpoint
from drivesim.training.loop import FitResult, OptimizerKind, TrainingConfig, fit


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


@pytest.mark.parametrize(
    "changes",
    [{}, pytest.param({"num_prefetch_batches": 3, "grad_accumulation": 2}, marks=pytest.mark.slow)],
    ids=["plain", "prefetch and accumulation"],
)
def test_killed_process_resumes_bit_for_bit(tmp_path: Path, changes: dict[str, int]) -> None:
    settings = [f"{name}={value}" for name, value in changes.items()]
    process = start(tmp_path / "killed", "num_train_steps=300", *settings)
    wait_for_step(tmp_path / "killed", 35, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 34 <= load_checkpoint(tmp_path / "killed/last.ckpt").step < 300
    config = toy_config(num_train_steps=300, checkpoint_every_s=1000.0, **changes)
    fit(ToyTask(), config, tmp_path / "killed", resume=True)
    fit(ToyTask(), config, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_run_survives_kills_at_random_moments(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    out = tmp_path / "killed"
    changes = {"num_prefetch_batches": 2, "grad_accumulation": 2}
    settings = ["num_train_steps=400", "log_every=20", "evaluate_every=150", "checkpoint_every_s=0.02"]
    settings += [f"{name}={value}" for name, value in changes.items()]
    out.mkdir()
    for _ in range(3):
        process = start(out, "--resume", *settings)
        wait_for_new_checkpoint(out, process)
        time.sleep(float(rng.uniform(0.0, 0.3)))
        process.kill()
        process.wait()
    config = toy_config(
        num_train_steps=400, log_every=20, evaluate_every=150, checkpoint_every_s=1000.0, **changes
    )
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


def set_clock(monkeypatch: pytest.MonkeyPatch, *, step_s: float) -> None:
    """Let every train step last equally long, as far as the training time goes."""
    looks = count()
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: step_s * next(looks)))


def test_time_budget_ends_the_run_annealed_and_counts_over_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, step_s=0.02)
    config = toy_config(num_train_steps=10**9, max_minutes=1.0 / 60, log_every=1, evaluate_every=0)
    result = fit(ToyTask(), config, tmp_path)
    assert result.step == pytest.approx(50, abs=2)
    rates = [line["learning_rate"] for line in read_log(tmp_path) if line["kind"] == "train"]
    floor = config.learning_rate * config.min_learning_rate_ratio
    assert rates[-1] == pytest.approx(floor, rel=0.1)
    assert fit(ToyTask(), config, tmp_path, resume=True).step == result.step


def test_steps_done_again_under_a_time_budget_see_their_minutes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = {"num_train_steps": 10**6, "max_minutes": 0.5, "warmup_steps": 0, "log_every": 1}
    rare = toy_config(**budget, evaluate_every=0, checkpoint_every_s=1000.0)

    def crash(
        out: Path, at_batch: int, step_s: float, config: TrainingConfig = rare
    ) -> list[dict[str, float]]:
        set_clock(monkeypatch, step_s=step_s)
        with pytest.raises(RuntimeError, match="crash"):
            fit(ToyTask(crash_at_batch=at_batch), config, out, resume=out.exists())
        return read_log(out)

    crash(tmp_path / "run", 10, 0.02, toy_config(**budget, evaluate_every=0))
    assert load_checkpoint(tmp_path / "run/last.ckpt").step == 10
    before = crash(tmp_path / "run", 25, 0.03)
    shutil.copytree(tmp_path / "run", tmp_path / "clockless")
    assert [line["step"] for line in before] == list(range(1, 26))
    assert crash(tmp_path / "run", 30, 0.05)[:25] == before
    assert crash(tmp_path / "run", 35, 0.01)[:25] == before
    (tmp_path / "clockless/clock.txt").unlink()
    assert crash(tmp_path / "clockless", 25, 0.05) != before


def test_finished_run_goes_on_for_longer_on_one_curve(tmp_path: Path) -> None:
    config = toy_config(num_train_steps=20, log_every=1, evaluate_every=0)
    longer = toy_config(num_train_steps=60, log_every=1, evaluate_every=0)
    fit(ToyTask(), config, tmp_path / "whole")
    assert fit(ToyTask(), longer, tmp_path / "whole", resume=True).step == 60
    lines = [line for line in read_log(tmp_path / "whole") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, 61))
    rates = [line["learning_rate"] for line in lines]
    assert rates[19] == pytest.approx(0.05 * config.learning_rate, rel=0.1)
    assert rates[19] < rates[20] < rates[23]
    assert all(later < earlier for earlier, later in pairwise(rates[24:]))
    assert rates[-1] == pytest.approx(0.05 * config.learning_rate)

    fit(ToyTask(), config, tmp_path / "broken")
    with pytest.raises(RuntimeError, match="crash"):
        fit(ToyTask(crash_at_batch=22), longer, tmp_path / "broken", resume=True)
    fit(ToyTask(), longer, tmp_path / "broken", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_log_of_a_run_far_into_its_time_budget_has_every_step_once(tmp_path: Path) -> None:
    budget = toy_config(num_train_steps=10**6, max_minutes=10.0, log_every=1, evaluate_every=0)
    path = tmp_path / "last.ckpt"
    with pytest.raises(RuntimeError, match="crash"):
        fit(ToyTask(crash_at_batch=20), budget, tmp_path)
    earlier = replace(load_checkpoint(path), elapsed_s=500.0)
    with pytest.raises(RuntimeError, match="crash"):
        fit(ToyTask(crash_at_batch=30), budget, tmp_path, resume=True)
    save_checkpoint(path, earlier)
    with pytest.raises(RuntimeError, match="crash"):
        fit(ToyTask(crash_at_batch=25), budget, tmp_path, resume=True)
    assert [line["step"] for line in read_log(tmp_path)] == list(range(1, 26))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of less than a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=800k", "none", str(disk)]
    if (
        shutil.which("mount") is None
        or subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode != 0
    ):
        pytest.skip("needs the right to mount a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_leaves_the_last_good_checkpoint_and_the_run_goes_on(
    small_disk: Path, tmp_path: Path
) -> None:
    out, filler = small_disk / "run", small_disk / "filler"
    fit(ToyTask(), toy_config(num_train_steps=10, evaluate_every=0), out)
    before = (out / "last.ckpt").read_bytes()
    room = shutil.disk_usage(small_disk).free - 40_000  # for the log, not for a checkpoint
    assert len(before) > 40_000
    filler.write_bytes(bytes(room))
    longer = toy_config(num_train_steps=30, log_every=1, evaluate_every=0)
    with pytest.raises(InputError, match=r"could not write .*last\.ckpt.*free some disk space"):
        fit(ToyTask(), longer, out, resume=True)
    assert (out / "last.ckpt").read_bytes() == before
    assert not list(out.glob(".*"))
    filler.unlink()
    assert fit(ToyTask(), longer, out, resume=True).step == 30
    whole = tmp_path / "whole"
    fit(ToyTask(), toy_config(num_train_steps=10, evaluate_every=0), whole)
    fit(ToyTask(), longer, whole, resume=True)
    assert_same_run(whole, out)


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


def test_clock_leaves_out_a_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    (tmp_path / "clock.txt").write_text("3 1.5\n4 2.5\n5 3.")
    watch = clock.TrainingClock(tmp_path / "clock.txt")
    watch.start(step=4, elapsed_s=2.0)
    seen_s = []
    for step in (4, 5, 6):
        watch.tick(step)
        seen_s.append(watch.elapsed_s)
    watch.close()
    assert seen_s[0] == 2.5
    assert 2.5 < seen_s[1] < seen_s[2]
    expected = [f"{step} {second!r}" for step, second in zip((4, 5, 6), seen_s, strict=True)]
    assert (tmp_path / "clock.txt").read_text().splitlines() == expected


def test_clock_of_a_fresh_run_forgets_one_that_was_killed_there(tmp_path: Path) -> None:
    (tmp_path / "clock.txt").write_text("0 100.0\n")
    watch = clock.TrainingClock(tmp_path / "clock.txt", is_fresh=True)
    watch.start(step=0, elapsed_s=0.0)
    watch.tick(0)
    watch.close()
    assert watch.elapsed_s < 100.0


def test_resume_needs_a_folder_and_a_fitting_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run in"):
        fit(ToyTask(), toy_config(), tmp_path / "nowhere", resume=True)
    fit(ToyTask(), toy_config(num_train_steps=2), tmp_path)
    changes: dict[str, object] = {"optimizer": OptimizerKind.muon, "seed": 3}
    for name, value in changes.items():
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
