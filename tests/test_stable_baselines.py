"""Stable-Baselines3: training through the vector adapter and through single environments, and driving from a zip."""

from __future__ import annotations

import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers import FakeWorldModel, make_scene

import drivesim  # noqa: F401  (registers the environments)
from drivesim.errors import InputError
from drivesim.learner_view import LearnerViewConfig, car_action
from drivesim.rollout import load_policy, rollout
from envs.learner_view import LearnerView
from policies.stable_baselines import StableBaselinesPolicy

sb3 = pytest.importorskip("stable_baselines3")

STATE_ONLY = LearnerViewConfig(has_image=False)
ALWAYS_STRAIGHT = np.zeros((2, 2), dtype=np.float32)


def make_env(num_frames: int = 24, **settings: Any) -> gym.Env:
    return gym.make(
        "WorldDreamer-Drive-v0", scene=make_scene(num_frames), world_model=FakeWorldModel(), **settings
    )


def make_vec(
    config: LearnerViewConfig | None = None, num_frames: tuple[int, int] = (24, 24), **settings: Any
) -> Any:
    from envs.stable_baselines_vec import StableBaselinesVecEnv

    makers = [lambda count=count: make_env(count, **settings) for count in num_frames]
    envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    return StableBaselinesVecEnv(envs, config)


def small_ppo(env: Any, **settings: Any) -> Any:
    torch.set_num_threads(1)
    small = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "device": "cpu", "seed": 0}
    return sb3.PPO("MultiInputPolicy", env, policy_kwargs={"net_arch": [8]}, **small | settings)


def test_ends_of_episodes_are_told_as_sb3_wants_them() -> None:
    env = make_vec(max_episode_steps=3)
    first = env.reset()
    assert first["image"].shape == (2, 36, 64, 3)
    for step in range(1, 7):
        seen, rewards, is_over, infos = env.step(ALWAYS_STRAIGHT)
        assert rewards.dtype == np.float32
        assert list(is_over) == [step % 3 == 0] * 2
        for row, info in enumerate(infos):
            assert info["TimeLimit.truncated"] == is_over[row]
            assert ("terminal_observation" in info) == is_over[row]
            if is_over[row]:
                assert not np.array_equal(info["terminal_observation"]["state"], seen["state"][row])
                assert np.array_equal(seen["state"][row], first["state"][row])  # a new episode from the start


def test_only_the_row_that_ended_begins_anew() -> None:
    env = make_vec(num_frames=(24, 8))  # the shorter road ends at its goal
    env.reset()
    for _ in range(20):
        _, _, is_over, infos = env.step(ALWAYS_STRAIGHT)
        if is_over.any():
            break
    assert list(is_over) == [False, True]
    assert infos[1]["end_reason"] == "goal"
    assert infos[1]["TimeLimit.truncated"] is False
    _, _, is_over, again = env.step(ALWAYS_STRAIGHT)
    assert not is_over.any()
    assert again[0]["log_index"] == infos[0]["log_index"] + 1
    assert again[1]["log_index"] == 4  # one step after the start of the new episode


def test_seeds_of_the_vector_are_those_of_its_rows() -> None:
    vec = make_vec()
    vec.seed(7)
    vec.reset()
    seen = vec.step(ALWAYS_STRAIGHT)[0]["image"]
    for row in range(2):
        single = LearnerView(make_env())
        single.reset(seed=7 + row)
        assert np.array_equal(seen[row], single.step(ALWAYS_STRAIGHT[0])[0]["image"])


def test_the_vector_answers_what_sb3_asks_of_it() -> None:
    vec = make_vec()
    vec.reset()
    assert vec.get_attr("num_envs") == [2, 2]
    assert vec.get_attr("render_mode", 0) == [None]
    assert vec.env_is_wrapped(gym.Wrapper) == [False, False]
    vec.set_attr("spare", 3)
    assert vec.envs.spare == 3
    assert vec.env_method("__repr__")[0] == repr(vec.envs)
    assert len(vec.get_images()) == 2
    vec.close()


def test_other_ways_to_begin_anew_are_refused() -> None:
    from envs.stable_baselines_vec import StableBaselinesVecEnv

    envs = SyncVectorEnv([make_env], autoreset_mode=AutoresetMode.NEXT_STEP)
    with pytest.raises(InputError, match="DISABLED"):
        StableBaselinesVecEnv(envs)


@pytest.mark.parametrize("config", [LearnerViewConfig(), LearnerViewConfig(has_hazards=True), STATE_ONLY])
def test_a_trained_model_drives_from_its_zip(config: LearnerViewConfig, tmp_path: Path) -> None:
    env = make_vec(config)
    model = small_ppo(env)
    model.set_logger(sb3.common.logger.Logger(folder=None, output_formats=[]))
    model.learn(16)
    path = tmp_path / "agent.zip"
    model.save(path)
    policy = load_policy("policies.stable_baselines:StableBaselinesPolicy", checkpoint=str(path))
    single = make_env()
    observation, info = single.reset(seed=0)
    action = policy.select_action(observation, info)
    expected, _ = model.predict(LearnerView(make_env(), config).reset(seed=0)[0], deterministic=True)
    assert action == pytest.approx(car_action(expected, info))
    assert len(rollout(single, policy, seed=0, num_steps=3).steps) == 3


def test_single_environments_train_in_sb3s_own_vector(tmp_path: Path) -> None:
    from stable_baselines3.common.vec_env import DummyVecEnv

    low = -np.ones(2, dtype=np.float32)
    vec = DummyVecEnv([lambda: gym.wrappers.RescaleAction(make_env(), low, -low)])
    small = {"net_arch": [4], "features_extractor_kwargs": {"features_dim": 4}}
    model = sb3.PPO("CnnPolicy", vec, n_steps=4, batch_size=4, n_epochs=1, device="cpu", policy_kwargs=small)
    model.set_logger(sb3.common.logger.Logger(folder=None, output_formats=[]))
    model.learn(4)
    model.save(tmp_path / "pictures.zip")
    policy = StableBaselinesPolicy(checkpoint=tmp_path / "pictures.zip", is_deterministic=False)
    env = make_env()
    observation, info = env.reset(seed=0)
    action = policy.select_action(observation, info)
    assert action.dtype == np.float32
    assert env.action_space.contains(action)


def test_bad_checkpoints_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no algorithm 'PPQ'.*PPO"):
        StableBaselinesPolicy(checkpoint=tmp_path / "none.zip", algorithm="PPQ")
    with pytest.raises(InputError, match="there is no file"):
        StableBaselinesPolicy(checkpoint=tmp_path / "none.zip")
    broken = tmp_path / "broken.zip"
    with zipfile.ZipFile(broken, "w") as file:
        file.writestr("data", pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="cannot be read as a PPO model"):
        StableBaselinesPolicy(checkpoint=broken)
    other = sb3.PPO("MlpPolicy", gym.make("Pendulum-v1"), n_steps=8, batch_size=8, device="cpu")
    other.save(tmp_path / "pendulum.zip")
    with pytest.raises(InputError, match="was trained on observations"):
        StableBaselinesPolicy(checkpoint=tmp_path / "pendulum.zip")
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    broken.touch()
    with pytest.raises(InputError, match=r"drivesim\[rl\]"):
        StableBaselinesPolicy(checkpoint=broken, device="meta")
