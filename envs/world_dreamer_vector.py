"""The batched WorldDreamer-Drive-v0: ``gym.make_vec("WorldDreamer-Drive-v0", num_envs=N)``."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from drivesim import MAX_EPISODE_STEPS
from drivesim.errors import InputError
from drivesim.hazard import HazardHead
from drivesim.rollout import EpisodeConfig, load_scene
from drivesim.scene.types import Scene
from drivesim.shared_models import models_of
from drivesim.world_model.world_model import WorldModel
from envs.drive_episode import checked_options
from envs.imagined_worlds import ImaginedWorlds
from envs.ride import Outcome, Ride, View
from envs.spaces import batched_actions

Images = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]
Stepped = tuple[Images, NDArray[np.float64], BoolArray, BoolArray, dict[str, Any]]


class WorldDreamerVectorEnv(gym.vector.VectorEnv[Images, NDArray[np.float32], NDArray[Any]]):
    """N cars in imagined pictures, imagined together by one world model.

    Each row is what a ``WorldDreamer-Drive-v0`` of its own would be with the same scene, seed and actions: on a CPU
    equal bit for bit, on one machine with one number of threads; on an accelerator up to rounding. Actions,
    observations, rewards, info and the ends of episodes are described there; batches of them have N in front, and
    ``infos`` are those of Gymnasium's vector environments.

    ## Arguments
    ``gym.make_vec("WorldDreamer-Drive-v0", num_envs=N, ...)``: those of the single environment, and

    | Name | Default | Meaning |
    |---|---|---|
    | scenes | None | one scene (name or ``Scene``) for each row, or one for all; None is that of the episode |
    | autoreset_mode | NEXT_STEP | Gymnasium's: NEXT_STEP ("NextStep"), SAME_STEP ("SameStep"), or |
    |  |  | DISABLED ("Disabled") |
    | max_episode_steps | 100 | steps until the time limit truncates |

    With DISABLED a row that has ended rests: it is not imagined, ``step`` repeats its last picture with reward 0 until
    ``reset(options={"reset_mask": ...})`` begins it anew, and ``is_over`` tells which these are. Seeds: an integer s
    gives the rows s, s + 1, ...; a list names them.

    Besides the API of Gymnasium, ``infos`` (N plain dicts, as a single environment returns them) and ``is_over`` hold
    the results of the last reset or step.

    ## Learners
    Loops in the manner of CleanRL want SAME_STEP, and a wrapper that keeps actions in range
    (``gymnasium.wrappers.vector.ClipAction``, ``RescaleAction``). Stable-Baselines3 (through
    ``envs.stable_baselines_vec``) and TorchRL's ``GymWrapper`` want DISABLED. TorchRL refuses NEXT_STEP; with SAME_STEP
    it makes tensors of all that ``infos`` holds, and cannot, because there are names and dicts among it.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 6}  # noqa: RUF012

    def __init__(
        self,
        *,
        num_envs: int = 1,
        episode: EpisodeConfig | None = None,
        scenes: Sequence[str | Scene] | str | Scene | None = None,
        world_model: WorldModel | None = None,
        hazard_head: HazardHead | str | None = None,
        max_episode_steps: int | None = MAX_EPISODE_STEPS,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        """Load scenes and weights; see the class docstring for the arguments.

        Raises:
            InputError: an argument does not fit, or scenes and weights do not fit each other.
        """
        super().__init__()
        if num_envs < 1:
            raise InputError(f"num_envs must be at least 1, got {num_envs}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise InputError(f"render_mode is 'rgb_array' or None for a batch, got {render_mode!r}")
        if isinstance(hazard_head, str):
            settings["hazard_head"] = hazard_head
        scenes = settings.pop("scene", None) if scenes is None else scenes
        self.num_envs, self.render_mode = num_envs, render_mode
        self.episode = (episode or EpisodeConfig()).with_settings(settings)
        self.scenes = _scenes(scenes, num_envs, self.episode)
        self.rides = [Ride(self.episode, scene) for scene in self.scenes]
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.max_episode_steps = max_episode_steps
        self.metadata = {
            **self.metadata,
            "render_fps": round(self.scenes[0].rate_hz),
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_action_space = self.rides[0].action_space
        self.single_observation_space = self.rides[0].observation_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.worlds = ImaginedWorlds(
            self.episode, self.scenes, *models_of(self.episode, world_model, hazard_head)
        )
        self.infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]
        self.is_over: BoolArray = np.zeros(num_envs, dtype=bool)
        self._has_begun: BoolArray = np.zeros(num_envs, dtype=bool)
        self._elapsed = np.zeros(num_envs, dtype=int)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        shape = self.observation_space.shape
        assert shape is not None
        self._observations: Images = np.zeros(shape, dtype=np.uint8)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Images, dict[str, Any]]:
        """Begin all rows, or those of ``options["reset_mask"]`` (N bools); ``start_index`` as in a single one.

        Raises:
            InputError: unknown options, a mask or seeds that are not N, a start that does not fit, or a picture that
                cannot be read; all rows are then as they were.
            gymnasium.error.ClosedEnvironmentError: the environment was closed.
        """
        self._require_open()
        options = checked_options(options, ("start_index", "reset_mask"))
        rows = self._masked_rows(options.pop("reset_mask", None))
        seeds = self._seeds(seed)
        starts = [self.rides[row].start_index(options) for row in rows]
        self._begin(rows, starts, seeds)
        infos: dict[str, Any] = {}
        for row in rows:
            infos = self._add_info(infos, self.infos[row], row)
        return self._observations.copy(), infos

    def step(self, actions: NDArray[np.float32]) -> Stepped:
        """Drive all rows one step: actions are (N, 2); see the class docstring for rows that have ended.

        Raises:
            InputError: actions of another shape, or one that is not finite or out of range: no row has moved then.
                Or a picture with which a row is to begin anew cannot be read: the others have moved, and that row
                tries again with every step.
            gymnasium.error.ResetNeeded: a row has not begun.
        """
        self._require_open()
        if not self._has_begun.all():
            raise gym.error.ResetNeeded("call env.reset() first: there is no episode yet")
        checked = batched_actions(actions, self.rides[0].action_space, self.num_envs)
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        going = list(self.worlds.rows)
        ended = np.flatnonzero(self.is_over).tolist()
        outcomes = self._advance(going, checked)
        for row, outcome in zip(going, outcomes, strict=True):
            self.infos[row] = outcome.info
            rewards[row], terminated[row] = outcome.reward, outcome.terminated
            is_late = self.max_episode_steps is not None and self._elapsed[row] >= self.max_episode_steps
            truncated[row] = outcome.truncated or is_late
        infos = self._finish(ended, terminated, truncated)
        return self._observations.copy(), rewards, terminated, truncated, infos

    def _advance(self, going: list[int], actions: NDArray[np.float64]) -> list[Outcome]:
        if not going:
            return []
        views = self.worlds.advance([self.rides[row].move(actions[row]) for row in going])
        for row, view in zip(going, views, strict=True):
            self._show(row, view)
            self._elapsed[row] += 1
        return [self.rides[row].judge(view) for row, view in zip(going, views, strict=True)]

    def _finish(self, ended: list[int], terminated: BoolArray, truncated: BoolArray) -> dict[str, Any]:
        """Reset what the mode asks for, and return the infos of the step."""
        over = np.flatnonzero(terminated | truncated).tolist()
        self.worlds.end(over)
        self.is_over[over] = True
        infos: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            for row in over:
                last = {"final_obs": self._observations[row].copy(), "final_info": self.infos[row]}
                infos = self._add_info(infos, last, row)
            ended = sorted(ended + over)  # those from before could not begin when they were over
        if self.autoreset_mode is not AutoresetMode.DISABLED and ended:
            self._begin_again(ended)
        for row, info in enumerate(self.infos):
            infos = self._add_info(infos, info, row)
        return infos

    def _begin_again(self, rows: list[int]) -> None:
        self._begin(rows, [self.rides[row].start_index({}) for row in rows], [None] * self.num_envs)

    def _begin(self, rows: list[int], starts: list[int], seeds: Sequence[int | None]) -> None:
        generators = [self._next_generator(row, seeds[row]) for row in rows]
        world_seeds = [int(generator.integers(2**63 - 1)) for generator in generators]
        views = self.worlds.begin(rows, starts, world_seeds)  # may raise: before anything is changed
        for row, start, generator, view in zip(rows, starts, generators, views, strict=True):
            self._generators[row] = generator
            self.rides[row].begin(start)
            self._show(row, view)
            self.infos[row] = self.rides[row].opening(view)
        self._elapsed[rows] = 0
        self.is_over[rows] = False
        self._has_begun[rows] = True

    def _show(self, row: int, view: View) -> None:
        self._observations[row] = view.frame

    def _next_generator(self, row: int, seed: int | None) -> np.random.Generator:
        """Return a copy of the row's generator, or a fresh one; the row's own stays as it is."""
        generator = self._generators[row]
        return seeding.np_random(seed)[0] if seed is not None or generator is None else deepcopy(generator)

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None or isinstance(seed, int | np.integer):
            return [None if seed is None else int(seed) + row for row in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise InputError(f"a list of seeds names one for each of {self.num_envs} rows, got {len(seed)}")
        return seed

    def _masked_rows(self, mask: Any) -> list[int]:
        if mask is None:
            return list(range(self.num_envs))
        chosen = np.asarray(mask)
        if chosen.shape != (self.num_envs,) or chosen.dtype != bool or not chosen.any():
            raise InputError(
                f"options['reset_mask'] is an array of {self.num_envs} bools, at least one of them true, got {mask!r}"
            )
        return np.flatnonzero(chosen).tolist()

    def render(self) -> tuple[Images, ...] | None:
        """Return the N current pictures with render_mode "rgb_array", else None."""
        return tuple(self._observations.copy()) if self.render_mode == "rgb_array" else None

    def close_extras(self, **kwargs: Any) -> None:
        """Free the worlds; the environment cannot be used afterwards."""
        del kwargs
        self.worlds.free()

    def _require_open(self) -> None:
        if self.closed:
            raise gym.error.ClosedEnvironmentError(
                "this environment is closed: make a new one with gym.make_vec"
            )


def _scenes(
    scenes: Sequence[str | Scene] | str | Scene | None, count: int, episode: EpisodeConfig
) -> list[Scene]:
    """Return the scene of every row; a scene that is named twice is loaded once."""
    named = [scenes] * count if scenes is None or isinstance(scenes, str | Scene) else list(scenes)
    if len(named) == 1:
        named = named * count
    if len(named) != count:
        raise InputError(f"scenes names one scene for each of {count} rows, or one for all, got {len(named)}")
    loaded: dict[str, Scene] = {}
    for name in named:
        if not isinstance(name, Scene) and (name or "") not in loaded:
            loaded[name or ""] = load_scene(episode.with_settings({"scene": name} if name else {}))
    chosen = [name if isinstance(name, Scene) else loaded[name or ""] for name in named]
    odd = next((scene for scene in chosen if not scene.camera.equals(chosen[0].camera)), None)
    if odd is not None:
        raise InputError(
            f"the scenes of a batch are seen by one camera; {odd.name!r} was recorded by another than "
            f"{chosen[0].name!r}: put it into a batch of its own"
        )
    return chosen
