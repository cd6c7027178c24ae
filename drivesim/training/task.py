"""What a model brings to the training loop: its batches, its losses and its evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.training.row_draws import RowDraws

WEIGHT = "weight"
"""Name of what a batch counts in the mean over processes, where that is not its number of rows."""


@dataclass(kw_only=True, slots=True)
class Evaluation:
    """Figures on held-out data and, where there is something to see, a picture."""

    metrics: dict[str, float] = field(default_factory=dict)
    picture: NDArray[np.uint8] | None = None  # (H, W, 3)


EvaluationFn = Callable[[int, Evaluation], bool]
"""Is told the step and its evaluation; True ends the run."""


@dataclass(kw_only=True, slots=True)
class FitResult:
    """How a run ended."""

    step: int
    metrics: dict[str, float]  # of the last evaluation, made with the averaged weights
    checkpoint: Path
    weights: Path  # the averaged weights, safetensors, named as in the module's state_dict


class TrainTask(Protocol):
    """A model to train and all that is particular to it.

    ``model`` is trained in place; it holds the averaged weights when `fit` returns.
    """

    name: str
    model: nn.Module

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[Any]:
        """Yield batches without end, the first of them number ``start_step`` of this process.

        A row must depend on the seed and on its number in the run (:func:`rows_of`) alone, drawn by
        :class:`RowDraws`, not by the global generators, which belong to the step: then a run is the same on any
        number of processes. With accumulation every optimizer step takes several batches. The iterator may be
        read ahead by another thread.
        """
        ...

    def losses(self, model: nn.Module, batch: Any, draws: RowDraws) -> dict[str, Tensor]:
        """Return scalars by name; ``"loss"`` is minimised, all but :data:`WEIGHT` are logged.

        They are means over the batch. Where one is over something else than rows (the tokens that are judged), its
        number comes with them as :data:`WEIGHT`, so that the mean over all processes is that of the whole batch.

        Nothing but the model's parameters and buffers may remember the call: for the first batch of a process it
        is made twice, once to count its operations.

        Args:
            model: ``self.model`` in its Fabric wrapper; call it itself (``model(...)``), as only that
                synchronises the gradients of several processes.
            batch: One of `batches`, moved to the model's device.
            draws: Random numbers for the rows, on the model's device. What the model draws itself (dropout) comes
                from torch's global generators, which are seeded for the batch and the process.
        """
        ...

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Measure the plain module: in eval mode, without gradients, with the averaged weights."""
        ...

    def num_frames(self, batch: Any) -> int:
        """Return how many frames a batch holds, for the frames per second."""
        ...
