"""Policies in closed loop, episode by episode: `run_episodes(jobs, settings)` drives them in batches and scores them.

The results depend on the jobs and the settings alone, not on batches, processes or machines. A policy that fails ends
its own episode, with the reason; the others go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path

import torch

from benchmarks.driving_scenes import course_of
from benchmarks.driving_seats import LEARNED, open_seats
from benchmarks.episode_drive import FAILED, Arrays, EpisodeDrive
from benchmarks.guarded_output import silent_descriptors
from benchmarks.guarded_policy import Limits
from drivesim.errors import InputError
from drivesim.metrics.scores import EpisodeScores
from drivesim.rollout import EpisodeConfig
from drivesim.scene.types import Image
from drivesim.training.fan_out import fan_out
from drivesim.video import read_video, write_video

DIED = (
    "the process that drove it died: the policy hung where it could not be interrupted, or brought its process down "
    "(as happens when memory runs out)"
)


class World(Enum):
    """Where policies drive."""

    WORLDDREAMER = "worlddreamer"
    REFERENCE = "reference"

    @property
    def env_id(self) -> str:
        """Return the environment's name."""
        return LEARNED if self is World.WORLDDREAMER else "Reference-Drive-v0"


@dataclass(kw_only=True, slots=True, frozen=True)
class EpisodeJob:
    """One policy, one scene, one seed."""

    policy: str  # as load_policy takes it
    scene: str  # embedded scene, or held-out road such as road-900000
    seed: int = 0  # of the world's random numbers and the policy's

    @property
    def id(self) -> str:
        """Return a short name that is the same on every start and fit for files."""
        digest = hashlib.sha256(f"{self.policy}\n{self.scene}\n{self.seed}".encode()).hexdigest()[:8]
        policy = re.sub(r"[^A-Za-z0-9]+", "-", self.policy)[-40:].strip("-")
        return f"{policy}_{self.scene}_{self.seed}_{digest}"


@dataclass(kw_only=True, slots=True)
class DriveSettings:
    """What is common to all episodes of a run; batches, processes and machines change nothing but the time."""

    world: World = World.WORLDDREAMER
    episode: EpisodeConfig = field(default_factory=lambda: EpisodeConfig(horizon=60))
    time_limit_s: float = 10.0  # per action
    num_threads: int = 1  # of PyTorch in each process; another number may change the last bits
    has_videos: bool = True

    def __post_init__(self) -> None:
        """Let the episode drive in the world."""
        self.episode = dataclasses.replace(self.episode, env_id=self.world.env_id)
        Limits(action_s=self.time_limit_s)


@dataclass(kw_only=True, slots=True)
class EpisodeResult:
    """How one episode went. ``arrays`` has one row per driven step.

    Names: ``metrics/NAME`` and ``is_valid/NAME``, ``hazards/NAME`` and ``hazards_valid/NAME``, ``rewards/NAME`` (the
    parts), ``ego/NAME``, ``reward``, ``confidence``, ``action`` (T, 2).
    """

    job: EpisodeJob
    world: World
    scores: EpisodeScores
    end_reason: str  # goal, off_road, collision, log_deviation, low_confidence, time_limit; failed
    failure: str = ""  # what the policy did wrong
    arrays: Arrays = field(default_factory=dict)
    video: bytes = b""  # mp4 of the start and every step, if videos were asked for
    rate_hz: float = 6.0
    policy_s: float = 0.0  # mean time to choose an action

    @property
    def num_steps(self) -> int:
        """Return the number of driven steps."""
        return len(self.arrays.get("reward", ()))

    @property
    def is_failed(self) -> bool:
        """Tell whether the policy failed; then no score is valid."""
        return self.end_reason == FAILED

    def frames(self) -> Image:
        """Return the pictures, (num_steps + 1, H, W, 3): index 0 is the start, then one per step.

        Raises:
            InputError: no video was asked for, or the episode never began.
        """
        if not self.video:
            raise InputError(f"episode {self.job.id} has no video; run it with has_videos=True")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "episode.mp4"
            path.write_bytes(self.video)
            return read_video(path).frames


