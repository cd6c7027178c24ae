"""Ranking statistics: known values, scipy's own, and what must hold for any scores."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks import ranking_statistics as ranking
from benchmarks.ranking_statistics import PairedScores, rank_agreement

ordinary = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def two_worlds(draw, least=2, most=9):
    """Two rows of scores in [0, 1] with ties in them."""
    count = draw(st.integers(least, most))
    scores = st.lists(st.integers(0, 12).map(lambda n: n / 12), min_size=count, max_size=count)
    return np.array(draw(scores)), np.array(draw(scores))


def slow_mmrv(reference, imagined) -> float:
    """The definition, word by word."""
    count = len(reference)
    worst = []
    for i in range(count):
        costs = [
            abs(reference[i] - reference[j])
            for j in range(count)
            if (imagined[i] < imagined[j]) != (reference[i] < reference[j])
        ]
        worst.append(max(costs, default=0.0))
    return sum(worst) / count


class TestMmrv:
    def test_by_hand(self):
        reference, imagined = [0.1, 0.5, 0.9], [0.2, 0.8, 0.7]  # the two good ones are swapped
        assert ranking.mmrv(reference=reference, imagined=imagined) == pytest.approx(2 * 0.4 / 3)
        assert ranking.mmrv_share_of_range(reference=reference, imagined=imagined) == pytest.approx(1 / 3)

    def test_reversed_order_costs_each_its_largest_gap(self):
        assert ranking.mmrv(reference=[0.0, 0.4, 1.0], imagined=[3, 2, 1]) == pytest.approx(2.6 / 3)

    def test_the_worlds_must_be_named(self):
        with pytest.raises(TypeError):
            ranking.mmrv([0.1, 0.2], [0.1, 0.2])

    def test_the_worlds_must_not_be_swapped(self):
        a, b = [0.1, 0.5, 0.9], [0.2, 0.8, 0.7]
        assert ranking.mmrv(reference=a, imagined=b) != pytest.approx(ranking.mmrv(reference=b, imagined=a))

    def test_ties_in_the_reference_cost_nothing(self):
        assert ranking.mmrv(reference=[0.5, 0.5, 0.9], imagined=[0.1, 0.3, 0.8]) == 0.0

    def test_a_tie_of_the_imagined_world_costs_the_worse_one(self):
        assert ranking.mmrv(reference=[0.2, 0.6], imagined=[0.7, 0.7]) == pytest.approx(0.4 / 2)

    @ordinary
    @given(worlds=two_worlds())
    def test_is_the_definition(self, worlds):
        reference, imagined = worlds
        assert ranking.mmrv(reference=reference, imagined=imagined) == pytest.approx(
            slow_mmrv(reference, imagined)
        )

    @ordinary
    @given(worlds=two_worlds(), scale=st.floats(0.5, 20), shift=st.floats(-5, 5))
    def test_bounds_and_invariance(self, worlds, scale, shift):
        reference, imagined = worlds
        share = ranking.mmrv_share_of_range(reference=reference, imagined=imagined)
        assert 0.0 <= share <= 1.0
        stretched = ranking.mmrv_share_of_range(
            reference=scale * reference + shift, imagined=np.exp(3 * imagined)
        )
        assert stretched == pytest.approx(share, abs=1e-6)
        assert ranking.mmrv(reference=reference, imagined=reference) == 0.0


class TestCorrelations:
    @ordinary
    @given(worlds=two_worlds(least=3))
    def test_batched_ones_are_scipys(self, worlds):
        a, b = worlds
        for one, many in (
            (ranking.pearson, ranking.pearsons),
            (ranking.spearman, ranking.spearmans),
            (ranking.kendall, ranking.kendalls),
        ):
            value = one(a, b)
            assert -1.0 - 1e-12 <= value <= 1.0 + 1e-12
            assert many(np.stack([a, b]), np.stack([b, a])) == pytest.approx([value, value], abs=1e-9)

    def test_known_values(self):
        a, b = [1, 2, 3, 4, 5], [2, 1, 4, 3, 5]
        assert ranking.spearman(a, b) == pytest.approx(0.8)
        assert ranking.kendall(a, b) == pytest.approx(0.6)
        assert ranking.pearson(a, [2.0 * x + 1 for x in a]) == pytest.approx(1.0)

    @ordinary
    @given(worlds=two_worlds(least=3))
    def test_ranks_only_know_the_order(self, worlds):
        a, b = worlds
        assert ranking.spearman(np.exp(2 * a), b) == pytest.approx(ranking.spearman(a, b))
        assert ranking.kendall(a, 1 - b) == pytest.approx(-ranking.kendall(a, b))

    @pytest.mark.parametrize("measure", [ranking.pearson, ranking.spearman, ranking.kendall])
    def test_without_variation_there_is_no_order(self, measure):
        assert measure([0.5, 0.5, 0.5], [0.1, 0.2, 0.3]) == 0.0

    def test_rounding_makes_no_order(self):
        assert ranking.spearman([0.1 + 0.2, 0.3, 0.3], [1.0, 2.0, 3.0]) == 0.0

    @pytest.mark.parametrize("shapes", [((3,), (4,)), ((1,), (1,)), ((2, 2), (2, 2))])
    def test_rows_that_do_not_fit_are_refused(self, shapes):
        with pytest.raises(ValueError, match="two rows"):
            ranking.spearman(np.zeros(shapes[0]), np.zeros(shapes[1]))


class TestChance:
    def test_perfect_ranking_by_luck(self):
        assert ranking.perfect_ranking_by_luck(4) == pytest.approx(1 / 24)
        with pytest.raises(ValueError, match="at least one"):
            ranking.perfect_ranking_by_luck(0)

    def test_small_permutation_test_is_exact(self):
        assert ranking.permutation_p([1, 2, 3, 4], [1, 2, 3, 4]) == pytest.approx(1 / 24)
        assert ranking.permutation_p([1, 2, 3, 4], [4, 3, 2, 1]) == 1.0
        assert ranking.permutation_p([1, 2, 3, 4], [1, 1, 1, 1]) == 1.0

    def test_many_policies_agree_with_scipy(self):
        rng = np.random.default_rng(3)
        a = rng.random(12)
        b = a + 0.5 * rng.random(12)
        ours = ranking.permutation_p(a, b)
        assert ours == pytest.approx(stats.spearmanr(a, b, alternative="greater").pvalue, abs=0.005)
        assert ranking.permutation_p(a, a) >= 1 / (ranking.NUM_PERMUTATIONS + 1)


def paired(noise: float, *, num_policies=10, num_scenes=12, num_seeds=2, seed=0) -> PairedScores:
    """Policies of evenly spread skill in scenes of different difficulty; the worlds differ by ``noise``."""
    rng = np.random.default_rng(seed)
    skill = np.linspace(0.1, 0.9, num_policies)[:, None, None]
    difficulty = rng.normal(0.0, 0.3, (1, num_scenes, 1))
    shape = (num_policies, num_scenes, num_seeds)
    reference = skill + difficulty + rng.normal(0.0, 0.05, shape)
    return PairedScores(
        policies=[f"policy-{index}" for index in range(num_policies)],
        reference=reference,
        imagined=reference + rng.normal(0.0, noise, shape),
    )


class TestClusterBootstrap:
    def test_each_resample_has_as_many_episodes(self):
        weights = ranking.cluster_weights(5, 3, num_resamples=50)
        assert weights.shape == (50, 5, 3)
        assert (weights.sum(axis=(1, 2)) == 15).all()
        assert (weights.sum(axis=2) % 3 == 0).all()  # whole scenes
        assert weights.mean() == pytest.approx(1.0)

    def test_same_seed_same_interval(self):
        assert rank_agreement(paired(0.3)) == rank_agreement(paired(0.3))
        assert rank_agreement(paired(0.3)).spearman != rank_agreement(paired(0.3), seed=1).spearman

    def test_equal_worlds_agree_wholly(self):
        found = rank_agreement(paired(0.0))
        for estimate in (found.pearson, found.spearman, found.kendall):
            assert (estimate.value, estimate.low, estimate.high) == pytest.approx((1.0, 1.0, 1.0))
        assert found.mmrv.high == found.mmrv_share_of_range.value == 0.0
        assert found.decided_pairs == found.decided_pairs_alike > 40
        assert found.spearman_without_one == pytest.approx(1.0)
        assert found.perfect_ranking_by_luck == pytest.approx(1 / math.factorial(10))

    def test_noise_widens_the_interval_and_lowers_the_agreement(self):
        little, much = rank_agreement(paired(0.1)), rank_agreement(paired(2.0))
        assert little.spearman.value > much.spearman.value
        assert little.spearman.high - little.spearman.low < much.spearman.high - much.spearman.low
        assert little.mmrv.value < much.mmrv.value
        assert little.permutation_p < 0.001 < much.permutation_p
        assert much.decided_pairs_alike < much.decided_pairs

    def test_scenes_are_the_unit_not_episodes(self):
        """Copies of the same episode within a scene make nobody surer."""
        few = paired(0.8, num_seeds=1)
        many = PairedScores(
            policies=few.policies,
            reference=np.repeat(few.reference, 8, axis=2),
            imagined=np.repeat(few.imagined, 8, axis=2),
        )
        wide, copied = (rank_agreement(scores).pearson for scores in (few, many))
        assert copied.high - copied.low == pytest.approx(wide.high - wide.low, rel=0.15)

    def test_interval_covers_the_truth_about_as_often_as_it_says(self):
        truth = 1.0  # of MMRV there is nothing, of the order everything
        hits = [rank_agreement(paired(0.2, num_policies=4, seed=seed)).spearman for seed in range(20)]
        assert np.mean([low_high.low <= truth <= low_high.high for low_high in hits]) >= 0.9

    def test_a_missing_episode_is_left_out_in_both_worlds(self):
        scores = paired(0.1)
        scores.imagined[0, 0, 0] = np.nan
        reference, _ = scores.means()
        kept = scores.reference[0].ravel()[1:]
        assert reference[0] == pytest.approx(kept.mean())
        assert np.isfinite(rank_agreement(scores).spearman.low)

    def test_a_policy_with_few_episodes_does_not_spoil_the_resamples(self):
        scores = paired(0.1, num_policies=4)
        scores.reference[1, 2:] = np.nan
        found = rank_agreement(scores)
        assert found.spearman.low <= found.spearman.value

    def test_scores_that_do_not_fit_are_refused(self):
        good = paired(0.1, num_policies=3)
        with pytest.raises(ValueError, match="policies, scenes, seeds"):
            PairedScores(policies=["a"], reference=good.reference, imagined=good.imagined)
        with pytest.raises(ValueError, match="at least two"):
            PairedScores(policies=["a"], reference=good.reference[:1], imagined=good.imagined[:1])
        empty = good.imagined.copy()
        empty[1] = np.nan
        with pytest.raises(ValueError, match="no episode of policy-1"):
            PairedScores(policies=good.policies, reference=good.reference, imagined=empty)
