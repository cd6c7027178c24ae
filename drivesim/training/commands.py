"""One function per `drivesim train` command: data, task, loop, the trained model as a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from drivesim import console
from drivesim.scene.types import Camera, front_camera
from drivesim.tokenizer.vqgan import VQGAN
from drivesim.training import inverse_dynamics, tokenizer, world_model
from drivesim.training.config import TrainConfig
from drivesim.training.data import DataConfig, RecordedClips, open_or_record
from drivesim.training.loop import FitResult, TrainTask, fit
from drivesim.training.token_cache import TokenCache, open_or_build
from drivesim.world_model.pretrained import load_tokenizer

SaveFn = Callable[[nn.Module, Path], None]


def train_tokenizer(config: TrainConfig, out: Path, *, resume: bool = False) -> FitResult:
    """Train the tokenizer; the result's ``weights`` are ``out/tokenizer.safetensors``."""
    task = tokenizer.make_task(config.tokenizer, *_recorded_clips(config.data))
    return _fit(task, config, out, resume=resume, save_fn=tokenizer.save_tokenizer)


def train_world_model(config: TrainConfig, out: Path, *, resume: bool = False) -> FitResult:
    """Train the world model on a trained tokenizer; ``weights`` are ``out/world-model.safetensors``."""
    vqgan, camera = load_tokenizer(config.world_model.tokenizer), front_camera()
    train, validation = _recorded_clips(config.data)
    cache = _token_cache(train, vqgan, camera, config)
    task = world_model.make_task(config.world_model, cache, validation, tokenizer=vqgan, camera=camera)
    return _fit(task, config, out, resume=resume, save_fn=world_model.save_world_model)


def train_inverse_dynamics(config: TrainConfig, out: Path, *, resume: bool = False) -> FitResult:
    """Train the inverse dynamics model; ``weights`` are ``out/inverse-dynamics.safetensors``."""
    task = inverse_dynamics.make_task(config.inverse_dynamics, *_recorded_clips(config.data))
    return _fit(task, config, out, resume=resume, save_fn=inverse_dynamics.save_inverse_dynamics)


def _fit(task: TrainTask, config: TrainConfig, out: Path, *, resume: bool, save_fn: SaveFn) -> FitResult:
    """Run the loop, then write the model with its averaged weights; safetensors carry its configuration."""
    result = fit(task, config.training, out, resume=resume)
    weights = out / f"{task.name}.safetensors"
    save_fn(task.model, weights)
    return replace(result, weights=weights)


def _recorded_clips(config: DataConfig) -> tuple[RecordedClips, RecordedClips]:
    """Open the training and validation clips; what is missing is recorded first, with a progress bar."""
    sizes = {"train": config.num_clips, "validation": config.num_validation_clips}
    num_missing = sum(size for name, size in sizes.items() if not (Path(config.path) / name).exists())
    if num_missing == 0:
        return open_or_record(config)
    with console.progress_bar("recording clips", num_missing) as bar:
        return open_or_record(config, on_progress=lambda _: bar.advance())


def _token_cache(clips: RecordedClips, vqgan: VQGAN, camera: Camera, config: TrainConfig) -> TokenCache:
    path, num_frames = Path(config.data.path) / "tokens", config.world_model.frames_per_clip
    with console.progress_bar("tokenizing clips", len(clips)) as bar:
        return open_or_build(clips, vqgan, camera, path, num_frames=num_frames, on_progress=bar.update)
