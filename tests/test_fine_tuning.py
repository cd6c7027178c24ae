"""Fine-tuning of a world model on a data set: what is learned from, stages, resumes, the files that it leaves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recordings import make_scene, write_dataset
from small_models import small_config

from drivesim import cli
from drivesim.checkpoint import read_checkpoint, save_module
from drivesim.config import load_config
from drivesim.errors import InputError
from drivesim.scene.types import Scene
from drivesim.training import fine_tuning
from drivesim.training.fidelity_table import Fidelity
from drivesim.training.fine_tuning import fine_tune, named_weights
from drivesim.training.fine_tuning_config import FineTuningConfig, StageConfig
from drivesim.training.fine_tuning_data import clip_length, describe, open_data, split_of
from drivesim.training.fine_tuning_stages import stages_of, training_of
from drivesim.training.loop import Evaluation, fit
from drivesim.training.open_loop import OpenLoopCheck
from drivesim.training.time_split import Segment
from drivesim.video import read_image
from drivesim.world_model.causal_decoder import CausalDecoderConfig
from drivesim.world_model.motion_field import MotionFieldConfig
from drivesim.world_model.pretrained import load_world_model, trainable_world_model
from drivesim.world_model.world_model import WorldModel, WorldModelConfig

TINY = [
    *("training.num_train_steps=2", "training.max_minutes=600", "training.accelerator=cpu"),
    *("fine_tuning.num_windows=2", "fine_tuning.num_checked_windows=2", "fine_tuning.frames_per_clip=12"),
    *("fine_tuning.motion_field.batch_size=2", "fine_tuning.imagination.batch_size=2"),
    "fine_tuning.tokenizer.share=0",
]


def narrow_config() -> WorldModelConfig:
    """Return a model in which also the parts that draw are narrow."""
    return replace(
        small_config(num_layers=1),
        motion_field=MotionFieldConfig(widths=[8, 8, 8], inverse_depths=[0.0, 0.05]),
        causal_decoder=CausalDecoderConfig(width=8, inner_width=8),
    )


def long_scene(num_frames: int = 126, **changes: Any) -> Scene:
    """Return a scene with pictures that neither end up black nor white."""
    scene = make_scene(num_frames, name="long", log_name="recorded-1")
    frames = [np.roll(make_scene(2).frames[0], 3 * index, axis=1) for index in range(num_frames)]
    return replace(scene, frames=frames, drivable=None, **changes)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("sets") / "my drives", long_scene())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, path = WorldModel(narrow_config()), tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_module(model, path, kind="world-model", config=model.config)
    return path


@cache
def config_of(dataset: Path, weights: Path, *more: str) -> Any:
    return load_config("train", [f"data={dataset}", f"init={weights}", *TINY, *more])


@pytest.fixture(scope="module")
def run(dataset: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run by the command line."""
    out = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["train", "world-model", f"data={dataset}", f"init={weights}", "--out", str(out), *TINY]
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert not caught.value.code
    return out


def test_a_run_leaves_weights_a_table_and_futures(run: Path, weights: Path) -> None:
    figures = json.loads((run / "fidelity.json").read_text())
    assert figures["held_out"] == "frames 107 to 125 of scene-2001"
    assert figures["num_windows"] == 2
    assert set(figures["before"]) == {
        "gain_db_at_1",
        "gain_db_at_6",
        "gain_db_at_12",
        "tokenizer_psnr_db",
    }
    assert figures["before"].keys() == figures["after"].keys()
    assert [stage["name"] for stage in figures["stages"]] == ["motion-field", "imagination"]
    assert all(stage["steps"] == 2 for stage in figures["stages"])
    assert read_image(run / "futures.png").shape[1] > 6 * 224
    model = load_world_model(run / "world-model.safetensors")
    assert model.config.stpt.dim == load_world_model(weights).config.stpt.dim
    facts = read_checkpoint(run / "world-model.safetensors").facts
    assert facts["settings"]["data"] == "my drives"
    assert str(run.parent) not in json.dumps(facts)


def test_codes_stay_what_they_are_without_a_tokenizer_stage(run: Path, weights: Path) -> None:
    old, new = read_checkpoint(weights).tensors, read_checkpoint(run / "world-model.safetensors").tensors
    stages = json.loads((run / "fidelity.json").read_text())["stages"]
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert not any(name.startswith(("tokenizer.encoder", "tokenizer.quantizer")) for name in changed)
    kept = {stage["name"] for stage in stages if stage["is_kept"]}
    assert any(name.startswith("motion_field") for name in changed) == ("motion-field" in kept)
    assert any(name.startswith("tokenizer.decoder") for name in changed) == ("imagination" in kept)


def test_a_run_is_not_begun_twice_and_a_finished_one_stays(run: Path, dataset: Path, weights: Path) -> None:
    before = (run / "fidelity.json").read_text()
    with pytest.raises(InputError, match="already holds a run"):
        fine_tune(config_of(dataset, weights), run)
    fine_tune(config_of(dataset, weights), run, resume=True)
    assert (run / "fidelity.json").read_text() == before


