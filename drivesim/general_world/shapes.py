"""Objects as pictures with transparency: outlines, textures in shades of one hue, soft light."""

from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np

from drivesim.general_world.content import HUE_DEG, FloatArray, ObjectSpec, Shape, Texture

PATCH_SHARE = 1.5  # side of a patch by the extent of its object: room for every corner
_SUPERSAMPLING = 3
_HUE_JITTER_DEG = 3.0
_SATURATIONS = (0.78, 0.9)
_VALUES = (0.94, 1.0)
_DARK = 0.66  # value of stripes, dots and rims by that of the ground
_RIM_SHARE = 0.035  # width of the darker rim by the extent


def outline(shape: Shape) -> list[FloatArray]:
    """Return the closed curves of a shape about (0, 0), (N, 2) each, about 1 across; a second one is a hole."""
    if shape is Shape.CIRCLE:
        return [_polygon(72, 0.5)]
    if shape is Shape.RING:
        return [_polygon(72, 0.52), _polygon(72, 0.27)]
    if shape is Shape.SQUARE:
        return [_polygon(4, 0.62, math.pi / 4)]
    if shape is Shape.TRIANGLE:
        return [_polygon(3, 0.64) + np.array([0.0, 0.06])]
    if shape is Shape.STAR:
        points = _polygon(10, 0.62)
        points[1::2] *= 0.46
        return [points]
    arm, half = 0.53, 0.17
    quarter = np.array([[-half, -arm], [half, -arm], [half, -half]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return [np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])]


def _polygon(num_corners: int, radius: float, start_rad: float = 0.0) -> FloatArray:
    """Return corners on a circle, clockwise from the top."""
    angles = start_rad + 2.0 * math.pi * np.arange(num_corners) / num_corners
    return radius * np.stack([np.sin(angles), -np.cos(angles)], axis=1)


def coverage(shape: Shape, side_px: int) -> FloatArray:
    """Return how much of each pixel of a square patch a shape covers, (side, side) in 0..1."""
    large_px = side_px * _SUPERSAMPLING
    fixed = [
        np.round((curve / PATCH_SHARE + 0.5) * large_px * 16.0 - 8.0).astype(np.int32)
        for curve in outline(shape)
    ]
    canvas = np.zeros((large_px, large_px), dtype=np.uint8)
    cv2.fillPoly(canvas, fixed, 255, cv2.LINE_AA, 4)
    return np.asarray(
        cv2.resize(canvas, (side_px, side_px), interpolation=cv2.INTER_AREA) / np.float32(255.0)
    )


def object_patch(thing: ObjectSpec, side_px: int, rng: np.random.Generator) -> FloatArray:
    """Return an object's upright picture, (side, side, 4): colours in 0..255 times alpha, and alpha."""
    alpha = coverage(thing.shape, side_px)
    axis = ((np.arange(side_px) + 0.5) / side_px - 0.5) * PATCH_SHARE
    x, y = np.meshgrid(axis, axis)
    rim_px = max(1, round(_RIM_SHARE / PATCH_SHARE * side_px))
    inner = cv2.erode(alpha, np.ones((3, 3)), iterations=rim_px)
    shade = _DARK + (1.0 - _DARK) * inner * (1.0 - _pattern(thing.texture, x, y, PATCH_SHARE / side_px))
    shade = shade * (0.95 - 0.12 * (x + y))  # lit from the upper left
    rgb = _tint(thing, rng) * np.clip(shade, 0.0, 1.0)[..., None]
    return np.dstack([rgb * alpha[..., None], alpha]).astype(np.float32)


def _pattern(texture: Texture, x: FloatArray, y: FloatArray, pixel: float) -> FloatArray:
    """Return where a pattern is dark, 0..1, with edges one pixel soft."""
    if texture is Texture.STRIPED:
        distance = np.abs(_centred((x + y) / math.sqrt(2.0), 0.24)) - 0.06
    elif texture is Texture.DOTTED:
        row = np.round(y / 0.2)
        distance = np.hypot(_centred(x + 0.13 * (row % 2), 0.26), y - 0.2 * row) - 0.068
    else:
        return np.zeros_like(x)
    return np.asarray(np.clip(0.5 - distance / pixel, 0.0, 1.0))


def _centred(value: FloatArray, period: float) -> FloatArray:
    return np.asarray(value - period * np.round(value / period))


def _tint(thing: ObjectSpec, rng: np.random.Generator) -> FloatArray:
    hue_deg = HUE_DEG[thing.color] + rng.uniform(-_HUE_JITTER_DEG, _HUE_JITTER_DEG)
    rgb = colorsys.hsv_to_rgb((hue_deg / 360.0) % 1.0, rng.uniform(*_SATURATIONS), rng.uniform(*_VALUES))
    return np.array(rgb) * 255.0
