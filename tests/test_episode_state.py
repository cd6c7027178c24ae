"""Episodes as values: a restored instant goes on bit for bit as it did, from memory or from a pickle."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from helpers import make_scene
from small_models import small_world_model

from drivesim.errors import InputError
from drivesim.world_model.sampler import SamplerConfig

LEARNED, REFERENCE = "WorldDreamer-Drive-v0", "Reference-Drive-v0"
MAX_BYTES = 64 * 1024


@pytest.fixture(scope="module", params=[LEARNED, REFERENCE])
def env(request: pytest.FixtureRequest) -> Any:
    if request.param == REFERENCE:
        return gym.make(REFERENCE, scene="scene-2003")
    sampler = SamplerConfig(temperature=1.0)
    return gym.make(LEARNED, scene=make_scene(24), world_model=small_world_model(), sampler=sampler)


def drive(env: Any, count: int, steering_rad: float) -> list[Any]:
    return [env.step(np.float32([steering_rad, 8.0])) for _ in range(count)]


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert np.array_equal(mine[0], other[0])
        assert mine[1:4] == other[1:4]
        assert mine[4]["ego"] == other[4]["ego"]


@pytest.mark.parametrize("is_pickled", [False, True])
def test_a_restored_episode_goes_on_alike(env: Any, is_pickled: bool) -> None:
    env.reset(seed=3)
    drive(env, 3, 0.1)
    state = env.unwrapped.save_state()
    expected = drive(env, 3, -0.1)
    drive(env, 2, 0.4)
    packed = pickle.dumps(state)
    assert len(packed) < MAX_BYTES
    restored = pickle.loads(packed) if is_pickled else state
    assert (restored.world is None) is is_pickled
    for _ in range(2):  # any number of times
        env.unwrapped.restore_state(restored)
        assert_same(drive(env, 3, -0.1), expected)
        assert len(env.unwrapped.save_state().actions) == 6


def test_branches_differ_by_their_actions_only(env: Any) -> None:
    env.reset(seed=0)
    state = env.unwrapped.save_state()
    left = drive(env, 2, 0.3)
    env.unwrapped.restore_state(state)
    right = drive(env, 2, -0.3)
    assert left[1][4]["ego"]["yaw_rad"] > right[1][4]["ego"]["yaw_rad"]
    assert not np.array_equal(left[1][0], right[1][0])


def test_the_chance_of_later_resets_is_part_of_it(env: Any) -> None:
    env.reset(seed=0)
    state = env.unwrapped.save_state()
    env.reset()
    expected = drive(env, 2, 0.0)
    env.unwrapped.restore_state(state)
    env.reset()
    assert_same(drive(env, 2, 0.0), expected)


def test_a_state_knows_where_it_belongs(env: Any) -> None:
    with pytest.raises(gym.error.ResetNeeded):
        gym.make(REFERENCE, scene="scene-2001").unwrapped.save_state()
    env.reset(seed=0)
    state = env.unwrapped.save_state()
    with pytest.raises(InputError, match=r"restore it where it was saved"):
        gym.make(REFERENCE, scene="scene-2001").unwrapped.restore_state(state)


def test_a_state_knows_its_settings_and_weights() -> None:
    model = small_world_model()
    base = {"scene": make_scene(24), "world_model": model}
    env = gym.make(LEARNED, **base)
    env.reset(seed=0)
    state = pickle.loads(pickle.dumps(env.unwrapped.save_state()))
    twin = gym.make(LEARNED, **base)
    twin.reset(seed=9)
    twin.unwrapped.restore_state(state)
    assert np.array_equal(twin.step(np.float32([0.1, 8.0]))[0], env.step(np.float32([0.1, 8.0]))[0])
    others: list[dict[str, Any]] = [
        {"uses_map": False},
        {"uses_agents": False},
        {"off_road_limit": 0.9},
        {"sampler": SamplerConfig(temperature=0.5)},
        {"world_model": small_world_model(dim=64)},
    ]
    for other in others:
        with pytest.raises(InputError, match="other settings or weights"):
            gym.make(LEARNED, **{**base, **other}).unwrapped.restore_state(state)


def test_a_closed_environment_restores_nothing() -> None:
    env = gym.make(REFERENCE, scene="scene-2001").unwrapped
    env.reset(seed=0)
    state = env.save_state()
    env.close()
    with pytest.raises(gym.error.ClosedEnvironmentError):
        env.restore_state(state)


@pytest.mark.parametrize("garbage", [None, "state", {}])
def test_what_is_no_state_is_refused(garbage: Any) -> None:
    env = gym.make("Reference-Drive-v0", max_episode_steps=None).unwrapped
    env.reset(seed=0)
    with pytest.raises(InputError, match=f"got {type(garbage).__name__}"):
        env.restore_state(garbage)
    env.close()
