"""comma2k19 segments, as they are and broken."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from foreign_recordings import COMMA_RATIO, at_instants, save_array, shown_frame, write_comma2k19
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import make_scene

from drivesim.errors import InputError
from drivesim.imports.comma2k19 import read_comma2k19
from drivesim.imports.numpy_files import read_array
from drivesim.imports.options import ImportConfig
from drivesim.scene.geometry import wrap_angle
from drivesim.scene.types import Image, front_camera

CONFIG = ImportConfig()
SCENE = make_scene(24)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comma") / "Chunk 3, Küste"
    write_comma2k19(folder, SCENE, segment=10, pitch_rad=0.06)
    write_comma2k19(folder, SCENE, segment=9)
    return folder


def segment_of(tmp_path: Path, num_frames: int = 12) -> Path:
    return write_comma2k19(tmp_path, make_scene(num_frames))


def test_motion_and_pictures(root: Path) -> None:
    logs = read_comma2k19(root, CONFIG)
    assert [log.name.rsplit("--", 1)[1] for log in logs] == ["9", "10"]
    assert all("|" not in log.name for log in logs)
    log = logs[0]
    log.check()
    assert log.problems == []
    assert log.speed_mps is not None
    assert log.steering_rad is not None
    assert log.track is not None
    times_s = log.frame_times_s
    np.testing.assert_allclose(times_s, SCENE.timestamps_s, atol=1e-9)
    speed = np.interp(times_s, log.speed_mps.times_s, log.speed_mps.values)
    steering = np.interp(times_s, log.steering_rad.times_s, log.steering_rad.values)
    np.testing.assert_allclose(speed, at_instants(SCENE.speed_mps), atol=0.01)
    np.testing.assert_allclose(steering, at_instants(SCENE.steering_rad), atol=1e-3)
    np.testing.assert_allclose(log.track.xy_m - log.track.xy_m[0], SCENE.xy_m - SCENE.xy_m[0], atol=1e-3)
    np.testing.assert_allclose(wrap_angle(log.track.yaw_rad - SCENE.yaw_rad), 0, atol=1e-3)
    for index in (20, 3, 4, 23):  # forward and back
        assert shown_frame(log.frames[index], SCENE) == index


def test_camera_looks_as_it_travels(root: Path) -> None:
    level, tilted = (log.camera for log in read_comma2k19(root, CONFIG))
    assert level is not None
    assert tilted is not None
    assert (level.width_px, level.height_px, level.fx_px, level.cx_px) == (1164, 874, 910.0, 582.0)
    ahead = front_camera(forward_m=1.7, above_ground_m=1.5).ego_from_cam
    np.testing.assert_allclose(level.ego_from_cam, ahead, atol=1e-3)
    np.testing.assert_allclose(tilted.ego_from_cam[:3, 2], [np.cos(0.06), 0, -np.sin(0.06)], atol=1e-3)


def test_a_broken_segment_does_not_cost_the_others(tmp_path: Path) -> None:
    write_comma2k19(tmp_path, make_scene(6), segment=1)
    (write_comma2k19(tmp_path, make_scene(6), segment=2) / "global_pose" / "frame_times").write_bytes(b"")
    (log,) = read_comma2k19(tmp_path, CONFIG)
    assert log.name.endswith("--1")
    assert "a recording was left out: " in log.problems[0]
    assert "frame_times" in log.problems[0]


def test_ratio_is_that_of_the_car(tmp_path: Path) -> None:
    write_comma2k19(tmp_path, make_scene(6), route="b0c9d2329ad1606b_2018-08-02--08-34-47")
    write_comma2k19(tmp_path, make_scene(6), route="other")
    rav4, other = read_comma2k19(tmp_path, CONFIG)
    given_ratio = read_comma2k19(tmp_path / "other", ImportConfig(steering_ratio=COMMA_RATIO))[0]
    assert given_ratio.problems == []
    assert rav4.steering_rad is not None
    assert other.steering_rad is not None
    assert given_ratio.steering_rad is not None
    np.testing.assert_allclose(rav4.steering_rad.values * 16.88, other.steering_rad.values * 16.0)
    np.testing.assert_allclose(given_ratio.steering_rad.values * 15.38, other.steering_rad.values * 16.0)
    assert "its steering ratio is taken as 16" in other.problems[0]


def test_video_shorter_than_its_times(tmp_path: Path) -> None:
    segment = segment_of(tmp_path)
    write_comma2k19(tmp_path / "short", make_scene(8))
    os.replace(next((tmp_path / "short").rglob("video.hevc")), segment / "video.hevc")
    (log,) = read_comma2k19(segment, CONFIG)
    assert len(log.frames) == len(log.frame_times_s) == 8
    assert "video.hevc has 8 frames but 12 times" in log.problems[0]


def test_damaged_video_is_told_by_frame(tmp_path: Path) -> None:
    segment = segment_of(tmp_path, 24)
    data = (segment / "video.hevc").read_bytes()
    (segment / "video.hevc").write_bytes(data[: len(data) * 9 // 10])
    (log,) = read_comma2k19(segment, CONFIG)
    assert 12 < len(log.frames) < 24
    assert log.frames[0].shape == (128, 224, 3)
    (segment / "video.hevc").write_bytes(data[:2500] + b"\0" * 1500 + data[4000:])
    (log,) = read_comma2k19(segment, CONFIG)
    with pytest.raises(
        InputError, match=r"frame \d+ of video .*video\.hevc cannot be decoded \(damaged from frame"
    ):
        log.frames[-1]
    (segment / "video.hevc").write_bytes(b"")
    with pytest.raises(InputError, match=r"video .*video\.hevc holds no frame"):
        read_comma2k19(segment, CONFIG)


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    segment = segment_of(tmp_path)
    times_s = 1234.5 + SCENE.timestamps_s[:12]
    times_s[4], times_s[7] = np.nan, 0.0
    save_array(segment / "global_pose" / "frame_times", times_s)
    speed = read_array(segment / "processed_log" / "CAN" / "speed" / "value")
    speed[:5], speed[6] = np.nan, 1e300
    save_array(segment / "processed_log" / "CAN" / "speed" / "value", speed)
    (log,) = read_comma2k19(segment, CONFIG)
    assert len(log.frames) == 10
    assert shown_frame(log.frames[4], SCENE) == 5
    assert any("2 frames have a time that is missing" in problem for problem in log.problems)
    assert any("6 of " in problem and "readings of speed" in problem for problem in log.problems)


def test_missing_parts_are_done_without(tmp_path: Path) -> None:
    segment = segment_of(tmp_path)
    can = segment / "processed_log" / "CAN"
    (can / "steering_angle" / "value").write_bytes(b"")
    os.replace(can / "speed", can / "car_speed")
    (segment / "global_pose" / "frame_orientations").unlink()
    (log,) = read_comma2k19(segment, CONFIG)
    assert log.speed_mps is not None
    assert (log.steering_rad, log.track) == (None, None)
    assert len(log.problems) == 2
    (can / "car_speed" / "t").unlink()
    with pytest.raises(InputError, match="neither speed nor poses"):
        read_comma2k19(segment, CONFIG)
    (segment / "global_pose" / "frame_times").unlink()
    with pytest.raises(InputError, match="frame_times"):
        read_comma2k19(segment, CONFIG)
    with pytest.raises(InputError, match="holds no comma2k19 segment"):
        read_comma2k19(can, CONFIG)


class Bomb:
    """Would make a file if it were ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def header(text: str) -> bytes:
    data = text.encode("latin-1").ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data


