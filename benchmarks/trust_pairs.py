"""The same episode in two worlds, and what a policy's episodes come to in each of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.ranking_statistics import PairedScores
from benchmarks.statistics import FloatArray, bootstrap_mean
from drivesim.policy_naming import split_settings

SCORE = "pdms"
PARTS = (
    "hd_score",
    "route_completion",
    "off_road_rate",
    "collision",
    "comfort",
    "time_to_collision",
)
"""Compared one by one beside the score, where both worlds measure them; names of `EpisodeScores`."""
MEASURES = (SCORE, *PARTS)
SAME_PATH_M = 1e-3
LEAST_SCORED = 0.5  # of a policy's episodes; with fewer it is left out


@dataclass(kw_only=True, slots=True)
class WorldEpisode:
    """One episode in one world."""

    scores: dict[str, float]  # of MEASURES; one that this world cannot measure is missing
    rewards: dict[str, FloatArray]  # part of the reward -> (T,)
    path_m: FloatArray  # (T, 2) of the rear axle
    end_reason: str
    failure: str = ""  # why there is no result; then the rest is empty
    score_parts: str = ""  # what the score could be computed from

    @property
    def num_steps(self) -> int:
        """Return how many steps were driven."""
        return len(next(iter(self.rewards.values()), ()))

    def score(self, name: str) -> float:
        """Return a measure, NaN where there is none."""
        return math.nan if self.failure else self.scores.get(name, math.nan)


@dataclass(kw_only=True, slots=True)
class EpisodePair:
    """What one policy did in one scene with one seed, in both worlds."""

    policy: str
    scene: str
    seed: int
    reference: WorldEpisode
    imagined: WorldEpisode

    @property
    def failure(self) -> str:
        """Return why one of the two has no result, or ""."""
        return self.reference.failure or self.imagined.failure

    @property
    def is_same_drive(self) -> bool:
        """Tell whether the policy drove the same way as long as both went on: it saw no difference, or did not look."""
        length = min(self.reference.num_steps, self.imagined.num_steps)
        apart_m = np.abs(self.imagined.path_m[:length] - self.reference.path_m[:length])
        return bool((apart_m < SAME_PATH_M).all())

    def as_dict(self) -> dict[str, Any]:
        """Return the scores and ends in plain Python; None where there is no score."""
        worlds = {"reference": self.reference, "imagined": self.imagined}
        plain: dict[str, Any] = {"policy": self.policy, "scene": self.scene, "seed": self.seed}
        for name, world in worlds.items():
            plain |= {
                name: world.score(SCORE) if math.isfinite(world.score(SCORE)) else None,
                f"{name}_end": world.end_reason,
                f"{name}_steps": world.num_steps,
            }
        return plain

    def gap(self, name: str = SCORE) -> float:
        """Return imagined minus reference; above 0 the imagined world flatters (where more is better)."""
        return self.imagined.score(name) - self.reference.score(name)

    def is_comparable(self, name: str = SCORE) -> bool:
        """Tell whether both worlds measured it."""
        return math.isfinite(self.gap(name))


@dataclass(kw_only=True, slots=True)
class PolicyRow:
    """A policy in both worlds: means over the episodes that both have."""

    policy: str
    episodes: int
    failed: int
    reference: dict[str, float]  # measure -> mean
    imagined: dict[str, float]
    gap: tuple[float, float]  # 95 % interval of imagined minus reference score, over scenes
    same_drive_share: float  # of its episodes that took the same path in both worlds
    reference_rank: int = 0
    imagined_rank: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the row with flat keys."""
        worlds = {"reference": self.reference, "imagined": self.imagined}
        measured = {f"{world}_{name}": row.get(name) for name in MEASURES for world, row in worlds.items()}
        return {
            "policy": self.policy,
            "episodes": self.episodes,
            "failed": self.failed,
            "reference_rank": self.reference_rank,
            "imagined_rank": self.imagined_rank,
            **measured,
            "gap": self.imagined[SCORE] - self.reference[SCORE],
            "gap_low": self.gap[0],
            "gap_high": self.gap[1],
            "same_drive_share": self.same_drive_share,
        }


