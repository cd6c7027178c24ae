"""The closed-loop command: episodes, bad policies, batches and processes, folders that go on, refuse, or are done."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import FakeWorldModel

from benchmarks import closed_loop, closed_loop_episodes, closed_loop_folder, driving_seats
from benchmarks.closed_loop_episodes import (
    DIED,
    DriveSettings,
    EpisodeJob,
    World,
    run_episodes,
)
from benchmarks.closed_loop_leads import leads_over, show_leads
from benchmarks.driving_scenes import checked_scene_names, course_of, road_names
from benchmarks.report import run_command
from drivesim import shared_models
from drivesim.errors import InputError
from drivesim.metrics.base import MetricResult
from drivesim.metrics.scores import SCORE_NAMES, EpisodeScores
from drivesim.rollout import EpisodeConfig, make_env, make_policy, rollout

STEPS = 6
SCENES = ["scene-2001", "scene-2006"]
POLICIES = ["pure-pursuit", "bad_policies:GlobalRandom"]
RUN = ["--env", "reference", "--steps", str(STEPS), "--scenes", *SCENES, "--policies", *POLICIES]


def settings(**changes) -> DriveSettings:
    usual = {"world": World.REFERENCE, "episode": EpisodeConfig(horizon=STEPS), "has_videos": False}
    return DriveSettings(**usual | changes)


def jobs_for(*policies, scenes=SCENES, seed=0):
    return [EpisodeJob(policy=policy, scene=scene, seed=seed) for policy in policies for scene in scenes]


def run(arguments, out: Path, *more) -> int:
    """Run the command in this process and return its exit code."""
    try:
        run_command(partial(closed_loop.main, [*arguments, *more, "--out", str(out)]))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def same(one, other) -> bool:
    return (one.job, one.scores, one.end_reason, one.failure) == (
        other.job,
        other.scores,
        other.end_reason,
        other.failure,
    ) and all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays | other.arrays)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    """Let commands drive in this process unless a test wants others."""
    monkeypatch.setattr(closed_loop, "run_episodes", _run_here)


def _run_here(jobs, settings, *, processes, **rest):
    return run_episodes(jobs, settings, processes=0, **rest)


@pytest.fixture(scope="module")
def driven(tmp_path_factory) -> Path:
    """Return a finished run, not to be changed, driven by two processes."""
    out = tmp_path_factory.mktemp("closed") / "run"
    assert run([*RUN, "--batch", "3", "--processes", "2"], out) == 0
    return out


# ---------------------------------------------------------------------------------------------- episodes


def test_an_episode_is_the_rollout_of_its_policy():
    [job] = jobs_for("late-steering", scenes=["scene-2006"])
    [result] = run_episodes([job], settings(has_videos=True), processes=0)
    env = make_env(settings().episode, scene=course_of("scene-2006", STEPS, 4).scene)
    expected = rollout(env, make_policy("late-steering", seed=0), seed=0)
    assert result.num_steps == len(expected.steps) == STEPS
    assert result.end_reason == expected.end_reason == "time_limit"
    assert result.arrays["reward"] == pytest.approx([step.reward for step in expected.steps])
    assert result.arrays["ego/x_m"] == pytest.approx([step.ego["x_m"] for step in expected.steps])
    assert result.arrays["action"].shape == (STEPS, 2)
    assert set(result.scores.results()) == set(SCORE_NAMES)
    frames = result.frames()
    assert frames.shape == (STEPS + 1, 128, 224, 3)
    assert np.abs(frames[3].astype(float) - expected.frames[3]).mean() < 6  # a film is not exact


def test_results_do_not_depend_on_the_batch():
    jobs = jobs_for("bad_policies:GlobalRandom", "bad_policies:RaisesAtThird", "random")
    one_by_one = run_episodes(jobs, settings(), batch_size=1, processes=0)
    together = run_episodes(list(reversed(jobs)), settings(), batch_size=5, processes=0)
    assert [result.job for result in together] == list(reversed(jobs))
    assert all(same(a, b) for a, b in zip(one_by_one, reversed(together), strict=True))
    assert [result.end_reason for result in one_by_one].count("failed") == 2
    with pytest.raises(InputError, match="--batch must be at least 1"):
        run_episodes(jobs, settings(), batch_size=0)


def test_seeds_reach_policies_and_names_are_files():
    [first, second, again] = [
        run_episodes(jobs_for("random", scenes=SCENES[:1], seed=seed), settings(), processes=0)[0]
        for seed in (0, 1, 0)
    ]
    assert not np.array_equal(first.arrays["action"], second.arrays["action"])
    assert same(first, again)
    job = EpisodeJob(policy="some/where/mine.py:Mine", scene="road-900001", seed=2)
    assert re.fullmatch(r"some-where-mine-py-Mine_road-900001_2_[0-9a-f]{8}", job.id)
    assert job.id != EpisodeJob(policy="some-where-mine.py:Mine", scene="road-900001", seed=2).id


def test_the_learned_world_is_driven_too(monkeypatch):
    monkeypatch.setattr(shared_models, "shared_world_model", lambda *_: FakeWorldModel())
    learned = settings(
        world=World.WORLDDREAMER, episode=EpisodeConfig(horizon=STEPS, hazard_head=""), has_videos=True
    )
    jobs = jobs_for("pure-pursuit", "bad_policies:RaisesAtThird", "oscillating")
    together = run_episodes(jobs, learned, processes=0)
    monkeypatch.setattr(closed_loop_episodes, "open_seats", driving_seats.SingleSeats)
    assert all(
        same(one, other) and one.video == other.video
        for one, other in zip(together, run_episodes(jobs, learned, processes=0), strict=True)
    )
    result = together[0]
    assert result.arrays["confidence"] == pytest.approx(np.full(STEPS, 0.5))
    assert "NC" not in result.scores.pdms_parts
    assert not result.scores.collision.is_valid
    assert result.scores.pdms.is_valid
    assert [result.num_steps for result in together] == [STEPS, STEPS, 2, 2, STEPS, STEPS]


def test_pure_pursuit_is_its_own_expert_and_the_horizon_is_shared():
    course = course_of("scene-2001", STEPS, 4)
    [result] = run_episodes(jobs_for("pure-pursuit", scenes=["scene-2001"]), settings(), processes=0)
    assert course.expert_progress_m == pytest.approx(np.cumsum(result.arrays["metrics/progress_m"]), abs=1e-6)
    assert result.scores.ego_progress.value == pytest.approx(1.0)
    long = course_of("scene-2010", 400, 4)
    assert long.expert_progress_m[-1] == long.expert_progress_m[-2]  # it stands at the goal
    assert long.expert_progress_m[-1] == pytest.approx(long.route_left_m, abs=2.5)


def test_roads_are_recorded_by_name_and_training_roads_refused():
    course = course_of("road-900100", 3, 4)
    assert course.scene.log_name.endswith("900100")
    assert len(course.scene) == 7
    assert checked_scene_names(["all"])[0] == "scene-2001"
    assert checked_scene_names(["road-890001", "road-890001"]) == ["road-890001"]
    for name in ("road-5", "road-950000"):
        with pytest.raises(InputError, match="not held out"):
            checked_scene_names([name])
    with pytest.raises(InputError, match="not held out"):
        road_names(889_999, 2)


# ------------------------------------------------------------------------------------------- bad policies


def test_one_bad_policy_does_not_harm_the_others():
    jobs = jobs_for("pure-pursuit", "bad_policies:Nan", "bad_policies:CannotBeMade", scenes=SCENES[:1])
    good, nan, unmade = run_episodes(jobs, settings(), processes=0)
    assert (good.end_reason, good.failure) == ("time_limit", "")
    assert nan.is_failed
    assert "steering_rad = nan" in nan.failure
    assert "no weights here" in unmade.failure
    assert nan.num_steps == unmade.num_steps == 0
    assert not any(result.is_valid for result in nan.scores.results().values())


@pytest.mark.slow
def test_hanging_and_dying_policies_are_outlived():
    names = ["bad_policies:EndsItsProcess", "bad_policies:SwallowsAlarms", "timid"]
    jobs = jobs_for(*names, scenes=SCENES[:1])
    results = run_episodes(jobs, settings(time_limit_s=0.5), batch_size=4, processes=1)
    assert [result.failure for result in results] == [DIED, DIED, ""]
    assert [result.num_steps for result in results] == [0, 0, STEPS]


def test_the_exit_code_and_the_files_tell_of_failures(tmp_path, capfd):
    arguments = [*RUN[:-2], "pure-pursuit,bad_policies:RaisesAtThird"]
    assert run(arguments, tmp_path / "run") == 1
    captured = capfd.readouterr()
    assert "raised RuntimeError: the third picture" in captured.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["num_failed"] == 2
    assert list(summary["pdms"]) == ["pure-pursuit"]
    assert "raised RuntimeError" in (tmp_path / "run" / "report.html").read_text()
    rows = pq.read_table(tmp_path / "run" / "episodes.parquet").to_pylist()
    assert [row["failure"] is None for row in rows] == [True, True, False, False]
    assert all(row["pdms"] is None and row["num_steps"] == 2 for row in rows[2:])
    assert run(arguments, tmp_path / "run") == 1  # it is finished, and still failed


# ------------------------------------------------------------------------------------------ command, files


def test_the_files_of_a_run(driven, capfd):
    table = pq.read_table(driven / "episodes.parquet")
    assert table.num_rows == 4
    assert table.column_names[:9] == [
        *["episode", "policy", "scene", "world", "end_reason", "failure", "seed", "num_steps", "total_reward"]
    ]
    assert set(SCORE_NAMES) < set(table.column_names)
    configuration = json.loads(table.schema.metadata[b"drivesim.configuration"])
    assert configuration["scenes"] == SCENES
    assert configuration["env"] == "reference"
    summary = json.loads((driven / "summary.json").read_text())
    assert set(summary["pdms"]) == set(POLICIES)
    low, high = summary["pdms_interval"]["pure-pursuit"]
    assert low <= summary["pdms"]["pure-pursuit"] <= high
    assert summary["num_episodes"] == 4
    assert set(summary["pdms_lead"]) == set(POLICIES) - {summary["lead_over"]}
    assert summary["packages"]["torch"]
    assert len(list((driven / "episodes").glob("*.mp4"))) == 4
    assert run(RUN, driven, "--batch", "1") == 0  # other batches are the same run
    out = capfd.readouterr().out
    assert "finished; here is its table" in out
    assert "These are not NAVSIM's PDMS" in out
    assert all(len(line) <= 80 for line in out.splitlines() if line.startswith(("│", "┃")))


def fake_results(scores):
    """Return episodes of made-up scores: {policy: {scene: score, None where it failed}}."""
    return [
        SimpleNamespace(
            job=EpisodeJob(policy=policy, scene=scene),
            is_failed=score is None,
            scores=EpisodeScores(pdms=MetricResult(value=score or 0.0)),
        )
        for policy, by_scene in scores.items()
        for scene, score in by_scene.items()
    ]


def test_leads_are_paired_so_that_hard_roads_cancel(capfd):
    hard_and_easy = {f"road-{index}": 0.1 * index for index in range(10)}
    better = {scene: score + 0.05 for scene, score in hard_and_easy.items()}
    worse = {scene: score - 0.02 * (index % 2) for index, (scene, score) in enumerate(hard_and_easy.items())}
    half = better | {"road-9": None}
    results = fake_results({"base": hard_and_easy, "better": better, "worse": worse, "half": half})
    leads = leads_over("base", results)
    assert set(leads) == {"better", "worse", "half"}
    assert (leads["better"].low, leads["better"].high) == pytest.approx((0.05, 0.05))
    assert leads["half"].count == 9
    assert leads["worse"].value == pytest.approx(-0.01)
    assert leads["worse"].high < 0
    show_leads("base", leads)
    shown = capfd.readouterr().out
    assert "above that of base" in shown
    assert shown.index("better") < shown.index("worse")


def tables(folder: Path):
    summary = json.loads((folder / "summary.json").read_text())
    return pq.read_table(folder / "episodes.parquet"), summary


def test_another_batch_in_one_process_gives_the_same_table(driven, tmp_path):
    assert run(RUN, tmp_path / "run", "--batch", "1") == 0
    (table, summary), (expected, expected_summary) = tables(tmp_path / "run"), tables(driven)
    assert table.equals(expected)
    assert summary.pop("command").endswith(f"--batch 1 --out {tmp_path / 'run'}")
    del expected_summary["command"]
    assert summary == expected_summary


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_the_same_table(driven, tmp_path, capfd):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "benchmarks.closed_loop", *RUN, "--batch", "1", "--processes", "1"]
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["tests", *sys.path])},
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("episodes/*.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(list(out.glob("episodes/*.json")))
    assert 1 <= done < 4
    assert run(RUN, out) == 2
    assert "unfinished run of this configuration; add --resume" in capfd.readouterr().err
    assert run(RUN, out, "--resume") == 0
    assert f"drove {4 - done} episodes" in capfd.readouterr().out
    assert tables(out)[0].equals(tables(driven)[0])
    resumed, whole = (tables(folder)[1] for folder in (out, driven))
    assert resumed | {"command": ""} == whole | {"command": ""}


def test_folders_of_other_runs_and_other_things_are_refused(driven, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    for out, arguments, message in [
        (tmp_path / "file", RUN, "is a file"),
        (tmp_path / "full", RUN, "is not empty and holds no run"),
        (driven, [*RUN, "--steps", "5"], "another run with another steps"),
        (driven, [*RUN, "--steps", "5", "--resume"], "with another steps (6, not 5)"),
    ]:
        assert run(arguments, out) == 2
        error = capfd.readouterr().err
        assert message.replace("another run ", "a run ") in error
        assert error.count("error:") == 1
    assert [entry.name for entry in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_two_runs_do_not_share_a_folder_but_stale_locks_are_taken_over(tmp_path, capfd):
    out = tmp_path / "run"
    with closed_loop_folder.opened(out, {}, resumes=False):
        assert run(RUN, out) == 2
    assert f"another run (process {os.getpid()}) writes into" in capfd.readouterr().err
    (out / ".lock").write_text("999999\n")
    with closed_loop_folder.opened(out, {}, resumes=False):
        assert (out / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_damaged_episode_names_the_remedy(tmp_path):
    [result] = run_episodes(jobs_for("timid", scenes=SCENES[:1]), settings(), processes=0)
    with closed_loop_folder.opened(tmp_path / "run", {"steps": STEPS}, resumes=False) as folder:
        folder.save(result)
        assert same(folder.load(result.job), result)
        (tmp_path / "run" / "episodes" / f"{result.job.id}.npz").write_bytes(b"bent")
        with pytest.raises(InputError, match=r"remove .*\.json and add --resume"):
            folder.load(result.job)
    (tmp_path / "run" / "run.json").write_text("{")
    with (
        pytest.raises(InputError, match="is damaged"),
        closed_loop_folder.opened(tmp_path / "run", {}, resumes=True),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policies", "pure-pursiut"], "did you mean pure-pursuit"),
        (["--policies", "bad_policies:Nann"], "did you mean Nan"),
        (["--policies", ","], "need at least one name"),
        (["--scenes", "scene-2011"], "did you mean scene-2010"),
        (["--scenes", "road-12"], "not held out"),
        (["--num-scenes", "3"], "--num-scenes counts held-out roads"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--processes", "0"], "--processes must be at least 1"),
        (["--time-limit", "-1"], "--time-limit must be positive"),
        (["--env", "learned"], "no world 'learned' for --env; choose from worlddreamer, reference"),
        (["--env", "Reference"], "no world 'Reference' for --env; did you mean reference?"),
        (["--policies", "idm,bad_policies:CannotBeMade"], "no weights here"),
        (["--policies", "cem@num_elites=0"], "num_elites must be a whole number of at least 1, got 0"),
        (["--env", "worlddreamer", "--weights", "no-such"], "no-such"),
    ],
)
def test_bad_input_ends_with_one_sentence(arguments, message, tmp_path, capfd):
    assert run([*RUN, *arguments], tmp_path / "run") == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("error:") == 1
    assert not (tmp_path / "run").exists()


def test_missing_pyarrow_is_said_before_anything_is_driven(monkeypatch, tmp_path, capfd):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert run(RUN, tmp_path / "run") == 2
    assert "pip install 'drivesim[bench]'" in capfd.readouterr().err


def test_held_out_roads_and_quick_fill_in_what_is_missing(tmp_path):
    options = closed_loop.parse(["--policies", "a,b", "c", "--quick", "--out", str(tmp_path)])
    assert options.policies == ["a", "b", "c"]
    assert options.scenes == ["road-900000", "road-900001", "road-900002"]
    assert options.steps == 24
    assert len(closed_loop.jobs_of(options)) == 9
    assert closed_loop.configuration_of(options)["roads"] == "held-out roads"
    with pytest.raises(InputError, match="--num-scenes must be at least 1, got 0"):
        closed_loop.parse(["--policies", "a", "--num-scenes", "0", "--out", "x"])
    full = closed_loop.parse(["--policies", "a", "--seed", "890000", "--out", "x"])
    assert (len(full.scenes), full.steps) == (8, 60)
    assert closed_loop.configuration_of(full)["roads"].startswith("validation roads")


def test_weights_that_a_policy_takes_unnamed_are_noted_in_the_reference_world_too(tmp_path):
    names = ["--policies", "idm,cem,behavior-cloning", "--env", "reference", "--out", str(tmp_path)]
    contents = closed_loop.configuration_of(closed_loop.parse(names))["contents"]
    assert list(contents) == ["cem", "behavior-cloning"]


def test_a_changed_policy_file_is_not_taken_for_the_old_one(tmp_path, capfd):
    policy = tmp_path / "mine.py"
    text = "import numpy as np\nclass Mine:\n    def select_action(self, observation, info):\n"
    policy.write_text(f"{text}        return np.array([0.0, 5.0], dtype=np.float32)\n")
    arguments = [*RUN[:4], "--scenes", SCENES[0], "--policies", str(policy), "--no-videos"]
    assert run(arguments, tmp_path / "run") == 0
    [(name, _)] = json.loads((tmp_path / "run" / "run.json").read_text())["contents"].items()
    assert name == str(policy)
    policy.write_text(f"{text}        return np.array([0.0, 9.0], dtype=np.float32)\n")
    assert run(arguments, tmp_path / "run") == 2
    assert "other contents of" in " ".join(capfd.readouterr().err.split())
    assert run(arguments, tmp_path / "other") == 0
