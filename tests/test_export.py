"""The unmodified devkit opens an exported data set and finds the right numbers in the right units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nuscenes.can_bus.can_bus_api import NuScenesCanBus
from nuscenes.nuscenes import NuScenes
from recordings import make_drivable, make_scene, make_traffic, recording_of, write_dataset

from drivesim.errors import InputError
from drivesim.reference.annotations import visible_shares
from drivesim.reference.export import export_nuscenes
from drivesim.reference.vehicles import VehicleBox
from drivesim.scene.can_motion import STEERING_RATIO
from drivesim.scene.map_mask import map_mask
from drivesim.scene.nuscenes_writer import ExportConfig

TABLES = [
    *("attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample"),
    *("sample_annotation", "sample_data", "scene", "sensor", "visibility"),
]


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "set"
    return write_dataset(folder, make_scene(), make_scene(14, log_name="reference-merge-2"))


@pytest.fixture(scope="module")
def tables(dataroot: Path) -> Any:
    return NuScenes(version="v1.0-mini", dataroot=str(dataroot), verbose=False)


@pytest.fixture(scope="module")
def can_bus(dataroot: Path) -> Any:
    return NuScenesCanBus(dataroot=str(dataroot))


def test_all_tables_and_scene_facts(tables: Any, dataroot: Path) -> None:
    assert sorted(path.stem for path in (dataroot / "v1.0-mini").iterdir()) == TABLES
    assert all(getattr(tables, name) for name in TABLES)
    scene = tables.scene[0]
    log = tables.get("log", scene["log_token"])
    assert (scene["name"], scene["description"]) == ("scene-2001", make_scene().caption)
    assert (log["logfile"], log["location"]) == ("reference-winding-1", "reference-winding")
    assert len({record["token"] for name in TABLES for record in getattr(tables, name)}) == sum(
        len(getattr(tables, name)) for name in TABLES
    ) - len(tables.sample_data)  # an ego pose has the token of its picture, as in nuScenes


def test_keyframes_twice_a_second_and_sweeps_between(tables: Any, dataroot: Path) -> None:
    scene = tables.scene[0]
    sample = tables.get("sample", scene["first_sample_token"])
    record = tables.get("sample_data", sample["data"]["CAM_FRONT"])
    assert record["prev"] == ""
    records, samples = [record], [sample]
    while record["next"]:
        record = tables.get("sample_data", record["next"])
        records.append(record)
    while sample["next"]:
        sample = tables.get("sample", sample["next"])
        samples.append(sample)
    assert sample["token"] == scene["last_sample_token"]
    assert len(records) == 25
    assert [index for index, record in enumerate(records) if record["is_key_frame"]] == list(range(0, 25, 3))
    assert scene["nbr_samples"] == len(samples) == 9
    assert set(np.diff([sample["timestamp"] for sample in samples])) == {500_000}
    for record in records:
        assert record["filename"].startswith("samples/" if record["is_key_frame"] else "sweeps/")
        assert (dataroot / record["filename"]).is_file()
        nearest = tables.get("sample", record["sample_token"])
        assert abs(nearest["timestamp"] - record["timestamp"]) <= 250_000


def test_camera_and_poses(tables: Any) -> None:
    scene = make_scene()
    sample = tables.sample[1]
    path, _, intrinsic = tables.get_sample_data(sample["data"]["CAM_FRONT"])
    assert Path(path).is_file()
    np.testing.assert_allclose(intrinsic, scene.camera.intrinsic)
    record = tables.get("sample_data", sample["data"]["CAM_FRONT"])
    calibration = tables.get("calibrated_sensor", record["calibrated_sensor_token"])
    np.testing.assert_allclose(calibration["translation"], [1.7, 0.0, 1.5])
    pose = tables.get("ego_pose", record["ego_pose_token"])
    np.testing.assert_allclose(pose["translation"][:2], scene.xy_m[3], atol=1e-6)
    half = scene.yaw_rad[3] / 2
    np.testing.assert_allclose(pose["rotation"], [np.cos(half), 0, 0, np.sin(half)], atol=1e-8)


def test_boxes_project_into_the_picture(tables: Any) -> None:
    """The devkit's own camera maths puts the car that drives ahead into the image."""
    sample = tables.sample[0]
    _, boxes, _ = tables.get_sample_data(sample["data"]["CAM_FRONT"])
    assert {box.name for box in boxes} == {"vehicle.car", "vehicle.truck"}
    assert all(box.center[2] > 0 for box in boxes)
    records = [tables.get("sample_annotation", token) for token in sample["anns"]]
    assert len(records) == 2
    car = next(record for record in records if record["category_name"] == "vehicle.car")
    assert car["visibility_token"] == "4"
    following = tables.get("sample_annotation", car["next"])
    assert following["translation"][0] - car["translation"][0] == pytest.approx(3.0)
    assert following["instance_token"] == car["instance_token"]
    instance = tables.get("instance", car["instance_token"])
    assert instance["nbr_annotations"] == 9
    assert instance["first_annotation_token"] == car["token"]


