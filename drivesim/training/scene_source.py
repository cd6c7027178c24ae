"""Scenes of any nuScenes-schema data set as training clips, in the very form of recordings of the reference world.

The pictures are decoded once into a set of clips on disk, which then reads as fast as any other. What logs cannot tell
is filled in: nobody collides in them.
"""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.files import atomic_folder
from drivesim.reference.seeds import FIRST_VALIDATION_SEED
from drivesim.scene.map_lines import EXPANSION_FOLDER
from drivesim.scene.nuscenes import NuScenesDataset, open_dataset
from drivesim.scene.rectification import Fleet
from drivesim.scene.types import Camera, Scene, front_camera
from drivesim.training.clip_store import ClipStore
from drivesim.training.data import RecordedClips
from drivesim.training.time_split import Segment

_LOG = logging.getLogger(__name__)
_REFERENCE_LOG = re.compile(
    r"reference-.+-(\d+)"
)  # how recordings of the reference world name their road seed
RATE_HZ = 6.0
_PER_FRAME = ("timestamps_s", "frames", "xy_m", "yaw_rad", "speed_mps", "yaw_rate_radps", "steering_rad")


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


@dataclass(kw_only=True, slots=True)
class Windows:
    """What of a scene becomes a clip."""

    frames_per_clip: int
    stride: int  # frames from the start of a clip to the start of the next

    def count(self, num_frames: int) -> int:
        """Return the clips of a scene."""
        return len(range(0, num_frames - self.frames_per_clip + 1, self.stride))


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
    fleet = _fleet(_folders(config)[0])
    sets = []
    for path, chosen in zip(_folders(config), split(names, config.validation_share), strict=True):
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
                    fleet=fleet,
                    on_progress=on_progress,
                )
            )
    return sets[0], sets[1]


def _fleet(train: Path) -> Fleet:
    """Return what brings the scenes to one camera: that of the training clips, if they are there."""
    if not train.exists():
        return Fleet()
    return Fleet(camera_groups(RecordedClips.open(train))[0][0], name=str(train))


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
    fleet: Fleet | None = None,
    allow_held_out: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> RecordedClips:
    """Decode the windows of whole scenes into the new folder ``path``; see :func:`convert_segments`."""
    segments = [Segment(scene=name, first=0, stop=_length(dataset, name)) for name in names]
    return convert_segments(
        dataset,
        segments,
        path,
        Windows(frames_per_clip=frames_per_clip, stride=stride),
        fleet=fleet,
        facts=_facts(dataset, names, frames_per_clip, stride),
        allow_held_out=allow_held_out,
        on_progress=on_progress,
    )


def convert_segments(
    dataset: NuScenesDataset,
    segments: Sequence[Segment],
    path: Path,
    windows: Windows,
    *,
    fleet: Fleet | None = None,
    facts: dict[str, Any] | None = None,
    allow_held_out: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> RecordedClips:
    """Decode the windows of parts of scenes into the new folder ``path``; what cannot be read is left out.

    Args:
        dataset: an opened data set.
        segments: parts of its scenes.
        path: new folder; it appears under its name only when all clips are in it.
        windows: what becomes a clip.
        fleet: brings the scenes to one camera; that of the first scene if left out.
        facts: to be kept in ``set.json``.
        allow_held_out: take roads of the reference world that published figures are measured on.
        on_progress: called with the number of segments done.

    Raises:
        InputError: a held-out road, cameras that differ too much, or no segment has the frames of a clip.
        OSError: the disk has no room for all clips.
    """
    frames_per_clip = windows.frames_per_clip
    room = sum(windows.count(len(segment)) for segment in segments)
    if room == 0:
        raise InputError(
            f"none of {len(segments)} scenes has the {frames_per_clip} frames of a clip; "
            "choose longer scenes or shorter clips"
        )
    fleet = fleet or Fleet()
    with atomic_folder(path) as folder:
        store: ClipStore | None = None
        for done, segment in enumerate(segments, start=1):
            scene = _scene(dataset, segment, allow_held_out=allow_held_out)
            if scene is not None and len(scene) >= frames_per_clip:
                scene = fleet.aligned(scene)
                store = store or ClipStore(
                    folder, room=room, frames_per_clip=frames_per_clip, camera=scene.camera
                )
                store.add(scene, windows.stride)
            if on_progress is not None:
                on_progress(done)
        if store is None:
            raise InputError(f"none of {len(segments)} scenes can be read; unpack the sensor archives again")
        store.close(
            (facts or {}) | {"rate_hz": RATE_HZ, "largest_shift_px": round(fleet.largest_shift_px, 2)}
        )
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


def _scene(dataset: NuScenesDataset, segment: Segment, *, allow_held_out: bool) -> Scene | None:
    """Return part of a scene; None if its pictures were not downloaded."""
    try:
        scene = dataset.load(segment.scene, rate_hz=RATE_HZ)
    except InputError as error:
        _LOG.warning("scene %s left out: %s", segment.scene, error)
        return None
    if not allow_held_out:
        check_road(scene)
    return part_of(scene, segment)


def part_of(scene: Scene, segment: Segment) -> Scene:
    """Return the frames of a scene that a segment names; no picture is read."""
    if segment.first == 0 and segment.stop >= len(scene):
        return scene
    part = slice(segment.first, segment.stop)
    per_frame = {name: getattr(scene, name)[part] for name in _PER_FRAME}
    agents = None if scene.agents is None else scene.agents[part]
    return replace(scene, agents=agents, **per_frame)


def check_road(scene: Scene) -> None:
    """Raise InputError for a road of the reference world that published figures are measured on."""
    match = _REFERENCE_LOG.fullmatch(scene.log_name)
    if match is not None and int(match[1]) >= FIRST_VALIDATION_SEED:
        raise InputError(
            f"scene {scene.name!r} shows road {match[1]} of the reference world, but only roads below "
            f"{FIRST_VALIDATION_SEED} are for training; record others with `drivesim data synth --seed 0`"
        )


def _folders(config: SceneSourceConfig) -> tuple[Path, Path]:
    return Path(config.path) / "train", Path(config.path) / "validation"


def _length(dataset: NuScenesDataset, name: str) -> int:
    return dataset.summary(name, rate_hz=RATE_HZ).num_frames


def _facts(
    dataset: NuScenesDataset, names: Sequence[str], frames_per_clip: int, stride: int
) -> dict[str, Any]:
    return {
        "dataroot": str(dataset.dataroot),
        "version": dataset.version,
        "map_expansions": sorted(path.name for path in (dataset.dataroot / EXPANSION_FOLDER).glob("*.json")),
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
