"""The learner's view of a drive environment: small observations and symmetric actions, as a Gymnasium wrapper."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from drivesim.learner_view import (
    STATE_LIMIT,
    LearnerViewConfig,
    car_action,
    learner_observation,
)
from drivesim.rollout import Action
from drivesim.scene.types import Image

Observation = dict[str, NDArray[Any]]


def learner_observation_space(config: LearnerViewConfig) -> spaces.Dict:
    """Return the space of :func:`drivesim.learner_view.learner_observation`."""
    parts: dict[str, spaces.Space[Any]] = {
        "state": spaces.Box(-STATE_LIMIT, STATE_LIMIT, (config.state_size,), np.float32)
    }
    if config.has_image:
        parts["image"] = spaces.Box(0, 255, (config.height_px, config.width_px, 3), np.uint8)
    return spaces.Dict(parts)


def learner_action_space() -> spaces.Box:
    """Return the box of wheel and pedal, [-1, 1]^2."""
    return spaces.Box(-1.0, 1.0, (2,), np.float32)


class LearnerView(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Wrap ``gym.make("WorldDreamer-Drive-v0", ...)`` or ``"Reference-Drive-v0"``; info stays as it is."""

    def __init__(self, env: gym.Env[Image, Action], config: LearnerViewConfig | None = None) -> None:
        """Take an environment of this project, wrapped or not."""
        gym.utils.RecordConstructorArgs.__init__(self, config=config)
        super().__init__(env)
        self.config = config or LearnerViewConfig()
        self.observation_space = learner_observation_space(self.config)
        self.action_space = learner_action_space()
        self._info: dict[str, Any] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset the environment; see its own ``reset``."""
        frame, self._info = self.env.reset(seed=seed, options=options)
        return learner_observation(frame, self._info, self.config), self._info

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Drive one step by wheel and pedal.

        Raises:
            gymnasium.error.ResetNeeded: there was no reset.
        """
        if self._info is None:
            raise gym.error.ResetNeeded("call env.reset() first: there is no episode yet")
        frame, reward, terminated, truncated, self._info = self.env.step(car_action(action, self._info))
        seen = learner_observation(frame, self._info, self.config)
        return seen, float(reward), terminated, truncated, self._info
