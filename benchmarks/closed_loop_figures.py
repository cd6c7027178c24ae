"""From episodes to figures: means per policy with intervals, the console table, and curves over the episode's time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.closed_loop_episodes import EpisodeResult
from benchmarks.report import Report
from benchmarks.statistics import Estimate, bootstrap_mean
from drivesim import console
from drivesim.metrics.scores import FAILED_ENDS, formula_lines
from drivesim.scene.geometry import FloatArray


@dataclass(kw_only=True, slots=True, frozen=True)
class ScoreColumn:
    """A score as tables and plots show it."""

    name: str  # of the field of EpisodeScores
    heading: str
    unit: str = ""
    note: str = ""


COLUMNS = (
    ScoreColumn(name="pdms", heading="PDMS-style", note="more is better"),
    ScoreColumn(name="hd_score", heading="HD-style", note="more is better"),
    ScoreColumn(name="route_completion", heading="route", note="completion of the route; more is better"),
    ScoreColumn(name="off_road_rate", heading="off-road", note="share of steps; less is better"),
    ScoreColumn(name="collision", heading="collision", note="share of episodes; less is better"),
    ScoreColumn(
        name="comfort", heading="comfort", note="share of steps within nuPlan's limits; more is better"
    ),
    ScoreColumn(
        name="time_to_collision", heading="TTC", note="share of episodes that kept 0.95 s; more is better"
    ),
)
END_HEADINGS = ("episodes", "failed", "ended by")
TABLE_WIDTH = 3  # scores side by side, so that tables fit a terminal of 80 columns


@dataclass(kw_only=True, slots=True)
class PolicyFigures:
    """One policy over all its episodes; a score that no episode could measure is missing from ``estimates``."""

    policy: str
    estimates: dict[str, Estimate]
    num_episodes: int
    num_failed: int
    end_reasons: dict[str, int]
    policy_s: float  # mean time per action

    def end_words(self) -> str:
        """Return how often the episodes ended in which way."""
        return ", ".join(f"{reason} {count}" for reason, count in self.end_reasons.items())

    def value(self, name: str) -> float:
        """Return a mean, -inf where there is none."""
        return self.estimates[name].value if name in self.estimates else -np.inf


def figures_of(results: Sequence[EpisodeResult]) -> list[PolicyFigures]:
    """Return the figures of every policy, the best PDMS-style score first; failed episodes count in no mean."""
    scenes = sorted({result.job.scene for result in results})
    figures = []
    for policy in dict.fromkeys(result.job.policy for result in results):
        own = [result for result in results if result.job.policy == policy]
        reasons = [result.end_reason for result in own]
        figures.append(
            PolicyFigures(
                policy=policy,
                estimates={
                    column.name: estimate
                    for column in COLUMNS
                    if (estimate := _estimate(own, column.name, scenes)) is not None
                },
                num_episodes=len(own),
                num_failed=sum(result.is_failed for result in own),
                end_reasons={reason: reasons.count(reason) for reason in sorted(set(reasons))},
                policy_s=float(np.mean([result.policy_s for result in own])),
            )
        )
    return sorted(figures, key=lambda one: -one.value("pdms"))


def _estimate(results: Sequence[EpisodeResult], name: str, scenes: Sequence[str]) -> Estimate | None:
    valid = [result for result in results if result.scores.results()[name].is_valid]
    if not valid:
        return None
    values = [result.scores.results()[name].value for result in valid]
    return bootstrap_mean(values, [scenes.index(result.job.scene) for result in valid])


def report_of(
    results: Sequence[EpisodeResult], figures: Sequence[PolicyFigures], facts: dict[str, Any]
) -> Report:
    """Return the figures as rows ``SCORE: {POLICY: value}``, for the json file."""
    report = Report(title="closed loop", facts=facts)
    for column in COLUMNS:
        for one in figures:
            if column.name in one.estimates:
                report.add_estimate(column.name, one.estimates[column.name], key=one.policy)
    report.facts |= {
        "policies": [one.policy for one in figures],
        "num_episodes": len(results),
        "num_failed": sum(one.num_failed for one in figures),
        "end_reasons": {one.policy: one.end_reasons for one in figures},
        "failures": {result.job.id: result.failure for result in results if result.is_failed},
        "parts": parts_words(results),
    }
    return report


def parts_words(results: Sequence[EpisodeResult]) -> str:
    """Return what the PDMS-style scores were computed from."""
    counts: dict[str, int] = {}
    for result in results:
        if not result.is_failed:
            counts[result.scores.pdms_parts] = counts.get(result.scores.pdms_parts, 0) + 1
    return ", ".join(f"{parts} in {count} episodes" for parts, count in sorted(counts.items())) or "none"


def show(
    results: Sequence[EpisodeResult], figures: Sequence[PolicyFigures], *, title: str, off_road_limit: float
) -> None:
    """Print the table, what failed, and the formulas."""
    for first in range(0, len(COLUMNS), TABLE_WIDTH):
        shown = COLUMNS[first : first + TABLE_WIDTH]
        is_last = first + TABLE_WIDTH >= len(COLUMNS)
        headings = ["policy", *[column.heading for column in shown], *(END_HEADINGS if is_last else ())]
        rows = []
        for one in figures:
            scores = [estimate_words(one.estimates.get(column.name)) for column in shown]
            ends = (one.num_episodes, one.num_failed, one.end_words()) if is_last else ()
            rows.append([one.policy, *scores, *ends])
        console.print_table("" if first else title, headings, rows)
    console.say("Means with 95 % intervals, bootstrapped over scenes. Failed episodes count in no mean.")
    console.say(f"PDMS-style scores were computed from the parts: {parts_words(results)}.")
    for line in formula_lines(off_road_limit=off_road_limit):
        console.say(f"  {line}")
    for result in results:
        if result.is_failed:
            console.warn(f"episode {result.job.id} failed: {result.failure}")


def estimate_words(estimate: Estimate | None) -> str:
    """Return a mean and its interval; a dash where nothing could be measured."""
    if estimate is None:
        return "-"
    return f"{estimate.value:.2f} ({estimate.low:.2f}-{estimate.high:.2f})"


# ------------------------------------------------------------------------------------------------- curves


@dataclass(kw_only=True, slots=True, frozen=True)
class TimeCurve:
    """A quantity over the time of the episode, one number per step and policy."""

    title: str
    unit: str
    value_fn: Callable[[EpisodeResult, int], FloatArray]  # (horizon,) of an episode; nan where it has none
    is_imagined: bool = False  # whether it says something of the learned world only


def is_intact(result: EpisodeResult, horizon: int) -> FloatArray:
    """Return 1 for each step at which the episode has neither crashed nor left the road."""
    intact = np.ones(horizon)
    if result.end_reason in FAILED_ENDS:
        intact[result.num_steps - 1 :] = 0.0
    return intact


def driven(name: str, *, is_absolute: bool = False) -> Callable[[EpisodeResult, int], FloatArray]:
    """Return a function that gives one of an episode's arrays, nan after its end."""

    def values(result: EpisodeResult, horizon: int) -> FloatArray:
        padded = np.full(horizon, np.nan)
        own = np.asarray(result.arrays.get(name, ()), dtype=np.float64)
        padded[: len(own)] = np.abs(own) if is_absolute else own
        return padded

    return values


CURVES = (
    TimeCurve(title="Neither crashed nor off the road", unit="share of episodes", value_fn=is_intact),
    TimeCurve(title="Speed", unit="m/s, those still driving", value_fn=driven("ego/speed_mps")),
    TimeCurve(
        title="Distance from the route",
        unit="m, those still driving",
        value_fn=driven("metrics/lateral_error_m", is_absolute=True),
    ),
    TimeCurve(title="Reward per step", unit="those still driving", value_fn=driven("reward")),
    TimeCurve(
        title="Confidence of the world model",
        unit="those still driving",
        value_fn=driven("confidence"),
        is_imagined=True,
    ),
)


def curve_of(results: Sequence[EpisodeResult], curve: TimeCurve, horizon: int) -> FloatArray:
    """Return the mean over episodes at each step, (horizon,); nan where none drives any more."""
    rows = np.array([curve.value_fn(result, horizon) for result in results if not result.is_failed])
    if len(rows) == 0:
        return np.full(horizon, np.nan)
    is_there = ~np.isnan(rows)
    counts = is_there.sum(axis=0)
    sums = np.where(is_there, rows, 0.0).sum(axis=0)
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
