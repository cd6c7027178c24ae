"""The learner's view: what it shows, how its actions drive, and the libraries that train through it."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers import DT_S, FakeWorldModel, make_scene
from torch import nn

import drivesim  # noqa: F401  (registers the environments)
from drivesim.learner_view import (
    STATE_LIMIT,
    STATE_SIZE,
    LearnerViewConfig,
    car_action,
    learner_observation,
    state_vector,
)
from envs.learner_view import LearnerView, learner_action_space, learner_observation_space


def make_env(num_frames: int = 24, **settings: Any) -> gym.Env:
    return gym.make(
        "WorldDreamer-Drive-v0", scene=make_scene(num_frames), world_model=FakeWorldModel(), **settings
    )


def some_info(**ego: float) -> dict[str, Any]:
    env = make_env()
    info = env.reset(seed=0)[1]
    info["ego"] |= ego
    return info


def test_the_observation_lies_in_its_space() -> None:
    config = LearnerViewConfig()
    env = LearnerView(make_env(), config)
    space = learner_observation_space(config)
    observation, info = env.reset(seed=0)
    assert space.contains(observation)
    assert observation["image"].shape == (36, 64, 3)
    assert observation["state"].shape == (STATE_SIZE,)
    observation, reward, terminated, truncated, info = env.step(np.array([0.1, 0.0], np.float32))
    assert space.contains(observation)
    assert (terminated, truncated) == (False, False)
    assert reward == pytest.approx(sum(info["rewards"].values()))


def test_without_pictures_there_is_only_the_state() -> None:
    config = LearnerViewConfig(has_image=False)
    observation, _ = LearnerView(make_env(), config).reset(seed=0)
    assert set(observation) == {"state"}
    assert learner_observation_space(config).contains(observation)
    with pytest.raises(ValueError, match="pixels"):
        LearnerViewConfig(width_px=0)


def test_the_state_tells_route_motion_and_valid_hazards() -> None:
    info = some_info(speed_mps=10.0, yaw_rate_radps=0.3)
    state = state_vector(info)
    assert state[:2] == pytest.approx(info["route_ahead_m"][1] / 20)
    assert state[14] == pytest.approx(0.5)
    assert state[16] == pytest.approx(0.3)
    info["hazards"] = {
        "collision": {"value": 0.7, "is_valid": True},
        "off_road": {"value": 0.9, "is_valid": False},
    }
    assert len(state_vector(info)) == STATE_SIZE
    assert state_vector(info, has_hazards=True)[-2:] == pytest.approx([0.7, 0.0])
    info["route_ahead_m"] = info["route_ahead_m"] * 1e6
    assert np.abs(state_vector(info)).max() <= STATE_LIMIT


def test_hazards_are_part_of_the_space_if_asked_for() -> None:
    config = LearnerViewConfig(has_image=False, has_hazards=True)
    env = LearnerView(make_env(), config)
    assert env.observation_space["state"].shape == (config.state_size,) == (STATE_SIZE + 2,)
    assert env.observation_space.contains(env.reset(seed=0)[0])


@pytest.mark.parametrize(
    ("action", "steering_rad", "speed_mps"),
    [
        ([0.0, 0.0], 0.0, 8.0),
        ([1.0, 1.0], 0.5, 8.0 + 4.0 * DT_S),
        ([-1.0, -1.0], -0.5, 8.0 - 8.0 * DT_S),
        ([0.1, 0.5], 0.5 * (0.03 + 0.0007), 8.0 + 2.0 * DT_S),
        ([9.0, 0.0], 0.5, 8.0),
    ],
)
def test_wheel_and_pedal_become_an_action_of_the_car(
    action: list[float], steering_rad: float, speed_mps: float
) -> None:
    driven = car_action(action, some_info(speed_mps=8.0))
    assert driven.dtype == np.float32
    assert driven == pytest.approx([steering_rad, speed_mps], abs=1e-6)


def test_any_action_of_the_view_is_one_of_the_car() -> None:
    env = make_env()
    rng = np.random.default_rng(0)
    for speed_mps in (0.0, 0.4, 19.9, 20.0):
        info = some_info(speed_mps=speed_mps)
        for action in rng.uniform(-1, 1, (20, 2)):
            assert env.action_space.contains(car_action(action, info))


def test_the_view_does_not_change_the_frame() -> None:
    frame = np.zeros((128, 224, 3), np.uint8)
    frame[64:] = 200
    seen = learner_observation(frame, some_info(), LearnerViewConfig())
    assert seen["image"][0].max() == 0
    assert seen["image"][-1].min() == 200


def test_a_step_before_reset_is_refused_and_gymnasium_finds_no_fault() -> None:
    env = LearnerView(make_env())
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(2, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version.*")
        check_env(LearnerView(make_env().unwrapped), skip_render_check=True)


class Agent(nn.Module):
    """Actor and critic as CleanRL writes them, over the state."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(STATE_SIZE, 16), nn.Tanh(), nn.Linear(16, 1))
        self.actor = nn.Sequential(nn.Linear(STATE_SIZE, 16), nn.Tanh(), nn.Linear(16, 2))
        self.log_std = nn.Parameter(torch.zeros(2))

    def forward(self, state: torch.Tensor) -> tuple[torch.distributions.Normal, torch.Tensor]:
        return torch.distributions.Normal(self.actor(state), self.log_std.exp()), self.critic(state)