def test_the_tokenizer_learns_in_the_world_model_that_is_judged(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    config = config_of(
        dataset, weights, "fine_tuning.tokenizer.share=1", "fine_tuning.tokenizer.batch_size=2"
    )
    data = open_data(config.fine_tuning, tmp_path / "clips")
    check = OpenLoopCheck(data.checked(1), data.camera, num_context_frames=4, horizon=6)
    stage = next(stages_of(config, data, check))
    model = trainable_world_model(str(weights), WorldModelConfig())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = stage.make(model)
    training = replace(training_of(config, stage.settings, max_minutes=1.0), evaluate_every=1)
    evaluations: list[Evaluation] = []
    fit(task, training, tmp_path / "run", on_evaluation=lambda _, seen: bool(evaluations.append(seen)))
    assert [set(seen.metrics) >= {"gain_db_at_1", "gain_db_at_6"} for seen in evaluations] == [True, True]
    changed = {
        name.split(".")[1] for name, value in model.state_dict().items() if not value.equal(before[name])
    }
    assert changed == {"encoder", "decoder"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what a run ends with."""
    figures = Fidelity(gain_db={1: 1.0, 6: 0.5}, tokenizer_psnr_db=20.0, num_windows=2)
    monkeypatch.setattr(fine_tuning, "measure_fidelity", lambda *_, **__: figures)
    monkeypatch.setattr(fine_tuning, "futures_sheet", lambda *_: np.zeros((8, 8, 3), np.uint8))


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("moment", ["before the first stage", "within a stage", "between stages"])
def test_a_killed_run_goes_on_where_it_was(
    moment: str, run: Path, dataset: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_arguments: object, **_settings: object) -> None:
        raise Killed

    broken = {
        "before the first stage": "_trained",
        "within a stage": "load_checkpoint",  # after its last step, before its end is noted
        "between stages": "_say_end",
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(fine_tuning, broken, kill)
        with pytest.raises(Killed):
            fine_tune(config_of(dataset, weights), tmp_path)
    assert not (tmp_path / "world-model.safetensors").exists()
    result = fine_tune(config_of(dataset, weights), tmp_path, resume=True)
    whole = read_checkpoint(run / "world-model.safetensors").tensors
    resumed = read_checkpoint(result.weights).tensors
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, atol=1e-3, rtol=1e-3)
    assert result.checkpoint.is_file()


@pytest.mark.usefixtures("quick")
def test_a_stage_that_improves_nothing_is_undone(
    dataset: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fine_tuning, "_gain_db", lambda *_: 1e6)
    result = fine_tune(config_of(dataset, weights, "fine_tuning.motion_field.share=0"), tmp_path)
    assert "nothing improved, so the stage is undone" in " ".join(capsys.readouterr().out.split())
    old, new = read_checkpoint(weights).tensors, read_checkpoint(result.weights).tensors
    assert all(torch.equal(old[name], new[name]) for name in old)
    [stage] = json.loads((tmp_path / "fidelity.json").read_text())["stages"]
    assert not stage["is_kept"]


@pytest.mark.usefixtures("quick")
def test_a_stage_ends_early_that_gets_worse(
    dataset: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tuning, "_gain_db", lambda *_: 1e6)
    more = [
        "fine_tuning.imagination.evaluate_every=1",
        "fine_tuning.patience=1",
        "fine_tuning.motion_field.share=0",
    ]
    fine_tune(config_of(dataset, weights, *more), tmp_path)
    [stage] = json.loads((tmp_path / "fidelity.json").read_text())["stages"]
    assert stage["steps"] == 1


# ------------------------------------------------------------------------------------------------ the command's words


def failing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str, what: str = "world-model"
) -> str:
    """Return what a command that must fail says."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", what, "--out", str(tmp_path / "run"), *arguments])
    assert caught.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_data_and_init_are_short_for_fine_tuning() -> None:
    config = load_config("train", ["data=a b/ünïcode (1)", "init=drive_tiny", "data.num_workers=1"])
    assert (config.fine_tuning.data, config.fine_tuning.init) == ("a b/ünïcode (1)", "drive_tiny")
    assert config.data.num_workers == 1
    assert load_config("train", ["data='it\\'s'"]).fine_tuning.data == "it's"
    assert load_config("train", []).fine_tuning.data == ""
    with pytest.raises(InputError, match="data= is empty"):
        load_config("train", ["data="])
    with pytest.raises(InputError, match="needs data=FOLDER"):
        load_config("train", ["init=drive_tiny"])


def test_weights_are_named_with_hyphens_or_underscores(weights: Path) -> None:
    assert named_weights("drive_tiny") == named_weights("drive-tiny") == "drive-tiny"
    assert named_weights(str(weights)) == str(weights)
    with pytest.raises(InputError, match="did you mean drive-tiny"):
        named_weights("drive_tny")


