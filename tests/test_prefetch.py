"""Reading ahead: the source of the batches ends with the reader."""

import itertools

import pytest

from drivesim.training.prefetch import Prefetcher


@pytest.mark.parametrize("depth", [0, 2])
def test_the_source_is_closed_with_the_reader(depth):
    closed = []

    def numbers():
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    with Prefetcher(numbers(), depth=depth) as batches:
        assert [next(batches) for _ in range(3)] == [0, 1, 2]
        assert not closed
    assert closed == [True]


def test_sources_that_cannot_be_closed_will_do():
    with Prefetcher(iter([1, 2]), depth=0) as batches:
        assert list(itertools.islice(batches, 2)) == [1, 2]
