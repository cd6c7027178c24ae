"""Recordings of Udacity's simulator: ``driving_log.csv`` and ``IMG/`` -> logs, by the centre camera.

Steering is a share of 25 degrees, right positive; speeds are miles per hour. Times stand in the names of the pictures,
the paths before them are those of the recording machine.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path, PureWindowsPath

import numpy as np

from drivesim.errors import InputError
from drivesim.imports.columns import increasing
from drivesim.imports.csv_table import CsvTable, read_table
from drivesim.imports.drive_log import DriveLog, Signal
from drivesim.imports.media_of_rows import MAX_MISSING_SHARE, pictures_in
from drivesim.imports.options import ImportConfig, SpeedUnit, SteeringUnit
from drivesim.imports.picture_files import PictureFiles
from drivesim.imports.remarks import Loss
from drivesim.imports.units import road_wheel_rad, speed_mps
from drivesim.scene.geometry import FloatArray

LOG = "driving_log.csv"
MAX_STEERING_RAD = float(np.radians(25.0))
_NUM_COLUMNS = 7  # center, left, right, steering, throttle, brake, speed
_CENTER, _STEERING, _SPEED = 0, 3, 6
_CAPTION = "drive in Udacity's simulator"
_NAME = re.compile(r"(\d{4})_(\d\d)_(\d\d)_(\d\d)_(\d\d)_(\d\d)_(\d{1,6})(?=\.\w+$)")


def read_udacity(path: Path, config: ImportConfig) -> list[DriveLog]:
    """Read a folder with ``driving_log.csv`` and ``IMG``, the table itself, or a folder of such folders.

    Raises:
        InputError: there is no such table, or it cannot be understood; the message names file and row.
    """
    tables = [path] if path.is_file() else [path / LOG]
    if not tables[0].is_file():
        below = sorted(entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []
        tables = [entry / LOG for entry in below if (entry / LOG).is_file()]
    if not tables:
        raise InputError(f"{path} holds no {LOG}; name the folder that the simulator recorded to")
    return [_read(table, config) for table in tables]


def _read(path: Path, config: ImportConfig) -> DriveLog:
    table = read_table(path)
    if len(table.rows[0]) != _NUM_COLUMNS:
        raise InputError(
            f"{table.place(0)} has {len(table.rows[0])} cells, but Udacity's simulator writes {_NUM_COLUMNS}: center, "
            "left, right, steering, throttle, brake, speed; import other tables with the kind csv"
        )
    problems: list[str] = []
    if table.num_left_out:
        problems.append(
            Loss(
                f"{table.num_left_out} rows with too few or too many cells left out (first: row {table.first_left_out})"
            )
        )
    names = [PureWindowsPath(text).name for text in table.texts(_column(table, "center", _CENTER))]
    timed = increasing(table, np.array([time_of_name_s(name) for name in names]), problems)
    if len(timed.rows) == 0:
        raise InputError(
            f"{table.place(0)}: {names[0]!r} holds no time as center_2016_12_01_13_30_48_287.jpg does, nor does any "
            "below"
        )
    there = {
        picture.name: picture for picture in pictures_in(path.parent / "IMG") or pictures_in(path.parent)
    }
    is_there = np.array([names[row] in there for row in timed.rows])
    problems = timed.problems
    if not is_there.all():
        first = int(timed.rows[int(np.argmin(is_there))])
        where = f"{table.place(first)}: {names[first]!r}"
        missing = int((~is_there).sum())
        if missing > MAX_MISSING_SHARE * len(is_there):
            raise InputError(
                f"{missing} of {len(is_there)} pictures are missing (first: {where}); put the folder IMG beside {LOG}"
            )
        problems.append(Loss(f"{missing} pictures are missing (first: {where})"))
    log = DriveLog(
        name=path.resolve().parent.name or "udacity",
        frames=PictureFiles(
            [there[names[row]] for row, is_here in zip(timed.rows, is_there, strict=True) if is_here]
        ),
        frame_times_s=timed.times_s[is_there] - timed.times_s[0],
        place="udacity-simulator",
        caption=_CAPTION,
        problems=problems,
    )
    return _with_readings(log, table, timed.times_s - timed.times_s[0], timed.rows, config)


def _column(table: CsvTable, name: str, position: int) -> int:
    found = table.find((name,))
    return position if found is None else found


def _with_readings(
    log: DriveLog,
    table: CsvTable,
    times_s: FloatArray,
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    config: ImportConfig,
) -> DriveLog:
    raw = table.numbers(_column(table, "steering", _STEERING))
    angles = road_wheel_rad(
        raw, config, unit=SteeringUnit.SHARE, is_right_positive=True, max_steering_rad=MAX_STEERING_RAD
    )
    speeds = speed_mps(table.numbers(_column(table, "speed", _SPEED)), config, unit=SpeedUnit.MPH)
    problems = list(log.problems)
    readings = {}
    for what, values in (("steering", angles), ("speed", speeds)):
        chosen = values[rows]
        is_good = np.isfinite(chosen)
        if not is_good.all():
            first = table.place(int(rows[int(np.argmin(is_good))]))
            if not is_good.any():
                raise InputError(f"{first}: {what} is no number there, nor in any other row")
            problems.append(Loss(f"{int((~is_good).sum())} rows without a {what} left out (first: {first})"))
        readings[what] = Signal(times_s=times_s[is_good], values=chosen[is_good])
    return replace(log, steering_rad=readings["steering"], speed_mps=readings["speed"], problems=problems)


def time_of_name_s(name: str) -> float:
    """Return the seconds of the date and time in a picture's name; NaN without one."""
    found = _NAME.search(name)
    if found is None:
        return float("nan")
    *whole, fraction = found.groups()
    try:
        moment = datetime(*(int(part) for part in whole))  # type: ignore[arg-type]
    except ValueError:
        return float("nan")
    return (moment - datetime(1970, 1, 1)).total_seconds() + float(f"0.{fraction.zfill(3)}")
