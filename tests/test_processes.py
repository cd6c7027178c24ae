"""Processes of a run: settings that do not fit, what they are given, failures and signals."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_task import ToyTask, equal, start, toy_config

from drivesim.errors import InputError
from drivesim.training.agreement import Agreement
from drivesim.training.checkpoints import load_checkpoint
from drivesim.training.interruption import HeldSignals
from drivesim.training.loop import OptimizerKind, fit
from drivesim.training.processes import _Pickler, take_turns


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "deepspeed"}, r"training\.strategy must be one of auto, ddp, fsdp"),
        ({"strategy": "fsdp"}, r"raise training\.devices"),
        ({"strategy": "fsdp", "devices": 2, "optimizer": OptimizerKind.muon}, "needs whole matrices"),
        ({"num_nodes": 0}, r"training\.num_nodes"),
    ],
)
def test_layouts_that_cannot_work_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        toy_config(**changes)


def test_devices_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there are accelerators here")
    with pytest.raises(InputError, match=r"these devices cannot be had: .*training\.devices"):
        fit(ToyTask(), toy_config(accelerator="cuda", devices=2), tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_number_of_started_processes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(InputError, match=r"4 processes were started, but training\.devices=1"):
        fit(ToyTask(), toy_config(), tmp_path)


def test_several_machines_must_know_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(InputError, match=r"num_nodes=2 needs MASTER_PORT, NODE_RANK .* torchrun"):
        fit(ToyTask(), toy_config(num_nodes=2), tmp_path)


def test_one_process_takes_no_turns() -> None:
    take_turns(toy_config())
    take_turns(toy_config(devices=2))  # which this process would start itself


def test_a_run_goes_on_with_as_many_samples_to_a_step_only(tmp_path: Path) -> None:
    fit(ToyTask(), toy_config(num_train_steps=2), tmp_path)
    with pytest.raises(InputError, match=r"4 samples to a step, but .*batch_size=4 x .*accumulation=2 is 8"):
        fit(ToyTask(), toy_config(grad_accumulation=2), tmp_path, resume=True)
    result = fit(
        ToyTask(), toy_config(num_train_steps=4, batch_size=2, grad_accumulation=2), tmp_path, resume=True
    )
    assert result.step == 4


def test_accumulation_goes_on_with_the_same_samples(tmp_path: Path) -> None:
    weights = []
    for name, shares in (("whole", {"batch_size": 8}), ("parts", {"batch_size": 2, "grad_accumulation": 4})):
        task = ToyTask(dropout=0.0)
        fit(task, toy_config(num_train_steps=6, **shares), tmp_path / name)
        weights.append(task.model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-5, rtol=1e-4)


def test_mapped_arrays_travel_as_names(tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    np.save(path, np.arange(100_000).reshape(100, 1000))
    mapped = np.load(path, mmap_mode="r")
    file = io.BytesIO()
    _Pickler(file).dump({"whole": mapped, "view": mapped[3:5], "plain": np.ones(3)})
    assert file.tell() < 40_000  # the view's 16,000 bytes
    found = pickle.loads(file.getvalue())
    assert isinstance(found["whole"], np.memmap)
    assert not found["whole"].flags.writeable
    np.testing.assert_array_equal(found["whole"], mapped)
    np.testing.assert_array_equal(found["view"], mapped[3:5])


class FakeFabric:
    """The other process has got SIGTERM and has another clock."""

    world_size, global_rank, device = 2, 0, torch.device("cpu")

    def all_reduce(self, tensor: torch.Tensor, *, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "max"
        return torch.maximum(tensor, torch.tensor([15.0, 0.0, 0.0], dtype=torch.float64))


def test_a_signal_of_one_process_stops_all() -> None:
    agreement = Agreement(FakeFabric(), is_timed=False)
    agreement.settle(5, signal=None, elapsed_s=3.25, is_save_due=True)
    assert agreement.signal == signal.SIGTERM
    assert agreement.elapsed_s == 3.25
    assert agreement.is_save_due


def test_a_child_waits_however_often_it_is_told() -> None:
    with HeldSignals(is_child=True) as held:
        held._parent = type("Parent", (), {"is_alive": lambda self: True})()  # type: ignore[assignment]
        signal.raise_signal(signal.SIGINT)
        assert held.received is None
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert held.received == signal.SIGTERM


def test_the_sentence_of_a_process_is_the_sentence_of_the_run(tmp_path: Path) -> None:
    config = toy_config(devices=2, learning_rate=1e30, grad_clip_norm=0.0, warmup_steps=0)
    with pytest.raises(InputError, match=r"^the (loss|gradient) is .* for toy at step .*--resume$"):
        fit(ToyTask(dropout=0.0), config, tmp_path)


@pytest.mark.slow
def test_a_crash_of_one_process_ends_all_and_is_shown(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="RuntimeError: crash"):
        fit(ToyTask(crash_at_batch=5), toy_config(devices=2), tmp_path)
    assert load_checkpoint(tmp_path / "last.ckpt").step <= 5


def wait_for_checkpoint(out: Path, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s and process.poll() is None and not (out / "last.ckpt").exists():
        time.sleep(0.05)
    assert process.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_signals_save_in_all_processes(
    tmp_path: Path, strategy: str, number: signal.Signals, code: int
) -> None:
    settings = ["num_train_steps=100000", "dropout=0", "checkpoint_every_s=0.1"]
    process = start(tmp_path, "devices=2", f"strategy={strategy}", *settings)
    wait_for_checkpoint(tmp_path, process)
    process.send_signal(number)
    assert process.wait(timeout=120) in (code, 130 if number == signal.SIGINT else code)
    saved = load_checkpoint(tmp_path / "last.ckpt")
    assert 0 < saved.step < 100_000
    config = toy_config(num_train_steps=saved.step + 2, batch_size=8)
    resumed = ToyTask(dropout=0.0)
    assert fit(resumed, config, tmp_path, resume=True).step == saved.step + 2
    assert not equal(resumed.model.state_dict(), saved.model)


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    process = start(tmp_path, "devices=2", "num_train_steps=100000", "checkpoint_every_s=0.1")
    wait_for_checkpoint(tmp_path, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and any(Path(f"/proc/{child}/stat").exists() for child in children):
        time.sleep(0.1)
    assert not any(_is_running(child) for child in children)
    assert load_checkpoint(tmp_path / "last.ckpt").step > 0


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
