"""Episodes side by side in one world: the runner resets and steps rows and does not see what computes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drivesim.policy_loading import Action
from drivesim.rollout import EpisodeConfig, make_env
from drivesim.scene.types import Image, Scene
from envs.world_dreamer_vector import WorldDreamerVectorEnv

LEARNED = "WorldDreamer-Drive-v0"


@dataclass(kw_only=True, slots=True, frozen=True)
class Seen:
    """What one row shows after a reset or a step."""

    observation: Image
    info: dict[str, Any]
    reward: float = 0.0
    is_over: bool = False


class Seats(ABC):
    """Rows of one world. Rows that are over, or whose driver has left, are not stepped any more."""

    @abstractmethod
    def reset(self, seeds: Sequence[int]) -> list[Seen]:
        """Start every row from its scene, each with its seed."""

    @abstractmethod
    def step(self, actions: Mapping[int, Action]) -> dict[int, Seen]:
        """Step the rows that have an action."""

    @abstractmethod
    def close(self) -> None:
        """Free the world."""


class SingleSeats(Seats):
    """One environment per row."""

    def __init__(self, episode: EpisodeConfig, scenes: Sequence[Scene]) -> None:
        """Make an environment for each scene."""
        self._envs = [make_env(episode, scene=scene) for scene in scenes]

    def reset(self, seeds: Sequence[int]) -> list[Seen]:
        """Reset every environment."""
        shown = []
        for env, seed in zip(self._envs, seeds, strict=True):
            observation, info = env.reset(seed=seed)
            shown.append(Seen(observation=observation, info=info))
        return shown

    def step(self, actions: Mapping[int, Action]) -> dict[int, Seen]:
        """Step the environments one after the other."""
        shown = {}
        for row, action in actions.items():
            observation, reward, terminated, truncated, info = self._envs[row].step(action)
            shown[row] = Seen(
                observation=observation, info=info, reward=float(reward), is_over=terminated or truncated
            )
        return shown

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()


class VectorSeats(Seats):
    """All rows in one batched environment of the learned world, the same bit for bit as one per row."""

    def __init__(self, episode: EpisodeConfig, scenes: Sequence[Scene]) -> None:
        """Make the environment; its scenes must share a camera."""
        self._env = WorldDreamerVectorEnv(
            num_envs=len(scenes),
            episode=episode,
            scenes=scenes,
            max_episode_steps=episode.horizon,
            autoreset_mode="Disabled",
        )

    def reset(self, seeds: Sequence[int]) -> list[Seen]:
        """Begin every row."""
        observations, _ = self._env.reset(seed=list(seeds))
        return [
            Seen(observation=observation, info=info)
            for observation, info in zip(observations, self._env.infos, strict=True)
        ]

    def step(self, actions: Mapping[int, Action]) -> dict[int, Seen]:
        """Step all rows that are not over; one whose driver has left stands on the brakes, unseen."""
        given = np.zeros((self._env.num_envs, 2), dtype=np.float32)
        for row, action in actions.items():
            given[row] = action
        observations, rewards, terminated, truncated, _ = self._env.step(given)
        return {
            row: Seen(
                observation=observations[row],
                info=self._env.infos[row],
                reward=float(rewards[row]),
                is_over=bool(terminated[row] or truncated[row]),
            )
            for row in actions
        }

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


def open_seats(episode: EpisodeConfig, scenes: Sequence[Scene]) -> Seats:
    """Return the fastest seats there are for these scenes."""
    is_learned = episode.env_id == LEARNED
    if is_learned and all(scene.camera.equals(scenes[0].camera) for scene in scenes):
        return VectorSeats(episode, scenes)
    return SingleSeats(episode, scenes)
