"""Reads a front camera's picture: what is ground where, and how far the way ahead is free.

Flat ground is assumed, and a camera that looks straight ahead. Nothing is learned: the colour of the road is what lies
before the bonnet, carried on from row to row as far as the picture agrees, so that dusk, headlights and haze need no
settings of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera, Image, front_camera

FARTHEST_M = 55.0  # a car there is five pixels wide
NUM_ACROSS = 9
ADAPTING = 0.5  # weight of a row of road in the colour that the next row is compared with, and
TREND = 0.15  # in how that colour goes on changing: light of headlamps falls off, haze grows
NOISE_LEVELS = 3.5  # a difference of colour that means nothing, and
NOISE_SHARE = 0.11  # the same as a share of the brightness
PATCH_SHARES = (0.64, 1.5)  # brightness of repaired asphalt and joints beside that of the road
PATCH_WEIGHT = 0.05  # of their colour in that of the road
STANDING_SHARE = 0.55  # of the camera's height: what stands on a road is at least so high
BLOCKED = -0.25  # likeness of what stands on the road
BEYOND_M = 60.0  # the way is drawn on straight, because what stands at its end hides what lies behind
FIRST_ROWS = 6  # that lie before the bonnet and give the road's colour


@dataclass(kw_only=True, slots=True, frozen=True)
class FreeWay:
    """How far the way ahead is free."""

    distance_m: float  # along the way from the rear axle, at most ``reach_m``
    reach_m: float  # how far the picture was read
    is_blocked: bool  # whether something was seen at ``distance_m``


@lru_cache(maxsize=8)
def camera_for(height_px: int, width_px: int) -> Camera:
    """Return the front camera of pictures of this size."""
    return front_camera().resized(width_px=width_px, height_px=height_px)


def pixels_of(camera: Camera, ground_m: FloatArray) -> FloatArray:
    """Return where points (..., 2) of flat ground, ego frame, are in the picture: (..., 2) column and row.

    Pixel ``[row, column]`` has its centre at half numbers. Points behind the camera give NaN.
    """
    centre = camera.ego_from_cam[:3, 3]
    offset = np.concatenate([ground_m - centre[:2], np.full((*ground_m.shape[:-1], 1), -centre[2])], axis=-1)
    rays = offset @ camera.ego_from_cam[:3, :3] @ camera.intrinsic.T
    depth = np.where(rays[..., 2:] > 0.1, rays[..., 2:], np.nan)
    return np.asarray(rays[..., :2] / depth)


def read_at(picture: Image, pixels: FloatArray) -> FloatArray:
    """Return colours (..., 3) at (..., 2) places, between pixels too; NaN outside of the picture."""
    height, width = picture.shape[:2]
    u, v = pixels[..., 0] - 0.5, pixels[..., 1] - 0.5
    is_inside = (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
    u, v = np.where(is_inside, u, 0.0).clip(0, width - 1), np.where(is_inside, v, 0.0).clip(0, height - 1)
    column, row = np.minimum(u.astype(int), width - 2), np.minimum(v.astype(int), height - 2)
    right, below = (u - column)[..., None], (v - row)[..., None]
    upper = picture[row, column] * (1 - right) + picture[row, column + 1] * right
    lower = picture[row + 1, column] * (1 - right) + picture[row + 1, column + 1] * right
    return np.where(is_inside[..., None], upper * (1 - below) + lower * below, np.nan)


def free_way(
    picture: Image,
    way_m: FloatArray,
    *,
    camera: Camera | None = None,
    half_width_m: float = 0.95,
    reach_m: float = FARTHEST_M,
) -> FreeWay:
    """Return how far a way is free of what stands on the road.

    Args:
        picture: (H, W, 3) uint8.
        way_m: (N, 2) points of the way, ego frame, from the car on.
        camera: of the picture; the front camera of its size if left out.
        half_width_m: half of what must be free.
        reach_m: how far to look.
    """
    camera = camera or camera_for(*picture.shape[:2])
    strip = _strip(picture, way_m, camera, half_width_m=half_width_m)
    num_known = int(np.searchsorted(strip.along_m, min(reach_m, strip.known_m)))
    if num_known <= FIRST_ROWS:
        return FreeWay(distance_m=reach_m, reach_m=0.0, is_blocked=False)
    evidence, road_rgb = _followed(strip.rgb)
    ahead = _means_ahead(evidence, np.maximum(2, np.round(0.2 * strip.below_px)).astype(int))
    is_base = ahead[:num_known] < BLOCKED
    suspected = np.flatnonzero(is_base)
    is_base[suspected] = _standing(picture, strip, road_rgb, suspected) < BLOCKED
    first = int(np.argmax(is_base)) if is_base.any() else num_known - 1
    last = min(first + 1 + int(0.1 * strip.below_px[first]), num_known - 1)
    while first < last and evidence[first] > 0.0:  # to where it touches the road
        first += 1
    seen_m = float(strip.along_m[num_known - 1])
    return FreeWay(distance_m=float(strip.along_m[first]), reach_m=seen_m, is_blocked=bool(is_base.any()))


@dataclass(kw_only=True, slots=True)
class _Strip:
    """The way cut out of the picture: one row for one row of the picture, nearest first."""

    along_m: FloatArray  # (R,) along the way
    rgb: FloatArray  # (R, NUM_ACROSS, 3); NaN beside the picture
    pixels: FloatArray  # (R, NUM_ACROSS, 2) where they were read
    below_px: FloatArray  # (R,) rows below the horizon
    known_m: float  # the way is drawn on from there


def _strip(picture: Image, way_m: FloatArray, camera: Camera, *, half_width_m: float) -> _Strip:
    """Cut the way out of the picture, as far as it goes on and stays in view."""
    points = np.concatenate([np.zeros((1, 2)), way_m])
    is_onward = np.diff(points[:, 0], prepend=-1.0) > np.maximum(0.5 * _steps(points), 1e-3)
    points = points[np.logical_and.accumulate(is_onward)]
    known_m = float(_steps(points).sum())
    points = np.concatenate([points, points[-1:] + BEYOND_M * _direction(points)])
    rows = np.arange(camera.height_px - 1, int(camera.cy_px) + 1, -1)
    scale = camera.fy_px * float(camera.ego_from_cam[2, 3])
    x_m = float(camera.ego_from_cam[0, 3]) + scale / (rows + 0.5 - camera.cy_px)
    is_onward = x_m <= points[-1, 0]
    x_m, below_px = x_m[is_onward], (rows + 0.5 - camera.cy_px)[is_onward]
    y_m = np.interp(x_m, points[:, 0], points[:, 1])
    across_m = np.linspace(half_width_m, -half_width_m, NUM_ACROSS)
    ground_m = np.stack(np.broadcast_arrays(x_m[:, None], y_m[:, None] + across_m), axis=-1)
    pixels = pixels_of(camera, ground_m)
    rgb = read_at(picture, pixels)
    is_seen = np.logical_and.accumulate(np.isfinite(rgb).any(axis=(1, 2)))
    along_m = np.interp(x_m, points[:, 0], np.cumsum(_steps(points)))
    return _Strip(
        along_m=along_m[is_seen],
        rgb=rgb[is_seen],
        pixels=pixels[is_seen],
        below_px=below_px[is_seen],
        known_m=known_m,
    )


def _direction(points: FloatArray) -> FloatArray:
    last = points[-1] - points[-2] if len(points) > 1 else np.array([1.0, 0.0])
    return np.asarray(last / max(float(np.linalg.norm(last)), 1e-6))


def _steps(points: FloatArray) -> FloatArray:
    return np.concatenate([[0.0], np.linalg.norm(np.diff(points, axis=0), axis=1)])


def _followed(strip: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Follow the colour of the road away from the car.

    Returns:
        Per row (R,) how much it looks like road, from 1 to -1, and (R, 3) the colour that road has there.
    """
    road, trend = np.nanmedian(strip[:FIRST_ROWS], axis=(0, 1)), np.zeros(3)
    evidence, road_rgb = np.zeros(len(strip)), np.zeros((len(strip), 3))
    for index, row in enumerate(strip):
        expected = road_rgb[index] = np.maximum(road + trend, 1.0)
        likeness = _likeness(row, expected)
        evidence[index] = _of_a_row(likeness)
        weights = np.maximum(np.nan_to_num(likeness, nan=-1.0) + PATCH_WEIGHT, 0.0)
        if weights.sum() > 1.0:
            surprise = np.nan_to_num(weights @ np.nan_to_num(row) / weights.sum()) - expected
            road, trend = expected + ADAPTING * surprise, trend + TREND * surprise
    return evidence, road_rgb


