"""An episode at an instant, as a value: save it, restore it, branch from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from envs.ride import RidePlace


@dataclass(kw_only=True, frozen=True)
class EpisodeState:
    """All that is needed to go on from an instant, in a few kilobytes.

    In the process that saved it, it also holds on to the world's own state (for the learned world: tokens, pictures
    and the cache of attention, some megabytes that are shared and never copied), so that restoring takes no time. That
    part is left out when the state is pickled, and restoring drives the episode again from its start: the same actions
    and chance lead to the same pictures, bit for bit, on one machine with one number of threads.
    """

    env_id: str
    scene: str
    settings: str  # short hash of all that decides what the world shows
    start_index: int
    world_seed: int  # of all chance in the world since the start
    actions: tuple[tuple[float, float], ...]  # steering in rad, target speed in m/s
    place: RidePlace
    chance: dict[str, Any]  # state of the environment's own generator, from which later resets draw
    world: Any = None  # left out of a pickle

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds."""
        return {**self.__dict__, "world": None}

    def without_world(self) -> EpisodeState:
        """Return the same state without what the world holds in memory: small to keep, slower to restore."""
        return EpisodeState(**self.__getstate__())
