"""Two processes train as one does, divided or not, and read each other's checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_task import read_log
from two_processes import MODELS, run_model, run_pair, run_toy

from drivesim.training.checkpoints import load_checkpoint


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    run_toy(folder / "one", "one", 6)
    run_toy(folder / "one-half", "one", 3)
    run_pair("layouts", folder)
    for layout in ("ddp", "fsdp"):
        shutil.copytree(folder / f"{layout}-half", folder / f"{layout}-one")
        run_toy(folder / f"{layout}-one", "one", 6, resume=True)
    return folder


def curve(out: Path, name: str) -> list[float]:
    return [line[name] for line in read_log(out) if line["kind"] == "train"]


def assert_same(first: Path, second: Path, *, atol: float = 1e-5) -> None:
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(curve(second, name), curve(first, name), rtol=1e-4)
    weights = [load_file(out / "ema.safetensors") for out in (first, second)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        if name != "seen":
            torch.testing.assert_close(weights[1][name], value, atol=atol, rtol=1e-3)
    states = [load_checkpoint(out / "last.ckpt").optimizers[0]["state"] for out in (first, second)]
    for number, moments in states[0].items():
        torch.testing.assert_close(states[1][number]["exp_avg"], moments["exp_avg"], atol=1e-5, rtol=1e-2)


@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_two_processes_have_the_curve_of_one(runs: Path, layout: str) -> None:
    assert len(curve(runs / layout, "loss")) == 6
    assert_same(runs / "one", runs / layout)


@pytest.mark.parametrize("way", ["one-ddp", "one-fsdp", "ddp-one", "fsdp-one", "ddp-fsdp", "fsdp-ddp"])
def test_a_checkpoint_of_one_layout_goes_on_in_another(runs: Path, way: str) -> None:
    assert_same(runs / "one", runs / way)


def test_a_world_model_learns_the_same_from_the_same_tokens(runs: Path) -> None:
    run_model(runs / "world-model-one", "world-model", "one")
    assert_same(runs / "world-model-one", runs / "world-model-ddp", atol=5e-4)


@pytest.fixture(scope="module")
def model_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model-runs")
    run_pair("models", folder)
    for name in {name for name, _ in MODELS["models"]}:
        run_model(folder / f"{name}-one", name, "one")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layout"), MODELS["models"])
def test_models_learn_the_same_from_the_same_samples(model_runs: Path, name: str, layout: str) -> None:
    assert_same(model_runs / f"{name}-one", model_runs / f"{name}-{layout}", atol=5e-4)
