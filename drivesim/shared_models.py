"""Which models an episode takes; those that are named by weights are loaded once for all environments of a process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from drivesim.checkpoint import resolve_weights
from drivesim.episode import EpisodeConfig
from drivesim.hazard import HazardHead, load_hazard_head
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.world_model import WorldModel

SHIPPED_WEIGHTS, SHIPPED_HEAD = "drive-tiny", "hazard-tiny"


def models_of(
    episode: EpisodeConfig, world_model: WorldModel | None, hazard_head: HazardHead | str | None
) -> tuple[WorldModel, HazardHead | None]:
    """Return the models of an episode; those that are given go before those that it names.

    A hazard head reads the pictures of the weights that it was trained on. So without a name, the shipped one is taken
    for the shipped weights, and none for others.

    Raises:
        InputError: weights that do not exist or cannot be read.
    """
    name = hazard_head_name(episode) if world_model is None else episode.hazard_head
    if not isinstance(hazard_head, HazardHead):
        hazard_head = shared_hazard_head(name, episode.device) if name else None
    if world_model is None:
        world_model = shared_world_model(episode.weights, episode.device, episode.is_compiled)
    return world_model, hazard_head


def hazard_head_name(episode: EpisodeConfig) -> str:
    """Return the name or path of the hazard head that an episode takes with the weights it names; "" is none."""
    if episode.hazard_head is None:
        return SHIPPED_HEAD if episode.weights == SHIPPED_WEIGHTS else ""
    return episode.hazard_head


def shared_world_model(name_or_path: str, device: str, is_compiled: bool = False) -> WorldModel:
    """Return a world model that all environments of a process share; it is read again when its file changes."""
    path = resolve_weights(name_or_path)
    return _world_model_of(path, path.stat().st_mtime_ns, device, is_compiled)


def shared_hazard_head(name_or_path: str, device: str) -> HazardHead:
    """Return a hazard head likewise."""
    path = resolve_weights(name_or_path)
    return _hazard_head_of(path, path.stat().st_mtime_ns, device)


@lru_cache(maxsize=2)
def _world_model_of(path: Path, modified_ns: int, device: str, is_compiled: bool) -> WorldModel:
    return load_world_model(path, device=device, is_compiled=is_compiled)


@lru_cache(maxsize=2)
def _hazard_head_of(path: Path, modified_ns: int, device: str) -> HazardHead:
    return load_hazard_head(path, device=device)
