"""One shard of a token set, made by whichever process or machine is free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.scene.clips import Clip, ClipReader, agents_in
from drivesim.scene.road_map import RoadMap, mapped, packed_road_views
from drivesim.scene.types import Scene
from drivesim.training.token_cache import COPIED_ARRAYS, hash_of, tokenize_clips
from drivesim.training.token_clips import CACHE_ARRAYS
from drivesim.training.token_manifest import ShardRecord, TokenSettings, shard_path
from drivesim.training.token_shards import as_stored
from drivesim.video import work_in_one_thread
from drivesim.world_model.motion import camera_rays
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.world_model import WorldModel

CLIPS_PER_BATCH = 16


@dataclass(kw_only=True, slots=True)
class ShardJob:
    """All that is needed to make a shard but the pictures, which are read from their files."""

    number: int
    folder: Path
    weights: Path
    settings: TokenSettings
    windows: list[tuple[str, int]]  # scene and first frame of each clip
    scenes: dict[str, Scene]
    unread: dict[str, str]  # scenes that cannot be had, and why


@dataclass(kw_only=True, slots=True)
class _Driven:
    """A few clips of one camera."""

    frames: NDArray[np.uint8]  # (B, T, H, W, 3)
    twist: NDArray[np.float32]  # (B, T, 2)
    road: NDArray[np.int8]  # (B, T, E, h, w)


def make_shard(job: ShardJob) -> ShardRecord:
    """Write a shard and return its record.

    Raises:
        InputError: the weights are not those that the set is made with.
        OSError: the shard cannot be written.
    """
    settings = job.settings
    reader = ClipReader(
        list(job.scenes.values()),
        num_frames=settings.frames_per_clip,
        num_kept_frames=settings.frames_per_clip,
    )
    parts: list[dict[str, Tensor]] = []
    skipped: list[tuple[int, str]] = []
    with _one_thread():
        imaginer = _imaginer(job.weights, settings.weights, settings.dtype, settings.device)
        roads = {name: mapped(scene.drivable) for name, scene in job.scenes.items()}
        for batch, first in enumerate(range(0, len(job.windows), CLIPS_PER_BATCH)):
            clips, bad = _read(job, reader, range(first, min(first + CLIPS_PER_BATCH, len(job.windows))))
            skipped += bad
            chance = torch.Generator().manual_seed(_seed(settings.seed, job.number, batch))
            is_imagined = _is_imagined(settings, job.number, batch)
            for group in _by_camera(clips):
                parts.append(_tokens(group, job.scenes, roads, imaginer, chance, is_imagined=is_imagined))
    return _written(job, parts, skipped)


def _read(job: ShardJob, reader: ClipReader, rows: range) -> tuple[list[Clip], list[tuple[int, str]]]:
    """Return the clips that can be read, and which cannot, and why."""
    places = {name: index for index, name in enumerate(job.scenes)}
    clips, skipped = [], []
    for row in rows:
        name, start = job.windows[row]
        if name in job.unread:
            skipped.append((row, job.unread[name]))
            continue
        item = reader.read(places[name], start)
        if isinstance(item, Clip):
            clips.append(item)
        else:
            skipped.append((row, item.reason))
    return clips, skipped


def _by_camera(clips: list[Clip]) -> list[list[Clip]]:
    """Return runs of clips of one camera; cars differ in calibration."""
    groups: list[list[Clip]] = []
    for clip in clips:
        if groups and groups[-1][0].camera.equals(clip.camera):
            groups[-1].append(clip)
        else:
            groups.append([clip])
    return groups


def _tokens(
    clips: list[Clip],
    scenes: Mapping[str, Scene],
    roads: dict[str, RoadMap | None],
    imaginer: WorldModel,
    generator: torch.Generator,
    *,
    is_imagined: bool,
) -> dict[str, Tensor]:
    camera, poses = clips[0].camera, [clip.pose_T3.numpy() for clip in clips]
    views = [
        packed_road_views(
            roads[clip.scene_name], camera, pose[:, :2], pose[:, 2], agents_in(scenes[clip.scene_name], clip)
        )
        for clip, pose in zip(clips, poses, strict=True)
    ]
    driven = _Driven(
        frames=np.stack([clip.frames_THWC.numpy() for clip in clips]),
        twist=np.stack([clip.twist_TA.numpy() for clip in clips]),
        road=np.stack(views),
    )
    rays = camera_rays(camera).to(next(imaginer.parameters()).device)
    made = tokenize_clips(driven, imaginer, rays, generator, is_imagined=is_imagined)
    made |= {name: torch.from_numpy(getattr(driven, name)) for name in COPIED_ARRAYS}
    return as_stored(made, imaginer.tokenizer.codebook_size)


def _written(job: ShardJob, parts: list[dict[str, Tensor]], skipped: list[tuple[int, str]]) -> ShardRecord:
    path, size = shard_path(job.folder, job.number), (0, job.settings.frames_per_clip)
    if parts:
        arrays = {name: torch.cat([part[name] for part in parts]) for name in CACHE_ARRAYS}
    else:
        arrays = {name: torch.zeros(size, dtype=torch.int8) for name in CACHE_ARRAYS}
    # One entry only: safetensors writes several in any order, and a shard made again shall be the same file.
    data = save(
        arrays, metadata={"drivesim": json.dumps({"shard": job.number, "made_by": job.settings.weights})}
    )
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:  # of a full disk, which does not say where
        raise OSError(error.errno, error.strerror, str(path)) from error
    return ShardRecord(
        num_clips=len(arrays["twist"]),
        num_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        skipped=skipped,
    )


def _is_imagined(settings: TokenSettings, number: int, batch: int) -> bool:
    """Spread the batches with an imagined past evenly over the set; with a share of a half it is every second one."""
    count = number * -(-settings.clips_per_shard // CLIPS_PER_BATCH) + batch
    share = settings.imagined_share
    return int((count + 1) * share + 1e-9) > int(count * share + 1e-9)


def _seed(*numbers: int) -> int:
    return int(np.random.default_rng(numbers).integers(2**62))


@lru_cache(maxsize=1)
def _imaginer(path: Path, digest: str, dtype: str, device: str) -> WorldModel:
    """Load the model that makes the tokens, once in each process."""
    model = load_world_model(path, dtype=torch.float32)
    if hash_of(model) != digest:
        raise InputError(
            f"{path} has changed since the run began; put the weights back or start a new folder"
        )
    return model.to(device=device, dtype=getattr(torch, dtype))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep PyTorch to one thread: processes share the cores, and rounding depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    work_in_one_thread()
    try:
        yield
    finally:
        torch.set_num_threads(before)
