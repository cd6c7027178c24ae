"""The pool of streamed clips: what is in it follows from the step, and what fills it is closed with it."""

import itertools

import numpy as np
import pytest

from drivesim.training.clip_pool import PoolConfig, pooled

POOL = PoolConfig(num_clips=6, num_first_clips=4, new_clips_per_step=1.0, clips_per_part=2)


class Parts:
    """Parts of two clips that hold their own numbers."""

    def __init__(self):
        self.first, self.is_closed = -1, False

    def __call__(self, first):
        self.first = first
        try:
            for number in itertools.count(first):
                yield {"number": np.array([2 * number, 2 * number + 1])}
        finally:
            self.is_closed = True


def contents(steps, *, start_step=0, config=POOL):
    held = pooled(Parts(), config, start_step=start_step)
    return [set(next(held)["number"].tolist()) for _ in range(steps)]


def test_the_latest_clips_are_held():
    assert contents(6) == [
        {0, 1, 2, 3},
        {0, 1, 2, 3},
        {0, 1, 2, 3, 4, 5},
        {0, 1, 2, 3, 4, 5},
        {2, 3, 4, 5, 6, 7},
        {2, 3, 4, 5, 6, 7},
    ]


@pytest.mark.parametrize("start_step", [1, 4, 7])
def test_a_resumed_pool_is_the_same_in_the_same_order(start_step):
    whole, resumed = pooled(Parts(), POOL, start_step=0), pooled(Parts(), POOL, start_step=start_step)
    for _ in range(start_step):
        next(whole)
    for _ in range(5):
        np.testing.assert_array_equal(next(whole)["number"], next(resumed)["number"])


def test_a_resumed_pool_makes_only_what_it_holds():
    parts = Parts()
    next(pooled(parts, POOL, start_step=100))
    assert parts.first == 49


def test_the_source_is_closed_with_the_pool():
    parts = Parts()
    held = pooled(parts, POOL, start_step=0)
    next(held)
    held.close()
    assert parts.is_closed


def test_a_pool_may_stand_still():
    config = PoolConfig(num_clips=4, num_first_clips=4, new_clips_per_step=0.0, clips_per_part=2)
    assert contents(50, config=config)[-1] == {0, 1, 2, 3}


@pytest.mark.parametrize("settings", [{"num_clips": 8}, {"clips_per_part": 0}, {"new_clips_per_step": -1.0}])
def test_pools_without_clips_are_refused(settings):
    with pytest.raises(ValueError, match="clips"):
        PoolConfig(**settings)
