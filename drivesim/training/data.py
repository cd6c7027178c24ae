"""Recordings of the reference world as memory-mapped arrays, made once by worker processes and read by training.

A set is a folder: ``frames.npy`` (N, T, H, W, 3) uint8, ``motion.npz`` with twists and poses, ``set.json``. Only
:func:`record_clips` needs the reference world; reading needs numpy alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.files import atomic_folder, reserve_space
from drivesim.reference.seeds import FIRST_HELD_OUT_SEED, FIRST_VALIDATION_SEED
from drivesim.scene.road_map import PACKED_DIM, mapped, packed_road_views
from drivesim.training.worker_pool import worked

if TYPE_CHECKING:
    from drivesim.reference.behavior import Recording


class DataSource(Enum):
    """Where training clips come from."""

    RECORDED = "recorded"  # a set of the reference world, made at the first run and kept
    STREAM = "stream"  # the reference world, recorded while training runs and not stored
    SCENES = "scenes"  # a recorded nuScenes-schema data set
    TOKENS = "tokens"  # tokens made by `drivesim tokenize`; for world models
    GENERAL = "general"  # captioned clips of the general world and of drives; for tokenizers


class FrameClips(Protocol):
    """Clips of equal length, seen as frames only."""

    @property
    def frames(self) -> NDArray[np.uint8]:
        """Return the frames (N, T, H, W, 3)."""
        ...

    @property
    def frames_per_clip(self) -> int:
        """Return T."""
        ...

    def __len__(self) -> int:
        """Return N."""
        ...


class FrameSource(Protocol):
    """Frames to learn from: the same ones at every step, or others."""

    def per_step(self, *, start_step: int, seed: int, rank: int, world_size: int) -> Iterator[FrameClips]:
        """Yield for every step the clips that its batch is drawn from; only valid until the next step."""
        ...


class ClipSource(Protocol):
    """Clips to learn from: the same ones at every step, or others."""

    def per_step(self, *, start_step: int, seed: int, rank: int, world_size: int) -> Iterator[RecordedClips]:
        """Yield for every step the clips that its batch is drawn from; only valid until the next step."""
        ...


Job = tuple[Path, int, int, int]
"""File of frames, index of the clip, seed of the world, number of frames."""

Motion = dict[str, NDArray[np.generic]]

MOTION_ARRAYS = ("twist", "xy_m", "yaw_rad", "is_collision", "is_off_road", "road")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Which clips a training run learns from, and the recordings it is validated on; those are made once and kept."""

    source: DataSource = DataSource.RECORDED
    path: str = "out/data/drive"
    num_clips: int = 800
    num_validation_clips: int = 24
    frames_per_clip: int = 48
    first_seed: int = 0  # of the training roads; drivesim/reference/seeds.py says which seeds are for what
    num_workers: int = 2

    def __post_init__(self) -> None:
        """Refuse empty sets and road seeds that are kept for benchmarks."""
        if min(self.num_clips, self.num_validation_clips, self.frames_per_clip - 1, self.num_workers) < 1:
            raise ValueError(
                "data needs num_clips, num_validation_clips, num_workers >= 1 and frames_per_clip >= 2"
            )
        if self.first_seed < 0 or self.first_seed + self.num_clips > FIRST_VALIDATION_SEED:
            raise ValueError(
                f"data.first_seed + data.num_clips must stay in 0..{FIRST_VALIDATION_SEED}, "
                f"got {self.first_seed}"
            )
        most = FIRST_HELD_OUT_SEED - FIRST_VALIDATION_SEED
        if self.num_validation_clips > most:
            raise ValueError(
                f"data.num_validation_clips must be at most {most}, got {self.num_validation_clips}"
            )


@dataclass(kw_only=True, slots=True)
class RecordedClips:
    """Clips of equal length from as many worlds; the arrays are memory-mapped and must not be written."""

    frames: NDArray[np.uint8]  # (N, T, H, W, 3)
    twist: NDArray[np.float32]  # (N, T, 2) speed in m/s and yaw rate in rad/s that lead into each frame
    xy_m: NDArray[np.float64]  # (N, T, 2)
    yaw_rad: NDArray[np.float64]  # (N, T)
    is_collision: NDArray[np.bool_]  # (N, T)
    is_off_road: NDArray[np.bool_]  # (N, T)
    road: NDArray[np.int8]  # (N, T, E, h, w) what is known of what is seen, see ``packed_road_views``
    rate_hz: float
    path: Path

    @classmethod
    def open(cls, path: Path) -> RecordedClips:
        """Open a set written by :func:`record_clips`.

        Raises:
            InputError: the folder is missing or is not such a set.
        """
        try:
            facts = json.loads((path / "set.json").read_text())
            frames = np.load(path / "frames.npy", mmap_mode="r")
            motion = np.load(path / "motion.npz")
            arrays = {name: motion[name] for name in MOTION_ARRAYS}
            if arrays["road"].ndim != 5 or arrays["road"].shape[2] != PACKED_DIM:
                raise ValueError("its views of the road know no markings or no agents")
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path} holds no recorded clips ({error}); remove it so that it is recorded anew"
            ) from error
        return cls(frames=frames, rate_hz=float(facts["rate_hz"]), path=path, **arrays)

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.frames)

    def per_step(self, *, start_step: int, seed: int, rank: int, world_size: int) -> Iterator[RecordedClips]:
        """Yield these clips for every step."""
        del start_step, seed, rank, world_size
        return repeat(self)

    @property
    def frames_per_clip(self) -> int:
        """Return the frames of each clip."""
        return int(self.frames.shape[1])


