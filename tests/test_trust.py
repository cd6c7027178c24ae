"""The trust benchmark: made-up episodes whose agreement is known, then a whole run over worlds made by hand."""

import json
import math

import numpy as np
import pytest
from browser import browse, needs_browser
from small_models import small_world_model
from trust_fakes import NUM_STEPS, PARTS, episode, many_pairs, pair

from benchmarks import trust, trust_page
from benchmarks.closed_loop_folder import locked
from benchmarks.page import write_page
from benchmarks.report import Report
from benchmarks.trust_disagreement import (
    add_disagreement,
    end_reasons,
    reason_of,
    reward_gaps,
    survival,
)
from benchmarks.trust_figures import measure_trust, verdict
from benchmarks.trust_pairs import Comparison
from drivesim.checkpoint import save_module, weights_hash
from drivesim.errors import InputError
from drivesim.video import read_image


class TestPairs:
    def test_policies_scenes_and_seeds_get_their_place(self):
        scores = Comparison(pairs=many_pairs()).paired_scores()
        assert scores.reference.shape == (5, 6, 2)
        assert scores.is_paired.all()
        assert (np.diff(scores.means()[0]) > 0).all()

    def test_table_is_ordered_by_the_reference_world(self):
        table = Comparison(pairs=many_pairs()).table()
        assert [row.policy for row in table] == [f"policy-{index}" for index in (4, 3, 2, 1, 0)]
        assert [row.reference_rank for row in table] == [1, 2, 3, 4, 5]
        assert table[0].as_dict()["reference_pdms"] == pytest.approx(0.9, abs=0.05)
        assert all(row.gap[0] <= row.imagined["pdms"] - row.reference["pdms"] <= row.gap[1] for row in table)

    def test_equal_scores_share_a_rank(self):
        pairs = [pair(0.5, 0.2, policy="a"), pair(0.5, 0.3, policy="b"), pair(0.1, 0.1, policy="c")]
        assert [
            (row.policy, row.reference_rank, row.imagined_rank) for row in Comparison(pairs=pairs).table()
        ] == [
            ("b", 1, 1),
            ("a", 1, 2),
            ("c", 3, 3),
        ]

    def test_a_failed_episode_counts_in_neither_world(self):
        pairs = [
            pair(0.5, 0.5, policy="a"),
            pair(0.9, episode(0.0, failure="it raised"), policy="a", scene="there"),
            pair(0.2, 0.3, policy="b"),
            pair(episode(0.0, failure="NaN"), 0.3, policy="c"),
        ]
        comparison = Comparison(pairs=pairs)
        assert comparison.policies == ["a", "b"]
        assert comparison.unscored == ["c"]
        assert len(comparison.whole) == 2
        first = comparison.table()[0]
        assert (first.episodes, first.failed, first.reference["pdms"]) == (1, 1, 0.5)
        assert comparison.paired_scores().means()[0].tolist() == [0.5, 0.2]

    def test_a_policy_with_few_results_is_left_out(self):
        few = [pair(0.5, 0.5, policy="a", scene=name) for name in "xyz"]
        few += [pair(0.5, 0.5, policy="b", scene="x")]
        few += [pair(0.5, episode(0, failure="slow"), policy="b", scene=name) for name in "yz"]
        comparison = Comparison(pairs=few)
        assert (comparison.policies, comparison.unscored) == (["a"], ["b"])
        assert few[-1].as_dict()["imagined"] is None
        assert few[-1].as_dict()["imagined_end"] == "failed"

    def test_what_one_world_cannot_measure_is_not_compared(self):
        pairs = many_pairs()
        for one in pairs:
            del one.imagined.scores["collision"]
        comparison = Comparison(pairs=pairs)
        assert comparison.paired_scores("collision") is None
        row = comparison.table()[0].as_dict()
        assert row["imagined_collision"] is None
        assert row["reference_collision"] == 0.0
        report = Report(title="trust")
        measure_trust(comparison, report, num_steps=NUM_STEPS)
        assert report.facts["not_compared"] == "collision"

    def test_gaps_name_who_is_flattered_and_who_is_wronged(self):
        pairs = [
            pair(0.1, 0.9, policy="a", scene="x"),
            pair(0.1, 0.8, policy="a", scene="y"),  # the same policy again
            pair(0.3, 0.6, policy="b", scene="y"),
            pair(0.8, 0.2, policy="b", scene="x"),
            pair(0.5, 0.5, policy="c", scene="x"),
        ]
        comparison = Comparison(pairs=pairs)
        flattered = comparison.largest_gaps(3, is_flattered=True)
        assert [(one.policy, one.scene) for one in flattered] == [("a", "x"), ("b", "y")]
        assert [one.policy for one in comparison.largest_gaps(3, is_flattered=False)] == ["b"]
        assert list(comparison.gaps_by(lambda one: one.policy)) == ["a", "c", "b"]
        assert comparison.gaps_by(lambda one: one.scene)["y"] == pytest.approx(0.5)


