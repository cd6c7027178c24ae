"""ImportConfig: what the maker of a recording knows and its files do not say."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import Enum

from drivesim.errors import InputError

MAX_SIDE_PX = 8192


class Fit(Enum):
    """How pictures of another aspect ratio become the size asked for; the camera follows."""

    CROP = "crop"  # scaled to cover the size, what sticks out is cut off
    PAD = "pad"  # scaled to lie within the size, black around
    STRETCH = "stretch"


class SpeedUnit(Enum):
    """Unit of the speeds in a file."""

    MPS = "m/s"
    KMH = "km/h"
    MPH = "mph"


class SteeringUnit(Enum):
    """Unit of the steering angles in a file."""

    RAD = "rad"
    DEG = "deg"
    SHARE = "share"  # -1 to 1 of the largest angle


class TimeUnit(Enum):
    """Unit of the times in a file."""

    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"

    @property
    def seconds(self) -> float:
        """Return how long one unit is."""
        return {TimeUnit.S: 1.0, TimeUnit.MS: 1e-3, TimeUnit.US: 1e-6, TimeUnit.NS: 1e-9}[self]


@dataclass(kw_only=True, slots=True)
class ImportConfig:
    """How recordings become scenes; None leaves it to the source's own convention."""

    rate_hz: float = 6.0
    width_px: int = 224
    height_px: int = 128
    fit: Fit = Fit.CROP
    max_gap_s: float = 0.5  # between pictures; a longer one ends the scene
    min_length_s: float = 3.0  # shorter scenes are left out, and counted
    speed_unit: SpeedUnit | None = None
    steering_unit: SteeringUnit | None = None
    steering_ratio: float | None = (
        None  # of the angle in the file to that of the road wheels; 1: they are the same
    )
    max_steering_rad: float | None = None  # of the road wheels, where the file holds shares of it
    max_speed_mps: float | None = None  # at full throttle, where the file holds no speed
    is_right_positive: bool | None = None
    wheelbase_m: float = 2.8
    lag_frames: int = 0  # pictures by which the recorded controls come too early (their effect is seen later)
    flip_steering: bool = False
    flip_yaw_rate: bool = False  # of a yaw rate that the file holds beside the steering
    fix: bool = False  # correct lag and signs as they are estimated from the pictures
    time_unit: TimeUnit | None = None
    time_offset_s: float = 0.0  # added to the times of the readings, where pictures have a clock of their own
    recorded_rate_hz: float | None = None  # pictures per second, where the file holds no times
    time_column: str | None = None  # heading, or number from 1 on, of a column that is not found by its name
    steering_column: str | None = None
    speed_column: str | None = None
    yaw_rate_column: str | None = None
    file_column: str | None = None
    camera_key: str | None = None  # feature of a LeRobot data set that holds the pictures
    field_of_view_rad: float | None = None  # horizontal, of the pictures as recorded
    camera_height_m: float = 1.5
    camera_forward_m: float = 1.7
    camera_pitch_rad: float = 0.0  # down is positive

    def __post_init__(self) -> None:
        """Refuse what is not finite, and sizes, rates and lengths that are not positive."""
        self._check_finite()
        for name in ("rate_hz", "width_px", "height_px", "max_gap_s", "wheelbase_m", "camera_height_m"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        for name in (
            "steering_ratio",
            "max_steering_rad",
            "max_speed_mps",
            "field_of_view_rad",
            "recorded_rate_hz",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be positive, got {value}")
        if self.field_of_view_rad is not None and not self.field_of_view_rad < 3.0:
            raise InputError(
                f"field_of_view_rad must be below 3 rad (172 degrees), got {self.field_of_view_rad}; wider lenses are "
                "no pinhole cameras"
            )
        if not abs(self.camera_pitch_rad) < 0.8:
            raise InputError(f"camera_pitch_rad must be within 0.8 rad of level, got {self.camera_pitch_rad}")
        if not self.min_length_s >= 0:
            raise InputError(f"min_length_s must not be negative, got {self.min_length_s}")

    def _check_finite(self) -> None:
        for field in fields(self):
            if isinstance(value := getattr(self, field.name), float) and not math.isfinite(value):
                raise InputError(f"{field.name} must be a finite number, got {value}")
        if max(self.width_px, self.height_px) > MAX_SIDE_PX:
            raise InputError(
                f"width_px and height_px are at most {MAX_SIDE_PX}, got {self.width_px}x{self.height_px}"
            )
