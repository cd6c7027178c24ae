"""Random worlds, random drivers -> a nuScenes data set (`drivesim data synth`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drivesim.errors import InputError
from drivesim.reference.behavior import Recording, record
from drivesim.reference.export import export_nuscenes
from drivesim.reference.seeds import FIRST_RESERVED_SEED
from drivesim.reference.simulator import WorldSpec, draw_spec
from drivesim.scene.nuscenes_writer import ExportConfig


@dataclass(kw_only=True, slots=True, frozen=True)
class ScenePlan:
    """One recording to be made."""

    spec: WorldSpec
    driver: str | None = None  # None draws one, good to reckless
    duration_s: float = 15.0
    rate_hz: float = 6.0

    def __post_init__(self) -> None:
        """Refuse reserved seeds and recordings of less than a second."""
        if self.spec.seed >= FIRST_RESERVED_SEED:
            raise InputError(
                f"road seed {self.spec.seed} is reserved; choose seeds below {FIRST_RESERVED_SEED}"
            )
        if not (self.duration_s >= 1.0 and self.rate_hz >= 1.0):
            raise InputError(f"need at least 1 s at 1 Hz, got {self.duration_s} s at {self.rate_hz} Hz")

    @property
    def num_frames(self) -> int:
        """Return the frames that span the duration, both ends included."""
        return int(np.ceil(self.duration_s * self.rate_hz - 1e-6)) + 1


def synthesize(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    duration_s: float = 15.0,
    rate_hz: float = 6.0,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Record worlds ``seed``, ``seed + 1``, ... and write them to the new folder ``out``.

    The folder appears only when complete. The same arguments give the same bytes.

    Args:
        out: data root to be.
        num_scenes: how many.
        seed: of the first world, and of its driver.
        duration_s: length of each scene.
        rate_hz: frames per second.
        on_progress: called with the number of scenes recorded so far.

    Returns:
        The number of scenes.

    Raises:
        InputError: no scenes, reserved seeds, too short, or ``out`` is there and not empty.
    """
    if num_scenes < 1 or seed < 0 or seed + num_scenes > FIRST_RESERVED_SEED:
        raise InputError(
            f"cannot record {num_scenes} scenes from seed {seed}; ask for at least 1, with seeds "
            f"from 0 to {FIRST_RESERVED_SEED - 1}"
        )
    plans = (
        ScenePlan(spec=draw_spec(number), duration_s=duration_s, rate_hz=rate_hz)
        for number in range(seed, seed + num_scenes)
    )
    return export_nuscenes(recordings(plans, on_progress=on_progress), out)


def record_plans(
    plans: Iterable[ScenePlan],
    out: Path,
    *,
    export: ExportConfig,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Record chosen worlds and write them to the new folder ``out``; return the number of scenes."""
    return export_nuscenes(recordings(plans, on_progress=on_progress), out, config=export)


def recordings(
    plans: Iterable[ScenePlan], *, on_progress: Callable[[int], None] | None = None
) -> Iterator[Recording]:
    """Make one recording after another; the driver's chance follows from the road seed."""
    for count, plan in enumerate(plans, start=1):
        yield record(
            plan.spec,
            driver=plan.driver,
            num_frames=plan.num_frames,
            driver_seed=plan.spec.seed,
            rate_hz=plan.rate_hz,
        )
        if on_progress is not None:
            on_progress(count)
