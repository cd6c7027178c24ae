"""Recorded nuScenes-schema scenes as training clips."""

import json

import numpy as np
import pytest

from drivesim.errors import InputError
from drivesim.scene.nuscenes import embedded_dataset, open_dataset
from drivesim.training.data import RecordedClips
from drivesim.training.scene_source import (
    SceneSourceConfig,
    camera_groups,
    convert_scenes,
    open_or_convert,
    split,
)
from drivesim.training.tokenizer import TokenizerTask, TokenizerTrainingConfig


def source(dataroot, tmp_path, **changes):
    settings = {"dataroot": str(dataroot), "version": "v1.0-mini", "path": str(tmp_path / "clips")}
    return SceneSourceConfig(**(settings | {"frames_per_clip": 6, "stride": 5} | changes))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenes") / "clips"
    names = embedded_dataset().scene_names()[:2]
    return convert_scenes(embedded_dataset(), names, path, frames_per_clip=24, stride=24, allow_held_out=True)


def test_scenes_become_clips_with_the_motion_into_each_frame(embedded):
    scenes = [embedded_dataset().load(name) for name in embedded_dataset().scene_names()[:2]]
    per_scene = len(scenes[0]) // 24
    assert isinstance(embedded, RecordedClips)
    assert len(embedded) == sum(len(scene) // 24 for scene in scenes)
    assert embedded.frames.dtype == np.uint8
    assert embedded.rate_hz == 6.0
    second = scenes[1]
    np.testing.assert_array_equal(embedded.frames[per_scene + 1, 3], second.frames[27])
    twist = np.stack([second.speed_mps, second.yaw_rate_radps], axis=-1)[24:48]
    np.testing.assert_allclose(embedded.twist[per_scene + 1], twist, rtol=1e-6)
    step_m = np.linalg.norm(np.diff(embedded.xy_m, axis=1), axis=-1)
    np.testing.assert_allclose(step_m * 6.0, embedded.twist[:, 1:, 0], atol=0.3)
    assert not embedded.is_collision.any()


def test_the_camera_of_each_clip_is_known(embedded):
    camera = embedded_dataset().load(embedded_dataset().scene_names()[0]).camera
    [(known, rows)] = camera_groups(embedded)
    assert known.intrinsic == pytest.approx(camera.intrinsic)
    np.testing.assert_array_equal(known.ego_from_cam, camera.ego_from_cam)
    np.testing.assert_array_equal(rows, np.arange(len(embedded)))


def test_a_training_task_reads_them(embedded):
    config = TokenizerTrainingConfig(num_validation_frames=2)
    task = TokenizerTask(config, embedded, embedded)
    batch = next(task.batches(start_step=0, batch_size=2, seed=0, rank=0, world_size=1))
    assert batch.shape == (2, 128, 224, 3)


def test_roads_of_published_figures_are_refused(tmp_path):
    names = embedded_dataset().scene_names()[:1]
    with pytest.raises(InputError, match=r"road 9000\d\d .* below 890000"):
        convert_scenes(embedded_dataset(), names, tmp_path / "clips", frames_per_clip=24, stride=24)
    assert not list(tmp_path.iterdir())


def test_sets_are_made_once_and_checked_later(dataroot, tmp_path):
    config = source(dataroot, tmp_path, frames_per_clip=4)
    done = []
    train, validation = open_or_convert(config, on_progress=done.append)
    assert {len(train), len(validation)} == {5, 1}
    assert done == [1, 1]
    again, _ = open_or_convert(config, on_progress=done.append)
    assert done == [1, 1]
    np.testing.assert_array_equal(again.frames, train.frames)
    with pytest.raises(InputError, match=r"other stride.*remove it"):
        open_or_convert(source(dataroot, tmp_path, frames_per_clip=4, stride=2))


def test_bad_pictures_and_short_scenes_are_left_out(dataroot, tmp_path, caplog):
    dataset = open_dataset(dataroot)
    picture = dataset.load(dataset.scene_names()[0]).frames.paths[7]
    picture.write_bytes(picture.read_bytes()[:100])
    clips = convert_scenes(dataset, dataset.scene_names(), tmp_path / "clips", frames_per_clip=8, stride=8)
    assert len(clips) == 2  # of three windows of 25 frames; the scene of seven has none
    assert json.loads((tmp_path / "clips" / "set.json").read_text())["num_clips"] == 2
    assert "skipped" in caplog.text
    np.testing.assert_array_equal(clips.frames[0, 0], dataset.load(dataset.scene_names()[0]).frames[8])


def test_sets_without_a_clip_are_refused(dataroot, tmp_path):
    dataset = open_dataset(dataroot)
    with pytest.raises(InputError, match="none of 2 scenes has the 99 frames"):
        convert_scenes(dataset, dataset.scene_names(), tmp_path / "clips", frames_per_clip=99, stride=1)


def test_validation_scenes_are_chosen_by_name():
    names = [f"scene-{number:04}" for number in range(40)]
    train, validation = split(names, 0.1)
    assert len(validation) == 4
    assert sorted(train + validation) == names
    assert set(split(names[::-1], 0.1)[1]) == set(validation)
    with pytest.raises(InputError, match="two scenes"):
        split(names[:1], 0.1)


def test_empty_settings_are_refused():
    with pytest.raises(ValueError, match="validation_share"):
        SceneSourceConfig(validation_share=0.0)