@dataclass(kw_only=True, slots=True)
class Comparison:
    """All pairs of a run."""

    pairs: list[EpisodePair]
    policies: list[str] = field(init=False)  # those of whose episodes both worlds scored half or more
    unscored: list[str] = field(init=False)  # the others
    scenes: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Find the policies and scenes."""
        all_of = Counter(pair.policy for pair in self.pairs)
        scored = Counter(pair.policy for pair in self.pairs if pair.is_comparable())
        self.policies = [name for name in all_of if scored[name] >= LEAST_SCORED * all_of[name]]
        self.unscored = [name for name in all_of if name not in self.policies]
        self.scenes = list(dict.fromkeys(pair.scene for pair in self.pairs))

    @property
    def whole(self) -> list[EpisodePair]:
        """Return the pairs without a failure."""
        return [pair for pair in self.pairs if not pair.failure]

    @property
    def reacting(self) -> list[str]:
        """Return the policies that drove another way in the imagined world, at least once: those that look."""
        apart = {pair.policy for pair in self.whole if not pair.is_same_drive}
        return [name for name in self.policies if name in apart]

    def of(self, policies: Sequence[str]) -> Comparison:
        """Return the comparison of some policies only."""
        return Comparison(pairs=[pair for pair in self.pairs if pair.policy in policies])

    def score_parts(self, *, is_imagined: bool) -> str:
        """Return what the score was computed from in one world, such as ``NC DAC EP TTC C``."""
        worlds = [pair.imagined if is_imagined else pair.reference for pair in self.whole]
        return " or ".join(dict.fromkeys(world.score_parts for world in worlds)) or "nothing"

    def paired_scores(self, name: str = SCORE) -> PairedScores | None:
        """Return a measure as arrays (policies, scenes, seeds); None where a policy has it in one world only."""
        seeds = sorted({pair.seed for pair in self.pairs})
        shape = (len(self.policies), len(self.scenes), len(seeds))
        reference, imagined = np.full(shape, np.nan), np.full(shape, np.nan)
        for pair in self.pairs:
            if pair.policy in self.policies:
                place = (
                    self.policies.index(pair.policy),
                    self.scenes.index(pair.scene),
                    seeds.index(pair.seed),
                )
                reference[place], imagined[place] = pair.reference.score(name), pair.imagined.score(name)
        is_measured = np.isfinite(reference) & np.isfinite(imagined)
        if len(self.policies) < 2 or not is_measured.any(axis=(1, 2)).all():
            return None
        return PairedScores(policies=self.policies, reference=reference, imagined=imagined)

    def table(self) -> list[PolicyRow]:
        """Return the policies, best in the reference world first; equal scores share a rank."""
        rows = [self._row(name) for name in self.policies]
        for row in rows:
            row.reference_rank = 1 + sum(_is_above(other.reference, row.reference) for other in rows)
            row.imagined_rank = 1 + sum(_is_above(other.imagined, row.imagined) for other in rows)
        return sorted(rows, key=lambda row: (row.reference_rank, row.imagined_rank))

    def gaps_by(self, key: Callable[[EpisodePair], str]) -> dict[str, float]:
        """Return the mean gap of the score per policy or scene, most flattered first."""
        groups: dict[str, list[float]] = {}
        for pair in self.pairs:
            if pair.is_comparable():
                groups.setdefault(key(pair), []).append(pair.gap())
        means = {name: float(np.mean(gaps)) for name, gaps in groups.items()}
        return dict(sorted(means.items(), key=lambda item: -item[1]))

    def largest_gaps(self, count: int, *, is_flattered: bool) -> list[EpisodePair]:
        """Return the pairs with the largest gaps in one direction, each policy and each scene once."""
        sign = 1.0 if is_flattered else -1.0
        ordered = sorted(
            (pair for pair in self.pairs if pair.is_comparable() and sign * pair.gap() > 0),
            key=lambda pair: (-sign * pair.gap(), pair.policy, pair.scene, pair.seed),
        )
        chosen: list[EpisodePair] = []
        for pair in ordered:
            if all(pair.policy != other.policy and pair.scene != other.scene for other in chosen):
                chosen.append(pair)
        return chosen[:count]

    def _row(self, name: str) -> PolicyRow:
        mine = [pair for pair in self.pairs if pair.policy == name]
        both = [pair for pair in mine if pair.is_comparable()]
        gap = bootstrap_mean([pair.gap() for pair in both], [self.scenes.index(pair.scene) for pair in both])
        return PolicyRow(
            policy=name,
            episodes=len(both),
            failed=sum(bool(pair.failure) for pair in mine),
            reference=_means([pair.reference for pair in both]),
            imagined=_means([pair.imagined for pair in both]),
            gap=(gap.low, gap.high),
            same_drive_share=float(np.mean([pair.is_same_drive for pair in both])),
        )


def short_name(policy: str) -> str:
    """Return what tables and plots call a policy: the class of ``module:Class`` or ``folder/file.py:Class``.

    Its settings stay, so that two of one class are told apart.
    """
    target, settings = split_settings(policy)
    name = target.rpartition(":")[2].rpartition("/")[2]
    return f"{name}@{settings}" if settings else name


def _means(episodes: Sequence[WorldEpisode]) -> dict[str, float]:
    """Return the mean of each measure over the episodes that have it."""
    means = {}
    for name in MEASURES:
        values = [value for episode in episodes if math.isfinite(value := episode.score(name))]
        if values:
            means[name] = float(np.mean(values))
    return means


def _is_above(one: dict[str, float], other: dict[str, float]) -> bool:
    return one[SCORE] > other[SCORE] + 1e-9
