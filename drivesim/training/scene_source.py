"""Scenes of any nuScenes-schema data set as training clips, in the very form of recordings of the reference world.

The pictures are decoded once into a set of clips on disk, which then reads as fast as any other. What logs cannot tell
is filled in: nobody collides in them.
"""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.dynamics import VehicleConfig
from drivesim.errors import InputError
from drivesim.files import atomic_folder, reserve_space
from drivesim.metrics.driving import off_road
from drivesim.reference.seeds import FIRST_VALIDATION_SEED
from drivesim.scene.clips import Clip, SceneClips
from drivesim.scene.nuscenes import NuScenesDataset, open_dataset
from drivesim.scene.road_map import RoadMap, mapped, packed_road_views
from drivesim.scene.types import Camera, Scene, front_camera
from drivesim.training.data import MOTION_ARRAYS, RecordedClips

_LOG = logging.getLogger(__name__)
_REFERENCE_LOG = re.compile(
    r"reference-.+-(\d+)"
)  # how recordings of the reference world name their road seed
RATE_HZ = 6.0


@dataclass(kw_only=True, slots=True)
class SceneSourceConfig:
    """Which recorded scenes a run learns from; they are decoded at the first run and kept under ``path``."""

    dataroot: str = ""  # of a nuScenes-schema data set
    version: str = "v1.0-trainval"
    scenes: list[str] = field(default_factory=list)  # empty: all
    path: str = "out/data/scenes"
    frames_per_clip: int = 36
    stride: int = 18  # frames from the start of a clip to the start of the next
    validation_share: float = 0.1  # of the scenes, chosen by their names; one at least

    def __post_init__(self) -> None:
        """Refuse empty clips and splits."""
        if self.frames_per_clip < 2 or self.stride < 1 or not 0 < self.validation_share < 1:
            raise ValueError(
                "scenes need frames_per_clip >= 2, stride >= 1 and validation_share inside (0, 1), got "
                f"{self.frames_per_clip}, {self.stride} and {self.validation_share}"
            )


def open_or_convert(
    config: SceneSourceConfig, *, on_progress: Callable[[int], None] | None = None
) -> tuple[RecordedClips, RecordedClips]:
    """Return (training clips, validation clips), decoding what is not there yet.

    Args:
        config: the data set and the folder of the clips.
        on_progress: called with the number of scenes done of the set that is being decoded.

    Raises:
        InputError: no data set, too few scenes, or the folder holds clips of other scenes.
    """
    dataset = open_dataset(config.dataroot, config.version)
    names = config.scenes or dataset.scene_names()
    sets = []
    for part, chosen in zip(("train", "validation"), split(names, config.validation_share), strict=True):
        path = Path(config.path) / part
        if path.exists():
            sets.append(_open(path, _facts(dataset, chosen, config.frames_per_clip, config.stride)))
        else:
            sets.append(
                convert_scenes(
                    dataset,
                    chosen,
                    path,
                    frames_per_clip=config.frames_per_clip,
                    stride=config.stride,
                    on_progress=on_progress,
                )
            )
    return sets[0], sets[1]


def split(names: Sequence[str], validation_share: float) -> tuple[list[str], list[str]]:
    """Return the scenes for training and for validation, chosen by their names alone.

    Raises:
        InputError: there are fewer than two.
    """
    if len(names) < 2:
        raise InputError(f"training needs two scenes at least, one to validate with; got {len(names)}")
    count = min(len(names) - 1, max(1, round(validation_share * len(names))))
    held_out = set(sorted(names, key=lambda name: zlib.crc32(name.encode()))[:count])
    return [name for name in names if name not in held_out], [name for name in names if name in held_out]


