"""A pool of the latest streamed clips, so that training may be faster than recording and mixes many worlds.

Which clips are in the pool at a step follows from the step alone; a resumed run records those again and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.training.data import MOTION_ARRAYS, RecordedClips
from drivesim.training.stream import RATE_HZ, ClipStream, StreamConfig, StreamedClips

Arrays = dict[str, NDArray[Any]]
PartFn = Callable[[int], Generator[Arrays, None, None]]
"""Yields without end parts of equal size, (N, ...) arrays by name, from the part of a number on."""


@dataclass(kw_only=True, slots=True)
class PoolConfig:
    """How many streamed clips are held, and how fast they are replaced; clips come and go in parts."""

    num_clips: int = 192  # held at most; 4 MB each as pictures, 0.2 MB as tokens
    num_first_clips: int = 32  # recorded before the first step
    new_clips_per_step: float = 0.5  # higher: fresher data; above what is recorded meanwhile, training waits
    clips_per_part: int = 8

    def __post_init__(self) -> None:
        """Refuse pools without clips."""
        if not 1 <= self.clips_per_part <= self.num_first_clips <= self.num_clips:
            raise ValueError(
                "a pool needs 1 <= clips_per_part <= num_first_clips <= num_clips, got "
                f"{self.clips_per_part}, {self.num_first_clips} and {self.num_clips}"
            )
        if not self.new_clips_per_step >= 0:
            raise ValueError(f"new_clips_per_step must be >= 0, got {self.new_clips_per_step}")

    @property
    def num_parts(self) -> int:
        """Return the parts that the pool holds at most."""
        return self.num_clips // self.clips_per_part

    def num_parts_by(self, step: int) -> int:
        """Return how many parts have come in, also those that are gone again, by a step."""
        return int((self.num_first_clips + step * self.new_clips_per_step) // self.clips_per_part)


def pooled(parts: PartFn, config: PoolConfig, *, start_step: int) -> Generator[Arrays, None, None]:
    """Yield for every step the arrays (clips in the pool, ...) that its batch is drawn from.

    They are views that change with the next step; read-only for the caller.
    """
    capacity, size = config.num_parts, config.clips_per_part
    count = max(0, config.num_parts_by(start_step) - capacity)
    source, ring, step = parts(count), _Ring(capacity, size), start_step
    try:
        while True:
            while count < config.num_parts_by(step):
                ring.write(count % capacity, next(source))
                count += 1
            yield ring.first(min(count, capacity) * size)
            step += 1
    finally:
        source.close()


@dataclass(kw_only=True, slots=True)
class ClipPool:
    """Streamed clips for tasks that read pictures."""

    stream: StreamConfig
    pool: PoolConfig

    def per_step(
        self, *, start_step: int, seed: int, rank: int, world_size: int
    ) -> Generator[RecordedClips, None, None]:
        """Yield for every step the clips that its batch is drawn from; only valid until the next step."""

        def parts(first: int) -> Generator[Arrays, None, None]:
            source = streamed_parts(
                self.stream, self.pool, first_part=first, seed=seed, rank=rank, world_size=world_size
            )
            with closing(source):
                for clips in source:
                    yield {name: getattr(clips, name) for name in ("frames", *MOTION_ARRAYS)}

        with closing(pooled(parts, self.pool, start_step=start_step)) as held:
            for arrays in held:
                named: dict[str, Any] = dict(arrays)
                yield StreamedClips(rate_hz=RATE_HZ, **named)


def streamed_parts(
    config: StreamConfig, pool: PoolConfig, *, first_part: int, seed: int, rank: int, world_size: int
) -> Generator[StreamedClips, None, None]:
    """Yield streamed clips in the parts of a pool; closing the generator ends the processes."""
    stream = ClipStream(
        config,
        batch_size=pool.clips_per_part,
        seed=seed,
        start_step=first_part,
        rank=rank,
        world_size=world_size,
    )
    with stream:
        yield from stream


class _Ring:
    """Arrays of which parts are overwritten in turn."""

    def __init__(self, num_parts: int, size: int) -> None:
        self._num_parts, self._size = num_parts, size
        self._arrays: Arrays = {}

    def write(self, place: int, part: Arrays) -> None:
        """Put a part in its place."""
        if not self._arrays:
            shapes = {name: (self._num_parts * self._size, *array.shape[1:]) for name, array in part.items()}
            self._arrays = {name: np.zeros(shapes[name], array.dtype) for name, array in part.items()}
        for name, array in part.items():
            self._arrays[name][place * self._size : (place + 1) * self._size] = array

    def first(self, count: int) -> Arrays:
        """Return the first rows of every array, as views."""
        return {name: array[:count] for name, array in self._arrays.items()}
