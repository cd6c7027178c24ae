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
from drivesim.checkpoint import config_to_json
from drivesim.errors import InputError
from drivesim.files import remove_abandoned
from drivesim.scene.types import Camera, front_camera
from drivesim.tokenizer.vqgan import VQGAN
from drivesim.training import inverse_dynamics, tokenizer, world_model
from drivesim.training.config import TrainConfig
from drivesim.training.data import DataConfig, RecordedClips, facts_of, open_or_record
from drivesim.training.loop import FitResult, TrainTask, fit
from drivesim.training.token_cache import TokenCache, open_or_build
from drivesim.world_model.pretrained import load_tokenizer

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
    clips = _recorded_clips(config.data)
    torch.manual_seed(config.training.seed)  # of the initial weights
    task = tokenizer.make_task(config.tokenizer, *clips)
    result = fit(task, config.training, out, resume=resume, on_start=on_start)
    return _save(task, config, config.tokenizer, result, out, save_fn=tokenizer.save_tokenizer)


def train_world_model(
    config: TrainConfig, out: Path, *, resume: bool = False, on_start: StartFn | None = None
) -> FitResult:
    """Train the world model on a trained tokenizer; ``weights`` are ``out/world-model.safetensors``.

    Arguments as in :func:`train_tokenizer`.
    """
    settings, camera = config.world_model, front_camera()
    num_frames = min(settings.frames_per_clip, config.data.frames_per_clip)
    if settings.frames_per_window > num_frames:
        raise InputError(
            f"world_model.frames_per_window={settings.frames_per_window} exceeds the {num_frames} frames of a "
            "clip; lower it, or raise data.frames_per_clip"
        )
    vqgan = load_tokenizer(settings.tokenizer)
    train, validation = _recorded_clips(config.data)
    cache = _token_cache(train, vqgan, camera, config)
    torch.manual_seed(config.training.seed)  # of the initial weights
    task = world_model.make_task(settings, cache, validation, tokenizer=vqgan, camera=camera)
    result = fit(task, config.training, out, resume=resume, on_start=on_start)
    return _save(task, config, settings, result, out, save_fn=world_model.save_world_model)


def train_inverse_dynamics(
    config: TrainConfig, out: Path, *, resume: bool = False, on_start: StartFn | None = None
) -> FitResult:
    """Train the inverse dynamics model; ``weights`` are ``out/inverse-dynamics.safetensors``.

    Arguments as in :func:`train_tokenizer`.
    """
    settings, clips = config.inverse_dynamics, _recorded_clips(config.data)
    torch.manual_seed(config.training.seed)  # of the initial weights
    task = inverse_dynamics.make_task(settings, *clips)
    result = fit(task, config.training, out, resume=resume, on_start=on_start)
    return _save(task, config, settings, result, out, save_fn=inverse_dynamics.save_inverse_dynamics)


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
        "data": facts_of(config.data),
        "date": datetime.now(UTC).date().isoformat(),
        "drivesim": version("drivesim"),
    }
    weights = out / f"{task.name}.safetensors"
    save_fn(task.model, weights, facts=facts)
    return replace(result, weights=weights)


def _recorded_clips(config: DataConfig) -> tuple[RecordedClips, RecordedClips]:
    """Open the training and validation clips; what is missing is recorded first, with a progress bar."""
    sizes = {"train": config.num_clips, "validation": config.num_validation_clips}
    num_missing = sum(size for name, size in sizes.items() if not (Path(config.path) / name).exists())
    for name in (*sizes, "tokens"):
        remove_abandoned(Path(config.path) / name)
    if num_missing == 0:
        return open_or_record(config)
    with console.progress_bar("recording clips", num_missing) as bar:
        return open_or_record(config, on_progress=lambda _: bar.advance())


def _token_cache(clips: RecordedClips, vqgan: VQGAN, camera: Camera, config: TrainConfig) -> TokenCache:
    path, num_frames = Path(config.data.path) / "tokens", config.world_model.frames_per_clip
    with console.progress_bar("tokenizing clips", len(clips)) as bar:
        return open_or_build(clips, vqgan, camera, path, num_frames=num_frames, on_progress=bar.update)
