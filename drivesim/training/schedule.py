"""The learning rate over a run: linear warm-up, then a cosine down to a floor, by steps or by time."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class CosineSchedule:
    """Warm-up and cosine; with ``max_minutes`` a run is as far along as its steps or its time say, if more.

    A run that its time budget ends early has therefore annealed as completely as one that did all its steps.
    """

    learning_rate: float
    min_ratio: float = 0.05
    warmup_steps: int = 0
    num_train_steps: int = 1
    max_minutes: float | None = None

    def share_done(self, *, step: int, elapsed_s: float = 0.0) -> float:
        """Return how far along the run is in [0, 1] when it makes the update after ``step`` finished ones."""
        share = step / max(1, self.num_train_steps - 1)
        if self.max_minutes is not None:
            share = max(share, elapsed_s / (60.0 * self.max_minutes))
        return min(1.0, share)

    def rate(self, *, step: int, elapsed_s: float = 0.0) -> float:
        """Return the learning rate of the update after ``step`` finished ones; the last has the lowest."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        start = min(0.99, self.warmup_steps / max(1, self.num_train_steps - 1))
        share = max(0.0, self.share_done(step=step, elapsed_s=elapsed_s) - start) / (1.0 - start)
        cosine = 0.5 * (1.0 + math.cos(math.pi * share))
        return self.learning_rate * warm * (self.min_ratio + (1.0 - self.min_ratio) * cosine)
