"""Pictures of one camera as another one in its place would have taken them: cars of a fleet differ by a degree or so.

Only turned and zoomed differently, two cameras see the same rays, so that one homography maps all pixels. What another
mount adds (parallax) is not undone; :func:`mount_distance_m` says how much of it there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from drivesim.errors import InputError
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera, Image, Scene
from drivesim.video import warp

_EDGE_POINTS = 9  # per side, at which the shift of a picture is measured


def source_from_target(source: Camera, target: Camera) -> FloatArray:
    """Return the (3, 3) homography from pixels of ``target`` to those of ``source`` that see the same way."""
    turned = source.ego_from_cam[:3, :3].T @ target.ego_from_cam[:3, :3]
    homography: FloatArray = source.intrinsic @ turned @ np.linalg.inv(target.intrinsic)
    return homography


def largest_shift_px(source: Camera, target: Camera) -> float:
    """Return how far the pixels of a picture move, at most, where :class:`RectifiedFrames` turns it."""
    x = np.linspace(0, target.width_px, _EDGE_POINTS)
    y = np.linspace(0, target.height_px, _EDGE_POINTS)
    points = np.stack([*np.meshgrid(x, y), np.ones((_EDGE_POINTS, _EDGE_POINTS))], axis=-1)
    seen = points @ source_from_target(source, target).T
    if (seen[..., 2] <= 0).any():  # one of them looks to where the other's back is
        return float("inf")
    return float(np.linalg.norm(seen[..., :2] / seen[..., 2:] - points[..., :2], axis=-1).max())


def mount_distance_m(camera: Camera, other: Camera) -> float:
    """Return the distance between the places at which two cameras are fixed to their cars."""
    return float(np.linalg.norm(camera.ego_from_cam[:3, 3] - other.ego_from_cam[:3, 3]))


@dataclass(kw_only=True, slots=True)
class RectifiedFrames(Sequence[Image]):
    """The pictures of ``source`` as ``target`` would have taken them, turned when indexed; borders are stretched."""

    frames: Sequence[Image]
    source: Camera
    target: Camera

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.frames)

    def __iter__(self) -> Iterator[Image]:
        """Turn the pictures one after another."""
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Image: ...

    @overload
    def __getitem__(self, index: slice) -> RectifiedFrames: ...

    def __getitem__(self, index: int | slice) -> Image | RectifiedFrames:
        """Read and turn one picture, or return the sequence of a part of them."""
        if isinstance(index, slice):
            return replace(self, frames=self.frames[index])
        size = (self.target.width_px, self.target.height_px)
        return warp(self.frames[index], source_from_target(self.source, self.target), size)


def rectified(scene: Scene, target: Camera) -> Scene:
    """Return a scene as ``target`` would have recorded it from the same place; itself where that is its camera."""
    if scene.camera.equals(target):
        return scene
    frames = RectifiedFrames(frames=scene.frames, source=scene.camera, target=target)
    return replace(scene, frames=frames, camera=target)


@dataclass(kw_only=True, slots=True)
class FleetLimits:
    """Up to which differences cameras are taken for one."""

    shift_px: float = 16.0  # of a pixel, by turning and zooming: one token
    mount_m: float = 0.2  # between the places where they are fixed to their cars


class Fleet:
    """The scenes of several cars as one camera would have recorded them.

    Args:
        target: that camera; None takes that of the first scene.
        name: whose camera that is, for messages.
        limits: what is refused.
    """

    def __init__(
        self, target: Camera | None = None, *, name: str = "", limits: FleetLimits | None = None
    ) -> None:
        self.target, self.limits = target, limits or FleetLimits()
        self.largest_shift_px = 0.0
        self._name = name

    def aligned(self, scene: Scene) -> Scene:
        """Return a scene with its pictures rectified if need be.

        Raises:
            InputError: its camera differs too much.
        """
        if self.target is None:
            self.target, self._name = scene.camera, repr(scene.name)
        shift_px = largest_shift_px(scene.camera, self.target)
        distance_m = mount_distance_m(scene.camera, self.target)
        if shift_px > self.limits.shift_px or distance_m > self.limits.mount_m:
            raise InputError(
                f"the cameras of {self._name} and {scene.name!r} differ by up to {shift_px:.0f} pixels and their "
                f"mounts by {distance_m:.2f} m (at most {self.limits.shift_px:g} px and {self.limits.mount_m:g} m are "
                "evened out); choose scenes of one kind of car"
            )
        self.largest_shift_px = max(self.largest_shift_px, shift_px)
        return rectified(scene, self.target)
