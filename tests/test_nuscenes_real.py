"""nuScenes as it really is: cameras, splits, lists of special scenes, gaps, missing files and tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import edit_table, make_scene

from drivesim.errors import InputError
from drivesim.scene.clips import SceneClips, SkippedClip
from drivesim.scene.dataroot import NEEDED_TABLES
from drivesim.scene.devkit import split_scenes
from drivesim.scene.faults import Fault
from drivesim.scene.nuscenes import open_dataset
from drivesim.scene.nuscenes_lists import MISALIGNED_ROUTE, WITHOUT_CAN, number_of

NAME = "scene-2001"
Records = list[dict[str, Any]]


def rename(dataroot: Path, name: str) -> None:
    """Give the first scene another name, CAN bus files included."""
    edit_table(dataroot, "scene", lambda records: [records[0] | {"name": name}])
    for path in (dataroot / "can_bus").glob(f"{NAME}_*"):
        path.rename(path.with_name(path.name.replace(NAME, name)))


def edit_can(dataroot: Path, message: str, change: Callable[[Any], Any]) -> None:
    path = dataroot / "can_bus" / f"{NAME}_{message}.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def add_camera(dataroot: Path) -> None:
    """Add CAM_BACK: the same pictures 20 ms later, mounted the other way round."""

    def twice(records: Records, **changes: str) -> Records:
        others = []
        for record in records:
            other = record | {key: f"{record[key]}{suffix}" for key, suffix in changes.items()}
            others.append(other)
        return [*records, *others]

    def sample_data(records: Records) -> Records:
        keys = ("token", "calibrated_sensor_token", "ego_pose_token")
        rows = twice(records, **dict.fromkeys(keys, "-back"))
        for row in rows[len(records) :]:
            row |= {"timestamp": row["timestamp"] + 20_000, "prev": "", "next": ""}
        return rows

    def calibrated(records: Records) -> Records:
        rows = twice(records, token="-back", sensor_token="-back")
        for row in rows[len(records) :]:
            row |= {"rotation": [0.5, -0.5, -0.5, 0.5], "translation": [0.0, 0.0, 1.6]}
        return rows

    edit_table(
        dataroot,
        "sensor",
        lambda rows: [*rows, rows[0] | {"token": f"{rows[0]['token']}-back", "channel": "CAM_BACK"}],
    )
    edit_table(dataroot, "calibrated_sensor", calibrated)
    edit_table(dataroot, "ego_pose", lambda rows: twice(rows, token="-back"))
    edit_table(dataroot, "sample_data", sample_data)


# ------------------------------------------------------------------------------------- cameras and splits


def test_any_camera_can_be_loaded(dataroot: Path) -> None:
    add_camera(dataroot)
    dataset = open_dataset(dataroot)
    assert dataset.camera_names() == dataset.camera_names(NAME) == ["CAM_FRONT", "CAM_BACK"]
    front, back = dataset.load(NAME), dataset.load(NAME, camera="CAM_BACK")
    assert len(back) == 25
    assert back.camera.ego_from_cam[0, 3] == 0.0
    assert not np.allclose(front.camera.ego_from_cam[:3, :3], back.camera.ego_from_cam[:3, :3])
    assert dataset.summary(NAME, camera="CAM_BACK").num_frames == 25
    with pytest.raises(InputError, match="has no CAM_LEFT; name one of its cameras: CAM_FRONT, CAM_BACK"):
        dataset.load(NAME, camera="CAM_LEFT")


def test_official_splits(dataroot: Path) -> None:
    dataset = open_dataset(dataroot)
    assert dataset.split_names() == []
    with pytest.raises(InputError, match="has no scene of split 'val'; it has no scene of an official split"):
        dataset.scene_names("val")
    with pytest.raises(InputError, match="no split 'vall'; did you mean val"):
        dataset.scene_names("vall")
    edit_table(dataroot, "scene", lambda records: [records[0] | {"name": "scene-0103"}, records[1]])
    dataset = open_dataset(dataroot)
    assert dataset.split_names() == ["val", "mini_val"]
    assert dataset.scene_names("mini_val") == ["scene-0103"]
    assert dataset.scene_names() == ["scene-0103", "scene-2002"]
    with pytest.raises(InputError, match="it has val, mini_val"):
        dataset.scene_names("train")
    assert len(split_scenes()["val"]) == 150


# --------------------------------------------------------------------------------------------- lists


def test_the_lists_are_those_of_the_devkit(exported: Path) -> None:
    from nuscenes.can_bus.can_bus_api import NuScenesCanBus

    devkit = NuScenesCanBus(dataroot=str(exported))
    assert frozenset(devkit.can_blacklist) == WITHOUT_CAN
    assert frozenset(devkit.route_blacklist) == MISALIGNED_ROUTE
    assert (number_of("scene-0499"), number_of("scene-499"), number_of("scene-0499\n")) == (499, None, None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scene-0161", ["no unbroken speed", "no navigation route"]),
        ("scene-0071", ["no navigation route"]),
        ("scene-0499", ["ego poses of this scene as wrong", "off its map", "no navigation route"]),
        ("scene-0501", ["off its map", "no navigation route"]),
    ],
)
def test_scenes_that_nuscenes_lists_say_so(dataroot: Path, name: str, words: list[str]) -> None:
    rename(dataroot, name)
    if name == "scene-0499":  # the wrong pose must not decide over the CAN bus
        edit_table(
            dataroot, "ego_pose", lambda rows: [row | {"translation": [3.0, 4.0, 0.0]} for row in rows]
        )
    scene = open_dataset(dataroot).load(name)
    assert all(any(word in problem for problem in scene.problems) for word in words)
    assert not any(isinstance(problem, Fault) for problem in scene.problems)
    assert (scene.drivable is None) == ("off its map" in " ".join(words))
    assert scene.motion_source == ("ego_pose" if name == "scene-0161" else "can")
    assert scene.route_xy_m is not None
    np.testing.assert_allclose(scene.route_xy_m[0], scene.xy_m[0], atol=1e-6)


# ----------------------------------------------------------------------------------------------- CAN bus


def test_every_signal_names_its_source(dataroot: Path) -> None:
    scene = open_dataset(dataroot).load(NAME)
    assert scene.signal_sources == {"speed": "pose", "yaw rate": "pose", "steering": "steeranglefeedback"}
    assert scene.steering_ratio == pytest.approx(16.0, rel=0.03)
    (dataroot / "can_bus" / f"{NAME}_pose.json").unlink()
    (dataroot / "can_bus" / f"{NAME}_steeranglefeedback.json").write_text("[" * 100_000)
    scene = open_dataset(dataroot).load(NAME)
    assert set(scene.signal_sources.values()) == {"vehicle_monitor"}
    assert any("cannot be read" in problem for problem in scene.problems)
    (dataroot / "can_bus" / f"{NAME}_vehicle_monitor.json").write_text("{}")
    scene = open_dataset(dataroot).load(NAME)
    assert set(scene.signal_sources.values()) == {"ego_pose"}
    assert any("not a list" in problem for problem in scene.problems)


@pytest.mark.parametrize(("factor", "ratio"), [(-1.0, -16.0), (57.3, None), (0.4, None), (1.2, 19.2)])
def test_the_steering_ratio_is_checked(dataroot: Path, factor: float, ratio: float | None) -> None:
    """Degrees taken for radians, another car: the curve that was driven tells."""
    edit_can(dataroot, "steeranglefeedback", lambda ms: [m | {"value": factor * m["value"]} for m in ms])
    scene = open_dataset(dataroot).load(NAME)
    assert scene.steering_ratio == pytest.approx(16.0 * factor, rel=0.03)
    faults = [problem for problem in scene.problems if isinstance(problem, Fault)]
    if ratio is None:
        assert "where 16 is usual; steering is computed from the ego poses" in faults[0]
        assert scene.signal_sources["steering"] == "ego_pose"
    if factor != 1.2:
        np.testing.assert_allclose(scene.steering_rad, make_scene().steering_rad, atol=0.005)
    else:
        assert faults == []


def test_a_yaw_rate_of_the_wrong_sign_or_unit_is_found(dataroot: Path) -> None:
    edit_can(dataroot, "pose", lambda ms: [m | {"rotation_rate": [0, 0, -m["rotation_rate"][2]]} for m in ms])
    scene = open_dataset(dataroot).load(NAME)
    assert scene.motion_source == "ego_pose"
    assert any("yaw rate is off the ego poses" in problem for problem in scene.problems)
    np.testing.assert_allclose(scene.yaw_rate_radps, make_scene().yaw_rate_radps, atol=1e-3)


@pytest.mark.parametrize("value", [float("inf"), 10**400, float("nan"), [], {}, None, "1"])
def test_wild_messages_do_no_harm(dataroot: Path, value: Any) -> None:
    for message, key in (
        ("pose", "vel"),
        ("steeranglefeedback", "value"),
        ("vehicle_monitor", "vehicle_speed"),
    ):
        edit_can(
            dataroot, message, lambda ms, key=key: [*ms[:5], ms[5] | {key: value, "utime": value}, 3, *ms[6:]]
        )
    edit_can(dataroot, "route", lambda points: [[value, value], *points])
    scene = open_dataset(dataroot).load(NAME)
    np.testing.assert_allclose(scene.speed_mps, make_scene().speed_mps, atol=0.05)


# -------------------------------------------------------------------------------------- what is not there


def test_annotation_tables_are_never_needed(dataroot: Path) -> None:
    for path in (dataroot / "v1.0-mini").glob("*.json"):
        if path.stem not in (*NEEDED_TABLES, "log", "map"):
            path.unlink()
    assert open_dataset(dataroot).load(NAME).problems == []


@pytest.mark.parametrize("is_empty", [False, True])
def test_tables_without_log_and_map(dataroot: Path, is_empty: bool) -> None:
    for table in ("log", "map"):
        path = dataroot / "v1.0-mini" / f"{table}.json"
        path.write_text("[]") if is_empty else path.unlink()
    dataset = open_dataset(dataroot)
    assert len(dataset.notes) == 2
    scene = dataset.load(NAME)
    assert (scene.place, dataset.summary(NAME).place, scene.log_name) == ("unknown", "unknown", NAME)
    assert scene.drivable is None
    assert any("no map of this place" in problem for problem in scene.problems)


def test_links_are_not_needed(dataroot: Path) -> None:
    without = ("prev", "next")
    edit_table(
        dataroot,
        "sample_data",
        lambda rows: [{k: v for k, v in row.items() if k not in without} for row in reversed(rows)],
    )
    scene = open_dataset(dataroot).load(NAME)
    np.testing.assert_allclose(scene.xy_m, make_scene().xy_m, atol=1e-5)
    assert any("24 links between pictures are missing" in problem for problem in scene.problems)


def test_a_lost_row_is_a_lost_picture(dataroot: Path) -> None:
    edit_table(dataroot, "sample_data", lambda records: records[:10] + records[11:])
    scene = open_dataset(dataroot).load(NAME)
    assert len(scene) == 25
    assert sorted(map(str, scene.problems)) == [
        "1 links between pictures are missing or wrong; their timestamps tell the order",
        "1 of 25 instants lack a picture of their own",
    ]


def test_doubled_timestamps(dataroot: Path) -> None:
    edit_table(
        dataroot,
        "sample_data",
        lambda rows: [*rows[:5], rows[5] | {"timestamp": rows[4]["timestamp"]}, *rows[6:]],
    )
    dataset = open_dataset(dataroot)
    scene = dataset.load(NAME)
    assert (np.diff(dataset.pictures(NAME).times_us) > 0).all()
    assert any("1 pictures have the timestamp of another" in problem for problem in scene.problems)


def test_a_missing_file_skips_its_clips_only(dataroot: Path) -> None:
    scene = open_dataset(dataroot).load(NAME)
    scene.frames.paths[4].unlink()  # type: ignore[attr-defined]
    again = open_dataset(dataroot).load(NAME)
    assert any("1 of 25 CAM_FRONT pictures" in problem for problem in again.problems)
    clips = SceneClips([again], num_frames=4, stride=3)
    skipped = [clips.windows[i][1] for i in range(len(clips)) if isinstance(clips[i], SkippedClip)]
    assert skipped == [3]


def test_clips_across_a_gap_are_skipped(dataroot: Path) -> None:
    def lose(rows: Records) -> Records:
        return rows[:8] + rows[16:]  # 1.5 s of the first scene

    edit_table(dataroot, "sample_data", lose)
    scene = open_dataset(dataroot).load(NAME)
    assert len(scene) == 25
    assert any(
        "1 gaps of more than 1 s" in problem and "1.5 s at 1.2 s" in problem for problem in scene.problems
    )
    unseen = []
    for index in range(len(scene)):
        try:
            assert scene.frames[index].shape == (128, 224, 3)
        except InputError as error:
            assert "lies in a gap" in str(error)  # noqa: PT017 which frames are in it is what is tested
            unseen.append(index)
    assert unseen == [11, 12]
    clips = SceneClips([scene], num_frames=2, stride=2)
    assert sum(isinstance(clips[index], SkippedClip) for index in range(len(clips))) == 2
    with pytest.raises(InputError, match="lies in a gap"):
        scene.frames[10:14][1]