class TestDisagreement:
    def test_reward_gaps_end_with_the_shorter_episode(self):
        pairs = [
            pair(episode(1, num_steps=5), episode(1, num_steps=9, rewards=0.4), scene=f"{i}")
            for i in range(9)
        ]
        gaps = reward_gaps(pairs, "lateral")
        assert len(gaps) == 5
        assert [gap.value for gap in gaps] == pytest.approx([0.3] * 5)

    def test_steps_that_few_reach_have_no_figure(self):
        pairs = [pair(episode(1, num_steps=n), 1.0, scene=f"{n}") for n in range(3, 13)]
        assert len(reward_gaps(pairs, "progress")) == 5  # eight of ten go on so far

    def test_survival_counts_what_is_over(self):
        pairs = [
            pair(episode(0, num_steps=2, end_reason="off_road"), 1.0),
            pair(episode(0, num_steps=4, end_reason=""), 1.0),  # stopped by the benchmark
        ]
        alive = [estimate.value for estimate in survival(pairs, 4, is_imagined=False)]
        assert alive == [1.0, 0.5, 0.5, 0.5]
        assert [estimate.value for estimate in survival(pairs, 4, is_imagined=True)] == [1.0] * 4

    def test_end_reasons_are_counted_against_each_other(self):
        pairs = [
            pair(episode(0, end_reason="off_road"), episode(0, end_reason="off_road")),
            pair(episode(0, end_reason="off_road"), episode(0, end_reason="time_limit")),
            pair(episode(0, end_reason=""), episode(0, end_reason="time_limit")),
        ]
        reasons = end_reasons(pairs)
        assert reasons.as_dict()["off_road"] == {"off_road": 1, "still driving": 1}
        assert reason_of("goal") == "goal"

    def test_rows(self):
        report = Report(title="trust")
        add_disagreement(report, many_pairs(), num_steps=NUM_STEPS)
        values = {row.name: row.value for row in report.rows}
        assert values["same_end_reason"] == 1.0
        assert values["same_end_time"] == 1.0
        assert values["end_step_difference"] == pytest.approx(2 * 12 / 60)
        assert values["survival_imagined"] == pytest.approx(0.8)
        assert values["low_confidence_share"] == 0.0
        assert {f"reward_gap_{part}" for part in PARTS} <= set(report.curves)


