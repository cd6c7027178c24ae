"""Random numbers for the rows of a batch, the same whichever process computes a row.

The rows of a run are counted through: those of a batch over all processes first, then those of the next batch. A row
draws from a seed made of the run's seed and its own number. So two processes with batches of eight see what one process
with batches of sixteen sees, or with two batches of eight to a step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def rows_of(number: int, batch_size: int, *, rank: int, world_size: int) -> range:
    """Return the rows of a process's batch.

    Args:
        number: of the batch, from the start of the run.
        batch_size: rows of each process.
        rank: of the process.
        world_size: how many processes there are.
    """
    first = (number * world_size + rank) * batch_size
    return range(first, first + batch_size)


def mixed_seed(*words: int | str) -> int:
    """Return a seed made of words; hashed, since generators on the CPU look at the low 32 bits only."""
    digest = hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "little")


class RowDraws:
    """Draws whose first dimension are the rows of a batch.

    Every row has a generator of its own, made when the first number is drawn.

    Args:
        seed: of the run.
        rows: their numbers, see :func:`rows_of`.
        device: where the numbers are needed.
        purpose: keeps draws for the same rows apart.
    """

    def __init__(
        self, seed: int, rows: Sequence[int], *, device: torch.device | str = "cpu", purpose: str = "batch"
    ) -> None:
        self.rows, self.device = rows, torch.device(device)
        self._seed, self._purpose = seed, purpose
        self._generators: list[torch.Generator] = []

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Return numbers from [0, 1); ``shape`` begins with the number of rows."""
        return torch.stack([torch.rand(shape[1:], generator=g, device=self.device) for g in self._of(shape)])

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Return normal numbers likewise."""
        return torch.stack([torch.randn(shape[1:], generator=g, device=self.device) for g in self._of(shape)])

    def whole(
        self, end: int, shape: Sequence[int] | None = None, *, dtype: torch.dtype = torch.int64
    ) -> Tensor:
        """Return whole numbers from [0, end) likewise; one to a row if no shape is given."""
        shape = (len(self),) if shape is None else shape
        drawn = [
            torch.randint(end, shape[1:], generator=g, device=self.device, dtype=dtype)
            for g in self._of(shape)
        ]
        return torch.stack(drawn)

    def chance(self, share: float) -> Tensor:
        """Return for every row whether something happens that happens in a ``share`` of them."""
        return self.uniform((len(self),)) < share

    def _of(self, shape: Sequence[int]) -> list[torch.Generator]:
        if not shape or shape[0] != len(self.rows):
            raise ValueError(f"draws for {len(self.rows)} rows were asked for in the shape {tuple(shape)}")
        if not self._generators:
            for row in self.rows:
                generator = torch.Generator(device=self.device)
                generator.manual_seed(mixed_seed(self._seed, row, self._purpose))
                self._generators.append(generator)
        return self._generators
