"""The stages of fine-tuning: the tasks that train a world model's parts, all judged by the same held-out windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from drivesim.errors import InputError
from drivesim.training.config import TrainConfig
from drivesim.training.fine_tuning_config import StageConfig
from drivesim.training.fine_tuning_data import FineTuningData
from drivesim.training.imagination import ImaginationTask
from drivesim.training.motion_field import MotionFieldTask
from drivesim.training.open_loop import OpenLoopCheck
from drivesim.training.row_draws import RowDraws
from drivesim.training.running_rollouts import RolloutConfig
from drivesim.training.settings import TrainingConfig
from drivesim.training.task import Evaluation, TrainTask
from drivesim.training.tokenizer import TokenizerTask
from drivesim.world_model.world_model import WorldModel

MIN_ROLLOUT = 4
OWN_SETTINGS = ("learning_rate", "batch_size", "optimizer", "ema_decay", "warmup_steps", "evaluate_every")
"""Settings of ``training`` that every stage has its own of."""
UNUSED_SETTINGS = ("betas", "grad_accumulation", "devices", "num_nodes", "init", "new_modules")
"""Settings of ``training`` that have no meaning here."""


@dataclass(kw_only=True, slots=True)
class Stage:
    """One stage: its name, its settings, and its task for a world model that it trains in place."""

    name: str
    settings: StageConfig
    make: Callable[[WorldModel], TrainTask]


class JudgedTask:
    """A training task whose evaluation is the open-loop check of the world model that it trains a part of.

    Args:
        task: any, that trains parts of ``world_model`` in place.
        world_model: the whole.
        check: its held-out windows.
    """

    def __init__(self, task: TrainTask, world_model: WorldModel, check: OpenLoopCheck) -> None:
        self.name, self.model = task.name, task.model
        self._task, self._world_model, self._check = task, world_model, check

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[Any]:
        """Yield the task's batches."""
        return self._task.batches(
            start_step=start_step, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size
        )

    def losses(self, model: nn.Module, batch: Any, draws: RowDraws) -> dict[str, Tensor]:
        """Return the task's losses."""
        return self._task.losses(model, batch, draws)

    def num_frames(self, batch: Any) -> int:
        """Return the frames in a batch."""
        return self._task.num_frames(batch)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        """Imagine the held-out windows."""
        del model  # it trains in place
        return self._check.evaluate(self._world_model)


def stages_of(config: TrainConfig, data: FineTuningData, check: OpenLoopCheck) -> Iterator[Stage]:
    """Yield the stages that have a share of the time, in order."""
    makers: dict[str, Callable[[WorldModel], TrainTask]] = {
        "tokenizer": lambda model: _tokenizer_task(config, data, model),
        "motion-field": lambda model: MotionFieldTask(
            config.motion_field, data.train, data.held_out, model, data.camera
        ),
        "imagination": lambda model: _imagination_task(config, data, model),
    }
    settings = config.fine_tuning
    parts = (settings.tokenizer, settings.motion_field, settings.imagination)
    for (name, make), part in zip(makers.items(), parts, strict=True):
        if part.share > 0:
            yield Stage(name=name, settings=part, make=_judged(make, check))


def training_of(config: TrainConfig, stage: StageConfig, *, max_minutes: float) -> TrainingConfig:
    """Return the settings of a stage's run.

    Raises:
        InputError: ``training`` says something that every stage has its own of.
    """
    default = TrainingConfig()
    for name in (*OWN_SETTINGS, *UNUSED_SETTINGS):
        if getattr(config.training, name) != getattr(default, name):
            own = f"; every stage has its own, fine_tuning.imagination.{name} and the like"
            raise InputError(
                f"training.{name} has no place in fine-tuning, leave it out{own if name in OWN_SETTINGS else ''}"
            )
    return replace(
        config.training,
        max_minutes=max_minutes,
        learning_rate=stage.learning_rate,
        batch_size=stage.batch_size,
        optimizer=stage.optimizer,
        ema_decay=stage.ema_decay,
        warmup_steps=stage.warmup_steps,
        evaluate_every=stage.evaluate_every,
        betas=[0.9, 0.97],
    )


def _judged(
    make: Callable[[WorldModel], TrainTask], check: OpenLoopCheck
) -> Callable[[WorldModel], TrainTask]:
    return lambda model: JudgedTask(make(model), model, check)


def _tokenizer_task(config: TrainConfig, data: FineTuningData, model: WorldModel) -> TrainTask:
    """Return the task of the world model's own tokenizer, of which only the decoder learns."""
    settings = replace(config.tokenizer, vqgan=model.tokenizer.config)
    task = TokenizerTask(settings, data.train, data.held_out)
    model.tokenizer.requires_grad_(True)
    model.tokenizer.encoder.requires_grad_(False)
    task.model.vqgan = model.tokenizer
    return task


def _imagination_task(config: TrainConfig, data: FineTuningData, model: WorldModel) -> TrainTask:
    """Return the task of transformer, causal decoder and tokenizer's decoder, with rollouts that fit the clips."""
    room = data.train.frames_per_clip - config.imagination.rollouts.num_true_frames
    rollouts = _fitting(config.imagination.rollouts, room)
    settings = replace(config.imagination, rollouts=rollouts, has_tokenizer_decoder=True)
    batch_size = config.fine_tuning.imagination.batch_size
    return ImaginationTask(settings, data.train, data.held_out, model, data.camera, batch_size=batch_size)


def _fitting(rollouts: RolloutConfig, room: int) -> RolloutConfig:
    """Return settings of rollouts no longer than the clips have room for."""
    shortest = min(rollouts.shortest, max(room, rollouts.frames_per_step))
    return replace(rollouts, shortest=shortest, longest=max(shortest, min(rollouts.longest, room)))
