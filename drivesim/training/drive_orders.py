"""What recording processes are asked for and what they tell of a clip: plain data, free of the reference world."""

from __future__ import annotations

from dataclasses import dataclass

from drivesim.training.balance import BalanceConfig


@dataclass(kw_only=True, slots=True)
class DriveOrder:
    """What all drives of a stream have in common."""

    seed_words: list[int]  # of the stream; the number of the drive is added
    first_seed: int  # of the roads
    last_seed: int
    clips_per_drive: int
    frames_per_clip: int
    balance: BalanceConfig


@dataclass(kw_only=True, slots=True)
class ClipOrigin:
    """Where a clip comes from, enough to record it again, and what cannot be read from its motion."""

    log_name: str  # names the world, such as ``reference-winding-17``
    driver: str
    driver_seed: int
    start: int  # index of its first frame in the drive
    weather: str
    mean_cars_in_view: float
