"""Whatever is wrong with a nuScenes data root is said in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from recordings import edit_table

from drivesim.errors import InputError
from drivesim.scene.nuscenes import NuScenesDataset, open_dataset

NAME = "scene-2001"
VERSION = "v1.0-mini"


@pytest.fixture(scope="module")
def dataset(exported: Path) -> NuScenesDataset:
    return open_dataset(exported)


def refuse(words: str, dataroot: Path, version: str = VERSION) -> None:
    with pytest.raises(InputError, match=words) as caught:
        open_dataset(dataroot, version)
    assert "\n" not in str(caught.value)


def test_missing_or_foreign_dataroot(tmp_path: Path, dataroot: Path) -> None:
    refuse("does not exist", tmp_path / "none")
    (tmp_path / "file").write_text("")
    refuse("not a folder", tmp_path / "file")
    (tmp_path / "photos").mkdir()
    refuse("not a nuScenes data set", tmp_path / "photos")
    refuse("name its parent", dataroot / VERSION)
    refuse("it has v1.0-mini", dataroot, "v1.0-trainval")


def test_partial_dataroot(dataroot: Path) -> None:
    (dataroot / "maps").rename(dataroot / "plans")
    refuse("map masks", dataroot)
    (dataroot / "plans").rename(dataroot / "maps")
    table = dataroot / VERSION / "ego_pose.json"
    text = table.read_text()
    table.write_text(text[:1000])
    refuse("ego_pose.json is truncated", dataroot)
    table.write_text(text)
    edit_table(dataroot, "sample", lambda records: records[1:])
    refuse("do not fit together", dataroot)
    shutil.rmtree(dataroot / "samples")
    refuse("no samples/ folder", dataroot)
    table.unlink()
    refuse(r"ego_pose\.json missing", dataroot)


def test_unknown_scene_names_the_nearest(dataset: NuScenesDataset) -> None:
    with pytest.raises(InputError, match="did you mean scene-2002"):
        dataset.load("scene-202")
    with pytest.raises(InputError, match="did you mean scene-2001"):
        dataset.summary("paris")


def test_short_scene_and_bad_rate(dataset: NuScenesDataset) -> None:
    with pytest.raises(InputError, match=r"7 frames .* and 8 are needed"):
        dataset.load("scene-2002", min_frames=8)
    with pytest.raises(InputError, match="1 frames"):
        dataset.load("scene-2002", rate_hz=0.5)
    with pytest.raises(InputError, match="must be positive"):
        dataset.load(NAME, rate_hz=0)
    for rate_hz in (float("inf"), float("nan"), 1e9):
        with pytest.raises(InputError, match="at most 1000 Hz"):
            dataset.load(NAME, rate_hz=rate_hz)


def test_truncated_image_is_named_when_read(dataroot: Path) -> None:
    scene = open_dataset(dataroot).load(NAME)
    path = scene.frames.paths[7]  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes()[:500])
    assert scene.frames[6].shape == (128, 224, 3)
    with pytest.raises(InputError, match=path.name):
        scene.frames[7]


def test_missing_images(dataroot: Path) -> None:
    scene = open_dataset(dataroot).load(NAME)
    paths = scene.frames.paths  # type: ignore[attr-defined]
    paths[4].unlink()
    again = open_dataset(dataroot).load(NAME)
    assert len(again) == 25
    assert any("1 of 25 CAM_FRONT pictures" in problem for problem in again.problems)
    for path in paths[6:12]:
        path.unlink()
    with pytest.raises(InputError, match="7 of 25"):
        open_dataset(dataroot).load(NAME)


def test_no_front_camera(dataroot: Path) -> None:
    edit_table(dataroot, "sensor", lambda records: [{**record, "channel": "CAM_BACK"} for record in records])
    with pytest.raises(InputError, match="no CAM_FRONT"):
        open_dataset(dataroot).load(NAME)


@pytest.mark.parametrize("table", ["ego_pose", "log", "calibrated_sensor"])
def test_a_row_that_is_not_there_names_its_table(dataroot: Path, table: str) -> None:
    edit_table(dataroot, table, lambda records: records[1:])
    with pytest.raises(InputError, match=rf"{table}(\.json has no row| )|do not fit together") as caught:
        open_dataset(dataroot).load(NAME)
    assert "\n" not in str(caught.value)


def test_a_list_of_scenes_needs_their_logs(dataroot: Path) -> None:
    edit_table(dataroot, "log", lambda records: records[1:])
    with pytest.raises(InputError, match=r"log\.json has no row"):
        open_dataset(dataroot).summary(NAME)
