"""Stable-Baselines3's ``VecEnv`` over a Gymnasium vector environment of this project, in the learner's view.

envs = gym.make_vec("WorldDreamer-Drive-v0", num_envs=8, scenes=..., autoreset_mode=AutoresetMode.DISABLED)
PPO("MultiInputPolicy", StableBaselinesVecEnv(envs)).learn(10_000)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.learner_view import LearnerViewConfig, car_action, learner_observation
from envs.learner_view import learner_action_space, learner_observation_space

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise InputError(
        f"Stable-Baselines3 cannot be imported ({error}); install it with: pip install 'drivesim[rl]'"
    ) from error

Infos = list[dict[str, Any]]
_OFFERED = ("render_mode",)


class StableBaselinesVecEnv(VecEnv):
    """Episodes that end begin anew in the same step, as SB3 wants: the last picture is ``terminal_observation``.

    The environments below must leave finished rows alone (``AutoresetMode.DISABLED``): this class resets them, and so
    sees both the end of one episode and the beginning of the next.
    """

    def __init__(
        self, envs: gym.vector.VectorEnv[Any, Any, Any], config: LearnerViewConfig | None = None
    ) -> None:
        """Take a vector environment.

        Raises:
            InputError: it begins finished episodes anew by itself.
        """
        mode = envs.metadata.get("autoreset_mode")
        if mode != AutoresetMode.DISABLED:
            raise InputError(
                f"StableBaselinesVecEnv resets finished episodes itself, but these environments have autoreset_mode "
                f"{mode}; make them with autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED"
            )
        self.envs = envs
        self.config = config or LearnerViewConfig()
        self._infos: Infos = [{} for _ in range(envs.num_envs)]
        self._frames: NDArray[np.uint8] | None = None
        self._actions: NDArray[np.float32] | None = None
        self.render_mode = envs.render_mode
        super().__init__(envs.num_envs, learner_observation_space(self.config), learner_action_space())

    def reset(self) -> dict[str, NDArray[Any]]:
        """Begin an episode in every row, with the seeds of ``seed`` if they are fresh."""
        seeds = list(self._seeds)
        self._begin(np.ones(self.num_envs, dtype=bool), seed=None if None in seeds else seeds)
        self.reset_infos = list(self._infos)
        self._reset_seeds()
        self._reset_options()
        return _stacked([self._view(row) for row in range(self.num_envs)])

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Take the (N, 2) actions of the next step."""
        self._actions = actions

    def step_wait(self) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32], NDArray[np.bool_], Infos]:
        """Drive one step; rows whose episode ends show the beginning of the next."""
        assert self._actions is not None
        driven = [car_action(action, info) for action, info in zip(self._actions, self._infos, strict=True)]
        frames, rewards, terminated, truncated, infos = self.envs.step(np.stack(driven))
        self._frames = np.array(frames)
        self._infos = plain_infos(self.envs, infos)
        reported = [dict(info) for info in self._infos]
        is_over = np.logical_or(terminated, truncated)
        for row in np.flatnonzero(is_over):
            reported[row]["terminal_observation"] = self._view(row)
        for row in range(self.num_envs):
            reported[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        if is_over.any():
            self._begin(is_over)
        views = [self._view(row) for row in range(self.num_envs)]
        return _stacked(views), np.asarray(rewards, dtype=np.float32), is_over, reported

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """Return an attribute of the vector environment, once per row."""
        value = getattr(self if attr_name in _OFFERED else self.envs, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Set an attribute of the vector environment; rows have none of their own."""
        del indices
        setattr(self.envs, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: int | Iterable[int] | None = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method of the vector environment once; return its result once per row."""
        result = getattr(self.envs, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: int | Iterable[int] | None = None
    ) -> list[bool]:
        """Tell that no row has a wrapper of its own."""
        del wrapper_class
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Return every row's picture as the environment shows it."""
        assert self._frames is not None
        return list(self._frames)

    def _begin(self, is_chosen: NDArray[np.bool_], *, seed: list[int] | None = None) -> None:
        """Reset the chosen rows; the others keep what they show."""
        seeds: Any = seed  # Gymnasium's annotation knows one integer only
        frames, infos = self.envs.reset(seed=seeds, options={"reset_mask": is_chosen})
        fresh = plain_infos(self.envs, infos)
        if self._frames is None:
            self._frames = np.array(frames)
        for row in np.flatnonzero(is_chosen):
            self._frames[row] = frames[row]
            self._infos[row] = fresh[row]

    def _view(self, row: int) -> dict[str, NDArray[Any]]:
        assert self._frames is not None
        return learner_observation(self._frames[row], self._infos[row], self.config)


def plain_infos(envs: gym.vector.VectorEnv[Any, Any, Any], infos: Mapping[str, Any]) -> Infos:
    """Return what a single environment would have said, per row.

    Our own vector environment keeps it as ``infos``; others' dicts of arrays are taken apart. A row of which nothing
    is said gets what its arrays hold there.
    """
    kept = getattr(envs.unwrapped, "infos", None)
    if kept is not None:
        return [dict(info) for info in kept]
    return [_row_of(infos, row) for row in range(envs.num_envs)]


def _row_of(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    return {
        name: _row_of(value, row) if isinstance(value, Mapping) else value[row]
        for name, value in infos.items()
        if not name.startswith("_")
    }


def _stacked(views: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([view[name] for view in views]) for name in views[0]}
