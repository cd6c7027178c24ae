"""Which frames are the annotated instants of nuScenes: those nearest to every half second."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivesim.scene.geometry import FloatArray

KEYFRAME_RATE_HZ = 2.0

Indices = NDArray[np.int64]


def keyframes_of(timestamps_s: FloatArray, frames: Indices) -> list[int]:
    """Return which frames are nearest to every half second.

    Args:
        timestamps_s: (T,) of all frames, seconds from the first.
        frames: (N,) increasing; those that there are.
    """
    instants_s = np.arange(0, timestamps_s[-1] + 1e-6, 1 / KEYFRAME_RATE_HZ)
    chosen = frames[nearest(timestamps_s[frames], instants_s)]
    return sorted(set(chosen.tolist()))


def nearest(values: FloatArray | Indices, wanted: FloatArray | Indices) -> Indices:
    """Return for each wanted number the place of the nearest of some increasing values, the first of two."""
    after = np.clip(np.searchsorted(values, wanted), 1, max(len(values) - 1, 1))
    before, after = after - 1, np.minimum(after, len(values) - 1)
    is_before = np.abs(wanted - values[before]) <= np.abs(values[after] - wanted)
    return np.where(is_before, before, after)
