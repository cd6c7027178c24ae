"""Any nuScenes data root becomes a Scene: round trips and irregular data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import edit_table, make_scene, rms

from drivesim.scene.nuscenes import NuScenesDataset, embedded_dataset, open_dataset

NAME = "scene-2001"


@pytest.fixture(scope="module")
def dataset(exported: Path) -> NuScenesDataset:
    return open_dataset(exported)


def edit_can(dataroot: Path, message: str, change: Callable[[list[Any]], list[Any]]) -> None:
    path = dataroot / "can_bus" / f"{NAME}_{message}.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


# ------------------------------------------------------------------------------------------- round trip


def test_summary(dataset: NuScenesDataset) -> None:
    assert dataset.scene_names() == [NAME, "scene-2002"]
    summary = dataset.summary(NAME)
    assert (summary.length_s, summary.num_frames) == (4.0, 25)
    assert (summary.place, summary.caption) == ("reference-winding", make_scene().caption)


def test_poses_and_motion_come_back(dataset: NuScenesDataset) -> None:
    scene, recorded = dataset.load(NAME), make_scene()
    assert (scene.name, scene.log_name, scene.rate_hz) == (NAME, recorded.log_name, 6.0)
    np.testing.assert_allclose(scene.timestamps_s, recorded.timestamps_s)
    np.testing.assert_allclose(scene.xy_m, recorded.xy_m, atol=1e-5)
    np.testing.assert_allclose(scene.yaw_rad, recorded.yaw_rad, atol=1e-6)
    np.testing.assert_allclose(scene.speed_mps, recorded.speed_mps, atol=0.02)
    np.testing.assert_allclose(scene.yaw_rate_radps, recorded.yaw_rate_radps, atol=0.01)
    np.testing.assert_allclose(scene.steering_rad, recorded.steering_rad, atol=0.005)
    assert scene.motion_source == "can"
    assert scene.problems == []


def test_pictures_camera_route_and_map_come_back(dataset: NuScenesDataset) -> None:
    scene, recorded = dataset.load(NAME), make_scene()
    assert len(scene.frames) == 25
    assert all(
        np.abs(a.astype(int) - b).mean() < 1 for a, b in zip(scene.frames, recorded.frames, strict=True)
    )
    assert len(scene.frames[3:7]) == 4
    np.testing.assert_allclose(scene.camera.intrinsic, recorded.camera.intrinsic)
    np.testing.assert_allclose(scene.camera.ego_from_cam, recorded.camera.ego_from_cam, atol=1e-12)
    assert scene.route_xy_m is not None
    assert recorded.route_xy_m is not None
    np.testing.assert_allclose(scene.route_xy_m, recorded.route_xy_m)
    points = np.random.default_rng(0).uniform([20, 20], [180, 100], (3000, 2))
    points = points[np.abs(points[:, 0] - 140) > 0.4]
    assert scene.drivable is not None
    assert recorded.drivable is not None
    assert np.array_equal(scene.drivable.contains(points), recorded.drivable.contains(points))


def test_delivered_size_scales_the_intrinsics(dataset: NuScenesDataset) -> None:
    scene = dataset.load(NAME, width_px=112, height_px=32)
    assert scene.frames[0].shape == (32, 112, 3)
    assert (scene.camera.fx_px, scene.camera.fy_px) == (80.0, 40.0)
    assert (scene.camera.cx_px, scene.camera.cy_px) == (56.0, 13.5)


# ------------------------------------------------------------------------------------------------- time


def test_rates_follow_timestamps(dataset: NuScenesDataset) -> None:
    slow, recorded = dataset.load(NAME, rate_hz=2.0), make_scene()
    np.testing.assert_allclose(slow.xy_m, recorded.xy_m[::3], atol=1e-5)
    assert rms(slow.frames[4], recorded.frames[12]) < 2
    assert slow.problems == []
    fast = dataset.load(NAME, rate_hz=12.0)
    assert len(fast) == 49
    assert any("lack a picture" in problem for problem in fast.problems)
    np.testing.assert_allclose(fast.xy_m[2::2], recorded.xy_m[1:], atol=1e-5)


def test_irregular_times_are_respected(dataroot: Path) -> None:
    """Late and dropped pictures move with their timestamps, never with their index."""
    rng = np.random.default_rng(0)
    jitter = {}

    def shake(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for record in records:
            jitter[record["token"]] = 0 if record.get("is_key_frame") else int(rng.integers(-20_000, 20_000))
            record["timestamp"] += jitter[record["token"]]
        return records

    def drop(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        by_token = {record["token"]: record for record in records}
        chain = [records[0]]
        while chain[-1]["next"]:
            chain.append(by_token[chain[-1]["next"]])
        for index in (4, 13):
            chain[index - 1]["next"], chain[index + 1]["prev"] = (
                chain[index + 1]["token"],
                chain[index - 1]["token"],
            )
        lost = {chain[4]["token"], chain[13]["token"]}
        return [record for record in records if record["token"] not in lost]

    edit_table(dataroot, "sample_data", lambda records: shake(drop(records)))
    scene, recorded = open_dataset(dataroot).load(NAME), make_scene()
    assert len(scene) == 25
    shown = [int(np.argmin([rms(frame, other) for other in recorded.frames])) for frame in scene.frames]
    kept = [index for index in range(25) if index not in (4, 13)]
    assert [shown[index] for index in kept] == kept
    assert shown[4] in (3, 5)
    assert shown[13] in (12, 14)
    assert any(problem.startswith("2 of 25 instants") for problem in scene.problems)


# ---------------------------------------------------------------------------------------------- CAN bus


def test_without_can_bus_the_poses_tell(dataroot: Path) -> None:
    shutil.rmtree(dataroot / "can_bus")
    scene, recorded = open_dataset(dataroot).load(NAME), make_scene()
    assert scene.motion_source == "ego_pose"
    np.testing.assert_allclose(scene.speed_mps, recorded.speed_mps, atol=0.01)
    np.testing.assert_allclose(scene.yaw_rate_radps, recorded.yaw_rate_radps, atol=1e-3)
    np.testing.assert_allclose(scene.steering_rad, recorded.steering_rad, atol=1e-3)
    assert scene.route_xy_m is not None
    past_end = scene.route_xy_m[-1] - recorded.xy_m[-1]
    assert np.linalg.norm(past_end) == pytest.approx(60.0, abs=1.1)
    assert len(scene.problems) == 1  # the route


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda messages: messages[:60], "unbroken speed"),
        (lambda messages: messages[40:], "unbroken speed"),
        (lambda messages: messages[:50] + messages[90:], "unbroken speed"),
        (lambda messages: [], "unbroken speed"),
        (lambda messages: [{"utime": "?"}], "unbroken speed"),
        (lambda messages: [message | {"vel": [20.0, 0, 0]} for message in messages], "off the ego poses"),
    ],
)
def test_broken_can_bus_falls_back(
    dataroot: Path, change: Callable[[list[Any]], list[Any]], words: str
) -> None:
    edit_can(dataroot, "pose", change)
    if words == "unbroken speed":
        edit_can(dataroot, "vehicle_monitor", lambda messages: messages[:2])
    scene, recorded = open_dataset(dataroot).load(NAME), make_scene()
    assert scene.motion_source == "ego_pose"
    assert any(words in problem for problem in scene.problems)
    np.testing.assert_allclose(scene.speed_mps, recorded.speed_mps, atol=0.01)


def test_vehicle_monitor_stands_in(dataroot: Path) -> None:
    """Its km/h and degrees per second, twice a second, are enough when the 50 Hz messages are missing."""
    (dataroot / "can_bus" / f"{NAME}_pose.json").unlink()
    (dataroot / "can_bus" / f"{NAME}_steeranglefeedback.json").write_text("[{")
    scene, recorded = open_dataset(dataroot).load(NAME), make_scene()
    assert scene.motion_source == "can"
    np.testing.assert_allclose(scene.speed_mps, recorded.speed_mps, atol=0.1)
    np.testing.assert_allclose(scene.yaw_rate_radps, recorded.yaw_rate_radps, atol=0.05)
    np.testing.assert_allclose(scene.steering_rad, recorded.steering_rad, atol=0.02)


def test_opposite_steering_sign_is_found(dataroot: Path) -> None:
    edit_can(dataroot, "steeranglefeedback", lambda ms: [m | {"value": -m["value"]} for m in ms])
    scene, recorded = open_dataset(dataroot).load(NAME), make_scene()
    np.testing.assert_allclose(scene.steering_rad, recorded.steering_rad, atol=0.005)
    assert any("opposite sign" in problem for problem in scene.problems)


@pytest.mark.parametrize("name", ["scene-0161", "my-drive"])
def test_names_the_devkit_refuses_still_load(dataroot: Path, name: str) -> None:
    edit_table(dataroot, "scene", lambda records: [{**records[0], "name": name}])
    scene = open_dataset(dataroot).load(name)
    assert scene.motion_source == "ego_pose"


def test_far_route_is_not_followed(dataroot: Path) -> None:
    edit_can(dataroot, "route", lambda points: [[x, y + 200] for x, y in points])
    scene = open_dataset(dataroot).load(NAME)
    assert scene.route_xy_m is not None
    np.testing.assert_allclose(scene.route_xy_m[0], scene.xy_m[0])


def test_place_outside_the_map_has_no_drivable_area(dataroot: Path) -> None:
    def move(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**record, "translation": [5000.0 + record["translation"][0], 9.0, 0.0]} for record in records
        ]

    shutil.rmtree(dataroot / "can_bus")
    edit_table(dataroot, "ego_pose", move)
    assert open_dataset(dataroot).load(NAME).drivable is None


# ---------------------------------------------------------------------------------------- embedded data


def test_embedded_scenes_are_whole() -> None:
    dataset = embedded_dataset()
    summaries = [dataset.summary(name) for name in dataset.scene_names()]
    assert len(summaries) >= 8
    assert all(10.0 <= summary.length_s <= 20.0 for summary in summaries)
    assert len({summary.place for summary in summaries}) >= 4
    for name in dataset.scene_names():
        scene = dataset.load(name)
        assert scene.problems == []
        assert scene.motion_source == "can"
        assert scene.drivable is not None
        assert scene.drivable.contains(scene.xy_m[:6]).all()
        assert scene.frames[len(scene) - 1].shape == (128, 224, 3)


def test_embedded_data_is_small() -> None:
    root = embedded_dataset().dataroot
    assert sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) < 8_000_000
