"""Drives of the reference world whose hazards are known: when the car touches another one, when it leaves the road.

Driving costs a fraction of drawing: what is wanted is looked for before anything is drawn, and only the instants to
learn from are drawn at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from drivesim.hazard_inputs import ACROSS_M, AHEAD_M, CELLS
from drivesim.metrics.driving import off_road
from drivesim.reference.drive import Drive, drive
from drivesim.reference.drivers import HABITS, Habits, RoadDriver
from drivesim.reference.simulator import ReferenceWorld, draw_spec
from drivesim.scene.geometry import FloatArray, global_from_ego, transform_points

NONE = -1  # in place of the step of an event that does not happen as far as is known
NUM_TRIES = 6  # drives in search of what is wanted
SEEDS_PER_DRIVE = 8
FIRST_EVENT = 6  # earlier events leave no room for a context
OFF_ROAD_LIMIT = 0.5  # as in EpisodeConfig
BLIND = "blind"
BLIND_HABITS = Habits(
    words="seeing no other car", speed_mps=(6.0, 12.0), lateral_accel_mps2=(2.0, 3.5), headway_s=0.0
)


class Wanted(Enum):
    """What a drive is looked for to show."""

    COLLISION = "collision"
    OFF_ROAD = "off-road"
    NOTHING = "nothing"
    BLIND = "blind"  # a good driver who sees no other car, and is lucky


DRIVERS: dict[Wanted, dict[str, float]] = {
    Wanted.COLLISION: {"collision": 0.45, BLIND: 0.25, "near-collision": 0.15, "speeding": 0.15},
    Wanted.OFF_ROAD: {"leaving-road": 0.45, "bursts": 0.3, "random": 0.15, "swerving": 0.1},
    Wanted.NOTHING: {
        "good": 0.2,
        BLIND: 0.2,
        "near-collision": 0.2,
        "sloppy": 0.1,
        "swerving": 0.1,
        "bursts": 0.1,
        "speeding": 0.05,
        "stop-and-go": 0.05,
    },
    Wanted.BLIND: {BLIND: 1.0},
}
SHARES = {Wanted.COLLISION: 0.4, Wanted.OFF_ROAD: 0.25, Wanted.NOTHING: 0.35}
"""Of the drives that are looked for; of those behind imagined pictures too."""


@dataclass(kw_only=True, slots=True)
class KnownDrive:
    """A drive of T instants with its events."""

    drive: Drive
    seed: int
    is_contact: NDArray[np.bool_]  # (T,)
    is_off_road: NDArray[np.bool_]  # (T,) more than half of the footprint
    gap_m: FloatArray  # (T,) from the car's middle to the nearest other one's

    @property
    def last(self) -> int:
        """Return the last instant that means anything: the first contact, or the last of all."""
        contacts = np.flatnonzero(self.is_contact)
        return int(contacts[0]) if len(contacts) else len(self.is_contact) - 1

    @property
    def pose(self) -> FloatArray:
        """Return the (T, 3) poses."""
        return np.concatenate([self.drive.xy_m, self.drive.yaw_rad[:, None]], axis=1)

    @property
    def twist(self) -> FloatArray:
        """Return the (T, 2) motion into each instant."""
        return np.stack([self.drive.speed_mps, self.drive.yaw_rate_radps], axis=1)

    def first(self, wanted: Wanted) -> int:
        """Return the instant of the event that is wanted; the nearest approach to another car where none is."""
        if wanted is Wanted.COLLISION and self.is_contact.any():
            return self.last
        if wanted is Wanted.OFF_ROAD and self.is_off_road[: self.last + 1].any():
            return int(np.flatnonzero(self.is_off_road)[0])
        return int(np.argmin(self.gap_m[: self.last + 1]))

    def labels(self, instants: NDArray[np.int64], num_steps: int) -> Labels:
        """Return when each event comes after some instants, none of them after the first contact."""
        arrays = (self.is_contact, self.is_off_road)
        found = [[first_step(a, t, last=self.last, num_steps=num_steps) for a in arrays] for t in instants]
        known = np.minimum(num_steps, self.last - instants)
        return Labels(
            event_NE=np.array(found, dtype=np.int8).reshape(-1, len(arrays)),
            known_N=known.astype(np.int8),
        )


@dataclass(kw_only=True, slots=True)
class Labels:
    """When events come after N instants."""

    event_NE: NDArray[np.int8]  # steps until collision and off-road; ``NONE`` where not within what is known
    known_N: NDArray[np.int8]  # steps that are known, at most those looked ahead


def cars_ahead(known: KnownDrive, instant: int) -> NDArray[np.bool_]:
    """Return in which of the cells before the car, (ahead * across,), others are at an instant."""
    found = np.zeros(CELLS, bool)
    boxes = known.drive.traffic[instant]
    if not boxes:
        return found.ravel()
    corners = np.stack(np.meshgrid(np.linspace(-0.5, 0.5, 5), np.linspace(-0.5, 0.5, 3)), axis=-1).reshape(
        -1, 2
    )
    points = np.concatenate(
        [
            transform_points(
                global_from_ego((box.x_m, box.y_m), box.yaw_rad), corners * (box.length_m, box.width_m)
            )
            for box in boxes
        ]
    )
    x_m, y_m, yaw_rad = known.pose[instant]
    ego_m = transform_points(np.linalg.inv(global_from_ego((x_m, y_m), yaw_rad)), points)
    low, high = np.array([AHEAD_M[0], ACROSS_M[0]]), np.array([AHEAD_M[1], ACROSS_M[1]])
    cells = np.floor((ego_m - low) / (high - low) * CELLS).astype(np.int64)
    is_inside = ((cells >= 0) & (cells < CELLS)).all(axis=1)
    found[tuple(cells[is_inside].T)] = True
    return found.ravel()


def first_step(is_event: NDArray[np.bool_], instant: int, *, last: int, num_steps: int) -> int:
    """Return how many steps after an instant an event comes, 0 for now; ``NONE`` if not within ``num_steps``.

    Nothing is known beyond the instant ``last``.
    """
    ahead = np.flatnonzero(is_event[instant : min(instant + num_steps, last) + 1])
    return int(ahead[0]) if len(ahead) else NONE


def draw_wanted(rng: np.random.Generator) -> Wanted:
    """Draw what a drive is to show."""
    kinds = list(SHARES)
    return kinds[int(rng.choice(len(kinds), p=list(SHARES.values())))]


def find_drive(wanted: Wanted, *, first_seed: int, num_frames: int) -> KnownDrive:
    """Return the first drive from a road seed on that shows what is wanted, else the last one tried."""
    for seed in range(first_seed, first_seed + NUM_TRIES):
        known = known_drive(wanted, seed=seed, num_frames=num_frames)
        if _shows(known, wanted):
            break
    return known


def known_drive(wanted: Wanted, *, seed: int, num_frames: int) -> KnownDrive:
    """Drive the world of a seed with one of the drivers that may show what is wanted."""
    rng = np.random.default_rng([seed, 7])
    names = list(DRIVERS[wanted])
    name = names[int(rng.choice(len(names), p=list(DRIVERS[wanted].values())))]
    driver = RoadDriver(name, HABITS.get(name, BLIND_HABITS), rng)
    driven = drive(ReferenceWorld(draw_spec(seed)), driver, num_frames=num_frames)
    return with_events(driven, seed=seed)


def with_events(driven: Drive, *, seed: int) -> KnownDrive:
    """Return a drive with what is known of it."""
    world = driven.world
    shares = [off_road(state, world.drivable, world.vehicle).value for state in driven.states]
    middle_m = world.vehicle.length_m / 2 - world.vehicle.rear_overhang_m
    gaps_m = []
    for state, boxes in zip(driven.states, driven.traffic, strict=True):
        x_m = state.x_m + middle_m * np.cos(state.yaw_rad)
        y_m = state.y_m + middle_m * np.sin(state.yaw_rad)
        gaps_m.append(min((np.hypot(box.x_m - x_m, box.y_m - y_m) for box in boxes), default=np.inf))
    return KnownDrive(
        drive=driven,
        seed=seed,
        is_contact=np.asarray(driven.is_collision, dtype=bool),
        is_off_road=np.array(shares) > OFF_ROAD_LIMIT,
        gap_m=np.array(gaps_m),
    )


def _shows(known: KnownDrive, wanted: Wanted) -> bool:
    if wanted is Wanted.COLLISION:
        return bool(known.is_contact.any()) and known.last >= FIRST_EVENT
    if wanted is Wanted.OFF_ROAD:
        leaves = np.flatnonzero(known.is_off_road)
        return len(leaves) > 0 and FIRST_EVENT <= leaves[0] <= known.last
    if wanted is Wanted.BLIND:
        return not known.is_contact.any() and not known.is_off_road.any()
    return True


def draw_instants(
    known: KnownDrive, wanted: Wanted, rng: np.random.Generator, count: int
) -> NDArray[np.int64]:
    """Draw instants to learn from: a third before the event, a third where other cars are near, a third anywhere.

    None comes after the first contact, and each has another one before it.
    """
    last, event = known.last, known.first(wanted)
    third = count // 3
    before = event - rng.integers(0, 12, size=third)
    nearest = np.argsort(known.gap_m[: last + 1], kind="stable")[: 4 * third]
    near = rng.choice(nearest, size=third)
    anywhere = rng.integers(1, last + 1, size=count - 2 * third)
    return np.unique(np.clip(np.concatenate([before, near, anywhere]), 1, last))


def draw_start(
    known: KnownDrive, wanted: Wanted, rng: np.random.Generator, *, num_context: int, num_imagined: int
) -> int:
    """Draw where a context begins, such that the event comes while or soon after frames are imagined."""
    latest = max(0, known.last - num_context)
    depth = int(rng.integers(1, num_imagined + 5)) if num_imagined <= 20 else num_imagined
    return int(np.clip(known.first(wanted) - num_context + 1 - depth, 0, latest))
