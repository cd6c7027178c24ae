"""How far a camera that drives forward turned between two pictures, read from what moved in them; nothing is learned.

Corners are followed from one picture to the next. A turn moves all of them alike; driving on moves each straight away
from where the car heads, by as much as it is near. So the turn is the one after which most corners move outwards only.
Lengths are in picture widths. Letters: `N` corners, `K` candidate turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera, Image

_WIDTH_PX = 240
_MEAN_LEVEL, _SPREAD, _LEAST_SPREAD = 128.0, 48.0, 4.0  # grey levels
_MAX_CORNERS, _CORNER_QUALITY, _CORNER_GAP_PX = 200, 0.005, 6
_WINDOW_PX, _PYRAMID_LEVELS = (17, 17), 3
_MIN_CORNERS = 8
_MAX_RETURN_PX = 1.0  # a corner followed there and back ends where it began
_CELLS = 12  # to a picture's width; a crowd in one weighs less than as many corners apart
_NOISE = 0.75 / _WIDTH_PX  # of a corner's motion; farther off counts as not fitting, however far


@dataclass(kw_only=True, slots=True, frozen=True)
class Lens:
    """What of a camera matters for turns."""

    focal: float  # in picture widths
    horizon: (
        float  # of the row towards which the car drives, below the middle of the picture, in picture widths
    )

    @classmethod
    def of(cls, camera: Camera) -> Lens:
        """Return the lens of a camera that looks ahead."""
        ahead = camera.ego_from_cam[:3, :3].T @ np.array([1.0, 0.0, 0.0])
        row_px = camera.cy_px + camera.fy_px * float(ahead[1] / max(float(ahead[2]), 0.1))
        return cls(
            focal=camera.fx_px / camera.width_px, horizon=(row_px - camera.height_px / 2) / camera.width_px
        )


def small_grey(image: Image) -> Image:
    """Return an (H, W, 3) picture as it is compared: grey, small, and of one exposure."""
    height_px = max(round(_WIDTH_PX * image.shape[0] / image.shape[1]), 8)
    is_smaller = image.shape[1] >= _WIDTH_PX
    method = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_WIDTH_PX, height_px), interpolation=method).astype(np.float32)
    spread = max(float(small.std()), _LEAST_SPREAD)
    even = _MEAN_LEVEL + (small - small.mean()) * (_SPREAD / spread)
    return np.clip(even, 0, 255).astype(np.uint8)


def turn_between(before: Image, after: Image, lens: Lens) -> float:
    """Return the angle in rad, left positive, by which the camera turned; NaN where too little can be followed.

    Args:
        before: :func:`small_grey` of the earlier picture.
        after: of the later one.
        lens: of both.
    """
    if before.shape != after.shape:
        return float("nan")
    followed = _followed(before, after)
    if len(followed) < _MIN_CORNERS:
        return float("nan")
    place = (followed[:, :2] - [_WIDTH_PX / 2, before.shape[0] / 2]) / _WIDTH_PX
    motion = (followed[:, 2:] - followed[:, :2]) / _WIDTH_PX
    weight = _weights(place)
    candidates = np.quantile(motion[:, 0], np.linspace(0.02, 0.98, 34))
    best, step = 0.0, 1.5 / _WIDTH_PX
    for _ in range(4):
        best = float(candidates[np.argmin(_misfits(candidates, place, motion, weight, lens))])
        candidates = best + np.linspace(-step, step, 15)
        step /= 6
    return float(np.arctan(best / lens.focal))


def _followed(before: Image, after: Image) -> FloatArray:
    """Return (N, 4) pixels: where a corner is in the earlier picture, and where in the later one."""
    corners = cv2.goodFeaturesToTrack(before, _MAX_CORNERS, _CORNER_QUALITY, _CORNER_GAP_PX, blockSize=5)
    if corners is None:
        return np.zeros((0, 4))
    there, is_there = _follow(before, after, corners)
    back, is_back = _follow(after, before, there)
    gap_px = np.linalg.norm(back - corners, axis=-1)[:, 0]
    is_good = (is_there[:, 0] == 1) & (is_back[:, 0] == 1) & (gap_px < _MAX_RETURN_PX)
    return np.concatenate([corners[is_good, 0], there[is_good, 0]], axis=1).astype(np.float64)


def _follow(before: Image, after: Image, corners: Any) -> tuple[Any, Any]:
    there, is_there, _ = cv2.calcOpticalFlowPyrLK(
        before, after, corners, None, winSize=_WINDOW_PX, maxLevel=_PYRAMID_LEVELS
    )
    return there, is_there


def _weights(place: FloatArray) -> FloatArray:
    """Return (N,) what a corner counts: in a crowd of n as much as one over the root of n."""
    column, row = np.floor((place + 0.5) * _CELLS).astype(int).T
    _, cell, count = np.unique(row * _CELLS + column, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / np.sqrt(count[cell]))


def _misfits(
    turns: FloatArray, place: FloatArray, motion: FloatArray, weight: FloatArray, lens: Lens
) -> FloatArray:
    """Return (K,) how badly (N, 2) motions at (N, 2) places fit turns, given as motions at the picture's middle."""
    x, y = place.T
    turned = np.stack([1 + (x / lens.focal) ** 2, x * y / lens.focal**2], axis=-1)
    left = motion[None] - turns[:, None, None] * turned[None]  # (K, N, 2): what driving on has to explain
    outwards = np.stack([x, y - lens.horizon], axis=-1)
    share = (left * outwards).sum(axis=-1) / ((outwards**2).sum(axis=-1) + 1e-6)
    off = left - np.maximum(share, 0.0)[..., None] * outwards
    square = (off**2).sum(axis=-1)
    return np.asarray((weight * square / (square + _NOISE**2)).sum(axis=1))
