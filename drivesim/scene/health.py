"""Health of a data set: for every scene its frames, rate, gaps, pictures and what its motion was taken from.

A fault is what makes training or driving on a scene wrong or impossible. What nuScenes itself leaves out, such as CAN
messages of some scenes, is a note.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from drivesim.errors import InputError
from drivesim.scene.faults import Fault
from drivesim.scene.nuscenes import FRONT_CAMERA, NuScenesDataset
from drivesim.scene.picture_check import fault_of_ends, fault_of_picture
from drivesim.scene.scene_pictures import Pictures

MOST_NAMED = 5  # files that are named of a scene; all are counted
OnProgress = Callable[[int], None]


@dataclass(kw_only=True, slots=True)
class SceneHealth:
    """What was found out about a scene."""

    name: str
    place: str = ""
    split: str = ""
    num_pictures: int = 0
    length_s: float = 0.0
    rate_hz: float = 0.0  # of pictures, by the median interval
    longest_gap_s: float = 0.0
    num_gaps: int = 0  # between pictures, of more than a second
    num_missing: int = 0  # files that are not there
    num_unreadable: int = 0  # files that are there
    num_decoded: int = 0
    motion_source: str = ""
    signal_sources: dict[str, str] = field(default_factory=dict)
    steering_ratio: float | None = None
    has_map: bool = False
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class Health:
    """What was found out about a data set."""

    dataroot: str
    version: str
    camera: str
    scenes: list[SceneHealth]
    splits: dict[str, int]  # scenes in each official split
    cameras: dict[str, int]  # scenes that have pictures of it in the tables
    notes: list[str]
    faults: list[str] = field(default_factory=list)  # of the data set as a whole

    @property
    def num_faults(self) -> int:
        """Return how many things are wrong."""
        return len(self.faults) + sum(len(scene.faults) for scene in self.scenes) + (not self.scenes)

    @property
    def sources(self) -> dict[str, int]:
        """Return how many scenes took their motion from where."""
        found = sorted({scene.motion_source or "nowhere" for scene in self.scenes})
        return {
            name: sum((scene.motion_source or "nowhere") == name for scene in self.scenes) for name in found
        }

    def as_dict(self) -> dict[str, Any]:
        """Return everything in plain Python, for JSON."""
        return asdict(self) | {
            "num_scenes": len(self.scenes),
            "num_pictures": sum(scene.num_pictures for scene in self.scenes),
            "num_missing": sum(scene.num_missing for scene in self.scenes),
            "num_unreadable": sum(scene.num_unreadable for scene in self.scenes),
            "num_decoded": sum(scene.num_decoded for scene in self.scenes),
            "num_gaps": sum(scene.num_gaps for scene in self.scenes),
            "num_faults": self.num_faults,
            "sources": self.sources,
        }


def check_dataset(
    dataset: NuScenesDataset,
    *,
    camera: str = FRONT_CAMERA,
    num_decoded: int | None = 200,
    on_progress: OnProgress | None = None,
) -> Health:
    """Look at every scene of a data set.

    Args:
        dataset: an opened data set.
        camera: whose pictures are looked at.
        num_decoded: pictures to decode, evenly spread over the data set; None decodes all. Of every picture the first
            and last bytes are looked at.
        on_progress: called with the number of scenes done.
    """
    names = dataset.scene_names()
    splits = {split: dataset.scene_names(split) for split in dataset.split_names()}
    faults = []
    try:
        dataset.check_poses()
    except InputError as error:
        faults.append(str(error))
    scenes = []
    for index, name in enumerate(names):
        share = None if num_decoded is None else _share(num_decoded, index, len(names))
        scene = check_scene(dataset, name, camera=camera, num_decoded=share)
        scene.split = ", ".join(split for split, members in splits.items() if name in members)
        scenes.append(scene)
        if on_progress is not None:
            on_progress(index + 1)
    return Health(
        dataroot=str(dataset.dataroot),
        version=dataset.version,
        camera=camera,
        scenes=scenes,
        splits={split: len(members) for split, members in splits.items()},
        cameras={
            channel: sum(channel in dataset.camera_names(name) for name in names)
            for channel in dataset.camera_names()
        },
        notes=list(dataset.notes),
        faults=faults,
    )


def check_scene(
    dataset: NuScenesDataset, name: str, *, camera: str = FRONT_CAMERA, num_decoded: int | None = 1
) -> SceneHealth:
    """Look at one scene; ``num_decoded`` of its pictures are decoded, None is all of them."""
    health = SceneHealth(name=name)
    try:
        pictures = dataset.pictures(name, camera)
    except InputError as error:
        health.faults.append(str(error))
        return health
    _add_times(health, pictures)
    _add_files(health, dataset.dataroot, pictures, num_decoded)
    try:
        scene = dataset.load(name, camera=camera)
    except InputError as error:
        health.faults.append(str(error))
        return health
    health.place = scene.place
    health.motion_source = scene.motion_source
    health.signal_sources = scene.signal_sources
    health.steering_ratio = scene.steering_ratio
    health.has_map = scene.drivable is not None
    for problem in scene.problems:
        (health.faults if isinstance(problem, Fault) else health.notes).append(str(problem))
    return health


def _share(total: int, index: int, count: int) -> int:
    """Return how many of ``total`` fall to one of ``count`` scenes."""
    return total * (index + 1) // count - total * index // count


def _add_times(health: SceneHealth, pictures: Pictures) -> None:
    health.num_pictures = len(pictures)
    gaps_s = pictures.gaps_s
    if len(gaps_s) == 0:
        return
    health.length_s = float(gaps_s.sum())
    health.rate_hz = 1.0 / float(np.median(gaps_s))
    health.longest_gap_s = float(gaps_s.max())
    health.num_gaps = pictures.num_gaps


def _add_files(health: SceneHealth, dataroot: Path, pictures: Pictures, num_decoded: int | None) -> None:
    paths = [dataroot / name for name in pictures.filenames]
    faults = {path: fault for path in paths if (fault := fault_of_ends(path))}
    whole = [path for path in paths if path not in faults]
    count = len(whole) if num_decoded is None else min(num_decoded, len(whole))
    chosen = [whole[index] for index in np.linspace(0, len(whole) - 1, count).round().astype(int)]
    health.num_decoded = len(chosen)
    faults |= {path: fault for path in chosen if (fault := fault_of_picture(path))}
    missing = [path for path, fault in faults.items() if fault == "is missing"]
    health.num_missing, health.num_unreadable = len(missing), len(faults) - len(missing)
    bad = {path: fault for path, fault in faults.items() if path not in set(missing)}
    for path, fault in list(bad.items())[:MOST_NAMED]:
        health.faults.append(fault if str(path) in fault else f"{path} {fault}")
    if len(bad) > MOST_NAMED:
        health.faults.append(f"{len(bad) - MOST_NAMED} more picture files cannot be read")
