"""Donkeycar tubs: v1 (``record_N.json`` beside the pictures) and v2 (``manifest.json``, catalogs, ``images/``).

Donkeycar's convention: ``angle`` is a share of the largest steering angle, -1 is left and 1 is right; ``throttle``
is a share of full power. Where the pilot drove (``user/mode``), its angle and throttle count. Each drive of a tub
becomes a log of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from drivesim.errors import InputError
from drivesim.imports.drive_log import DriveLog
from drivesim.imports.foreign_files import (
    folders_where,
    has_bytes,
    log_name,
    natural_key,
    number,
    parse_json,
    path_inside,
    read_json,
    read_lines,
    short,
    whole_number,
)
from drivesim.imports.many_recordings import logs_of_all
from drivesim.imports.options import ImportConfig, SpeedUnit, SteeringUnit
from drivesim.imports.picture_files import PictureFiles
from drivesim.imports.readings import increasing, signal
from drivesim.imports.remarks import Check, Loss
from drivesim.imports.units import road_wheel_rad, speed_from_throttle, speed_mps

DEFAULT_RATE_HZ = 20.0
"""Donkeycar's own ``DRIVE_LOOP_HZ``, for tubs that keep no times."""
DEFAULT_MAX_STEERING_RAD = float(np.deg2rad(25.0))
"""Of the road wheels of usual model cars."""
_MAX_SHARE = 1.05  # a little more than 1 comes from rounding, much more is no share
_RECORD = re.compile(r"record_(\d{1,12})\.json")
_CATALOG = re.compile(r"catalog_\d{1,9}\.catalog")
_SPEEDS = ("enc/speed", "pos/speed")  # of wheel encoders, of the simulator; m/s
_PILOT_STEERS, _PILOT_DRIVES = ("local_angle", "local", "pilot"), ("local", "pilot")


@dataclass(kw_only=True, slots=True)
class _Row:
    """One record that can be used."""

    picture: Path
    index: int
    time_s: float | None
    angle: float
    throttle: float
    speed: float | None
    session: str


