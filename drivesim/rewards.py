"""The reward: a weighted sum of driving metrics, every part named and bounded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivesim.errors import InputError
from drivesim.metrics.base import MetricResult, Metrics


@dataclass(kw_only=True, slots=True)
class RewardConfig:
    """Weights of the parts, and the sizes at which a part is at its full weight.

    Progress earns up to ``+progress``; every other part costs at most its weight. The total of a step
    therefore lies in ``bounds``. A part whose metric could not be measured is zero.
    """

    progress: float = 1.0
    lateral: float = 0.2
    heading: float = 0.1
    comfort: float = 0.1
    off_road: float = 1.0
    collision: float = 2.0
    speeding: float = 0.2
    full_progress_m: float = 20.0 / 6.0  # one step at 20 m/s and 6 Hz
    full_lateral_m: float = 2.0
    full_heading_rad: float = 0.5
    full_speeding_mps: float = 5.0

    def __post_init__(self) -> None:
        """Refuse negative weights and scales that are not positive."""
        for name in self.__slots__:
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0 or (name.startswith("full_") and value == 0):
                raise InputError(f"reward.{name} must be a positive number, got {value}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the lowest and highest reward that one step can give."""
        costs = self.lateral + self.heading + self.comfort + self.off_road + self.collision + self.speeding
        return -(self.progress + costs), self.progress


def reward(metrics: Metrics, config: RewardConfig) -> tuple[float, dict[str, float]]:
    """Return the reward of one step and its parts by name; the parts sum to the total.

    Args:
        metrics: results of ``drivesim.metrics.driving.measure``.
        config: weights and scales.
    """
    shares = {
        "progress": float(np.clip(_value(metrics["progress_m"]) / config.full_progress_m, -1.0, 1.0)),
        "lateral": -_share(metrics["lateral_error_m"], config.full_lateral_m),
        "heading": -_share(metrics["heading_error_rad"], config.full_heading_rad),
        "comfort": _value(metrics["comfort"]) - 1.0 if metrics["comfort"].is_valid else 0.0,
        "off_road": -_share(metrics["off_road"], 1.0),
        "collision": -_share(metrics["collision"], 1.0),
        "speeding": -_share(metrics["speed_over_limit_mps"], config.full_speeding_mps),
    }
    # Adding 0.0 turns -0.0 into 0.0, which reads better in tables.
    parts = {name: getattr(config, name) * share + 0.0 for name, share in shares.items()}
    return float(sum(parts.values())), parts


def _value(result: MetricResult) -> float:
    return result.value if result.is_valid else 0.0


def _share(result: MetricResult, full: float) -> float:
    return min(abs(_value(result)) / full, 1.0)