def test_a_loop_in_the_manner_of_cleanrl_learns_from_a_vector_environment() -> None:
    torch.set_num_threads(1)
    make = [lambda: LearnerView(make_env(max_episode_steps=4), LearnerViewConfig(has_image=False))] * 2
    envs = SyncVectorEnv(make, autoreset_mode=AutoresetMode.SAME_STEP)
    assert envs.single_action_space == learner_action_space()
    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-2)
    first = [parameter.detach().clone() for parameter in agent.parameters()]
    observation, _ = envs.reset(seed=[1, 2])
    num_ends = 0
    losses = []
    for _ in range(8):
        chosen, value = agent(torch.from_numpy(observation["state"]))
        action = chosen.sample()
        observation, reward, terminated, truncated, infos = envs.step(action.clamp(-1, 1).numpy())
        num_ends += int((terminated | truncated).sum())
        advantage = torch.from_numpy(reward).float() - value[:, 0]
        losses.append((-chosen.log_prob(action).sum(-1) * advantage.detach() + advantage**2).mean())
    torch.stack(losses).mean().backward()
    optimizer.step()
    assert num_ends == 4
    assert "final_obs" in infos
    assert all(not torch.equal(a, b) for a, b in zip(first, agent.parameters(), strict=True))
    envs.close()


def test_torchrl_rolls_the_environment_out() -> None:
    pytest.importorskip("torchrl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what TorchRL says about itself while it is imported
        from torchrl.envs import GymWrapper
        from torchrl.envs.utils import check_env_specs
    env = GymWrapper(LearnerView(make_env(max_episode_steps=5)))
    try:
        check_env_specs(env)
        driven = env.rollout(12, break_when_any_done=False)
        assert driven["image"].shape == (12, 36, 64, 3)
        assert driven["action"].abs().max() <= 1
        assert driven["next", "reward"].shape == (12, 1)
        assert int(driven["next", "truncated"].sum()) >= 2
    finally:
        env.close()


def test_torchrl_makes_the_environment_by_name() -> None:
    pytest.importorskip("torchrl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchrl.envs import GymEnv
    env = GymEnv(
        "WorldDreamer-Drive-v0",
        scene=make_scene(24),
        world_model=FakeWorldModel(),
        device="cpu",
        from_pixels=False,
    )
    driven = env.rollout(3)
    assert driven["pixels" if "pixels" in driven.keys() else "observation"].shape == (3, 128, 224, 3)  # noqa: SIM118
    env.close()


def test_seeds_reproduce_what_a_learner_sees() -> None:
    driven = []
    for _ in range(2):
        env = LearnerView(make_env())
        first, _ = env.reset(seed=4)
        steps = [env.step(np.array([0.2, 0.1], np.float32))[0]["image"] for _ in range(3)]
        driven.append([first["image"], *steps])
    assert all(np.array_equal(a, b) for a, b in zip(*driven, strict=True))
    assert any(not np.array_equal(a, b) for a, b in itertools.pairwise(driven[0]))
