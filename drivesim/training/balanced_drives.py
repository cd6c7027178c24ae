"""Drives of the reference world as the balance wants them, cut into clips; what the recording processes run.

A drive depends on its number and the stream's seed alone. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.reference.drive import Drive, drive
from drivesim.reference.drivers import RoadDriver, named_driver
from drivesim.reference.simulator import ReferenceWorld, WorldSpec, draw_spec, look_of
from drivesim.reference.vehicles import agents_of
from drivesim.scene.geometry import FloatArray
from drivesim.scene.road_map import packed_road_views
from drivesim.training.balance import BANDS, DriveMotion, Target, TargetTable, choose_windows
from drivesim.training.drive_orders import ClipOrigin, DriveOrder

_MAX_SPECS = 256  # looked at for a weather
_MAX_WORLDS = 8  # built for the traffic at their start and, where it matters, a straight road
_MAX_DRIVERS = 24  # asked for their cruising speed
_HIT = 1e-6  # mismatch of a drive that is taken at once
_VIEW_M = 60.0
_VIEW_SLOPE = 0.7  # half the picture's width over its focal length
_CARS_AT_START = {"none": (0, 0), "light": (1, 3), "busy": (2, 99)}
_CRUISE_MPS = {"slow": (0.0, 5.5), "medium": (5.5, 13.0), "fast": (10.5, np.inf)}


@dataclass(kw_only=True, slots=True)
class PlannedClip:
    """A window of a drive that is not drawn yet."""

    origin: ClipOrigin
    source: Drive
    num_frames: int

    def draw_into(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
        """Draw the pictures into (T, H, W, 3) and return the motion under the names of RecordedClips."""
        window = range(self.origin.start, self.origin.start + self.num_frames)
        for row, index in enumerate(window):
            frames[row] = self.source.picture(index)
        part, driven = slice(window.start, window.stop), self.source
        twist = np.stack([driven.speed_mps[part], driven.yaw_rate_radps[part]], axis=-1)
        return {
            "twist": twist.astype(np.float32),
            "xy_m": driven.xy_m[part],
            "yaw_rad": driven.yaw_rad[part],
            "is_collision": driven.is_collision[part],
            "is_off_road": np.array([driven.is_off_road(index) for index in window]),
            "road": packed_road_views(
                driven.world.road_map,
                driven.world.camera,
                driven.xy_m[part],
                driven.yaw_rad[part],
                [agents_of(boxes) for boxes in driven.traffic[part]],
            ),
        }


class BalancedDrives:
    """Endless drives by number, each cut into the same number of clips."""

    def __init__(self, order: DriveOrder) -> None:
        """Prepare the targets."""
        self._order, self._targets = order, TargetTable(order.balance)
        self._phase = np.random.default_rng(order.seed_words).random(3)

    def clips(self, *, first_clip: int, worker: int, num_workers: int) -> Iterator[PlannedClip]:
        """Yield without end the clips of every ``num_workers``-th drive, from clip number ``first_clip`` on.

        Clip ``n`` is part of drive ``n // clips_per_drive``, and drive ``d`` belongs to worker ``d % num_workers``.
        """
        per_drive = self._order.clips_per_drive
        number = first_clip // per_drive
        number += (worker - number) % num_workers
        while True:
            yield from self.plan(number)[max(0, first_clip - number * per_drive) :]
            number += num_workers

    def plan(self, number: int) -> list[PlannedClip]:
        """Drive until the target is met, at most ``balance.max_drives`` times; the nearest drive is cut."""
        order, rng = self._order, np.random.default_rng([*self._order.seed_words, number])
        target = self._targets.target(number, self._phase)
        best, best_mismatch = None, np.inf
        for _ in range(order.balance.max_drives):
            driven, driver_seed = self._drive(target, rng)
            motion = motion_of(driven)
            choice = choose_windows(
                motion,
                target,
                num_windows=order.clips_per_drive,
                num_frames=order.frames_per_clip,
                max_crashed_share=order.balance.max_crashed_share,
                rng=rng,
            )
            if choice.mismatch < best_mismatch:
                best, best_mismatch = (driven, motion, driver_seed, choice.starts), choice.mismatch
            if best_mismatch < _HIT:
                break
        assert best is not None
        return _cut(*best, order.frames_per_clip)

    def _drive(self, target: Target, rng: np.random.Generator) -> tuple[Drive, int]:
        """Drive a likely road with a likely driver; return the drive and the driver's seed."""
        order = self._order
        driver, driver_seed = _draw_driver(target, rng)
        fewest, most = _CARS_AT_START[target.traffic]
        for _ in range(_MAX_WORLDS):
            world = ReferenceWorld(self._draw_spec(target.weather, rng))
            is_likely = fewest <= len(world.traffic) <= most
            if is_likely and _may_be_straight(world, driver, target):
                break
        return drive(world, driver, num_frames=order.clips_per_drive * order.frames_per_clip), driver_seed

    def _draw_spec(self, weather: str, rng: np.random.Generator) -> WorldSpec:
        order = self._order
        for _ in range(_MAX_SPECS):
            spec = draw_spec(int(rng.integers(order.first_seed, order.last_seed + 1)))
            if look_of(spec).weather.value == weather:
                break
        return spec


