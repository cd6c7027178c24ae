"""PPO by Stable-Baselines3 in either world: short segments on ever new roads, each a checkpoint to resume from.

Segment ``k`` depends on the agent after segment ``k - 1``, the seed and ``k`` alone: a run that was killed computes
what an unkilled one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger

from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.learner_view import LearnerViewConfig
from drivesim.metrics.scores import ROUTE_SPEED_MPS
from drivesim.reference.behavior import record
from drivesim.reference.seeds import FIRST_VALIDATION_SEED
from drivesim.reference.simulator import draw_spec
from drivesim.rewards import RewardConfig
from drivesim.scene.types import Scene
from envs.stable_baselines_vec import StableBaselinesVecEnv

HORIZON = 100  # steps of an episode
CONTEXT_FRAMES = 4
LAST_AGENT = "last.zip"


@dataclass(kw_only=True, slots=True)
class PPOConfig:
    """Settings of the algorithm; found on training roads of the reference world."""

    rollout_steps: int = 64  # per environment and segment
    batch_size: int = 128
    num_epochs: int = 10
    gamma: float = 0.95
    gae_lambda: float = 0.9
    learning_rate: float = 2e-3  # falls to a fifth
    clip_range: float = 0.2
    log_std: float = -1.0  # at the start
    widths: list[int] = field(default_factory=lambda: [64, 64])
    picture_features: int = 16
    has_image: bool = True


def learners_reward() -> RewardConfig:
    """Return what learners are paid: progress up to the speed that is asked for, and dear errors.

    A tenth of the size of the environment's own: larger returns would drown the actor's gradient in the critic's.
    """
    return RewardConfig(
        full_progress_m=ROUTE_SPEED_MPS / 6.0,
        progress=0.1,
        lateral=0.05,
        heading=0.01,
        comfort=0.01,
        speeding=0.02,
        off_road=0.5,
        collision=0.5,
    )


@dataclass(kw_only=True, slots=True)
class TrainingPlan:
    """One agent: where it learns, for how long, on which roads."""

    env_id: str
    num_steps: int
    num_envs: int = 8
    seed: int = 0
    first_road_seed: int = 500_000
    ppo: PPOConfig = field(default_factory=PPOConfig)
    reward: RewardConfig = field(default_factory=learners_reward)

    def __post_init__(self) -> None:
        """Refuse no steps, and roads that are not for training."""
        if self.num_steps < 1 or self.num_envs < 1:
            raise InputError(
                f"an agent needs steps and environments, got {self.num_steps} and {self.num_envs}"
            )
        if self.first_road_seed + self.num_segments * self.num_envs > FIRST_VALIDATION_SEED:
            raise InputError(
                f"{self.num_steps} steps need {self.num_segments * self.num_envs} roads from {self.first_road_seed} "
                f"on, which reach beyond those for training (below {FIRST_VALIDATION_SEED}); ask for fewer steps"
            )

    @property
    def steps_per_segment(self) -> int:
        """Return the environment steps between two updates of the agent."""
        return self.ppo.rollout_steps * self.num_envs

    @property
    def num_segments(self) -> int:
        """Return how many segments there are; the last one is whole, too."""
        return -(-self.num_steps // self.steps_per_segment)

    def evaluation_segments(self, count: int) -> list[int]:
        """Return after which segments the agent is kept to be evaluated, evenly spread, the last one among them."""
        return sorted({max(1, round(self.num_segments * (i + 1) / count)) for i in range(count)})


def train(
    plan: TrainingPlan,
    folder: Path,
    *,
    kept_segments: Sequence[int],
    env_settings: dict[str, Any],
    on_progress: Callable[[int], None],
) -> dict[int, Path]:
    """Train an agent, or go on with the one in ``folder``; return the kept agents by their environment steps.

    Args:
        plan: of the training.
        folder: where agents go; an interrupted run left its last one there.
        kept_segments: after which the agent is kept under its own name.
        env_settings: for the environments, such as ``weights``.
        on_progress: called with the environment steps done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = {segment * plan.steps_per_segment: _kept(folder, segment, plan) for segment in kept_segments}
    done = _segments_done(folder, plan)
    on_progress(done * plan.steps_per_segment)
    for segment in range(done, plan.num_segments):
        agent = _train_segment(plan, segment, folder, env_settings)
        if segment + 1 in kept_segments:
            _save(agent, _kept(folder, segment + 1, plan))
        _save(agent, folder / LAST_AGENT)
        on_progress((segment + 1) * plan.steps_per_segment)
    return kept


