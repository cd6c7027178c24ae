"""Which numbers of a LeRobot data set are steering, speed, yaw rate and pose: by their names, or as the user says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from drivesim.errors import InputError, nearest
from drivesim.imports.lerobot_info import Info
from drivesim.imports.options import ImportConfig, SpeedUnit, SteeringUnit

DRIVESIM = "drivesim"
"""``robot_type`` of what drivesim exports: an action is the mean motion from its frame to the next."""
_WHEEL_RATIO = 16.0

_STEERING = re.compile(
    r"(?:vehicle_|ego_|car_|target_)?(?P<wheel>steering_wheel(?:_angle)?)?"
    r"(?:steering_angle|steering_position|steering|steer|road_wheel_angle|front_wheel_angle|wheel_angle)?"
    r"(?:_(?P<unit>rad|radians|deg|degrees|normalized|norm|share))?"
)
_SPEED = re.compile(
    r"(?:vehicle_|ego_|car_|target_|forward_|linear_|longitudinal_)?(?:speed|velocity|vel|x_vel)(?:_x)?"
    r"(?:_(?P<unit>mps|m_s|ms|kmh|km_h|kph|mph))?"
)
_YAW_RATE = re.compile(
    r"(?:vehicle_|ego_|car_)?(?:yaw_rate|angular_velocity(?:_z)?)_(?P<unit>radps|rad_s|rads)"
)
_THROTTLE = re.compile(r"(?:throttle|gas)(?:_(?:normalized|norm|share))?")
_STEERING_UNITS = {
    "rad": SteeringUnit.RAD,
    "deg": SteeringUnit.DEG,
    "nor": SteeringUnit.SHARE,
    "sha": SteeringUnit.SHARE,
}
_SPEED_UNITS = {"m_s": SpeedUnit.MPS, "mps": SpeedUnit.MPS, "ms": SpeedUnit.MPS, "mph": SpeedUnit.MPH}


class _Kind(Enum):
    """Where numbers stand."""

    OBSERVATION = "observation"
    ACTION = "action"


@dataclass(kw_only=True, slots=True, frozen=True)
class Entry:
    """One number of every row."""

    feature: str
    index: int | None  # in the list of a row; None where a row is the number itself
    name: str

    @property
    def is_action(self) -> bool:
        """Tell whether it is what was commanded, not what was seen."""
        return self.feature.split(".")[0] == _Kind.ACTION.value


@dataclass(kw_only=True, slots=True, frozen=True)
class Entries:
    """Where the motion of the car stands, and in which units."""

    steering: Entry | None
    steering_unit: SteeringUnit
    steering_ratio: float
    speed: Entry | None
    speed_unit: SpeedUnit
    throttle: Entry | None
    yaw_rate: Entry | None
    pose: tuple[Entry, Entry, Entry] | None  # x and y in m, yaw in rad

    def all(self) -> list[Entry]:
        """Return every entry there is."""
        single = (self.steering, self.speed, self.throttle, self.yaw_rate)
        return [entry for entry in single if entry is not None] + list(self.pose or ())


def find_entries(info: Info, config: ImportConfig) -> Entries:
    """Find the entries; what was seen goes before what was commanded, but not in drivesim's own exports.

    Raises:
        InputError: nothing tells the speed, a name that was asked for does not exist, or a unit is not known.
    """
    entries = _entries(info)
    steering, steering_match = _find(entries, _STEERING, config.steering_column, info)
    speed, speed_match = _find(entries, _SPEED, config.speed_column, info)
    throttle, _ = _find(entries, _THROTTLE, None, info)
    yaw_rate, _ = _find(entries, _YAW_RATE, config.yaw_rate_column, info)
    pose = _pose(entries)
    if speed is None and pose is None and throttle is None:
        names = ", ".join(f"{entry.feature}:{entry.name}" for entry in entries[:30])
        raise InputError(f"{info.root} has no speed among its numbers; name it with --speed-column: {names}")
    is_wheel = steering_match is not None and steering_match["wheel"] is not None
    return Entries(
        steering=steering,
        steering_unit=_steering_unit(info, steering, steering_match, config),
        steering_ratio=_WHEEL_RATIO if is_wheel else 1.0,
        speed=speed,
        speed_unit=_speed_unit(info, speed, speed_match, config),
        throttle=throttle if speed is None and pose is None else None,
        yaw_rate=yaw_rate,
        pose=pose,
    )


def _entries(info: Info) -> list[Entry]:
    """Return the numbers of observations and actions, those first that are to be preferred."""
    first, second = _Kind.OBSERVATION.value, _Kind.ACTION.value
    if info.robot_type == DRIVESIM:
        first, second = second, first
    entries = []
    for kind in (first, second):
        for key, feature in info.features.items():
            if key.split(".")[0] != kind or not feature.is_numeric:
                continue
            is_alone = len(feature.names) == 1
            entries += [
                Entry(feature=key, index=None if is_alone else index, name=name)
                for index, name in enumerate(feature.names)
            ]
    return entries


def _find(
    entries: list[Entry], pattern: re.Pattern[str], wanted: str | None, info: Info
) -> tuple[Entry | None, re.Match[str] | None]:
    """Return the first entry that was asked for or whose name fits, and how it fits."""
    if wanted is not None:
        for entry in entries:
            position = "1" if entry.index is None else str(entry.index + 1)
            if wanted in (entry.name, f"{entry.feature}:{entry.name}", f"{entry.feature}:{position}"):
                return entry, pattern.fullmatch(_plain(entry.name))
        names = [f"{entry.feature}:{entry.name}" for entry in entries]
        raise InputError(f"{info.root} has no number {wanted!r}; {nearest(wanted, names)}")
    for entry in entries:
        match = pattern.fullmatch(_plain(entry.name)) if entry.name else None
        if match is not None and match[0]:
            return entry, match
    return None, None


def _plain(name: str) -> str:
    return re.sub(
        r"[^a-z0-9]+", "_", name[:200].lower().removeprefix("observation.").removeprefix("action.")
    ).strip("_")


def _pose(entries: Iterable[Entry]) -> tuple[Entry, Entry, Entry] | None:
    """Return x, y and yaw where one feature has all three under these names."""
    by_feature: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        by_feature.setdefault(entry.feature, {})[_plain(entry.name)] = entry
    for names in by_feature.values():
        if {"x_m", "y_m", "yaw_rad"} <= names.keys():
            return names["x_m"], names["y_m"], names["yaw_rad"]
    return None


def _steering_unit(
    info: Info, entry: Entry | None, match: re.Match[str] | None, config: ImportConfig
) -> SteeringUnit:
    unit = match["unit"] if match is not None else None
    if entry is not None and unit is None and config.steering_unit is None:
        raise InputError(
            f"{info.root}: the unit of {entry.name!r} in {entry.feature} is not in its name; use --steering-unit"
        )
    return config.steering_unit or _STEERING_UNITS.get((unit or "")[:3], SteeringUnit.RAD)


def _speed_unit(
    info: Info, entry: Entry | None, match: re.Match[str] | None, config: ImportConfig
) -> SpeedUnit:
    unit = match["unit"] if match is not None else None
    if entry is not None and unit is None and config.speed_unit is None:
        raise InputError(
            f"{info.root}: the unit of {entry.name!r} in {entry.feature} is not in its name; use --speed-unit"
        )
    return config.speed_unit or _SPEED_UNITS.get(unit or "mps", SpeedUnit.KMH)
