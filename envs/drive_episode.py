"""The contract both drive environments share: ego, route, log, metrics, reward, termination and info.

A subclass only makes the pictures and says whether there was a collision.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from drivesim import dynamics
from drivesim.errors import InputError
from drivesim.metrics.base import MetricResult
from drivesim.metrics.driving import DrivenStep, measure
from drivesim.rewards import reward
from drivesim.rollout import Action, EpisodeConfig, load_scene
from drivesim.scene.geometry import global_from_ego, transform_points
from drivesim.scene.route import RoutePosition, route_of
from drivesim.scene.types import Control, EgoState, Image, Scene
from envs.recorded_log import RecordedLog
from envs.spaces import action_space, checked_action, observation_space
from envs.window import Window

ROUTE_AHEAD_M = np.arange(1, 21) * 2.0
GOAL_RADIUS_M = 2.0
NO_EPISODE = "call env.reset() first: there is no episode yet"


@dataclass(kw_only=True, slots=True, frozen=True)
class View:
    """What a world shows after a step; ``is_collision`` is None where the world cannot tell."""

    frame: Image  # (H, W, 3)
    confidence: float = 1.0
    is_collision: bool | None = None


class DriveEpisodeEnv(gym.Env[Image, Action], ABC):
    """One car, one scene, one camera. The subclasses' docstrings are the data sheets."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "human"], "render_fps": 6}  # noqa: RUF012
    action_space: spaces.Box  # type: ignore[assignment]
    observation_space: spaces.Box  # type: ignore[assignment]
    reset_options: ClassVar[tuple[str, ...]] = ("start_index",)

    def __init__(
        self,
        *,
        episode: EpisodeConfig | None = None,
        scene: str | Scene | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        """Load the scene and build the spaces.

        Args:
            episode: the whole configuration; ``settings`` replace single fields of it.
            scene: name of a scene or a loaded Scene; None takes the episode's.
            render_mode: None, "rgb_array" or "human".
            settings: fields of EpisodeConfig but ``env_id`` and ``horizon``.

        Raises:
            InputError: unknown setting, scene or render mode, or a scene shorter than the context.
        """
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise InputError(
                f"render_mode is one of {self.metadata['render_modes']} or None, got {render_mode!r}"
            )
        if isinstance(scene, str):
            settings["scene"] = scene
        self.episode = (episode or EpisodeConfig()).with_settings(settings)
        self.scene = scene if isinstance(scene, Scene) else load_scene(self.episode)
        self._require_length()
        self.dt_s = 1.0 / self.scene.rate_hz
        self.log = RecordedLog(self.scene, self.episode.vehicle)
        self.route = route_of(self.scene)
        self.action_space = action_space(self.episode.vehicle)
        self.observation_space = observation_space(self.scene.camera)
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": round(self.scene.rate_hz)}
        self._window = Window(title=f"drivesim: {self.scene.name}", rate_hz=self.scene.rate_hz)
        self._ego: EgoState | None = None
        self._position: RoutePosition | None = None
        self._frame: Image | None = None
        self._log_index = 0
        self._is_closed = False

    @abstractmethod
    def _begin_world(self, start_index: int) -> View:
        """Put the world where the log is at frame ``start_index`` and show it."""

    @abstractmethod
    def _advance_world(self, previous: EgoState, current: EgoState) -> View:
        """Show the world one step later, the ego having moved from ``previous`` to ``current``."""

    @abstractmethod
    def _free_world(self) -> None:
        """Let go of whatever makes the pictures."""

    @property
    def ego(self) -> EgoState:
        """Return the ego state after the last reset or step."""
        if self._ego is None:
            raise gym.error.ResetNeeded(NO_EPISODE)
        return self._ego

    @property
    def position(self) -> RoutePosition:
        """Return where the ego is on the route."""
        if self._position is None:
            raise gym.error.ResetNeeded(NO_EPISODE)
        return self._position

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Image, dict[str, Any]]:
        """Start at the log's frame ``context_frames - 1``, or at ``options["start_index"]``.

        Raises:
            InputError: unknown options, or a start that leaves no room for the context.
            gymnasium.error.ClosedEnvironmentError: the environment was closed.
        """
        if self._is_closed:
            raise gym.error.ClosedEnvironmentError("this environment is closed: make a new one with gym.make")
        super().reset(seed=seed)
        self._log_index = self._start_index(options or {})
        self._position = self._follow_log(self._log_index)
        view = self._begin_world(self._log_index)
        self._ego = self.log.ego_state(self._log_index)
        metrics = self._measure(self._ego, self._position, view)
        _, parts = reward(metrics, self.episode.reward)
        info = self._info(view, metrics, dict.fromkeys(parts, 0.0), end_reason="")
        return self._show(view), info

    def step(self, action: Action) -> tuple[Image, float, bool, bool, dict[str, Any]]:
        """Drive one step: see the class docstring for action, observation, reward and info.

        Raises:
            InputError: an action of the wrong shape, not finite or out of range.
            gymnasium.error.ResetNeeded: there was no reset.
        """
        previous, previous_position = self.ego, self.position
        control = self._control(action)
        self._ego = dynamics.step(previous, control, self.episode.vehicle, self.dt_s)
        self._position = self._locate(self._ego, previous_position)
        self._log_index += 1
        view = self._advance_world(previous, self._ego)
        metrics = self._measure(previous, previous_position, view)
        total, parts = reward(metrics, self.episode.reward)
        end_reason = self._end_reason(metrics)
        terminated = end_reason in ("goal", "off_road", "collision")
        truncated = end_reason == "log_deviation"
        info = self._info(view, metrics, parts, end_reason=end_reason)
        return self._show(view), total, terminated, truncated, info

    def render(self) -> Image | None:
        """Return the current picture ("rgb_array") or show it in a window ("human")."""
        if self._frame is None:
            raise gym.error.ResetNeeded("call env.reset() before env.render(): there is no picture yet")
        if self.render_mode == "human":
            self._window.show(self._frame)
            return None
        return self._frame.copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the window and free the world; the environment cannot be used afterwards."""
        if not self._is_closed:
            self._is_closed = True
            self._window.close()
            self._free_world()
            self._ego = self._frame = self._position = None

    def _require_length(self) -> None:
        if len(self.scene) < self.episode.context_frames:
            raise InputError(
                f"scene {self.scene.name!r} has {len(self.scene)} frames, fewer than the context of "
                f"{self.episode.context_frames}; choose a longer scene or a smaller context_frames"
            )

    def _start_index(self, options: dict[str, Any]) -> int:
        unknown = set(options) - set(self.reset_options)
        if unknown:
            raise InputError(f"reset has no option {sorted(unknown)}; it takes {list(self.reset_options)}")
        first, last = self.episode.context_frames - 1, len(self.scene) - 1
        index = int(options.get("start_index", first))
        if not first <= index <= last:
            raise InputError(
                f"start_index must lie in [{first}, {last}] for scene {self.scene.name!r}, got {index}"
            )
        return index

    def _follow_log(self, index: int) -> RoutePosition:
        """Locate the log on the route from its first frame on, so that laps and crossings are told apart."""
        position = None
        for passed in range(index + 1):
            position = self._locate(self.log.ego_state(passed), position)
        assert position is not None
        return position

    def _locate(self, ego: EgoState, last: RoutePosition | None) -> RoutePosition:
        near_m = None if last is None else last.distance_m
        return self.route.project((ego.x_m, ego.y_m), ego.yaw_rad, near_m=near_m)

    def _control(self, action: Action) -> Control:
        steering_rad, target_speed_mps = checked_action(action, self.action_space)
        return dynamics.control_from_action(
            steering_rad, target_speed_mps, self.ego, self.episode.vehicle, self.dt_s
        )

    def _measure(
        self, previous: EgoState, previous_position: RoutePosition, view: View
    ) -> dict[str, MetricResult]:
        return measure(
            DrivenStep(
                previous=previous,
                current=self.ego,
                dt_s=self.dt_s,
                previous_route=previous_position,
                current_route=self.position,
                route_length_m=self.route.length_m,
                vehicle=self.episode.vehicle,
                drivable=self.scene.drivable,
                is_collision=view.is_collision,
                log_xy_m=self.log.xy_m(self._log_index),
            )
        )

    def _end_reason(self, metrics: dict[str, MetricResult]) -> str:
        deviation, limit_m = metrics["log_deviation_m"], self.episode.max_log_deviation_m
        if metrics["collision"].is_valid and metrics["collision"].value > 0:
            return "collision"
        if metrics["off_road"].is_valid and metrics["off_road"].value > self.episode.off_road_limit:
            return "off_road"
        if self.position.distance_m >= self.route.length_m - GOAL_RADIUS_M:
            return "goal"
        if limit_m is not None and deviation.is_valid and deviation.value > limit_m:
            return "log_deviation"
        return ""

    def _info(
        self, view: View, metrics: dict[str, MetricResult], parts: dict[str, float], *, end_reason: str
    ) -> dict[str, Any]:
        ego, distance_m = self.ego, self.position.distance_m
        vehicle = dataclasses.asdict(self.episode.vehicle)
        ego_from_global = np.linalg.inv(global_from_ego((ego.x_m, ego.y_m), ego.yaw_rad))
        route_ahead_m = transform_points(ego_from_global, self.route.points_at(distance_m + ROUTE_AHEAD_M))
        return {
            "ego": {name: float(value) for name, value in dataclasses.asdict(ego).items()},
            "rewards": parts,
            "metrics": {name: result.as_dict() for name, result in metrics.items()},
            "confidence": float(view.confidence),
            "route_ahead_m": route_ahead_m.astype(np.float32),
            "command": self.route.command_at(distance_m).value,
            "log_action": self.log.action(self._log_index),
            "is_log_valid": self.log.has_action(self._log_index),
            "log_index": self._log_index,
            "vehicle": {name: float(value) for name, value in vehicle.items()},
            "dt_s": self.dt_s,
            "scene": self.scene.name,
            "end_reason": end_reason,
        }

    def _show(self, view: View) -> Image:
        """Keep the picture for ``render`` and return it as an observation of its own."""
        self._frame = np.array(view.frame, dtype=np.uint8)
        if self.render_mode == "human":
            self._window.show(self._frame)
        return self._frame.copy()
