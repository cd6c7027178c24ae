"""The contract both drive environments share; a subclass only makes the pictures and says what they show."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from drivesim.errors import InputError
from drivesim.rollout import Action, EpisodeConfig, load_scene
from drivesim.scene.route import Route, RoutePosition
from drivesim.scene.types import EgoState, Image, Scene
from envs.episode_state import EpisodeState
from envs.recorded_log import RecordedLog
from envs.ride import Ride, View
from envs.window import Window


class DriveEpisodeEnv(gym.Env[Image, Action], ABC):
    """One car, one scene, one camera. The subclasses' docstrings are the data sheets."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "human"], "render_fps": 6}  # noqa: RUF012
    action_space: spaces.Box  # type: ignore[assignment]
    observation_space: spaces.Box  # type: ignore[assignment]
    env_id: ClassVar[str]
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
        self.ride = Ride(self.episode, self.scene)
        self.action_space = self.ride.action_space
        self.observation_space = self.ride.observation_space
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": round(self.scene.rate_hz)}
        self._window = Window(title=f"drivesim: {self.scene.name}", rate_hz=self.scene.rate_hz)
        self._frame: Image | None = None
        self._start_index, self._world_seed = 0, 0
        self._actions: list[tuple[float, float]] = []
        self._is_closed = False

    @abstractmethod
    def _begin_world(self, start_index: int, seed: int) -> View:
        """Put the world where the log is at frame ``start_index`` and show it; all its chance comes from ``seed``."""

    @abstractmethod
    def _advance_world(self, previous: EgoState, current: EgoState) -> View:
        """Show the world one step later, the ego having moved from ``previous`` to ``current``."""

    @abstractmethod
    def _saved_world(self) -> Any:
        """Return the world as it is; nothing that happens later may change what is returned."""

    @abstractmethod
    def _restore_world(self, saved: Any) -> None:
        """Put the world where :meth:`_saved_world` found it."""

    @abstractmethod
    def _free_world(self) -> None:
        """Let go of whatever makes the pictures."""

    def _settings(self) -> str:
        """Return a short hash of all settings that decide what follows from a saved instant."""
        episode = dataclasses.replace(self.episode, scene="", device="")
        return hashlib.sha256(f"{episode} {self._models()}".encode()).hexdigest()[:12]

    def _models(self) -> str:
        """Return what tells the models of this world from others."""
        return ""

    @property
    def dt_s(self) -> float:
        """Return the length of a step."""
        return self.ride.dt_s

    @property
    def log(self) -> RecordedLog:
        """Return the recorded drive."""
        return self.ride.log

    @property
    def route(self) -> Route:
        """Return the route."""
        return self.ride.route

    @property
    def ego(self) -> EgoState:
        """Return the ego state after the last reset or step."""
        return self.ride.here.ego

    @property
    def position(self) -> RoutePosition:
        """Return where the ego is on the route."""
        return self.ride.here.position

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Image, dict[str, Any]]:
        """Start at the log's frame ``context_frames - 1``, or at ``options["start_index"]``.

        Raises:
            InputError: unknown options, a start that leaves no room for the context, or a picture that cannot be read;
                the episode before then goes on.
            gymnasium.error.ClosedEnvironmentError: the environment was closed.
        """
        self._require_open()
        super().reset(seed=seed)
        options = checked_options(options, self.reset_options)
        start_index = self.ride.start_index(options)
        world_seed = int(self.np_random.integers(2**63 - 1))
        view = self._begin_world(start_index, world_seed)  # may raise: the episode before then goes on
        self._start_index, self._world_seed, self._actions = start_index, world_seed, []
        self.ride.begin(start_index)
        return self._show(view), self.ride.opening(view)

    def step(self, action: Action) -> tuple[Image, float, bool, bool, dict[str, Any]]:
        """Drive one step: see the class docstring for action, observation, reward and info.

        Raises:
            InputError: an action of the wrong shape, not finite or out of range.
            gymnasium.error.ResetNeeded: there was no reset.
        """
        previous, current = self.ride.move(action)
        self._actions.append((float(action[0]), float(action[1])))
        view = self._advance_world(previous, current)
        outcome = self.ride.judge(view)
        return self._show(view), outcome.reward, outcome.terminated, outcome.truncated, outcome.info

    def save_state(self) -> EpisodeState:
        """Return the episode at this instant, to be restored any number of times, see ``EpisodeState``.

        The time limit of ``gym.make`` counts in a wrapper and is not part of it.

        Raises:
            gymnasium.error.ResetNeeded: there was no reset.
        """
        return EpisodeState(
            env_id=self.env_id,
            scene=self.scene.name,
            settings=self._settings(),
            start_index=self._start_index,
            world_seed=self._world_seed,
            actions=tuple(self._actions),
            place=self.ride.here,
            chance=dict(self.np_random.bit_generator.state),
            world=(self._saved_world(), self._frame),
        )

    def restore_state(self, state: EpisodeState) -> None:
        """Go back to a saved instant; the same actions then lead to the same pictures, bit for bit.

        Raises:
            InputError: the state is of another environment or scene, or of other settings or weights.
            gymnasium.error.ClosedEnvironmentError: the environment was closed.
        """
        self._require_open()
        if not isinstance(state, EpisodeState):
            raise InputError(f"restore_state takes what save_state returned, got {type(state).__name__}")
        if (state.env_id, state.scene) != (self.env_id, self.scene.name):
            raise InputError(
                f"the state is one of {state.env_id}, scene {state.scene!r}; this is {self.env_id}, scene "
                f"{self.scene.name!r}: restore it where it was saved"
            )
        if state.settings != self._settings():
            raise InputError(
                f"the state was saved under other settings or weights ({state.settings}) than those of this "
                f"environment ({self._settings()}): make one with the same"
            )
        self._start_index, self._world_seed = state.start_index, state.world_seed
        self._actions = list(state.actions)
        self.np_random.bit_generator.state = state.chance
        if state.world is None:
            self._drive_again(state)
        else:
            saved, self._frame = state.world
            self._restore_world(saved)
        self.ride.restore(state.place)

    def _drive_again(self, state: EpisodeState) -> None:
        self.ride.begin(state.start_index)
        view = self._begin_world(state.start_index, state.world_seed)
        for action in state.actions:
            view = self._advance_world(*self.ride.move(action))
        self._frame = np.array(view.frame, dtype=np.uint8)

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
            self._frame = self.ride.place = None

    def _require_open(self) -> None:
        if self._is_closed:
            raise gym.error.ClosedEnvironmentError("this environment is closed: make a new one with gym.make")

    def _show(self, view: View) -> Image:
        """Keep the picture for ``render`` and return it as an observation of its own."""
        self._frame = np.array(view.frame, dtype=np.uint8)
        if self.render_mode == "human":
            self._window.show(self._frame)
        return self._frame.copy()


def checked_options(options: dict[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the options of a reset.

    Raises:
        InputError: an option that there is not.
    """
    unknown = set(options or {}) - set(known)
    if unknown:
        raise InputError(f"reset has no option {sorted(unknown)}; it takes {list(known)}")
    return dict(options or {})