def motion_of(driven: Drive) -> DriveMotion:
    """Return what the balance looks at."""
    return DriveMotion(
        speed_mps=driven.speed_mps,
        yaw_rate_radps=driven.yaw_rate_radps,
        num_cars_in_view=cars_in_view(driven),
        is_collision=driven.is_collision,
    )


def cars_in_view(driven: Drive) -> FloatArray:
    """Return for each instant how many others are near and ahead, inside the picture."""
    counts = np.zeros(len(driven))
    for index, (ego, boxes) in enumerate(zip(driven.states, driven.traffic, strict=True)):
        if not boxes:
            continue
        dx, dy = np.array([[box.x_m - ego.x_m, box.y_m - ego.y_m] for box in boxes]).T
        ahead = dx * np.cos(ego.yaw_rad) + dy * np.sin(ego.yaw_rad)
        left = dy * np.cos(ego.yaw_rad) - dx * np.sin(ego.yaw_rad)
        counts[index] = ((ahead > 2) & (ahead < _VIEW_M) & (np.abs(left) < _VIEW_SLOPE * ahead)).sum()
    return counts


def _draw_driver(target: Target, rng: np.random.Generator) -> tuple[RoadDriver, int]:
    """Return a driver of the wanted kind, of a cruising speed that suits if there is one, and his seed."""
    slowest, fastest = _CRUISE_MPS[target.speed]
    for _ in range(_MAX_DRIVERS):
        driver_seed = int(rng.integers(2**31))
        driver = named_driver(target.driver, np.random.default_rng([driver_seed, 2]))
        if slowest <= driver.cruise_mps < fastest:
            break
    return driver, driver_seed


def _may_be_straight(world: ReferenceWorld, driver: RoadDriver, target: Target) -> bool:
    """Tell whether the road lets a driver who follows it go as straight as is wanted."""
    if target.turning != "straight":
        return True
    reach = min(len(world.route.heading_rad) - 1, 120)
    turned_rad = np.abs(np.diff(world.route.heading_rad[: reach + 1])).sum()
    mean_rad_per_m = float(turned_rad / max(world.route.along_m[reach], 1.0))
    return mean_rad_per_m * driver.cruise_mps < BANDS["turning"]["straight"][1]


def _cut(
    driven: Drive, motion: DriveMotion, driver_seed: int, starts: list[int], num_frames: int
) -> list[PlannedClip]:
    world = driven.world
    clips = []
    for start in starts:
        origin = ClipOrigin(
            log_name=world.spec.log_name,
            driver=driven.driver.name,
            driver_seed=driver_seed,
            start=start,
            weather=world.look.weather.value,
            mean_cars_in_view=float(motion.num_cars_in_view[start : start + num_frames].mean()),
        )
        clips.append(PlannedClip(origin=origin, source=driven, num_frames=num_frames))
    return clips
