"""Episodes and how to drive them: EpisodeConfig, make_env and rollout(); policies come from ``policy_loading``.

Knows environments only through Gymnasium and policies only through ``select_action``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from drivesim.episode import EpisodeConfig as EpisodeConfig
from drivesim.episode import load_scene as load_scene
from drivesim.errors import InputError, nearest
from drivesim.policy_loading import POLICIES as POLICIES
from drivesim.policy_loading import Action as Action
from drivesim.policy_loading import Policy as Policy
from drivesim.policy_loading import load_policy as load_policy
from drivesim.policy_loading import make_policy as make_policy
from drivesim.scene.types import Image, Scene


def make_env(
    episode: EpisodeConfig, *, render_mode: str | None = None, **kwargs: Any
) -> gym.Env[Image, Action]:
    """Make the episode's environment; ``kwargs``, e.g. ``scene=`` a loaded Scene, go to it.

    Raises:
        InputError: no environment of that name is registered.
    """
    try:
        return gym.make(
            episode.env_id,
            max_episode_steps=episode.horizon,
            episode=episode,
            render_mode=render_mode,
            **kwargs,
        )
    except (gym.error.NameNotFound, gym.error.VersionNotFound, gym.error.NamespaceNotFound) as error:
        ours = [env_id for env_id in gym.registry if "-Drive-v" in env_id]
        raise InputError(
            f"there is no environment {episode.env_id!r}; {nearest(episode.env_id, ours)}"
        ) from error


@dataclass(kw_only=True, slots=True)
class StepRecord:
    """One step as ``rollout.json`` keeps it: plain numbers, words and dicts of them."""

    step: int  # 1 for the first
    action: dict[str, float]  # steering_rad, target_speed_mps
    ego: dict[str, float]  # pose and motion after the step
    speed_mps: float
    reward: float
    rewards: dict[str, float]  # parts, which sum to the reward
    confidence: float
    metrics: dict[str, dict[str, float | bool]]
    log_index: int
    terminated: bool
    truncated: bool
    end_reason: str


@dataclass(kw_only=True, slots=True)
class Rollout:
    """What happened from reset to the end. Frame ``t`` is the picture after step ``t``; 0 is the start."""

    env_id: str
    scene: str
    policy: str
    seed: int | None
    start: dict[str, float]  # ego at reset
    start_log_index: int
    steps: list[StepRecord] = field(default_factory=list)
    frames: list[Image] = field(default_factory=list)  # one more than steps
    log_frames: list[Image | None] = field(
        default_factory=list
    )  # recorded picture of the same time, while it lasts

    @property
    def total_reward(self) -> float:
        """Return the sum of rewards."""
        return float(sum(record.reward for record in self.steps))

    @property
    def end_reason(self) -> str:
        """Return that of the last step, or time_limit where it names none; "" if the episode did not end."""
        if not self.steps:
            return ""
        last = self.steps[-1]
        return last.end_reason or ("time_limit" if last.truncated else "")

    def summary(self) -> dict[str, Any]:
        """Return the totals of the rollout in plain Python."""
        last = self.steps[-1] if self.steps else None
        return {
            "num_steps": len(self.steps),
            "total_reward": self.total_reward,
            "end_reason": self.end_reason,
            "progress_m": sum(record.metrics["progress_m"]["value"] for record in self.steps),
            "route_completion": last.metrics["route_completion"]["value"] if last else 0.0,
            "mean_confidence": float(np.mean([record.confidence for record in self.steps]))
            if self.steps
            else 1.0,
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything but the pictures, ready for ``json.dump``."""
        return {
            "env_id": self.env_id,
            "scene": self.scene,
            "policy": self.policy,
            "seed": self.seed,
            "start": self.start,
            "start_log_index": self.start_log_index,
            "summary": self.summary(),
            "steps": [dataclasses.asdict(record) for record in self.steps],
        }


def rollout(
    env: gym.Env[Image, Action],
    policy: Policy,
    seed: int | None = None,
    num_steps: int | None = None,
    *,
    options: dict[str, Any] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Rollout:
    """Drive one episode.

    Args:
        env: an environment of this project, wrapped or not.
        policy: what drives.
        seed: for ``env.reset``; the same seed gives the same rollout bit for bit.
        num_steps: stop after so many steps; None goes on until the episode ends.
        options: for ``env.reset``, e.g. ``{"start_index": 12}``.
        on_step: called with the number of steps driven so far.
    """
    if num_steps is not None and num_steps < 1:
        raise InputError(f"a rollout needs at least one step, got {num_steps}")
    observation, info = env.reset(seed=seed, options=options)
    scene: Scene = env.get_wrapper_attr("scene")
    result = Rollout(
        env_id=env.spec.id if env.spec else type(env.unwrapped).__name__,
        scene=info["scene"],
        policy=type(policy).__name__,
        seed=seed,
        start=info["ego"],
        start_log_index=info["log_index"],
    )
    _keep_frames(result, observation, info, scene)
    is_over = False
    while not is_over and (num_steps is None or len(result.steps) < num_steps):
        action = policy.select_action(observation, info)
        observation, step_reward, terminated, truncated, info = env.step(action)
        is_over = terminated or truncated
        record = _record(
            len(result.steps) + 1, action, step_reward, info, terminated=terminated, truncated=truncated
        )
        result.steps.append(record)
        _keep_frames(result, observation, info, scene)
        if on_step is not None:
            on_step(len(result.steps))
    return result


def _keep_frames(result: Rollout, observation: Image, info: dict[str, Any], scene: Scene) -> None:
    result.frames.append(observation)
    index = info["log_index"]
    result.log_frames.append(_log_frame(scene, index))


def _log_frame(scene: Scene, index: int) -> Image | None:
    """Return the recorded picture; None after the end of the recording, and for one that cannot be read."""
    try:
        return scene.frames[index] if index < len(scene) else None
    except InputError:
        return None


def _record(
    step: int,
    action: Action,
    step_reward: SupportsFloat,
    info: dict[str, Any],
    *,
    terminated: bool,
    truncated: bool,
) -> StepRecord:
    return StepRecord(
        step=step,
        action={"steering_rad": float(action[0]), "target_speed_mps": float(action[1])},
        ego=info["ego"],
        speed_mps=info["ego"]["speed_mps"],
        reward=float(step_reward),
        rewards=info["rewards"],
        confidence=info["confidence"],
        metrics=info["metrics"],
        log_index=info["log_index"],
        terminated=terminated,
        truncated=truncated,
        end_reason=info["end_reason"],
    )
