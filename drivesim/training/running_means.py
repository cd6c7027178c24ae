"""Running means of the losses, for the log."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class RunningMeans:
    """Means of named scalars since the last reading, kept on the device so that no step waits for them."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    @torch.no_grad()
    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Take in the scalars of one batch."""
        for name, scalar in scalars.items():
            if name in self._sums:
                self._sums[name] += scalar.detach()
                self._counts[name] += 1
            else:
                self._sums[name] = scalar.detach().float().clone()
                self._counts[name] = 1

    def read(self) -> dict[str, float]:
        """Return the means and start anew."""
        means = {name: total.item() / self._counts[name] for name, total in self._sums.items()}
        self.load_state_dict({})
        return means

    def state_dict(self) -> dict[str, list[float]]:
        """Return sum and count by name."""
        return {name: [total.item(), self._counts[name]] for name, total in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, list[float]], device: torch.device | None = None) -> None:
        """Take over what `state_dict` gave."""
        self._sums = {name: torch.tensor(v[0], device=device) for name, v in state.items()}
        self._counts = {name: int(v[1]) for name, v in state.items()}