@dataclass(kw_only=True, slots=True)
class _LeftOut:
    """Records that cannot be used, by reason."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        self.counts[reason] += 1
        self.first.setdefault(reason, where)

    def sentences(self) -> list[str]:
        return [
            f"{count} records were left out: {reason} (first: {self.first[reason]})"
            for reason, count in self.counts.items()
        ]


def read_donkeycar(path: Path, config: ImportConfig) -> list[DriveLog]:
    """Read a tub, or all tubs in a folder.

    Raises:
        InputError: there is no tub, a tub holds nothing that can be used, or the speed at full throttle is needed.
    """
    tubs = folders_where(path, _is_tub)
    if not tubs:
        raise InputError(
            f"{path} holds no Donkeycar tub; name a folder with manifest.json and catalogs, or with record_N.json"
        )
    return logs_of_all(tubs, lambda tub: _logs_of(tub, log_name(path, tub), config))


def _is_tub(_: Sequence[str], files: Sequence[str]) -> bool:
    return any(_RECORD.fullmatch(name) or _CATALOG.fullmatch(name) for name in files)


def _logs_of(tub: Path, name: str, config: ImportConfig) -> list[DriveLog]:
    left_out, problems = _LeftOut(), list[str]()
    is_v2 = any(_CATALOG.fullmatch(child.name) for child in tub.iterdir())
    rows = list(_rows_v2(tub, left_out, problems) if is_v2 else _rows_v1(tub, left_out))
    if not rows:
        reasons = "; ".join(left_out.sentences()) or "it is empty"
        raise InputError(f"Donkeycar tub {tub} holds no usable record: {reasons}")
    problems += map(Loss, left_out.sentences())
    if any(row.time_s is None for row in rows):
        rate_hz = config.recorded_rate_hz or DEFAULT_RATE_HZ
        problems.append(
            Check(f"{tub.name} keeps no times; {rate_hz:g} pictures per second are taken (--recorded-rate)")
        )
        for row in rows:
            row.time_s = row.index / rate_hz
    drives = _drives(rows)
    names = [name] if len(drives) == 1 else [f"{name}--{number}" for number in range(1, len(drives) + 1)]
    return [
        _log(drive, drive_name, config, problems if position == 0 else [])
        for position, (drive, drive_name) in enumerate(zip(drives, names, strict=True))
    ]


def _drives(rows: list[_Row]) -> list[list[_Row]]:
    """Cut where another session begins; the clock of a v1 tub then starts again from 0."""
    drives = [[rows[0]]]
    for before, row in pairwise(rows):
        has_restarted = not row.session and (row.time_s or 0.0) < (before.time_s or 0.0)
        if row.session != before.session or has_restarted:
            drives.append([])
        drives[-1].append(row)
    return drives


def _log(rows: list[_Row], name: str, config: ImportConfig, problems: list[str]) -> DriveLog:
    times_s = np.array([row.time_s for row in rows], dtype=np.float64)
    kept = increasing(times_s)
    problems = [*problems]
    if len(kept) < len(rows):
        problems.append(
            Loss(f"{len(rows) - len(kept)} records of {name} have a time that does not increase; left out")
        )
    rows, times_s = [rows[index] for index in kept], times_s[kept] - times_s[kept[0]]
    steering = road_wheel_rad(
        np.array([row.angle for row in rows]),
        config,
        unit=SteeringUnit.SHARE,
        is_right_positive=True,
        max_steering_rad=DEFAULT_MAX_STEERING_RAD,
    )
    if config.max_steering_rad is None and config.steering_unit in (None, SteeringUnit.SHARE):
        problems.append(Check("full steering is taken as 25 degrees of the road wheels (--max-steering)"))
    if all(row.speed is not None for row in rows):
        speed = speed_mps(np.array([row.speed for row in rows], float), config, unit=SpeedUnit.MPS)
    else:
        speed = speed_from_throttle(np.array([row.throttle for row in rows]), config)
        problems.append(f"speed is the throttle times {config.max_speed_mps:g} m/s; inertia is not in it")
    log = DriveLog(
        name=name,
        frames=PictureFiles([row.picture for row in rows]),
        frame_times_s=times_s,
        speed_mps=signal("speed", times_s, speed, problems=problems),
        steering_rad=signal("steering", times_s, steering, problems=problems),
        place="donkeycar",
        problems=problems,
    )
    log.check()
    return log


def _rows_v1(tub: Path, left_out: _LeftOut) -> Iterator[_Row]:
    """Yield the records by their numbers; those in ``exclude.json`` were taken out by their owner."""
    names = sorted((child.name for child in tub.iterdir()), key=natural_key)
    excluded = _excluded_v1(tub)
    for name in names:
        match = _RECORD.fullmatch(name)
        if match is None or int(match[1]) in excluded:
            continue
        try:
            record = read_json(tub / name, max_bytes=1 << 20)
        except InputError:
            left_out.add("they are truncated, not JSON or cannot be read", name)
            continue
        row = _row(record, tub, where=name, index=int(match[1]), time_key="milliseconds", left_out=left_out)
        if row is not None:
            yield row


def _excluded_v1(tub: Path) -> set[int]:
    path = tub / "exclude.json"
    if not path.is_file():
        return set()
    try:
        numbers = [int(value) for value in parse_json(path.read_bytes())]
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{path} is no list of record numbers ({short(error)}); mend it or take it away"
        ) from error
    return set(numbers)


def _rows_v2(tub: Path, left_out: _LeftOut, problems: list[str]) -> Iterator[_Row]:
    """Yield the records in the order of the catalogs, without those that are marked as deleted."""
    catalogs, deleted = _manifest(tub, problems)
    position = 0
    for catalog in catalogs:
        if not catalog.is_file():
            problems.append(
                Loss(f"{catalog} is missing, which the manifest names; its records were left out")
            )
            continue
        for line_number, line in read_lines(catalog):
            where = f"{catalog.name}, line {line_number}"
            position += 1
            record = _record(line)
            if record is None:
                left_out.add("they are truncated or not JSON objects", where)
                continue
            index = whole_number(record.get("_index"))
            index = position - 1 if index is None else index
            if index in deleted:
                continue
            images = tub / "images"
            row = _row(record, images, where=where, index=index, time_key="_timestamp_ms", left_out=left_out)
            if row is not None:
                yield row


def _record(line: bytes | None) -> dict[str, Any] | None:
    try:
        record = parse_json(line) if line is not None else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _manifest(tub: Path, problems: list[str]) -> tuple[list[Path], set[int]]:
    """Return the catalogs and the indices of deleted records; the manifest's fifth line has both."""
    path = tub / "manifest.json"
    if not path.is_file():
        problems.append(f"{tub.name} has no manifest.json; records that were deleted cannot be told")
        names = sorted((child.name for child in tub.iterdir()), key=natural_key)
        return [tub / name for name in names if _CATALOG.fullmatch(name)], set()
    lines = [line for _, line in read_lines(path)]
    facts = _record(lines[-1] if lines else None) or {}
    paths, deleted = facts.get("paths"), facts.get("deleted_indexes", [])
    if not isinstance(paths, list) or not isinstance(deleted, list):
        raise InputError(
            f"{path} is truncated or no manifest of a tub (line {max(len(lines), 1)} should name the catalogs); "
            "fetch it again, or take it away to read all catalogs"
        )
    catalogs = [path_inside(tub, name) for name in paths]
    if None in catalogs:
        bad = paths[catalogs.index(None)]
        raise InputError(f"{path} names a catalog outside its folder ({short(bad)!r}); mend it")
    indices = (whole_number(value) for value in deleted)
    return [catalog for catalog in catalogs if catalog is not None], {i for i in indices if i is not None}


def _row(
    record: dict[str, Any], folder: Path, *, where: str, index: int, time_key: str, left_out: _LeftOut
) -> _Row | None:
    picture = path_inside(folder, record.get("cam/image_array"))
    if picture is None:
        left_out.add("they name no picture in the tub", where)
        return None
    if not has_bytes(picture):
        left_out.add("their picture is missing or empty", where)
        return None
    mode = record.get("user/mode")
    angle = number(record.get("pilot/angle" if mode in _PILOT_STEERS else "user/angle"))
    throttle = number(record.get("pilot/throttle" if mode in _PILOT_DRIVES else "user/throttle"))
    if angle is None or throttle is None or max(abs(angle), abs(throttle)) > _MAX_SHARE:
        left_out.add("angle or throttle of the driver is missing or beyond -1 to 1", where)
        return None
    time_ms = number(record.get(time_key))
    if time_key in record and time_ms is None:
        left_out.add(f"{time_key} is not a number", where)
        return None
    speeds = (number(record.get(key)) for key in _SPEEDS)
    session = record.get("_session_id")
    return _Row(
        picture=picture,
        index=index,
        time_s=None if time_ms is None else time_ms * 1e-3,
        angle=angle,
        throttle=throttle,
        speed=next((speed for speed in speeds if speed is not None), None),
        session=session if isinstance(session, str) else "",
    )
