"""What the processes of a run agree on: whether to stop or save, how long it took, and what their means are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

STEPS_BETWEEN = 10  # on accelerators, where to ask every time would keep them waiting


class Agreement:
    """Everything that processes must do at the same step, or would wait for each other in vain.

    Args:
        fabric: Of this process.
        is_timed: Whether the time decides anything else, as of a run with a time budget; then it is settled anew at
            every step.
    """

    def __init__(self, fabric: Any, *, is_timed: bool) -> None:
        self._fabric = fabric
        self._every = 1 if is_timed or fabric.device.type == "cpu" else STEPS_BETWEEN
        self.signal: int | None = None
        self.elapsed_s = 0.0
        self.is_save_due = False

    def settle(self, step: int, *, signal: int | None, elapsed_s: float, is_save_due: bool) -> None:
        """Say what this process found before a step, and learn what holds for all.

        Any process may have got a signal; the first one has the clock.
        """
        if self._fabric.world_size == 1:
            self.signal, self.elapsed_s, self.is_save_due = signal, elapsed_s, is_save_due
            return
        self.elapsed_s, self.is_save_due = elapsed_s, False
        if step % self._every:
            return
        is_first = self._fabric.global_rank == 0
        said = [float(signal or 0), elapsed_s if is_first else 0.0, float(is_save_due and is_first)]
        found = self._fabric.all_reduce(
            torch.tensor(said, device=self._fabric.device, dtype=torch.float64), reduce_op="max"
        ).tolist()
        self.signal, self.elapsed_s, self.is_save_due = int(found[0]) or None, found[1], bool(found[2])


def share_of(fabric: Any, weight: Tensor | None) -> Tensor | float:
    """Return what a mean over this process's batch counts in the mean of such means, 1 if all batches count alike.

    Args:
        fabric: Of this process.
        weight: Over how many the mean of this batch is, if not over its rows.
    """
    if weight is None or fabric.world_size == 1:
        return 1.0
    own = weight.detach().float()
    return own * fabric.world_size / fabric.all_reduce(own.clone(), reduce_op="sum")


def means_over_processes(
    fabric: Any, scalars: Mapping[str, Tensor], share: Tensor | float
) -> Mapping[str, Tensor]:
    """Return the means of scalars over all processes, each counting as :func:`share_of` says."""
    if fabric.world_size == 1:
        return scalars
    own = torch.stack([scalar.float() for scalar in scalars.values()]) * share
    return dict(zip(scalars, fabric.all_reduce(own, reduce_op="mean"), strict=True))
