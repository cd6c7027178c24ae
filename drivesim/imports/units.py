"""Numbers in the units of a file -> road-wheel angles in rad, left positive, and speeds in m/s."""

from __future__ import annotations

import numpy as np

from drivesim.errors import InputError
from drivesim.imports.options import ImportConfig, SpeedUnit, SteeringUnit
from drivesim.scene.geometry import FloatArray

_MPS = {SpeedUnit.MPS: 1.0, SpeedUnit.KMH: 1 / 3.6, SpeedUnit.MPH: 0.44704}


def road_wheel_rad(
    values: FloatArray,
    config: ImportConfig,
    *,
    unit: SteeringUnit,
    ratio: float = 1.0,
    is_right_positive: bool = False,
    max_steering_rad: float | None = None,
) -> FloatArray:
    """Return road-wheel angles, left positive.

    Args:
        values: as they stand in the file.
        config: overrules what follows.
        unit: of the values.
        ratio: of the angle in the file to that of the road wheels; shares have none.
        is_right_positive: what the signs in the file mean.
        max_steering_rad: the road-wheel angle of a share of 1.

    Raises:
        InputError: the values are shares and nobody says of what.
    """
    unit = config.steering_unit or unit
    if unit is SteeringUnit.SHARE:
        most = config.max_steering_rad or max_steering_rad
        if most is None:
            raise InputError(
                "the steering is a share of the largest angle, which the files do not say; name it with "
                "--max-steering (of the road wheels, in degrees; about 30 for a car)"
            )
        angles = values * most
    else:
        angles = (np.deg2rad(values) if unit is SteeringUnit.DEG else values) / (
            config.steering_ratio or ratio
        )
    is_flipped = is_right_positive if config.is_right_positive is None else config.is_right_positive
    return -angles if is_flipped else angles


def speed_mps(values: FloatArray, config: ImportConfig, *, unit: SpeedUnit) -> FloatArray:
    """Return speeds in m/s; ``config`` overrules the unit."""
    return values * _MPS[config.speed_unit or unit]


def speed_from_throttle(throttle: FloatArray, config: ImportConfig) -> FloatArray:
    """Return what is known of the speed where only the throttle was recorded; braking counts as standing.

    Raises:
        InputError: the speed at full throttle is not known.
    """
    if config.max_speed_mps is None:
        raise InputError(
            "the recording holds the throttle but no speed; name the speed at full throttle with --max-speed "
            "(about 5 for a Donkeycar at its usual limit of throttle)"
        )
    return np.clip(throttle, 0.0, None) * config.max_speed_mps
