"""Where two worlds part within an episode: reward parts step by step, and when and why it ends.

After the worlds have led a policy to different places its episodes cannot agree any more; the curves therefore
hold what disagreement of pictures and traffic has become by then, and end where one of the two worlds ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report import Report
from benchmarks.statistics import Estimate, FloatArray, bootstrap_mean
from benchmarks.trust_pairs import EpisodePair

FEWEST_PAIRS = 8
"""A step that fewer pairs reach in both worlds has no figure."""
STILL_DRIVING = "still driving"
"""End reason of an episode that the benchmark stopped, not the world."""
NEAR_STEPS = 3  # ends that lie so close together are called simultaneous: half a second


@dataclass(kw_only=True, slots=True)
class EndReasons:
    """How often an episode ended for one reason in the reference world and for another in the imagined one."""

    reasons: list[str]
    counts: FloatArray  # (reference, imagined)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Return ``{reference reason: {imagined reason: count}}``."""
        return {
            row: {column: int(self.counts[i, j]) for j, column in enumerate(self.reasons)}
            for i, row in enumerate(self.reasons)
        }


def end_reasons(pairs: Sequence[EpisodePair]) -> EndReasons:
    """Count the end reasons of whole pairs against each other, the commonest first."""
    named = [(reason_of(pair.reference.end_reason), reason_of(pair.imagined.end_reason)) for pair in pairs]
    reasons = [reason for reason, _ in Counter(reason for both in named for reason in both).most_common()]
    counts = np.zeros((len(reasons), len(reasons)))
    for reference, imagined in named:
        counts[reasons.index(reference), reasons.index(imagined)] += 1
    return EndReasons(reasons=reasons, counts=counts)


def reason_of(end_reason: str) -> str:
    """Return an end reason in words; reaching the time limit is still driving."""
    return STILL_DRIVING if end_reason in ("", "time_limit") else end_reason


def reward_gaps(pairs: Sequence[EpisodePair], part: str) -> list[Estimate]:
    """Return the mean absolute difference of a reward part at steps 1, 2, ... while both worlds go on."""
    gaps = []
    for pair in pairs:
        length = min(pair.reference.num_steps, pair.imagined.num_steps)
        gaps.append(np.abs(pair.imagined.rewards[part][:length] - pair.reference.rewards[part][:length]))
    scenes = [pair.scene for pair in pairs]
    estimates = []
    for step in range(max(map(len, gaps), default=0)):
        rows = [index for index, gap in enumerate(gaps) if len(gap) > step]
        if len(rows) < min(FEWEST_PAIRS, len(pairs)):
            break
        estimates.append(bootstrap_mean([gaps[row][step] for row in rows], _groups(scenes, rows)))
    return estimates


def survival(pairs: Sequence[EpisodePair], num_steps: int, *, is_imagined: bool) -> list[Estimate]:
    """Return the share of episodes that are not over after steps 1, 2, ..., num_steps.

    Reaching the goal is over too; an episode that the benchmark stopped at its last step is not.
    """
    episodes = [pair.imagined if is_imagined else pair.reference for pair in pairs]
    scenes = [pair.scene for pair in pairs]
    lasts = [
        num_steps + 1 if reason_of(episode.end_reason) == STILL_DRIVING else episode.num_steps
        for episode in episodes
    ]
    return [
        bootstrap_mean([float(last > step) for last in lasts], _groups(scenes, range(len(scenes))))
        for step in range(1, num_steps + 1)
    ]


def add_disagreement(report: Report, pairs: Sequence[EpisodePair], *, num_steps: int) -> EndReasons:
    """Put rows and curves into the report; return the end reasons for a table of their own."""
    groups = _groups([pair.scene for pair in pairs], range(len(pairs)))
    for part in pairs[0].reference.rewards:
        if gaps := reward_gaps(pairs, part):
            name = f"reward_gap_{part}"
            report.add_series(name, gaps, named_steps=[s for s in (6, 12, 30, 60) if s <= len(gaps)])
    for world in ("reference", "imagined"):
        curve = survival(pairs, num_steps, is_imagined=world == "imagined")
        report.add_series(f"survival_{world}", curve, named_steps=[num_steps])
    later = [pair.imagined.num_steps - pair.reference.num_steps for pair in pairs]
    is_alike = [reason_of(pair.reference.end_reason) == reason_of(pair.imagined.end_reason) for pair in pairs]
    is_near = [abs(steps) <= NEAR_STEPS for steps in later]
    report.add_estimate(
        "same_end_reason", bootstrap_mean(is_alike, groups), note="share of episodes that end alike"
    )
    report.add_estimate(
        "same_end_time",
        bootstrap_mean(is_near, groups),
        note=f"share of episodes whose ends lie within {NEAR_STEPS} steps of each other",
    )
    report.add_estimate(
        "end_step_difference",
        bootstrap_mean(later, groups),
        note="steps that the imagined episode lasts longer, mean",
    )
    report.add_estimate(
        "end_step_difference_abs",
        bootstrap_mean(np.abs(later), groups),
        note="steps, mean of the absolute value",
    )
    report.add_estimate(
        "low_confidence_share",
        bootstrap_mean([pair.imagined.end_reason == "low_confidence" for pair in pairs], groups),
        note="share of imagined episodes that ended because the model no longer knew; scored over what there was",
    )
    return end_reasons(pairs)


def _groups(scenes: Sequence[str], rows: Sequence[int]) -> list[int]:
    """Return the scene of each row as a number."""
    numbers = {name: index for index, name in enumerate(dict.fromkeys(scenes))}
    return [numbers[scenes[row]] for row in rows]
