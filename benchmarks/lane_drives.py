"""Long drives of a good driver on closed held-out roads, lap after lap: the reference world's part of the drift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.held_out import last_seed_of_kind
from benchmarks.open_loop import Twists
from drivesim import console
from drivesim.errors import InputError
from drivesim.reference.drive import Drive, drive
from drivesim.reference.drivers import named_driver
from drivesim.reference.route import Route
from drivesim.reference.simulator import ReferenceWorld, WorldSpec, draw_spec

NUM_ROADS, NUM_STEPS = 4, 600  # as published
WINDOW_STEPS = 50  # of the curves, and between the pictures of the sheet
MIN_SPEED_MPS = 1.5  # a standing car shows nothing
SEEDS_PER_ROAD = 60  # tried before the search gives up; about every third road is a loop
FURTHEST_M_PER_FRAME = 4  # no driver gets that far, so the laps outlast the drive


@dataclass(kw_only=True, slots=True)
class DriftConfig:
    """How long, and on how many roads at once."""

    first_seed: int  # the roads are the first fitting ones from here on
    num_roads: int = NUM_ROADS
    num_steps: int = NUM_STEPS

    def __post_init__(self) -> None:
        """Refuse drives of no length, on no road, or on roads that training may use."""
        last_seed_of_kind(self.first_seed)
        if self.num_roads < 1 or self.num_steps < 1:
            raise InputError(
                f"--drift-roads and --drift-steps must be at least 1, got {self.num_roads} and "
                f"{self.num_steps}; --drift-steps 0 leaves the drift out"
            )

    @property
    def window_ends(self) -> list[int]:
        """Return the last step of each stretch over which the curves are averaged."""
        return sorted({*range(WINDOW_STEPS, self.num_steps + 1, WINDOW_STEPS), self.num_steps})


def endless_world(spec: WorldSpec, *, length_m: int) -> ReferenceWorld | None:
    """Return the world of a closed road with a route of so many metres; None where the road has ends."""
    world = ReferenceWorld(spec)
    if not world.layout.is_loop:
        return None
    lap = world.layout.route_xy_m[:-1]  # about a metre apart
    first = int(np.argmin(np.square(lap - world.route.xy_m[0]).sum(axis=1)))
    world.route = Route(lap[(first + np.arange(length_m)) % len(lap)])
    return world


def keep_lane(spec: WorldSpec, *, num_frames: int) -> Drive | None:
    """Drive a closed road as a good driver does; None if it is not closed or the drive goes wrong.

    Wrong is a collision, a wheel off the road, or less than 1.5 m/s.
    """
    world = endless_world(spec, length_m=FURTHEST_M_PER_FRAME * num_frames)
    if world is None:
        return None
    driven = drive(world, named_driver("good", np.random.default_rng([spec.seed, 2])), num_frames=num_frames)
    is_slow = min(state.speed_mps for state in driven.states) < MIN_SPEED_MPS
    if is_slow or driven.is_collision.any() or any(driven.is_off_road(i) for i in range(num_frames)):
        return None
    return driven


def twist_of(driven: Drive) -> Twists:
    """Return the (T, 2) motion into each frame of a drive, as a recording notes it."""
    return np.stack([driven.speed_mps, driven.yaw_rate_radps], axis=-1).astype(np.float32)


def find_drives(config: DriftConfig, *, num_frames: int) -> list[Drive]:
    """Return lane-keeping drives on the first closed roads from a seed on.

    Raises:
        InputError: there are too few.
    """
    drives: list[Drive] = []
    with console.progress_bar("keeping the lane in the reference world", config.num_roads) as bar:
        last_seed = config.first_seed + SEEDS_PER_ROAD * config.num_roads - 1
        for seed in range(config.first_seed, min(last_seed, last_seed_of_kind(config.first_seed)) + 1):
            driven = keep_lane(draw_spec(seed), num_frames=num_frames)
            if driven is not None:
                drives.append(driven)
                bar.advance()
            if len(drives) == config.num_roads:
                return drives
    raise InputError(
        f"only {len(drives)} of {config.num_roads} roads from seed {config.first_seed} on can be followed "
        f"for {num_frames} frames; ask for fewer (--drift-roads) or a shorter drift (--drift-steps)"
    )
