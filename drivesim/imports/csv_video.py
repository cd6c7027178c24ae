"""A folder of pictures or one video, and a table of time, steering and speed -> logs.

The table may name the picture of each row, or be matched by time: with the times in the names of the pictures, with the
timestamps of the video, or row by row where neither is there and rows are as many as pictures.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.imports import columns
from drivesim.imports.csv_table import CsvTable, read_table
from drivesim.imports.drive_log import DriveLog, Signal
from drivesim.imports.media_of_rows import Matched, match_pictures, recorded_media
from drivesim.imports.options import ImportConfig
from drivesim.imports.remarks import Loss
from drivesim.imports.units import speed_from_throttle
from drivesim.imports.video_of_rows import match_video
from drivesim.scene.geometry import FloatArray

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")


@dataclass(kw_only=True, slots=True)
class _Columns:
    """Where a table holds what; None: nowhere."""

    time: int | None
    file: int | None
    frame: int | None
    steering: int | None
    speed: int | None
    yaw_rate: int | None
    throttle: int | None


def read_csv_video(path: Path, config: ImportConfig) -> list[DriveLog]:
    """Read the recordings of a folder: each a table with pictures or a video beside it.

    Args:
        path: a table, a folder that holds one or several, or a folder of such folders.
        config: units, sign and columns where the tables do not tell them.

    Raises:
        InputError: there is no table, or one cannot be understood; the message names file and row.
    """
    if not path.exists():
        raise InputError(
            f"{path} does not exist; name a table, or a folder with a table and pictures or a video"
        )
    tables = [path] if path.is_file() else _tables_in(path)
    if not tables:
        raise InputError(
            f"{path} holds no table (*.csv); put one with columns time, steering and speed there"
        )
    return [_read_one(table, tables, config) for table in tables]


def _read_one(table: Path, tables: list[Path], config: ImportConfig) -> DriveLog:
    """Read one of the tables; where it lies beside others, a refusal says how to name the one that is meant."""
    is_alone = _is_alone(table, tables)
    try:
        return _read(table, _name(table, tables), config, is_alone=is_alone)
    except InputError as error:
        if is_alone:
            raise
        beside = [other.name for other in tables if other.parent == table.parent]
        raise InputError(
            f"{error}; {table.parent} holds {len(beside)} tables ({', '.join(beside)}): if only one is a drive, "
            f"name that file as SRC, as in: drivesim data import csv {shlex.quote(str(table))}"
        ) from error


def _tables_in(folder: Path) -> list[Path]:
    own = _tables_beside(folder)
    if own:
        return own
    below = sorted(entry for entry in _entries(folder) if entry.is_dir())
    return [table for entry in below for table in _tables_beside(entry)]


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot read {folder} ({error.strerror}); check the path") from error


def _tables_beside(folder: Path) -> list[Path]:
    files = sorted(entry for entry in _entries(folder) if entry.is_file())
    for suffix in TABLE_SUFFIXES:
        found = [entry for entry in files if entry.suffix.lower() == suffix]
        if found:
            return found
    return []


def _name(table: Path, tables: list[Path]) -> str:
    folder = table.resolve().parent.name or "recording"
    return folder if _is_alone(table, tables) else f"{folder}-{table.stem}"


def _is_alone(table: Path, tables: list[Path]) -> bool:
    return sum(other.parent == table.parent for other in tables) == 1


def _read(path: Path, name: str, config: ImportConfig, *, is_alone: bool) -> DriveLog:
    table = read_table(path)
    found = _columns_of(table, config)
    media = recorded_media(path, is_alone=is_alone)
    problems: list[str] = []
    if table.num_left_out:
        problems.append(
            Loss(
                f"{table.num_left_out} rows with too few or too many cells left out (first: {path}, row "
                f"{table.first_left_out})"
            )
        )
    timed = None if found.time is None else columns.times_of(table, found.time, config)
    if media.video is not None:
        matched = match_video(table, media.video, timed, found.frame, config)
    else:
        matched = match_pictures(table, media, timed, found.file, config)
    problems += (timed.problems if timed else []) + matched.problems
    log = DriveLog(name=name, frames=matched.frames, frame_times_s=matched.frame_times_s, problems=problems)
    return _with_readings(log, table, found, matched, config)


def _with_readings(
    log: DriveLog, table: CsvTable, found: _Columns, matched: Matched, config: ImportConfig
) -> DriveLog:
    """Return the log with speed, steering and yaw rate; rows without a number are left out and counted."""
    problems = list(log.problems)

    def signal(values_and_words: tuple[FloatArray, str], what: str) -> Signal:
        values, words = values_and_words
        problems.extend([words] if words else [])
        return _signal(table, values, matched, config, problems=problems, what=what)

    if found.speed is not None:
        speed = signal(columns.speeds_of(table, found.speed, config), "speed")
    else:
        assert found.throttle is not None
        words = "the speed is the throttle times that at full throttle"
        speed = signal((speed_from_throttle(table.numbers(found.throttle), config), words), "throttle")
    steering = yaw_rate = None
    if found.steering is not None:
        steering = signal(columns.steering_of(table, found.steering, config), "steering")
    if found.yaw_rate is not None:
        yaw_rate = signal(columns.yaw_rates_of(table, found.yaw_rate, config), "yaw rate")
    return replace(log, speed_mps=speed, steering_rad=steering, yaw_rate_radps=yaw_rate, problems=problems)


def _columns_of(table: CsvTable, config: ImportConfig) -> _Columns:
    """Find the columns of a table.

    Raises:
        InputError: it tells no turns or no speed, or lacks a column that was given.
    """
    found = _Columns(
        time=table.find(columns.TIME, given=config.time_column),
        file=table.find(columns.FILE, given=config.file_column),
        frame=table.find(columns.FRAME),
        steering=table.find(columns.STEERING, given=config.steering_column),
        speed=table.find(columns.SPEED, given=config.speed_column),
        yaw_rate=table.find(columns.YAW_RATE, given=config.yaw_rate_column),
        throttle=table.find(columns.THROTTLE),
    )
    if found.steering is None and found.yaw_rate is None:
        raise InputError(_missing(table, "steering", "--steering-column"))
    if found.speed is None and (found.throttle is None or config.max_speed_mps is None):
        remedy = "--speed-column"
        if found.throttle is not None:
            remedy += ", or --max-speed to make speeds of the throttle"
        raise InputError(_missing(table, "speed", remedy))
    return found


def _missing(table: CsvTable, what: str, flag: str) -> str:
    if table.header is None:
        width = len(table.rows[0])
        return f"{table.path} has {width} columns without a heading; give the number of the one with {what} by {flag}"
    return f"{table.path} has no column of {what}; its columns are {', '.join(table.header)}; name it with {flag}"


def _signal(
    table: CsvTable,
    values: FloatArray,
    matched: Matched,
    config: ImportConfig,
    *,
    what: str,
    problems: list[str],
) -> Signal:
    chosen: NDArray[np.float64] = values[matched.rows]
    is_good = np.isfinite(chosen)
    if not is_good.all():
        first = table.place(int(matched.rows[int(np.argmin(is_good))]))
        if not is_good.any():
            raise InputError(f"{first}: {what} is no number there, nor in any other row")
        problems.append(Loss(f"{int((~is_good).sum())} rows without a {what} left out (first: {first})"))
    times_s = matched.row_times_s[is_good] + config.time_offset_s
    return Signal(times_s=times_s, values=chosen[is_good])
