"""The figures of the trust benchmark: rows, tables and one plain sentence, from episodes driven in both worlds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.ranking_statistics import TIE_CONVENTION, RankingAgreement, rank_agreement
from benchmarks.report import Report
from benchmarks.statistics import bootstrap_correlation, bootstrap_mean
from benchmarks.trust_disagreement import EndReasons, add_disagreement
from benchmarks.trust_pairs import PARTS, SCORE, Comparison, PolicyRow, short_name
from drivesim.errors import InputError

CORRELATIONS = ("pearson", "spearman", "kendall")
FEWEST_REACTING = 3  # policies that a correlation among the reacting ones takes
_OVER_POLICIES = {
    "pearson": "correlation of the policies' mean scores in both worlds; intervals resample scenes, then seeds",
    "spearman": "correlation of their ranks",
    "kendall": "tau-b: how many more pairs of policies are in the same order than not, as a share",
}


@dataclass(kw_only=True, slots=True)
class Trust:
    """All that was found."""

    report: Report
    table: list[PolicyRow]
    reasons: EndReasons
    agreement: RankingAgreement
    parts: dict[str, RankingAgreement]  # of the score, where both worlds measure them
    verdict: str

    def as_dict(self, comparison: Comparison) -> dict[str, Any]:
        """Return the flat keys, the table per policy and what else the page shows."""
        return self.report.as_dict() | {
            "num_policies": len(self.table),
            "verdict": self.verdict,
            "parts": {name: flat(agreement) for name, agreement in self.parts.items()},
            "policies": [row.as_dict() for row in self.table],
            "end_reasons": self.reasons.as_dict(),
            "gap_by_policy": comparison.gaps_by(lambda pair: pair.policy),
            "gap_by_scene": comparison.gaps_by(lambda pair: pair.scene),
            "episodes": [pair.as_dict() for pair in comparison.pairs],
            "failures": {
                f"{pair.policy}, {pair.scene}, seed {pair.seed}": pair.failure
                for pair in comparison.pairs
                if pair.failure
            },
        }


def measure_trust(comparison: Comparison, report: Report, *, num_steps: int, seed: int = 0) -> Trust:
    """Fill the report.

    Raises:
        InputError: fewer than two policies have an episode that both worlds could score.
    """
    scores = comparison.paired_scores()
    if scores is None:
        failures = {pair.failure for pair in comparison.pairs if pair.failure}
        causes = f" ({'; '.join(sorted(failures))})" if failures else ""
        raise InputError(
            "a ranking needs at least two policies with an episode that both worlds could score, "
            f"got {len(comparison.policies)}{causes}; name other policies (--policies)"
        )
    agreement = rank_agreement(scores, seed=seed)
    table = comparison.table()
    _add_ranking(report, agreement, table)
    _add_reacting(report, comparison, seed=seed)
    _add_episodes(report, comparison)
    parts = {
        part: rank_agreement(found, seed=seed) for part in PARTS if (found := comparison.paired_scores(part))
    }
    report.facts["not_compared"] = ", ".join(part for part in PARTS if part not in parts) or "nothing"
    reasons = add_disagreement(report, comparison.whole, num_steps=num_steps)
    return Trust(
        report=report,
        table=table,
        reasons=reasons,
        agreement=agreement,
        parts=parts,
        verdict=verdict(agreement, table, num_reacting=len(comparison.reacting)),
    )


def _add_ranking(report: Report, agreement: RankingAgreement, table: Sequence[PolicyRow]) -> None:
    report.add("num_policies", len(table))
    for name in CORRELATIONS:
        report.add_estimate(name, getattr(agreement, name), note=_OVER_POLICIES[name])
    report.add("spearman_low", agreement.spearman.low)
    report.add("spearman_high", agreement.spearman.high)
    report.add(
        "spearman_without_one", agreement.spearman_without_one, note="the lowest with one policy left out"
    )
    report.add_estimate("mmrv", agreement.mmrv, note=TIE_CONVENTION)
    report.add_estimate(
        "mmrv_share_of_range",
        agreement.mmrv_share_of_range,
        note="of the range of the policies' mean scores in the reference world",
    )
    report.add(
        "perfect_ranking_by_luck",
        agreement.perfect_ranking_by_luck,
        note="1/k!: chance that k policies in random order are in the right one",
    )
    report.add(
        "permutation_p", agreement.permutation_p, note="chance of such a Spearman correlation in random order"
    )
    report.add(
        "decided_pairs",
        agreement.decided_pairs,
        note="pairs of policies whose difference in the reference world has an interval without 0",
    )
    report.add(
        "decided_pairs_alike", agreement.decided_pairs_alike, note="those that both worlds order alike"
    )


def _add_reacting(report: Report, comparison: Comparison, *, seed: int) -> None:
    """Add what is left of the agreement among the policies that the pictures make a difference to."""
    whole = comparison.whole
    same = bootstrap_mean(
        [pair.is_same_drive for pair in whole], [comparison.scenes.index(pair.scene) for pair in whole]
    )
    report.add_estimate(
        "same_drive_share",
        same,
        note="share of episodes whose paths are the same in both worlds while both go on: nothing that the policy "
        "looks at is imagined, so that only collisions can tell the worlds apart",
    )
    names = comparison.reacting
    report.add(
        "num_reacting_policies",
        len(names),
        note=f"drive differently in the two worlds: {', '.join(map(short_name, names))}",
    )
    scores = comparison.of(names).paired_scores() if len(names) >= FEWEST_REACTING else None
    if scores is not None:
        agreement = rank_agreement(scores, seed=seed)
        report.add_estimate("spearman_reacting", agreement.spearman, note="among these alone")
        report.add_estimate("mmrv_reacting", agreement.mmrv, note="among these alone")


def _add_episodes(report: Report, comparison: Comparison) -> None:
    pairs = [pair for pair in comparison.pairs if pair.is_comparable()]
    report.add_estimate(
        "episode_pearson",
        bootstrap_correlation(
            [pair.reference.score(SCORE) for pair in pairs],
            [pair.imagined.score(SCORE) for pair in pairs],
            [comparison.scenes.index(pair.scene) for pair in pairs],
        ),
        note="correlation of single episodes' scores",
    )


def flat(agreement: RankingAgreement) -> dict[str, float]:
    """Return an agreement with flat keys, each estimate with the ends of its interval."""
    plain: dict[str, float] = {}
    for name in (*CORRELATIONS, "mmrv", "mmrv_share_of_range"):
        estimate = getattr(agreement, name)
        plain |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return plain


def verdict(agreement: RankingAgreement, table: Sequence[PolicyRow], *, num_reacting: int) -> str:
    """Return what it means in plain words."""
    in_place = sum(row.reference_rank == row.imagined_rank for row in table)
    best, place = short_name(table[0].policy), table[0].imagined_rank
    ours = "is its best too" if place == 1 else f"comes out at place {place}"
    decided = (
        f"it orders {agreement.decided_pairs_alike} of the {agreement.decided_pairs} pairs that the reference world "
        "tells apart as the reference world does"
        if agreement.decided_pairs
        else "the reference world itself tells no two of them apart with so few scenes"
    )
    violation = agreement.mmrv
    return (
        f"Of the {len(table)} policies the imagined world ranks {in_place} at the place they have in the reference "
        f"world, and {decided}; the reference world's best, {best}, {ours}. Spearman's correlation is "
        f"{agreement.spearman.value:.2f}, and for other roads of this kind {agreement.spearman.low:.2f} to "
        f"{agreement.spearman.high:.2f}. Two policies whose scores differ by less than {violation.value:.3f} (MMRV; "
        f"{violation.high:.3f} at the upper end) cannot be told apart in it. {num_reacting} of the policies drive "
        "differently in the two worlds; the others do not look at the pictures, and only collisions could judge them "
        "differently."
    )
