"""Draws scenes: a setting in layers, objects as pictures that are shifted, turned and scaled over it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from drivesim.general_world.backdrops import backdrop
from drivesim.general_world.content import CLIP_FRAMES, CameraMotion, FloatArray, Image, ObjectSpec, SceneSpec
from drivesim.general_world.layers import Layer
from drivesim.general_world.shapes import PATCH_SHARE, object_patch
from drivesim.general_world.trajectory import PAN_SHARE, CameraPose, Pose, camera_pose, pose, progress

_MIN_PATCH_PX = 16


@dataclass(kw_only=True, slots=True)
class _Thing:
    spec: ObjectSpec
    patch: FloatArray


def render(
    scene: SceneSpec, num_frames: int = CLIP_FRAMES, height_px: int = 128, width_px: int = 224
) -> Image:
    """Draw the frames of a scene, (T, H, W, 3) uint8 RGB; the same scene and sizes give the same pixels.

    One frame is a still picture, the first of the clip. Motion goes on at the same speed past a usual clip.
    """
    if num_frames < 1 or min(height_px, width_px) < 16:
        raise ValueError(
            f"a clip needs frames and at least 16 x 16 pixels, got {num_frames} of {height_px} x {width_px}"
        )
    rng = np.random.default_rng(scene.seed)
    pan_px = 0 if scene.camera is CameraMotion.STILL else _pan_px(width_px, num_frames)
    layers = backdrop(scene.setting, height_px, width_px, pan_px, rng)
    things = [_thing(spec, num_frames, height_px, scene, rng) for spec in scene.objects]
    painted = things if scene.is_main_behind else things[::-1]
    still = None if pan_px else _flat(layers, CameraPose(), height_px, width_px)
    frames = np.empty((num_frames, height_px, width_px, 3), dtype=np.uint8)
    for index in range(num_frames):
        view = camera_pose(scene.camera, progress(index))
        canvas = _flat(layers, view, height_px, width_px) if still is None else still.copy()
        for thing in painted:
            _paint(canvas, thing, view.seen(pose(thing.spec, progress(index))))
        frames[index] = canvas
    return frames


def _pan_px(width_px: int, num_frames: int) -> int:
    """Return how much wider than the frame a layer is on either side."""
    longest = max(progress(num_frames - 1), 1.0)
    return math.ceil(PAN_SHARE * (longest - 0.5) * width_px) + 2


def _thing(
    spec: ObjectSpec, num_frames: int, height_px: int, scene: SceneSpec, rng: np.random.Generator
) -> _Thing:
    ends = (0, num_frames - 1)
    extent = max(camera_pose(scene.camera, progress(i)).seen(pose(spec, progress(i))).extent for i in ends)
    side_px = max(_MIN_PATCH_PX, math.ceil(min(extent, 2.0) * PATCH_SHARE * height_px))
    return _Thing(spec=spec, patch=object_patch(spec, side_px, rng))


def _flat(layers: list[Layer], view: CameraPose, height_px: int, width_px: int) -> Image:
    """Return what the camera sees of a setting; far layers shift and grow less than near ones."""
    picture: FloatArray | None = None
    for layer in layers:
        zoom = view.zoom**layer.nearness
        pan_px = (layer.pixels.shape[1] - width_px) / 2.0
        left = (width_px - 1) / 2.0 * (1.0 - zoom) + zoom * (view.shift * layer.nearness * width_px - pan_px)
        top = (height_px - 1) / 2.0 * (1.0 - zoom)
        matrix = np.array([[zoom, 0.0, left], [0.0, zoom, top]])
        seen = cv2.warpAffine(
            layer.pixels,
            matrix,
            (width_px, height_px),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        picture = seen[..., :3] if picture is None else picture * (1.0 - seen[..., 3:]) + seen[..., :3]
    assert picture is not None
    return np.asarray(picture + 0.5).astype(np.uint8)


def _paint(canvas: Image, thing: _Thing, at: Pose) -> None:
    """Blend an object into its part of the canvas."""
    height_px, width_px = canvas.shape[:2]
    side_px = at.extent * PATCH_SHARE * height_px
    scale, reach_px = side_px / thing.patch.shape[0], side_px * 0.71 + 1.0
    x_px, y_px = at.x * width_px - 0.5, at.y * height_px - 0.5
    left, right = max(0, math.floor(x_px - reach_px)), min(width_px, math.ceil(x_px + reach_px))
    top, bottom = max(0, math.floor(y_px - reach_px)), min(height_px, math.ceil(y_px + reach_px))
    if left >= right or top >= bottom:
        return
    cos, sin = scale * math.cos(at.angle_rad), scale * math.sin(at.angle_rad)
    middle = (thing.patch.shape[0] - 1) / 2.0
    matrix = np.array(
        [
            [cos, -sin, x_px - left - middle * (cos - sin)],
            [sin, cos, y_px - top - middle * (sin + cos)],
        ]
    )
    seen = cv2.warpAffine(thing.patch, matrix, (right - left, bottom - top))
    part = canvas[top:bottom, left:right]
    part[:] = np.clip(part * (1.0 - seen[..., 3:]) + seen[..., :3] + 0.5, 0.0, 255.0).astype(np.uint8)
