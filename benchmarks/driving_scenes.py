"""The scenes that policies are tested on, by name: embedded ones, and held-out roads recorded when they are needed.

A name is enough to get the same scene in every process and on every machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from benchmarks.held_out import check_seeds
from drivesim.dynamics import control_from_action
from drivesim.dynamics import step as driven
from drivesim.errors import InputError, nearest
from drivesim.reference.behavior import record
from drivesim.reference.simulator import draw_spec
from drivesim.rollout import EpisodeConfig
from drivesim.scene.geometry import FloatArray, global_from_ego, transform_points
from drivesim.scene.nuscenes import embedded_dataset
from drivesim.scene.route import Route, RoutePosition, route_of
from drivesim.scene.types import EgoState, Scene
from envs.recorded_log import RecordedLog
from envs.ride import GOAL_RADIUS_M, ROUTE_AHEAD_M
from policies.pure_pursuit import PurePursuitPolicy

ROAD_PREFIX = "road-"
DRIVER = "good"  # of the recorded start
SCENES_KEPT = 16


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
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
    log, route = RecordedLog(scene, episode.vehicle), route_of(scene)
    ego, position = _start(log, route, episode.context_frames - 1)
    goal_m, start_m = route.length_m - GOAL_RADIUS_M, position.distance_m
    policy, dt_s, progress_m = PurePursuitPolicy(), 1.0 / scene.rate_hz, []
    for _ in range(episode.horizon):
        if position.distance_m < goal_m:
            action = policy.select_action(scene.frames[0], _info(ego, route, position, episode, dt_s))
            control = control_from_action(float(action[0]), float(action[1]), ego, episode.vehicle, dt_s)
            ego = driven(ego, control, episode.vehicle, dt_s)
            position = _located(route, ego, position)
        progress_m.append(position.distance_m - start_m)
    return Course(
        scene=scene,
        route_left_m=max(goal_m - start_m, 0.0),
        expert_progress_m=np.array(progress_m),
    )


def _start(log: RecordedLog, route: Route, index: int) -> tuple[EgoState, RoutePosition]:
    """Return the state at a frame, located from the first one on so that laps and crossings are told apart."""
    position = None
    for passed in range(index + 1):
        position = _located(route, log.ego_state(passed), position)
    assert position is not None
    return log.ego_state(index), position


def _located(route: Route, ego: EgoState, last: RoutePosition | None) -> RoutePosition:
    return route.project((ego.x_m, ego.y_m), ego.yaw_rad, near_m=None if last is None else last.distance_m)


def _info(
    ego: EgoState, route: Route, position: RoutePosition, episode: EpisodeConfig, dt_s: float
) -> dict[str, object]:
    """Return the part of an environment's info that pure pursuit reads."""
    ego_from_global = np.linalg.inv(global_from_ego((ego.x_m, ego.y_m), ego.yaw_rad))
    ahead = route.points_at(position.distance_m + ROUTE_AHEAD_M)
    return {
        "ego": dataclasses.asdict(ego),
        "route_ahead_m": transform_points(ego_from_global, ahead).astype(np.float32),
        "vehicle": dataclasses.asdict(episode.vehicle),
        "dt_s": dt_s,
    }


def _seed_of(name: str) -> int | None:
    """Return the seed of a road's name; None for other names."""
    digits = name.removeprefix(ROAD_PREFIX)
    return int(digits) if digits != name and digits.isdecimal() else None
