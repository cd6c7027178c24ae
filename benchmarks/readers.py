"""Reads colour, shape, direction and camera work back from clips of the general world by image analysis.

Nothing here is learned: objects are the saturated pixels, which settings never have. Made for generated
clips as well, whose edges are soft and which have speckles. Letters: T frames, H W pixels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drivesim.general_world.content import HUE_DEG, CameraMotion, Color, Image, Motion, Shape
from drivesim.general_world.shapes import coverage
from drivesim.general_world.trajectory import PAN_SHARE, ZOOM_FACTOR

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]

_MIN_SATURATION, _MIN_VALUE = 0.5, 0.35
_MIN_AREA_SHARE = 0.0025  # of the frame; less is a speckle
_MIN_FRAMES_SHARE = 0.5  # of the clip, in which an object must be found
_HUE_REACH_DEG = 28.0  # about the object's mean hue
_MIN_IOU = 0.6  # of the best shape, mean over the frames
_MIN_TRAVEL_SHARE = 0.12  # of the frame's side
_MIN_STRAIGHTNESS = 0.8  # share of the path's variance that even motion explains
_MIN_DOMINANCE = 1.5  # pixels along by pixels across
_GRID_PX = 48  # side of the square in which shapes are compared
_GRID_AREA_PX = 520.0
_MIN_PAN_SHARE, _MIN_LOG_ZOOM = 0.025, 0.035  # over the clip
_TRACK_FRAMES = 2  # over which points are followed
_MIN_TRACKS = 24  # of background points over the clip


@dataclass(kw_only=True, slots=True)
class Track:
    """The one object of a clip: its hue and where it is in the frames in which it was found."""

    hue_deg: float
    frame_index: NDArray[np.int64]  # (F,)
    is_object: BoolArray  # (F, H, W)
    xy_px: FloatArray  # (F, 2) centroid


@dataclass(kw_only=True, slots=True)
class Reading:
    """All that was read from a clip; None where nothing certain is seen."""

    color: Color | None
    shape: Shape | None
    direction: Motion | None
    camera: CameraMotion | None


def read_clip(frames: Image) -> Reading:
    """Read everything from a (T, H, W, 3) clip."""
    track = find_object(frames)
    return Reading(
        color=_color(track), shape=_shape(track), direction=_direction(track), camera=read_camera(frames)
    )


def read_color(frames: Image) -> Color | None:
    """Return the colour of the largest object of a (T, H, W, 3) clip, None without an object."""
    return _color(find_object(frames))


def read_shape(frames: Image) -> Shape | None:
    """Return the shape that fits the object's outline best over the clip, None where none fits."""
    return _shape(find_object(frames))


def read_direction(frames: Image) -> Motion | None:
    """Return where the object travels: left, right, up or down; None if it does not travel straight."""
    return _direction(find_object(frames))


# ----------------------------------------------------------------------------------------------- objects


def find_object(frames: Image) -> Track | None:
    """Return the largest saturated thing of a (T, H, W, 3) clip, None if most frames lack one."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"a clip is uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")
    hues_deg, is_vivid = _vivid(frames)
    largest = np.stack([_largest(mask) for mask in is_vivid])
    if not largest.any():
        return None
    hue_deg = _dominant_hue_deg(hues_deg[largest])
    is_object = np.stack(
        [_largest(mask) for mask in is_vivid & (_apart_deg(hues_deg, hue_deg) < _HUE_REACH_DEG)]
    )
    index = np.flatnonzero(is_object.any(axis=(1, 2)))
    if len(index) < _MIN_FRAMES_SHARE * len(frames):
        return None
    is_object = is_object[index]
    centroids = [np.argwhere(mask).mean(axis=0)[::-1] for mask in is_object]
    return Track(hue_deg=hue_deg, frame_index=index, is_object=is_object, xy_px=np.array(centroids))


def _vivid(frames: Image) -> tuple[FloatArray, BoolArray]:
    """Return hues, (T, H, W) in degrees, and which pixels are as saturated and bright as objects."""
    hsv = np.stack([cv2.cvtColor(frame.astype(np.float32) / 255.0, cv2.COLOR_RGB2HSV) for frame in frames])
    return hsv[..., 0], np.asarray((hsv[..., 1] > _MIN_SATURATION) & (hsv[..., 2] > _MIN_VALUE))


def _largest(is_vivid: BoolArray) -> BoolArray:
    """Return the largest connected part of a mask, nothing if it is but a speckle."""
    num_parts, labels, stats, _ = cv2.connectedComponentsWithStats(is_vivid.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    if num_parts < 2 or areas.max() < _MIN_AREA_SHARE * is_vivid.size:
        return np.zeros_like(is_vivid)
    return np.asarray(labels == 1 + int(np.argmax(areas)))


def _dominant_hue_deg(hues_deg: FloatArray) -> float:
    """Return the mean hue of the palette's colour that most pixels are nearest to."""
    distances = np.stack([_apart_deg(hues_deg, hue) for hue in HUE_DEG.values()])
    nearest = np.argmin(distances, axis=0)
    angles = np.radians(hues_deg[nearest == np.bincount(nearest).argmax()])
    return float(np.degrees(np.arctan2(np.sin(angles).mean(), np.cos(angles).mean())) % 360.0)


