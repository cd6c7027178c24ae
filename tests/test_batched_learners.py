"""Learners over the batched environment itself: TorchRL, and a loop in the manner of CleanRL."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from helpers import make_scene
from small_models import small_world_model
from torch import Tensor, nn

import drivesim  # noqa: F401  (registers the environments)
from envs.world_dreamer_vector import WorldDreamerVectorEnv

STRAIGHT_ON = [0.0, 8.0]
NUM_STEPS = 8


@pytest.fixture(scope="module")
def scenes() -> list[Any]:
    """Return two roads; a car that goes straight on reaches the goal of the second within a few steps."""
    return [make_scene(24, steering_rad=0.0), make_scene(8, steering_rad=0.0)]


def make_batch(scenes: list[Any], mode: AutoresetMode | str, **settings: Any) -> gym.vector.VectorEnv:
    batch = gym.make_vec(
        "WorldDreamer-Drive-v0",
        num_envs=2,
        scenes=scenes,
        world_model=small_world_model(),
        autoreset_mode=mode,
        **settings,
    )
    assert isinstance(batch.unwrapped, WorldDreamerVectorEnv)
    return batch


def torchrl_wrapper() -> Any:
    pytest.importorskip("torchrl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what TorchRL says about itself while it is imported
        from torchrl.envs import GymWrapper
    return GymWrapper


def test_torchrl_drives_the_batch_past_the_ends_of_episodes(scenes: list[Any]) -> None:
    from_gym = torchrl_wrapper()
    from torchrl.envs.utils import check_env_specs

    env = from_gym(make_batch(scenes, "Disabled", max_episode_steps=5))
    check_env_specs(env)

    def straight_on(observation: Tensor) -> Tensor:
        return torch.tensor([STRAIGHT_ON] * len(observation))

    driven = env.rollout(NUM_STEPS, straight_on, break_when_any_done=False)
    env.close()
    is_done = driven["next", "done"][..., 0]
    assert driven["observation"].shape == (2, NUM_STEPS, 128, 224, 3)
    assert is_done[0].nonzero().flatten().tolist() == [4]
    assert driven["next", "truncated"][0, 4]
    assert is_done[1].sum() >= 2
    assert driven["next", "terminated"][1].equal(driven["next", "done"][1])
    for row, step in is_done[:, :-1].nonzero().tolist():
        first = torch.from_numpy(scenes[row].frames[3])
        assert driven["observation"][row, step + 1].equal(first)  # of the next episode
        assert not driven["next", "observation"][row, step].equal(first)  # the last of this one
    going = ~is_done[:, :-1]
    assert driven["observation"][:, 1:][going].equal(driven["next", "observation"][:, :-1][going])
    assert (driven["next", "reward"] != 0).all()  # no row rests


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (AutoresetMode.NEXT_STEP, "SAME_STEP or DISABLED"),
        (AutoresetMode.SAME_STEP, "expand_specs"),  # names and dicts in infos become no tensors
    ],
)
def test_torchrl_takes_no_other_mode_as_the_documentation_says(
    scenes: list[Any], mode: AutoresetMode, message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        torchrl_wrapper()(make_batch(scenes[:1], mode))


class Agent(nn.Module):
    """Actor and critic over every sixteenth pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(8 * 14 * 3, 16), nn.Tanh())
        self.critic, self.actor = nn.Linear(16, 1), nn.Linear(16, 2)
        self.log_std = nn.Parameter(torch.zeros(2))

    def forward(self, pictures: Tensor) -> tuple[torch.distributions.Normal, Tensor]:
        seen = self.body(pictures[:, ::16, ::16].float() / 255)
        return torch.distributions.Normal(self.actor(seen), self.log_std.exp()), self.critic(seen)[:, 0]


@torch.no_grad()
def collected(envs: gym.vector.VectorEnv, agent: Agent) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Drive ``NUM_STEPS``; returns what a learner keeps, each (T, B, ...), and the infos of the steps."""
    kept, told = [], []
    pictures, _ = envs.reset(seed=1)
    for _ in range(NUM_STEPS):
        chosen, value = agent(torch.from_numpy(pictures))
        action = chosen.sample()
        before = pictures
        pictures, reward, terminated, truncated, infos = envs.step(action.numpy())
        kept.append(
            {
                "picture": torch.from_numpy(before),
                "action": action,
                "log_prob": chosen.log_prob(action).sum(-1),
                "value": value,
                "reward": torch.from_numpy(reward).float(),
                "is_over": torch.from_numpy(terminated | truncated),
                "next_picture": torch.from_numpy(pictures),
            }
        )
        told.append(infos)
    return {name: torch.stack([step[name] for step in kept]) for name in kept[0]}, told


def advantages_of(kept: dict[str, Tensor], next_value: Tensor) -> Tensor:
    """Return the generalized advantages (T, B)."""
    advantages, last = torch.zeros_like(kept["reward"]), torch.zeros_like(next_value)
    for step in reversed(range(NUM_STEPS)):
        goes_on = (~kept["is_over"][step]).float()
        error = kept["reward"][step] + 0.99 * next_value * goes_on - kept["value"][step]
        advantages[step] = last = error + 0.99 * 0.95 * goes_on * last
        next_value = kept["value"][step]
    return advantages


def ppo_loss(agent: Agent, kept: dict[str, Tensor], advantages: Tensor) -> Tensor:
    chosen, value = agent(kept["picture"].flatten(0, 1))
    log_prob = chosen.log_prob(kept["action"].flatten(0, 1)).sum(-1)
    ratio = (log_prob - kept["log_prob"].flatten()).exp()
    gain = torch.minimum(ratio * advantages.flatten(), ratio.clamp(0.8, 1.2) * advantages.flatten())
    returns = (advantages + kept["value"]).flatten()
    return (value - returns).pow(2).mean() - gain.mean()


def test_a_loop_in_the_manner_of_cleanrl_learns_from_the_batch(scenes: list[Any]) -> None:
    torch.manual_seed(0)
    envs = gym.wrappers.vector.RecordEpisodeStatistics(make_batch(scenes, "SameStep", max_episode_steps=5))
    low = -np.ones(2, dtype=np.float32)
    envs = gym.wrappers.vector.ClipAction(gym.wrappers.vector.RescaleAction(envs, low, -low))
    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-2)
    at_first = [parameter.detach().clone() for parameter in agent.parameters()]
    kept, told = collected(envs, agent)
    envs.close()
    with torch.no_grad():
        advantages = advantages_of(kept, agent(kept["next_picture"][-1])[1])
    for _ in range(2):
        optimizer.zero_grad()
        ppo_loss(agent, kept, advantages).backward()
        optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(at_first, agent.parameters(), strict=True))
    ends = kept["is_over"].nonzero().tolist()
    assert {row for _, row in ends} == {0, 1}
    for step, row in ends:
        shown = kept["next_picture"][step, row].numpy()
        assert np.array_equal(shown, scenes[row].frames[3])  # the next episode has begun
        assert not np.array_equal(told[step]["final_obs"][row], shown)
        assert 1 <= told[step]["episode"]["l"][row] <= 5
        assert told[step]["final_info"]["log_index"][row] == 3 + told[step]["episode"]["l"][row]
