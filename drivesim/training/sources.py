"""What a training run learns from: recordings that are kept, recordings streamed while it runs, or recorded scenes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from drivesim import console
from drivesim.config_json import config_to_json
from drivesim.errors import InputError
from drivesim.files import remove_abandoned
from drivesim.reference.seeds import FIRST_VALIDATION_SEED
from drivesim.scene.types import Camera, front_camera
from drivesim.tokenizer.interface import Tokenizer
from drivesim.training.captioned_makers import CLIPS_PER_DRIVE, GeneralDataConfig, open_or_make
from drivesim.training.captioned_makers import facts_of as general_facts
from drivesim.training.captioned_media import open_or_read
from drivesim.training.captioned_set import CaptionedSet
from drivesim.training.captioned_tokens import CaptionedTokens, open_or_tokenize
from drivesim.training.clip_pool import ClipPool
from drivesim.training.config import TrainConfig
from drivesim.training.data import (
    MOTION_ARRAYS,
    ClipSource,
    DataConfig,
    DataSource,
    RecordedClips,
    open_or_record,
)
from drivesim.training.data import facts_of as recording_facts
from drivesim.training.hazard_head import HazardTrainingConfig
from drivesim.training.hazard_samples import HazardSamples
from drivesim.training.hazard_set import open_or_make_samples
from drivesim.training.scene_source import camera_groups, open_or_convert
from drivesim.training.token_cache import hash_of, open_or_build
from drivesim.training.token_clips import TokenSource
from drivesim.training.token_manifest import VALIDATION, read_manifest
from drivesim.training.token_shards import ShardedTokens, check_vision
from drivesim.training.token_stream import TokenStream
from drivesim.world_model.pretrained import fast_dtype
from drivesim.world_model.world_model import WorldModel


@dataclass(kw_only=True, slots=True)
class Sources:
    """The clips of a run and the camera that took them."""

    train: ClipSource
    validation: RecordedClips
    camera: Camera
    frames_per_clip: int


@dataclass(kw_only=True, slots=True)
class TokenSources:
    """A finished token set, and the recorded clips that its folder keeps for validation."""

    tokens: ShardedTokens
    validation: RecordedClips
    camera: Camera  # of the validation clips
    frames_per_clip: int


def open_world_model_sources(config: TrainConfig) -> Sources | TokenSources:
    """Open what a world model learns from: as :func:`open_sources`, or a token set.

    Raises:
        InputError: no such data, or a set that is not finished or damaged.
    """
    if config.data.source is not DataSource.TOKENS:
        return open_sources(config)
    if not config.tokens.path:
        raise InputError("data.source=tokens needs tokens.path=FOLDER, made by `drivesim tokenize`")
    path = Path(config.tokens.path)
    tokens = ShardedTokens.open(path, is_verified=config.tokens.verify)
    clips = RecordedClips.open(path / VALIDATION)
    camera, rows = max(camera_groups(clips), key=lambda group: len(group[1]))  # the check is for one camera
    arrays = {name: getattr(clips, name)[rows] for name in ("frames", *MOTION_ARRAYS)}
    return TokenSources(
        tokens=tokens,
        validation=replace(clips, **arrays),
        camera=camera,
        frames_per_clip=tokens.frames_per_clip,
    )


def open_sources(config: TrainConfig) -> Sources:
    """Open what ``config.data.source`` names; what is not there yet is made first, with a progress bar.

    Raises:
        InputError: no such data, or scenes of several cameras.
    """
    if config.data.source is DataSource.GENERAL:
        raise InputError(
            "data.source=general has clips without ego motion; take it for `drivesim train tokenizer`, or train "
            "a video-model on it"
        )
    if config.data.source is DataSource.TOKENS:
        raise InputError(
            "data.source=tokens has no pictures, only their tokens; it is for `drivesim train world-model`"
        )
    if config.data.source is DataSource.SCENES:
        return _scenes(config)
    if config.data.source is DataSource.STREAM:
        _, validation = _recorded_clips(config.data, is_train_needed=False)
        return Sources(
            train=ClipPool(stream=config.stream, pool=config.pool),
            validation=validation,
            camera=front_camera(),
            frames_per_clip=config.stream.frames_per_clip,
        )
    train, validation = _recorded_clips(config.data)
    assert train is not None
    return Sources(
        train=train, validation=validation, camera=front_camera(), frames_per_clip=train.frames_per_clip
    )


def token_source(sources: Sources | TokenSources, model: WorldModel, config: TrainConfig) -> TokenSource:
    """Return the tokens of a run's clips; pasts are imagined with inference's precision, by a copy of ``model``."""
    if isinstance(sources, TokenSources):
        check_vision(sources.tokens, model, init=config.world_model.init)
        return sources.tokens
    device = "cuda" if torch.cuda.is_available() and config.training.accelerator != "cpu" else "cpu"
    imaginer = deepcopy(model).requires_grad_(False).to(device=device, dtype=fast_dtype(device))
    if isinstance(sources.train, ClipPool):
        return TokenStream(stream=config.stream, pool=config.pool, imaginer=imaginer, camera=sources.camera)
    assert isinstance(sources.train, RecordedClips)
    clips, num_frames = sources.train, config.world_model.frames_per_clip
    path = clips.path.parent / f"tokens-{hash_of(imaginer)[:8]}"
    remove_abandoned(path)
    with console.progress_bar("tokenizing clips", len(clips)) as bar:
        return open_or_build(
            clips, imaginer, sources.camera, path, num_frames=num_frames, on_progress=bar.update
        )


def open_general(config: TrainConfig) -> tuple[CaptionedSet, CaptionedSet]:
    """Return captioned clips to train on and to validate on, of files or of our own worlds; made first if need be."""
    if config.captions.path:
        return open_or_read(config.captions, config.general, rate_hz=config.video_model.model.rate_hz)
    return _of_own_worlds(config.general)


def _of_own_worlds(config: GeneralDataConfig) -> tuple[CaptionedSet, CaptionedSet]:
    sizes = {
        "train": config.num_clips + config.num_images + CLIPS_PER_DRIVE * config.num_drives,
        "validation": config.num_validation_clips + config.num_validation_images,
    }
    missing = sum(size for name, size in sizes.items() if not (Path(config.path) / name).exists())
    for name in sizes:
        remove_abandoned(Path(config.path) / name)
    if missing == 0:
        return open_or_make(config)
    with console.progress_bar("rendering clips and images", missing) as bar:
        return open_or_make(config, on_progress=lambda _: bar.advance())


def open_hazard_samples(
    settings: HazardTrainingConfig, *, num_workers: int
) -> tuple[HazardSamples, HazardSamples]:
    """Return hazard samples to train on and to validate on; those that are missing are made first."""
    path, validation = Path(settings.path), settings.validation_samples
    with console.progress_bar("driving into hazards", settings.samples.num_all_drives) as bar:
        train = open_or_make_samples(
            path / "train",
            settings.samples,
            settings.model,
            first_seed=settings.first_seed,
            num_workers=num_workers,
            on_progress=bar.update,
        )
    with console.progress_bar("the same on validation roads", validation.num_all_drives) as bar:
        return train, open_or_make_samples(
            path / "validation",
            validation,
            settings.model,
            first_seed=FIRST_VALIDATION_SEED,
            num_workers=num_workers,
            on_progress=bar.update,
        )


def tokenized(content: CaptionedSet, tokenizer: Tokenizer) -> CaptionedTokens:
    """Return the tokens of a captioned set; they are made first if they are not there yet."""
    num_frames = content.clips.shape[0] * content.clips.shape[1] + len(content.images)
    with console.progress_bar(f"tokens of {content.path.name} frames", num_frames) as bar:
        return open_or_tokenize(content, tokenizer, on_progress=bar.update)


def facts_of(config: TrainConfig) -> dict[str, object]:
    """Return what a run learned from as plain JSON, for model cards; where it lies is left out."""
    facts: dict[str, object] = {"source": config.data.source.value}
    if config.data.source is DataSource.STREAM:
        stream = config_to_json(config.stream)
        validation = recording_facts(config.data)
        kept = {name: validation[name] for name in ("num_validation_clips", "first_validation_seed")}
        return facts | {"stream": stream, "pool": config_to_json(config.pool)} | kept
    if config.data.source is DataSource.GENERAL:
        return general_facts_of(config)
    if config.data.source is DataSource.SCENES:
        return facts | {"version": config.scenes.version, "scenes": list(config.scenes.scenes) or "all"}
    if config.data.source is DataSource.TOKENS:
        manifest = read_manifest(Path(config.tokens.path))
        made = config_to_json(manifest.settings) | {"num_clips": manifest.num_clips}
        return facts | made | {"scenes": manifest.scene_names()}
    return facts | recording_facts(config.data)


def general_facts_of(config: TrainConfig) -> dict[str, object]:
    """Return which captioned sets a run used as plain JSON; where files lie is left out."""
    facts = general_facts(config.general)
    if not config.captions.path:
        return {"source": DataSource.GENERAL.value} | facts
    media = config_to_json(config.captions)
    kept = {name: value for name, value in media.items() if name not in ("path", "csv", "cache")}
    return {"source": "captions"} | {name: facts[name] for name in facts if name != "num_drives"} | kept


def _scenes(config: TrainConfig) -> Sources:
    if not config.scenes.dataroot:
        raise InputError("data.source=scenes needs scenes.dataroot=FOLDER, a nuScenes-schema data set")
    for name in ("train", "validation"):
        remove_abandoned(Path(config.scenes.path) / name)
    train, validation = open_or_convert(config.scenes)
    cameras = [camera for clips in (train, validation) for camera, _ in camera_groups(clips)]
    first = cameras[0]
    if any(not camera.equals(first) for camera in cameras):
        raise InputError(
            f"the clips in {config.scenes.path} were made for two cameras, and a run trains for one; remove the folder "
            "so that they are made again"
        )
    return Sources(train=train, validation=validation, camera=first, frames_per_clip=train.frames_per_clip)


def _recorded_clips(
    config: DataConfig, *, is_train_needed: bool = True
) -> tuple[RecordedClips | None, RecordedClips]:
    """Open the training and validation recordings; what is missing is recorded first."""
    sizes = {"validation": config.num_validation_clips} | (
        {"train": config.num_clips} if is_train_needed else {}
    )
    num_missing = sum(size for name, size in sizes.items() if not (Path(config.path) / name).exists())
    for name in sizes:
        remove_abandoned(Path(config.path) / name)
    if num_missing == 0:
        return open_or_record(config, is_train_needed=is_train_needed)
    with console.progress_bar("recording clips", num_missing) as bar:
        return open_or_record(config, is_train_needed=is_train_needed, on_progress=lambda _: bar.advance())