def _apart_deg(one_deg: FloatArray, other_deg: float) -> FloatArray:
    return np.asarray(np.abs((one_deg - other_deg + 180.0) % 360.0 - 180.0))


def _color(track: Track | None) -> Color | None:
    if track is None:
        return None
    hue_deg = np.array(track.hue_deg)
    return min(HUE_DEG, key=lambda color: float(_apart_deg(hue_deg, HUE_DEG[color])))


# ---------------------------------------------------------------------------------------------- direction


def _direction(track: Track | None) -> Motion | None:
    if track is None or len(track.frame_index) < 2:
        return None
    times = track.frame_index - track.frame_index.mean()
    centred_px = track.xy_px - track.xy_px.mean(axis=0)
    speed_px = times @ centred_px / (times @ times)
    travel_px = speed_px * float(np.ptp(track.frame_index))
    axis = int(np.argmax(np.abs(travel_px)))
    residual_px = centred_px[:, axis] - speed_px[axis] * times
    straightness = 1.0 - float(residual_px.var() / max(centred_px[:, axis].var(), 1e-9))
    side_px = track.is_object.shape[2 - axis]
    is_travel = abs(travel_px[axis]) > max(
        _MIN_TRAVEL_SHARE * side_px, _MIN_DOMINANCE * abs(travel_px[1 - axis])
    )
    if not is_travel or straightness < _MIN_STRAIGHTNESS:
        return None
    if axis == 0:
        return Motion.RIGHT if travel_px[0] > 0 else Motion.LEFT
    return Motion.DOWN if travel_px[1] > 0 else Motion.UP


# -------------------------------------------------------------------------------------------------- shape

_SYMMETRY_DEG = {  # turns that leave a shape as it is
    Shape.CIRCLE: 0.0,
    Shape.RING: 0.0,
    Shape.SQUARE: 90.0,
    Shape.CROSS: 90.0,
    Shape.TRIANGLE: 120.0,
    Shape.STAR: 72.0,
}
_TURN_DEG = 6.0


def _shape(track: Track | None) -> Shape | None:
    if track is None:
        return None
    seen = np.stack([_normalised(mask.astype(np.float32)) for mask in track.is_object])
    scores = {shape: _overlap(seen, _templates(shape)) for shape in Shape}
    best = max(scores, key=lambda shape: scores[shape])
    return best if scores[best] > _MIN_IOU else None


def _overlap(seen: FloatArray, templates: FloatArray) -> float:
    """Return the intersection over union with the best turn of a shape, mean over the frames."""
    both = np.minimum(seen[:, None], templates[None]).sum(axis=(-2, -1))
    either = seen.sum(axis=(-2, -1))[:, None] + templates.sum(axis=(-2, -1))[None] - both
    return float((both / either).max(axis=1).mean())


def _normalised(mask: FloatArray, turn_deg: float = 0.0) -> FloatArray:
    """Return a mask in a square of its own, with its centroid in the middle and always the same area."""
    area = mask.sum()
    rows, columns = np.arange(mask.shape[0]), np.arange(mask.shape[1])
    x, y = float(mask.sum(axis=0) @ columns / area), float(mask.sum(axis=1) @ rows / area)
    matrix = cv2.getRotationMatrix2D((x, y), turn_deg, float(np.sqrt(_GRID_AREA_PX / area)))
    matrix[:, 2] += (_GRID_PX - 1) / 2.0 - np.array([x, y])
    return np.asarray(cv2.warpAffine(mask, matrix, (_GRID_PX, _GRID_PX), flags=cv2.INTER_LINEAR))


