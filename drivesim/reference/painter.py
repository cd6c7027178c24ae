"""Paints faces and plants on a picture, far to near, lit and blended into haze."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from drivesim.reference.look import Atmosphere
from drivesim.reference.scenery import Scenery
from drivesim.reference.solids import BoolArray, Faces
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera, Image

NEAR_M = 0.3
FAR_M = 150.0
_FADE_M = 40.0  # things dissolve into haze over the last metres before FAR_M
_SHIFT = 4

PixelArray = NDArray[np.int32]
"""(N, 2) fixed-point pixels as cv2 draws them."""

Polygon = tuple[PixelArray, list[float]]
Painting = list[tuple[float, list[Polygon]]]
"""Depth in metres and the polygons of one thing, in painting order."""


@dataclass(kw_only=True, slots=True)
class View:
    """The camera at one pose: global points to (forward, left, up) metres to pixels."""

    camera: Camera
    xy_m: FloatArray  # (2,) global place of the camera
    yaw_rad: float
    height_m: float

    def seen(self, xy_m: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return forward and left distances of (..., 2) global points."""
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        dx, dy = xy_m[..., 0] - self.xy_m[0], xy_m[..., 1] - self.xy_m[1]
        return cos * dx + sin * dy, cos * dy - sin * dx

    def pixels(self, forward: FloatArray, left: FloatArray, z_m: FloatArray) -> FloatArray:
        """Return (..., 2) column, row of points; a pixel's middle has whole numbers, as cv2 counts."""
        column = self.camera.cx_px - self.camera.fx_px * left / forward - 0.5
        row = self.camera.cy_px - self.camera.fy_px * (z_m - self.height_m) / forward - 0.5
        return np.stack([column, row], axis=-1)

    def is_in_sight(self, forward: FloatArray, left: FloatArray, radius_m: FloatArray | float) -> BoolArray:
        """Tell which discs of a radius may touch the picture."""
        slope = max(self.camera.cx_px, self.camera.width_px - self.camera.cx_px) / self.camera.fx_px
        is_near = (forward > NEAR_M - radius_m) & (forward < FAR_M)
        return np.asarray(is_near & (np.abs(left) < slope * np.maximum(forward, 0.0) + 1.3 * radius_m))


def headlight(forward: FloatArray, left: FloatArray) -> FloatArray:
    """Return the light factor that the ego car's headlights add at ground points ahead of the camera."""
    across = np.exp(-((left / (1.8 + 0.17 * np.maximum(forward, 0.0))) ** 2))
    return np.asarray(0.95 * across * np.exp(-np.maximum(forward - 7.0, 0.0) / 15.0))


