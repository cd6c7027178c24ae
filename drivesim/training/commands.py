"""One function per `drivesim train` command: data, task, loop, and the trained model as its own checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from drivesim import console
from drivesim.training import inverse_dynamics, tokenizer, world_model
from drivesim.training.config import TrainConfig
from drivesim.training.data import DataConfig, RecordedClips, open_or_record
from drivesim.training.loop import FitResult, TrainTask, fit

SaveFn = Callable[[nn.Module, Path], None]


def train_tokenizer(config: TrainConfig, out: Path, *, resume: bool = False) -> FitResult:
    """Train the tokenizer; the result's ``weights`` are ``out/tokenizer.safetensors``."""
    task = tokenizer.make_task(config.tokenizer, *_recorded_clips(config.data))
    return _fit(task, config, out, resume=resume, save_fn=tokenizer.save_tokenizer)


def train_world_model(config: TrainConfig, out: Path, *, resume: bool = False) -> FitResult:
    """Train the world model on a trained tokenizer; ``weights`` are ``out/world-model.safetensors``."""
    task = world_model.make_task(config.world_model, *_recorded_clips(config.data))
    return _fit(task, config, out, resume=resume, save_fn=world_model.save_world_model)


def train_inverse_dynamics(config: TrainConfig, out: Path, *, resume: bool = False) -> FitResult:
    """Train the inverse dynamics model; ``weights`` are ``out/inverse-dynamics.safetensors``."""
    task = inverse_dynamics.make_task(config.inverse_dynamics, *_recorded_clips(config.data))
    return _fit(task, config, out, resume=resume, save_fn=inverse_dynamics.save_inverse_dynamics)


def _fit(task: TrainTask, config: TrainConfig, out: Path, *, resume: bool, save_fn: SaveFn) -> FitResult:
    """Run the loop, then write the model with its averaged weights; safetensors carry its configuration."""
    result = fit(task, config.training, out, resume=resume)
    task.model.load_state_dict(load_file(result.weights), strict=False)
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
