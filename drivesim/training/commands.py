"""One function per `drivesim train` command: data, task, loop, the trained model as a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from drivesim import console
from drivesim.checkpoint import save_module
from drivesim.config_json import config_to_json
from drivesim.errors import InputError
from drivesim.general_world.content import RATE_HZ as GENERAL_RATE_HZ
from drivesim.training import (
    behavior_cloning,
    fine_tuning,
    hazard_calibration,
    hazard_head,
    imagination,
    inverse_dynamics,
    motion_field,
    tokenizer,
    video_model,
    world_model,
)
from drivesim.training.config import TrainConfig
from drivesim.training.data import DataSource, FrameClips, FrameSource
from drivesim.training.lessons import open_or_record
from drivesim.training.loop import FitResult, TrainTask, fit
from drivesim.training.sources import (
    facts_of,
    general_facts_of,
    open_general,
    open_hazard_samples,
    open_sources,
    open_world_model_sources,
    token_source,
    tokenized,
)
from drivesim.world_model.pretrained import trainable_world_model
from drivesim.world_model.pretrained_video import save_video_model, trainable_video_model
from drivesim.world_model.world_model import WorldModel

StartFn = Callable[[], None]


class SaveFn(Protocol):
    """Writes a trained module with the facts of its training."""

    def __call__(self, model: nn.Module, path: Path, *, facts: dict[str, Any]) -> None:
        """Write ``path``."""


def train_tokenizer(
    config: TrainConfig, out: Path, *, resume: bool = False, on_start: StartFn | None = None
) -> FitResult:
    """Train the tokenizer; the result's ``weights`` are ``out/tokenizer.safetensors``.

    Args:
        config: The run, of which ``tokenizer``, ``training`` and ``data`` are read.
        out: The run's folder.
        resume: Go on with the run in ``out``.
        on_start: Called before the first step, when all is found fit to run.
    """
    train, validation = _frames(config)
    torch.manual_seed(config.training.seed)  # of the initial weights
    task = tokenizer.make_task(config.tokenizer, train, validation)
    result = fit(task, config.training, out, resume=resume, on_start=on_start)
    return _save(task, config, config.tokenizer, result, out, save_fn=tokenizer.save_tokenizer)


def train_motion_field(
    config: TrainConfig, out: Path, *, resume: bool = False, on_start: StartFn | None = None
) -> FitResult:
    """Train the motion field of a world model; ``weights`` are ``out/motion-field.safetensors``, the whole model.

    Arguments as in :func:`train_tokenizer`.
    """
    settings, sources = config.motion_field, open_sources(config)
    model = _begun(config, settings.init)
    task = motion_field.MotionFieldTask(settings, sources.train, sources.validation, model, sources.camera)
    result = fit(task, config.training, out, resume=resume, on_start=on_start)
    return _save(task, config, settings, result, out, save_fn=save_part)


def train_world_model(
    config: TrainConfig, out: Path, *, resume: bool = False, on_start: StartFn | None = None
) -> FitResult:
    """Train the transformer of a world model; ``weights`` are ``out/world-model.safetensors``.

    With ``fine_tuning.data`` the whole model is fitted to that data set, see :func:`fine_tuning.fine_tune`.
    Arguments as in :func:`train_tokenizer`.
    """
    if config.fine_tuning.data:
        return fine_tuning.fine_tune(config, out, resume=resume, on_start=on_start)
    settings, sources = config.world_model, open_world_model_sources(config)
    num_frames = min(settings.frames_per_clip, sources.frames_per_clip)
    if settings.frames_per_window > num_frames:
        raise InputError(
            f"world_model.frames_per_window={settings.frames_per_window} exceeds the {num_frames} frames of a "
            "clip; lower it, or take longer clips"
        )
    model = _begun(config, settings.init)
    tokens = token_source(sources, model, config)
    task = world_model.WorldModelTask(settings, tokens, sources.validation, model, sources.camera)
    result = fit(task, config.training, out, resume=resume, on_start=on_start)
    return _save(task, config, settings, result, out, save_fn=save_part)


def train_imagination(
    config: TrainConfig, out: Path, *, resume: bool = False, on_start: StartFn | None = None
) -> FitResult:
    """Train a world model on what it imagines itself; ``weights`` are ``out/imagination.safetensors``, the whole model.

    Arguments as in :func:`train_tokenizer`.
    """
    if config.training.devices * config.training.num_nodes > 1:
        raise InputError(
            "rollouts that go on between steps are kept by one process: leave training.devices and "
            "training.num_nodes at 1 for `drivesim train imagination`"
        )
    settings, sources = config.imagination, open_sources(config)
    if settings.rollouts.frames_per_window > sources.frames_per_clip:
        raise InputError(
            f"the longest rollouts need clips of {settings.rollouts.frames_per_window} frames, these have "
            f"{sources.frames_per_clip}; take longer clips, or lower imagination.rollouts.longest"
        )
    task = imagination.ImaginationTask(
        settings,
        sources.train,
        sources.validation,
        _begun(config, settings.init),
        sources.camera,
        batch_size=config.training.batch_size,
    )
    result = fit(task, config.training, out, resume=resume, on_start=on_start)
    return _save(task, config, settings, result, out, save_fn=save_part)


def train_video_model(
    config: TrainConfig, out: Path, *, resume: bool = False, on_start: StartFn | None = None
) -> FitResult:
    """Train a general world model on captioned clips and images; ``weights`` are ``out/video-model.safetensors``.

    Arguments as in :func:`train_tokenizer`.
    """
    settings = config.video_model
    _check_clips(config)
    train, validation = open_general(config)
    torch.manual_seed(config.training.seed)  # of the initial weights
    model = trainable_video_model(
        settings.init,
        settings.model,
        public_tokenizer=settings.public_tokenizer,
        is_turned=settings.is_turned,
    )
    task = video_model.VideoModelTask(
        settings, tokenized(train, model.tokenizer), tokenized(validation, model.tokenizer), model
    )
    result = fit(task, config.training, out, resume=resume, on_start=on_start)
    return _save(task, config, settings, result, out, save_fn=save_video_model)


def _check_clips(config: TrainConfig) -> None:
    """Refuse clips of another length or rate than the model's."""
    model, general = config.video_model.model, config.general
    if model.stpt.is_frame_causal and config.video_model.frames_per_window > general.frames_per_clip:
        raise InputError(
            f"windows of {config.video_model.frames_per_window} frames do not fit into clips of "
            f"{general.frames_per_clip}; lower video_model.frames_per_window"
        )
    if general.frames_per_clip != model.num_frames:
        raise InputError(
            f"clips of {general.frames_per_clip} frames are to train a model of {model.num_frames}; set "
            "general.frames_per_clip and video_model.model.num_frames to the same"
        )
    if not config.captions.path and model.rate_hz != GENERAL_RATE_HZ:
        raise InputError(
            f"the built-in clips have {GENERAL_RATE_HZ:g} frames per second and the model {model.rate_hz:g}; set "
            f"video_model.model.rate_hz={GENERAL_RATE_HZ:g}, or name clips of your own in captions.path"
        )


