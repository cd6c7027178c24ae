"""Drives of the reference world as a phone behind the windscreen would record them: a video and a table each.

Their pictures are in other graphics (``restyle.py``), so that they stand for a world that no shipped weights know.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from drivesim.errors import InputError
from drivesim.files import atomic_folder
from drivesim.reference.drive import Drive, drive
from drivesim.reference.drivers import draw_driver
from drivesim.reference.restyle import Graphics, other_camera, restyled
from drivesim.reference.seeds import FIRST_RESERVED_SEED
from drivesim.reference.simulator import ReferenceWorld, draw_spec
from drivesim.scene.types import Camera
from drivesim.video import write_video

RATE_HZ = 12.0
MIN_DRIVE_S = 5.0  # a drive that ends earlier, in a crash, is left out
VIDEO_NAME, TABLE_NAME = "drive.mp4", "drive.csv"
COLUMNS = ("time_s", "speed_mps", "steering_rad", "yaw_rate_radps")


@dataclass(kw_only=True, slots=True)
class FilmConfig:
    """What is recorded."""

    total_s: float = 180.0  # of all drives
    drive_s: float = 30.0  # of each; shorter where the car crashes, as nobody records on
    first_seed: int = 0  # of the roads
    graphics: Graphics = field(default_factory=Graphics)
    camera: Camera = field(default_factory=other_camera)
    crf: int = 18  # of the video: H.264's constant rate factor

    def __post_init__(self) -> None:
        """Refuse drives that are too short, and reserved roads."""
        if not self.total_s >= self.drive_s >= MIN_DRIVE_S:
            raise InputError(
                f"drives last {MIN_DRIVE_S:g} s at least and no longer than all together, got {self.drive_s:g} and "
                f"{self.total_s:g} s"
            )
        if not 0 <= self.first_seed < FIRST_RESERVED_SEED:
            raise InputError(f"road seeds go from 0 to {FIRST_RESERVED_SEED - 1}, got {self.first_seed}")


def film(config: FilmConfig, out: Path, *, on_progress: Callable[[int], None] | None = None) -> int:
    """Record drives into the new folder ``out``, one folder each with ``drive.mp4`` and ``drive.csv``.

    Returns:
        The number of drives.

    Raises:
        InputError: ``out`` exists and is not empty.
    """
    left, seed, count = round(config.total_s * RATE_HZ), config.first_seed, 0
    try:
        with atomic_folder(out) as folder:
            while left >= round(MIN_DRIVE_S * RATE_HZ):
                driven = _driven(config, seed, min(left, round(config.drive_s * RATE_HZ)))
                if len(driven) >= round(MIN_DRIVE_S * RATE_HZ):
                    _write(config, driven, folder / f"reference-filmed-{seed}", seed)
                    left, count = left - len(driven), count + 1
                    if on_progress is not None:
                        on_progress(round(config.total_s - left / RATE_HZ))
                seed += 1
    except FileExistsError as error:
        raise InputError(str(error)) from error
    return count


def _driven(config: FilmConfig, seed: int, num_frames: int) -> Drive:
    """Return a drive, up to the first crash."""
    driver = draw_driver(np.random.default_rng([seed, 2]))
    driven = drive(
        ReferenceWorld(draw_spec(seed), camera=config.camera, rate_hz=RATE_HZ), driver, num_frames=num_frames
    )
    length = int(np.argmax(driven.is_collision)) if driven.is_collision.any() else num_frames
    return Drive(
        world=driven.world,
        driver=driver,
        states=driven.states[:length],
        traffic=driven.traffic[:length],
        is_collision=driven.is_collision[:length],
    )


def _write(config: FilmConfig, driven: Drive, folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, 3])
    frames = (restyled(driven.picture(index), config.graphics, rng) for index in range(len(driven)))
    write_video(folder / VIDEO_NAME, frames, RATE_HZ, crf=config.crf)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    turning = _at_instants(driven)
    for index, state in enumerate(driven.states):
        row = (index / RATE_HZ, state.speed_mps, state.steering_rad, turning[index])
        writer.writerow([f"{value:.5f}" for value in row])
    (folder / TABLE_NAME).write_text(table.getvalue(), encoding="utf-8")


def _at_instants(driven: Drive) -> list[float]:
    """Return the yaw rates at the pictures; those of a drive are means over the steps that lead to them."""
    into = driven.yaw_rate_radps
    return (0.5 * (into + np.append(into[1:], into[-1]))).tolist()
