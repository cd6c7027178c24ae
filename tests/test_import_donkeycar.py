"""Donkeycar tubs of both versions, as they are and broken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from foreign_recordings import (
    DONKEYCAR_MAX_SPEED_MPS,
    DONKEYCAR_MAX_STEERING_RAD,
    at_instants,
    write_donkeycar_v1,
    write_donkeycar_v2,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import make_scene

from drivesim.errors import InputError
from drivesim.imports.donkeycar import read_donkeycar
from drivesim.imports.drive_log import DriveLog
from drivesim.imports.options import ImportConfig
from drivesim.video import write_image

CONFIG = ImportConfig(max_speed_mps=DONKEYCAR_MAX_SPEED_MPS, max_steering_rad=DONKEYCAR_MAX_STEERING_RAD)
SCENE = make_scene(24)


def check_log(log: DriveLog, rows: list[int] | None = None) -> None:
    """The log is the scene: times, motion with left positive, pictures in their order."""
    rows = list(range(24)) if rows is None else rows
    log.check()
    assert log.speed_mps is not None
    assert log.steering_rad is not None
    np.testing.assert_allclose(
        log.frame_times_s, SCENE.timestamps_s[rows] - SCENE.timestamps_s[rows[0]], atol=2e-3
    )
    np.testing.assert_allclose(log.speed_mps.values, at_instants(SCENE.speed_mps)[rows], atol=1e-6)
    np.testing.assert_allclose(log.steering_rad.values, at_instants(SCENE.steering_rad)[rows], atol=1e-6)
    for position, row in enumerate(rows[::7]):
        np.testing.assert_allclose(log.frames[position * 7].mean(), SCENE.frames[row].mean(), atol=0.8)


def test_v1_in_the_order_of_numbers(tmp_path: Path) -> None:
    write_donkeycar_v1(tmp_path / "tub 1 größer", SCENE)
    (log,) = read_donkeycar(tmp_path, CONFIG)
    check_log(log)
    assert log.name == "tub 1 größer"
    assert log.problems == ["speed is the throttle times 20 m/s; inertia is not in it"]
    assert [path.name for path in log.frames.paths[9:11]] == [
        "9_cam-image_array_.jpg",
        "10_cam-image_array_.jpg",
    ]  # type: ignore[attr-defined]


def test_v1_without_times_and_with_excluded_records(tmp_path: Path) -> None:
    tub = write_donkeycar_v1(tmp_path / "tub", SCENE, has_times=False)
    (tub / "exclude.json").write_text("[3, 4]")
    (log,) = read_donkeycar(tub, ImportConfig(max_speed_mps=20.0, max_steering_rad=0.4, recorded_rate_hz=6.0))
    check_log(log, [index for index in range(24) if index not in (3, 4)])
    (assumed,) = read_donkeycar(tub, CONFIG)
    assert assumed.frame_times_s[-1] == pytest.approx(23 / 20)
    assert "20 pictures per second are taken" in assumed.problems[0]


def test_v1_clock_that_starts_again_is_another_drive(tmp_path: Path) -> None:
    tub = write_donkeycar_v1(tmp_path / "tub", SCENE)
    for index in range(12, 24):
        path = tub / f"record_{index}.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"milliseconds": record["milliseconds"] - 2000}))
    logs = read_donkeycar(tub, CONFIG)
    assert [(log.name, len(log.frames)) for log in logs] == [("tub--1", 12), ("tub--2", 12)]


def test_v2_without_deleted_records(tmp_path: Path) -> None:
    tub = write_donkeycar_v2(tmp_path / "data", SCENE, deleted=[0, 11, 12])
    (log,) = read_donkeycar(tub, CONFIG)
    check_log(log, [index for index in range(24) if index not in (0, 11, 12)])


def test_all_tubs_of_a_folder_and_no_loops(tmp_path: Path) -> None:
    write_donkeycar_v2(tmp_path / "car" / "b", SCENE)
    write_donkeycar_v1(tmp_path / "car" / "a", SCENE)
    os.symlink(tmp_path / "car", tmp_path / "car" / "loop")
    assert [log.name for log in read_donkeycar(tmp_path, CONFIG)] == ["car--a", "car--b"]


def test_speed_needs_a_flag_unless_an_encoder_measured_it(tmp_path: Path) -> None:
    tub = write_donkeycar_v2(tmp_path / "data", SCENE)
    with pytest.raises(InputError, match="--max-speed"):
        read_donkeycar(tub, ImportConfig())
    for catalog in tub.glob("*.catalog"):
        records = [json.loads(line) | {"enc/speed": 1.5} for line in catalog.read_text().splitlines()]
        catalog.write_text("\n".join(map(json.dumps, records)))
    (log,) = read_donkeycar(tub, ImportConfig())
    assert log.speed_mps is not None
    assert set(log.speed_mps.values) == {1.5}
    assert log.problems == ["full steering is taken as 25 degrees of the road wheels (--max-steering)"]


def test_sign_and_pilot(tmp_path: Path) -> None:
    tub = write_donkeycar_v1(tmp_path / "tub", SCENE)
    path = tub / "record_5.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"user/mode": "local_angle", "pilot/angle": 0.5}))
    path = tub / "record_6.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"user/mode": "local"})
    )  # what drove is not known
    (log,) = read_donkeycar(tub, CONFIG)
    (mirrored,) = read_donkeycar(
        tub, ImportConfig(max_speed_mps=20.0, max_steering_rad=0.4, is_right_positive=False)
    )
    assert log.steering_rad is not None
    assert mirrored.steering_rad is not None
    assert log.steering_rad.values[5] == pytest.approx(-0.5 * DONKEYCAR_MAX_STEERING_RAD)
    np.testing.assert_allclose(mirrored.steering_rad.values, -log.steering_rad.values)
    assert len(log.frames) == 23
    assert any("record_6.json" in problem for problem in log.problems)


BROKEN_LINES = {
    "truncated": '{"user/angle": 0.1, "user/thr',
    "not an object": "[1, 2]",
    "deep": "[" * 100_000,
    "huge integer": '{"_timestamp_ms": ' + "9" * 10_000 + "}",
    "huge number": '{"cam/image_array": "0_cam_image_array_.jpg", "user/angle": 1e308, "user/throttle": 0}',
    "not a number": '{"cam/image_array": "0_cam_image_array_.jpg", "user/angle": NaN, "user/throttle": 0}',
    "leads out": '{"cam/image_array": "../../secret.jpg", "user/angle": 0, "user/throttle": 0}',
    "absolute": '{"cam/image_array": "/etc/hostname", "user/angle": 0, "user/throttle": 0}',
    "no picture": '{"cam/image_array": "99_cam_image_array_.jpg", "user/angle": 0, "user/throttle": 0}',
    "other encoding": '{"user/mode": "\udcff"}',
    "blank": "   ",
    "long": "x" * (3 << 20),
}


@pytest.mark.parametrize("line", BROKEN_LINES.values(), ids=BROKEN_LINES.keys())
def test_broken_line_is_left_out(tmp_path: Path, line: str) -> None:
    tub = write_donkeycar_v2(tmp_path / "data", SCENE)
    lines = (tub / "catalog_1.catalog").read_text().splitlines()
    lines[3] = line
    (tub / "catalog_1.catalog").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    (log,) = read_donkeycar(tub, CONFIG)
    check_log(log, [index for index in range(24) if index != 13])
    assert (len(log.problems) == 2) is (line.strip() != "")


def test_broken_pictures_are_left_out_or_named(tmp_path: Path) -> None:
    tub = write_donkeycar_v1(tmp_path / "tub", SCENE)
    (tub / "4_cam-image_array_.jpg").write_bytes(b"")
    whole = (tub / "5_cam-image_array_.jpg").read_bytes()
    (tub / "5_cam-image_array_.jpg").write_bytes(whole[: len(whole) // 2])
    (tub / "6_cam-image_array_.jpg").unlink()
    write_image(tub / "7_cam-image_array_.jpg", SCENE.frames[7][:64])
    (log,) = read_donkeycar(tub, CONFIG)
    assert len(log.frames) == 22
    assert "2 records were left out: their picture is missing or empty (first: record_4.json)" in log.problems
    with pytest.raises(InputError, match=r"5_cam-image_array_\.jpg is truncated"):
        log.frames[4]
    assert log.frames[5].shape == (64, 224, 3)  # of another size: whoever makes scenes fits it


def test_whole_tubs_that_are_refused(tmp_path: Path) -> None:
    tub = write_donkeycar_v2(tmp_path / "data", SCENE)
    manifest = (tub / "manifest.json").read_text().splitlines()
    for last, words in (
        ('{"paths": ["../other/catalog_0.catalog"]}', "outside its folder"),
        ('{"paths": 7}', "no manifest of a tub"),
        ("[" * 5000, "no manifest of a tub"),
    ):
        (tub / "manifest.json").write_text("\n".join([*manifest[:-1], last]))
        with pytest.raises(InputError, match=words):
            read_donkeycar(tub, CONFIG)
    (tub / "manifest.json").write_text("\n".join(manifest))
    for catalog in tub.glob("*.catalog"):
        catalog.write_text("broken\n")
    with pytest.raises(InputError, match="holds no usable record: 3 records were left out"):
        read_donkeycar(tub, CONFIG)
    with pytest.raises(InputError, match="does not exist"):
        read_donkeycar(tmp_path / "nowhere", CONFIG)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no Donkeycar tub"):
        read_donkeycar(tmp_path / "empty", CONFIG)


def test_wrong_times_cost_their_rows_only(tmp_path: Path) -> None:
    tub = write_donkeycar_v2(tmp_path / "data", SCENE)
    lines = (tub / "catalog_0.catalog").read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | {"_timestamp_ms": 9_000_000_000_000})
    lines[5] = json.dumps(json.loads(lines[5]) | {"_timestamp_ms": 0})
    lines[6] = json.dumps(json.loads(lines[6]) | {"_timestamp_ms": "soon"})
    (tub / "catalog_0.catalog").write_text("\n".join(lines))
    (log,) = read_donkeycar(tub, CONFIG)
    check_log(log, [index for index in range(24) if index not in (2, 5, 6)])


def test_one_frame_and_no_manifest(tmp_path: Path) -> None:
    tub = write_donkeycar_v2(tmp_path / "data", make_scene(1))
    (tub / "manifest.json").unlink()
    (log,) = read_donkeycar(tub, CONFIG)
    assert (len(log.frames), log.speed_mps) == (1, None)
    assert log.problems[0] == "data has no manifest.json; records that were deleted cannot be told"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, 3000),
    junk=st.binary(max_size=40),
    name=st.sampled_from(["manifest.json", "catalog_0.catalog"]),
)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes, name: str
) -> None:
    tub = write_donkeycar_v2(tmp_path_factory.mktemp("fuzz") / "data", make_scene(4))
    data = (tub / name).read_bytes()
    cut %= len(data)
    (tub / name).write_bytes(data[:cut] + junk + data[cut + len(junk) :])
    try:
        logs = read_donkeycar(tub, CONFIG)
    except InputError:
        return
    for log in logs:
        log.check()
