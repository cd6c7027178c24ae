"""By how much one policy drives better than another on the same roads with the same seeds: paired, so roads cancel."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.closed_loop_episodes import EpisodeResult
from benchmarks.statistics import Estimate, bootstrap_mean
from drivesim import console

FEWEST_EPISODES = 6  # that an interval can be believed from
SCORES = {"pdms": "PDMS-style", "hd_score": "HD-style"}


def leads_over(baseline: str, results: Sequence[EpisodeResult], score: str = "pdms") -> dict[str, Estimate]:
    """Return by policy its score minus the baseline's, meant over the episodes that both drove.

    Intervals resample scenes. Episodes that failed, or whose score could not be computed, are left out on both sides;
    a policy without a common episode is missing.
    """
    scores = {
        (result.job.policy, result.job.scene, result.job.seed): result.scores.results()[score].value
        for result in results
        if not result.is_failed and result.scores.results()[score].is_valid
    }
    leads = {}
    for policy in dict.fromkeys(result.job.policy for result in results):
        common = [
            (scene, value - scores[baseline, scene, seed])
            for (driver, scene, seed), value in scores.items()
            if driver == policy and (baseline, scene, seed) in scores
        ]
        if policy != baseline and common:
            scenes = sorted({scene for scene, _ in common})
            groups = [scenes.index(scene) for scene, _ in common]
            leads[policy] = bootstrap_mean([lead for _, lead in common], groups)
    return leads


def show_leads(baseline: str, leads: dict[str, Estimate], score: str = "pdms") -> None:
    """Print the leads, the largest first, and which of them are more than chance."""
    if not leads:
        return
    rows = []
    for policy, lead in sorted(leads.items(), key=lambda item: -item[1].value):
        verdict = "better" if lead.low > 0 else "worse" if lead.high < 0 else "cannot be told apart"
        if lead.count < FEWEST_EPISODES:
            verdict = "too few episodes to say"
        rows.append((policy, f"{lead.value:+.3f}", f"{lead.low:+.3f} .. {lead.high:+.3f}", verdict))
    title = f"{SCORES[score]} score above that of {baseline}, on the same roads with the same seeds"
    console.print_table(title, ["policy", "mean", "95 % interval", ""], rows)
