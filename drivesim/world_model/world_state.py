"""WorldState: everything the world model remembers after a frame, for one car or many; a value.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from drivesim.world_model.motion import Rays
from drivesim.world_model.places import Places
from drivesim.world_model.stpt import FrameMemory


@dataclass(kw_only=True, slots=True)
class WorldState:
    """Everything the model remembers after a frame; a value: imagining returns a new one."""

    memory: list[FrameMemory]  # of all frames but the newest
    token_ids_BS: Tensor  # the newest frame
    frames_BCHW: Tensor  # its picture, in [-1, 1]
    earlier_BCHW: Tensor  # the picture before it; the newest again where there is none
    twist_BA: Tensor  # the motion into the newest frame; zero where there is none before
    prompt_BLC: Tensor  # of the newest frame
    guide_BSG: Tensor  # of the newest frame
    noise_BHW: (
        Tensor  # that the newest frame was drawn by, see ``carried_noise``; zero where nothing was drawn
    )
    look_BU: Tensor  # of the first frame, see ``conditioning.picture_look``
    rays: Rays
    num_frames_B: Tensor  # int64
    num_imagined_B: Tensor  # int64, on the CPU: frames since the last recorded one
    places: Places | None = None  # on maps; None where there are none

    def __len__(self) -> int:
        """Return the number of rows B."""
        return len(self.token_ids_BS)

    def rows(self, indices: Sequence[int]) -> WorldState:
        """Return some rows, in their order; a row may be taken more than once."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        there = chosen.to(self.token_ids_BS.device)
        tensors = {name: getattr(self, name)[there] for name in ROW_TENSORS}
        return WorldState(
            memory=[layer.rows(there) for layer in self.memory],
            rays=self.rays,
            num_imagined_B=self.num_imagined_B[chosen],
            places=None if self.places is None else self.places.rows(indices),
            **tensors,
        )

    def fork(self, count: int) -> WorldState:
        """Return a state of one row ``count`` times, to imagine as many futures of it at once.

        Raises:
            ValueError: the state has more rows than one, or ``count`` is below 1.
        """
        if len(self) != 1 or count < 1:
            raise ValueError(
                f"a state of one row is forked into at least 1, got {len(self)} rows and {count}"
            )
        return self.rows([0] * count)


ROW_TENSORS = (
    "token_ids_BS",
    "frames_BCHW",
    "earlier_BCHW",
    "twist_BA",
    "prompt_BLC",
    "guide_BSG",
    "noise_BHW",
    "look_BU",
    "num_frames_B",
)
"""Fields of a :class:`WorldState` that have a row for every car, where the model runs."""


def joined(states: Sequence[WorldState]) -> WorldState:
    """Return the rows of several states of one camera, the first state's first.

    Raises:
        ValueError: none, or some have places on maps and others have none.
    """
    if not states or len({state.places is None for state in states}) != 1:
        raise ValueError("states are joined where there is at least one, and all or none of them have places")
    first = states[0]
    layers = zip(*(state.memory for state in states), strict=True)
    tensors = {name: torch.cat([getattr(state, name) for state in states]) for name in ROW_TENSORS}
    return WorldState(
        memory=[FrameMemory.joined(parts) for parts in layers],
        rays=first.rays,
        num_imagined_B=torch.cat([state.num_imagined_B for state in states]),
        places=None if first.places is None else Places.joined([s.places for s in states if s.places]),
        **tensors,
    )
