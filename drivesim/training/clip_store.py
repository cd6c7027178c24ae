"""A set of clips of recorded scenes while it is being written, in the form of recordings of the reference world."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.dynamics import VehicleConfig
from drivesim.errors import InputError
from drivesim.files import reserve_space
from drivesim.metrics.driving import off_road
from drivesim.scene.clips import Clip, SceneClips, agents_in
from drivesim.scene.road_map import RoadMap, mapped, packed_road_views
from drivesim.scene.types import Agents, Camera, Scene
from drivesim.training.data import MOTION_ARRAYS


class ClipStore:
    """A set of clips in a folder, filled scene by scene; :class:`RecordedClips` opens it once it is closed.

    Args:
        folder: where.
        room: clips at most.
        frames_per_clip: of each.
        camera: that took all the pictures, or as which they were rectified.
    """

    def __init__(self, folder: Path, *, room: int, frames_per_clip: int, camera: Camera) -> None:
        self._folder, self._camera, self._count = folder, camera, 0
        shape = (room, frames_per_clip, camera.height_px, camera.width_px, 3)
        self._frames = np.lib.format.open_memmap(
            folder / "frames.npy", mode="w+", dtype=np.uint8, shape=shape
        )
        reserve_space(folder / "frames.npy")
        self._motions: list[dict[str, NDArray[np.generic]]] = []

    def add(self, scene: Scene, stride: int) -> None:
        """Write all windows of a scene whose pictures can be read."""
        is_outside, roads = _is_off_road(scene), mapped(scene.drivable)
        length = self._frames.shape[1]
        windows = SceneClips([scene], num_frames=length, stride=stride, num_kept_frames=length)
        for index in range(len(windows)):
            clip = windows[index]
            if not isinstance(clip, Clip):
                continue
            self._frames[self._count] = clip.frames_THWC.numpy()
            self._motions.append(_motion(clip, roads, is_outside, agents_in(scene, clip)))
            self._count += 1

    def close(self, facts: dict[str, Any]) -> None:
        """Write motion, camera and facts; drop the room that was left over."""
        if self._count == 0:
            raise InputError("no picture of the scenes can be read; unpack the sensor archives again")
        self._frames.flush()
        if self._count < len(self._frames):
            self._shrink()
        np.savez(
            self._folder / "motion.npz",
            **{name: np.stack([motion[name] for motion in self._motions]) for name in MOTION_ARRAYS},
        )
        camera = asdict(self._camera) | {"ego_from_cam": self._camera.ego_from_cam.tolist()}
        known = {"cameras": [camera], "rows": [0] * self._count}
        (self._folder / "cameras.json").write_text(json.dumps(known, indent=1))
        (self._folder / "set.json").write_text(json.dumps(facts | {"num_clips": self._count}, indent=1))

    def _shrink(self) -> None:
        small = np.lib.format.open_memmap(
            self._folder / "small.npy",
            mode="w+",
            dtype=np.uint8,
            shape=(self._count, *self._frames.shape[1:]),
        )
        for index in range(self._count):
            small[index] = self._frames[index]
        small.flush()
        (self._folder / "small.npy").replace(self._folder / "frames.npy")


def _is_off_road(scene: Scene) -> NDArray[np.bool_]:
    """Tell for each frame whether part of the car is outside the drivable area; where there is no map, never."""
    vehicle = VehicleConfig()
    results = [off_road(scene.ego_state(index), scene.drivable, vehicle) for index in range(len(scene))]
    return np.array([result.is_valid and result.value > 0 for result in results])


def _motion(
    clip: Clip,
    roads: RoadMap | None,
    is_outside: NDArray[np.bool_],
    agents: Sequence[Agents | None] | None,
) -> dict[str, NDArray[np.generic]]:
    pose, length = clip.pose_T3.numpy(), len(clip.pose_T3)
    return {
        "twist": clip.twist_TA.numpy(),
        "xy_m": pose[:, :2],
        "yaw_rad": pose[:, 2],
        "is_collision": np.zeros(length, bool),
        "is_off_road": is_outside[clip.start : clip.start + length],
        "road": packed_road_views(roads, clip.camera, pose[:, :2], pose[:, 2], agents),
    }
