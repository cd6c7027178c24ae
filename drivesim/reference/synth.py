"""`drivesim data synth`: random worlds, random drivers -> a nuScenes data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drivesim.errors import InputError
from drivesim.reference.behavior import Recording, record
from drivesim.reference.export import ExportConfig, export_nuscenes
from drivesim.reference.simulator import draw_spec

RESERVED_SEED = 950_000
"""Road seeds from here on are kept for later comparisons and are never recorded."""


@dataclass(kw_only=True, slots=True)
class SynthConfig:
    """What is recorded. Scene ``i`` is the world of road seed ``first_seed + i``."""

    num_scenes: int = 10
    first_seed: int = 0
    duration_s: float = 15.0
    rate_hz: float = 6.0
    driver: str | None = None  # a driver's name; None draws one per scene, good to reckless

    def __post_init__(self) -> None:
        """Refuse empty data sets, reserved seeds and scenes of less than a second."""
        if self.num_scenes < 1:
            raise InputError(f"cannot record {self.num_scenes} scenes; ask for at least 1")
        if self.first_seed < 0 or self.first_seed + self.num_scenes > RESERVED_SEED:
            last = self.first_seed + self.num_scenes - 1
            raise InputError(
                f"seeds {self.first_seed} to {last} are not all within 0 to {RESERVED_SEED - 1}; choose others"
            )
        if not (self.duration_s >= 1.0 and self.rate_hz >= 1.0):
            raise InputError(f"need at least 1 s and 1 Hz, got {self.duration_s} s and {self.rate_hz} Hz")


def synthesise(
    out: Path,
    config: SynthConfig,
    *,
    export: ExportConfig | None = None,
    on_scene: Callable[[Recording], None] | None = None,
) -> int:
    """Record worlds and write them to the new folder ``out``, which appears only when complete.

    Args:
        out: data root to be.
        config: what to record.
        export: how to write it.
        on_scene: called after each recorded scene, for progress.

    Returns:
        The number of scenes.
    """
    return export_nuscenes(recordings(config, on_scene=on_scene), out, config=export)


def recordings(
    config: SynthConfig, *, on_scene: Callable[[Recording], None] | None = None
) -> Iterator[Recording]:
    """Record one scene after another; the same config gives the same scenes."""
    num_frames = int(np.ceil(config.duration_s * config.rate_hz)) + 1
    for seed in range(config.first_seed, config.first_seed + config.num_scenes):
        recording = record(
            draw_spec(seed),
            driver=config.driver,
            num_frames=num_frames,
            driver_seed=seed,
            rate_hz=config.rate_hz,
        )
        if on_scene is not None:
            on_scene(recording)
        yield recording
