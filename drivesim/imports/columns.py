"""Which column of a table holds what, and in what unit: by heading, by flag, else guessed, which is then said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.imports import readings
from drivesim.imports.csv_table import CsvTable, moment_s
from drivesim.imports.options import ImportConfig, SpeedUnit, SteeringUnit, TimeUnit
from drivesim.imports.remarks import Check, Loss
from drivesim.imports.units import road_wheel_rad, speed_mps
from drivesim.scene.can_motion import STEERING_RATIO
from drivesim.scene.geometry import FloatArray

TIME = (
    "time", "timestamp", "t", "time_s", "time_ms", "time_us", "time_ns", "timestamp_s", "timestamp_ms",
    "timestamp_us", "timestamp_ns", "time_stamp", "utime", "unix_time", "seconds", "sec", "s", "ms", "millis",
    "frame_time", "elapsed", "elapsed_time", "datetime", "date_time", "stamp",
)  # fmt: skip
STEERING = (
    "steering", "steering_angle", "angle", "steering_rad", "steering_deg", "steering_angle_rad",
    "steering_angle_deg", "steer", "steer_angle", "steeringangle", "wheel", "wheel_angle", "steering_wheel",
    "steering_wheel_angle", "user_angle", "delta", "road_wheel_angle",
)  # fmt: skip
SPEED = (
    "speed", "velocity", "v", "speed_mps", "speed_kmh", "speed_kph", "speed_mph", "speed_ms", "vehicle_speed",
    "ego_speed", "vel", "gps_speed", "speed_m_s", "speed_km_h", "velocity_mps", "velocity_kmh", "car_speed", "vego",
)  # fmt: skip
YAW_RATE = (
    "yaw_rate", "yawrate", "yaw_rate_radps", "yaw_rate_rad_s", "yaw_rate_degps", "yaw_rate_deg_s",
    "angular_velocity_z", "gyro_z", "rotation_rate_z", "omega", "turn_rate", "yaw_velocity", "gyroz", "wz",
)  # fmt: skip
THROTTLE = ("throttle", "user_throttle", "gas", "accelerator")
FRAME = ("frame", "frame_id", "frame_index", "frame_number", "frame_no", "image_id")
FILE = (
    "file", "filename", "file_name", "image", "img", "path", "picture", "image_path", "image_file", "frame_file",
    "image_name", "img_path", "center", "centre", "center_image", "camera", "cam_front", "frame_name",
)  # fmt: skip

_TIME_UNIT_OF = {
    "s": TimeUnit.S, "sec": TimeUnit.S, "secs": TimeUnit.S, "second": TimeUnit.S, "seconds": TimeUnit.S,
    "ms": TimeUnit.MS, "msec": TimeUnit.MS, "millis": TimeUnit.MS, "milliseconds": TimeUnit.MS,
    "us": TimeUnit.US, "usec": TimeUnit.US, "µs": TimeUnit.US, "microseconds": TimeUnit.US, "utime": TimeUnit.US,
    "ns": TimeUnit.NS, "nsec": TimeUnit.NS, "nanoseconds": TimeUnit.NS,
}  # fmt: skip
_SPEED_UNITS = (
    (re.compile(r"km_?h|kph|kmph"), SpeedUnit.KMH),
    (re.compile(r"mph"), SpeedUnit.MPH),
    (re.compile(r"mps|m_s|(?:^|_)ms$"), SpeedUnit.MPS),
)
_EPOCHS = {TimeUnit.S: 1e9, TimeUnit.MS: 1e12, TimeUnit.US: 1e15, TimeUnit.NS: 1e18}
_LARGEST_EPOCH = 4.0  # times the smallest: the year 2096
_SMALLEST_STEP = {TimeUnit.NS: 5e6, TimeUnit.US: 5e3, TimeUnit.MS: 5.0}  # of rows at up to 200 Hz
MAX_ROAD_WHEEL_RAD = 0.8  # 46 degrees
MAX_USUAL_SPEED_MPS = 60.0  # as a median: 216 km/h
_CLEARLY_NO_RAD = 1.6


@dataclass(kw_only=True, slots=True)
class TimedRows:
    """The rows of a table whose time is known and later than all before."""

    times_s: FloatArray  # (R,)
    rows: NDArray[np.int64]  # (R,) of the table
    problems: list[str] = field(default_factory=list)


def times_of(table: CsvTable, column: int, config: ImportConfig) -> TimedRows:
    """Return the rows of a table that have a time, in its order.

    Raises:
        InputError: no row has a time, or time goes backwards too often to be slips.
    """
    raw = table.numbers(column)
    problems = []
    is_clock = bool(np.isnan(raw).all())
    if is_clock:
        seconds = np.array([moment_s(text) for text in table.texts(column)])
    else:
        unit, words = _time_unit(table, column, raw, config)
        seconds = raw * unit.seconds
        problems += [words] if words else []
    if not np.isfinite(seconds).any():
        raise InputError(
            f"{table.place(0)}: {table.rows[0][column]!r} is no time, nor is any below; name the column with "
            "--time-column"
        )
    return increasing(table, seconds, problems)


def increasing(table: CsvTable, seconds: FloatArray, problems: Sequence[str] = ()) -> TimedRows:
    """Keep as many rows as possible whose times are numbers and increase; say which are left out.

    Raises:
        InputError: more than a tenth of the times go backwards.
    """
    words = list(problems)
    timed = np.flatnonzero(np.isfinite(seconds))
    if len(timed) < len(seconds):
        first = int(np.argmin(np.isfinite(seconds)))
        words.append(
            Loss(f"{len(seconds) - len(timed)} rows without a time left out (first: {table.place(first)})")
        )
    kept = readings.increasing(seconds)
    dropped = np.setdiff1d(timed, kept)
    is_same = np.isin(seconds[dropped], seconds[kept])
    back, same = dropped[~is_same], dropped[is_same]
    if len(back) > 0.1 * len(timed):
        raise InputError(
            f"{table.place(int(back[0]))}: time goes backwards there and in {len(back) - 1} other rows; sort the "
            "table by time, or split it where another recording begins"
        )
    if len(back):
        words.append(
            Loss(f"{len(back)} rows left out whose time goes backwards (first: {table.place(int(back[0]))})")
        )
    if len(same):
        words.append(
            Loss(
                f"{len(same)} rows left out whose time is that of another row (first: {table.place(int(same[0]))})"
            )
        )
    return TimedRows(times_s=seconds[kept], rows=kept, problems=words)


def _time_unit(table: CsvTable, column: int, raw: FloatArray, config: ImportConfig) -> tuple[TimeUnit, str]:
    """Return the unit of times, and what is to be said of it where it was guessed."""
    if config.time_unit is not None:
        return config.time_unit, ""
    for word in _words(table, column)[::-1]:
        if word in _TIME_UNIT_OF:
            return _TIME_UNIT_OF[word], ""
    known = raw[np.isfinite(raw)]
    size = float(np.abs(known).max())
    steps = np.abs(np.diff(known))
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    unit = next((u for u, least in _SMALLEST_STEP.items() if step >= least), TimeUnit.S)
    for candidate, least in _EPOCHS.items():
        if least <= size < _LARGEST_EPOCH * least and step * candidate.seconds < 60.0:
            unit = candidate
    return unit, f"times are taken as {unit.value} by their size (--time-unit)"


def _words(table: CsvTable, column: int) -> list[str]:
    if table.header is None:
        return []
    return [word for word in re.split(r"[^a-z0-9µ]+", table.header[column].lower()) if word]


def speeds_of(table: CsvTable, column: int, config: ImportConfig) -> tuple[FloatArray, str]:
    """Return the speeds of all rows in m/s, NaN where there is none, and what was assumed.

    Raises:
        InputError: they have no unit and are no car's in m/s.
    """
    unit, words = config.speed_unit, ""
    if unit is None:
        heading = "_".join(_words(table, column))
        unit = next((known for pattern, known in _SPEED_UNITS if pattern.search(heading)), None)
    if unit is None:
        unit = SpeedUnit.MPS
        words = _guessed_speeds(table, column)
    return speed_mps(table.numbers(column), config, unit=unit), words


def _guessed_speeds(table: CsvTable, column: int) -> str:
    """Say what speeds without a unit are if they are in m/s; refuse those of no car on a road."""
    speeds = np.abs(table.numbers(column))
    speeds = speeds[np.isfinite(speeds)]
    if not len(speeds):
        return ""
    if (median := float(np.median(speeds))) > MAX_USUAL_SPEED_MPS:
        raise InputError(
            f"{table.path}: speeds have no unit in the file, and as m/s half of them would be over {median:.0f} "
            f"({3.6 * median:.0f} km/h); say their unit with --speed-unit km/h or --speed-unit mph"
        )
    mean = float(speeds.mean())
    return Check(
        f"speeds have no unit in the file; they are taken as m/s (mean {mean:.1f} m/s = {3.6 * mean:.0f} km/h); "
        "say --speed-unit if that is wrong"
    )


def steering_of(table: CsvTable, column: int, config: ImportConfig) -> tuple[FloatArray, str]:
    """Return the angles of the road wheels in all rows in rad, left positive, NaN where there is none.

    The second value says what was assumed.

    Raises:
        InputError: the angles are larger than road wheels turn, be the unit told or guessed, or are shares of an angle
            that is not given.
    """
    raw = table.numbers(column)
    unit, words = config.steering_unit, ""
    heading = _words(table, column)
    if unit is None:
        unit = next((u for u, names in _STEERING_UNITS.items() if set(heading) & names), None)
    ratio = STEERING_RATIO if {"steering", "wheel"} <= set(heading) else 1.0
    if unit is None:
        unit = SteeringUnit.RAD
        words = _guessed_steering(table, raw, config.steering_ratio or ratio)
    if ratio != 1.0 and config.steering_ratio is None and unit is not SteeringUnit.SHARE:
        told = f"the steering wheel is taken to turn {ratio:g} times as far as the road wheels (--steering-ratio)"
        words = Check(f"{words}; {told}" if words else told)
    try:
        angles = road_wheel_rad(raw, config, unit=unit, ratio=ratio)
    except InputError as error:
        raise InputError(f"{table.path}: {error}") from error
    reach = float(np.nanquantile(np.abs(angles), 0.999)) if np.isfinite(angles).any() else 0.0
    if reach > MAX_ROAD_WHEEL_RAD:
        raise InputError(
            f"{table.place(int(np.nanargmax(np.abs(angles))))}: steering reaches {np.degrees(reach):.0f} degrees, "
            "more than road wheels turn; give --steering-ratio if it is that of the steering wheel (often 15 to 16), "
            "or --steering-unit"
        )
    return angles, words


def _guessed_steering(table: CsvTable, raw: FloatArray, ratio: float) -> str:
    """Say what angles without a unit are if they are in rad; refuse those that no road wheel reaches."""
    angles = np.abs(raw)
    if not np.isfinite(angles).any():
        return ""
    largest = float(np.nanquantile(angles, 0.999))
    if largest / ratio > _CLEARLY_NO_RAD:
        raise InputError(
            f"{table.place(int(np.nanargmax(angles)))}: steering has no unit in the file and reaches {largest:.4g}, "
            "too much for rad; say its unit with --steering-unit deg (with --steering-ratio, often 15 to 16, if it is "
            "that of the steering wheel)"
        )
    return Check(
        f"steering has no unit in the file; it is taken as rad (up to {largest:.2f} rad = "
        f"{np.degrees(largest):.0f} degrees); say --steering-unit if that is wrong"
    )


_STEERING_UNITS = {
    SteeringUnit.DEG: {"deg", "degree", "degrees"},
    SteeringUnit.RAD: {"rad", "radian", "radians"},
}


def yaw_rates_of(table: CsvTable, column: int, config: ImportConfig) -> tuple[FloatArray, str]:
    """Return the yaw rates of all rows in rad/s, left positive, NaN where there is none, and what was assumed."""
    heading = set(_words(table, column))
    is_degrees = bool(heading & {"deg", "degps", "degrees", "dps"})
    words = ""
    if not is_degrees and not heading & {"rad", "radps", "radians"}:
        words = Check(
            "yaw rates have no unit in the file; they are taken as rad/s; name the column yaw_rate_deg_s if they are "
            "in degrees"
        )
    rates = np.radians(table.numbers(column)) if is_degrees else table.numbers(column)
    return (-rates if config.is_right_positive else rates), words
