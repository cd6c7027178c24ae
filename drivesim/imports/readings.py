"""Rows of readings as they come -> signals and tracks whose times increase and whose values can be true."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from drivesim.imports.drive_log import Signal, Track
from drivesim.imports.remarks import Loss
from drivesim.scene.geometry import FloatArray

MAX_READING = 1e6  # beyond every unit of speed or angle
MAX_POSITION_M = 1e6  # from the start of the recording


def increasing(times_s: FloatArray) -> NDArray[np.int64]:
    """Return the longest choice of indices, in order, at which the times strictly increase; NaN is never chosen.

    One wrong clock reading therefore costs one row, wherever it lies.
    """
    tails: list[float] = []
    last: list[int] = []  # index of the row at the end of the best choice of each length
    before = np.full(len(times_s), -1, dtype=np.int64)
    for index, time_s in enumerate(times_s.tolist()):
        if time_s != time_s:
            continue
        place = bisect_left(tails, time_s)
        before[index] = last[place - 1] if place else -1
        if place == len(tails):
            tails.append(time_s)
            last.append(index)
        else:
            tails[place], last[place] = time_s, index
    chosen: list[int] = []
    index = last[-1] if last else -1
    while index >= 0:
        chosen.append(index)
        index = int(before[index])
    return np.array(chosen[::-1], dtype=np.int64)


def signal(name: str, times_s: FloatArray, values: FloatArray, *, problems: list[str]) -> Signal | None:
    """Return the readings that can be true in some unit; None if there are fewer than two.

    Args:
        name: what they are, for ``problems``.
        times_s: (M,) on the clock of the frames, as recorded.
        values: (M,) NaN where there is none.
        problems: is told what was left out.
    """
    with np.errstate(invalid="ignore"):
        is_good = np.isfinite(times_s) & (np.abs(values) <= MAX_READING)
    count = len(values) - int(is_good.sum())
    if count:
        problems.append(
            Loss(f"{count} of {len(values)} readings of {name} are missing or no numbers; left out")
        )
    times_s, values = times_s[is_good], values[is_good]
    kept = _told_increasing(name, times_s, problems)
    if len(kept) < 2:
        problems.append(Loss(f"{name} has fewer than two readings; it is done without"))
        return None
    return Signal(times_s=times_s[kept], values=values[kept])


def track(times_s: FloatArray, xy_m: FloatArray, yaw_rad: FloatArray, *, problems: list[str]) -> Track | None:
    """Return the poses that can be true; None if there are fewer than two.

    Args:
        times_s: (M,) on the clock of the frames, as recorded.
        xy_m: (M, 2) NaN where there is none.
        yaw_rad: (M,) NaN where there is none.
        problems: is told what was left out.
    """
    with np.errstate(invalid="ignore"):
        is_near = (np.abs(xy_m) <= MAX_POSITION_M).all(axis=1)
    is_good = np.isfinite(times_s) & is_near & np.isfinite(yaw_rad)
    count = len(yaw_rad) - int(is_good.sum())
    if count:
        problems.append(Loss(f"{count} of {len(yaw_rad)} poses are missing or cannot be true; left out"))
    times_s, xy_m, yaw_rad = times_s[is_good], xy_m[is_good], yaw_rad[is_good]
    kept = _told_increasing("the poses", times_s, problems)
    if len(kept) < 2:
        problems.append(Loss("the track has fewer than two poses; it is done without"))
        return None
    return Track(times_s=times_s[kept], xy_m=xy_m[kept], yaw_rad=yaw_rad[kept])


def _told_increasing(name: str, times_s: FloatArray, problems: list[str]) -> NDArray[np.int64]:
    kept = increasing(times_s)
    if len(kept) < len(times_s):
        count = len(times_s) - len(kept)
        problems.append(Loss(f"{count} readings of {name} have a time that does not increase; left out"))
    return kept