def convert_scenes(
    dataset: NuScenesDataset,
    names: Sequence[str],
    path: Path,
    *,
    frames_per_clip: int,
    stride: int,
    allow_held_out: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> RecordedClips:
    """Decode the windows of some scenes into the new folder ``path``; bad pictures and short scenes are left out.

    Args:
        dataset: an opened data set.
        names: its scenes.
        path: new folder; it appears under its name only when all clips are in it.
        frames_per_clip: at 6 Hz.
        stride: frames from the start of a clip to the start of the next.
        allow_held_out: take roads of the reference world that published figures are measured on.
        on_progress: called with the number of scenes done.

    Raises:
        InputError: a held-out road, or no scene has the frames of a clip.
        OSError: the disk has no room for all clips.
    """
    room = sum(len(range(0, _length(dataset, name) - frames_per_clip + 1, stride)) for name in names)
    if room == 0:
        raise InputError(
            f"none of {len(names)} scenes has the {frames_per_clip} frames of a clip; "
            "choose longer scenes or shorter clips"
        )
    with atomic_folder(path) as folder:
        store = _Store(folder, room, frames_per_clip)
        for done, scene in enumerate(_scenes(dataset, names, allow_held_out=allow_held_out), start=1):
            if scene is not None and len(scene) >= frames_per_clip:
                store.add(scene, stride)
            if on_progress is not None:
                on_progress(done)
        store.close(_facts(dataset, names, frames_per_clip, stride))
    return RecordedClips.open(path)


def camera_groups(clips: RecordedClips) -> list[tuple[Camera, NDArray[np.int64]]]:
    """Return each camera that took clips of a set, with the rows of its clips; motion fields need it."""
    file = clips.path / "cameras.json"
    if not file.is_file():
        return [(front_camera(), np.arange(len(clips)))]
    known = json.loads(file.read_text())
    rows = np.array(known["rows"])
    return [
        (
            Camera(**(camera | {"ego_from_cam": np.array(camera["ego_from_cam"])})),
            np.flatnonzero(rows == index),
        )
        for index, camera in enumerate(known["cameras"])
    ]


class _Store:
    """The clips of a set while they are being written."""

    def __init__(self, folder: Path, room: int, frames_per_clip: int) -> None:
        camera = front_camera()
        self._folder, self._count = folder, 0
        shape = (room, frames_per_clip, camera.height_px, camera.width_px, 3)
        self._frames = np.lib.format.open_memmap(
            folder / "frames.npy", mode="w+", dtype=np.uint8, shape=shape
        )
        reserve_space(folder / "frames.npy")
        self._motions: list[dict[str, NDArray[np.generic]]] = []
        self._cameras: list[dict[str, Any]] = []
        self._camera_rows: list[int] = []

    def add(self, scene: Scene, stride: int) -> None:
        """Write all windows of a scene whose pictures can be read."""
        camera = asdict(scene.camera) | {"ego_from_cam": scene.camera.ego_from_cam.tolist()}
        if camera not in self._cameras:
            self._cameras.append(camera)
        is_outside, roads = _is_off_road(scene), mapped(scene.drivable)
        windows = SceneClips([scene], num_frames=self._frames.shape[1], stride=stride)
        for index in range(len(windows)):
            clip = windows[index]
            if not isinstance(clip, Clip):
                continue
            self._frames[self._count] = clip.frames_THWC.numpy()
            self._motions.append(_motion(clip, roads, is_outside))
            self._camera_rows.append(self._cameras.index(camera))
            self._count += 1

    def close(self, facts: dict[str, Any]) -> None:
        """Write motion, cameras and facts; drop the room that was left over."""
        if self._count == 0:
            raise InputError("no picture of the scenes can be read; unpack the sensor archives again")
        self._frames.flush()
        if self._count < len(self._frames):
            self._shrink()
        np.savez(
            self._folder / "motion.npz",
            **{name: np.stack([motion[name] for motion in self._motions]) for name in MOTION_ARRAYS},
        )
        cameras = {"cameras": self._cameras, "rows": self._camera_rows}
        (self._folder / "cameras.json").write_text(json.dumps(cameras, indent=1))
        (self._folder / "set.json").write_text(
            json.dumps(facts | {"num_clips": self._count, "rate_hz": RATE_HZ}, indent=1)
        )

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


def _scenes(
    dataset: NuScenesDataset, names: Sequence[str], *, allow_held_out: bool
) -> Iterator[Scene | None]:
    """Yield the scenes one at a time; None for one whose pictures were not downloaded."""
    for name in names:
        try:
            scene = dataset.load(name, rate_hz=RATE_HZ)
        except InputError as error:
            _LOG.warning("scene %s left out: %s", name, error)
            yield None
            continue
        if not allow_held_out:
            check_road(scene)
        yield scene


def check_road(scene: Scene) -> None:
    """Raise InputError for a road of the reference world that published figures are measured on."""
    match = _REFERENCE_LOG.fullmatch(scene.log_name)
    if match is not None and int(match[1]) >= FIRST_VALIDATION_SEED:
        raise InputError(
            f"scene {scene.name!r} shows road {match[1]} of the reference world, but only roads below "
            f"{FIRST_VALIDATION_SEED} are for training; record others with `drivesim data synth --seed 0`"
        )


def _length(dataset: NuScenesDataset, name: str) -> int:
    return dataset.summary(name, rate_hz=RATE_HZ).num_frames


def _is_off_road(scene: Scene) -> NDArray[np.bool_]:
    """Tell for each frame whether part of the car is outside the drivable area; where there is no map, never."""
    vehicle = VehicleConfig()
    results = [off_road(scene.ego_state(index), scene.drivable, vehicle) for index in range(len(scene))]
    return np.array([result.is_valid and result.value > 0 for result in results])


def _motion(
    clip: Clip, roads: RoadMap | None, is_outside: NDArray[np.bool_]
) -> dict[str, NDArray[np.generic]]:
    pose, length = clip.pose_T3.numpy(), len(clip.pose_T3)
    return {
        "twist": clip.twist_TA.numpy(),
        "xy_m": pose[:, :2],
        "yaw_rad": pose[:, 2],
        "is_collision": np.zeros(length, bool),
        "is_off_road": is_outside[clip.start : clip.start + length],
        "road": packed_road_views(roads, clip.camera, pose[:, :2], pose[:, 2]),
    }


def _facts(
    dataset: NuScenesDataset, names: Sequence[str], frames_per_clip: int, stride: int
) -> dict[str, Any]:
    return {
        "dataroot": str(dataset.dataroot),
        "version": dataset.version,
        "scenes": list(names),
        "frames_per_clip": frames_per_clip,
        "stride": stride,
    }


def _open(path: Path, asked: dict[str, Any]) -> RecordedClips:
    clips = RecordedClips.open(path)
    facts = json.loads((path / "set.json").read_text())
    changed = [name for name, value in asked.items() if facts.get(name) != value]
    if changed:
        raise InputError(
            f"{path} was made with other {' and '.join(changed)} than the run asks for; "
            "remove it or name another path for the scenes"
        )
    return clips
