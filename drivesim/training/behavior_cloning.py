"""Training of the camera driver: pictures of lessons in, the teacher's answers out.

Pictures are brightened, blurred and made noisy, so that a driver of true pictures also drives in imagined ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from drivesim.behavior_cloning import COMMANDS, KIND, CameraDriver, CameraDriverConfig, as_input, state_of
from drivesim.checkpoint import save_module
from drivesim.training.lessons import Lessons, LessonsConfig
from drivesim.training.row_draws import RowDraws, rows_of
from drivesim.training.task import Evaluation


@dataclass(kw_only=True, slots=True)
class BehaviorCloningTrainingConfig:
    """What the training of a camera driver needs besides the loop's own settings."""

    model: CameraDriverConfig = field(default_factory=CameraDriverConfig)
    lessons: LessonsConfig = field(default_factory=LessonsConfig)
    steering_weight: float = 4.0  # of the steering's error beside the speed's
    huber_share: float = 0.05  # errors beyond this share of the range count linearly
    brightness: float = 0.25  # largest change, of the full range
    contrast: float = 0.25  # largest relative change
    noise: float = 0.04  # largest standard deviation
    blurred_share: float = 0.3  # of the pictures, drawn at half the size

    def __post_init__(self) -> None:
        """Refuse weights that are not positive and shares that are none."""
        if not (self.steering_weight > 0 and self.huber_share > 0):
            raise ValueError("steering_weight and huber_share must be positive")
        if not (
            0 <= self.blurred_share <= 1
            and self.brightness >= 0
            and 0 <= self.contrast < 1
            and self.noise >= 0
        ):
            raise ValueError("blurred_share and contrast must lie in [0, 1]; brightness and noise from 0 on")


@dataclass(kw_only=True, slots=True)
class LessonBatch:
    """Instants of lessons."""

    pictures_BHWC: Tensor  # uint8
    state_BV: Tensor  # as the driver takes it
    answer_BA: Tensor  # shares of the largest steering and speed

    def to(self, device: torch.device | str) -> LessonBatch:
        """Return the batch on a device."""
        return LessonBatch(
            pictures_BHWC=self.pictures_BHWC.to(device),
            state_BV=self.state_BV.to(device),
            answer_BA=self.answer_BA.to(device),
        )


class BehaviorCloningTask:
    """Instants of lessons in random order."""

    name = "policy"

    def __init__(self, config: BehaviorCloningTrainingConfig, train: Lessons, validation: Lessons) -> None:
        """Build the driver; both sets stay where they are."""
        self.config, self.train, self.validation = config, train, validation
        self.model: nn.Module = CameraDriver(config.model)

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[LessonBatch]:
        """Yield endless batches; a row depends on the seed and its number alone."""
        step = start_step
        while True:
            draws = RowDraws(seed, rows_of(step, batch_size, rank=rank, world_size=world_size))
            yield lesson_batch(self.train, draws.whole(len(self.train)).numpy(), self.config.model)
            step += 1

    def losses(self, model: nn.Module, batch: LessonBatch, draws: RowDraws) -> dict[str, Tensor]:
        """Return the named loss terms of a batch whose pictures are spoiled by ``draws``."""
        picture_BCHW = spoiled(as_input(batch.pictures_BHWC), self.config, draws)
        error_BA = model(picture_BCHW, batch.state_BV) - batch.answer_BA
        cost_BA = functional.huber_loss(
            error_BA, torch.zeros_like(error_BA), reduction="none", delta=self.config.huber_share
        )
        steering, speed = cost_BA.mean(dim=0)
        sizes = error_BA.detach().abs().mean(dim=0)
        return {
            "loss": (self.config.steering_weight * steering + speed) / self.config.huber_share,
            "steering_error_rad": sizes[0] * self.config.model.max_steering_rad,
            "speed_error_mps": sizes[1] * self.config.model.max_speed_mps,
        }

    def num_frames(self, batch: LessonBatch) -> int:
        """Return the pictures in a batch."""
        return len(batch.answer_BA)

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Measure the mean errors on validation lessons, and how much of the steering is explained."""
        errors, answers = [], []
        for first in range(0, len(self.validation), 128):
            chosen = np.arange(first, min(first + 128, len(self.validation)))
            batch = lesson_batch(self.validation, chosen, self.config.model)
            found = model(as_input(batch.pictures_BHWC), batch.state_BV).float()
            errors.append(found - batch.answer_BA)
            answers.append(batch.answer_BA)
        error_BA, answer_BA = torch.cat(errors), torch.cat(answers)
        steering, speed = error_BA.abs().mean(dim=0).tolist()
        unexplained = float(error_BA[:, 0].square().mean() / answer_BA[:, 0].var().clamp_min(1e-9))
        metrics = {
            "steering_error_rad": steering * self.config.model.max_steering_rad,
            "speed_error_mps": speed * self.config.model.max_speed_mps,
            "steering_explained": 1.0 - unexplained,
        }
        return Evaluation(metrics=metrics)


def lesson_batch(lessons: Lessons, chosen: np.ndarray[Any, Any], config: CameraDriverConfig) -> LessonBatch:
    """Return the instants of some indices into ``lessons.index``."""
    lesson, frame = lessons.index[chosen].T
    commands = [COMMANDS[place] for place in lessons.command[lesson, frame]]
    largest = np.array([config.max_steering_rad, config.max_speed_mps], dtype=np.float32)
    return LessonBatch(
        pictures_BHWC=torch.from_numpy(lessons.pictures[lesson, frame]),
        state_BV=torch.from_numpy(state_of(lessons.speed_mps[lesson, frame], commands, config)),
        answer_BA=torch.from_numpy(lessons.answer[lesson, frame] / largest),
    )


def spoiled(picture_BCHW: Tensor, config: BehaviorCloningTrainingConfig, draws: RowDraws) -> Tensor:
    """Return pictures in [-1, 1] with other brightness and contrast, some blurred, all with a little noise."""
    count, _, height, width = picture_BCHW.shape
    small = functional.avg_pool2d(picture_BCHW, 2)
    blurred = functional.interpolate(small, (height, width), mode="bilinear", align_corners=False)
    picture = torch.where(draws.uniform((count, 1, 1, 1)) < config.blurred_share, blurred, picture_BCHW)
    contrast = 1 + config.contrast * (2 * draws.uniform((count, 1, 1, 1)) - 1)
    brightness = 2 * config.brightness * (2 * draws.uniform((count, 1, 1, 1)) - 1)
    noise = draws.normal(picture.shape)
    strength = 2 * config.noise * draws.uniform((count, 1, 1, 1))
    return (picture * contrast + brightness + strength * noise).clamp(-1, 1)


def save_camera_driver(model: nn.Module, path: Path, *, facts: dict[str, Any] | None = None) -> None:
    """Write a trained camera driver; its matrices and kernels in eight bits."""
    driver: CameraDriver = model  # type: ignore[assignment]
    save_module(driver, path, kind=KIND, config=driver.config, facts=facts, dtype=torch.int8)
