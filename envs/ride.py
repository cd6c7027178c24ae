"""A car on a scene, without its pictures: ego, route, log, metrics, reward, what ends the episode, and ``info``.

Both drive environments and every row of a batched one hold a ride each; what makes the pictures says what they show.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from drivesim import dynamics
from drivesim.errors import InputError
from drivesim.metrics.base import NOT_MEASURABLE, MetricResult
from drivesim.metrics.driving import DrivenStep, measure
from drivesim.rewards import reward
from drivesim.rollout import EpisodeConfig
from drivesim.scene.geometry import global_from_ego, transform_points
from drivesim.scene.route import RoutePosition, route_of
from drivesim.scene.types import Control, EgoState, Image, Scene
from envs.recorded_log import RecordedLog
from envs.spaces import action_space, checked_action, observation_space

ROUTE_AHEAD_M = np.arange(1, 21) * 2.0
GOAL_RADIUS_M = 2.0
NO_EPISODE = "call env.reset() first: there is no episode yet"
TERMINAL = ("goal", "off_road", "collision")
HAZARDS = ("collision", "off_road")


@dataclass(kw_only=True, slots=True, frozen=True)
class View:
    """What a world shows after a step; None stands for what the world cannot tell."""

    frame: Image  # (H, W, 3)
    confidence: float = 1.0
    is_collision: bool | None = None
    time_to_collision_s: float | None = None
    is_off_road: bool | None = None  # asked where the scene has no map
    hazards: Mapping[str, float] | None = None  # probability within the next second, by the names in HAZARDS


@dataclass(kw_only=True, slots=True, frozen=True)
class Outcome:
    """What a step came to."""

    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


@dataclass(kw_only=True, slots=True, frozen=True)
class RidePlace:
    """Where a ride is: all that changes while it goes on."""

    ego: EgoState
    position: RoutePosition
    log_index: int
    num_unsure: int = 0  # steps in a row below the least confidence


class Ride:
    """One car, one scene. The environments' docstrings say what the numbers mean."""

    def __init__(self, episode: EpisodeConfig, scene: Scene) -> None:
        """Measure the scene.

        Raises:
            InputError: the scene is shorter than the context.
        """
        if len(scene) < episode.context_frames:
            raise InputError(
                f"scene {scene.name!r} has {len(scene)} frames, fewer than the context of "
                f"{episode.context_frames}; choose a longer scene or a smaller context_frames"
            )
        self.episode, self.scene = episode, scene
        self.dt_s = 1.0 / scene.rate_hz
        self.log = RecordedLog(scene, episode.vehicle)
        self.route = route_of(scene)
        self.action_space = action_space(episode.vehicle)
        self.observation_space = observation_space(scene.camera)
        self.place: RidePlace | None = None
        self._before: RidePlace | None = None

    @property
    def here(self) -> RidePlace:
        """Return where the ride is.

        Raises:
            gymnasium.error.ResetNeeded: it has not begun.
        """
        if self.place is None:
            raise gym.error.ResetNeeded(NO_EPISODE)
        return self.place

    def start_index(self, options: Mapping[str, Any]) -> int:
        """Return the frame of the log at which to start, ``context_frames - 1`` unless the options name one.

        Raises:
            InputError: it leaves no room for the context.
        """
        first, last = self.episode.context_frames - 1, len(self.scene) - 1
        index = int(options.get("start_index", first))
        if not first <= index <= last:
            raise InputError(
                f"start_index must lie in [{first}, {last}] for scene {self.scene.name!r}, got {index}"
            )
        return index

    def begin(self, start_index: int) -> None:
        """Put the car where the log is at a frame."""
        position = None
        for passed in range(start_index + 1):  # from the first frame on: laps and crossings are told apart
            position = self._locate(self.log.ego_state(passed), position)
        assert position is not None
        ego = self.log.ego_state(start_index)
        self.place = self._before = RidePlace(ego=ego, position=position, log_index=start_index)

    def move(self, action: Any) -> tuple[EgoState, EgoState]:
        """Drive one step; returns the ego before and after.

        Raises:
            InputError: an action of the wrong shape, not finite or out of range.
            gymnasium.error.ResetNeeded: the ride has not begun.
        """
        here = self.here
        ego = dynamics.step(here.ego, self._control(action), self.episode.vehicle, self.dt_s)
        position = self._locate(ego, here.position)
        self._before = here
        self.place = dataclasses.replace(here, ego=ego, position=position, log_index=here.log_index + 1)
        return here.ego, ego

    def restore(self, place: RidePlace) -> None:
        """Go on from a place where the ride was before."""
        self.place = self._before = place

    def opening(self, view: View) -> dict[str, Any]:
        """Return ``info`` of the start."""
        metrics = self._measure(view)
        _, parts = reward(metrics, self.episode.reward)
        return self._info(view, metrics, dict.fromkeys(parts, 0.0), end_reason="")

    def judge(self, view: View) -> Outcome:
        """Return what the latest step came to, given what it shows."""
        self._note_confidence(view)
        metrics = self._measure(view)
        total, parts = reward(metrics, self.episode.reward)
        end_reason = self._end_reason(metrics)
        return Outcome(
            reward=total,
            terminated=end_reason in TERMINAL,
            truncated=bool(end_reason) and end_reason not in TERMINAL,
            info=self._info(view, metrics, parts, end_reason=end_reason),
        )

    def _locate(self, ego: EgoState, last: RoutePosition | None) -> RoutePosition:
        near_m = None if last is None else last.distance_m
        return self.route.project((ego.x_m, ego.y_m), ego.yaw_rad, near_m=near_m)

    def _control(self, action: Any) -> Control:
        steering_rad, target_speed_mps = checked_action(action, self.action_space)
        return dynamics.control_from_action(
            steering_rad, target_speed_mps, self.here.ego, self.episode.vehicle, self.dt_s
        )

    def _note_confidence(self, view: View) -> None:
        least = self.episode.min_confidence
        is_unsure = least is not None and view.confidence < least
        num_unsure = self.here.num_unsure + 1 if is_unsure else 0
        self.place = dataclasses.replace(self.here, num_unsure=num_unsure)

    def _measure(self, view: View) -> dict[str, MetricResult]:
        before, here = self._before, self.here
        assert before is not None
        return measure(
            DrivenStep(
                previous=before.ego,
                current=here.ego,
                dt_s=self.dt_s,
                previous_route=before.position,
                current_route=here.position,
                route_length_m=self.route.length_m,
                vehicle=self.episode.vehicle,
                drivable=self.scene.drivable,
                is_collision=view.is_collision,
                is_off_road=view.is_off_road,
                time_to_collision_s=view.time_to_collision_s,
                speed_limit_mps=self.episode.speed_limit_mps,
                log_xy_m=self.log.xy_m(here.log_index),
            )
        )

    def _end_reason(self, metrics: dict[str, MetricResult]) -> str:
        deviation, limit_m = metrics["log_deviation_m"], self.episode.max_log_deviation_m
        if metrics["collision"].is_valid and metrics["collision"].value > 0:
            return "collision"
        if metrics["off_road"].is_valid and metrics["off_road"].value > self.episode.off_road_limit:
            return "off_road"
        if self.here.position.distance_m >= self.route.length_m - GOAL_RADIUS_M:
            return "goal"
        if limit_m is not None and deviation.is_valid and deviation.value > limit_m:
            return "log_deviation"
        return "low_confidence" if self.here.num_unsure >= self.episode.max_unsure_steps else ""

    def _info(
        self, view: View, metrics: dict[str, MetricResult], parts: dict[str, float], *, end_reason: str
    ) -> dict[str, Any]:
        ego, distance_m, log_index = self.here.ego, self.here.position.distance_m, self.here.log_index
        vehicle = dataclasses.asdict(self.episode.vehicle)
        return {
            "ego": {name: float(value) for name, value in dataclasses.asdict(ego).items()},
            "rewards": parts,
            "metrics": {name: result.as_dict() for name, result in metrics.items()},
            "hazards": _hazard_results(view),
            "confidence": float(view.confidence),
            "route_ahead_m": self._route_ahead_m(),
            "command": self.route.command_at(distance_m).value,
            "log_action": self.log.action(log_index),
            "is_log_valid": self.log.has_action(log_index),
            "log_index": log_index,
            "vehicle": {name: float(value) for name, value in vehicle.items()},
            "dt_s": self.dt_s,
            "scene": self.scene.name,
            "end_reason": end_reason,
        }

    def _route_ahead_m(self) -> NDArray[np.float32]:
        ego = self.here.ego
        ego_from_global = np.linalg.inv(global_from_ego((ego.x_m, ego.y_m), ego.yaw_rad))
        points = self.route.points_at(self.here.position.distance_m + ROUTE_AHEAD_M)
        return transform_points(ego_from_global, points).astype(np.float32)


def _hazard_results(view: View) -> dict[str, dict[str, float | bool]]:
    if view.hazards is None:
        return {name: NOT_MEASURABLE.as_dict() for name in HAZARDS}
    return {name: MetricResult(value=view.hazards[name]).as_dict() for name in HAZARDS}