def train_inverse_dynamics(
    config: TrainConfig, out: Path, *, resume: bool = False, on_start: StartFn | None = None
) -> FitResult:
    """Train the inverse dynamics model; ``weights`` are ``out/inverse-dynamics.safetensors``.

    Arguments as in :func:`train_tokenizer`.
    """
    settings, sources = config.inverse_dynamics, open_sources(config)
    torch.manual_seed(config.training.seed)  # of the initial weights
    task = inverse_dynamics.make_task(settings, sources.train, sources.validation, camera=sources.camera)
    result = fit(task, config.training, out, resume=resume, on_start=on_start)
    return _save(task, config, settings, result, out, save_fn=inverse_dynamics.save_inverse_dynamics)


def train_hazard_head(
    config: TrainConfig, out: Path, *, resume: bool = False, on_start: StartFn | None = None
) -> FitResult:
    """Train the hazard head and calibrate it on validation roads; ``weights`` are ``out/hazard-head.safetensors``.

    Arguments as in :func:`train_tokenizer`.
    """
    settings = config.hazard_head
    train, validation = open_hazard_samples(settings, num_workers=config.data.num_workers)
    torch.manual_seed(config.training.seed)  # of the initial weights
    task = hazard_head.HazardTask(settings, train, validation)
    result = fit(task, config.training, out, resume=resume, on_start=on_start)
    head = hazard_calibration.calibrate(task.head, validation)
    result = replace(result, metrics=hazard_calibration.final_metrics(head, validation))
    return _save(task, config, settings, result, out, save_fn=hazard_head.save_trained)


