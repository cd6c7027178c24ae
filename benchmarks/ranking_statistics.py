"""Do two worlds rank the same policies alike? Correlations, rank violations, and how sure one may be of them.

Letters: P policies, S scenes, K seeds per scene, B resamples. A policy's score is its mean over all its episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from benchmarks.statistics import NUM_RESAMPLES, Estimate, FloatArray

SAME_SCORE = 9
"""Decimals that count: scores that agree in so many are equal, so that rounding makes no order."""
NUM_PERMUTATIONS = 20_000
EXACT_PERMUTATIONS_UP_TO = 7  # policies: 5040 orders are counted one by one
TIE_CONVENTION = (
    "MMRV as in SIMPLER, strict comparisons: policies that are equal in the reference world never cost anything; "
    "two that only the imagined world calls equal cost the one that is worse in the reference world"
)
Agreement = Callable[[FloatArray, FloatArray], FloatArray]
"""From (..., P) scores in the reference and the imagined world to (...) numbers."""


@dataclass(kw_only=True, slots=True)
class PairedScores:
    """One score per episode in both worlds; NaN where an episode has no score in that world."""

    policies: list[str]
    reference: FloatArray  # (P, S, K)
    imagined: FloatArray  # (P, S, K)

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together, and a policy that no episode is left of."""
        shape = self.reference.shape
        if len(shape) != 3 or shape != self.imagined.shape or shape[0] != len(self.policies):
            raise ValueError(
                f"scores are two arrays (policies, scenes, seeds) of {len(self.policies)} policies, "
                f"got {shape} and {self.imagined.shape}"
            )
        if shape[0] < 2:
            raise ValueError(f"a ranking needs at least two policies, got {self.policies}")
        is_empty = ~self.is_paired.any(axis=(1, 2))
        if is_empty.any():
            names = [name for name, empty in zip(self.policies, is_empty, strict=True) if empty]
            raise ValueError(f"no episode of {', '.join(names)} has a score in both worlds; leave them out")

    @property
    def is_paired(self) -> NDArray[np.bool_]:
        """Tell which episodes (P, S, K) have a score in both worlds; only these count."""
        return np.asarray(np.isfinite(self.reference) & np.isfinite(self.imagined))

    def means(self) -> tuple[FloatArray, FloatArray]:
        """Return each policy's score (P,) in the reference and in the imagined world."""
        return self.resampled_means(np.ones((1, *self.reference.shape[1:])))

    def resampled_means(self, weights_BSK: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (B, P) mean scores in both worlds, each episode counted as often as its weight says."""
        is_paired = self.is_paired
        counts = np.einsum("bsk,psk->bp", weights_BSK, is_paired.astype(np.float64))
        with np.errstate(invalid="ignore"):
            reference, imagined = (
                np.einsum("bsk,psk->bp", weights_BSK, np.where(is_paired, scores, 0.0)) / counts
                for scores in (self.reference, self.imagined)
            )
        if len(weights_BSK) == 1:
            return reference[0], imagined[0]
        return reference, imagined


@dataclass(kw_only=True, slots=True)
class RankingAgreement:
    """How far the imagined world's ranking of the policies is that of the reference world."""

    pearson: Estimate
    spearman: Estimate
    kendall: Estimate  # tau-b
    mmrv: Estimate
    mmrv_share_of_range: Estimate  # MMRV over the range of the reference scores
    permutation_p: float  # chance of such a Spearman correlation, or a higher one, among random orders
    perfect_ranking_by_luck: float  # 1 / k!
    spearman_without_one: float  # lowest of those with one policy left out
    decided_pairs: int  # pairs that the reference world tells apart
    decided_pairs_alike: int  # those of them that the imagined world orders alike


def rank_agreement(scores: PairedScores, *, seed: int = 0) -> RankingAgreement:
    """Compare the two rankings; intervals are 95 % and come from resampling scenes, then seeds within them.

    The policies stay what they are: an interval says what other roads would have shown, not other policies. A resample
    adds noise to what noise there is already, so the intervals of rank statistics lie a little on the cautious side.
    """
    weights_BSK = cluster_weights(scores.reference.shape[1], scores.reference.shape[2], seed=seed)
    resampled = scores.resampled_means(weights_BSK)
    is_whole = np.isfinite(resampled[0]).all(axis=1)  # a resample may miss all episodes of a policy
    resampled = (resampled[0][is_whole], resampled[1][is_whole])
    reference, imagined = scores.means()

    def estimate(agreement: Agreement) -> Estimate:
        low, high = np.quantile(agreement(*resampled), [0.025, 0.975])
        value = float(agreement(reference, imagined))
        return Estimate(value=value, low=float(low), high=float(high), count=len(reference))

    is_decided, is_alike = _decided_pairs(*resampled, reference, imagined)
    return RankingAgreement(
        pearson=estimate(pearsons),
        spearman=estimate(spearmans),
        kendall=estimate(kendalls),
        mmrv=estimate(lambda a, b: mmrvs(reference=a, imagined=b)),
        mmrv_share_of_range=estimate(lambda a, b: mmrv_shares(reference=a, imagined=b)),
        permutation_p=permutation_p(reference, imagined, seed=seed),
        perfect_ranking_by_luck=perfect_ranking_by_luck(len(reference)),
        spearman_without_one=_spearman_without_one(reference, imagined),
        decided_pairs=int(is_decided.sum()),
        decided_pairs_alike=int((is_decided & is_alike).sum()),
    )


def cluster_weights(
    num_scenes: int, num_seeds: int, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> FloatArray:
    """Return (B, S, K) how often each resample holds each episode: S scenes drawn, then K seeds in each of them.

    All policies and both worlds share a draw, so what a hard scene does to all of them cancels out.
    """
    rng = np.random.default_rng(seed)
    draws = rng.integers(num_scenes, size=(num_resamples, num_scenes))
    weights = np.zeros((num_resamples, num_scenes, num_seeds))
    rows = np.arange(num_resamples)
    for place in range(num_scenes):
        for _ in range(num_seeds):
            np.add.at(weights, (rows, draws[:, place], rng.integers(num_seeds, size=num_resamples)), 1.0)
    return weights


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """Return Pearson's correlation of (P,) scores; 0 where one of the two does not vary."""
    a, b = _rounded(a), _rounded(b)
    return float(stats.pearsonr(a, b).statistic) if _vary(a, b) else 0.0


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Return Spearman's rank correlation of (P,) scores, ties with their mean rank; 0 without any order."""
    a, b = _rounded(a), _rounded(b)
    return float(stats.spearmanr(a, b).statistic) if _vary(a, b) else 0.0


def kendall(a: ArrayLike, b: ArrayLike) -> float:
    """Return Kendall's tau-b of (P,) scores; 0 without any order."""
    a, b = _rounded(a), _rounded(b)
    return float(stats.kendalltau(a, b).statistic) if _vary(a, b) else 0.0


def mmrv(*, reference: ArrayLike, imagined: ArrayLike) -> float:
    """Return the mean maximum rank violation (SIMPLER, arXiv 2405.05941), in units of the reference score.

    With reference scores R and imagined scores S it is the mean over i of the largest ``|R_i - R_j|`` among
    all j for which ``S_i < S_j`` and ``R_i < R_j`` are not both true or both false. The two worlds must not be
    swapped, hence keywords only. Ties: see ``TIE_CONVENTION``.
    """
    return float(mmrvs(reference=_rounded(reference), imagined=_rounded(imagined)))


def mmrv_share_of_range(*, reference: ArrayLike, imagined: ArrayLike) -> float:
    """Return MMRV as a share of the range of the reference scores, in [0, 1]; 0 where they are all equal."""
    return float(mmrv_shares(reference=_rounded(reference), imagined=_rounded(imagined)))


def perfect_ranking_by_luck(num_policies: int) -> float:
    """Return the chance 1/k! that a random order of k policies is the right one."""
    if num_policies < 1:
        raise ValueError(f"a ranking needs at least one policy, got {num_policies}")
    return 1.0 / math.factorial(num_policies)


def permutation_p(a: ArrayLike, b: ArrayLike, *, seed: int = 0) -> float:
    """Return the chance that b in random order has a Spearman correlation with a as high as it has now.

    All orders are tried for up to seven policies; otherwise 20000 random ones and the given one.
    """
    ranks_a, ranks_b = stats.rankdata(_rounded(a)), stats.rankdata(_rounded(b))
    if len(ranks_b) <= EXACT_PERMUTATIONS_UP_TO:
        orders = np.array(list(permutations(ranks_b)))
    else:
        rng = np.random.default_rng(seed)
        orders = rng.permuted(np.tile(ranks_b, (NUM_PERMUTATIONS, 1)), axis=1)
        orders = np.concatenate([ranks_b[None], orders])
    is_as_high = (
        orders @ ranks_a >= ranks_b @ ranks_a - 1e-9
    )  # means and variances are the same for all orders
    return float(is_as_high.mean())


def pearsons(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return Pearson's correlation along the last axis; 0 where one of the two does not vary."""
    a, b = (x - x.mean(axis=-1, keepdims=True) for x in (_rounded(a), _rounded(b)))
    scale = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    is_varied = scale > 10.0 ** (-2 * SAME_SCORE)
    return np.asarray(np.where(is_varied, (a * b).sum(axis=-1) / np.where(is_varied, scale, 1.0), 0.0))


def spearmans(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return Spearman's rank correlation along the last axis."""
    return pearsons(stats.rankdata(_rounded(a), axis=-1), stats.rankdata(_rounded(b), axis=-1))


def kendalls(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return Kendall's tau-b along the last axis: Pearson's correlation of the signs of all pairs."""
    signs_a, signs_b = _signs(a), _signs(b)
    scale = np.sqrt((signs_a**2).sum(axis=(-1, -2)) * (signs_b**2).sum(axis=(-1, -2)))
    return np.asarray((signs_a * signs_b).sum(axis=(-1, -2)) / np.where(scale == 0, 1.0, scale))


def mmrvs(*, reference: FloatArray, imagined: FloatArray) -> FloatArray:
    """Return `mmrv` along the last axis."""
    is_violated = (_signs(imagined) < 0) != (_signs(reference) < 0)
    costs = np.abs(reference[..., :, None] - reference[..., None, :])
    return np.asarray(np.where(is_violated, costs, 0.0).max(axis=-1).mean(axis=-1))


def mmrv_shares(*, reference: FloatArray, imagined: FloatArray) -> FloatArray:
    """Return `mmrv_share_of_range` along the last axis."""
    span = np.ptp(reference, axis=-1)
    violation = mmrvs(reference=reference, imagined=imagined)
    return np.asarray(np.where(span > 0, violation / np.where(span > 0, span, 1.0), 0.0))


def _decided_pairs(
    resampled_reference: FloatArray,
    resampled_imagined: FloatArray,
    reference: FloatArray,
    imagined: FloatArray,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell for all pairs whether the reference world tells them apart, and whether the other orders them alike.

    Told apart: the 95 % interval of the difference, over the same resamples, excludes 0.
    """
    first, second = np.triu_indices(len(reference), k=1)
    gaps = resampled_reference[:, first] - resampled_reference[:, second]
    low, high = np.quantile(gaps, [0.025, 0.975], axis=0)
    signs = _signs(np.stack([reference, imagined]))[:, first, second]
    return np.asarray((low > 0) | (high < 0)), np.asarray(signs[0] == signs[1])


def _spearman_without_one(reference: FloatArray, imagined: FloatArray) -> float:
    if len(reference) < 3:
        return spearman(reference, imagined)
    kept = [np.delete(np.arange(len(reference)), index) for index in range(len(reference))]
    return min(spearman(reference[rows], imagined[rows]) for rows in kept)


def _signs(scores: FloatArray) -> FloatArray:
    """Return (..., P, P): the sign of each score minus each other one."""
    scores = _rounded(scores)
    return np.asarray(np.sign(scores[..., :, None] - scores[..., None, :]))


def _rounded(scores: ArrayLike) -> FloatArray:
    return np.asarray(np.round(np.asarray(scores, dtype=np.float64), SAME_SCORE))


def _vary(a: FloatArray, b: FloatArray) -> bool:
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"two rows of at least two scores are compared, got shapes {a.shape} and {b.shape}")
    return bool(np.ptp(a) > 0 and np.ptp(b) > 0)
