"""The train commands: seeded weights, facts of the training in the weights, runs that keep their settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_models import small_world_model
from torch import Tensor

from drivesim import cli
from drivesim.checkpoint import read_checkpoint, save_module
from drivesim.config import load_config
from drivesim.errors import InputError
from drivesim.reference.synth import synthesize
from drivesim.training import commands
from drivesim.training.data import record_clips

TINY = [
    *("training.num_train_steps=2", "training.batch_size=2", "training.accelerator=cpu", "data.num_clips=2"),
    *("data.num_validation_clips=1", "data.frames_per_clip=8", "data.num_workers=1"),
]
TOKENIZER = [
    *("tokenizer.vqgan.channels=[8,8,8]", "tokenizer.vqgan.num_res_blocks=[1,1,1]"),
    "tokenizer.num_validation_frames=2",
]
WORLD_MODEL = [
    *("world_model.model.stpt.dim=32", "world_model.model.stpt.num_layers=1", "world_model.horizon=1"),
    *("world_model.model.stpt.num_heads=2", "world_model.frames_per_window=4"),
]
IMAGINATION = [
    *("imagination.horizon=1", "imagination.rollouts.longest=4"),
    *("imagination.rollouts.shortest=2", "imagination.rollouts.num_groups=1"),
]
INVERSE_DYNAMICS = ["inverse_dynamics.num_validation_pairs=4"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    record_clips(folder / "train", num_clips=2, frames_per_clip=8, first_seed=0, num_workers=1)
    record_clips(folder / "validation", num_clips=1, frames_per_clip=8, first_seed=890_000, num_workers=1)
    return folder


@pytest.fixture(scope="module")
def settings(data: Path) -> list[str]:
    tokenizer = small_world_model().tokenizer
    save_module(tokenizer, data / "tokenizer.safetensors", kind="tokenizer", config=tokenizer.config)
    parts = ("motion_field", "world_model", "imagination")
    inits = [f"{part}.init={data / 'tokenizer.safetensors'}" for part in parts]
    return [*TINY, *TOKENIZER, *WORLD_MODEL, *IMAGINATION, *INVERSE_DYNAMICS, *inits, f"data.path={data}"]


def run(*arguments: object) -> int:
    """Return the exit code of a command."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


TRAININGS = ("tokenizer", "motion_field", "world_model", "imagination", "inverse_dynamics")


