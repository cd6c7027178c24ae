"""What changes with the steps of a run, but for the time: weights, their average, optimizers, means, schedule.

A model that is divided among processes is a copy of the task's; that one holds the averaged weights for evaluations.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from drivesim.training.checkpoints import Checkpoint
from drivesim.training.ema import WeightAverage
from drivesim.training.optimizers import build_optimizers, load_optimizer_state, optimizer_state
from drivesim.training.running_means import RunningMeans
from drivesim.training.schedule import SCHEDULE_SETTINGS, CosineSchedule, Leg
from drivesim.training.settings import TrainingConfig
from drivesim.training.sharding import divided_like, local_part, whole


class RunState:
    """The state of one process of a run, on its device.

    Args:
        fabric: Places the model and wraps it for several processes.
        module: What is trained.
        config: How.
    """

    def __init__(self, fabric: Any, module: nn.Module, config: TrainingConfig) -> None:
        self.is_sharded = config.is_sharded
        self.task_module, self.config, self.device = module, config, fabric.device
        self.module = module = copy.deepcopy(module) if self.is_sharded else module
        self.model = fabric.setup_module(module)
        self.step = 0
        self.optimizers = build_optimizers(
            module,
            kind=config.optimizer,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=config.betas,
        )
        steppers = fabric.setup_optimizers(*self.optimizers)
        self.steppers = steppers if isinstance(steppers, tuple) else (steppers,)
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.average = WeightAverage(module, decay=config.ema_decay)
        self.means = RunningMeans()
        self.schedule = CosineSchedule(
            learning_rate=config.learning_rate,
            min_ratio=config.min_learning_rate_ratio,
            warmup_steps=config.warmup_steps,
            num_train_steps=config.num_train_steps,
            max_minutes=config.max_minutes,
        )

    @property
    def learning_rate(self) -> float:
        """The rate of the present step."""
        rate: float = self.optimizers[0].param_groups[0]["lr"]
        return rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def clip_gradients(self) -> torch.Tensor:
        """Clip the gradients as configured and return their norm before that."""
        limit = self.config.grad_clip_norm or math.inf
        return whole(torch.nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True))

    def move_weights(self) -> None:
        """Let the optimizers make their step."""
        for stepper in self.steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Let the task's module, whole and not in training, hold the averaged weights for a while.

        All processes must ask for it if the model is divided.
        """
        module = self.task_module
        was_training = {part: part.training for part in module.modules()}
        module.eval()
        with torch.no_grad():
            if self.is_sharded:
                module.load_state_dict(self.average.state_dict())
                yield module.to(self.device)
                module.cpu()
            else:
                with self.average.swapped_in():
                    yield module
        for part, is_training in was_training.items():
            part.training = is_training

    def to_checkpoint(self, task: str, *, elapsed_s: float) -> Checkpoint:
        """Return all of it; the tensors are not copied. All processes must ask for it if the model is divided."""
        return Checkpoint(
            task=task,
            step=self.step,
            elapsed_s=elapsed_s,
            model={name: whole(tensor) for name, tensor in self.module.state_dict().items()},
            average=self.average.state_dict(),
            optimizers=[optimizer_state(optimizer) for optimizer in self.optimizers],
            running_means=self.means.state_dict(),
            config=self.config.as_plain(),
            leg=asdict(self.schedule.leg),
        )

    def load(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint; other limits than it was made with begin another leg of the schedule."""
        with torch.no_grad():
            for name, tensor in self.module.state_dict().items():
                local_part(tensor).copy_(local_part(divided_like(saved.model[name], tensor)))
        for optimizer, state in zip(self.optimizers, saved.optimizers, strict=True):
            load_optimizer_state(optimizer, state)
        self.average.load_state_dict(saved.average, num_updates=saved.step)
        self.means.load_state_dict(saved.running_means, self.device)
        self.step = saved.step
        self.schedule.leg = Leg(**saved.leg)  # type: ignore[arg-type]
        now = self.config.as_plain()
        if any(saved.config.get(name, now[name]) != now[name] for name in SCHEDULE_SETTINGS):
            self.schedule.begin_leg(
                step=saved.step,
                elapsed_s=saved.elapsed_s,
                rate=saved.optimizers[0]["param_groups"][0]["lr"],
                is_restart=self.config.restart_schedule,
            )
