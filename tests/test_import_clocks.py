"""Tables and videos with clocks of their own: a row belongs to the frame that was shown when it was recorded."""

from __future__ import annotations

import numpy as np
import pytest
from drive_files import RATE_HZ, driven, table_text, write_picture_drive, write_video_drive

from drivesim.imports.csv_video import read_csv_video
from drivesim.imports.options import ImportConfig

PART = driven().part(0, 24)
CONFIG = ImportConfig()


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video_drive(tmp_path_factory.mktemp("video"), PART)


def read(folder, rows):
    (folder / "drive.csv").write_text("\n".join(rows) + "\n")
    (log,) = read_csv_video(folder, CONFIG)
    return log


def rows_of(numbers, *, start=0.0, has_times=True):
    """Rows of some frames whose readings tell the frame: the speed is its number."""
    heading = ["time_s,"] if has_times else [""]
    rows = [f"{heading[0]}frame,steering_rad,speed_mps"]
    for index, number in enumerate(numbers):
        time = f"{start + index / RATE_HZ:.6f}," if has_times else ""
        rows.append(f"{time}{number},0.01,{index + 1}")
    return rows


@pytest.mark.parametrize("start", [2.0, -0.5, 100.0])
def test_as_many_rows_as_frames_belong_to_them_one_by_one(video, start):
    (video / "drive.csv").write_text(table_text(PART, start_s=start))
    (log,) = read_csv_video(video, CONFIG)
    np.testing.assert_allclose(log.speed_mps.times_s, log.frame_times_s, atol=1e-3)
    assert "clock of its own" in log.problems[0]


def test_a_table_that_begins_elsewhere_is_said_to_share_the_clock(video):
    log = read(video, ["time_s,steering_rad,speed_mps", *(f"{0.9 + i / 100},0.01,5" for i in range(100))])
    assert log.speed_mps.times_s[0] == pytest.approx(0.9)
    assert any("begins 0.9 s after the video" in line for line in log.problems)


def test_frames_that_are_counted_from_one(video):
    log = read(video, rows_of(range(1, 25), has_times=False))
    np.testing.assert_allclose(log.speed_mps.times_s, log.frame_times_s, atol=1e-3)
    np.testing.assert_allclose(log.speed_mps.values, np.arange(24) + 1)
    assert log.problems == ["frames are counted from 1 in the table"]


def test_a_first_frame_of_number_one_is_mentioned(video):
    log = read(video, rows_of(range(1, 21), has_times=False))
    np.testing.assert_allclose(log.speed_mps.times_s, log.frame_times_s[1:21], atol=1e-3)
    assert any("counted from 0" in line for line in log.problems)


def test_numbers_that_are_no_frames_are_left_out(video):
    log = read(video, rows_of([0, 1.5, 2, -1, 4, 99, *range(6, 24)], has_times=False))
    np.testing.assert_allclose(log.speed_mps.values, [1, 3, 5, *range(7, 25)])


def test_frames_tell_where_times_begin(video):
    log = read(video, rows_of(range(6, 20), start=0.25))
    np.testing.assert_allclose(log.speed_mps.times_s, log.frame_times_s[6:20], atol=1e-3)
    assert any("its column of frames" in line for line in log.problems)


def test_a_counter_of_rows_is_no_frame_number(video):
    rows = ["time_s,frame,steering_rad,speed_mps", *(f"{i / 100},{i},0.01,5" for i in range(200))]
    log = read(video, rows)
    assert log.speed_mps.times_s[0] == 0
    assert log.problems == []


def test_a_picture_that_many_rows_name_is_of_the_first(tmp_path):
    write_picture_drive(tmp_path, PART)
    rows = ["time_s,steering_rad,speed_mps,file"]
    for index in range(3 * len(PART.frames)):
        rows.append(f"{index / 3 / RATE_HZ:.6f},0.01,{index + 1},images/{index // 3}.jpg")
    (tmp_path / "log.csv").write_text("\n".join(rows))
    (log,) = read_csv_video(tmp_path, CONFIG)
    assert len(log.frames) == len(PART.frames)
    np.testing.assert_allclose(log.frame_times_s, PART.times_s, atol=1e-5)
    assert len(log.speed_mps.values) == 3 * len(PART.frames)
    assert any("name a picture again" in line for line in log.problems)
