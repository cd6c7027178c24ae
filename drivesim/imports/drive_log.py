"""DriveLog: one recording as its source has it, before it becomes scenes at a steady rate.

A reader of a data format fills it in and does no more: gaps, rates, picture size, lag and sign are the business of what
makes scenes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from drivesim.errors import InputError
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera, Image


@dataclass(kw_only=True, slots=True)
class Signal:
    """Readings of one quantity, at times of their own."""

    times_s: FloatArray  # (M,) strictly increasing, on the clock of the frames
    values: FloatArray  # (M,)


@dataclass(kw_only=True, slots=True)
class Track:
    """Positions and headings of the car, at times of their own."""

    times_s: FloatArray  # (M,) strictly increasing, on the clock of the frames
    xy_m: FloatArray  # (M, 2) of the rear axle, in any fixed frame, x east or ahead and y left of it
    yaw_rad: FloatArray  # (M,) left positive


@dataclass(kw_only=True, slots=True)
class DriveLog:
    """One recording: pictures and readings, each with times of its own.

    What the source does not know is None: without yaw rate and track, the yaw rate follows from speed and steering.
    """

    name: str  # unique among the logs of one import, without slashes
    frames: Sequence[Image]  # N pictures (H, W, 3) RGB uint8, read when indexed; InputError names a bad one
    frame_times_s: FloatArray  # (N,) strictly increasing
    speed_mps: Signal | None = None
    steering_rad: Signal | None = None  # of the road wheels, left positive
    yaw_rate_radps: Signal | None = None  # left positive
    track: Track | None = None
    camera: Camera | None = None  # of the pictures as they are; None where the source has no calibration
    place: str = ""
    caption: str = ""
    problems: list[str] = field(default_factory=list)  # what the reader found; kinds: remarks.py

    def check(self) -> None:
        """Raise InputError where pictures, times and readings do not fit together or are not finite."""
        if len(self.frames) != len(self.frame_times_s):
            raise InputError(
                f"{self.name} has {len(self.frames)} pictures but {len(self.frame_times_s)} times; "
                "give every picture one row"
            )
        _check_times(f"{self.name}: picture times", self.frame_times_s)
        for label in ("speed_mps", "steering_rad", "yaw_rate_radps"):
            signal: Signal | None = getattr(self, label)
            if signal is not None:
                _check_times(f"{self.name}: times of {label}", signal.times_s)
                _check_values(f"{self.name}: {label}", signal.values, (len(signal.times_s),))
        if self.track is not None:
            count = len(self.track.times_s)
            _check_times(f"{self.name}: times of the track", self.track.times_s)
            _check_values(f"{self.name}: positions", self.track.xy_m, (count, 2))
            _check_values(f"{self.name}: headings", self.track.yaw_rad, (count,))


def _check_times(what: str, times_s: FloatArray) -> None:
    _check_values(what, times_s, (len(times_s),))
    steps_s = np.diff(times_s)
    if (steps_s <= 0).any():
        row = int(np.argmax(steps_s <= 0)) + 1
        raise InputError(f"{what} do not increase at entry {row} ({times_s[row]!r} s); sort them")


def _check_values(what: str, values: FloatArray, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise InputError(f"{what} have shape {values.shape}, expected {shape}")
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise InputError(f"{what} are not finite at entry {row}; leave that row out")
