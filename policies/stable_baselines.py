"""A policy trained with Stable-Baselines3, from the zip file that ``model.save`` wrote.

Such a file is a pickle: loading it runs whatever code its author put into it. Load only files that you trust.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError, nearest
from drivesim.learner_view import STATE_SIZE, LearnerViewConfig, car_action, learner_observation
from drivesim.rollout import Action
from drivesim.scene.types import Image

ALGORITHMS = ("A2C", "DDPG", "PPO", "SAC", "TD3")


@dataclass(kw_only=True, slots=True)
class StableBaselinesPolicy:
    """Drive with a trained model; the view and the action map follow from the spaces it was trained with.

    A ``Dict`` of ``state`` (and ``image``) is :mod:`drivesim.learner_view`, with its wheel and pedal. A plain box of
    pictures is the environment's own observation; its actions are the environment's too, or stretched from [-1, 1] to
    them, as ``gymnasium.wrappers.RescaleAction`` does.
    """

    checkpoint: str | Path
    algorithm: str = "PPO"
    device: str = "cpu"
    is_deterministic: bool = True
    _model: Any = field(init=False, repr=False)
    _view: LearnerViewConfig | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Load the model, once per file.

        Raises:
            InputError: no such algorithm or file, no Stable-Baselines3, or a model of other spaces.
        """
        path = Path(self.checkpoint)
        if self.algorithm.upper() not in ALGORITHMS:
            raise InputError(
                f"there is no algorithm {self.algorithm!r}; {nearest(self.algorithm, list(ALGORITHMS))}"
            )
        if not path.is_file():
            raise InputError(
                f"there is no file {path}; name the zip that a Stable-Baselines3 model was saved to"
            )
        self._model = _load(path, path.stat().st_mtime_ns, self.algorithm.upper(), self.device)
        self._view = _view_of(self._model.observation_space, path)

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) action of the trained model."""
        seen: Any = observation
        if self._view is not None:
            seen = learner_observation(observation, info, self._view)
        action, _ = self._model.predict(seen, deterministic=self.is_deterministic)
        if self._view is not None:
            return car_action(action, info)
        return _stretched(action, self._model.action_space, info["vehicle"])


@lru_cache(maxsize=4)
def _load(path: Path, changed_ns: int, algorithm: str, device: str) -> Any:
    del changed_ns  # a file that was written anew is read anew
    try:
        library = importlib.import_module("stable_baselines3")
    except ImportError as error:
        raise InputError(
            f"Stable-Baselines3 cannot be imported ({error}); install it with: pip install 'drivesim[rl]'"
        ) from error
    try:
        return getattr(library, algorithm).load(path, device=device)
    except Exception as error:  # a pickle may raise anything
        raise InputError(
            f"{path} cannot be read as a {algorithm} model ({type(error).__name__}: {error}); "
            "name its algorithm, or save it again with this version of Stable-Baselines3"
        ) from error


def _view_of(space: Any, path: Path) -> LearnerViewConfig | None:
    """Return the learner's view that a model's observation space shows; None for plain pictures."""
    parts = getattr(space, "spaces", None)
    if parts is None:
        if len(getattr(space, "shape", ()) or ()) == 3:
            return None
    elif set(parts) <= {"state", "image"} and "state" in parts:
        has_hazards = parts["state"].shape != (STATE_SIZE,)
        if "image" not in parts:
            return LearnerViewConfig(has_image=False, has_hazards=has_hazards)
        shape = parts["image"].shape
        height_px, width_px = shape[1:] if shape[0] == 3 else shape[:2]
        return LearnerViewConfig(width_px=width_px, height_px=height_px, has_hazards=has_hazards)
    raise InputError(
        f"{path} was trained on observations {space}; this policy gives pictures, or the learner's view "
        "(drivesim/learner_view.py): train with envs.learner_view.LearnerView or StableBaselinesVecEnv"
    )


def _stretched(action: NDArray[Any], space: Any, car: dict[str, float]) -> Action:
    """Return the action in the environment's units, whichever of the two ranges the model was trained with."""
    low = np.array([-car["max_steering_rad"], 0.0])
    high = np.array([car["max_steering_rad"], car["max_speed_mps"]])
    values = np.asarray(action, dtype=np.float64)
    if np.allclose(space.low, -1) and np.allclose(space.high, 1):
        values = low + (values + 1) / 2 * (high - low)
    return np.clip(values, low, high).astype(np.float32)