def test_what_is_not_there_is_said(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = dataset.parent / "my drive"
    said = failing(capsys, tmp_path, f"data={missing}", "init=drive-tiny")
    assert "is not a folder" in said
    assert "holds my drives" in said
    said = failing(capsys, tmp_path, f"data={dataset}", "init=drive-tiny", "fine_tuning.version=v1.0-test")
    assert "has no version 'v1.0-test'; it has v1.0-mini" in said
    assert not (tmp_path / "run").exists()


def test_other_models_and_settings_without_a_place_are_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "drivesim train world-model" in failing(capsys, tmp_path, f"data={dataset}", what="tokenizer")
    said = failing(capsys, tmp_path, f"data={dataset}", "training.batch_size=4")
    assert "training.batch_size has no place" in said
    assert "fine_tuning.imagination.batch_size" in said


@pytest.mark.parametrize("name", ["driver-tiny", "general-tiny"])
def test_weights_of_another_kind_are_refused(
    name: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "but a world-model is needed" in failing(capsys, tmp_path, f"data={dataset}", f"init={name}")


# ------------------------------------------------------------------------------------------------------------ the data


def test_too_little_data_is_refused() -> None:
    config = FineTuningConfig(data="drives")
    with pytest.raises(InputError, match=r"drives holds 19\.8 s of driving in 1 scenes.*needs 20 s"):
        split_of(config, [("s", 119)])
    with pytest.raises(InputError, match="too short"):
        split_of(config, [(f"s{i}", 8) for i in range(20)])
    assert split_of(config, [("s", 120)]).words == "frames 102 to 119 of s"


def test_clips_are_as_long_as_most_scenes() -> None:
    segments = [Segment(scene=f"s{i}", first=0, stop=n) for i, n in enumerate([100, 100, 20, 20])]
    assert clip_length(segments, most=36) == 36
    segments = [Segment(scene=f"s{i}", first=0, stop=n) for i, n in enumerate([40, 20, 20, 20, 18])]
    assert clip_length(segments, most=36) == 20
    assert clip_length(segments[:0], most=36) == 36


def test_a_car_that_stands_in_the_held_out_part_is_refused(tmp_path: Path) -> None:
    scene = long_scene()
    speed = scene.speed_mps.copy()
    speed[90:] = 0.0
    still = np.repeat(scene.xy_m[90:91], 36, axis=0)
    stopped = replace(scene, speed_mps=speed, xy_m=np.concatenate([scene.xy_m[:90], still]))
    root = write_dataset(tmp_path / "set", stopped)
    with pytest.raises(InputError, match="the car never moves"):
        open_data(FineTuningConfig(data=str(root)), tmp_path / "clips")


def test_no_frame_is_in_both_parts(dataset: Path, tmp_path: Path) -> None:
    config = FineTuningConfig(data=str(dataset), frames_per_clip=12)
    data = open_data(config, tmp_path / "clips")
    learned = {tuple(xy) for xy in data.train.xy_m.reshape(-1, 2).round(3).tolist()}
    judged = {tuple(xy) for xy in data.held_out.xy_m.reshape(-1, 2).round(3).tolist()}
    assert len(learned) == 100  # of 101 before the gap: the last clip ends there
    assert not learned & judged
    checked = data.checked(2)
    assert checked.frames.shape[:2] == (2, 10)
    again = open_data(config, tmp_path / "clips")
    np.testing.assert_array_equal(again.train.frames, data.train.frames)
    with pytest.raises(InputError, match="made of other scenes"):
        open_data(replace(config, frames_per_clip=14), tmp_path / "clips")


def test_clips_of_a_data_set_that_was_made_anew_are_refused(dataset: Path, tmp_path: Path) -> None:
    root = shutil.copytree(dataset, tmp_path / "set")
    config = FineTuningConfig(data=str(root), frames_per_clip=12)
    open_data(config, tmp_path / "clips")
    poses = root / "v1.0-mini" / "ego_pose.json"
    poses.write_text(poses.read_text() + " ")
    with pytest.raises(InputError, match="made anew since"):
        open_data(config, tmp_path / "clips")


def test_what_was_done_to_the_pictures_is_said() -> None:
    facts = {
        **{"train_s": 150.0, "num_train_clips": 65, "frames_per_clip": 36, "held_out": "scene s6"},
        **{"held_out_s": 30.0, "num_windows": 12, "stretch": 1.0, "largest_camera_shift_px": 0.0},
    }
    said: list[str] = []
    describe(facts, said.append)
    assert said == ["learning from 150 s in 65 clips of 36 frames; held out: scene s6 (30 s, 12 windows)"]
    describe(facts | {"stretch": 1.31, "largest_camera_shift_px": 4.2}, said.append)
    assert "stretched to the model's, by 1.310" in said[2]
    assert "rectified by up to 4.2 pixels" in said[3]


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inside \(0, 0\.5\)"):
        FineTuningConfig(held_out_share=0.6)
    with pytest.raises(ValueError, match="share >= 0"):
        StageConfig(share=-1, learning_rate=1e-3, batch_size=1)
    nothing = StageConfig(share=0, learning_rate=1e-3, batch_size=1)
    with pytest.raises(ValueError, match="a stage with a share"):
        FineTuningConfig(tokenizer=nothing, motion_field=nothing, imagination=nothing)
