"""What is infinitely far away: sky, clouds, sun, hills and skylines, as one panorama painted per look."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from drivesim.reference.look import Atmosphere, Look, SceneryKind
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera, Image

_FULL_TURN = 2 * np.pi


class Backdrop:
    """The panorama above the horizon; turning left moves it to the right."""

    def __init__(self, look: Look, air: Atmosphere, camera: Camera) -> None:
        self._rows = round(camera.cy_px)
        self._px_per_rad = camera.fx_px
        across = (np.arange(camera.width_px) + 0.5 - camera.cx_px) / camera.fx_px
        above = (camera.cy_px - np.arange(self._rows) - 0.5)[:, None]  # pixels above the horizon
        self._azimuth = np.broadcast_to(-np.arctan(across), (self._rows, camera.width_px))
        flattened = above / np.sqrt(1.0 + across**2) * (camera.fx_px / camera.fy_px)
        self._map_row = (self._rows - flattened - 0.5).astype(np.float32)
        panorama = _paint_panorama(look, air, self._rows, round(_FULL_TURN * self._px_per_rad), camera)
        self._columns = panorama.shape[1]
        field = int(np.ceil(2 * self._px_per_rad))
        self._panorama = np.concatenate([panorama, panorama[:, :field]], axis=1)

    def view(self, yaw_rad: float) -> Image:
        """Return the (rows above the horizon, W, 3) picture for a heading."""
        azimuth = self._azimuth + yaw_rad
        turn = np.floor(azimuth.min() / _FULL_TURN) * _FULL_TURN
        columns = ((azimuth - turn) * (self._columns / _FULL_TURN) - 0.5).astype(np.float32)
        return np.asarray(
            cv2.remap(
                self._panorama, columns, self._map_row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        )


def _paint_panorama(look: Look, air: Atmosphere, rows: int, columns: int, camera: Camera) -> Image:
    """Paint a full turn; column ``c`` looks to azimuth ``c / columns`` of a turn, counter-clockwise."""
    rng = np.random.default_rng([look.seed, 1])
    slope = ((rows - np.arange(rows) - 0.5) / camera.fy_px)[:, None]  # tangent of the elevation
    azimuth = (np.arange(columns) + 0.5) / columns * _FULL_TURN
    height = np.clip(slope / 0.34, 0.0, 1.0)[..., None]
    sky = air.horizon_rgb + (air.sky_top_rgb - air.horizon_rgb) * height**0.6
    image = np.broadcast_to(sky, (rows, columns, 3))
    clouds = _clouds(rows, columns, air.cloud_cover, rng)[..., None]
    image = image + (air.cloud_rgb - image) * clouds * np.clip(height * 4.0 - 0.15, 0.0, 0.75)
    away = np.abs((azimuth - look.sun_azimuth_rad + np.pi) % _FULL_TURN - np.pi)[None]
    if air.is_sun_visible:
        elevation = max(0.11, np.arcsin(air.sun_direction[2]) * 0.6)
        distance = np.hypot(away, slope - np.tan(elevation))[..., None]
        glow = 0.75 * np.exp(-((distance / 0.20) ** 2)) + 0.35 * np.exp(-distance / 0.6)
        image = image + (np.array([255.0, 232.0, 190.0]) - image) * np.clip(glow, 0.0, 1.0)
        disc = np.clip((0.045 - distance) * 60.0, 0.0, 1.0)
        image = image + (np.array([255.0, 250.0, 232.0]) - image) * disc
    for hill_px, rgb, haze in _silhouettes(look, air, columns, rng):
        pixels_above = (rows - np.arange(rows) - 0.5)[:, None]
        cover = np.clip(hill_px * (camera.fy_px / 160.0) - pixels_above + 0.5, 0.0, 1.0)[..., None]
        image = image + (rgb + (air.horizon_rgb - rgb) * haze - image) * cover
    return np.asarray(np.clip(image, 0.0, 255.0), dtype=np.uint8)


def _clouds(rows: int, columns: int, cover: float, rng: Generator) -> FloatArray:
    total = np.zeros((rows, columns))
    for share, wide, tall in ((0.65, 13, 3), (0.35, 34, 7)):
        coarse = rng.normal(size=(tall + 1, wide)).astype(np.float32)
        wrapped = np.concatenate([coarse[:, -2:], coarse, coarse[:, :2]], axis=1)
        scale = columns / wide
        fine = cv2.resize(wrapped, (round(scale * (wide + 4)), rows), interpolation=cv2.INTER_CUBIC)
        start = round(2 * scale)
        total += share * fine[:, start : start + columns]
    return np.asarray(1.0 / (1.0 + np.exp(-5.0 * (total - 0.9 + 1.5 * cover))))


def _silhouettes(
    look: Look, air: Atmosphere, columns: int, rng: Generator
) -> list[tuple[FloatArray, FloatArray, float]]:
    """Return far to near (columns,) heights in pixels of a 160 px lens, lit colour and share of haze."""
    azimuth = (np.arange(columns) + 0.5) / columns * _FULL_TURN
    light: FloatArray = air.ambient_rgb + 0.35 * air.sun_rgb
    building, leaf, hill = (
        np.array(rgb) for rgb in ((128.0, 124.0, 122.0), look.leaf_rgb, (92.0, 106.0, 118.0))
    )
    hills = _waves(azimuth, range(2, 9), rng) * rng.uniform(0.8, 2.6) + rng.uniform(2.0, 5.0)
    far = 0.80 if air.haze_per_m < 0.005 else 0.92
    layers: list[tuple[FloatArray, FloatArray, float]] = [(hills, np.asarray(hill * light), far)]
    near_haze = float(min(0.93, 0.5 + air.haze_per_m * 30.0))
    if look.scenery is SceneryKind.TOWN:
        blocks = np.repeat(rng.uniform(1.5, 10.0, columns // 12 + 1), 12)[:columns]
        layers.append((blocks, np.asarray(building * light), near_haze))
    elif look.scenery is not SceneryKind.OPEN:
        trees = 3.5 + _waves(azimuth, range(5, 14), rng) + 0.45 * _waves(azimuth, range(40, 70, 5), rng)
        trees = trees * (1.3 if look.scenery is SceneryKind.FOREST else 0.8)
        layers.append((trees, np.asarray(leaf * light), near_haze))
    return layers


def _waves(azimuth: FloatArray, frequencies: range, rng: Generator) -> FloatArray:
    waves = [rng.normal() * np.sin(k * azimuth + rng.uniform(0, _FULL_TURN)) for k in frequencies]
    return np.asarray(np.sum(waves, axis=0) / np.sqrt(len(waves) / 2))