class Painter:
    """Turns what is in sight into coloured polygons."""

    def __init__(self, air: Atmosphere) -> None:
        self._air = air

    def _finished(self, rgb: FloatArray, forward: FloatArray, left: FloatArray) -> FloatArray:
        """Blend (..., 3) lit colours into haze and into nothing at the limit of sight."""
        share = self._air.haze(np.hypot(forward, left))
        fade = np.clip((FAR_M - forward) / _FADE_M, 0.0, 1.0)
        share = 1.0 - (1.0 - share) * fade * (2.0 - fade)
        return np.asarray(np.clip(rgb + (self._air.horizon_rgb - rgb) * share[..., None], 0.0, 255.0))

    def _lamp(self, forward: FloatArray, left: FloatArray) -> FloatArray:
        if not self._air.has_headlights:
            return np.zeros((*np.shape(forward), 1))
        return np.asarray(0.8 * headlight(forward, left)[..., None])

    def solids(self, faces: Faces, view: View) -> Painting:
        """Return the paintings of all owners in sight."""
        if not len(faces.corners):
            return []
        forward, left = view.seen(faces.owner_xy_m)
        is_owner_seen = view.is_in_sight(forward, left, 14.0)
        index = np.flatnonzero(is_owner_seen[faces.owner] & (faces.range_m > forward[faces.owner]))
        corners = faces.corners[index]
        ahead, aside = view.seen(corners[..., :2])
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1])
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
        towards = np.array([*view.xy_m, view.height_m]) - corners[:, 0]
        facing = np.einsum("fk,fk->f", normal, towards)
        is_two_sided = faces.is_two_sided[index]
        normal = np.where((is_two_sided & (facing < 0))[:, None], -normal, normal)
        is_cut = (ahead <= NEAR_M).any(axis=1)
        points = view.pixels(np.maximum(ahead, NEAR_M), aside, corners[..., 2])
        is_kept = (
            ((facing > 0) | is_two_sided)
            & (ahead > NEAR_M).any(axis=1)
            & (is_cut | self._is_worth(points, is_two_sided, view))
        )
        index, corners, ahead, aside = index[is_kept], corners[is_kept], ahead[is_kept], aside[is_kept]
        normal, is_cut, points = normal[is_kept], is_cut[is_kept], points[is_kept]
        middle, side = ahead.mean(axis=1), aside.mean(axis=1)
        lit = self._air.lit(faces.rgb[index], normal) + faces.rgb[index] * self._lamp(middle, side)
        lit = np.where(faces.is_glowing[index][:, None], faces.rgb[index], lit)
        colors = self._finished(lit, np.maximum(middle, 0.0), side).tolist()
        fixed = _fixed_point(points)
        groups: dict[int, list[Polygon]] = {}
        for row, owner in enumerate(faces.owner[index].tolist()):
            polygon = _cut(ahead[row], aside[row], corners[row, :, 2], view) if is_cut[row] else fixed[row]
            groups.setdefault(owner, []).append((polygon, colors[row]))
        depth = forward - faces.owner_reach_m
        return [(float(depth[owner]), polygons) for owner, polygons in groups.items()]

    @staticmethod
    def _is_worth(points: FloatArray, is_two_sided: BoolArray, view: View) -> BoolArray:
        """Tell which (F, corners, 2) polygons touch the picture and are large enough to see."""
        low, high = points.min(axis=1), points.max(axis=1)
        size = high - low
        is_inside = (
            (high >= 0.0).all(axis=1)
            & (low[:, 0] < view.camera.width_px)
            & (low[:, 1] < view.camera.height_px)
        )
        return np.asarray(is_inside & (size.max(axis=1) > 0.8) & ((size.min(axis=1) > 0.08) | is_two_sided))

    def plants(self, scenery: Scenery, view: View) -> Painting:
        """Return the paintings of all plants in sight: billboards of a few convex blobs."""
        forward, left = view.seen(scenery.plant_xy_m)
        height = scenery.plant_height_m
        index = np.flatnonzero(view.is_in_sight(forward, left, 0.5 * height) & (forward > 1.0))
        forward, left, height = forward[index], left[index], height[index]
        kind = scenery.plant_kind[index].astype(np.int64)
        stretch = 1.0 + 0.25 * np.sin(scenery.plant_xy_m[index, 0] * 7.0 + scenery.plant_xy_m[index, 1] * 3.0)
        sun_side = np.sin(np.arctan2(self._air.sun_direction[1], self._air.sun_direction[0]) - view.yaw_rad)
        shape = (
            _SHAPES[kind] + np.array([0.07 * sun_side, 0.0]) * _LEAN[:, None, None]
        )  # (n, parts, corners, 2)
        aside = left[:, None, None] + shape[..., 0] * (height * stretch)[:, None, None]
        up = shape[..., 1] * height[:, None, None]
        ahead = np.broadcast_to(forward[:, None, None], aside.shape)
        points = _fixed_point(view.pixels(ahead, aside, up))
        light = self._air.ambient_rgb + 0.6 * self._air.sun_rgb
        leaf = scenery.plant_rgb[index][:, None] * _TONE[:, None]
        leaf[:, 0] = [78.0, 62.0, 48.0]
        lit = leaf * (light + self._lamp(forward, left)[:, None])
        colors = self._finished(lit, forward[:, None] + np.zeros(len(_TONE)), left[:, None]).tolist()
        first, last = (
            _FIRST_PART[kind].tolist(),
            np.where(forward > 75.0, len(_TONE) - 1, len(_TONE)).tolist(),
        )
        return [
            (
                float(forward[row]),
                [(points[row, part], colors[row][part]) for part in range(first[row], last[row])],
            )
            for row in range(len(index))
        ]


