"""Samples for the hazard head made by hand."""

from __future__ import annotations

import numpy as np

from drivesim.hazard_inputs import CELLS, HazardConfig
from drivesim.training.hazard_drives import NONE
from drivesim.training.hazard_samples import HazardSamples

SMALL = HazardConfig(picture_widths=[8, 8], width=16, num_blocks=1, place_channels=4)


def samples(count: int = 64, *, seed: int = 0) -> HazardSamples:
    """Return samples whose picture is bright where a collision comes; even ones are true, odd ones imagined."""
    rng = np.random.default_rng(seed)
    comes = rng.random(count) < 0.5
    pictures = rng.integers(0, 60, (count, 6, 32, 56), dtype=np.uint8)
    pictures[comes, :, 12:] += 150
    event = np.full((count, 2), NONE, np.int8)
    event[comes, 0] = np.arange(comes.sum()) // 2 % 7
    number = np.arange(count)
    return HazardSamples(
        pictures=pictures,
        token_ids=rng.integers(0, 1900, (count, 112)).astype(np.int16),
        facts=rng.normal(size=(count, SMALL.num_facts)).astype(np.float32),
        event=event,
        known=np.full(count, 6, np.int8),
        cars=np.repeat(comes[:, None], CELLS[0] * CELLS[1], axis=1),
        depth=(number % 2 * (1 + number // 8)).astype(np.int16),
        road=number // 4,
        rollout=np.where(number % 2, number // 8, -1),
        wanted=np.where(number < count // 2, "collision", "blind"),
    )
