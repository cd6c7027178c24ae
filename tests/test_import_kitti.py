"""KITTI raw drives, as they are and broken."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from foreign_recordings import at_instants, write_kitti
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import make_scene

from drivesim.errors import InputError
from drivesim.imports.kitti import read_kitti
from drivesim.imports.options import ImportConfig
from drivesim.scene.geometry import transform_points, wrap_angle

CONFIG = ImportConfig()
SCENE = make_scene(16)


def packet(drive: Path, index: int) -> Path:
    return drive / "oxts" / "data" / f"{index:010d}.txt"


def picture(drive: Path, index: int) -> Path:
    return drive / "image_02" / "data" / f"{index:010d}.png"


def test_motion_and_pictures(tmp_path: Path) -> None:
    write_kitti(tmp_path / "Straße 1", SCENE)
    (log,) = read_kitti(tmp_path, CONFIG)
    log.check()
    assert log.name == "Straße 1--2011_09_26--2011_09_26_drive_0005_sync"
    assert log.speed_mps is not None
    assert log.yaw_rate_radps is not None
    assert log.track is not None
    assert log.steering_rad is None
    np.testing.assert_allclose(log.frame_times_s, SCENE.timestamps_s, atol=1e-6)
    np.testing.assert_allclose(log.speed_mps.values, at_instants(SCENE.speed_mps), atol=1e-6)
    np.testing.assert_allclose(log.yaw_rate_radps.values, at_instants(SCENE.yaw_rate_radps), atol=1e-6)
    np.testing.assert_allclose(log.track.xy_m - log.track.xy_m[0], SCENE.xy_m - SCENE.xy_m[0], atol=1e-3)
    np.testing.assert_allclose(wrap_angle(log.track.yaw_rad - SCENE.yaw_rad), 0, atol=1e-6)
    np.testing.assert_array_equal(log.frames[11], SCENE.frames[11])
    assert log.problems == []


def test_camera_from_the_calibration_of_the_day(tmp_path: Path) -> None:
    drive = write_kitti(tmp_path, SCENE)
    (log,) = read_kitti(drive, CONFIG)
    assert log.camera is not None
    assert (log.camera.width_px, log.camera.fx_px, log.camera.cy_px) == (224, 721.5377, 172.854)
    place = log.camera.ego_from_cam[:3, 3]
    np.testing.assert_allclose(place, [1.03, 0.06, 1.65], atol=0.12)
    far_m = transform_points(log.camera.ego_from_cam, [0.0, 0.0, 100.0]) - place
    assert far_m[0] > 99.9
    assert abs(far_m[1]) < 2.5
    (tmp_path / "2011_09_26" / "calib_imu_to_velo.txt").write_text("R: 1 2\nT: nan inf x\n")
    (drawn,) = read_kitti(drive, CONFIG)
    assert drawn.camera is not None
    assert drawn.camera.ego_from_cam[:3, 3].tolist() == [1.03, 0.06, 1.65]
    assert drawn.problems == ["the place of the camera is taken from KITTI's drawing of the car"]


@pytest.mark.parametrize(
    "text", ["", "P_rect_02: 1 2 3", f"P_rect_02: {'0 ' * 12}", "\x00\xff", "S_rect_02: 9 9"]
)
def test_calibration_that_is_none(tmp_path: Path, text: str) -> None:
    drive = write_kitti(tmp_path, SCENE)
    (tmp_path / "2011_09_26" / "calib_cam_to_cam.txt").write_text(text, encoding="latin-1")
    (log,) = read_kitti(drive, CONFIG)
    assert log.camera is None
    assert "the field of view is not known" in log.problems[0]


def test_calibration_of_another_size(tmp_path: Path) -> None:
    drive = write_kitti(tmp_path, SCENE)
    path = tmp_path / "2011_09_26" / "calib_cam_to_cam.txt"
    path.write_text(path.read_text().replace("2.240000e+02", "1.242000e+03"))
    (log,) = read_kitti(drive, CONFIG)
    assert log.camera is None
    assert "not of the size that was calibrated (1242x128 px)" in log.problems[0]


def test_rows_that_lack_a_file_a_time_or_numbers(tmp_path: Path) -> None:
    drive = write_kitti(tmp_path, SCENE)
    picture(drive, 3).unlink()
    picture(drive, 4).write_bytes(b"")
    packet(drive, 5).write_text("49.0 8.4 112")
    packet(drive, 6).write_text(packet(drive, 6).read_text().replace("49.", "nan "))
    words = packet(drive, 7).read_text().split()
    words[8], words[0] = "1e308", "-1e9"
    packet(drive, 7).write_text(" ".join(words))
    stamps = (drive / "image_02" / "timestamps.txt").read_text().splitlines()
    stamps[9], stamps[11] = "2011-99-99 25:61:00.5", "1970-01-01 00:00:00.000000000"
    (drive / "image_02" / "timestamps.txt").write_text("\r\n".join(stamps))
    (log,) = read_kitti(drive, CONFIG)
    log.check()
    rows = [index for index in range(16) if index not in (3, 4, 9, 11)]
    np.testing.assert_allclose(log.frame_times_s, SCENE.timestamps_s[rows], atol=1e-6)
    np.testing.assert_array_equal(log.frames[-1], SCENE.frames[15])
    assert log.speed_mps is not None
    assert log.track is not None
    assert (len(log.speed_mps.values), len(log.track.yaw_rad)) == (13, 13)
    assert len(log.problems) == 5


def test_one_picture_and_two_drives(tmp_path: Path) -> None:
    write_kitti(tmp_path, make_scene(1), number=12)
    write_kitti(tmp_path, make_scene(3), number=9)
    os.symlink(tmp_path, tmp_path / "loop")
    logs = read_kitti(tmp_path, CONFIG)
    assert [len(log.frames) for log in logs] == [3, 1]
    assert (logs[1].speed_mps, logs[1].track) == (None, None)


def test_whole_drives_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no KITTI raw drive"):
        read_kitti(tmp_path, CONFIG)
    drive = write_kitti(tmp_path, make_scene(3))
    for index in range(3):
        packet(drive, index).write_text("no numbers here")
    with pytest.raises(InputError, match="no OXTS packet of 30 numbers"):
        read_kitti(drive, CONFIG)
    (drive / "oxts" / "timestamps.txt").write_text("yesterday\n")
    with pytest.raises(InputError, match="holds no file with a time"):
        read_kitti(drive, CONFIG)
    (drive / "oxts" / "timestamps.txt").unlink()
    with pytest.raises(InputError, match=r"cannot read .*timestamps\.txt"):
        read_kitti(drive, CONFIG)


def test_read_only_folder(tmp_path: Path) -> None:
    drive = write_kitti(tmp_path, make_scene(3))
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert len(read_kitti(drive, CONFIG)[0].frames) == 3
    finally:
        for folder in folders:
            folder.chmod(0o755)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(
        ["oxts/timestamps.txt", "image_02/timestamps.txt", "oxts/data/0000000002.txt", "calib"]
    ),
    place=st.integers(0, 500),
    junk=st.one_of(st.binary(max_size=30), st.sampled_from([b"1e999", b"-9" * 300, b"NaN ", b"\n\n", b"\0"])),
)
def test_any_text_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, place: int, junk: bytes
) -> None:
    drive = write_kitti(tmp_path_factory.mktemp("fuzz"), make_scene(4))
    path = drive.parent / "calib_cam_to_cam.txt" if name == "calib" else drive / name
    data = path.read_bytes()
    place %= len(data)
    path.write_bytes(data[:place] + junk + data[place + len(junk) :])
    try:
        (log,) = read_kitti(drive, CONFIG)
    except InputError:
        return
    log.check()
