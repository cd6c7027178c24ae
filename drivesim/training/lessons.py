"""Driving lessons: drives through the reference world, good and bad, each instant labelled with what was right there.

Whoever drives, a teacher on the passenger's seat says what he would do in that very place: a learner that has left
the lane must have seen how to get back (DAgger, arXiv 1011.0686). The teacher follows the route at one cruising speed,
slows for bends and keeps his distance from the car ahead. With a student's weights, part of the drives are the
student's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.behavior_cloning import COMMANDS, CameraDriver, CameraDriverConfig, load_camera_driver, view_of
from drivesim.dynamics import control_from_action, step
from drivesim.errors import InputError
from drivesim.files import atomic_folder, remove_abandoned, reserve_space
from drivesim.reference.drivers import HABITS, Driver, Habits, RoadDriver, named_driver
from drivesim.reference.seeds import FIRST_HELD_OUT_SEED, FIRST_VALIDATION_SEED
from drivesim.reference.simulator import ReferenceWorld, draw_spec
from drivesim.scene.route import Route, RoutePosition
from drivesim.training.worker_pool import worked

DRIVERS = {
    "good": 0.25,
    "sloppy": 0.25,
    "swerving": 0.2,
    "bursts": 0.15,
    "leaving-road": 0.1,
    "speeding": 0.05,
}
STUDENT_SHARE = 0.6  # of the drives, where there is a student
STUDENT_NOISE_RAD = 0.03
_LOST_M = 6.0  # further from the route there is no right answer
_ROUTE_END_M = 30.0  # the picture does not show where the route ends


@dataclass(kw_only=True, slots=True)
class LessonsConfig:
    """Which lessons are driven; they are recorded once and kept."""

    path: str = "out/data/lessons"
    num_lessons: int = 700
    num_validation_lessons: int = 24
    frames_per_lesson: int = 48
    first_seed: int = 0  # of the roads
    num_workers: int = 2
    cruise_mps: float = 10.0  # the teacher's
    lateral_accel_mps2: float = 2.5  # the teacher's in bends
    student: str | None = None  # weights that drive part of the lessons: a shipped name or a file

    def __post_init__(self) -> None:
        """Refuse empty sets and road seeds that are not for training."""
        counts = (self.num_lessons, self.num_validation_lessons, self.frames_per_lesson, self.num_workers)
        if min(counts) < 1:
            raise ValueError(
                "lessons need num_lessons, num_validation_lessons, frames_per_lesson, num_workers >= 1"
            )
        if self.first_seed < 0 or self.first_seed + self.num_lessons > FIRST_VALIDATION_SEED:
            raise ValueError(
                f"lessons.first_seed + lessons.num_lessons must stay in 0..{FIRST_VALIDATION_SEED}, "
                f"got {self.first_seed} + {self.num_lessons}"
            )
        if self.num_validation_lessons > FIRST_HELD_OUT_SEED - FIRST_VALIDATION_SEED:
            raise ValueError(
                f"lessons.num_validation_lessons is at most {FIRST_HELD_OUT_SEED - FIRST_VALIDATION_SEED}"
            )


@dataclass(kw_only=True, slots=True)
class Lessons:
    """N labelled instants; pictures are memory-mapped and must not be written."""

    pictures: NDArray[np.uint8]  # (L, T, h, w, 3)
    index: NDArray[np.int64]  # (N, 2) lesson and frame of each instant that has an answer
    speed_mps: NDArray[np.float32]  # (L, T)
    command: NDArray[np.int8]  # (L, T) place in COMMANDS
    answer: NDArray[np.float32]  # (L, T, 2) the teacher's steering in rad and target speed in m/s

    def __len__(self) -> int:
        """Return N."""
        return len(self.index)

    @classmethod
    def open(cls, path: Path) -> Lessons:
        """Open a set of :func:`record_lessons`.

        Raises:
            InputError: the folder is missing or holds no such set.
        """
        try:
            pictures = np.load(path / "pictures.npy", mmap_mode="r")
            arrays = np.load(path / "lessons.npz")
            index = np.argwhere(arrays["is_answered"])
            return cls(pictures=pictures, index=index, **{name: arrays[name] for name in _ARRAYS})
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path} holds no lessons ({error}); remove it so that they are driven anew"
            ) from error


_ARRAYS = ("speed_mps", "command", "answer")


@dataclass(kw_only=True, slots=True)
class _Job:
    file: Path
    index: int
    seed: int
    config: LessonsConfig
    view: CameraDriverConfig


class StudentDriver:
    """A camera driver at the wheel of a reference world, with a slow noise so that no two drives are alike."""

    name, words = "student", "driving by camera"

    def __init__(self, camera_driver: CameraDriver, route: Route, rng: np.random.Generator) -> None:
        self._camera_driver, self._route, self._rng = camera_driver, route, rng
        self._position: RoutePosition | None = None
        self._noise_rad = 0.0

    def act(self, world: ReferenceWorld) -> tuple[float, float]:
        """Return (steering, target speed) for what the camera sees."""
        ego = world.ego
        self._position = _position(self._route, world, self._position)
        command = self._route.command_at(self._position.distance_m)
        steering, speed = self._camera_driver.drive(world.render(), speed_mps=ego.speed_mps, command=command)
        self._noise_rad = 0.8 * self._noise_rad + STUDENT_NOISE_RAD * float(self._rng.normal())
        limit = world.vehicle.max_steering_rad
        return float(np.clip(steering + self._noise_rad, -limit, limit)), float(speed)


def teacher_of(config: LessonsConfig) -> RoadDriver:
    """Return the driver whose answers are the labels: no chance, no stunts, the middle of the lane."""
    habits = Habits(
        words="teaching",
        speed_mps=(config.cruise_mps, config.cruise_mps),
        lateral_accel_mps2=(config.lateral_accel_mps2, config.lateral_accel_mps2),
        headway_s=HABITS["good"].headway_s,
        offset_m=0.0,
    )
    return RoadDriver("teacher", habits, np.random.default_rng(0))


def drive_lesson(
    seed: int, config: LessonsConfig, view: CameraDriverConfig
) -> dict[str, NDArray[np.generic]]:
    """Drive one lesson on the road of a seed; return ``pictures``, ``is_answered`` and the arrays of `Lessons`."""
    rng = np.random.default_rng([seed, 7])
    world = ReferenceWorld(draw_spec(seed))
    route, teacher = Route(world.route_xy_m), teacher_of(config)
    driver = _draw_driver(config, route, rng)
    position: RoutePosition | None = None
    rows: dict[str, list[object]] = {name: [] for name in ("pictures", "is_answered", *_ARRAYS)}
    has_crashed = False
    for index in range(config.frames_per_lesson):
        if index:
            control = control_from_action(*driver.act(world), world.ego, world.vehicle, 1 / world.rate_hz)
            world.advance(step(world.ego, control, world.vehicle, 1 / world.rate_hz))
            has_crashed |= world.is_collision
        position = _position(route, world, position)
        is_near_end = position.distance_m > route.length_m - _ROUTE_END_M
        rows["pictures"].append(view_of(world.render(), view))
        rows["is_answered"].append(not (has_crashed or is_near_end or abs(position.lateral_m) > _LOST_M))
        rows["speed_mps"].append(world.ego.speed_mps)
        rows["command"].append(COMMANDS.index(route.command_at(position.distance_m)))
        rows["answer"].append(teacher.act(world))
    kinds = {"pictures": np.uint8, "is_answered": np.bool_, "command": np.int8}
    return {name: np.array(values, dtype=kinds.get(name, np.float32)) for name, values in rows.items()}


def record_lessons(
    path: Path,
    config: LessonsConfig,
    view: CameraDriverConfig,
    *,
    num_lessons: int,
    first_seed: int,
    on_progress: Callable[[int], None] | None = None,
) -> Lessons:
    """Drive ``num_lessons`` roads from ``first_seed`` on into the new folder ``path``, by worker processes.

    Raises:
        InputError: a worker process died.
        OSError: the disk has no room for the pictures.
    """
    with atomic_folder(path) as folder:
        shape = (num_lessons, config.frames_per_lesson, view.height_px - view.first_row, view.width_px, 3)
        file = folder / "pictures.npy"
        np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape).flush()
        reserve_space(file)
        jobs = [
            _Job(file=file, index=index, seed=first_seed + index, config=config, view=view)
            for index in range(num_lessons)
        ]
        done: list[dict[str, NDArray[np.generic]]] = []
        lessons = worked(
            _record_one, jobs, num_workers=config.num_workers, doing="driving", setting="lessons.num_workers"
        )
        for lesson in lessons:
            done.append(lesson)
            if on_progress is not None:
                on_progress(len(done))
        np.savez(folder / "lessons.npz", **{name: np.stack([one[name] for one in done]) for name in done[0]})
        facts = _facts(config, view, num_lessons=num_lessons, first_seed=first_seed)
        (folder / "set.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return Lessons.open(path)


def open_or_record(
    config: LessonsConfig,
    view: CameraDriverConfig,
    name: str,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> Lessons:
    """Return the set ``name``, "train" or "validation", driving it first if it is not there.

    Raises:
        InputError: the folder holds lessons of other settings.
    """
    is_train = name == "train"
    num_lessons = config.num_lessons if is_train else config.num_validation_lessons
    first_seed = config.first_seed if is_train else FIRST_VALIDATION_SEED
    path = Path(config.path) / name
    remove_abandoned(path)
    if not path.exists():
        return record_lessons(
            path, config, view, num_lessons=num_lessons, first_seed=first_seed, on_progress=on_progress
        )
    lessons = Lessons.open(path)
    asked = _facts(config, view, num_lessons=num_lessons, first_seed=first_seed)
    found = json.loads((path / "set.json").read_text(encoding="utf-8"))
    if found != asked:
        raise InputError(
            f"{path} holds lessons of {found}, but the run asks for {asked}; name another lessons path or remove it"
        )
    return lessons


def _facts(
    config: LessonsConfig, view: CameraDriverConfig, *, num_lessons: int, first_seed: int
) -> dict[str, object]:
    left_out = ("path", "num_workers", "num_lessons", "num_validation_lessons", "first_seed")
    kept = {name: value for name, value in asdict(config).items() if name not in left_out}
    size = {name: getattr(view, name) for name in ("width_px", "height_px", "first_row")}
    return {"num_lessons": num_lessons, "first_seed": first_seed, **kept, **size}


def _record_one(job: _Job) -> dict[str, NDArray[np.generic]]:
    from drivesim.reference.camera import draw_in_one_thread

    draw_in_one_thread()
    lesson = drive_lesson(job.seed, job.config, job.view)
    np.load(job.file, mmap_mode="r+")[job.index] = lesson.pop("pictures")
    return lesson


def _draw_driver(config: LessonsConfig, route: Route, rng: np.random.Generator) -> Driver:
    if config.student is not None and rng.random() < STUDENT_SHARE:
        return StudentDriver(_student(config.student), route, rng)
    return named_driver(str(rng.choice(list(DRIVERS), p=list(DRIVERS.values()))), rng)


@lru_cache(maxsize=1)
def _student(name_or_path: str) -> CameraDriver:
    import torch

    torch.set_num_threads(1)  # worker processes share the cores
    return load_camera_driver(name_or_path)


def _position(route: Route, world: ReferenceWorld, last: RoutePosition | None) -> RoutePosition:
    near_m = None if last is None else last.distance_m
    return route.project((world.ego.x_m, world.ego.y_m), world.ego.yaw_rad, near_m=near_m)
