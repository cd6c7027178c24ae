"""The learning rate over a run: linear warm-up, then a cosine down to a floor, by steps or by time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

SCHEDULE_SETTINGS = (
    "num_train_steps",
    "max_minutes",
    "learning_rate",
    "min_learning_rate_ratio",
    "warmup_steps",
    "restart_schedule",
)
"""Settings with which a resumed run begins another leg if they differ from those of its checkpoint."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Leg:
    """A stretch of a run under one set of limits: all of it, or what follows a resume with others."""

    step: int = 0
    elapsed_s: float = 0.0
    share: float = 0.0  # of the run that is done where the leg begins
    rate: float = 0.0  # learning rate that it begins from


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
    leg: Leg = field(default_factory=Leg)

    def share_done(self, *, step: int, elapsed_s: float = 0.0) -> float:
        """Return how far along the run is in [0, 1] when it makes the update after ``step`` finished ones."""
        leg = self.leg
        share = (step - leg.step) / max(1, self.num_train_steps - 1 - leg.step)
        if self.max_minutes is not None:
            budget_s = max(1e-9, 60.0 * self.max_minutes - leg.elapsed_s)
            share = max(share, (elapsed_s - leg.elapsed_s) / budget_s)
        return leg.share + (1.0 - leg.share) * min(1.0, share)

    def rate(self, *, step: int, elapsed_s: float = 0.0) -> float:
        """Return the learning rate of the update after ``step`` finished ones; the last has the lowest."""
        leg = self.leg
        start = min(0.99, self.warmup_steps / max(1, self.num_train_steps - 1))
        share = max(0.0, self.share_done(step=step, elapsed_s=elapsed_s) - start) / (1.0 - start)
        cosine = 0.5 * (1.0 + math.cos(math.pi * share))
        rate = self.learning_rate * (self.min_ratio + (1.0 - self.min_ratio) * cosine)
        warm = min(1.0, (step - leg.step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return min(rate, leg.rate + warm * (rate - leg.rate))

    def begin_leg(self, *, step: int, elapsed_s: float, rate: float, is_restart: bool) -> None:
        """Go on from ``step`` under limits that are not those it was reached with.

        The rate warms up from where it was (a lower one holds at once) to what a run has that was planned with
        these limits from its start. A restart anneals anew over what is left: for a machine that is many times
        faster, on which the minutes so far count for little.
        """
        self.leg = Leg()
        share = 0.0 if is_restart else self.share_done(step=step, elapsed_s=elapsed_s)
        self.leg = Leg(step=step, elapsed_s=elapsed_s, share=share, rate=rate)
