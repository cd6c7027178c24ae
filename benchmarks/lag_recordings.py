"""Recordings of the reference world whose controls come too early or too late, with the right or the wrong sign.

Lag, sign, frame rate, size, lens and graphics are drawn from the road seed. Nothing of the estimate is used here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from drivesim.imports.drive_log import DriveLog, Signal
from drivesim.reference.drive import drive
from drivesim.reference.drivers import draw_driver
from drivesim.reference.simulator import ReferenceWorld, draw_spec
from drivesim.scene.types import Image, front_camera

LAGS = range(-2, 7)
RATES_HZ = (6.0, 8.0, 10.0, 15.0, 20.0)
LENSES = ((224, 128, 160.0, 54.0), (320, 160, 200.0, 70.0), (320, 240, 260.0, 110.0), (160, 120, 130.0, 60.0))
"""Width, height, focal length and horizon row in pixels."""
_LEAST_WORLD_RATE_HZ = 40.0  # the world goes on in steps that are short beside a picture's
_EDGE_FRAMES = 8  # driven before and after what is recorded, more than the largest lag

FloatArray = NDArray[np.float64]


@dataclass(kw_only=True, slots=True)
class LaggedRecording:
    """A recording and the truth about it."""

    log: DriveLog
    lag_frames: int
    is_opposite: bool
    rate_hz: float
    graphics: str
    driver: str
    turning_radps: float  # standard deviation of the true yaw rate


def record_lagged(seed: int, *, duration_s: float) -> LaggedRecording:
    """Drive the world of a seed and record it with a lag and sign drawn from the seed."""
    rng = np.random.default_rng([seed, 5])
    rate_hz = float(rng.choice(RATES_HZ))
    width, height, focal_px, horizon_px = LENSES[int(rng.integers(len(LENSES)))]
    camera = front_camera(
        width_px=width, height_px=height, focal_px=focal_px, horizon_row_px=horizon_px, above_ground_m=1.4
    )
    graphics = list(GRAPHICS)[int(rng.integers(len(GRAPHICS)))]
    lag, is_opposite = int(rng.choice(LAGS)), bool(rng.random() < 0.5)
    steps = int(np.ceil(_LEAST_WORLD_RATE_HZ / rate_hz))
    num_frames = round(duration_s * rate_hz) + 1
    world = ReferenceWorld(draw_spec(seed), camera=camera, rate_hz=rate_hz * steps)
    driver = draw_driver(np.random.default_rng([seed, 2]))
    driven = drive(world, driver, num_frames=(num_frames + 2 * _EDGE_FRAMES) * steps)
    shown = (np.arange(num_frames) + _EDGE_FRAMES) * steps
    change = GRAPHICS[graphics]
    look = np.random.default_rng([seed, 6])
    frames = [change(driven.picture(int(index)), look) for index in shown]
    times_s = np.arange(num_frames) / rate_hz
    told = shown + lag * steps
    sign = -1.0 if is_opposite else 1.0
    steering = np.array([state.steering_rad for state in driven.states])
    at_once = 0.5 * (
        steering + np.append(steering[1:], steering[-1])
    )  # the wheel is turned between two steps
    speed = np.array([state.speed_mps for state in driven.states])
    turns = np.diff(np.unwrap(driven.yaw_rad[shown])) * rate_hz
    log = DriveLog(
        name=world.spec.log_name,
        frames=frames,
        frame_times_s=times_s,
        speed_mps=Signal(times_s=times_s, values=speed[told]),
        steering_rad=Signal(times_s=times_s, values=sign * at_once[told]),
    )
    return LaggedRecording(
        log=log,
        lag_frames=lag,
        is_opposite=is_opposite,
        rate_hz=rate_hz,
        graphics=graphics,
        driver=driver.name,
        turning_radps=float(turns.std()),
    )


# ----------------------------------------------------------------------------------------------- graphics


def _as_rendered(image: Image, rng: Generator) -> Image:
    return image


def _recoloured(image: Image, rng: Generator) -> Image:
    """Swap the colours and bend the tones."""
    swapped = image[..., [2, 0, 1]].astype(np.float32) / 255
    return np.asarray(255 * swapped ** np.array([0.6, 1.0, 1.6]), dtype=np.uint8)


def _grainy(image: Image, rng: Generator) -> Image:
    """Blur over 3 x 3 pixels, then add the noise of a cheap sensor."""
    padded = np.pad(image.astype(np.float32), [(1, 1), (1, 1), (0, 0)], mode="edge")
    height, width = image.shape[:2]
    soft = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3)) / 9
    return np.clip(soft + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


def _faint(image: Image, rng: Generator) -> Image:
    """Grey, with a third of the contrast and a light that flickers."""
    grey = image.mean(axis=-1, keepdims=True)
    faint = 90 + (grey - 90) / 3 + rng.normal(0, 4)
    return np.repeat(np.clip(faint, 0, 255), 3, axis=-1).astype(np.uint8)


GRAPHICS: dict[str, Callable[[Image, Generator], Image]] = {
    "as rendered": _as_rendered,
    "recoloured": _recoloured,
    "grainy": _grainy,
    "faint": _faint,
}
