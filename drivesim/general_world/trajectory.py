"""Where objects and the camera are at each moment of a clip; no pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from drivesim.general_world.content import (
    ASPECT,
    CLIP_FRAMES,
    DIRECTIONS,
    CameraMotion,
    FloatArray,
    Motion,
    ObjectSpec,
    SceneSpec,
)

PAN_SHARE = 0.32  # of the width, by which near things shift while the camera pans
ZOOM_FACTOR = 1.5
MAX_OBJECTS = 2  # in a scene
_HALF_BOX = 0.55  # of the extent: within it, whatever its shape, lies nearly all of an object
_NUM_BOUNCES = 2


@dataclass(kw_only=True, slots=True)
class Pose:
    """An object at one moment, in shares of the frame."""

    x: float
    y: float
    extent: float
    angle_rad: float


@dataclass(kw_only=True, slots=True)
class CameraPose:
    """The camera at one moment: how far near things are shifted right, then how much they are enlarged."""

    shift: float = 0.0  # share of the width
    zoom: float = 1.0

    def seen(self, pose: Pose) -> Pose:
        """Return where an object appears in the frame."""
        return Pose(
            x=0.5 + (pose.x - 0.5 + self.shift) * self.zoom,
            y=0.5 + (pose.y - 0.5) * self.zoom,
            extent=pose.extent * self.zoom,
            angle_rad=pose.angle_rad,
        )


def progress(frame: int) -> float:
    """Return how much of a clip has passed at a frame: 0 at the first, 1 at the last of a usual clip."""
    return frame / (CLIP_FRAMES - 1)


def pose(thing: ObjectSpec, share: float) -> Pose:
    """Return an object's pose when ``share`` of the clip has passed.

    `ObjectSpec.amount` is, by motion: the share of the width (left, right) or height (up, down) travelled;
    the turns made (rotates); the factor of the size (grows, shrinks); the height of a hop (bounces) or
    the radius of the circle (orbits) as a share of the height.
    """
    x, y, extent, angle_rad = thing.x, thing.y, thing.extent, thing.angle_rad
    amount, turn_rad = thing.amount, 2.0 * math.pi * share
    if thing.motion in DIRECTIONS:
        right, down = DIRECTIONS[thing.motion]
        x, y = x + right * amount * share, y + down * amount * share
    elif thing.motion is Motion.ROTATES:
        angle_rad += amount * turn_rad
    elif thing.motion in (Motion.GROWS, Motion.SHRINKS):
        extent *= amount**share
    elif thing.motion is Motion.BOUNCES:
        y -= amount * abs(math.sin(_NUM_BOUNCES * math.pi * share))
    elif thing.motion is Motion.ORBITS:
        x += amount * (math.cos(turn_rad) - 1.0) / ASPECT
        y += amount * math.sin(turn_rad)
    return Pose(x=x, y=y, extent=extent, angle_rad=angle_rad)


def camera_pose(motion: CameraMotion, share: float) -> CameraPose:
    """Return the camera's pose when ``share`` of the clip has passed."""
    if motion is CameraMotion.PAN_LEFT:  # what is seen moves to the right
        return CameraPose(shift=PAN_SHARE * (share - 0.5))
    if motion is CameraMotion.PAN_RIGHT:
        return CameraPose(shift=-PAN_SHARE * (share - 0.5))
    if motion is CameraMotion.ZOOM_IN:
        return CameraPose(zoom=ZOOM_FACTOR**share)
    if motion is CameraMotion.ZOOM_OUT:
        return CameraPose(zoom=ZOOM_FACTOR ** (1.0 - share))
    return CameraPose()


def object_boxes(scene: SceneSpec, num_frames: int) -> FloatArray:
    """Return where objects appear, (T, MAX_OBJECTS, 4): left, top, right, bottom in shares of the frame.

    NaN stands for objects that a scene does not have.
    """
    boxes = np.full((num_frames, MAX_OBJECTS, 4), np.nan, dtype=np.float32)
    for index in range(num_frames):
        view = camera_pose(scene.camera, progress(index))
        for number, thing in enumerate(scene.objects):
            at = view.seen(pose(thing, progress(index)))
            half_x, half_y = _HALF_BOX * at.extent / ASPECT, _HALF_BOX * at.extent
            boxes[index, number] = at.x - half_x, at.y - half_y, at.x + half_x, at.y + half_y
    return boxes