def train_policy(
    config: TrainConfig, out: Path, *, resume: bool = False, on_start: StartFn | None = None
) -> FitResult:
    """Train a driver by camera on labelled drives; ``weights`` are ``out/policy.safetensors``.

    Arguments as in :func:`train_tokenizer`; ``behavior_cloning.lessons`` takes the place of ``data``.
    """
    settings = config.behavior_cloning
    counts = {"train": settings.lessons.num_lessons, "validation": settings.lessons.num_validation_lessons}
    sets = {}
    for name, count in counts.items():
        with console.progress_bar(f"driving lessons ({name})", count) as bar:
            sets[name] = open_or_record(settings.lessons, settings.model, name, on_progress=bar.update)
    torch.manual_seed(config.training.seed)  # of the initial weights
    task = behavior_cloning.BehaviorCloningTask(settings, sets["train"], sets["validation"])
    result = fit(task, config.training, out, resume=resume, on_start=on_start)
    return _save(task, config, settings, result, out, save_fn=behavior_cloning.save_camera_driver)


def _save(
    task: TrainTask, config: TrainConfig, settings: object, result: FitResult, out: Path, *, save_fn: SaveFn
) -> FitResult:
    """Write the model with its averaged weights; safetensors carry its configuration and these facts."""
    facts = {
        "task": task.name,
        "step": result.step,
        "seed": config.training.seed,
        "metrics": result.metrics,
        "training": config_to_json(config.training),
        "settings": config_to_json(settings),
        "data": _data_facts(task, config),
        "date": datetime.now(UTC).date().isoformat(),
        "drivesim": version("drivesim"),
    }
    weights = out / f"{task.name}.safetensors"
    save_fn(task.model, weights, facts=facts)
    return replace(result, weights=weights)


def _data_facts(task: TrainTask, config: TrainConfig) -> dict[str, Any]:
    """Return what a task learned from."""
    if task.name == "video-model":
        return general_facts_of(config)
    if task.name == "hazard-head":  # its settings say it
        return {}
    if task.name == "policy":
        lessons = config_to_json(config.behavior_cloning.lessons)
        return {name: value for name, value in lessons.items() if name not in ("path", "num_workers")}
    return facts_of(config)


def _frames(config: TrainConfig) -> tuple[FrameSource, FrameClips]:
    """Return frames to train a tokenizer on and to validate it on."""
    if config.data.source is DataSource.GENERAL:
        return open_general(config)
    sources = open_sources(config)
    return sources.train, sources.validation


def _begun(config: TrainConfig, init: str) -> WorldModel:
    """Return the world model that a run begins with; what it does not take from ``init`` is drawn by the run's seed."""
    torch.manual_seed(config.training.seed)
    return trainable_world_model(init, config.world_model.model)


def save_part(model: nn.Module, path: Path, *, facts: dict[str, Any] | None = None) -> None:
    """Write the world model that a training module holds, trained part and frozen ones alike, as a checkpoint."""
    world_model: WorldModel = model.world_model  # type: ignore[assignment]
    save_module(world_model, path, kind="world-model", config=world_model.config, facts=facts)
