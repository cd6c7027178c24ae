"""Where a log has to be cut: gaps, jumps, pictures too far apart, and what is too short to keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.imports.drive_log import DriveLog, Signal, Track
from drivesim.imports.motion import picture_interval_s
from drivesim.imports.options import ImportConfig
from drivesim.scene.geometry import FloatArray, wrap_angle

MAX_ACCEL_MPS2, SPEED_SLACK_MPS = 60.0, 5.0
MAX_TRACK_SPEED_MPS, TRACK_SLACK_M = 90.0, 3.0
MAX_TURN_RADPS, TURN_SLACK_RAD = 3.0, 0.5
MAX_READING_GAP_S = 1.3  # of readings that are never closer, as those of a 1 Hz logger
SLOW_SHARE = (
    1.6  # of the time between frames: pictures farther apart leave instants without a picture of their own
)
MAX_SLOW_IN_ROW = 2  # a lost picture or two in a row are bridged

Bools = NDArray[np.bool_]


@dataclass(kw_only=True, slots=True)
class LeftOut:
    """What of a log did not become scenes, and why."""

    num_pictures: int = 0  # of the log
    num_unreadable: int = 0
    num_without_readings: int = 0
    num_too_slow: int = 0  # pictures between which too much time passes for the rate asked for
    num_short_parts: int = 0
    short_parts_s: float = 0.0
    num_gaps: int = 0
    num_jumps: int = 0

    @property
    def lines(self) -> list[str]:
        """Return what is to be said, one line for each reason that occurred."""
        reasons = {
            f"{self.num_unreadable} pictures cannot be read": self.num_unreadable,
            f"{self.num_without_readings} pictures have no readings around them": self.num_without_readings,
            f"{self.num_too_slow} pictures are too far apart for the rate (--rate)": self.num_too_slow,
            f"{self.num_short_parts} parts too short, {self.short_parts_s:.1f} s in all (--min-length)": (
                self.num_short_parts
            ),
            f"cut at {self.num_gaps} gaps (--max-gap)": self.num_gaps,
            f"cut at {self.num_jumps} jumps of speed or position": self.num_jumps,
        }
        return [words for words, count in reasons.items() if count]


@dataclass(kw_only=True, slots=True)
class Stretches:
    """The parts of a log that become scenes."""

    parts: list[NDArray[np.int64]]  # of each the indices of its pictures
    left_out: LeftOut


def stretches_of(log: DriveLog, is_readable: Bools, config: ImportConfig) -> Stretches:
    """Cut a log; pictures that cannot be read are not there."""
    times_s = log.frame_times_s
    left_out = LeftOut(num_pictures=len(times_s), num_unreadable=int((~is_readable).sum()))
    is_told, jumps = np.ones(len(times_s), dtype=bool), []
    for signal in (log.speed_mps, log.yaw_rate_radps, log.steering_rad):
        if signal is not None:
            is_told &= _has_readings(signal.times_s, times_s, log, config)
    if log.track is not None:
        is_told &= _has_readings(log.track.times_s, times_s, log, config)
        jumps += _track_jumps(log.track)
    if log.speed_mps is not None:
        jumps += _speed_jumps(log.speed_mps)
    is_jump = np.zeros(len(times_s), dtype=bool)
    for start_s, end_s in jumps:
        is_jump |= (times_s > start_s) & (times_s < end_s)
    left_out.num_without_readings = int((is_readable & ~is_told).sum())
    left_out.num_jumps = len(jumps)
    kept = np.flatnonzero(is_readable & is_told & ~is_jump)
    return _cut(kept, times_s, jumps, left_out, config)


def _cut(
    kept: NDArray[np.int64],
    times_s: FloatArray,
    jumps: list[tuple[float, float]],
    left_out: LeftOut,
    config: ImportConfig,
) -> Stretches:
    if len(kept) == 0:
        return Stretches(parts=[], left_out=left_out)
    at_s = times_s[kept]
    steps_s = np.diff(at_s)
    is_gap = steps_s > config.max_gap_s + 1e-6
    is_slow = _in_long_runs(steps_s > SLOW_SHARE / config.rate_hz)
    is_cut = is_gap | is_slow
    for start_s, end_s in jumps:
        is_cut |= (at_s[:-1] <= start_s) & (at_s[1:] >= end_s)
    left_out.num_gaps = int((is_gap & ~is_slow).sum())
    parts = []
    for part in np.split(kept, np.flatnonzero(is_cut) + 1):
        length_s = float(times_s[part[-1]] - times_s[part[0]])
        num_frames = int(np.floor(length_s * config.rate_hz + 1e-3)) + 1
        if num_frames >= 2 and length_s >= config.min_length_s - 0.5 / config.rate_hz:
            parts.append(part)
        elif len(part) == 1 and _is_beside(is_slow, kept, part[0]):
            left_out.num_too_slow += 1
        else:
            left_out.num_short_parts += 1
            left_out.short_parts_s += length_s
    return Stretches(parts=parts, left_out=left_out)


def _is_beside(is_slow: Bools, kept: NDArray[np.int64], picture: np.int64) -> bool:
    place = int(np.searchsorted(kept, picture))
    return bool(is_slow[max(place - 1, 0) : place + 1].any())


def _in_long_runs(is_slow: Bools) -> Bools:
    """Keep the True that stand in runs longer than a lost picture or two."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_slow, [False]]).astype(np.int8)))
    kept = np.zeros_like(is_slow)
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        kept[start:end] = end - start > MAX_SLOW_IN_ROW
    return kept


def _has_readings(readings_s: FloatArray, times_s: FloatArray, log: DriveLog, config: ImportConfig) -> Bools:
    """Tell for each picture whether it lies within the readings and not in a hole of them."""
    if len(readings_s) < 2:
        return np.zeros(len(times_s), dtype=bool)
    usual_s = float(np.median(np.diff(readings_s)))
    longest_s = max(config.max_gap_s, min(2.5 * usual_s, MAX_READING_GAP_S))
    slack_s = max(picture_interval_s(log), min(usual_s, config.max_gap_s)) + 1e-6
    is_told = (times_s >= readings_s[0] - slack_s) & (times_s <= readings_s[-1] + slack_s)
    after = np.clip(np.searchsorted(readings_s, times_s), 1, len(readings_s) - 1)
    is_hole = readings_s[after] - readings_s[after - 1] > longest_s + 1e-6
    is_inside = (times_s > readings_s[after - 1]) & (times_s < readings_s[after])
    return np.asarray(is_told & ~(is_hole & is_inside))


def _speed_jumps(speed: Signal) -> list[tuple[float, float]]:
    steps_s = np.diff(speed.times_s)
    is_jump = np.abs(np.diff(speed.values)) > MAX_ACCEL_MPS2 * steps_s + SPEED_SLACK_MPS
    return _intervals(speed.times_s, is_jump)


def _track_jumps(track: Track) -> list[tuple[float, float]]:
    steps_s = np.diff(track.times_s)
    moved_m = np.linalg.norm(np.diff(track.xy_m, axis=0), axis=1)
    turned = np.abs(wrap_angle(np.diff(track.yaw_rad)))
    is_jump = (moved_m > MAX_TRACK_SPEED_MPS * steps_s + TRACK_SLACK_M) | (
        turned > MAX_TURN_RADPS * steps_s + TURN_SLACK_RAD
    )
    return _intervals(track.times_s, is_jump)


def _intervals(times_s: FloatArray, is_jump: Bools) -> list[tuple[float, float]]:
    return [(float(times_s[index]), float(times_s[index + 1])) for index in np.flatnonzero(is_jump)]