class TestFigures:
    def test_worlds_that_agree(self):
        comparison = Comparison(pairs=many_pairs(noise=0.001))
        report = Report(title="trust", targets=trust_page.TARGETS)
        found = measure_trust(comparison, report, num_steps=NUM_STEPS)
        result = found.as_dict(comparison)
        json.dumps(result, allow_nan=False)
        keys = "num_policies pearson spearman spearman_low spearman_high kendall mmrv mmrv_share_of_range"
        assert all(isinstance(result[key], int | float) for key in [*keys.split(), "perfect_ranking_by_luck"])
        assert result["parts"]["off_road_rate"]["spearman"] == pytest.approx(1.0)
        assert result["num_policies"] == 5
        assert result["spearman"] == pytest.approx(1.0)
        assert result["mmrv_share_of_range"] == 0.0
        assert result["perfect_ranking_by_luck"] == pytest.approx(1 / math.factorial(5))
        assert result["policies"][0]["policy"] == "policy-4"
        assert "5 policies" in found.verdict
        assert "is its best too" in found.verdict

    def test_policies_that_look_are_ranked_by_themselves(self):
        pairs = many_pairs()
        for one in pairs:
            if one.policy in ("policy-1", "policy-2", "policy-4"):
                one.imagined.path_m += np.array([0.0, 0.5])
        comparison = Comparison(pairs=pairs)
        assert comparison.reacting == ["policy-1", "policy-2", "policy-4"]
        report = Report(title="trust")
        found = measure_trust(comparison, report, num_steps=NUM_STEPS)
        values = {row.name: row.value for row in report.rows}
        assert values["num_reacting_policies"] == 3
        assert values["same_drive_share"] == pytest.approx(0.4)
        assert values["spearman_reacting"] == pytest.approx(1.0)
        assert "3 of the policies drive differently" in found.verdict
        assert {row.policy for row in found.table if row.same_drive_share == 1.0} == {"policy-0", "policy-3"}

    def test_reversed_worlds(self):
        pairs = many_pairs()
        for one in pairs:
            one.imagined.scores["pdms"] = 1 - one.reference.scores["pdms"]
        comparison = Comparison(pairs=pairs)
        found = measure_trust(comparison, Report(title="trust"), num_steps=NUM_STEPS)
        assert found.agreement.spearman.value == pytest.approx(-1.0)
        assert found.agreement.mmrv_share_of_range.value > 0.5
        assert "comes out at place 5" in verdict(found.agreement, found.table, num_reacting=0)

    def test_one_policy_is_no_ranking(self):
        failed = [pair(0.5, episode(0, failure="it raised"), policy="bad"), pair(0.5, 0.5)]
        with pytest.raises(InputError, match=r"at least two policies.*it raised"):
            measure_trust(Comparison(pairs=failed), Report(title="trust"), num_steps=NUM_STEPS)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    comparison = Comparison(pairs=many_pairs())
    report = Report(title="trust", targets=trust_page.TARGETS)
    found = measure_trust(comparison, report, num_steps=NUM_STEPS)
    path = tmp_path_factory.mktemp("page") / "trust.html"
    pieces = trust_page.sections(comparison, found)
    write_page(path, report, plots=trust_page.PLOTS, pictures=[], sections=pieces)
    return path


def test_page_shows_policies_reasons_and_gaps(page):
    html = page.read_text()
    for text in ("policy-3", "scene-5", "still driving", "What it means", "one point per episode"):
        assert text in html
    assert html.count("data:image/png") == 4


@needs_browser
def test_a_browser_shows_the_page(page, tmp_path):
    browse(page, tmp_path / "profile", f"--screenshot={tmp_path / 'page.png'}", "--window-size=1200,3000")
    picture = read_image(tmp_path / "page.png")
    assert picture.shape == (3000, 1200, 3)
    assert (picture < 250).any(axis=(1, 2)).mean() > 0.5


LOOKING_POLICY = """
import numpy as np


class BrightnessPolicy:
    def select_action(self, observation, info):
        return np.array([0.2 * (observation.mean() / 255 - 0.5), 6.0], dtype=np.float32)
"""
FAILING_POLICY = LOOKING_POLICY.replace("0.2 *", "float('nan') *")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    model = small_world_model()
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_module(model, path, kind="world-model", config=model.config)
    return path


