"""True and imagined world states of drives with known events, as the hazard head reads them, in shards on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drivesim.files import atomic_path
from drivesim.hazard_inputs import HazardConfig, facts_of, read_state, small_pictures
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
from drivesim.training.hazard_samples import HazardSetConfig, stacked
from drivesim.world_model.places import Places
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.world_model import WorldModel
from drivesim.world_model.world_state import WorldState


@dataclass(kw_only=True, slots=True, frozen=True)
class Job:
    """One shard to be made."""

    path: Path
    numbers: tuple[int, ...]  # of the drives
    is_long: bool
    first_seed: int
    config: HazardSetConfig
    head: HazardConfig


@lru_cache(maxsize=1)
def world_model_of(weights: str) -> WorldModel:
    """Return a world model, loaded once per process."""
    return load_world_model(weights)


def make_shard(job: Job) -> None:
    """Drive, draw, imagine, and write the shard of a job."""
    torch.set_num_threads(1)
    draw_in_one_thread()
    config, model = job.config, world_model_of(job.config.weights)
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
    arrays = stacked(parts)
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
    job: Job,
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
    job: Job,
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
    """Return the world state after the true frames from each start on, with the maps and agents of some drives only."""
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
    agents = [
        known.drive.agents_at(s + count - 1) if has else None
        for known, s, has in zip(drives, starts, has_map, strict=True)
    ]
    pose = np.stack([known.pose[s + count - 1] for known, s in zip(drives, starts, strict=True)])
    return model.observe(
        torch.from_numpy(frames),
        torch.from_numpy(twist.astype(np.float32)),
        camera,
        places=Places.begin(maps, ground_of(camera), pose, agents),
    )