BROKEN_ARRAYS = {
    "huge shape": header("{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }")
    + b"\0" * 64,
    "overflowing shape": header(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (9223372036854775807, 9), }"
    ),
    "negative shape": header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }") + b"\0" * 64,
    "nested": header("(" * 110),
    "code": header("__import__('os').getcwd()"),
    "texts": header("{'descr': '<U4', 'fortran_order': False, 'shape': (2,), }") + b"\0" * 64,
    "scalar": header("{'descr': '<f8', 'fortran_order': False, 'shape': (), }") + b"\0" * 8,
    "none": header("{'descr': '<f8', 'fortran_order': False, 'shape': (0,), }"),
    "empty": b"",
    "zip": b"PK\x03\x04",
    "long header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"{" * 100,
}


@pytest.mark.parametrize("data", BROKEN_ARRAYS.values(), ids=BROKEN_ARRAYS.keys())
def test_broken_arrays(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "value"
    path.write_bytes(data)
    with pytest.raises(InputError, match="value"):
        read_array(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    (tmp_path / "t").write_bytes(pickle.dumps(Bomb(touched)))
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(touched)], dtype=object), allow_pickle=True)
    (tmp_path / "value").write_bytes(buffer.getvalue())
    for name in ("t", "value"):
        with pytest.raises(InputError, match="not a numpy array"):
            read_array(tmp_path / name)
    assert not touched.exists()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 200), junk=st.binary(min_size=1, max_size=16), cut=st.integers(0, 400))
def test_any_array_is_read_or_refused(tmp_path: Path, place: int, junk: bytes, cut: int) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.linspace(0, 1, 30))
    data = bytearray(buffer.getvalue())
    data[place : place + len(junk)] = junk
    (tmp_path / "value").write_bytes(bytes(data[: cut + 20]))
    try:
        values = read_array(tmp_path / "value")
    except InputError:
        return
    assert values.ndim == 1
    assert values.size <= 400


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 4000), junk=st.binary(min_size=1, max_size=60))
def test_any_video_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, junk: bytes
) -> None:
    segment = segment_of(tmp_path_factory.mktemp("fuzz"), 5)
    data = bytearray((segment / "video.hevc").read_bytes())
    place %= len(data)
    data[place : place + len(junk)] = junk
    (segment / "video.hevc").write_bytes(bytes(data))
    readable: list[Image] = []
    try:
        (log,) = read_comma2k19(segment, CONFIG)
        readable.extend(log.frames)
    except InputError:
        pass
    assert len(readable) <= 5
