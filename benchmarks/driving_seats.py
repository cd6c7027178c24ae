"""Episodes side by side in one world: the runner resets and steps rows and does not see what computes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from drivesim.policy_loading import Action
from drivesim.rollout import EpisodeConfig, make_env
from drivesim.scene.types import Image, Scene
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.world_model import WorldModel

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
        kwargs: dict[str, Any] = {}
        if episode.env_id == LEARNED:
            kwargs["world_model"] = shared_world_model(episode.weights, episode.device)
        self._envs = [make_env(episode, scene=scene, **kwargs) for scene in scenes]

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


def open_seats(episode: EpisodeConfig, scenes: Sequence[Scene]) -> Seats:
    """Return the fastest seats there are for a world."""
    return SingleSeats(episode, scenes)


@lru_cache(maxsize=1)
def shared_world_model(weights: str, device: str) -> WorldModel:
    """Load a world model once per process."""
    return load_world_model(weights, device=device)