@functools.cache
def _templates(shape: Shape) -> FloatArray:
    """Return a shape at all its different turns, (turns, side, side)."""
    mask = coverage(shape, 2 * _GRID_PX).astype(np.float32)
    turns_deg = np.arange(0.0, max(_SYMMETRY_DEG[shape], _TURN_DEG), _TURN_DEG)
    return np.stack([_normalised(mask, turn_deg) for turn_deg in turns_deg])


# ------------------------------------------------------------------------------------------------- camera


def read_camera(frames: Image) -> CameraMotion | None:
    """Return what the camera of a (T, H, W, 3) clip does, from how points of the setting move.

    None if too few points can be followed to tell.
    """
    if len(frames) < 2:
        return None
    _, is_vivid = _vivid(frames)
    soft_px = 0.01 * frames.shape[1]
    grey = [cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (0, 0), soft_px) for frame in frames]
    gap = min(_TRACK_FRAMES, len(frames) - 1)
    pairs = [
        _point_tracks(grey[t], grey[t + gap], is_vivid[t] | is_vivid[t + gap])
        for t in range(len(frames) - gap)
    ]
    tracks = np.concatenate([np.zeros((0, 4)), *pairs])
    if len(tracks) < _MIN_TRACKS:
        return None
    pan_px, log_zoom = _pan_and_zoom(tracks)
    num_steps = (len(frames) - 1) / gap
    pan_share, log_zoom = pan_px * num_steps / frames.shape[2], log_zoom * num_steps
    if abs(pan_share) / PAN_SHARE > abs(log_zoom) / np.log(ZOOM_FACTOR):
        if abs(pan_share) < _MIN_PAN_SHARE:
            return CameraMotion.STILL
        return CameraMotion.PAN_LEFT if pan_share > 0 else CameraMotion.PAN_RIGHT
    if abs(log_zoom) < _MIN_LOG_ZOOM:
        return CameraMotion.STILL
    return CameraMotion.ZOOM_IN if log_zoom > 0 else CameraMotion.ZOOM_OUT


def _point_tracks(before: NDArray[np.uint8], after: NDArray[np.uint8], is_vivid: BoolArray) -> FloatArray:
    """Return (P, 4): x, y from the middle of the frame of points beside the objects, and their steps."""
    height_px, width_px = is_vivid.shape
    reach_px = 2 * round(0.07 * height_px) + 1
    is_free = 1 - cv2.dilate(is_vivid.astype(np.uint8), np.ones((reach_px, reach_px), dtype=np.uint8))
    start = cv2.goodFeaturesToTrack(before, 120, 0.02, 0.04 * height_px, mask=is_free)
    if start is None:
        return np.zeros((0, 4))
    end, is_found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, None, winSize=(15, 15), maxLevel=2)
    is_kept = is_found[:, 0] > 0
    start_px, end_px = start[is_kept, 0], end[is_kept, 0]
    middle_px = np.array([(width_px - 1) / 2.0, (height_px - 1) / 2.0])
    return np.concatenate([start_px - middle_px, end_px - start_px], axis=1).astype(np.float64)


def _pan_and_zoom(tracks: FloatArray) -> tuple[float, float]:
    """Return the step right and the relative growth per frame that explain most points, by reweighting."""
    x, y, right, down = tracks.T
    ones, zeros = np.ones_like(x), np.zeros_like(x)
    design = np.concatenate([np.stack([ones, zeros, x], axis=1), np.stack([zeros, ones, y], axis=1)])
    target = np.concatenate([right, down])
    weights = np.ones_like(target)
    solution = np.zeros(3)
    for _ in range(12):
        solution = np.linalg.lstsq(design * weights[:, None], target * weights, rcond=None)[0]
        weights = 1.0 / np.sqrt(np.maximum(np.abs(target - design @ solution), 0.1))
    return float(solution[0]), float(solution[2])
