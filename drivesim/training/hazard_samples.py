"""Samples for the hazard head: how many are made, and how they lie in memory and on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.hazard_inputs import HazardInputs
from drivesim.training.hazard_drives import SEEDS_PER_DRIVE

Arrays = dict[str, NDArray[Any]]


@dataclass(kw_only=True, slots=True)
class HazardSetConfig:
    """How much is driven, shown and imagined."""

    weights: str = "drive-tiny"  # of the world model
    num_drives: int = 400  # each with true and imagined states
    num_long_drives: int = 24  # half end in a collision, half in none; imagined at length
    frames_per_drive: int = 80
    true_states_per_drive: int = 36
    num_imagined: int = 12
    num_imagined_long: int = 60
    no_map_share: float = 0.25  # of the imagined drives, in which the world model is shown no map

    def __post_init__(self) -> None:
        """Refuse empty sets and drives that are too short."""
        if min(self.num_drives, self.true_states_per_drive, self.num_imagined, self.num_imagined_long) < 1:
            raise ValueError("a hazard set needs drives, true states and imagined frames: at least 1 each")
        if self.frames_per_drive < 12 or not 0 <= self.no_map_share <= 1 or self.num_long_drives < 0:
            raise ValueError(
                "a hazard set needs frames_per_drive >= 12, num_long_drives >= 0 and a share no_map_share, got "
                f"{self.frames_per_drive}, {self.num_long_drives} and {self.no_map_share}"
            )

    @property
    def num_all_drives(self) -> int:
        """Return how many drives the set has."""
        return self.num_drives + self.num_long_drives

    @property
    def num_seeds(self) -> int:
        """Return how many road seeds the set may use."""
        return self.num_all_drives * SEEDS_PER_DRIVE


@dataclass(kw_only=True, slots=True)
class HazardSamples:
    """N states with what came after them."""

    pictures: NDArray[np.uint8]  # (N, 6, h, w)
    token_ids: NDArray[np.int16]  # (N, S)
    facts: NDArray[np.float32]  # (N, F)
    event: NDArray[np.int8]  # (N, 2) steps until collision and off-road, -1 for none
    known: NDArray[np.int8]  # (N,) steps that are known
    cars: NDArray[np.bool_]  # (N, cells) where other cars are, see ``cars_ahead``
    depth: NDArray[np.int16]  # (N,) frames imagined since the last true one; 0 is a true state
    road: NDArray[np.int64]  # (N,) seed of the road
    rollout: NDArray[np.int64]  # (N,) which imagined drive it is of, or -1
    wanted: NDArray[np.str_]  # (N,) what the drive was to show

    def __len__(self) -> int:
        """Return N."""
        return len(self.known)

    def chosen(self, is_chosen: NDArray[np.bool_]) -> HazardSamples:
        """Return some of the samples."""
        return HazardSamples(**{name: getattr(self, name)[is_chosen] for name in self.__slots__})

    def inputs(self, indices: NDArray[np.int64] | slice = slice(None)) -> HazardInputs:
        """Return what the head reads of some of the samples."""
        return HazardInputs(
            pictures_BCHW=torch.from_numpy(self.pictures[indices]),
            token_ids_BS=torch.from_numpy(self.token_ids[indices]),
            facts_BF=torch.from_numpy(self.facts[indices]),
        )


def stacked(parts: list[dict[str, Any]]) -> Arrays:
    """Join parts of several rows; numbers and words stand for all rows of their part."""
    kinds: Arrays = {
        "depth": np.array([], np.int16),
        "road": np.array([], np.int64),
        "rollout": np.array([], np.int64),
        "wanted": np.array([], "U12"),
        "facts": np.array([], np.float32),
    }
    arrays: Arrays = {}
    for name in HazardSamples.__slots__:
        columns = [
            np.broadcast_to(part[name], len(part["known"])) if np.ndim(part[name]) == 0 else part[name]
            for part in parts
        ]
        joined = np.concatenate(columns)
        arrays[name] = joined.astype(kinds[name].dtype) if name in kinds else joined
    return arrays


def read_shards(paths: list[Path]) -> HazardSamples:
    """Return the samples of all shards.

    Raises:
        InputError: a shard is damaged.
    """
    shards = []
    for path in paths:
        try:
            with path.open("rb") as file, np.load(file) as shard:
                shards.append({name: shard[name] for name in HazardSamples.__slots__})
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(f"{path} cannot be read ({error}); remove it so that it is made anew") from error
    return HazardSamples(
        **{name: np.concatenate([shard[name] for shard in shards]) for name in HazardSamples.__slots__}
    )
