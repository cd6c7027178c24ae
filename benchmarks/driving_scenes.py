"""The scenes that policies are tested on, by name: embedded ones, and held-out roads recorded when they are needed.

A name is enough to get the same scene in every process and on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchmarks.held_out import check_seeds
from drivesim.errors import InputError, nearest
from drivesim.reference.behavior import record
from drivesim.reference.simulator import draw_spec
from drivesim.rollout import EpisodeConfig
from drivesim.scene.geometry import FloatArray
from drivesim.scene.nuscenes import embedded_dataset
from drivesim.scene.types import Scene
from envs.ride import GOAL_RADIUS_M, Ride, View
from policies.pure_pursuit import PurePursuitPolicy

ROAD_PREFIX = "road-"
DRIVER = "good"  # of the recorded start
SCENES_KEPT = 32  # about 10 MB each


@dataclass(kw_only=True, slots=True, frozen=True)
class Course:
    """A scene, and what the scores must know of its road."""

    scene: Scene
    route_left_m: float  # from the start to the goal
    expert_progress_m: FloatArray  # (horizon,) metres that pure pursuit has made after each step


def road_names(first_seed: int, count: int) -> list[str]:
    """Return the names of held-out roads.

    Raises:
        InputError: seeds that training may use.
    """
    check_seeds(first_seed, count)
    return [f"{ROAD_PREFIX}{seed}" for seed in range(first_seed, first_seed + count)]


def checked_scene_names(names: Sequence[str]) -> list[str]:
    """Return the names, ``all`` standing for every embedded scene.

    Raises:
        InputError: a name that is neither an embedded scene nor a held-out road.
    """
    embedded = embedded_dataset().scene_names()
    chosen = embedded if list(names) == ["all"] else list(names)
    for name in chosen:
        seed = _seed_of(name)
        if seed is not None:
            check_seeds(seed, 1)
        elif name not in embedded:
            raise InputError(
                f"there is no scene and no held-out road (such as road-900000) {name!r}; {nearest(name, embedded)}"
            )
    return list(dict.fromkeys(chosen))


@lru_cache(maxsize=SCENES_KEPT)
def course_of(name: str, horizon: int, context_frames: int) -> Course:
    """Load or record a scene, and drive pure pursuit along it; kept for the next who asks.

    Args:
        name: of an embedded scene, or ``road-SEED``.
        horizon: steps that will be driven.
        context_frames: recorded frames before them.
    """
    seed = _seed_of(name)
    if seed is None:
        scene = embedded_dataset().load(name)
    else:
        num_frames = context_frames + horizon
        scene = record(draw_spec(seed), driver=DRIVER, num_frames=num_frames, driver_seed=seed).scene
    return course_along(scene, EpisodeConfig(horizon=horizon, context_frames=context_frames))


def course_along(scene: Scene, episode: EpisodeConfig) -> Course:
    """Drive pure pursuit along a scene's route on exact geometry: no traffic, no pictures, no end but the goal."""
    ride, policy, view = Ride(episode, scene), PurePursuitPolicy(), View(frame=scene.frames[0])
    ride.begin(ride.start_index({}))
    info, start_m = ride.opening(view), ride.here.position.distance_m
    goal_m, progress_m = ride.route.length_m - GOAL_RADIUS_M, []
    for _ in range(episode.horizon):
        if ride.here.position.distance_m < goal_m:
            ride.move(policy.select_action(view.frame, info))
            info = ride.judge(view).info
        progress_m.append(ride.here.position.distance_m - start_m)
    return Course(
        scene=scene,
        route_left_m=max(goal_m - start_m, 0.0),
        expert_progress_m=np.array(progress_m),
    )


def _seed_of(name: str) -> int | None:
    """Return the seed of a road's name; None for other names."""
    digits = name.removeprefix(ROAD_PREFIX)
    return int(digits) if digits != name and digits.isdecimal() else None
