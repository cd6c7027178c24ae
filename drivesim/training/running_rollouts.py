"""Rollouts that go on from one training step to the next: which recorded frames each step of training is about.

Several groups of rollouts run at once, each at a depth of its own, and every step takes the next group a few frames
further. What belongs to a step follows from its number alone.

Letters: `B` rollouts of a group, `T` frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.scene.road_map import UNKNOWN
from drivesim.training.data import ClipSource, RecordedClips

WINDOW_ARRAYS = ("frames", "twist", "road")
_LENGTH_WORD, _WINDOW_WORD = 0, 1


@dataclass(kw_only=True, slots=True)
class RolloutConfig:
    """How many rollouts run at once, and for how long."""

    num_groups: int = 6  # each of ``training.batch_size`` rollouts
    num_true_frames: int = 3  # a rollout begins after these
    frames_per_step: int = 2  # of every rollout of a group, in one training step
    shortest: int = 6  # frames of a rollout; the length is drawn evenly on a logarithmic scale
    longest: int = 80
    no_map_share: float = 0.15  # of the rollouts, in which nothing is known of the road
    no_markings_share: float = 0.15  # of the rollouts, in which nothing is known of what is painted on it
    no_agents_share: float = 0.15  # of the rollouts, in which nothing is known of other cars

    def __post_init__(self) -> None:
        """Refuse rollouts of no length."""
        if min(self.num_groups, self.num_true_frames, self.frames_per_step) < 1:
            raise ValueError("rollouts need num_groups, num_true_frames and frames_per_step >= 1")
        if not self.frames_per_step <= self.shortest <= self.longest:
            raise ValueError(
                f"rollouts need frames_per_step <= shortest <= longest, got {self.frames_per_step}, "
                f"{self.shortest} and {self.longest}"
            )
        for name in ("no_map_share", "no_markings_share", "no_agents_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"rollouts.{name} must lie in [0, 1], got {getattr(self, name)}")

    @property
    def frames_per_window(self) -> int:
        """Return the frames that a rollout needs at most."""
        return self.num_true_frames + self.longest


@dataclass(slots=True)
class _Group:
    """One group's rollouts as they are now."""

    index: int
    number: int = -1  # of the rollout; a group has one after the other
    num_steps: int = 0  # training steps that it lasts
    step: int = 0  # the next of them
    windows: dict[str, NDArray[Any]] = field(default_factory=dict)


class RolloutSchedule:
    """Which group a training step is about, and where its rollouts are; the groups do not begin in step."""

    def __init__(self, config: RolloutConfig, seed_words: list[int]) -> None:
        """Begin before the first step."""
        self.config, self._seed_words = config, seed_words
        self._groups = [_Group(index=index) for index in range(config.num_groups)]

    def next(self, step: int) -> _Group:
        """Return the group of a training step; call it for every step in order."""
        group = self._groups[step % len(self._groups)]
        if group.step == group.num_steps:
            group.number, group.step = group.number + 1, 0
            longest = self.config.longest
            if group.number == 0:  # so that the groups come to be at different depths
                longest = max(self.config.shortest, longest * (group.index + 1) // len(self._groups))
            per_step = self.config.frames_per_step
            span = np.log([self.config.shortest, longest + per_step])
            length = float(np.exp(self.rng(group, _LENGTH_WORD).uniform(*span)))
            group.num_steps = int(min(length, longest)) // per_step
        return group

    def rng(self, group: _Group, word: int) -> np.random.Generator:
        """Return the source of one kind of chance in the group's present rollouts."""
        return np.random.default_rng([*self._seed_words, group.index, group.number, word])

    def first_needed(self, step: int) -> int:
        """Return the earliest training step at which a rollout began that still runs at ``step``."""
        begun = dict.fromkeys(range(len(self._groups)), step)
        for earlier in range(step):
            group = self.next(earlier)
            if group.step == 0:
                begun[group.index] = earlier
            group.step += 1
        running = [begun[group.index] for group in self._groups if group.step < group.num_steps]
        return min(running, default=step)


def rollout_batches(
    source: ClipSource,
    config: RolloutConfig,
    *,
    start_step: int,
    batch_size: int,
    seed: int,
    rank: int,
    world_size: int,
) -> Iterator[dict[str, Tensor]]:
    """Yield what each training step from ``start_step`` on is about.

    A batch holds ``frames`` (B, T, H, W, 3) uint8, ``twist`` (B, T, 2), ``road`` (B, T, E, h, w) packed, ``group`` and
    ``depth``, the frames imagined so far; at depth 0 the true frames come before the others.
    """
    seed_words = [seed, rank, world_size]
    first = RolloutSchedule(config, seed_words).first_needed(start_step)
    schedule = RolloutSchedule(config, seed_words)
    for step in range(first):
        schedule.next(step).step += 1
    held = source.per_step(start_step=first, seed=seed, rank=rank, world_size=world_size)
    for step, clips in zip(count(first), held, strict=False):
        group = schedule.next(step)
        if group.step == 0:
            group.windows = _windows(clips, config, group, batch_size, schedule.rng(group, _WINDOW_WORD))
        depth = group.step * config.frames_per_step
        group.step += 1
        if step >= start_step:
            assert group.windows  # what began before `first` has ended before `start_step`
            yield _batch(group, config, depth)


def _windows(
    clips: RecordedClips, config: RolloutConfig, group: _Group, batch_size: int, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    count = config.num_true_frames + group.num_steps * config.frames_per_step
    chosen = rng.integers(len(clips), size=batch_size)
    starts = rng.integers(clips.frames_per_clip - count + 1, size=batch_size)
    has_no_map = rng.random(batch_size) < config.no_map_share
    has_no_markings = rng.random(batch_size) < config.no_markings_share
    has_no_agents = rng.random(batch_size) < config.no_agents_share
    windows = {
        name: np.stack([getattr(clips, name)[i, t : t + count] for i, t in zip(chosen, starts, strict=True)])
        for name in WINDOW_ARRAYS
    }
    windows["road"][has_no_map, :, :2] = UNKNOWN
    windows["road"][has_no_markings, :, 1] = UNKNOWN
    windows["road"][has_no_agents, :, 2] = UNKNOWN
    return windows


def _batch(group: _Group, config: RolloutConfig, depth: int) -> dict[str, Tensor]:
    end = config.num_true_frames + depth + config.frames_per_step
    begin = 0 if depth == 0 else end - config.frames_per_step
    parts = {name: torch.from_numpy(array[:, begin:end].copy()) for name, array in group.windows.items()}
    return {**parts, "group": torch.tensor(group.index), "depth": torch.tensor(depth)}
