"""Windows of recorded frames with their motion, for the parts of a world model that learn from pictures.

Letters: `B` windows, `T` frames, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from drivesim.training.data import ClipSource
from drivesim.training.row_draws import RowDraws, rows_of


def frame_windows(
    source: ClipSource,
    num_frames: int,
    *,
    start_step: int,
    batch_size: int,
    seed: int,
    rank: int,
    world_size: int,
) -> Iterator[dict[str, Tensor]]:
    """Yield ``frames`` (B, T, H, W, 3) uint8 and ``twist`` (B, T, 2); a row depends on seed and number alone."""
    held = source.per_step(start_step=start_step, seed=seed, rank=rank, world_size=world_size)
    for step, clips in enumerate(held, start=start_step):
        draws = RowDraws(seed, rows_of(step, batch_size, rank=rank, world_size=world_size))
        chosen = draws.whole(len(clips)).tolist()
        starts = draws.whole(clips.frames_per_clip - num_frames + 1).tolist()
        windows = [(i, slice(t, t + num_frames)) for i, t in zip(chosen, starts, strict=True)]
        yield {
            "frames": torch.from_numpy(np.stack([clips.frames[i, window] for i, window in windows])),
            "twist": torch.from_numpy(np.stack([clips.twist[i, window] for i, window in windows])),
        }
