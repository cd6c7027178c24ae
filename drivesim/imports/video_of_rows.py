"""When each frame of a video was taken, on the clock of the table beside it."""

from __future__ import annotations

import numpy as np

from drivesim.errors import InputError
from drivesim.imports.columns import TimedRows, increasing
from drivesim.imports.csv_table import CsvTable
from drivesim.imports.media_of_rows import Matched
from drivesim.imports.options import ImportConfig
from drivesim.imports.remarks import Check
from drivesim.imports.video_frames import VideoFrames
from drivesim.scene.geometry import FloatArray
from drivesim.scene.media import MediaFile, frame_times

_OTHER_CLOCK = 0.02  # of the length, by which video and table of as many rows must differ to be told apart
_OWN_CLOCK = "the table has a clock of its own; {}"


def match_video(
    table: CsvTable, video: MediaFile, timed: TimedRows | None, frames: int | None, config: ImportConfig
) -> Matched:
    """Say when each frame of a video was taken.

    Raises:
        InputError: the video cannot be read, or rows and frames cannot be matched.
    """
    shown_s = np.array(frame_times(video))
    if timed is None and frames is None and len(table.rows) != len(shown_s):
        raise InputError(
            f"{table.path} has {len(table.rows)} rows without times, but {video.path.name} has {len(shown_s)} frames; "
            "name the column of times with --time-column"
        )
    if frames is not None and timed is None:
        return _numbered_frames(table, video, shown_s, frames)
    if timed is None:
        timed = TimedRows(times_s=shown_s, rows=np.arange(len(shown_s)))
    numbers = None if frames is None else _frame_numbers(table, frames, len(shown_s))[0][timed.rows]
    return _frames_by_time(video, shown_s, timed, numbers, config)


def _numbered_frames(table: CsvTable, video: MediaFile, shown_s: FloatArray, column: int) -> Matched:
    numbers, words = _frame_numbers(table, column, len(shown_s))
    if not np.isfinite(numbers).any():
        raise InputError(
            f"{table.place(0)}: {table.rows[0][column]!r} is no frame of {video.path.name}, nor is any below"
        )
    timed = increasing(table, _shown_at(shown_s, numbers), words)
    return Matched(
        frames=VideoFrames(video, shown_s),
        frame_times_s=shown_s,
        rows=timed.rows,
        row_times_s=timed.times_s,
        problems=timed.problems,
    )


def _frame_numbers(table: CsvTable, column: int, count: int) -> tuple[FloatArray, list[str]]:
    """Return the frame of each row, from 0 on, NaN where it is none of ``count`` frames, and what is to be said."""
    numbers = table.numbers(column)
    known = numbers[np.isfinite(numbers)]
    first, last = float(known.min(initial=np.inf)), float(known.max(initial=-1.0))
    words = []
    if first == 1 and last == count:
        numbers = numbers - 1
        words = ["frames are counted from 1 in the table"]
    elif first == 1:
        words = [Check("frames are taken as counted from 0, and the table has none of that number")]
    is_frame = (numbers >= 0) & (numbers < count) & (numbers == np.floor(numbers))
    return np.where(is_frame, numbers, np.nan), words


def _shown_at(shown_s: FloatArray, numbers: FloatArray) -> FloatArray:
    """Return the times of frames by their numbers; NaN for NaN."""
    is_frame = np.isfinite(numbers)
    return np.where(is_frame, shown_s[np.where(is_frame, numbers, 0).astype(np.int64)], np.nan)


def _frames_by_time(
    video: MediaFile,
    shown_s: FloatArray,
    timed: TimedRows,
    numbers: FloatArray | None,
    config: ImportConfig,
) -> Matched:
    times_s, row_times_s = shown_s, timed.times_s
    length_s, told_s = float(np.ptp(shown_s)), float(np.ptp(timed.times_s))
    is_row_by_row = len(timed.rows) == len(shown_s) and len(shown_s) > 1
    if is_row_by_row and abs(length_s - told_s) > _OTHER_CLOCK * max(length_s, told_s):
        times_s = timed.times_s
        lengths = f"the video runs {length_s:.1f} s, its {len(shown_s)} rows {told_s:.1f} s"
        words = f"{lengths}; the times of the rows are used"
    else:
        delay_s, words = _delay_of_rows(shown_s, timed.times_s, numbers, config)
        row_times_s = row_times_s + delay_s
    return Matched(
        frames=VideoFrames(video, shown_s),
        frame_times_s=times_s,
        rows=timed.rows,
        row_times_s=row_times_s,
        problems=[words] if words else [],
    )


def _delay_of_rows(
    shown_s: FloatArray, row_times_s: FloatArray, numbers: FloatArray | None, config: ImportConfig
) -> tuple[float, str]:
    """Return what puts the times of rows on the video's clock when it is added to them, and what is to be said."""
    if config.time_offset_s != 0.0:
        return 0.0, ""
    interval_s = float(np.median(np.diff(shown_s))) if len(shown_s) > 1 else 0.0
    delays_s = np.zeros(0) if numbers is None else (_shown_at(shown_s, numbers) - row_times_s)
    delays_s = delays_s[np.isfinite(delays_s)]
    if len(delays_s) > 1 and np.ptp(delays_s) <= 2 * interval_s:  # else it counts something other than frames
        delay_s = float(np.median(delays_s))
        is_other = abs(delay_s) > 0.5 * interval_s
        return (
            (delay_s, _OWN_CLOCK.format("its column of frames says where it begins"))
            if is_other
            else (0.0, "")
        )
    start_s = float(row_times_s[0] - shown_s[0])
    is_row_by_row = len(row_times_s) == len(shown_s) and abs(start_s) > interval_s
    if is_row_by_row or not _overlaps(shown_s, row_times_s):
        return -start_s, Check(_OWN_CLOCK.format("its first row is put at the first frame (--time-offset)"))
    if abs(start_s) > config.max_gap_s:
        when = f"{abs(start_s):.1f} s {'after' if start_s > 0 else 'before'} the video"
        return 0.0, Check(f"the table begins {when}; both are taken to have one clock (--time-offset)")
    return 0.0, ""


def _overlaps(shown_s: FloatArray, row_times_s: FloatArray) -> bool:
    return bool(row_times_s[0] < shown_s[-1] and row_times_s[-1] > shown_s[0])