def test_hidden_boxes_are_less_visible() -> None:
    near = VehicleBox(x_m=10.0, y_m=0.0, yaw_rad=0.0, length_m=4.0, width_m=2.0)
    behind = VehicleBox(x_m=30.0, y_m=0.0, yaw_rad=0.0, length_m=4.0, width_m=2.0)
    beside = VehicleBox(x_m=0.0, y_m=20.0, yaw_rad=0.0, length_m=4.0, width_m=2.0)
    assert visible_shares([behind, near, beside], xy_m=np.zeros(2)) == [0.0, 1.0, 1.0]


def test_map_mask_agrees_with_the_drivable_area(tables: Any) -> None:
    mask = tables.map[0]["mask"]
    drivable = make_drivable()
    points = np.random.default_rng(1).uniform([12, 7], [175, 100], (2000, 2))
    is_far = np.abs(points[:, 0] - 140) > 0.2
    is_on = mask.is_on_mask(points[:, 0], points[:, 1])
    assert np.array_equal(is_on[is_far], drivable.contains(points)[is_far])
    assert set(np.unique(mask.mask())) == {0, 255}
    assert map_mask(drivable).shape == (1050, 1850)


def test_can_messages_have_the_units_of_nuscenes(can_bus: Any) -> None:
    scene = make_scene()
    steering = can_bus.get_messages("scene-2001", "steeranglefeedback")
    monitor = can_bus.get_messages("scene-2001", "vehicle_monitor")
    pose = can_bus.get_messages("scene-2001", "pose")
    assert (len(pose), len(steering), len(monitor)) == (201, 401, 9)
    assert steering[-1]["value"] == pytest.approx(scene.steering_rad[-1] * STEERING_RATIO, abs=1e-4)
    assert monitor[-1]["steering"] == pytest.approx(
        np.rad2deg(scene.steering_rad[-1] * STEERING_RATIO), abs=0.1
    )
    assert monitor[-1]["vehicle_speed"] == pytest.approx(scene.speed_mps[-1] * 3.6, abs=0.01)
    assert monitor[-1]["yaw_rate"] == pytest.approx(np.rad2deg(scene.yaw_rate_radps[-1]), abs=0.1)
    assert pose[-1]["vel"][0] == pytest.approx(scene.speed_mps[-1], abs=1e-3)
    np.testing.assert_allclose(pose[-1]["pos"][:2], scene.xy_m[-1], atol=2e-3)
    np.testing.assert_allclose(pose[75]["pos"][:2], scene.xy_m[9], atol=2e-3)
    assert set(np.diff([message["utime"] for message in pose])) == {20_000}


def test_can_route_and_meta(can_bus: Any) -> None:
    route, pose = can_bus.get_pose_and_route("scene-2001")
    np.testing.assert_allclose(route, make_scene().route_xy_m)
    assert pose.shape == (201, 2)
    meta = can_bus.get_messages("scene-2001", "meta")
    assert meta["pose"]["message_count"] == 201
    assert meta["pose"]["message_freq"] == pytest.approx(50.0)
    assert set(meta) == {"pose", "steeranglefeedback", "vehicle_monitor"}


def test_same_recordings_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_dataset(tmp_path / name, make_scene(8)) for name in "ab")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


def test_twelve_hertz_recordings_keep_two_keyframes_a_second(tmp_path: Path) -> None:
    scene = make_scene(25)
    scene.rate_hz, scene.timestamps_s = 12.0, scene.timestamps_s / 2
    write_dataset(tmp_path / "set", scene)
    samples = json.loads((tmp_path / "set" / "v1.0-mini" / "sample.json").read_text())
    assert len(samples) == 5


def test_failure_leaves_no_folder(tmp_path: Path) -> None:
    scene = make_scene(8)
    scene.speed_mps[3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        write_dataset(tmp_path / "set", make_scene(8), scene)
    with pytest.raises(InputError, match="at least one scene"):
        export_nuscenes([], tmp_path / "set")
    with pytest.raises(InputError, match="at least 2"):
        write_dataset(tmp_path / "set", make_scene(1))
    assert not list(tmp_path.iterdir())


def test_full_folder_and_bad_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="not empty"):
        write_dataset(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep me"
    with pytest.raises(InputError, match="161"):
        ExportConfig(first_scene_number=161)
    with pytest.raises(InputError, match="9999"):
        export_nuscenes(
            [recording_of(make_scene(2))] * 2, tmp_path / "set", config=ExportConfig(first_scene_number=9999)
        )
    assert len(make_traffic(2)) == 2
