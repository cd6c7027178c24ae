"""How good probabilities are: do they rank what happens above what does not, and do they mean what they say?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from drivesim.scene.geometry import FloatArray


@dataclass(kw_only=True, slots=True)
class Reliability:
    """Predictions in bins: what was said on average, and how often it happened."""

    predicted: FloatArray  # (bins,) mean probability; NaN in empty bins
    observed: FloatArray  # (bins,) share of events; NaN in empty bins
    count: FloatArray  # (bins,)

    @property
    def error(self) -> float:
        """Return the expected calibration error: the mean gap between said and seen, weighed by the bins' counts."""
        is_filled = self.count > 0
        gap = np.abs(self.predicted[is_filled] - self.observed[is_filled])
        return float((gap * self.count[is_filled]).sum() / self.count.sum())


def roc_auc(probability: ArrayLike, is_event: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the chance that an event gets a higher probability than a non-event, ties counted half.

    Args:
        probability: (N,) what was said; only the order counts.
        is_event: (N,) what happened.
        weight: (N,) how often each case counts; once if left out.

    Returns:
        NaN where there are no events or nothing else.
    """
    values, events = np.asarray(probability, dtype=np.float64), np.asarray(is_event, dtype=bool)
    weights = np.ones(len(values)) if weight is None else np.asarray(weight, dtype=np.float64)
    unique, index = np.unique(values, return_inverse=True)
    index = index.reshape(-1)
    event_weight = np.bincount(index, weights * events, minlength=len(unique))
    other_weight = np.bincount(index, weights * ~events, minlength=len(unique))
    pairs = event_weight.sum() * other_weight.sum()
    if pairs == 0:
        return float("nan")
    below = np.cumsum(other_weight) - 0.5 * other_weight
    return float((event_weight * below).sum() / pairs)


def reliability(probability: ArrayLike, is_event: ArrayLike, *, num_bins: int = 10) -> Reliability:
    """Return how often events of a said probability in [0, 1] happen, in bins of equal width."""
    values, events = np.asarray(probability, dtype=np.float64), np.asarray(is_event, dtype=np.float64)
    index = np.clip((values * num_bins).astype(np.int64), 0, num_bins - 1)
    count = np.bincount(index, minlength=num_bins).astype(np.float64)
    safe = np.where(count > 0, count, np.nan)
    return Reliability(
        predicted=np.bincount(index, values, minlength=num_bins) / safe,
        observed=np.bincount(index, events, minlength=num_bins) / safe,
        count=count,
    )
