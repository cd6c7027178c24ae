"""One policy on one course: what it is shown, what it does, and what is noted of every step."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.driving_scenes import Course
from benchmarks.driving_seats import Seen
from benchmarks.guarded_policy import GuardedPolicy, Limits, PolicyFailure
from drivesim.errors import InputError
from drivesim.metrics.scores import DrivenEpisode, EpisodeScores, Series, score_episode
from drivesim.policy_loading import Action
from drivesim.rollout import EpisodeConfig
from drivesim.scene.types import Image

FAILED = "failed"
Arrays = dict[str, NDArray[np.generic]]


class EpisodeDrive:
    """An episode while it goes on: `begin`, then `action` and `take` in turns until it is over."""

    def __init__(
        self,
        policy: str,
        seed: int,
        course: Course,
        *,
        episode: EpisodeConfig,
        limits: Limits,
        keeps_frames: bool,
    ) -> None:
        """Prepare the episode; the policy is made when it begins."""
        self.course = course
        self.frames: list[Image] = []
        self.end_reason = self.failure = ""
        self._name, self._seed, self._episode, self._limits = policy, seed, episode, limits
        self._keeps_frames = keeps_frames
        self._policy: GuardedPolicy | None = None
        self._rows: defaultdict[str, list[Any]] = defaultdict(list)

    @property
    def is_going(self) -> bool:
        """Tell whether the episode goes on."""
        return not self.end_reason

    @property
    def seconds_per_action(self) -> float:
        """Return the policy's mean time."""
        seconds = self._policy.seconds if self._policy is not None else 0.0
        return seconds / max(len(self._rows["reward"]), 1)

    def begin(self, seen: Seen) -> None:
        """Show the start to a new policy."""
        self._show(seen)
        try:
            self._policy = GuardedPolicy(
                self._name, seed=self._seed, limits=self._limits, vehicle=self._episode.vehicle
            )
        except (InputError, PolicyFailure) as error:
            self._fail(error)

    def action(self) -> Action | None:
        """Ask the policy; None if it failed."""
        assert self._policy is not None
        try:
            return self._policy.select_action(self._seen.observation, self._seen.info)
        except PolicyFailure as error:
            self._fail(error)
            return None

    def take(self, action: Action, seen: Seen) -> None:
        """Note what an action led to."""
        info = seen.info
        for group, validity in (("metrics", "is_valid"), ("hazards", "hazards_valid")):
            for name, result in info[group].items():
                self._rows[f"{group}/{name}"].append(result["value"])
                self._rows[f"{validity}/{name}"].append(result["is_valid"])
        for group in ("rewards", "ego"):
            for name, value in info[group].items():
                self._rows[f"{group}/{name}"].append(value)
        self._rows["action"].append(action)
        self._rows["reward"].append(seen.reward)
        self._rows["confidence"].append(info["confidence"])
        if seen.is_over:
            self.end_reason = info["end_reason"] or "time_limit"
        self._show(seen)

    def arrays(self) -> Arrays:
        """Return everything noted, one row per driven step."""
        return {name: np.array(values) for name, values in self._rows.items() if values}

    def scores(self, arrays: Arrays) -> EpisodeScores:
        """Return the scores of what was noted; none is valid if the policy failed."""
        if self.failure:
            return EpisodeScores()
        names = [key.removeprefix("metrics/") for key in arrays if key.startswith("metrics/")]
        metrics = {
            name: Series(
                values=arrays[f"metrics/{name}"].astype(np.float64),
                is_valid=arrays[f"is_valid/{name}"].astype(bool),
            )
            for name in names
        }
        return score_episode(
            DrivenEpisode(
                metrics=metrics,
                end_reason=self.end_reason,
                horizon=self._episode.horizon,
                dt_s=1.0 / self.course.scene.rate_hz,
                route_left_m=self.course.route_left_m,
                expert_progress_m=self.course.expert_progress_m,
                off_road_limit=self._episode.off_road_limit,
            )
        )

    def _show(self, seen: Seen) -> None:
        self._seen = seen
        if self._keeps_frames:
            self.frames.append(seen.observation)

    def _fail(self, error: Exception) -> None:
        self.end_reason, self.failure = FAILED, str(error)
