"""Runs that start from weights: of a run, shipped, of other sizes, with new parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from toy_task import ToyTask, equal, toy_config

from drivesim.checkpoint import save_module
from drivesim.errors import InputError
from drivesim.training.initial_weights import initialize_from
from drivesim.training.loop import fit


class Driver(nn.Module):
    """Eyes that were trained before, and a brain on top of them."""

    def __init__(self, *, width: int = 8, num_layers: int = 2) -> None:
        super().__init__()
        self.eyes = nn.Linear(4, 6)
        self.brain = nn.ModuleList(nn.Linear(width, width) for _ in range(num_layers))


class DriverTraining(nn.Module):
    """A driver as a part of what is trained; his eyes are frozen."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.driver = driver
        driver.eyes.requires_grad_(False)


@pytest.fixture
def trained() -> Driver:
    torch.manual_seed(1)
    return Driver()


@pytest.fixture
def weights(tmp_path: Path, trained: Driver) -> Path:
    path = tmp_path / "driver.safetensors"
    save_module(trained, path, kind="driver", config={})
    return path


def target(trained: Driver, **sizes: int) -> DriverTraining:
    """Return an untrained driver with the trained one's eyes."""
    driver = Driver(**sizes)
    driver.eyes.load_state_dict({name: value.half() for name, value in trained.eyes.state_dict().items()})
    return DriverTraining(driver)


def test_run_starts_from_the_weights_of_another(tmp_path: Path) -> None:
    first = fit(ToyTask(), toy_config(num_train_steps=40), tmp_path / "first")
    config = toy_config(num_train_steps=1, learning_rate=1e-9, init=str(tmp_path / "first"))
    task = ToyTask(seed=7)
    fit(task, config, tmp_path / "second")
    for name, weight in ToyTask(seed=7).model.state_dict().items():
        if name == "head.weight":
            assert not torch.allclose(task.model.state_dict()[name], weight, atol=1e-3)
    again = ToyTask(seed=8)
    initialize_from(again.model, first.weights)
    for name, weight in again.model.state_dict().items():
        if name != "seen":
            torch.testing.assert_close(task.model.state_dict()[name], weight, atol=1e-6, rtol=1e-6)


def test_resumed_run_does_not_start_again_from_them(tmp_path: Path) -> None:
    fit(ToyTask(), toy_config(num_train_steps=5), tmp_path / "first")
    config = toy_config(num_train_steps=10, init=str(tmp_path / "first"))
    fit(ToyTask(), config, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="crash"):
        fit(ToyTask(crash_at_batch=6), config, tmp_path / "broken")
    fit(ToyTask(seed=3), config, tmp_path / "broken", resume=True)
    ends = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "broken")]
    assert equal(ends[0]["model"], ends[1]["model"])


def test_weights_of_a_model_fill_the_part_of_the_training_module(weights: Path, trained: Driver) -> None:
    module = target(trained)
    initialize_from(module, weights)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(module.driver.state_dict()[name], tensor.half().float())


def test_other_sizes_are_said_and_nothing_is_copied(weights: Path, trained: Driver) -> None:
    module = target(trained, width=9)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    sentence = r"is of other sizes: brain\.0\.weight is 8x8 there and 9x9 here \(4 tensors in all\)"
    with pytest.raises(InputError, match=sentence):
        initialize_from(module, weights)
    assert equal(module.state_dict(), before)


def test_parts_that_are_missing_or_foreign_must_be_named(weights: Path, trained: Driver) -> None:
    module = target(trained, num_layers=3)
    with pytest.raises(
        InputError, match=r"lacks brain\.2\.bias \(2 tensors missing, 0 foreign\).*new_modules"
    ):
        initialize_from(module, weights)
    new = module.driver.brain[2].weight.detach().clone()
    initialize_from(module, weights, new_modules=["brain.2"])
    assert torch.equal(module.driver.brain[2].weight, new)
    assert torch.equal(module.driver.brain[0].weight, trained.brain[0].weight.half().float())
    smaller = target(trained, num_layers=1)
    with pytest.raises(InputError, match=r"holds brain\.1\.bias, which this model has not"):
        initialize_from(smaller, weights)
    initialize_from(smaller, weights, new_modules=["brain.1"])


def test_named_parts_may_have_other_sizes_and_keep_their_values(weights: Path, trained: Driver) -> None:
    module = target(trained, width=9)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    initialize_from(module, weights, new_modules=["brain"])
    assert equal(module.state_dict(), before)


def test_unknown_new_module_is_refused(weights: Path, trained: Driver) -> None:
    with pytest.raises(InputError, match=r"new_modules names 'brian', which is no part.*did you mean brain"):
        initialize_from(target(trained), weights, new_modules=["brian"])


def test_weights_on_another_frozen_part_are_refused(weights: Path, trained: Driver) -> None:
    module = target(trained)
    with torch.no_grad():
        module.driver.eyes.bias.add_(1.0)
    with pytest.raises(InputError, match=r"was trained on another eyes than this run \(eyes\.bias differs\)"):
        initialize_from(module, weights)
    initialize_from(module, weights, new_modules=["eyes"])
    assert torch.equal(module.driver.brain[0].weight, trained.brain[0].weight.half().float())


def test_damaged_missing_or_foreign_files_are_refused(weights: Path, trained: Driver, tmp_path: Path) -> None:
    module = target(trained)
    with pytest.raises(InputError, match="no weights named 'nothing'"):
        initialize_from(module, "nothing")
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match=r"holds no ema\.safetensors"):
        initialize_from(module, tmp_path / "run")
    damaged = bytearray(weights.read_bytes())
    damaged[-7] ^= 0xFF
    weights.write_bytes(damaged)
    with pytest.raises(InputError, match="is damaged"):
        initialize_from(module, weights)
    weights.write_bytes(bytes(damaged[:100]))
    with pytest.raises(InputError, match="not a readable safetensors file"):
        initialize_from(module, weights)
    save_file({"other": torch.ones(1)}, weights)
    with pytest.raises(InputError, match=r"lacks .*1 foreign"):
        initialize_from(module, weights)
