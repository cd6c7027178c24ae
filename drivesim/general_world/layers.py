"""The brush that paints settings: skies, ridges, clouds, water, trees, houses, all in muted colours."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from drivesim.general_world.content import FloatArray

MaskArray = NDArray[np.uint8]

Rgb = tuple[float, float, float]
"""Red, green, blue in 0..255."""

_CAP = 0.35  # saturation after mixing and rounding stays below content.MAX_BACKDROP_SATURATION
_DARKEST = 30.0
_SHIFT = 4


@dataclass(kw_only=True, slots=True)
class Layer:
    """One depth of a setting."""

    pixels: FloatArray  # (H, W + 2 * pan, 4) float32: colours in 0..255 times alpha, and alpha
    nearness: float  # 0..1: how much of the camera's shift and zoom it takes part in


class Brush:
    """Paints the layers of one setting, far to near; lengths are shares of the frame's height."""

    def __init__(self, height_px: int, width_px: int, pan_px: int, rng: np.random.Generator) -> None:
        self.layers: list[Layer] = []
        self.rng = rng
        self._height_px, self._width_px = height_px, width_px + 2 * pan_px
        self._rows = ((np.arange(height_px) + 0.5) / height_px).astype(np.float32)  # (H,)
        self._columns = ((np.arange(self._width_px) + 0.5 - pan_px) / height_px).astype(np.float32)  # (W,)

    def varied(self, rgb: Rgb, spread: float = 10.0) -> Rgb:
        """Return a colour near another."""
        red, green, blue = (
            np.array(rgb) + self.rng.uniform(-spread, spread) + self.rng.normal(0, spread / 4, 3)
        )
        return float(red), float(green), float(blue)

    def sky(self, top: Rgb, low: Rgb, *, bend: float = 1.4, nearness: float = 0.2) -> None:
        """Fill the frame with a gradient."""
        rgb = _mixed(top, low, np.clip(self._rows / 0.85, 0.0, 1.0)[:, None] ** bend)
        self._add(rgb, None, nearness)

    def sun(self, rgb: Rgb, y: float, radius: float) -> None:
        """Put a disc with a halo into the farthest layer."""
        x = self._somewhere()
        distance = np.hypot(self._columns[None] - x, self._rows[:, None] - y)
        disc = np.clip(0.5 - (distance - radius) * self._height_px, 0.0, 1.0)
        halo = 0.35 * np.exp(-np.maximum(distance - radius, 0.0) / (1.2 * radius))
        self._blend(rgb, np.maximum(disc, halo))

    def stars(self, count: int) -> None:
        """Sprinkle the farthest layer with points of light."""
        light = self._empty()
        radius = 0.0045 * self._height_px
        for _ in range(count):
            x, y = self.rng.uniform(0, self._width_px), self.rng.uniform(0, 0.8 * self._height_px)
            size, level = radius * self.rng.uniform(0.8, 1.6), self.rng.uniform(0.4, 1.0)
            _disc(light, x, y, size, level)
        self._blend((232.0, 232.0, 226.0), light / 255.0)

    def cloud(self, y: float, rgb: Rgb) -> None:
        """Put a heap of soft discs into the farthest layer."""
        puffs = self._empty()
        x, width = self._somewhere(), self.rng.uniform(0.16, 0.4)
        for _ in range(9):
            along = float(self.rng.uniform(-1.0, 1.0))
            radius = (0.055 + 0.05 * (1.0 - along**2)) * self.rng.uniform(0.6, 1.0)
            middle = (self._columns[0] * -self._height_px) + (x + along * width / 2.0) * self._height_px
            _disc(puffs, middle, (y - 0.4 * radius) * self._height_px, radius * self._height_px, 1.0)
        cut = np.clip(0.5 - (self._rows - y - 0.015) * self._height_px / 3.0, 0.0, 1.0)[:, None]
        soft = cv2.GaussianBlur(puffs / np.float32(255.0) * cut, (0, 0), 0.012 * self._height_px)
        self._blend(rgb, 0.85 * soft)

    def ridge(self, y: float, swing: float, top: Rgb, low: Rgb, nearness: float) -> None:
        """Add hilly ground below a wavy line, shaded from its edge downwards."""
        edge = (y + swing * self._wave(1.3, 3))[None]
        depth = self._rows[:, None] - edge
        rgb = _mixed(self.varied(top, 5), self.varied(low, 5), np.clip(depth / 0.22, 0.0, 1.0))
        self._add(rgb, np.clip(0.5 + depth * self._height_px, 0.0, 1.0), nearness)

    def peaks(self, y: float, swing: float, rock: Rgb, snow: Rgb, nearness: float) -> None:
        """Add jagged mountains, lit from the left, snow on their upper parts."""
        edge = (y + swing * self._wave(0.9, 5, gain=0.5, is_jagged=True))[None]
        depth = self._rows[:, None] - edge
        rows = np.round(np.clip(depth, 0.0, 1.0) * self._height_px * 0.7).astype(int)
        columns = np.clip(np.arange(self._width_px)[None] - rows, 0, self._width_px - 1)
        is_rising = np.asarray(np.gradient(edge[0]) < 0.0, dtype=np.float32)
        light = (0.84 + 0.16 * cv2.GaussianBlur(is_rising[columns], (0, 0), 1.0))[..., None]
        line = 0.10 + 0.05 * self._wave(5.0, 2, is_jagged=True)[None]
        snow_share: FloatArray = np.clip(0.5 + (line - depth) * self._height_px / 2.0, 0.0, 1.0)
        snow_share = snow_share * np.clip((y + 0.1 - self._rows[:, None]) / 0.03, 0.0, 1.0)
        rgb = _mixed(self.varied(rock, 5), snow, snow_share) * light
        self._add(rgb, np.clip(0.5 + depth * self._height_px, 0.0, 1.0), nearness)

    def water(self, horizon: float, far: Rgb, near: Rgb) -> None:
        """Add a flat far sea and rows of waves with light crests that grow towards the viewer."""
        level = np.broadcast_to(horizon, (1, self._width_px))
        self._wave_row(level, far, 0.3, crest=0.0)
        num_rows = 6
        for row in range(num_rows):
            share = (row + 1) / num_rows
            length, high = 0.10 + 0.32 * share, 0.006 + 0.022 * share
            phase = (
                self._columns * 2.0 * np.pi / length + self.rng.uniform(0.0, 6.3) + 0.9 * self._wave(0.8, 2)
            )
            y = horizon + (0.94 - horizon) * share**1.5 + high * (np.abs(np.sin(phase / 2.0)) - 0.5)
            rgb = tuple(np.array(far) + (np.array(near) - far) * share)
            self._wave_row(y[None], rgb, 0.3 + 0.7 * share, crest=0.008 + 0.012 * share)

    def _wave_row(self, edge: FloatArray, rgb: Rgb, nearness: float, crest: float) -> None:
        depth = self._rows[:, None] - edge
        foam = 0.55 * np.clip(1.0 - depth / max(crest, 1e-3), 0.0, 1.0) * (crest > 0.0)
        low = tuple(np.array(rgb) * 0.93)
        colors = _mixed(rgb, low, np.clip(depth / 0.12, 0.0, 1.0))
        colors = colors + (muted((224.0, 232.0, 236.0)) - colors) * foam[..., None]
        self._add(colors, np.clip(0.5 + depth * self._height_px, 0.0, 1.0), nearness)

    def conifers(self, y: float, size: float, rgb: Rgb, nearness: float) -> None:
        """Add a row of conifers on even ground."""
        alpha = self._empty()
        x = float(self._columns[0])
        while x < self._columns[-1] + size:
            tall = size * self.rng.uniform(0.65, 1.1)
            self._conifer(alpha, x, y + 0.02, tall)
            x += tall * self.rng.uniform(0.18, 0.42)
        ground = np.clip(0.5 + (self._rows[:, None] - y) * self._height_px, 0.0, 1.0)
        depth = np.clip((self._rows[:, None] - y + size) / (size + 0.3), 0.0, 1.0)
        shade = self.varied(rgb, 5)
        pale = tuple(np.array(shade) + 0.3 * (np.array([222.0, 226.0, 222.0]) - shade))
        self._add(_mixed(shade, pale, depth), np.maximum(alpha / 255.0, ground), nearness)

    def _conifer(self, alpha: MaskArray, x: float, foot: float, tall: float) -> None:
        for low, high, half in ((0.0, 0.55, 0.24), (0.28, 0.8, 0.18), (0.55, 1.0, 0.12)):
            corners = [(x - half * tall, foot - low * tall), (x + half * tall, foot - low * tall)]
            self._fill(alpha, np.array([*corners, (x, foot - high * tall)]), 255)

    def houses(self, y: float, swing: float, wall: Rgb, window: Rgb, nearness: float) -> None:
        """Add a row of blocks with windows."""
        picture = np.zeros((self._height_px, self._width_px, 4), dtype=np.float32)
        x = float(self._columns[0]) - 0.1
        while x < self._columns[-1]:
            width, top = self.rng.uniform(0.10, 0.22), y + swing * self.rng.uniform(-0.5, 0.5)
            shade = self.varied(wall, 9)
            self._box(picture, x, top, x + width, 1.0, shade)
            for row in np.arange(top + 0.03, 0.92, 0.055):
                for column in np.arange(x + 0.02, x + width - 0.025, 0.04):
                    if self.rng.random() < 0.55:
                        self._box(picture, column, row, column + 0.018, row + 0.028, window)
            x += width + (0.0 if self.rng.random() < 0.7 else 0.03)
        self._add(picture[..., :3], picture[..., 3], nearness)

    def panels(self, floor: float) -> None:
        """Draw upright panels with light and dark edges on the farthest layer."""
        phase = np.abs((self._columns + self.rng.uniform(0.0, 0.4)) % 0.36 - 0.18) * self._height_px
        inside = (self._rows[:, None] > 0.06) & (self._rows[:, None] < floor - 0.06)
        self._blend((150.0, 146.0, 140.0), 0.5 * np.clip(1.4 - phase, 0.0, 1.0)[None] * inside)
        self._blend((236.0, 234.0, 230.0), 0.5 * np.clip(1.4 - np.abs(phase - 2.0), 0.0, 1.0)[None] * inside)

    def floor(self, y: float, far: Rgb, near: Rgb) -> None:
        """Add a floor of boards that run towards the viewer."""
        depth = (self._rows[:, None] - y) / (1.0 - y)
        rgb = _mixed(far, near, np.clip(depth, 0.0, 1.0))
        middle = (self._columns[0] + self._columns[-1]) / 2.0
        across = (self._columns[None] - middle) / (0.6 + 0.6 * depth)
        joint = np.abs((across + 10.0) % 0.16 - 0.08) * self._height_px
        rgb = rgb * (1.0 - 0.16 * np.clip(1.3 - joint, 0.0, 1.0)[..., None])
        self._add(rgb, np.clip(0.5 + depth * 30.0, 0.0, 1.0), 1.0)

    # ------------------------------------------------------------------------------------------- parts

    def _empty(self) -> MaskArray:
        return np.zeros((self._height_px, self._width_px), dtype=np.uint8)

    def _somewhere(self) -> float:
        return float(self.rng.uniform(self._columns[0] + 0.1, self._columns[-1] - 0.1))

    def _wave(
        self, per_height: float, octaves: int, *, gain: float = 0.42, is_jagged: bool = False
    ) -> FloatArray:
        """Return (W,) noise in about -1..1 with a number of swings per height of the frame."""
        total = np.zeros(self._width_px, dtype=np.float32)
        for octave in range(octaves):
            knots = np.arange(self._columns[0] - 1.0, self._columns[-1] + 2.0, 0.5 / (per_height * 2**octave))
            values = self.rng.uniform(-1.0, 1.0, len(knots))
            place = np.interp(self._columns, knots, np.arange(len(knots)))
            left = np.floor(place).astype(int)
            ease = place - left if is_jagged else (1.0 - np.cos(np.pi * (place - left))) / 2.0
            total += gain**octave * (values[left] * (1.0 - ease) + values[left + 1] * ease)
        return total

    def _fill(self, picture: MaskArray, corners: FloatArray, level: int) -> None:
        points = (corners - np.array([self._columns[0], 0.0])) * self._height_px * (1 << _SHIFT)
        cv2.fillPoly(picture, [np.round(points).astype(np.int32)], (level,), cv2.LINE_AA, _SHIFT)

    def _box(self, picture: FloatArray, left: float, top: float, right: float, low: float, rgb: Rgb) -> None:
        edge = float(self._columns[0])
        columns = [max(0, round((x - edge) * self._height_px)) for x in (left, right)]
        rows = [max(0, round(y * self._height_px)) for y in (top, low)]
        picture[rows[0] : rows[1], columns[0] : columns[1]] = (*muted(rgb), 1.0)

    def _blend(self, rgb: Rgb, alpha: FloatArray) -> None:
        """Mix a colour into the newest layer."""
        pixels = self.layers[-1].pixels
        share = np.asarray(alpha, dtype=np.float32)[..., None]
        pixels[..., :3] += (muted(rgb) - pixels[..., :3]) * share

    def _add(self, rgb: FloatArray, alpha: FloatArray | None, nearness: float) -> None:
        pixels = np.ones((self._height_px, self._width_px, 4), dtype=np.float32)
        pixels[..., :3] = rgb
        if alpha is not None:
            pixels *= np.asarray(alpha, dtype=np.float32)[..., None]
        self.layers.append(Layer(pixels=pixels, nearness=nearness))


def muted(rgb: Rgb) -> FloatArray:
    """Return a colour of the same hue, at most as saturated as a setting may be, and never black.

    Whatever is mixed from such colours is no more saturated.
    """
    color = np.clip(np.array(rgb, dtype=np.float32), 0.0, 255.0)
    top, spread = color.max(), np.ptp(color)
    share = min(1.0, _CAP * float(top) / max(float(spread), 1e-3))
    return np.asarray(top - (top - color) * share + max(_DARKEST - float(top), 0.0), dtype=np.float32)


def _mixed(one: Rgb, other: Rgb, share: FloatArray) -> FloatArray:
    """Return (..., 3) muted colours between two."""
    start, end = muted(one), muted(other)
    return np.asarray(start + (end - start) * np.asarray(share, dtype=np.float32)[..., None])


def _disc(picture: MaskArray, x_px: float, y_px: float, radius_px: float, level: float) -> None:
    unit = 1 << _SHIFT
    center = (round(x_px * unit), round(y_px * unit))
    cv2.circle(
        picture, center, max(1, round(radius_px * unit)), (round(255.0 * level),), -1, cv2.LINE_AA, _SHIFT
    )