class TestWholeRun:
    def run(self, tmp_path, weights, policy, *scenes, more=()):
        options = trust.parse(
            [
                *["--policies", "pure-pursuit", "left-drifting", str(policy), "--scenes", *scenes],
                *["--steps", "6", "--batch", "3", "--weights", str(weights)],
                *["--out", str(tmp_path / "trust.json"), *more],
            ]
        )
        options.processes = 0  # in this one
        trust.run(options)
        return json.loads((tmp_path / "trust.json").read_text())

    def test_three_policies_in_both_worlds(self, tmp_path, weights, capsys):
        policy = tmp_path / "brightness.py"
        policy.write_text(LOOKING_POLICY)
        result = self.run(tmp_path, weights, policy, "scene-2001", "scene-2002")
        assert result["num_policies"] == 3
        assert -1.0 <= result["spearman_low"] <= result["spearman"] <= result["spearman_high"] <= 1.0
        assert 0.0 <= result["mmrv_share_of_range"] <= 1.0
        assert result["perfect_ranking_by_luck"] == pytest.approx(1 / 6)
        assert result["reference_score_parts"].startswith("NC DAC EP")
        assert "too narrow" in result["caution"]
        table = {row["policy"]: row for row in result["policies"]}
        assert table["pure-pursuit"]["same_drive_share"] == 1.0
        assert table[str(policy)]["same_drive_share"] < 1.0
        assert table["pure-pursuit"]["episodes"] == 2
        assert len(result["reward_gap_progress_curve"]["step"]) == 6
        page = (tmp_path / "trust.html").read_text()
        assert "Flattered" in page or "Wronged" in page
        assert "imagined world ranks" in capsys.readouterr().out
        assert list(result["contents"]) == [str(policy), f"weights {weights}"]
        assert result["hazard_head"] == ""
        assert result["weights_sha256"] == weights_hash(weights)
        assert "hazard_head_sha256" not in result
        self.goes_on_where_it_was_killed(tmp_path, weights, policy, result)

    def goes_on_where_it_was_killed(self, tmp_path, weights, policy, result):
        episodes = sorted((tmp_path / "trust-episodes").glob("*/episodes/*.json"))
        assert len(episodes) == 12
        episodes[0].unlink()
        before = {path: path.stat().st_mtime_ns for path in episodes[1:]}
        again = self.run(tmp_path, weights, policy, "scene-2001", "scene-2002")
        assert {**again, "minutes": 0} == {**result, "minutes": 0}
        assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())
        with pytest.raises(InputError, match=r"another steps.*--episodes"):
            self.run(tmp_path, weights, policy, "scene-2001", more=["--steps", "5"])
        self.is_alone_in_its_folder(tmp_path, weights, policy)

    def is_alone_in_its_folder(self, tmp_path, weights, policy):
        with (
            locked(tmp_path / "trust-episodes", flag="--episodes"),
            pytest.raises(InputError, match=r"another run .*trust-episodes; wait for it or .*--episodes"),
        ):
            self.run(tmp_path, weights, policy, "scene-2001")
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"--episodes .*file is a file; name a folder"):
            self.run(tmp_path, weights, policy, "scene-2001", more=["--episodes", str(tmp_path / "file")])

    def test_a_policy_that_fails_is_left_out_and_the_exit_code_says_so(self, tmp_path, weights, capsys):
        policy = tmp_path / "failing.py"
        policy.write_text(FAILING_POLICY)
        with pytest.raises(SystemExit) as end:
            self.run(tmp_path, weights, policy, "scene-2001")
        assert end.value.code == 1
        result = json.loads((tmp_path / "trust.json").read_text())
        assert result["num_policies"] == 2
        assert result["left_out"] == str(policy)
        assert len(result["failures"]) == 1
        assert "has no result" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--policies", "pure-pursuit"], "at least two policies"),
        (["--policies", "pure-pursuit,pure-pursuits"], "pure-pursuit"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--scenes", "scene-9999"], "scene-2009"),
        (["--seed", "1", "--num-scenes", "2"], "not held out"),
        (["--weights", "drive-tinny"], "drive-tiny"),
        (["--processes", "0"], "--processes must be at least 1"),
    ],
)
def test_bad_input_is_refused_before_anything_is_driven(arguments, words, tmp_path):
    policies = [] if "--policies" in arguments else ["--policies", "pure-pursuit,blind"]
    with pytest.raises(InputError, match=words):
        trust.main([*policies, *arguments, "--out", str(tmp_path / "trust.json")])


def test_an_interrupted_run_says_how_it_goes_on(tmp_path, monkeypatch, capfd):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(trust, "drive_both", interrupted)
    with pytest.raises(SystemExit) as ended:
        trust.main(["--policies", "pure-pursuit,blind", "--out", str(tmp_path / "trust.json")])
    assert ended.value.code == 130
    assert "trust-episodes" in "".join(capfd.readouterr().err.split())


def test_the_help_says_where_episodes_are_kept(capsys):
    with pytest.raises(SystemExit):
        trust.parse(["--help"])
    assert "OUT-episodes beside --out" in " ".join(capsys.readouterr().out.split())


def test_quick_is_smaller_and_both_are_named(tmp_path):
    common = ["--out", str(tmp_path / "trust.json"), "--policies", "pure-pursuit", "blind"]
    full, quick = (trust.parse([*common, *extra]) for extra in ([], ["--quick"]))
    assert (full.num_scenes, full.steps) == (trust.FULL.num_scenes, trust.FULL.steps)
    assert (quick.num_scenes, quick.steps) == (trust.QUICK.num_scenes, trust.QUICK.steps)
    assert len(trust.DEFAULT_POLICIES) >= 10


def test_the_confidence_limit_can_be_lifted(tmp_path):
    common = ["--out", str(tmp_path / "trust.json"), "--policies", "pure-pursuit", "blind"]
    kept, lifted = (
        trust._settings(trust.parse([*common, *extra])) for extra in ([], ["--no-confidence-limit"])
    )
    assert kept.episode.min_confidence is not None
    assert lifted.episode.min_confidence is None
