"""A moving average of a model's weights: smoother than the last step's, so it is evaluated and shipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from drivesim.training.sharding import divided_like, joined_like, local_part, whole


class WeightAverage:
    """An exponential moving average of everything in a module's ``state_dict``.

    Floating-point entries are averaged, buffers included (a codebook stays in step with its encoder);
    integers and entries that are not finite (attention masks) are copied. The decay warms up as
    ``(1 + n) / (10 + n)``, so the random start is forgotten within a few steps. Of a module that is divided among
    processes, each averages its part.

    Args:
        module: The module to follow; its tensors must stay where they are (no `.to()` afterwards).
        decay: Share of the old average that an update keeps, in [0, 1).
    """

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._kept_as = {name: tensor.detach() for name, tensor in module.state_dict().items()}
        self._live = {name: local_part(tensor) for name, tensor in self._kept_as.items()}
        self._average = {name: tensor.clone() for name, tensor in self._live.items()}
        averaged = [name for name, tensor in self._live.items() if _is_averaged(tensor)]
        copied = [name for name in self._live if name not in set(averaged)]
        self._averaged_live = [self._live[name] for name in averaged]
        self._averaged = [self._average[name] for name in averaged]
        self._copied_live = [self._live[name] for name in copied]
        self._copied = [self._average[name] for name in copied]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the module's present weights."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        if self._averaged:
            torch._foreach_lerp_(self._averaged, self._averaged_live, 1.0 - decay)
        if self._copied:
            torch._foreach_copy_(self._copied, self._copied_live)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Let the module hold the averaged weights for the time of the ``with`` block."""
        kept = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self._write(self._average)
        try:
            yield
        finally:
            self._write(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights by the module's names (the tensors themselves, if they are not divided)."""
        return {name: whole(joined_like(self._average[name], like)) for name, like in self._kept_as.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor], *, num_updates: int) -> None:
        """Take over averaged weights that `state_dict` gave after ``num_updates`` updates."""
        for name, tensor in self._average.items():
            tensor.copy_(local_part(divided_like(state[name], self._kept_as[name])))
        self.num_updates = num_updates

    @torch.no_grad()
    def _write(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self._live.items():
            tensor.copy_(state[name])


def _is_averaged(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(torch.isfinite(tensor).all())
