"""KITTI raw drives: ``image_02`` (left colour camera), ``oxts`` (GPS and IMU) and the calibration of their day.

KITTI's convention: positions are latitude and longitude, projected as in its development kit (Mercator, scaled by
the first latitude); yaw is 0 towards east and positive counter-clockwise, ``vf`` is the forward speed in m/s, ``wz``
the yaw rate in rad/s, left positive. Times have nanoseconds. There is no steering: it follows from the motion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.imports.drive_log import DriveLog
from drivesim.imports.foreign_files import folders_where, has_bytes, log_name, number, read_text
from drivesim.imports.kitti_calibration import KITTI_IMU_XY_M, kitti_camera
from drivesim.imports.many_recordings import logs_of_all
from drivesim.imports.options import ImportConfig, SpeedUnit
from drivesim.imports.picture_files import PictureFiles
from drivesim.imports.readings import increasing, signal, track
from drivesim.imports.remarks import Loss
from drivesim.imports.units import speed_mps
from drivesim.scene.geometry import FloatArray, wrap_angle

_EARTH_RADIUS_M = 6_378_137.0
_MAX_LATITUDE_DEG = 85.0  # Mercator does not reach the poles
_IMAGE_FOLDER = "image_02"
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?")
_NUM_VALUES = 30
_LATITUDE, _LONGITUDE, _YAW, _FORWARD_SPEED, _YAW_RATE = 0, 1, 5, 8, 19


class _Files(NamedTuple):
    """Files whose names are their row in ``timestamps.txt``, and the times of those rows."""

    paths: list[Path]
    times_ns: NDArray[np.int64]


def read_kitti(path: Path, config: ImportConfig) -> list[DriveLog]:
    """Read a drive, or all drives in a folder.

    Raises:
        InputError: there is no drive, or none has pictures, OXTS data and times.
    """
    drives = folders_where(path, _is_drive)
    if not drives:
        raise InputError(
            f"{path} holds no KITTI raw drive; name a folder with {_IMAGE_FOLDER}/ and oxts/, or one above it"
        )
    return logs_of_all(drives, lambda drive: [_log(drive, log_name(path, drive), config)])


def _is_drive(folders: Sequence[str], _: Sequence[str]) -> bool:
    return _IMAGE_FOLDER in folders and "oxts" in folders


def _log(drive: Path, name: str, config: ImportConfig) -> DriveLog:
    problems: list[str] = []
    pictures = _timed_files(drive / _IMAGE_FOLDER, (".png", ".jpg", ".jpeg"), problems)
    packets = _timed_files(drive / "oxts", (".txt",), problems)
    start_ns = pictures.times_ns[0]
    kept = increasing(pictures.times_ns.astype(np.float64))
    if len(kept) < len(pictures.paths):
        problems.append(
            Loss(f"{len(pictures.paths) - len(kept)} pictures have a time that does not increase; left out")
        )
    frames = PictureFiles([pictures.paths[index] for index in kept])
    times_s = (packets.times_ns - start_ns) * 1e-9
    values = np.array([_packet(file) for file in packets.paths])
    is_missing = np.isnan(values).all(axis=1)
    if is_missing.all():
        raise InputError(
            f"{drive / 'oxts' / 'data'} holds no OXTS packet of {_NUM_VALUES} numbers; fetch it again"
        )
    if is_missing.any():
        first = packets.paths[int(np.argmax(is_missing))]
        problems.append(
            Loss(f"{int(is_missing.sum())} OXTS packets are truncated (first: {first}); left out")
        )
        times_s, values = times_s[~is_missing], values[~is_missing]
    speed = speed_mps(values[:, _FORWARD_SPEED], config, unit=SpeedUnit.MPS)
    log = DriveLog(
        name=name,
        frames=frames,
        frame_times_s=(pictures.times_ns[kept] - start_ns) * 1e-9,
        speed_mps=signal("speed", times_s, speed, problems=problems),
        yaw_rate_radps=signal("yaw rate", times_s, values[:, _YAW_RATE], problems=problems),
        track=track(times_s, *_rear_axle(values), problems=problems),
        camera=kitti_camera(drive, _size(frames), problems),
        place="kitti",
        problems=problems,
    )
    log.check()
    return log


def _size(frames: PictureFiles) -> tuple[int, int]:
    """Return height and width of the first picture that can be read."""
    problem: InputError | None = None
    for index in range(len(frames)):
        try:
            height, width = frames[index].shape[:2]
        except InputError as error:
            problem = problem or error
            continue
        return height, width
    raise problem or InputError("the drive holds no picture; unpack it again")


def _timed_files(folder: Path, suffixes: tuple[str, ...], problems: list[str]) -> _Files:
    """Return the files of ``data/`` that have a time; a row that is no time has none."""
    times = _times(folder / "timestamps.txt")
    data = folder / "data"
    if not data.is_dir():
        raise InputError(f"{data} is missing; unpack the drive again")
    paths, times_ns, num_left_out = [], [], 0
    for child in sorted(data.iterdir()):
        if child.suffix.lower() not in suffixes or not child.stem.isdecimal() or len(child.stem) > 12:
            continue
        row = int(child.stem)
        time_ns = times[row] if row < len(times) else None
        if time_ns is None or not has_bytes(child):
            num_left_out += 1
            continue
        paths.append(child)
        times_ns.append(time_ns)
    if num_left_out:
        problems.append(
            Loss(f"{num_left_out} files of {data} are empty or have no time in timestamps.txt; left out")
        )
    if not paths:
        raise InputError(
            f"{data} holds no file with a time in {folder / 'timestamps.txt'}; unpack the drive again"
        )
    return _Files(paths, np.array(times_ns, dtype=np.int64))


def _times(path: Path) -> list[int | None]:
    """Return nanoseconds since 1970 by row."""
    return [_nanoseconds(line) for line in read_text(path).rstrip().splitlines()]


def _nanoseconds(line: str) -> int | None:
    match = _TIME.fullmatch(line.strip())
    if match is None or not 1970 <= int(match[1]) <= 2200:
        return None
    try:
        second = datetime(*(int(part) for part in match.groups()[:6]), tzinfo=UTC)  # type: ignore[misc, arg-type]
    except ValueError:
        return None
    return int(second.timestamp()) * 1_000_000_000 + int((match[7] or "0").ljust(9, "0"))


def _packet(path: Path) -> FloatArray:
    """Return the 30 values of an OXTS file; all NaN if it is none."""
    nothing = np.full(_NUM_VALUES, np.nan)
    try:
        words = read_text(path, max_bytes=1 << 16).split()
    except InputError:
        return nothing
    numbers = [number(word) for word in words[:_NUM_VALUES]]
    if len(words) != _NUM_VALUES:
        return nothing
    return np.array([np.nan if value is None else value for value in numbers])


def _rear_axle(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (M, 2) positions from the first one and (M,) headings of the rear axle."""
    latitude, longitude, yaw = (values[:, column].copy() for column in (_LATITUDE, _LONGITUDE, _YAW))
    with np.errstate(invalid="ignore"):
        is_on_earth = (
            (np.abs(latitude) <= _MAX_LATITUDE_DEG) & (np.abs(longitude) <= 180.0) & (np.abs(yaw) < 10.0)
        )
    latitude[~is_on_earth] = longitude[~is_on_earth] = np.nan
    if not is_on_earth.any():
        return np.full((len(values), 2), np.nan), yaw
    first = int(np.argmax(is_on_earth))
    scale = _EARTH_RADIUS_M * np.cos(np.deg2rad(latitude[first]))
    east = scale * wrap_angle(np.deg2rad(longitude - longitude[first]))
    north = scale * np.log(np.tan(np.deg2rad(90.0 + latitude) / 2))
    imu_m = np.stack([east, north - north[first]], axis=-1)
    cos, sin = np.cos(yaw), np.sin(yaw)
    ahead_m, left_m = KITTI_IMU_XY_M
    offset_m = np.stack([cos * ahead_m - sin * left_m, sin * ahead_m + cos * left_m], axis=-1)
    return imu_m - offset_m, yaw
