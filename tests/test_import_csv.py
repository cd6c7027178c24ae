"""Tables as people have them, and what is wrong with them; every message names file and row."""

from __future__ import annotations

import os
import pickle
import re
import shutil

import numpy as np
import pytest
from drive_files import (
    RATE_HZ,
    driven,
    table_text,
    write_picture_drive,
    write_udacity_drive,
    write_video_drive,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from drivesim.errors import InputError
from drivesim.imports.csv_table import moment_s, number, plain_name, read_table
from drivesim.imports.csv_video import read_csv_video
from drivesim.imports.foreign_files import natural_key
from drivesim.imports.media_of_rows import times_in_names
from drivesim.imports.options import ImportConfig, SpeedUnit, SteeringUnit, TimeUnit
from drivesim.imports.remarks import Check, Loss
from drivesim.imports.udacity import read_udacity, time_of_name_s
from drivesim.video import write_image, write_video

CONFIG = ImportConfig()
PART = driven().part(0, 24)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Recordings that tests copy before they break them."""
    root = tmp_path_factory.mktemp("kept")
    write_picture_drive(root / "pictures", PART)
    write_udacity_drive(root / "udacity", PART)
    write_video_drive(root / "video", PART)
    return root


@pytest.fixture
def copied(kept, tmp_path):
    def copy(name):
        return shutil.copytree(kept / name, tmp_path / f"été {name}")

    return copy


def edit(path, change):
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n")


def check_readings(log, *, tolerance=2e-6):
    assert len(log.frames) == len(log.frame_times_s)
    start = log.frame_times_s[0]
    np.testing.assert_allclose(log.frame_times_s - start, PART.times_s, atol=1e-3)
    np.testing.assert_allclose(log.steering_rad.values, PART.steering_rad, atol=tolerance)
    np.testing.assert_allclose(log.speed_mps.values, PART.speed_mps, atol=max(tolerance, 2e-5))
    log.check()


# ------------------------------------------------------------------------------------- good recordings


def test_pictures_named_by_the_table(copied):
    (log,) = read_csv_video(copied("pictures"), CONFIG)
    check_readings(log)
    assert log.name == "été pictures"
    assert log.problems == []
    assert np.abs(log.frames[10].astype(float) - PART.frames[10]).mean() < 6
    assert len(log.frames[3:5]) == 2


def test_video_by_its_timestamps_in_any_order(copied):
    (log,) = read_csv_video(copied("video"), CONFIG)
    check_readings(log)
    for index in (20, 3, 4, 5, 23, 0):
        assert np.abs(log.frames[index].astype(float) - PART.frames[index]).mean() < 8
    assert len(log.frames[2:4]) == 2
    copy = pickle.loads(pickle.dumps(log.frames))
    np.testing.assert_array_equal(copy[7], log.frames[7])


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ", ", " "])
def test_delimiters(copied, delimiter):
    folder = copied("video")
    (folder / "drive.csv").write_text(table_text(PART, delimiter=delimiter))
    check_readings(read_csv_video(folder, CONFIG)[0])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252"])
def test_encodings(copied, encoding):
    folder = copied("video")
    text = table_text(PART).replace("speed_mps", "speed_mps,défaut").replace("\n", ",é\n")
    text = text.replace("speed_mps,défaut,é", "speed_mps,défaut")
    (folder / "drive.csv").write_bytes(text.encode(encoding))
    check_readings(read_csv_video(folder, CONFIG)[0])


def test_decimal_commas_and_trailing_delimiters(copied):
    folder = copied("video")
    text = table_text(PART, delimiter=";").replace(".", ",").replace("\n", ";\n")
    (folder / "drive.csv").write_text(text.replace("\n", "\r\n"))
    check_readings(read_csv_video(folder, CONFIG)[0])


@pytest.mark.parametrize(
    ("unit", "start"),
    [
        (TimeUnit.S, 0),
        (TimeUnit.MS, 0),
        (TimeUnit.US, 5),
        (TimeUnit.NS, 0),
        (TimeUnit.S, 1.7e9),
        (TimeUnit.NS, 1.7e9),
    ],
)
def test_time_units_are_guessed_by_size_and_said(copied, unit, start):
    folder = copied("video")
    rows = ["timestamp,angle [deg],speed km/h"]
    for time, steering, speed in zip(PART.times_s, PART.steering_rad, PART.speed_mps, strict=True):
        stamp = f"{start + time:.6f}" if unit is TimeUnit.S else round((start + time) / unit.seconds)
        rows.append(f"{stamp},{np.degrees(steering):.6f},{speed * 3.6:.6f}")
    (folder / "drive.csv").write_text("\n".join(rows))
    (log,) = read_csv_video(folder, CONFIG)
    check_readings(log, tolerance=1e-5)
    assert any(f"times are taken as {unit.value} by their size" in line for line in log.problems)
    assert any("clock of its own" in line for line in log.problems) == (start > 1)


def test_dates_are_times_too(copied):
    folder = copied("video")
    lines = table_text(PART).splitlines()
    for index, time in enumerate(PART.times_s, start=1):
        lines[index] = f"2024-05-01T10:00:{time:09.6f}," + lines[index].split(",", 1)[1]
    (folder / "drive.csv").write_text("\n".join(lines))
    check_readings(read_csv_video(folder, CONFIG)[0])
    assert moment_s("1970-01-01 00:00:01.5") == moment_s("1970-01-01T00:00:01.5+00:00") == 1.5


def test_units_signs_and_columns_by_flags(copied):
    folder = copied("video")
    rows = ["a;b;c"]
    for time, steering, speed in zip(PART.times_s, PART.steering_rad, PART.speed_mps, strict=True):
        rows.append(f"{time * 1000:.3f};{-16 * np.degrees(steering):.5f};{speed / 0.44704:.6f}")
    (folder / "drive.csv").write_text("\n".join(rows))
    with pytest.raises(
        InputError, match=r"no column of steering; its columns are a, b, c.*--steering-column"
    ):
        read_csv_video(folder, ImportConfig(time_column="a"))
    config = ImportConfig(
        time_column="1",
        time_unit=TimeUnit.MS,
        steering_column="b",
        steering_unit=SteeringUnit.DEG,
        steering_ratio=16.0,
        is_right_positive=True,
        speed_column="c",
        speed_unit=SpeedUnit.MPH,
    )
    check_readings(read_csv_video(folder, config)[0])
    with pytest.raises(InputError, match=r"no column 'd'; it has a, b, c"):
        read_csv_video(folder, ImportConfig(time_column="d"))


def test_table_without_heading_needs_column_numbers(copied):
    folder = copied("video")
    edit(folder / "drive.csv", lambda lines: lines.pop(0))
    with pytest.raises(InputError, match=r"3 columns without a heading.*--steering-column"):
        read_csv_video(folder, CONFIG)
    config = ImportConfig(time_column="1", steering_column="2", speed_column="3")
    check_readings(read_csv_video(folder, config)[0])
    with pytest.raises(InputError, match=r"no column '4'; it has no heading, but 3 columns"):
        read_csv_video(folder, ImportConfig(time_column="4"))


def test_pictures_row_by_row_and_by_times_in_names(copied):
    folder = copied("pictures")
    (folder / "log.csv").write_text(table_text(PART))
    (log,) = read_csv_video(folder, CONFIG)
    check_readings(log)
    assert any("row by row" in line for line in log.problems)
    for index in reversed(range(24)):
        (folder / f"images/{index}.jpg").rename(
            folder / f"images/frame_{round(index * 1000 / RATE_HZ) + 10**6}.jpg"
        )
    (folder / "images" / f"frame_{10**6}.jpg").unlink()
    (folder / "log.csv").write_text(table_text(PART, start_s=1000.0))
    (log,) = read_csv_video(folder, CONFIG)
    assert len(log.frames) == 23
    np.testing.assert_allclose(log.frame_times_s, 1000 + PART.times_s[1:], atol=1e-3)
    (folder / "images" / f"frame_{10**6 + 83}.jpg").rename(folder / "images" / "x.jpg")
    with pytest.raises(InputError, match=r"24 rows, but there are 23 pictures.*column 'file'"):
        read_csv_video(folder, CONFIG)


@pytest.mark.parametrize(("unit", "digits"), [(1.0, 6), (1e-3, 0), (1e-6, 0)])
def test_times_in_names_come_before_equal_counts(copied, unit, digits):
    folder = copied("pictures")
    for index in range(24):
        name = f"cam_{(1000.5 + PART.times_s[index]) / unit:.{digits}f}".rstrip("0" if digits else "")
        (folder / f"images/{index}.jpg").rename(folder / f"images/{name}.jpg")
    (folder / "log.csv").write_text(table_text(PART, start_s=1000.0))
    (log,) = read_csv_video(folder, CONFIG)
    np.testing.assert_allclose(log.frame_times_s, 1000.5 + PART.times_s, atol=1e-3)
    assert np.abs(log.frames[5].astype(float) - PART.frames[5]).mean() < 6
    assert log.problems == [
        "pictures are matched by the times in their names, though there are as many as rows"
    ]


def test_counters_in_names_are_no_times(copied):
    folder = copied("pictures")
    rows = ["time_s,steering_rad,speed_mps", *(f"{0.98 * index:.3f},0.01,5" for index in range(24))]
    (folder / "log.csv").write_text("\n".join(rows))
    (log,) = read_csv_video(folder, CONFIG)
    np.testing.assert_allclose(log.frame_times_s, 0.98 * np.arange(24))
    assert log.problems == ["pictures are matched row by row, in the order of their names"]


def test_a_table_beside_that_is_no_drive(copied):
    folder = copied("video")
    (folder / "calibration.csv").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(InputError, match=r"holds 2 tables \(calibration.csv, drive.csv\).*as SRC.*csv '/"):
        read_csv_video(folder, CONFIG)
    check_readings(read_csv_video(folder / "drive.csv", CONFIG)[0])


def test_rate_may_stand_for_times(copied):
    folder = copied("pictures")
    edit(
        folder / "log.csv",
        lambda lines: lines.__setitem__(slice(None), [line.split(",", 1)[1] for line in lines]),
    )
    with pytest.raises(InputError, match=r"no column of times.*--recorded-rate"):
        read_csv_video(folder, CONFIG)
    check_readings(read_csv_video(folder, ImportConfig(recorded_rate_hz=RATE_HZ))[0])


def test_frame_numbers_and_wrong_rate_of_a_video(copied):
    folder = copied("video")
    lines = [
        f"{i - 1 if i else 'frame'},{line.split(',', 1)[1]}"
        for i, line in enumerate(table_text(PART).splitlines())
    ]
    (folder / "drive.csv").write_text("\n".join(lines))
    check_readings(read_csv_video(folder, CONFIG)[0])
    write_video(folder / "drive.mp4", PART.frames, 30.0)
    (folder / "drive.csv").write_text(table_text(PART))
    (log,) = read_csv_video(folder, CONFIG)
    check_readings(log)
    assert any("the times of the rows are used" in line for line in log.problems)


def test_throttle_needs_a_largest_speed(copied):
    folder = copied("video")
    edit(folder / "drive.csv", lambda lines: lines.__setitem__(0, "time_s,steering_rad,throttle"))
    with pytest.raises(InputError, match=r"no column of speed.*--max-speed"):
        read_csv_video(folder, CONFIG)
    (log,) = read_csv_video(folder, ImportConfig(max_speed_mps=2.0))
    np.testing.assert_allclose(log.speed_mps.values, 2 * PART.speed_mps, rtol=1e-4)


def test_several_recordings_in_one_folder_and_in_folders(copied, tmp_path):
    folder = copied("video")
    shutil.copy(folder / "drive.mp4", folder / "other.mp4")
    shutil.copy(folder / "drive.csv", folder / "other.csv")
    assert [log.name for log in read_csv_video(folder, CONFIG)] == ["été video-drive", "été video-other"]
    copied("pictures")
    (tmp_path / "empty").mkdir()
    logs = read_csv_video(tmp_path, CONFIG)
    assert [log.name for log in logs] == ["été pictures", "été video-drive", "été video-other"]


def test_offset_moves_the_readings(copied):
    for name in ("video", "pictures"):
        (log,) = read_csv_video(copied(name), ImportConfig(time_offset_s=0.25))
        np.testing.assert_allclose(log.speed_mps.times_s - log.frame_times_s, 0.25, atol=1e-3)


@pytest.mark.parametrize(
    "heading", ["Time (ms),Steering Angle (rad),Speed [m/s]", "time milliseconds;steering_radians;Speed kmph"]
)
def test_units_in_headings(copied, heading):
    folder = copied("video")
    faster = 3.6 if "kmph" in heading else 1.0
    rows = [heading.replace(";", ",")]
    for time, steering, speed in zip(PART.times_s, PART.steering_rad, PART.speed_mps, strict=True):
        rows.append(f"{time * 1000:.4f},{steering:.7f},{speed * faster:.6f}")
    (folder / "drive.csv").write_text("\n".join(rows))
    (log,) = read_csv_video(folder, CONFIG)
    check_readings(log)
    assert not any("taken as" in line for line in log.problems)


def test_the_steering_wheel_turns_farther_than_the_road_wheels(copied):
    folder = copied("video")
    rows = ["time_s,steering_wheel_angle_deg,speed_mps"]
    for time, steering, speed in zip(PART.times_s, PART.steering_rad, PART.speed_mps, strict=True):
        rows.append(f"{time:.4f},{np.degrees(steering) * 16:.6f},{speed:.6f}")
    (folder / "drive.csv").write_text("\n".join(rows))
    (log,) = read_csv_video(folder, CONFIG)
    check_readings(log)
    assert ["--steering-ratio" in line for line in log.problems] == [True]
    (log,) = read_csv_video(folder, ImportConfig(steering_ratio=32.0))
    np.testing.assert_allclose(log.steering_rad.values, PART.steering_rad / 2, atol=1e-6)
    assert log.problems == []


def test_guessed_units_are_to_be_checked(copied):
    folder = copied("video")
    edit(folder / "drive.csv", lambda lines: lines.__setitem__(0, "time_s,steering,speed"))
    (log,) = read_csv_video(folder, CONFIG)
    check_readings(log)
    speed, steering = [line for line in log.problems if isinstance(line, Check)]
    mean = PART.speed_mps.mean()
    assert f"(mean {mean:.1f} m/s = {3.6 * mean:.0f} km/h); say --speed-unit" in speed
    assert "it is taken as rad (up to " in steering
    given = ImportConfig(speed_unit=SpeedUnit.KMH, steering_unit=SteeringUnit.RAD)
    assert read_csv_video(folder, given)[0].problems == []


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("0.01,90", r"over 90 \(324 km/h\); say their unit with --speed-unit km/h"),
        ("4.5,9", "reaches 4.5, too much for rad; say its unit with --steering-unit deg"),
    ],
)
def test_guessed_units_that_no_car_has_are_refused(copied, row, words):
    folder = copied("video")
    rows = ["time_s,steering,speed", *(f"{time},{row}" for time in PART.times_s)]
    (folder / "drive.csv").write_text("\n".join(rows))
    with pytest.raises(InputError, match=words):
        read_csv_video(folder, CONFIG)


def test_yaw_rate_in_degrees(copied):
    folder = copied("video")
    edit(folder / "drive.csv", lambda lines: lines.__setitem__(0, "time_s,yaw_rate_deg_s,speed_mps"))
    (log,) = read_csv_video(folder, CONFIG)
    assert log.steering_rad is None
    np.testing.assert_allclose(log.yaw_rate_radps.values, np.radians(PART.steering_rad), atol=1e-7)


# ------------------------------------------------------------------------------------------ bad ones


BROKEN_ROWS = {
    "nan": (
        lambda lines: lines.__setitem__(5, lines[5].replace(lines[5].split(",")[1], "nan")),
        r"1 rows without a steering.*row 6",
    ),
    "text": (lambda lines: lines.__setitem__(5, "0.333333,left,5"), r"1 rows without a steering.*row 6"),
    "huge": (lambda lines: lines.__setitem__(5, "0.333333,0.01,1e999"), r"1 rows without a speed.*row 6"),
    "many digits": (
        lambda lines: lines.__setitem__(5, f"0.333333,0.01,{'9' * 5000}"),
        r"1 rows without a speed.*row 6",
    ),
    "no time": (lambda lines: lines.__setitem__(5, "when,0.01,5"), r"1 rows without a time.*row 6"),
    "short row": (
        lambda lines: lines.__setitem__(5, "0.333333,0.01"),
        r"1 rows with too few or too many.*row 6",
    ),
    "long row": (
        lambda lines: lines.__setitem__(5, "0.3,0.01,5,6"),
        r"1 rows with too few or too many.*row 6",
    ),
    "backwards": (
        lambda lines: lines.__setitem__(5, "0.1,0.01,5"),
        r"1 rows left out whose time goes backwards.*row 6",
    ),
    "twice": (
        lambda lines: lines.insert(5, lines[5]),
        r"1 rows left out whose time is that of another row.*row [67]",
    ),
}


@pytest.mark.parametrize("name", BROKEN_ROWS)
def test_bad_rows_are_left_out_and_counted(copied, name):
    folder = copied("video")
    change, words = BROKEN_ROWS[name]
    edit(folder / "drive.csv", change)
    (log,) = read_csv_video(folder, CONFIG)
    log.check()
    assert len(log.steering_rad.values) in (23, 24)
    (told,) = [line for line in log.problems if re.search(words, line)]
    assert isinstance(told, Loss)


BROKEN_TABLES = {
    "empty": (lambda lines: lines.clear(), "holds no rows"),
    "heading only": (lambda lines: lines.__delitem__(slice(1, None)), "heading but no rows"),
    "no steering": (
        lambda lines: lines.__setitem__(0, "time_s,x,speed_mps"),
        "no column of steering; its columns are time_s, x",
    ),
    "no speed": (
        lambda lines: lines.__setitem__(0, "time_s,steering,y"),
        "no column of speed.*--speed-column",
    ),
    "reversed": (
        lambda lines: lines.__setitem__(slice(1, None), lines[:0:-1]),
        "row \\d+: time goes backwards there and in 22 other",
    ),
    "no numbers": (
        lambda lines: lines.__setitem__(slice(1, None), [line.split(",")[0] + ",x,y" for line in lines[1:]]),
        "row 2: .* is no number there, nor in any other row",
    ),
    "no times": (
        lambda lines: lines.__setitem__(slice(1, None), ["x," + line.split(",", 1)[1] for line in lines[1:]]),
        "row 2: 'x' is no time.*--time-column",
    ),
    "ragged": (
        lambda lines: lines.__setitem__(slice(3, None), [line + ",1" for line in lines[3:]]),
        "row 4 has not the 3 cells of the heading, nor have 21 others",
    ),
    "wheel angle": (
        lambda lines: lines.__setitem__(
            slice(None), ["time_s,steering_deg,speed_mps", *(f"{i / 12},{i * 20},5" for i in range(24))]
        ),
        "row 25: steering reaches 460 degrees.*--steering-ratio",
    ),
}


@pytest.mark.parametrize("name", BROKEN_TABLES)
def test_useless_tables_are_refused_in_one_sentence(copied, name):
    folder = copied("video")
    change, words = BROKEN_TABLES[name]
    edit(folder / "drive.csv", change)
    if name == "empty":
        (folder / "drive.csv").write_bytes(b"")
    with pytest.raises(InputError, match=words) as caught:
        read_csv_video(folder, CONFIG)
    assert "drive.csv" in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"\x00\x01\x02\xff" * 50, b"\xff\xfe\x00\xd8\x00", b"\x89PNG\r\n\x1a\n\x00\x00\x00"]
)
def test_files_that_are_no_text_are_refused(tmp_path, data):
    path = tmp_path / "drive.csv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"drive\.csv"):
        read_csv_video(path, CONFIG)


def test_missing_and_broken_pictures(copied):
    folder = copied("pictures")
    (folder / "images/5.jpg").unlink()
    (folder / "images/7.jpg").write_bytes(b"")
    (folder / "images/9.jpg").write_bytes((folder / "images/9.jpg").read_bytes()[:300])
    (log,) = read_csv_video(folder, CONFIG)
    assert any(
        "1 pictures are missing (first:" in line and "row 7: 'images/5.jpg'" in line for line in log.problems
    )
    assert (len(log.frames), len(log.steering_rad.values)) == (23, 24)
    for index in (6, 8):
        with pytest.raises(InputError, match=r"truncated"):
            log.frames[index]
    for index in range(15):
        (folder / f"images/{index}.jpg").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"15 of 24 pictures are missing.*row 2"):
        read_csv_video(folder, CONFIG)


def test_table_cannot_reach_out_of_its_folder(copied, tmp_path):
    folder = copied("pictures")
    write_image(tmp_path / "secret.jpg", PART.frames[0])
    edit(
        folder / "log.csv",
        lambda lines: lines.__setitem__(3, lines[3].replace("images/2.jpg", "../secret.jpg")),
    )
    edit(folder / "log.csv", lambda lines: lines.__setitem__(4, lines[4].replace("images/3.jpg", "x" * 5000)))
    (log,) = read_csv_video(folder, CONFIG)
    assert any("2 pictures are missing" in line for line in log.problems)


def test_truncated_and_empty_videos_are_refused(copied):
    folder = copied("video")
    video = folder / "drive.mp4"
    data = video.read_bytes()
    for broken in (data[: len(data) // 2], data[:40], b""):
        video.write_bytes(broken)
        with pytest.raises(InputError, match=r"drive\.mp4"):
            read_csv_video(folder, CONFIG)


def test_links_that_loop_end(copied, tmp_path):
    folder = copied("pictures")
    os.symlink(folder, folder / "images" / "again")
    os.symlink(folder / "loop", folder / "loop")
    os.symlink(folder / "loop.csv", folder / "loop.csv")
    (folder / "images/4.jpg").unlink()
    os.symlink(folder / "images/4.jpg", folder / "images/4.jpg")
    (log,) = read_csv_video(folder, CONFIG)
    with pytest.raises(InputError, match=r"4\.jpg"):
        log.frames[4]
    os.symlink(tmp_path / "round", tmp_path / "round")
    with pytest.raises(InputError, match=r"does not exist"):
        read_csv_video(tmp_path / "round", CONFIG)


def test_nothing_beside_the_table(tmp_path):
    (tmp_path / "drive.csv").write_text(table_text(PART))
    with pytest.raises(InputError, match=r"neither a video nor pictures beside"):
        read_csv_video(tmp_path, CONFIG)
    (tmp_path / "drive.csv").unlink()
    with pytest.raises(InputError, match=r"holds no table"):
        read_csv_video(tmp_path, CONFIG)


def test_small_parts():
    assert [number(text) for text in ("1.5", " -2 ", "3,25", ".5e1", '"7"')] == [1.5, -2.0, 3.25, 5.0, 7.0]
    assert all(np.isnan(number(text)) for text in ("", "nan", "inf", "1,2,3", "0x10", "1_000", "٣", "1e999"))
    assert plain_name(" Steering Angle (deg) ") == "steering_angle"
    assert sorted(["img10", "img9", "a"], key=natural_key) == ["a", "img9", "img10"]
    assert times_in_names(["a", "b"], np.array([0.0, 1.0])) is None
    assert times_in_names(["9" * 400, "8"], np.array([0.0, 1.0])) is None


# ------------------------------------------------------------------------------------------- Udacity


@pytest.mark.parametrize("header", [True, False])
def test_udacity(tmp_path, header):
    write_udacity_drive(tmp_path, PART, header=header)
    (log,) = read_udacity(tmp_path, CONFIG)
    check_readings(log)
    assert log.problems == []
    assert (log.frame_times_s[0], log.place) == (0.0, "udacity-simulator")
    (same,) = read_udacity(tmp_path / "driving_log.csv", CONFIG)
    assert len(same.frames) == 24


def test_udacity_flags_and_folders(copied, tmp_path):
    copied("udacity")
    (log,) = read_udacity(tmp_path, ImportConfig(is_right_positive=False, max_steering_rad=0.1))
    np.testing.assert_allclose(log.steering_rad.values, -PART.steering_rad * 0.1 / np.radians(25), atol=1e-6)


def test_udacity_broken(copied):
    folder = copied("udacity")
    table = folder / "driving_log.csv"
    next(iter((folder / "IMG").iterdir())).unlink()

    def break_rows(lines):
        lines[3] = lines[3].replace("_2016_", "_20x6_")
        lines[6] = "a, b, c"
        lines[7] = lines[7].rsplit(",", 1)[0] + ", nan"
        lines[9] = lines[8]

    edit(table, break_rows)
    (log,) = read_udacity(folder, CONFIG)
    text = " ".join(log.problems)
    for words in (
        "without a time",
        "too few or too many cells",
        "without a speed",
        "another row",
        "missing",
    ):
        assert words in text
    log.check()
    edit(table, lambda lines: lines.__setitem__(slice(None), [line.replace("_2016_", "_") for line in lines]))
    with pytest.raises(InputError, match=r"row 2: .* holds no time as center_2016"):
        read_udacity(folder, CONFIG)
    table.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"row 2 has 2 cells, but Udacity's simulator writes 7"):
        read_udacity(folder, CONFIG)
    table.unlink()
    with pytest.raises(InputError, match=r"holds no driving_log\.csv"):
        read_udacity(folder, CONFIG)


def test_udacity_without_pictures(copied):
    folder = copied("udacity")
    shutil.rmtree(folder / "IMG")
    with pytest.raises(InputError, match=r"24 of 24 pictures are missing.*row 2"):
        read_udacity(folder, CONFIG)


def test_times_in_udacity_names():
    assert time_of_name_s("center_1970_01_01_00_00_02_250.jpg") == 2.25
    assert all(
        np.isnan(time_of_name_s(name)) for name in ("", "center.jpg", "center_2016_13_01_00_00_02_250.jpg")
    )


# ---------------------------------------------------------------------------------------------- fuzz

CELLS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True).map(str),
    st.integers(-(10**30), 10**30).map(str),
    st.text(max_size=8),
    st.sampled_from(["", "nan", "1,5", "0.1", '"', "9" * 400, "2024-01-01 10:00:00", "\x00", "é"]),
)
ROWS = st.lists(st.lists(CELLS, max_size=5), max_size=12)
HEADS = st.sampled_from(
    ["time,steering,speed,file", "t;angle;v", "timestamp_ms\tsteer\tspeed_kmh", "frame,wheel,speed", ""]
)


@given(
    head=HEADS,
    rows=ROWS,
    delimiter=st.sampled_from(",;\t| "),
    encoding=st.sampled_from(["utf-8", "utf-16", "latin-1"]),
)
@settings(max_examples=60, deadline=None)
def test_any_table_is_read_or_refused(kept, head, rows, delimiter, encoding):
    path = kept / "video" / "fuzz.csv"
    text = "\n".join([head, *(delimiter.join(row) for row in rows)])
    path.write_bytes(text.encode(encoding, errors="replace"))
    config = ImportConfig(max_speed_mps=5.0, recorded_rate_hz=10.0)
    told = refusal_of(lambda: read_csv_video(path, config)[0].check())
    assert not told or "fuzz.csv" in told


@given(data=st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_table_or_refused(kept, data):
    path = kept / "bytes.csv"
    path.write_bytes(data)

    def check():
        table = read_table(path)
        assert len(table.rows) == len(table.lines) > 0
        assert len({len(row) for row in table.rows}) == 1

    told = refusal_of(check)
    assert not told or "bytes.csv" in told


@given(rows=ROWS, keep=st.integers(0, 24), mixed=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_any_udacity_log_is_read_or_refused(kept, rows, keep, mixed):
    folder = kept / "udacity"
    good = (folder / "driving_log.csv").read_text().splitlines()[1 : keep + 1]
    lines = [*good, *(",".join(row) for row in rows)]
    mixed.shuffle(lines)
    path = folder / "fuzz.csv"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    told = refusal_of(lambda: read_udacity(path, CONFIG)[0].check())
    assert not told or "fuzz.csv" in told or "missing" in told


def refusal_of(read):
    """Return the sentence with which a file is refused; empty if it is read."""
    try:
        read()
    except InputError as error:
        return str(error)
    return ""
