"""The reference environment keeps the contract and agrees with the learned one."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from helpers import FakeWorldModel, make_scene

import drivesim  # noqa: F401  (registers the environments)
from drivesim.errors import InputError
from drivesim.reference.behavior import record
from drivesim.reference.simulator import ReferenceWorld, WorldSpec
from drivesim.rewards import RewardConfig
from drivesim.rollout import rollout
from drivesim.scene.types import Scene
from policies.replay import ReplayPolicy


@pytest.fixture(scope="module")
def recording() -> Scene:
    """Return a short drive on a winding road of the reference world."""
    spec = WorldSpec(family="winding", seed=900003)
    return record(spec, driver="good", num_frames=14, driver_seed=1).scene


def test_reference_environment_is_clean_too(recording: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gym.make("Reference-Drive-v0", scene=recording)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*we recommend using a symmetric and normalized space.*")
        check_env(env.unwrapped)


def test_reference_world_replays_its_own_recording(recording: Scene) -> None:
    result = rollout(gym.make("Reference-Drive-v0", scene=recording), ReplayPolicy(), seed=0, num_steps=10)
    assert np.array_equal(result.frames[0], recording.frames[3])
    for frame, log_frame in zip(result.frames, result.log_frames, strict=True):
        assert log_frame is not None
        assert np.abs(frame.astype(int) - log_frame).mean() < 2.0
    assert all(record.metrics["collision"] == {"value": 0.0, "is_valid": True} for record in result.steps)
    assert {record.confidence for record in result.steps} == {1.0}


def test_both_worlds_agree_on_all_but_the_picture_and_collisions(recording: Scene) -> None:
    envs = [
        gym.make("Reference-Drive-v0", scene=recording),
        gym.make("WorldDreamer-Drive-v0", scene=recording, world_model=FakeWorldModel()),
    ]
    assert envs[0].observation_space == envs[1].observation_space
    assert envs[0].action_space == envs[1].action_space
    starts = [env.reset(seed=0) for env in envs]
    assert starts[0][1].keys() == starts[1][1].keys()
    assert np.array_equal(starts[0][0], starts[1][0])
    for action in ([0.1, 6.0], [-0.2, 3.0], [0.0, 9.0]):
        steps = [env.step(np.array(action, dtype=np.float32)) for env in envs]
        infos = [step[4] for step in steps]
        assert steps[0][1:4] == steps[1][1:4]
        for info in infos:
            del info["confidence"], info["metrics"]["collision"], info["metrics"]["time_to_collision_s"]
        assert data_equivalence(infos[0], infos[1], exact=True)


def test_collision_terminates_and_costs(recording: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReferenceWorld, "is_collision", property(lambda _: True))
    env = gym.make("Reference-Drive-v0", scene=recording)
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(np.array([0.0, 8.0], dtype=np.float32))
    assert terminated is True
    assert truncated is False
    assert info["end_reason"] == "collision"
    assert info["rewards"]["collision"] == -RewardConfig().collision


def test_reference_environment_refuses_scenes_that_are_not_its_own() -> None:
    with pytest.raises(InputError, match=r"no recording of the reference world.*'paper-1'"):
        gym.make("Reference-Drive-v0", scene=make_scene(8))


def test_the_embedded_scene_is_the_default() -> None:
    env = gym.make("Reference-Drive-v0")
    observation, info = env.reset(seed=0)
    recorded = env.get_wrapper_attr("scene").frames[info["log_index"]]
    assert np.abs(observation.astype(int) - recorded).mean() < 4.0  # the recorded one went through JPEG