def run_episodes(
    jobs: Sequence[EpisodeJob],
    settings: DriveSettings,
    *,
    batch_size: int = 8,
    processes: int = 1,
    ray_address: str | None = None,
    on_result: Callable[[EpisodeResult], None] | None = None,
    on_batch: Callable[[Sequence[EpisodeResult]], None] | None = None,
) -> list[EpisodeResult]:
    """Drive and score every job.

    Args:
        jobs: what to drive; the results come in this order.
        settings: what is common to them.
        batch_size: episodes that are driven side by side.
        processes: spawned processes that share the batches; 0 works in this one, where a policy that hangs inside a
            library cannot be stopped.
        ray_address: of a Ray cluster to share them instead.
        on_result: called here with each result as soon as it is there, in any order.
        on_batch: the same with the results of each batch.

    Raises:
        InputError: a scene or the weights do not exist or do not fit.
    """
    if batch_size < 1:
        raise InputError(f"--batch must be at least 1, got {batch_size}")
    results: dict[str, EpisodeResult] = {}
    lost: list[EpisodeJob] = []

    def take(index: int, batch: list[EpisodeResult] | None) -> None:
        if batch is None and len(batches[index]) == 1:
            batch = _died(batches[index], world=settings.world)
        if batch is None:
            lost.extend(batches[index])
        for result in batch or ():
            results[result.job.id] = result
            if on_result is not None:
                on_result(result)
        if batch is not None and on_batch is not None:
            on_batch(batch)

    spread = {"processes": processes, "ray_address": ray_address, "on_result": take}
    owns_process = processes > 0 or ray_address is not None
    drive = partial(drive_batch, settings=settings, owns_process=owns_process)
    size = min(batch_size, max(1, math.ceil(len(jobs) / max(processes, 1))))  # nobody is left without work
    batches = [list(jobs[first : first + size]) for first in range(0, len(jobs), size)]
    fan_out(drive, batches, on_death=_nothing, **spread)  # type: ignore[arg-type]
    if lost:  # one of each batch brought its process down: alone, it takes nobody with it
        batches = [[job] for job in lost]
        fan_out(drive, batches, on_death=partial(_died, world=settings.world), **spread)  # type: ignore[arg-type]
    return [results[job.id] for job in jobs]


def _nothing(batch: list[EpisodeJob]) -> None:
    del batch


def _died(batch: list[EpisodeJob], *, world: World) -> list[EpisodeResult]:
    return [
        EpisodeResult(job=job, world=world, scores=EpisodeScores(), end_reason=FAILED, failure=DIED)
        for job in batch
    ]


def drive_batch(
    jobs: Sequence[EpisodeJob], *, settings: DriveSettings, owns_process: bool = False
) -> list[EpisodeResult]:
    """Drive some jobs side by side, in this process; one that is there for it keeps quiet meanwhile."""
    if not owns_process:
        return _driven(jobs, settings, owns_process=False)
    torch.set_num_threads(settings.num_threads)
    with silent_descriptors():  # threads of policies may write at any time
        return _driven(jobs, settings, owns_process=True)


def _driven(
    jobs: Sequence[EpisodeJob], settings: DriveSettings, *, owns_process: bool
) -> list[EpisodeResult]:
    episode = settings.episode
    courses = [course_of(job.scene, episode.horizon, episode.context_frames) for job in jobs]
    limits = Limits(action_s=settings.time_limit_s, ends_process=owns_process)
    drives = [
        EpisodeDrive(
            job.policy, job.seed, course, episode=episode, limits=limits, keeps_frames=settings.has_videos
        )
        for job, course in zip(jobs, courses, strict=True)
    ]
    seats = open_seats(episode, [course.scene for course in courses])
    with contextlib.closing(seats):
        for drive, seen in zip(drives, seats.reset([job.seed for job in jobs]), strict=True):
            drive.begin(seen)
        while True:
            chosen = {row: drive.action() for row, drive in enumerate(drives) if drive.is_going}
            actions = {row: action for row, action in chosen.items() if action is not None}
            if not actions:
                break
            for row, seen in seats.step(actions).items():
                drives[row].take(actions[row], seen)
    return [_result(job, drive, settings.world) for job, drive in zip(jobs, drives, strict=True)]


def _result(job: EpisodeJob, drive: EpisodeDrive, world: World) -> EpisodeResult:
    arrays, rate_hz = drive.arrays(), drive.course.scene.rate_hz
    return EpisodeResult(
        job=job,
        world=world,
        scores=drive.scores(arrays),
        end_reason=drive.end_reason,
        failure=drive.failure,
        arrays=arrays,
        video=_encoded(drive.frames, rate_hz) if drive.frames else b"",
        rate_hz=rate_hz,
        policy_s=drive.seconds_per_action,
    )


def _encoded(frames: Sequence[Image], rate_hz: float) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.mp4"
        write_video(path, frames, rate_hz)
        return path.read_bytes()
