"""The batched environment: every row is what an environment of its own would be, in every autoreset mode."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers import make_scene
from small_models import small_world_model

import drivesim
from drivesim.errors import InputError
from drivesim.scene.types import Agents, front_camera
from drivesim.world_model.sampler import SamplerConfig

LEARNED = "WorldDreamer-Drive-v0"
STRAIGHT_ON = np.float32([[0.0, 8.0]] * 3)
SAMPLER = SamplerConfig(temperature=1.0, temperature_rise=2, noise_memory=0.9)


@pytest.fixture(scope="module", params=[torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    model = small_world_model()
    torch.nn.init.normal_(model.causal_decoder.out.weight, std=0.1)
    return model.to(request.param)


@pytest.fixture(scope="module")
def small() -> Any:
    return small_world_model()


@pytest.fixture(scope="module")
def scenes() -> list[Any]:
    """Return three roads: with a car ahead that drives on, without any, and one where nobody knows of others."""
    made = [make_scene(24, steering_rad=angle) for angle in (0.05, -0.1, 0.0)]
    made[0].agents = [
        Agents(
            xy_m=(xy_m + 12.0 * np.array([np.cos(yaw_rad), np.sin(yaw_rad)]))[None],
            yaw_rad=np.array([yaw_rad]),
            speed_mps=np.array([6.0]),
            size_m=np.array([[4.3, 1.8, 1.5]]),
        )
        for xy_m, yaw_rad in zip(made[0].xy_m, made[0].yaw_rad, strict=True)
    ]
    made[1].agents = [agents.rows(np.zeros(1, bool)) for agents in made[0].agents]
    return made


def make_vec(model: Any, scenes: Any, **settings: Any) -> gym.vector.VectorEnv:
    settings = {"num_envs": 3, "world_model": model, "scenes": scenes, "sampler": SAMPLER, **settings}
    return gym.make_vec(LEARNED, **settings)


def singles(model: Any, scenes: list[Any], mode: AutoresetMode, **settings: Any) -> SyncVectorEnv:
    def maker(scene: Any) -> Any:
        return lambda: gym.make(LEARNED, scene=scene, world_model=model, sampler=SAMPLER, **settings)

    return SyncVectorEnv([maker(scene) for scene in scenes], autoreset_mode=mode)


def is_same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(is_same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, tuple) or (isinstance(theirs, np.ndarray) and theirs.dtype == object):
        return all(is_same(a, b) for a, b in zip(ours, theirs, strict=True))
    return bool(np.array_equal(ours, theirs))


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_batch_equals_single_environments_through_resets(model: Any, scenes: list[Any], mode: Any) -> None:
    settings = {"max_episode_steps": 3, "max_log_deviation_m": 4.0}
    ours = make_vec(model, scenes, autoreset_mode=mode, **settings)
    theirs = singles(model, scenes, mode, **settings)
    rng = np.random.default_rng(0)
    assert is_same(ours.reset(seed=[7, 3, 5]), theirs.reset(seed=[7, 3, 5]))
    num_ends = 0
    for _ in range(6):
        actions = rng.uniform([-0.4, 0.0], [0.4, 16.0], (3, 2)).astype(np.float32)
        stepped = ours.step(actions)
        assert is_same(stepped, theirs.step(actions))
        num_ends += int((stepped[2] | stepped[3]).sum())
    assert num_ends >= 3


def test_without_autoreset_a_row_rests_until_it_is_reset(model: Any, scenes: list[Any]) -> None:
    env = make_vec(model, scenes, autoreset_mode=AutoresetMode.DISABLED, max_log_deviation_m=1.5)
    alone = singles(model, scenes, AutoresetMode.DISABLED, max_log_deviation_m=1.5)
    env.reset(seed=1)
    alone.reset(seed=1)
    actions = STRAIGHT_ON.copy()
    actions[1] = [0.5, 20.0]  # leaves the log at once
    while not env.unwrapped.is_over.any():
        observations, _, _, truncated, _ = env.step(actions)
        expected = alone.step(actions)
    assert truncated.tolist() == [False, True, False]
    assert env.unwrapped.infos[1]["end_reason"] == "log_deviation"
    assert np.array_equal(observations, expected[0])
    rested, rewards, terminated, truncated, _ = env.step(actions)
    assert np.array_equal(rested[1], observations[1])
    assert rewards[1] == 0.0
    assert not terminated[1]
    assert not truncated[1]
    others = alone.envs[0].step(actions[0])[0], alone.envs[2].step(actions[2])[0]
    assert np.array_equal(rested[[0, 2]], others)
    begun, _ = env.reset(seed=4, options={"reset_mask": np.array([False, True, False])})
    assert not env.unwrapped.is_over.any()
    assert np.array_equal(begun[1], scenes[1].frames[3])
    assert np.array_equal(begun[0], rested[0])
    observations, *_ = env.step(STRAIGHT_ON)
    alone.envs[1].reset(seed=5)
    assert np.array_equal(observations[1], alone.envs[1].step(STRAIGHT_ON[1])[0])
    assert np.array_equal(observations[0], alone.envs[0].step(STRAIGHT_ON[0])[0])


def test_gymnasium_takes_it_without_a_warning(small: Any, scenes: list[Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make_vec(small, scenes, render_mode="rgb_array")
    assert env.spec is not None
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.observation_space.shape == (3, 128, 224, 3)
    assert env.action_space.shape == (3, 2)
    observations, infos = env.reset(seed=0)
    assert observations in env.observation_space
    assert infos["ego"]["speed_mps"].shape == (3,)
    assert infos["route_ahead_m"].shape == (3, 20, 2)
    assert len(env.render()) == 3
    assert env.unwrapped.max_episode_steps == drivesim.MAX_EPISODE_STEPS
    observations[:] = 0
    assert env.render()[0].any()


def test_one_scene_serves_all_rows_and_seeds_tell_them_apart(small: Any, scenes: list[Any]) -> None:
    env = make_vec(small, scenes[0])
    first, _ = env.reset(seed=[1, 1, 2])
    assert np.array_equal(first[0], first[2])
    env.step(STRAIGHT_ON)
    observations, *_ = env.step(STRAIGHT_ON)
    assert np.array_equal(observations[0], observations[1])
    assert not np.array_equal(observations[0], observations[2])


def test_a_stochastic_wrapper_reports_episodes(small: Any, scenes: list[Any]) -> None:
    env = gym.wrappers.vector.RecordEpisodeStatistics(make_vec(small, scenes, max_episode_steps=2))
    env.reset(seed=0)
    env.step(STRAIGHT_ON)
    *_, infos = env.step(STRAIGHT_ON)
    assert infos["episode"]["l"].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"render_mode": "human"}, "render_mode is 'rgb_array' or None for a batch"),
        ({"scenes": [make_scene(8)] * 2}, "one scene for each of 3 rows, or one for all, got 2"),
        ({"scenes": ["scene-9999"]}, "scene-9999"),
        ({"contxt_frames": 5}, "did you mean context_frames"),
        (
            {"scenes": [make_scene(8), make_scene(8), make_scene(8, camera=front_camera(width_px=112))]},
            "seen by one camera",
        ),
    ],
)
def test_bad_arguments_are_refused(small: Any, scenes: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_vec(small, settings.pop("scenes", scenes), **settings)


def test_bad_calls_are_refused(small: Any, scenes: list[Any]) -> None:
    env = make_vec(small, scenes)
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        env.step(STRAIGHT_ON)
    for seed, options, message in (
        ([1, 2], None, "one for each of 3 rows, got 2"),
        (0, {"reset_mask": np.zeros(3, dtype=bool)}, "array of 3 bools, at least one"),
        (0, {"reset_mask": np.ones(2, dtype=bool)}, "array of 3 bools"),
        (0, {"start": 5}, "no option"),
        (0, {"start_index": 99}, "start_index must lie in"),
    ):
        with pytest.raises(InputError, match=message):
            env.reset(seed=seed, options=options)
    env.reset(seed=0)
    for actions, message in (
        (STRAIGHT_ON[:2], r"shape \(3, 2\), got \(2, 2\)"),
        (np.full((3, 2), np.nan), "steering"),
    ):
        with pytest.raises(InputError, match=message):
            env.step(actions)
    env.close()
    with pytest.raises(gym.error.ClosedEnvironmentError):
        env.reset()


def test_a_refused_action_moves_no_row(small: Any, scenes: list[Any]) -> None:
    env = make_vec(small, scenes)
    env.reset(seed=0)
    before = [info["ego"] for info in env.unwrapped.infos]
    wrong = STRAIGHT_ON.copy()
    wrong[2, 0] = 3.0
    with pytest.raises(InputError, match="steering"):
        env.step(wrong)
    assert [ride.here.ego.x_m for ride in env.unwrapped.rides] == [ego["x_m"] for ego in before]


class TornFrames(list):
    """Pictures that cannot be read while ``is_torn``."""

    is_torn = False

    def __getitem__(self, index: Any) -> Any:
        if self.is_torn:
            raise InputError("picture 3.jpg cannot be read")
        return super().__getitem__(index)


@pytest.fixture
def torn(scenes: list[Any]) -> list[Any]:
    """Return the three roads, with pictures that can be torn in the second."""
    return [scenes[0], dataclasses.replace(scenes[1], frames=TornFrames(scenes[1].frames)), scenes[2]]


def test_a_reset_that_cannot_read_a_picture_changes_nothing(small: Any, torn: list[Any]) -> None:
    env, untouched = (make_vec(small, torn, autoreset_mode=AutoresetMode.DISABLED) for _ in range(2))
    for each in (env, untouched):
        each.reset(seed=1)
        each.step(STRAIGHT_ON)
    torn[1].frames.is_torn = True
    for options in ({"reset_mask": np.array([False, True, True])}, None, {"start_index": 6}):
        with pytest.raises(InputError, match="picture 3"):
            env.reset(seed=9, options=options)
    assert is_same(env.step(STRAIGHT_ON), untouched.step(STRAIGHT_ON))
    torn[1].frames.is_torn = False
    assert is_same(env.reset(), untouched.reset())
    assert is_same(env.step(STRAIGHT_ON), untouched.step(STRAIGHT_ON))


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_row_that_cannot_begin_anew_says_so_until_it_can(small: Any, torn: list[Any], mode: Any) -> None:
    env = make_vec(small, torn, autoreset_mode=mode, max_episode_steps=2)
    env.reset(seed=1)
    env.step(STRAIGHT_ON)
    torn[1].frames.is_torn = True
    if mode is AutoresetMode.NEXT_STEP:
        env.step(STRAIGHT_ON)
    for _ in range(2):
        with pytest.raises(InputError, match="picture 3"):
            env.step(STRAIGHT_ON)
    torn[1].frames.is_torn = False
    observations, *_, infos = env.step(STRAIGHT_ON)
    assert infos["log_index"][1] == 3
    assert np.array_equal(observations[1], torn[1].frames[3])
    *_, infos = env.step(STRAIGHT_ON)
    assert infos["log_index"][1] == 4
