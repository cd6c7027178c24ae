"""Plain scenes written in the nuScenes schema are read back as they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from recordings import BrokenPictures, make_scene

from drivesim.errors import InputError
from drivesim.scene.nuscenes import open_dataset
from drivesim.scene.nuscenes_writer import ExportConfig, write_nuscenes
from drivesim.scene.types import Scene


def plain_scene(num_frames: int = 25, **names: str) -> Scene:
    scene = make_scene(num_frames, **names)
    scene.drivable, scene.route_xy_m, scene.motion_source = None, None, "log"
    scene.xy_m = scene.xy_m - 200.0  # imported tracks start anywhere
    return scene


def test_scenes_come_back(tmp_path: Path) -> None:
    scene = plain_scene(name="drive", log_name="Überland/../fahrt 1")
    scene.caption = "a bend to the left, then, näher, to the right"
    assert write_nuscenes(iter([scene, plain_scene(8)]), tmp_path / "set") == 2
    dataset = open_dataset(tmp_path / "set")
    assert dataset.scene_names() == ["scene-2001", "scene-2002"]
    back = dataset.load("scene-2001")
    assert (back.caption, back.log_name, back.place) == (scene.caption, scene.log_name, scene.place)
    assert (back.motion_source, len(back), back.drivable) == ("can", 25, None)
    np.testing.assert_allclose(back.camera.ego_from_cam, scene.camera.ego_from_cam, atol=1e-12)
    np.testing.assert_array_equal(back.camera.intrinsic, scene.camera.intrinsic)
    np.testing.assert_allclose(back.xy_m, scene.xy_m, atol=1e-5)
    np.testing.assert_allclose(back.yaw_rad, scene.yaw_rad, atol=1e-6)
    np.testing.assert_allclose(back.speed_mps, scene.speed_mps, atol=0.02)
    np.testing.assert_allclose(back.yaw_rate_radps, scene.yaw_rate_radps, atol=0.01)
    np.testing.assert_allclose(back.steering_rad, scene.steering_rad, atol=0.005)
    error = np.abs(np.asarray(back.frames[12], float) - scene.frames[12])
    assert error.mean() < 1.0
    assert all(path.is_relative_to(tmp_path / "set") for path in back.frames.paths)  # type: ignore[attr-defined]


def test_nothing_is_annotated(tmp_path: Path) -> None:
    write_nuscenes([plain_scene(8)], tmp_path / "set", config=ExportConfig(version="v1.0-own"))
    tables = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "set" / "v1.0-own").iterdir()}
    assert len(tables) == 13
    empty = {name for name, rows in tables.items() if not rows}
    assert empty == {"attribute", "category", "instance", "sample_annotation"}
    assert open_dataset(tmp_path / "set", "v1.0-own").scene_names() == ["scene-2001"]


def test_unreadable_pictures_are_left_out_and_told(tmp_path: Path) -> None:
    scene = plain_scene()
    scene.frames = BrokenPictures(list(scene.frames), {0, 3, 7})
    told: list[str] = []
    assert write_nuscenes([scene], tmp_path / "set", on_left_out=told.append) == 1
    assert [line.split(" of ")[0] for line in told] == ["frame 0", "frame 3", "frame 7"]
    rows = json.loads((tmp_path / "set" / "v1.0-mini" / "sample_data.json").read_text())
    assert len(rows) == 22
    assert all((tmp_path / "set" / row["filename"]).is_file() for row in rows)
    assert len(list((tmp_path / "set").rglob("*.jpg"))) == 22
    assert sum(row["is_key_frame"] for row in rows) == 9
    back = open_dataset(tmp_path / "set").load("scene-2001")
    np.testing.assert_allclose(back.xy_m[0], scene.xy_m[1], atol=1e-5)


def test_a_scene_without_pictures_is_left_out(tmp_path: Path) -> None:
    scene = plain_scene(4)
    scene.frames = BrokenPictures(list(scene.frames), {0, 1, 3})
    told: list[str] = []
    count = write_nuscenes([scene, plain_scene(6)], tmp_path / "set", on_left_out=told.append)
    assert (count, told[-1]) == (1, "scene 'recorded' was left out: it has 1 readable pictures")
    assert open_dataset(tmp_path / "set").scene_names() == ["scene-2001"]
    with pytest.raises(InputError, match="at least one scene"):
        write_nuscenes([scene], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_scenes_are_taken_one_at_a_time(tmp_path: Path) -> None:
    given: list[int] = []

    def scenes() -> Iterator[Scene]:
        for index in range(3):
            given.append(len(list(tmp_path.rglob("scene-*_pose.json"))))
            yield plain_scene(6, log_name=f"log-{index}")

    assert write_nuscenes(scenes(), tmp_path / "set") == 3
    assert given == [0, 1, 2]


def test_long_scenes_do_not_share_their_times(tmp_path: Path) -> None:
    scene = plain_scene(5)
    scene.rate_hz, scene.timestamps_s = 1 / 1800, np.arange(5) * 1800.0
    config = ExportConfig(pose_rate_hz=0.01, steering_rate_hz=0.01)
    write_nuscenes([scene, scene], tmp_path / "set", config=config)
    rows = json.loads((tmp_path / "set" / "v1.0-mini" / "sample_data.json").read_text())
    assert len({row["filename"] for row in rows}) == 10
    assert rows[5]["timestamp"] > rows[4]["timestamp"]


def test_refusals_leave_nothing(tmp_path: Path) -> None:
    scene = plain_scene(4)
    scene.speed_mps[2] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        write_nuscenes([scene], tmp_path / "set")
    with pytest.raises(InputError, match="jpeg_quality is 0"):
        ExportConfig(jpeg_quality=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")
    with pytest.raises(InputError, match="not empty"):
        write_nuscenes([plain_scene(4)], tmp_path / "full")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "mine"]


def test_names_of_many_bytes_fit_into_a_file_name(tmp_path: Path) -> None:
    scene = plain_scene(8, log_name="车" * 85)
    write_nuscenes([scene], tmp_path / "set")
    back = open_dataset(tmp_path / "set").load("scene-2001")
    assert back.log_name == scene.log_name
    assert len(back.frames[0]) == 128
