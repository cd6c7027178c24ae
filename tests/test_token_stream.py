"""Streamed clips as token windows: what a task reads, the same after a restart."""

import itertools

import numpy as np
import pytest
import torch
from small_models import small_world_model

from drivesim.scene.road_map import PACKED_DIM
from drivesim.scene.types import front_camera
from drivesim.training import token_stream
from drivesim.training.clip_pool import PoolConfig
from drivesim.training.stream import StreamConfig, StreamedClips
from drivesim.training.token_clips import CACHE_ARRAYS
from drivesim.training.token_stream import TokenStream
from drivesim.training.world_model import WorldModelTask, WorldModelTrainingConfig

POOL = PoolConfig(num_clips=2, num_first_clips=1, new_clips_per_step=0.5, clips_per_part=1)


def fake_parts(config, pool, *, first_part, seed, rank, world_size):
    for number in itertools.count(first_part):
        rng = np.random.default_rng([seed, rank, number])
        shape = (pool.clips_per_part, config.frames_per_clip)
        yield StreamedClips(
            frames=rng.integers(0, 255, (*shape, 128, 224, 3), dtype=np.uint8),
            twist=rng.uniform(0, 0.5, (*shape, 2)).astype(np.float32),
            xy_m=np.zeros((*shape, 2)),
            yaw_rad=np.zeros(shape),
            is_collision=np.zeros(shape, bool),
            is_off_road=np.zeros(shape, bool),
            road=np.zeros((*shape, PACKED_DIM, 32, 56), np.int8),
            rate_hz=6.0,
        )


@pytest.fixture
def tokens(monkeypatch):
    monkeypatch.setattr(token_stream, "streamed_parts", fake_parts)
    return TokenStream(
        stream=StreamConfig(frames_per_clip=5),
        pool=POOL,
        imaginer=small_world_model(),
        camera=front_camera(),
    )


def batches(tokens, start_step):
    task = WorldModelTask.__new__(WorldModelTask)
    task.config, task.tokens = WorldModelTrainingConfig(frames_per_window=4), tokens
    task.codebook_size = tokens.imaginer.tokenizer.codebook_size
    return task.batches(start_step=start_step, batch_size=3, seed=2, rank=0, world_size=1)


def test_windows_are_those_of_a_token_cache(tokens):
    batch = next(batches(tokens, 0))
    assert set(batch) == {*CACHE_ARRAYS, "is_masked"}
    assert batch["token_ids"].shape == batch["context_ids"].shape == (3, 4, 112)
    assert batch["expected"].dtype == batch["motion"].dtype == torch.float16
    assert batch["twist"].shape == (3, 4, 2)
    assert batch["token_ids"].dtype == torch.int32


def test_a_resumed_stream_gives_the_same_windows(tokens):
    third = next(itertools.islice(batches(tokens, 0), 3, None))
    resumed = next(batches(tokens, 3))
    assert all(torch.equal(third[name], resumed[name]) for name in CACHE_ARRAYS)


def test_tokens_are_those_of_the_streamed_pictures(tokens):
    cache = next(tokens.per_step(start_step=0, seed=2, rank=0, world_size=1))
    clip = next(fake_parts(tokens.stream, POOL, first_part=0, seed=2, rank=0, world_size=1))
    frames = torch.from_numpy(clip.frames[:, 3]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = tokens.imaginer.tokenizer.encode(frames)
    np.testing.assert_array_equal(cache.token_ids[:, 3], expected)
    np.testing.assert_array_equal(cache.twist, clip.twist)