def paint(picture: Image, painting: Painting) -> None:
    """Paint things far to near, in place."""
    for _, polygons in sorted(painting, key=lambda thing: -thing[0]):
        paint_polygons(picture, polygons)


def paint_polygons(picture: Image, polygons: list[Polygon]) -> None:
    """Paint convex polygons in their order, in place."""
    for points, color in polygons:
        cv2.fillConvexPoly(picture, points, color, cv2.LINE_AA, _SHIFT)


def _fixed_point(points: FloatArray) -> PixelArray:
    return np.round(np.clip(points, -8000.0, 8000.0) * (1 << _SHIFT)).astype(np.int32)


def _cut(ahead: FloatArray, aside: FloatArray, z_m: FloatArray, view: View) -> PixelArray:
    """Return the pixels of the part of a polygon that lies beyond the near plane."""
    corners = list(zip(ahead.tolist(), aside.tolist(), z_m.tolist(), strict=True))
    kept: list[tuple[float, float, float]] = []
    for here, there in zip(corners, [*corners[1:], corners[0]], strict=True):
        if here[0] > NEAR_M:
            kept.append(here)
        if (here[0] > NEAR_M) != (there[0] > NEAR_M):
            share = (NEAR_M - here[0]) / (there[0] - here[0])
            kept.append(
                (NEAR_M, here[1] + share * (there[1] - here[1]), here[2] + share * (there[2] - here[2]))
            )
    clipped = np.array(kept)
    return _fixed_point(view.pixels(clipped[:, 0], clipped[:, 1], clipped[:, 2]))


_CORNERS = 12


def _blob(x: float, z: float, rx: float, rz: float) -> FloatArray:
    angle = np.arange(_CORNERS) / _CORNERS * 2 * np.pi
    return np.stack([x + rx * np.cos(angle), z + rz * np.sin(angle)], axis=-1)


def _polygon(*corners: tuple[float, float]) -> FloatArray:
    return np.array([*corners, *([corners[-1]] * (_CORNERS - len(corners)))])


def _tier(half: float, z0: float, z1: float) -> FloatArray:
    return _polygon((-half, z0), (half, z0), (half * 0.1, z1), (-half * 0.1, z1))


_TRUNK = _polygon((-0.025, 0.0), (0.025, 0.0), (0.025, 0.45), (-0.025, 0.45))
_BROADLEAF = [
    _TRUNK,
    _blob(-0.15, 0.55, 0.20, 0.20),
    _blob(0.15, 0.58, 0.20, 0.21),
    _blob(0.0, 0.73, 0.25, 0.27),
    _blob(0.03, 0.76, 0.15, 0.16),
]
_CONIFER = [
    _TRUNK,
    _tier(0.21, 0.10, 0.55),
    _tier(0.17, 0.34, 0.78),
    _tier(0.12, 0.58, 1.0),
    _tier(0.05, 0.62, 0.96),
]
_BUSH = [
    _TRUNK,
    _blob(-0.42, 0.34, 0.42, 0.38),
    _blob(0.42, 0.36, 0.42, 0.40),
    _blob(0.0, 0.55, 0.52, 0.46),
    _blob(0.05, 0.66, 0.30, 0.24),
]
_SHAPES = np.stack([np.stack(parts) for parts in (_BROADLEAF, _CONIFER, _BUSH)])
"""(PlantKind, part, corner, 2) in units of the height: trunk, three dark masses, light side."""
_TONE = np.array([1.0, 0.72, 0.80, 0.95, 1.22])
_LEAN = np.array([0.0, 0.0, 0.0, 0.3, 1.0])
_FIRST_PART = np.array([0, 0, 1])
