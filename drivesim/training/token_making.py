"""Scenes -> a token set (`drivesim tokenize`): shard by shard, on several processes or machines, resumable.

The tokens of a shard depend on the settings and the number of the shard, not on who makes it. One process reads the
tables of the data set and hands out scenes; those that make shards read pictures and nothing else.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path

import torch

from drivesim import console
from drivesim.checkpoint import resolve_weights
from drivesim.errors import InputError
from drivesim.files import remove_abandoned
from drivesim.run_lock import locked
from drivesim.scene.nuscenes import NuScenesDataset
from drivesim.scene.types import Scene
from drivesim.training.fan_out import fan_out
from drivesim.training.scene_source import RATE_HZ, check_road, convert_scenes, split
from drivesim.training.token_manifest import (
    MANIFEST,
    VALIDATION,
    Manifest,
    ShardRecord,
    TokenSettings,
    read_manifest,
    shard_path,
    write_manifest,
)
from drivesim.training.token_plan import TokenizeConfig, known_scenes, num_frames_of, plan_of, settings_of
from drivesim.training.token_shard import ShardJob, make_shard
from drivesim.training.token_shards import damaged_shards
from drivesim.world_model.pretrained import load_world_model

_LOG = logging.getLogger(__name__)
MOST_HELD_OUT = 0.25  # of all frames; more happens where few scenes differ in length


def tokenize_scenes(
    dataset: NuScenesDataset,
    weights: str | Path,
    out: Path,
    config: TokenizeConfig,
    *,
    names: Sequence[str] = (),
) -> Manifest:
    """Make the tokens of scenes in the folder ``out``, or go on where a run that was stopped left off; shows progress.

    Args:
        dataset: an opened data set.
        weights: of the world model: its tokenizer, its motion field, and what imagines pasts.
        out: folder of the set.
        config: how.
        names: scenes; all of the data set if left out.

    Raises:
        InputError: weights of another kind or size, too few scenes, or ``out`` holds a set made with other settings.
        OSError: the folder cannot be written, or the disk is full.
    """
    file = resolve_weights(weights).absolute()
    lengths = {name: num_frames_of(dataset, name) for name in known_scenes(dataset, names)}
    train, validation = _split(lengths, config)
    settings = settings_of(dataset, load_world_model(file, dtype=torch.float32), config)
    planned = plan_of(dataset, {name: lengths[name] for name in train}, settings)
    _refuse_foreign(out)
    with locked(out, flag="--out"):
        manifest = _begun(out, planned)
        write_manifest(out, manifest)
        _remove_leftovers(out)
        _keep_validation(dataset, {name: lengths[name] for name in validation}, out / VALIDATION, settings)
        _make_missing(dataset, file, out, manifest, config)
    return manifest


def _split(lengths: Mapping[str, int], config: TokenizeConfig) -> tuple[list[str], list[str]]:
    """Return scenes to learn from and to validate with; of few scenes, a short one is held out."""
    names = list(lengths)
    train, validation = split(names, config.validation_share)
    held_out = sum(lengths[name] for name in validation)
    if held_out > MOST_HELD_OUT * sum(lengths.values()):
        whole = [name for name in names if lengths[name] >= config.frames_per_clip] or names
        shortest = min(whole, key=lambda name: lengths[name])
        if lengths[shortest] < held_out:
            train, validation = [name for name in names if name != shortest], [shortest]
    seconds = sum(lengths[name] for name in validation) / RATE_HZ
    console.say(
        f"held out to validate with: {seconds:.0f} of {sum(lengths.values()) / RATE_HZ:.0f} s "
        f"({', '.join(validation[:3])}{', ...' if len(validation) > 3 else ''})"
    )
    return train, validation


def _make_missing(
    dataset: NuScenesDataset, weights: Path, out: Path, manifest: Manifest, config: TokenizeConfig
) -> None:
    missing, planned = manifest.missing, len(manifest.clips)
    done = planned - sum(len(manifest.planned(number)) for number in missing)
    try:
        with console.progress_bar("tokenizing clips", planned, done=done) as bar:

            def take(index: int, record: ShardRecord) -> None:
                number = missing[index]
                _check_arrived(shard_path(out, number), record)
                manifest.shards[number] = record
                write_manifest(out, manifest)
                bar.advance(len(manifest.planned(number)))

            fan_out(
                make_shard,
                _jobs(dataset, weights, out.absolute(), manifest, missing),
                processes=0 if config.num_workers == 1 else config.num_workers,
                setting="--workers",
                ray_address=config.ray_address,
                ray_resources={"num_gpus": 1} if manifest.settings.device == "cuda" else None,
                on_result=take,
            )
    finally:
        _remove_leftovers(out)


def _check_arrived(path: Path, record: ShardRecord) -> None:
    if not path.is_file() or path.stat().st_size != record.num_bytes:
        raise InputError(
            f"{path} was written by another machine and is not here; name a folder for --out that all machines share"
        )


def _jobs(
    dataset: NuScenesDataset, weights: Path, out: Path, manifest: Manifest, numbers: Sequence[int]
) -> Iterator[ShardJob]:
    """Yield the missing shards with their scenes, which are loaded when somebody is free to work on them."""
    load = lru_cache(maxsize=2)(lambda name: _loaded(dataset, name))  # a scene may lie in two shards
    for number in numbers:
        windows = manifest.planned(number)
        scenes = {name: load(name) for name in dict.fromkeys(name for name, _ in windows)}
        yield ShardJob(
            number=number,
            folder=out,
            weights=weights,
            settings=manifest.settings,
            windows=windows,
            scenes={name: scene for name, scene in scenes.items() if isinstance(scene, Scene)},
            unread={name: scene for name, scene in scenes.items() if isinstance(scene, str)},
        )


def _loaded(dataset: NuScenesDataset, name: str) -> Scene | str:
    """Return a scene, or why it cannot be had."""
    try:
        scene = dataset.load(name, rate_hz=RATE_HZ)
        agents = None if scene.agents is None else list(scene.agents)  # so that shards read pictures alone
    except InputError as error:
        _LOG.warning("scene %s left out: %s", name, error)
        return str(error)
    check_road(scene)
    return replace(scene, route_xy_m=None, problems=[], agents=agents)


def _refuse_foreign(out: Path) -> None:
    if out.is_dir() and not (out / MANIFEST).exists():
        foreign = [path.name for path in sorted(out.iterdir()) if not path.name.startswith(".")]
        if foreign:
            raise InputError(f"{out} holds other files ({foreign[0]}); name a new folder for --out")


def _begun(out: Path, planned: Manifest) -> Manifest:
    """Return the plan with the shards that an earlier run made and that are still whole.

    Raises:
        InputError: that run had other settings or scenes.
    """
    if not (out / MANIFEST).exists():
        return planned
    begun = read_manifest(out)
    changed = [
        field.name
        for field in fields(TokenSettings)
        if getattr(begun.settings, field.name) != getattr(planned.settings, field.name)
    ]
    if not changed and begun.clips != planned.clips:
        changed = ["scenes"]
    if changed:
        raise InputError(
            f"{out} holds tokens made with other {' and '.join(changed)}; use the same to go on, or name another --out"
        )
    for number in damaged_shards(out, begun):
        _LOG.warning("%s is damaged or missing and is made again", shard_path(out, number))
        begun.shards[number] = None
    return replace(begun, dataroot=planned.dataroot)


def _remove_leftovers(out: Path) -> None:
    """Delete what writers that were killed left behind."""
    for path in [*out.glob(".shard-*.safetensors"), *out.glob(".manifest-*.json")]:
        path.unlink(missing_ok=True)


def _keep_validation(
    dataset: NuScenesDataset, lengths: Mapping[str, int], path: Path, settings: TokenSettings
) -> None:
    """Record about ``num_validation_clips`` clips of the held-out scenes, for the open-loop check of training."""
    remove_abandoned(path)
    if path.exists():
        return
    chosen, room = [], 0
    for name in sorted(lengths, key=lambda name: zlib.crc32(name.encode())):
        if room >= settings.num_validation_clips:
            break
        length = lengths[name]
        if length >= settings.frames_per_clip:
            chosen.append(name)
            room += length // settings.frames_per_clip
    convert_scenes(
        dataset,
        chosen or list(lengths),
        path,
        frames_per_clip=settings.frames_per_clip,
        stride=settings.frames_per_clip,
    )
