"""Streamed clips as tokens: what the token cache holds of recorded clips, made of a stream while training runs."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drivesim.scene.types import Camera
from drivesim.training.clip_pool import Arrays, PoolConfig, pooled, streamed_parts
from drivesim.training.stream import StreamConfig
from drivesim.training.token_cache import COPIED_ARRAYS, TokenCache, tokenize_clips
from drivesim.training.token_clips import CACHE_ARRAYS
from drivesim.world_model.motion import camera_rays
from drivesim.world_model.world_model import WorldModel

_HALF = ("expected", "motion")  # kept in half precision, as in a cache on disk


@dataclass(kw_only=True, slots=True)
class TokenStream:
    """Streamed clips as tokens: the stream, the pool they are held in, and the model that imagines pasts."""

    stream: StreamConfig
    pool: PoolConfig
    imaginer: WorldModel  # a frozen copy, not the model in training: a resumed run must make the same tokens
    camera: Camera

    def per_step(
        self, *, start_step: int, seed: int, rank: int, world_size: int
    ) -> Generator[TokenCache, None, None]:
        """Yield for every step the tokens of the clips in the pool; only valid until the next step."""

        def parts(first: int) -> Generator[Arrays, None, None]:
            return self._parts(first, seed=seed, rank=rank, world_size=world_size)

        with closing(pooled(parts, self.pool, start_step=start_step)) as held:
            for arrays in held:
                yield TokenCache(**arrays)

    def _parts(self, first: int, *, seed: int, rank: int, world_size: int) -> Generator[Arrays, None, None]:
        """Yield the tokens of parts of clips; the past of every second part is imagined."""
        rays = camera_rays(self.camera).to(next(self.imaginer.parameters()).device)
        self.imaginer.eval()
        source = streamed_parts(
            self.stream, self.pool, first_part=first, seed=seed, rank=rank, world_size=world_size
        )
        with closing(source):
            for number, clips in enumerate(source, start=first):
                chance = np.random.default_rng([seed, number, rank, world_size])
                generator = torch.Generator().manual_seed(int(chance.integers(2**62)))
                tokens = tokenize_clips(clips, self.imaginer, rays, generator, is_imagined=number % 2 == 1)
                copied = {name: getattr(clips, name) for name in COPIED_ARRAYS}
                yield {name: _array(name, value) for name, value in tokens.items()} | copied


def _array(name: str, value: Tensor) -> np.ndarray[Any, Any]:
    assert name in CACHE_ARRAYS
    if name in _HALF:
        return value.to("cpu", torch.float16).numpy()
    return value.to("cpu", torch.int32).numpy()