def record_clips(
    path: Path,
    *,
    num_clips: int,
    frames_per_clip: int,
    first_seed: int,
    num_workers: int,
    on_progress: Callable[[int], None] | None = None,
) -> RecordedClips:
    """Record ``num_clips`` worlds with the seeds from ``first_seed`` on into ``path`` by worker processes.

    Args:
        path: new folder; it appears under its name only when all clips are in it.
        num_clips: worlds, one clip each.
        frames_per_clip: frames of a clip, at 6 Hz.
        first_seed: seed of the first world; the driver is drawn from the same seed.
        num_workers: processes; 1 records in this one.
        on_progress: called with the number of finished clips.

    Raises:
        InputError: a worker process died.
        OSError: the disk has no room for all clips.
    """
    with atomic_folder(path) as folder:
        shape = (num_clips, frames_per_clip, 128, 224, 3)
        np.lib.format.open_memmap(folder / "frames.npy", mode="w+", dtype=np.uint8, shape=shape).flush()
        reserve_space(folder / "frames.npy")
        jobs = [(folder / "frames.npy", i, first_seed + i, frames_per_clip) for i in range(num_clips)]
        motions = []
        recorded = worked(
            _record_one, jobs, num_workers=num_workers, doing="recording", setting="data.num_workers"
        )
        for motion in recorded:
            motions.append(motion)
            if on_progress is not None:
                on_progress(len(motions))
        stacked = {name: np.stack([motion[name] for motion in motions]) for name in MOTION_ARRAYS}
        np.savez(folder / "motion.npz", **stacked)
        facts = {
            "rate_hz": 6.0,
            "first_seed": first_seed,
            "num_clips": num_clips,
            "frames_per_clip": frames_per_clip,
        }
        (folder / "set.json").write_text(json.dumps(facts, indent=1))
    return RecordedClips.open(path)


def _record_one(job: Job) -> Motion:
    from drivesim.reference.behavior import record
    from drivesim.reference.camera import draw_in_one_thread
    from drivesim.reference.simulator import draw_spec

    draw_in_one_thread()
    file, index, seed, num_frames = job
    recording = record(draw_spec(seed), driver=None, num_frames=num_frames, driver_seed=seed)
    frames = np.load(file, mmap_mode="r+")
    frames[index] = np.stack([recording.scene.frames[t] for t in range(num_frames)])
    return motion_arrays(recording)


def motion_arrays(recording: Recording) -> Motion:
    """Return the motion of a recording under the names of :class:`RecordedClips`."""
    scene = recording.scene
    return {
        "twist": np.stack([scene.speed_mps, scene.yaw_rate_radps], axis=-1).astype(np.float32),
        "xy_m": scene.xy_m,
        "yaw_rad": scene.yaw_rad,
        "is_collision": recording.is_collision,
        "is_off_road": recording.is_off_road,
        "road": packed_road_views(
            mapped(scene.drivable), scene.camera, scene.xy_m, scene.yaw_rad, scene.agents
        ),
    }


def open_or_record(
    config: DataConfig, *, is_train_needed: bool = True, on_progress: Callable[[int], None] | None = None
) -> tuple[RecordedClips | None, RecordedClips]:
    """Return (training clips, validation clips), recording what is not there yet.

    Args:
        config: sizes and seeds.
        is_train_needed: without it the training clips are None.
        on_progress: called with the number of clips done of the set that is being recorded.

    Raises:
        InputError: the folder holds a set of other size or seeds than ``config`` asks for.
    """
    validation = ("validation", config.num_validation_clips, FIRST_VALIDATION_SEED)
    train = ("train", config.num_clips, config.first_seed)
    first = _set_of(config, *train, on_progress) if is_train_needed else None
    return first, _set_of(config, *validation, on_progress)


def _set_of(
    config: DataConfig,
    name: str,
    num_clips: int,
    first_seed: int,
    on_progress: Callable[[int], None] | None,
) -> RecordedClips:
    path = Path(config.path) / name
    if not path.exists():
        return record_clips(
            path,
            num_clips=num_clips,
            frames_per_clip=config.frames_per_clip,
            first_seed=first_seed,
            num_workers=config.num_workers,
            on_progress=on_progress,
        )
    clips = RecordedClips.open(path)
    facts = json.loads((path / "set.json").read_text())
    asked = {"num_clips": num_clips, "frames_per_clip": config.frames_per_clip, "first_seed": first_seed}
    if {key: facts.get(key) for key in asked} != asked:
        raise InputError(
            f"{path} holds {facts}, but the run asks for {asked}; name another data.path or remove it"
        )
    return clips


def facts_of(config: DataConfig) -> dict[str, object]:
    """Return which recordings a run used as plain JSON, for model cards; where they lie is left out."""
    return {
        "num_clips": config.num_clips,
        "num_validation_clips": config.num_validation_clips,
        "frames_per_clip": config.frames_per_clip,
        "first_seed": config.first_seed,
        "first_validation_seed": FIRST_VALIDATION_SEED,
    }