def _likeness(rgb: FloatArray, road_rgb: FloatArray) -> FloatArray:
    """Return how much colours (..., 3) look like road, from 1 to -1; 0 for repaired asphalt and joints."""
    tolerance = NOISE_LEVELS + NOISE_SHARE * road_rgb.mean(axis=-1)
    likeness = 2.0 - np.abs(rgb - road_rgb).max(axis=-1) / tolerance
    ratio = rgb.mean(axis=-1) / road_rgb.mean(axis=-1)
    off_hue = np.abs(rgb - ratio[..., None] * road_rgb).max(axis=-1) / tolerance
    is_asphalt = (ratio > PATCH_SHARES[0]) & (ratio < PATCH_SHARES[1]) & (off_hue < 1.0)
    return np.clip(np.where(is_asphalt, np.maximum(likeness, 0.0), likeness), -1.0, 1.0)


def _of_a_row(likeness: FloatArray) -> FloatArray:
    """Return one number for (..., NUM_ACROSS) samples: a marking covers one or two, half a car four."""
    return np.asarray(
        np.sort(np.nan_to_num(likeness, nan=0.5), axis=-1)[..., : NUM_ACROSS // 2].mean(axis=-1)
    )


def _standing(picture: Image, strip: _Strip, road_rgb: FloatArray, chosen: NDArray[np.int_]) -> FloatArray:
    """Return for chosen rows (C,) how much what would stand there, upright in the picture, looks like road."""
    num_up = np.maximum(3, np.round(STANDING_SHARE * strip.below_px[chosen])).astype(int)
    up = np.arange(1, int(num_up.max(initial=3)) + 1)
    height, width = picture.shape[:2]
    rows = np.floor(strip.pixels[chosen, :1, 1]).astype(int) - up  # (C, U)
    columns = np.floor(strip.pixels[chosen, :, 0]).astype(int)  # (C, NUM_ACROSS)
    is_inside = ((columns >= 0) & (columns < width))[:, None]
    rgb = picture[rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None]].astype(
        np.float64
    )
    likeness = np.where(is_inside, _likeness(rgb, road_rgb[chosen, None, None]), np.nan)
    return np.asarray(np.mean(_of_a_row(likeness), axis=1, where=up <= num_up[:, None]))


def _means_ahead(values: FloatArray, counts: NDArray[np.int_]) -> FloatArray:
    """Return for each place the mean of the next ``counts`` values, of fewer at the end."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.arange(1, len(values) + 1)
    last = np.minimum(first + counts, len(values))
    return np.asarray((sums[last] - sums[first]) / np.maximum(last - first, 1))
