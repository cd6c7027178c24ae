"""Windows of scenes as batches for training and evaluation.

B: clips in a batch, T: frames, H W C: picture, A: twist (speed in m/s, yaw rate in rad/s, into a frame).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from drivesim.errors import InputError
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Agents, Camera, Image, Scene

_LOG = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Clip:
    """One window of a scene."""

    frames_THWC: Tensor  # uint8 RGB
    twist_TA: Tensor  # float32
    pose_T3: Tensor  # float64: x and y in metres, yaw in radians, global
    camera: Camera
    scene_name: str
    start: int  # index of the first frame in its scene


@dataclass(kw_only=True, slots=True)
class SkippedClip:
    """A window that could not be read."""

    scene_name: str
    start: int
    reason: str


@dataclass(kw_only=True, slots=True)
class ClipBatch:
    """Clips of equal length and size; windows with a bad picture are left out and named in ``skipped``."""

    frames_BTHWC: Tensor  # uint8 RGB
    twist_BTA: Tensor  # float32
    pose_BT3: Tensor  # float64: x and y in metres, yaw in radians, global
    cameras: list[Camera]
    scene_names: list[str]
    starts: list[int]
    skipped: list[SkippedClip] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.starts)

    def to(self, device: torch.device | str) -> ClipBatch:
        """Return the batch with its tensors on another device."""
        return ClipBatch(
            frames_BTHWC=self.frames_BTHWC.to(device),
            twist_BTA=self.twist_BTA.to(device),
            pose_BT3=self.pose_BT3.to(device),
            cameras=self.cameras,
            scene_names=self.scene_names,
            starts=self.starts,
            skipped=self.skipped,
        )


class ClipReader:
    """Reads windows of scenes; the newest pictures are kept, so that windows that overlap decode them once."""

    def __init__(self, scenes: Sequence[Scene], *, num_frames: int, num_kept_frames: int = 0) -> None:
        """Read nothing yet; ``num_kept_frames`` is the number of pictures to keep at most."""
        self.scenes, self.num_frames, self.num_kept_frames = list(scenes), num_frames, num_kept_frames
        self._kept: OrderedDict[tuple[int, int], Image] = OrderedDict()

    def read(self, scene_index: int, start: int) -> Clip | SkippedClip:
        """Read one window; a picture that cannot be read makes it a SkippedClip, and is logged."""
        scene = self.scenes[scene_index]
        camera = scene.camera
        frames = np.empty((self.num_frames, camera.height_px, camera.width_px, 3), dtype=np.uint8)
        skipped = self.read_into(frames, scene_index, start)
        if skipped is not None:
            return skipped
        return Clip(
            frames_THWC=torch.from_numpy(frames),
            twist_TA=torch.from_numpy(self.twist(scene_index, start)),
            pose_T3=torch.from_numpy(self.pose(scene_index, start)),
            camera=camera,
            scene_name=scene.name,
            start=start,
        )

    def read_into(self, frames_THWC: Image, scene_index: int, start: int) -> SkippedClip | None:
        """Read the pictures of a window into an array; what is returned says why that cannot be, and is logged."""
        scene = self.scenes[scene_index]
        try:
            for index in range(self.num_frames):
                frames_THWC[index] = self._frame(scene_index, start + index)
        except InputError as error:
            _LOG.warning("clip of %s at frame %d skipped: %s", scene.name, start, error)
            return SkippedClip(scene_name=scene.name, start=start, reason=str(error))
        return None

    def twist(self, scene_index: int, start: int) -> NDArray[np.float32]:
        """Return speed and yaw rate into each frame of a window, (T, 2)."""
        scene, part = self.scenes[scene_index], slice(start, start + self.num_frames)
        return np.stack([scene.speed_mps[part], scene.yaw_rate_radps[part]], axis=-1).astype(np.float32)

    def pose(self, scene_index: int, start: int) -> FloatArray:
        """Return x, y and yaw at each frame of a window, (T, 3)."""
        scene, part = self.scenes[scene_index], slice(start, start + self.num_frames)
        return np.concatenate([scene.xy_m[part], scene.yaw_rad[part, None]], axis=-1)

    def _frame(self, scene_index: int, frame: int) -> Image:
        key = (scene_index, frame)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        scene = self.scenes[scene_index]
        if frame >= len(scene):
            raise InputError(f"scene {scene.name!r} has {len(scene)} frames only; its tables promised more")
        picture = scene.frames[frame]
        if self.num_kept_frames > 0:
            self._kept[key] = picture
            if len(self._kept) > self.num_kept_frames:
                self._kept.popitem(last=False)
        return picture


def agents_in(scene: Scene, clip: Clip) -> list[Agents | None] | None:
    """Return who else is on the road at each frame of a scene's clip; None where nobody annotated them."""
    if scene.agents is None:
        return None
    return [scene.agents[clip.start + index] for index in range(len(clip.pose_T3))]


class SceneClips(Dataset[Clip | SkippedClip]):
    """All windows of ``num_frames`` frames of some scenes, every ``stride`` frames one."""

    def __init__(
        self, scenes: Sequence[Scene], *, num_frames: int, stride: int = 1, num_kept_frames: int = 0
    ) -> None:
        """Lay the windows out; no picture is read yet.

        Args:
            scenes: recordings at one frame rate and one picture size.
            num_frames: frames per window.
            stride: frames from the start of a window to the start of the next.
            num_kept_frames: pictures that are kept for other windows that have them too.

        Raises:
            InputError: rates or sizes differ, or no scene is as long as a window.
        """
        if num_frames < 1 or stride < 1:
            raise InputError(f"num_frames and stride must be at least 1, got {num_frames} and {stride}")
        kinds = {(scene.rate_hz, scene.camera.width_px, scene.camera.height_px) for scene in scenes}
        if len(kinds) > 1:
            raise InputError(f"scenes differ in rate or size {sorted(kinds)}; load all at one rate and size")
        self.reader = ClipReader(scenes, num_frames=num_frames, num_kept_frames=num_kept_frames)
        self.windows = [
            (index, start)
            for index, scene in enumerate(scenes)
            for start in range(0, len(scene) - num_frames + 1, stride)
        ]
        if not self.windows:
            longest = max((len(scene) for scene in scenes), default=0)
            raise InputError(
                f"no scene has the {num_frames} frames of a clip (the longest has {longest}); "
                "choose longer scenes or shorter clips"
            )

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.windows)

    def __getitem__(self, index: int) -> Clip | SkippedClip:
        """Read one window; a picture that cannot be read makes it a SkippedClip, and is logged."""
        return self.reader.read(*self.windows[index])


def collate(items: Sequence[Clip | SkippedClip]) -> ClipBatch:
    """Join windows to a batch, leaving out those that could not be read.

    Raises:
        InputError: none of them could be read.
    """
    clips = [item for item in items if isinstance(item, Clip)]
    skipped = [item for item in items if isinstance(item, SkippedClip)]
    if not clips:
        reason = skipped[0].reason if skipped else "the batch is empty"
        raise InputError(f"none of {len(items)} clips can be read; {reason}")
    return ClipBatch(
        frames_BTHWC=torch.stack([clip.frames_THWC for clip in clips]),
        twist_BTA=torch.stack([clip.twist_TA for clip in clips]),
        pose_BT3=torch.stack([clip.pose_T3 for clip in clips]),
        cameras=[clip.camera for clip in clips],
        scene_names=[clip.scene_name for clip in clips],
        starts=[clip.start for clip in clips],
        skipped=skipped,
    )