@pytest.mark.parametrize("name", [f"train_{part}" for part in TRAININGS])
def test_the_seed_decides_the_first_weights(
    name: str, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    states: list[dict[str, Tensor]] = []

    def stop(task: Any, *_arguments: object, **_settings: object) -> None:
        states.append({key: value.clone() for key, value in task.model.state_dict().items()})
        raise Stopped

    monkeypatch.setattr(commands, "fit", stop)
    train: Callable[..., Any] = getattr(commands, name)
    for global_seed, seed in ((1, 5), (2, 5), (2, 6)):
        torch.manual_seed(global_seed)
        with pytest.raises(Stopped):
            train(load_config("train", [*settings, f"training.seed={seed}"]), tmp_path)
    first, again, other = states
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_weights_know_their_training_and_a_run_keeps_its_settings(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run("train", "world-model", "--out", out, *settings, "training.seed=3") == 0
    facts = read_checkpoint(out / "world-model.safetensors").facts
    assert (facts["task"], facts["step"], facts["seed"]) == ("world-model", 2, 3)
    assert facts["training"]["batch_size"] == 2
    assert facts["settings"]["frames_per_window"] == 4
    assert facts["data"]["num_clips"] == 2
    assert {"metrics", "date", "drivesim"} <= facts.keys()

    assert run("train", "world-model", "--out", out, "--resume", "training.num_train_steps=3") == 0
    assert read_checkpoint(out / "world-model.safetensors").facts["step"] == 3
    saved = (out / "config.yaml").read_text()
    assert yaml.safe_load(saved)["training"]["num_train_steps"] == 3
    assert f"world_model.init={yaml.safe_load(saved)['world_model']['init']}" in settings

    capsys.readouterr()
    assert run("train", "world-model", "--out", out, "--resume", "training.batch_size=1") == 2
    assert "is 1; choose them so that it is 2" in capsys.readouterr().err
    assert (out / "config.yaml").read_text() == saved


def test_all_trained_models_carry_facts(settings: list[str], tmp_path: Path) -> None:
    for name in ("tokenizer", "motion-field", "imagination", "inverse-dynamics"):
        assert run("train", name, "--out", tmp_path / name, *settings) == 0
        assert read_checkpoint(tmp_path / name / f"{name}.safetensors").facts["task"] == name


def test_windows_longer_than_clips_are_refused(settings: list[str], tmp_path: Path) -> None:
    config = load_config("train", [*settings, "world_model.frames_per_window=9"])
    with pytest.raises(InputError, match=r"frames_per_window=9 exceeds the 8 frames"):
        commands.train_world_model(config, tmp_path)


def test_a_part_is_trained_on_and_the_others_are_kept(settings: list[str], tmp_path: Path) -> None:
    assert run("train", "motion-field", "--out", tmp_path / "a", *settings) == 0
    before = tmp_path / "a" / "motion-field.safetensors"
    kept = [word for word in settings if not word.startswith(("imagination.init", "world_model.model"))]
    assert run("train", "imagination", "--out", tmp_path / "b", *kept, f"imagination.init={before}") == 0
    old = read_checkpoint(before).tensors
    new = read_checkpoint(tmp_path / "b" / "imagination.safetensors").tensors
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert {"causal_decoder", "stpt"} <= changed <= {"causal_decoder", "stpt", "action_encoder"}


def test_imagination_is_for_one_process(settings: list[str], tmp_path: Path) -> None:
    config = load_config("train", [*settings, "training.devices=2"])
    with pytest.raises(InputError, match=r"leave training\.devices"):
        commands.train_imagination(config, tmp_path)


def test_weights_of_other_sizes_are_refused(settings: list[str], tmp_path: Path) -> None:
    config = load_config("train", [*settings, "world_model.init=drive-tiny"])
    with pytest.raises(InputError, match="of other sizes"):
        commands.train_world_model(config, tmp_path)


STREAM = [
    *("data.source=stream", "stream.num_workers=1", "stream.frames_per_clip=8", "stream.num_queued_clips=2"),
    *("pool.num_clips=2", "pool.num_first_clips=1", "pool.clips_per_part=1", "stream.clips_per_drive=1"),
]


@pytest.mark.parametrize("name", ["tokenizer", "world-model"])
def test_training_reads_a_stream(name: str, settings: list[str], tmp_path: Path) -> None:
    assert run("train", name, "--out", tmp_path / name, *settings, *STREAM) == 0
    facts = read_checkpoint(tmp_path / name / f"{name}.safetensors").facts
    assert facts["data"]["source"] == "stream"
    assert not list(Path(settings[-1].removeprefix("data.path=")).glob("train/tokens*"))


def test_training_reads_recorded_scenes(settings: list[str], tmp_path: Path) -> None:
    synthesize(tmp_path / "root", num_scenes=2, seed=5)
    scenes = [
        *("data.source=scenes", f"scenes.dataroot={tmp_path / 'root'}", "scenes.version=v1.0-mini"),
        *("scenes.scenes=[scene-2001,scene-2002]", f"scenes.path={tmp_path / 'clips'}"),
        *("scenes.frames_per_clip=8", "scenes.stride=40"),
    ]
    assert run("train", "world-model", "--out", tmp_path / "run", *settings, *scenes) == 0
    facts = read_checkpoint(tmp_path / "run" / "world-model.safetensors").facts
    assert facts["data"]["scenes"] == ["scene-2001", "scene-2002"]


def test_scenes_need_a_data_set(
    settings: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("train", "tokenizer", "--out", tmp_path, *settings, "data.source=scenes") == 2
    assert "needs scenes.dataroot" in capsys.readouterr().err
