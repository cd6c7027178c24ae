"""Means and shares with their uncertainty: bootstrap over scenes for means, Wilson for shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

NUM_RESAMPLES = 2000
Z_95 = 1.959964


@dataclass(kw_only=True, slots=True, frozen=True)
class Estimate:
    """A number with its 95 % interval and what it was made from."""

    value: float
    low: float
    high: float
    count: int


def bootstrap_mean(values: ArrayLike, groups: Sequence[int], *, seed: int = 0) -> Estimate:
    """Return the mean with a 95 % interval from resampling whole groups.

    Args:
        values: (N,) numbers.
        groups: For each the scene it comes from; numbers of one scene are not independent.
        seed: Of the resampling.
    """
    array, labels = np.asarray(values, dtype=np.float64), np.asarray(groups)
    if array.ndim != 1 or len(array) == 0 or len(array) != len(labels):
        raise ValueError(f"a mean needs as many groups as values, got {array.shape} and {labels.shape}")
    _, index = np.unique(labels, return_inverse=True)
    sums, counts = np.bincount(index, weights=array), np.bincount(index)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(sums), size=(NUM_RESAMPLES, len(sums)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(value=float(array.mean()), low=float(low), high=float(high), count=len(array))


def wilson_share(is_hit: ArrayLike) -> Estimate:
    """Return the share of True with Wilson's 95 % interval, which does not collapse at 0 % or 100 %."""
    hits = np.asarray(is_hit, dtype=bool)
    count = hits.size
    if count == 0:
        raise ValueError("a share needs at least one case")
    share = float(hits.mean())
    scale = 1 + Z_95**2 / count
    middle = (share + Z_95**2 / (2 * count)) / scale
    reach = Z_95 * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2)) / scale
    low, high = max(0.0, middle - reach), min(1.0, middle + reach)
    return Estimate(value=share, low=min(low, share), high=max(high, share), count=count)
