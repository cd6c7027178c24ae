"""Tokens of clips as training sees them, wherever they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
CACHE_ARRAYS = ("token_ids", "context_ids", "expected", "motion", "twist", "road", "look")
"""What there is of every frame; ``TokenCache`` says what each array holds."""
TOKEN_ARRAYS = ("token_ids", "context_ids")


class DrivenFrames(Protocol):
    """What tokens are made of: pictures, the motion into them, and what the map says of them."""

    @property
    def frames(self) -> NDArray[np.uint8]:
        """Return the frames (B, T, H, W, 3)."""
        ...

    @property
    def twist(self) -> NDArray[np.float32]:
        """Return speed and yaw rate (B, T, 2)."""
        ...

    @property
    def road(self) -> NDArray[np.int8]:
        """Return packed road views (B, T, E, h, w), see ``scene.road_map.packed_road_views``."""
        ...


class TokenClips(Protocol):
    """Tokens of clips of equal length."""

    def __len__(self) -> int:
        """Return the number of clips."""
        ...

    @property
    def frames_per_clip(self) -> int:
        """Return the frames of each clip."""
        ...

    def window(self, clip: int, start: int, num_frames: int) -> dict[str, Array]:
        """Return part of a clip: arrays (T, ...) by the names in ``CACHE_ARRAYS``, not to be written."""
        ...


class TokenSource(Protocol):
    """Tokens to learn from: the same ones at every step, or others."""

    def per_step(self, *, start_step: int, seed: int, rank: int, world_size: int) -> Iterator[TokenClips]:
        """Yield for every step the tokens that its batch is drawn from; only valid until the next step."""
        ...


def stack(windows: Sequence[Mapping[str, Array]]) -> dict[str, Tensor]:
    """Return windows as one batch (B, T, ...); tokens become int32 whatever they are kept as."""
    batch: dict[str, Tensor] = {}
    for name, first in windows[0].items():
        dtype = np.int32 if name in TOKEN_ARRAYS else first.dtype
        rows = np.empty((len(windows), *first.shape), dtype=dtype)
        for row, window in enumerate(windows):
            rows[row] = window[name]
        batch[name] = torch.from_numpy(rows)
    return batch
