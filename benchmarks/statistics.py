"""Numbers with their uncertainty: bootstrap over whole scenes for means, ratios and correlations, Wilson for shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_RESAMPLES = 2000
Z_95 = 1.959964
NO_VARIATION = 1e-9

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]
"""From (..., C) sums of columns to (...) numbers."""


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
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or len(array) != len(groups):
        raise ValueError(f"a mean needs as many groups as values, got {array.shape} and {len(groups)}")
    return _bootstrap(np.stack([array, np.ones_like(array)], axis=-1), groups, _ratio_of_sums, seed=seed)


def bootstrap_steps(values_BT: ArrayLike, groups: Sequence[int], *, seed: int = 0) -> list[Estimate]:
    """Return the mean over B, with its interval, at each of T steps."""
    return [bootstrap_mean(column, groups, seed=seed) for column in np.asarray(values_BT).T]


def bootstrap_ratio(above: ArrayLike, below: ArrayLike, groups: Sequence[int], *, seed: int = 0) -> Estimate:
    """Return the ratio of two means over the same (N,) cases, with a 95 % interval from resampling groups."""
    columns = np.stack([np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)], axis=-1)
    return _bootstrap(columns, groups, _ratio_of_sums, seed=seed)


def bootstrap_correlation(
    a_BT: ArrayLike, b_BT: ArrayLike, groups: Sequence[int], *, seed: int = 0
) -> Estimate:
    """Return Pearson's correlation over all B x T pairs, with a 95 % interval from resampling groups.

    Args:
        a_BT: (B, T) numbers, or (B,).
        b_BT: The same shape; where one of the two does not vary the correlation is 0.
        groups: (B,) scene of each row.
        seed: Of the resampling.
    """
    a, b = (np.asarray(values, dtype=np.float64).reshape(len(groups), -1) for values in (a_BT, b_BT))
    a, b = a - a.mean(), b - b.mean()
    columns = np.stack([np.ones_like(a), a, b, a * a, b * b, a * b], axis=-1)
    per_row = columns.sum(axis=1)
    estimate = _bootstrap(per_row, groups, _correlation_of_sums, seed=seed)
    return Estimate(value=estimate.value, low=estimate.low, high=estimate.high, count=a.size)


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


def _bootstrap(columns_NC: FloatArray, groups: Sequence[int], statistic: Statistic, *, seed: int) -> Estimate:
    """Evaluate a statistic of column sums on the data and on resampled groups."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums_GC = np.zeros((int(index.max()) + 1, columns_NC.shape[1]))
    np.add.at(sums_GC, index, columns_NC)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(sums_GC), size=(NUM_RESAMPLES, len(sums_GC)))
    low, high = np.quantile(statistic(sums_GC[draws].sum(axis=1)), [0.025, 0.975])
    value = float(statistic(sums_GC.sum(axis=0)))
    return Estimate(value=value, low=float(low), high=float(high), count=len(columns_NC))


def _ratio_of_sums(sums: FloatArray) -> FloatArray:
    return np.asarray(sums[..., 0] / np.where(sums[..., 1] == 0, NO_VARIATION, sums[..., 1]))


def _correlation_of_sums(sums: FloatArray) -> FloatArray:
    count, a, b, aa, bb, ab = np.moveaxis(sums, -1, 0)
    variance_a, variance_b = aa / count - (a / count) ** 2, bb / count - (b / count) ** 2
    scale = np.sqrt(np.maximum(variance_a, 0.0) * np.maximum(variance_b, 0.0))
    is_varied = scale > NO_VARIATION
    covariance = ab / count - a * b / count**2
    return np.asarray(np.where(is_varied, covariance / np.where(is_varied, scale, 1.0), 0.0))
