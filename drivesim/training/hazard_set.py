"""What the hazard head learns from: small arrays read off true and imagined world states, made once and kept.

A set is a folder of shards, one per job, which appear only when they are complete: a run that was killed goes on where
it was. Each shard holds what :func:`drivesim.hazard.read_state` reads, and when the events come.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drivesim.checkpoint import tensor_hash
from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.hazard import HazardConfig, HazardInputs, facts_of, read_state, small_pictures
from drivesim.reference.camera import draw_in_one_thread
from drivesim.scene.road_map import ground_of
from drivesim.tokenizer.vqgan import normalized
from drivesim.training.hazard_drives import (
    SEEDS_PER_DRIVE,
    KnownDrive,
    Wanted,
    cars_ahead,
    draw_instants,
    draw_start,
    draw_wanted,
    find_drive,
)
from drivesim.training.worker_pool import worked
from drivesim.world_model.places import Places
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.world_model import WorldModel, WorldState

Arrays = dict[str, NDArray[Any]]
DRIVES_PER_JOB = 4


@dataclass(kw_only=True, slots=True)
class HazardSetConfig:
    """How much is driven, shown and imagined."""

    weights: str = "drive-tiny"  # of the world model
    num_drives: int = 400  # each with true and imagined states
    num_long_drives: int = 24  # half end in a collision, half in none; imagined at length
    frames_per_drive: int = 80
    true_states_per_drive: int = 36
    num_imagined: int = 12
    num_imagined_long: int = 60
    no_map_share: float = 0.25  # of the imagined drives, in which the world model is shown no map

    def __post_init__(self) -> None:
        """Refuse empty sets and drives that are too short."""
        if min(self.num_drives, self.true_states_per_drive, self.num_imagined, self.num_imagined_long) < 1:
            raise ValueError("a hazard set needs drives, true states and imagined frames: at least 1 each")
        if self.frames_per_drive < 12 or not 0 <= self.no_map_share <= 1 or self.num_long_drives < 0:
            raise ValueError(
                "a hazard set needs frames_per_drive >= 12, num_long_drives >= 0 and a share no_map_share, got "
                f"{self.frames_per_drive}, {self.num_long_drives} and {self.no_map_share}"
            )

    @property
    def num_all_drives(self) -> int:
        """Return how many drives the set has."""
        return self.num_drives + self.num_long_drives

    @property
    def num_seeds(self) -> int:
        """Return how many road seeds the set may use."""
        return self.num_all_drives * SEEDS_PER_DRIVE


@dataclass(kw_only=True, slots=True)
class HazardSamples:
    """N states with what came after them."""

    pictures: NDArray[np.uint8]  # (N, 6, h, w)
    token_ids: NDArray[np.int16]  # (N, S)
    facts: NDArray[np.float32]  # (N, F)
    event: NDArray[np.int8]  # (N, 2) steps until collision and off-road, -1 for none
    known: NDArray[np.int8]  # (N,) steps that are known
    cars: NDArray[np.bool_]  # (N, cells) where other cars are, see ``cars_ahead``
    depth: NDArray[np.int16]  # (N,) frames imagined since the last true one; 0 is a true state
    road: NDArray[np.int64]  # (N,) seed of the road
    rollout: NDArray[np.int64]  # (N,) which imagined drive it is of, or -1
    wanted: NDArray[np.str_]  # (N,) what the drive was to show

    def __len__(self) -> int:
        """Return N."""
        return len(self.known)

    def chosen(self, is_chosen: NDArray[np.bool_]) -> HazardSamples:
        """Return some of the samples."""
        return HazardSamples(**{name: getattr(self, name)[is_chosen] for name in self.__slots__})

    def inputs(self, indices: NDArray[np.int64] | slice = slice(None)) -> HazardInputs:
        """Return what the head reads of some of the samples."""
        return HazardInputs(
            pictures_BCHW=torch.from_numpy(self.pictures[indices]),
            token_ids_BS=torch.from_numpy(self.token_ids[indices]),
            facts_BF=torch.from_numpy(self.facts[indices]),
        )


@dataclass(kw_only=True, slots=True, frozen=True)
class _Job:
    path: Path
    numbers: tuple[int, ...]  # of the drives
    is_long: bool
    first_seed: int
    config: HazardSetConfig
    head: HazardConfig


def open_or_make_samples(
    path: Path,
    config: HazardSetConfig,
    head: HazardConfig,
    *,
    first_seed: int,
    num_workers: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> HazardSamples:
    """Return the samples in a folder, making those that are not there yet.

    Args:
        path: the folder.
        config: what to make.
        head: of which sizes the head is.
        first_seed: of the roads.
        num_workers: processes; 1 works in this one.
        on_progress: called with the number of drives done.

    Raises:
        InputError: the folder holds a set that was made otherwise.
    """
    _check_facts(path, config, head, first_seed)
    jobs = _jobs(path, config, head, first_seed)
    missing = [job for job in jobs if not job.path.exists()]
    num_done = sum(len(job.numbers) for job in jobs) - sum(len(job.numbers) for job in missing)
    made = worked(
        _make_shard,
        missing,
        num_workers=num_workers,
        doing="hazard",
        setting="data.num_workers",
        jobs_per_call=1,
    )
    for job, _ in zip(missing, made, strict=True):
        num_done += len(job.numbers)
        if on_progress is not None:
            on_progress(num_done)
    return _joined([job.path for job in jobs])


def _check_facts(path: Path, config: HazardSetConfig, head: HazardConfig, first_seed: int) -> None:
    model = _world_model(config.weights)
    facts = {
        "set": {name: getattr(config, name) for name in config.__slots__},
        "first_seed": first_seed,
        "model": tensor_hash(model.state_dict()),
        "reads": [head.height_px, head.width_px, head.num_steps, head.num_facts],
    }
    file = path / "set.json"
    if not file.exists():
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(facts, indent=1))
        return
    if json.loads(file.read_text()) != facts:
        raise InputError(
            f"{path} holds hazard samples made with other settings or weights; remove it or name another data.path"
        )


def _jobs(path: Path, config: HazardSetConfig, head: HazardConfig, first_seed: int) -> list[_Job]:
    jobs = []
    spans = ((0, config.num_drives, False), (config.num_drives, config.num_long_drives, True))
    for first, count, is_long in spans:
        for start in range(first, first + count, DRIVES_PER_JOB):
            numbers = tuple(range(start, min(start + DRIVES_PER_JOB, first + count)))
            file = path / f"{start:06d}.npz"
            jobs.append(
                _Job(
                    path=file,
                    numbers=numbers,
                    is_long=is_long,
                    first_seed=first_seed,
                    config=config,
                    head=head,
                )
            )
    return jobs


@lru_cache(maxsize=1)
def _world_model(weights: str) -> WorldModel:
    return load_world_model(weights)


def _make_shard(job: _Job) -> None:
    torch.set_num_threads(1)
    draw_in_one_thread()
    config, model = job.config, _world_model(job.config.weights)
    rngs = [np.random.default_rng([job.first_seed, number]) for number in job.numbers]
    kinds = [
        _wanted(number, is_long=job.is_long, rng=rng) for number, rng in zip(job.numbers, rngs, strict=True)
    ]
    drives = [
        find_drive(
            wanted,
            first_seed=job.first_seed + SEEDS_PER_DRIVE * number,
            num_frames=config.frames_per_drive,
        )
        for number, wanted in zip(job.numbers, kinds, strict=True)
    ]
    parts = _imagined_states(job, model, drives, kinds, rngs)
    if not job.is_long:
        for known, wanted, rng in zip(drives, kinds, rngs, strict=True):
            instants = draw_instants(known, wanted, rng, config.true_states_per_drive)
            parts.append(true_states(model, known, instants, job.head) | {"wanted": wanted.value})
    arrays = _stacked(parts)
    with atomic_path(job.path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _wanted(number: int, *, is_long: bool, rng: np.random.Generator) -> Wanted:
    if is_long:
        return Wanted.COLLISION if number % 2 else Wanted.BLIND
    return draw_wanted(rng)


def true_states(
    model: WorldModel, known: KnownDrive, instants: NDArray[np.int64], head: HazardConfig
) -> dict[str, Any]:
    """Return what the head reads at some instants of a drive whose pictures are true, with the labels."""
    drawn = {int(t): known.drive.picture(int(t)) for t in np.union1d(instants, instants - 1)}
    newest, before = (
        normalized(torch.from_numpy(np.stack([drawn[int(t)] for t in chosen])))
        for chosen in (instants, instants - 1)
    )
    twist, pose, roads = known.twist, known.pose, known.drive.world.road_map
    with torch.inference_mode():
        token_ids = model.tokenizer.encode(newest)
        pictures = small_pictures(torch.cat([newest, before], dim=1))
    labels = known.labels(instants, head.num_steps)
    return {
        "pictures": pictures.numpy(),
        "token_ids": token_ids.numpy().astype(np.int16),
        "facts": np.stack([facts_of(twist[t], 0.0, roads, pose[t], head) for t in instants]),
        "event": labels.event_NE,
        "known": labels.known_N,
        "cars": np.stack([cars_ahead(known, int(t)) for t in instants]),
        "depth": 0,
        "road": known.seed,
        "rollout": -1,
    }


def _imagined_states(
    job: _Job,
    model: WorldModel,
    drives: list[KnownDrive],
    kinds: list[Wanted],
    rngs: list[np.random.Generator],
) -> list[dict[str, Any]]:
    """Return what the head reads of each state after the recorded context, imagined under the twists of the drive."""
    config, num_context = job.config, model.num_context_frames
    num_imagined = config.num_imagined_long if job.is_long else config.num_imagined
    starts = [
        draw_start(known, wanted, rng, num_context=num_context, num_imagined=num_imagined)
        for known, wanted, rng in zip(drives, kinds, rngs, strict=True)
    ]
    has_map = [bool(rng.random() >= config.no_map_share) for rng in rngs]
    parts: list[dict[str, Any]] = []
    with torch.inference_mode():
        state = observed(model, drives, starts, has_map)
        generator = torch.Generator().manual_seed(job.first_seed + job.numbers[0])
        for depth in range(1, num_imagined + 1):
            instants = [start + num_context - 1 + depth for start in starts]
            if all(t > known.last for t, known in zip(instants, drives, strict=True)):
                break
            twist = np.stack(
                [known.twist[min(t, known.last)] for t, known in zip(instants, drives, strict=True)]
            )
            twist_BA = torch.from_numpy(twist.astype(np.float32))
            state = model.imagine(state, twist_BA, generator=generator).state
            parts += _imagined_rows(job, state, drives, instants, kinds, depth)
    return parts


def _imagined_rows(
    job: _Job,
    state: WorldState,
    drives: list[KnownDrive],
    instants: list[int],
    kinds: list[Wanted],
    depth: int,
) -> list[dict[str, Any]]:
    inputs, parts = read_state(state, job.head), []
    for row, (known, instant) in enumerate(zip(drives, instants, strict=True)):
        if instant > known.last:
            continue
        labels = known.labels(np.array([instant]), job.head.num_steps)
        parts.append(
            {
                "pictures": inputs.pictures_BCHW[row : row + 1].numpy(),
                "token_ids": inputs.token_ids_BS[row : row + 1].numpy().astype(np.int16),
                "facts": inputs.facts_BF[row : row + 1].numpy(),
                "event": labels.event_NE,
                "known": labels.known_N,
                "cars": cars_ahead(known, instant)[None],
                "depth": depth,
                "road": known.seed,
                "rollout": job.numbers[row],
                "wanted": kinds[row].value,
            }
        )
    return parts


def observed(
    model: WorldModel, drives: list[KnownDrive], starts: list[int], has_map: list[bool]
) -> WorldState:
    """Return the world state after the true frames from each start on, with the maps of some drives only."""
    count = model.num_context_frames
    frames = np.stack(
        [
            [known.drive.picture(t) for t in range(s, s + count)]
            for known, s in zip(drives, starts, strict=True)
        ]
    )
    twist = np.stack([known.twist[s : s + count] for known, s in zip(drives, starts, strict=True)])
    camera = drives[0].drive.world.camera
    maps = [known.drive.world.road_map if has else None for known, has in zip(drives, has_map, strict=True)]
    pose = np.stack([known.pose[s + count - 1] for known, s in zip(drives, starts, strict=True)])
    return model.observe(
        torch.from_numpy(frames),
        torch.from_numpy(twist.astype(np.float32)),
        camera,
        places=Places(maps=tuple(maps), ground=ground_of(camera), pose=pose),
    )


def _stacked(parts: list[dict[str, Any]]) -> Arrays:
    """Join parts of several rows; numbers and words stand for all rows of their part."""
    kinds: Arrays = {
        "depth": np.array([], np.int16),
        "road": np.array([], np.int64),
        "rollout": np.array([], np.int64),
        "wanted": np.array([], "U12"),
        "facts": np.array([], np.float32),
    }
    arrays: Arrays = {}
    for name in HazardSamples.__slots__:
        columns = [
            np.broadcast_to(part[name], len(part["known"])) if np.ndim(part[name]) == 0 else part[name]
            for part in parts
        ]
        joined = np.concatenate(columns)
        arrays[name] = joined.astype(kinds[name].dtype) if name in kinds else joined
    return arrays


def _joined(paths: list[Path]) -> HazardSamples:
    shards = []
    for path in paths:
        try:
            with np.load(path) as shard:
                shards.append({name: shard[name] for name in HazardSamples.__slots__})
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} cannot be read ({error}); remove it so that it is made anew") from error
    return HazardSamples(
        **{name: np.concatenate([shard[name] for shard in shards]) for name in HazardSamples.__slots__}
    )