def training_scenes(plan: TrainingPlan, segment: int) -> list[Scene]:
    """Return one new road per environment, recorded just long enough for the world model's context."""
    first = plan.first_road_seed + segment * plan.num_envs
    return [start_of_road(seed) for seed in range(first, first + plan.num_envs)]


def start_of_road(seed: int) -> Scene:
    """Return a scene of a road's first frames, driven well."""
    return record(draw_spec(seed), driver="good", num_frames=CONTEXT_FRAMES + 1, driver_seed=seed).scene


def make_envs(
    env_id: str, scenes: Sequence[Scene], view: LearnerViewConfig, settings: dict[str, Any]
) -> StableBaselinesVecEnv:
    """Return environments over scenes: one batch where the world has a batched version, else one after the other."""
    if gym.spec(env_id).vector_entry_point is not None:
        envs = gym.make_vec(
            env_id,
            num_envs=len(scenes),
            scenes=list(scenes),
            max_episode_steps=HORIZON,
            autoreset_mode=AutoresetMode.DISABLED,
            **settings,
        )
    else:
        makers = [
            partial(gym.make, env_id, scene=scene, max_episode_steps=HORIZON, **settings) for scene in scenes
        ]
        envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    return StableBaselinesVecEnv(envs, view)


def _train_segment(plan: TrainingPlan, segment: int, folder: Path, settings: dict[str, Any]) -> PPO:
    """Train the agent of the last segment for one rollout on new roads."""
    view = LearnerViewConfig(has_image=plan.ppo.has_image)
    scenes = training_scenes(plan, segment)
    envs = make_envs(plan.env_id, scenes, view, {"reward": plan.reward, **settings})
    rate = plan.ppo.learning_rate * (1 - 0.8 * segment / max(plan.num_segments - 1, 1))
    try:
        if segment == 0:
            agent = _new_agent(plan, envs)
        else:
            agent = PPO.load(
                folder / LAST_AGENT, env=envs, device="cpu", custom_objects={"learning_rate": rate}
            )
        agent.set_random_seed(plan.seed * 100_003 + segment)
        agent.set_logger(Logger(folder=None, output_formats=[]))  # its own makes a folder per call
        agent.learn(plan.steps_per_segment, reset_num_timesteps=segment == 0)
    finally:
        envs.close()
    return agent


def _new_agent(plan: TrainingPlan, envs: StableBaselinesVecEnv) -> PPO:
    config = plan.ppo
    return PPO(
        "MultiInputPolicy",
        envs,
        learning_rate=config.learning_rate,
        n_steps=config.rollout_steps,
        batch_size=min(config.batch_size, plan.steps_per_segment),
        n_epochs=config.num_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        seed=plan.seed,
        device="cpu",
        policy_kwargs={
            "net_arch": list(config.widths),
            "log_std_init": config.log_std,
            "features_extractor_kwargs": {"cnn_output_dim": config.picture_features},  # if it has a picture
        },
    )


def _kept(folder: Path, segment: int, plan: TrainingPlan) -> Path:
    return folder / f"after-{segment * plan.steps_per_segment:06d}-steps.zip"


def _segments_done(folder: Path, plan: TrainingPlan) -> int:
    """Return how many segments the agent in a folder has learned from.

    Raises:
        InputError: it cannot be read, or was trained in other segments.
    """
    path = folder / LAST_AGENT
    if not path.is_file():
        return 0
    try:
        steps = int(PPO.load(path, device="cpu").num_timesteps)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove {folder} to train anew") from error
    return steps // plan.steps_per_segment


def _save(agent: PPO, path: Path) -> None:
    with atomic_path(path) as temporary:
        agent.save(temporary)
