"""PPO in imagination: segments that resume, drives that are noted, the figures and the page of a whole small run."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from small_models import small_world_model

pytest.importorskip("stable_baselines3")

from stable_baselines3 import PPO

from benchmarks import imagination, imagination_report
from benchmarks.imagination_drives import (
    REFERENCE,
    DrivenRoad,
    RandomLearner,
    completion,
    completion_ratio,
    drive_once,
    drive_roads,
    end_share,
)
from benchmarks.imagination_folder import run_folder
from benchmarks.imagination_training import LAST_AGENT, PPOConfig, TrainingPlan, start_of_road, train
from drivesim.errors import InputError
from drivesim.reference.seeds import FIRST_HELD_OUT_SEED, FIRST_VALIDATION_SEED
from drivesim.rollout import load_policy

ROAD = FIRST_VALIDATION_SEED + 500


def small_plan(env_id: str = REFERENCE, num_steps: int = 24, **ppo: Any) -> TrainingPlan:
    small = {"rollout_steps": 4, "batch_size": 8, "num_epochs": 1, "widths": [8], "has_image": False}
    return TrainingPlan(env_id=env_id, num_steps=num_steps, num_envs=2, ppo=PPOConfig(**small | ppo))


def run(
    plan: TrainingPlan, folder: Path, *, on_progress: Callable[[int], None] | None = None
) -> dict[int, Path]:
    torch.set_num_threads(1)
    return train(
        plan, folder, kept_segments=[1, 3], env_settings={}, on_progress=on_progress or (lambda done: None)
    )


def driven(seed: int, share: float, end_reason: str = "time_limit") -> DrivenRoad:
    return DrivenRoad(
        road_seed=seed,
        route_completion=share,
        progress_m=100 * share,
        num_steps=100,
        total_reward=1.0,
        end_reason=end_reason,
    )


def test_a_plan_counts_its_segments_and_knows_its_roads() -> None:
    plan = small_plan(num_steps=60)
    assert (plan.steps_per_segment, plan.num_segments) == (8, 8)
    assert plan.evaluation_segments(4) == [2, 4, 6, 8]
    assert plan.evaluation_segments(1) == [8]
    assert plan.evaluation_segments(99)[-1] == 8
    with pytest.raises(InputError, match="ask for fewer steps"):
        TrainingPlan(env_id=REFERENCE, num_steps=10**9)
    with pytest.raises(InputError, match="needs steps"):
        TrainingPlan(env_id=REFERENCE, num_steps=0)


def test_a_killed_training_computes_what_an_unkilled_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def kill(done: int) -> None:
        if done == 8:
            raise Killed

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    whole = run(small_plan(), tmp_path / "whole")
    assert not list(temporary.glob("SB3-*"))  # where the algorithm would keep a log per segment
    with pytest.raises(Killed):
        run(small_plan(), tmp_path / "killed", on_progress=kill)
    resumed = run(small_plan(), tmp_path / "killed")
    assert set(whole) == set(resumed) == {8, 24}
    for steps in whole:
        first, second = (PPO.load(path, device="cpu") for path in (whole[steps], resumed[steps]))
        assert first.num_timesteps == second.num_timesteps == steps
        pairs = zip(first.policy.parameters(), second.policy.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert second.learning_rate == pytest.approx(0.4e-3)  # at the end


def test_a_finished_training_is_not_begun_again(tmp_path: Path) -> None:
    run(small_plan(), tmp_path)
    changed = (tmp_path / LAST_AGENT).stat().st_mtime_ns
    progress: list[int] = []
    run(small_plan(), tmp_path, on_progress=progress.append)
    assert progress == [24]
    assert (tmp_path / LAST_AGENT).stat().st_mtime_ns == changed
    (tmp_path / LAST_AGENT).write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        run(small_plan(), tmp_path)


def test_an_agent_learns_inside_the_world_model_with_pictures(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    plan = small_plan("WorldDreamer-Drive-v0", num_steps=16, has_image=True, rollout_steps=3)
    settings = {"world_model": small_world_model()}
    kept = train(plan, tmp_path, kept_segments=[1], env_settings=settings, on_progress=lambda done: None)
    policy = load_policy(imagination_report.PPO_POLICY, checkpoint=str(kept[6]))
    roads = drive_roads(lambda seed: policy, [ROAD])
    assert roads[0].num_steps >= 1
    assert roads[0].end_reason


def test_the_start_of_a_road_is_the_context_and_no_more() -> None:
    assert len(start_of_road(ROAD)) == 5


def test_drives_are_noted_once(tmp_path: Path) -> None:
    count: list[int] = []
    path = tmp_path / "drives.json"
    first = drive_once(path, RandomLearner, [ROAD], on_road=lambda: count.append(1))
    again = drive_once(path, RandomLearner, [ROAD], on_road=lambda: count.append(1))
    assert first == again
    assert len(count) == 2
    assert 0 <= first[0].route_completion <= 1
    with pytest.raises(InputError, match="other roads"):
        drive_once(path, RandomLearner, [ROAD + 1])
    path.write_text("[{}]")
    with pytest.raises(InputError, match="cannot be read"):
        drive_once(path, RandomLearner, [ROAD])


def test_pure_pursuit_drives_further_than_chance() -> None:
    good = drive_roads(lambda seed: load_policy("pure-pursuit"), [ROAD])
    bad = drive_roads(RandomLearner, [ROAD])
    assert good[0].route_completion > bad[0].route_completion


def test_figures_come_with_intervals_over_roads() -> None:
    above = [driven(1, 0.4), driven(2, 0.6, "off_road")]
    below = [driven(1, 0.5), driven(2, 0.75)]
    assert completion(above).value == pytest.approx(0.5)
    ratio = completion_ratio(above, below)
    assert ratio.value == pytest.approx(0.8)
    assert (ratio.low, ratio.high) == pytest.approx((0.8, 0.8))
    assert end_share(above, "off_road").value == 0.5


def test_imagined_collisions_count_for_the_learner() -> None:
    options = argparse.Namespace(weights="drive-tiny")
    settings = imagination_report.env_settings(imagination_report.IMAGINATION, options)
    env = gym.make("WorldDreamer-Drive-v0", scene=start_of_road(ROAD), **settings)
    _, info = env.reset(seed=0)
    assert info["metrics"]["collision"]["is_valid"]
    assert info["hazards"]["collision"]["is_valid"]
    assert imagination_report.env_settings(imagination_report.REFERENCE, options) == {}


@pytest.fixture
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both agents learn in the reference world, on small networks."""
    monkeypatch.setattr(imagination_report, "env_settings", lambda world, options: {})
    monkeypatch.setattr(
        imagination_report, "plan_of", lambda world, options: small_plan(num_steps=options.steps)
    )


def test_a_whole_small_run_writes_figures_curves_and_agents_and_goes_on(
    small_world: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["--out", str(out), "--steps", "16", "--evaluations", "2", "--num-roads", "2"]
    arguments += ["--first-road", str(ROAD), "--driver", "none", "--threads", "1"]
    imagination.main(arguments)
    found = json.loads((out / "imagination.json").read_text())
    for name in ("imagination", "reference", "random", "pure_pursuit"):
        assert 0 <= found[f"route_completion_{name}"] <= 1
        assert len(found[f"route_completion_{name}_interval"]) == 2
        assert f"off_road_rate_{name}" in found
    assert found["route_completion_ratio"] == pytest.approx(1.0)  # both learned the same in the same world
    assert found["targets"]["route_completion_ratio"]["is_reached"]
    assert found["completion_imagination_curve"]["step"] == [8, 16]
    assert found["roads"].startswith("validation roads")
    assert found["threads"] == 1
    noted = json.loads((out / "settings.json").read_text())
    assert noted["threads"] == 1
    assert list(noted["contents"]) == ["weights drive-tiny", "hazard head hazard-tiny"]
    assert found["contents"] == noted["contents"]
    page = (out / "imagination.html").read_text()
    assert page.count("data:image/png;base64") == 2
    assert (out / "learning-curve-completion.png").read_bytes().startswith(b"\x89PNG")
    agents = sorted(path.name for path in (out / "imagination").glob("*.zip"))
    assert agents == ["after-000008-steps.zip", "after-000016-steps.zip", "last.zip"]

    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.zip")}
    imagination.main(arguments)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.zip")} == times
    assert json.loads((out / "imagination.json").read_text()) == found
    with pytest.raises(InputError, match=r"--seed 0, this one has 7"):
        imagination.main([*arguments, "--seed", "7"])
    with pytest.raises(InputError, match=r"--threads 1, this one has 2"):
        imagination.main([*arguments[:-1], "2"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0"], "--steps must be at least 1"),
        (["--seed", "-1"], "--seed must not be negative"),
        (["--first-road", "5"], "are not held out"),
        (["--weights", "drive-tinny"], "no weights named 'drive-tinny'"),
        (["--weights", "driver-tiny"], "but a world-model is needed"),
        (["--driver", "driver-tinny"], "no weights named 'driver-tinny'"),
        (["--driver", "hazard-tiny"], "holds a hazard-head"),
        (["--steps", "1000000000"], "ask for fewer steps"),
    ],
)
def test_bad_arguments_are_explained_before_a_folder_is_made(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        imagination.main(["--out", str(tmp_path / "run"), *arguments])
    assert not (tmp_path / "run").exists()


def test_all_weights_of_a_run_are_noted() -> None:
    found = imagination_report.checked_contents(imagination.parse(["--quick", "--out", "x"]))
    assert list(found) == ["weights drive-tiny", "hazard head hazard-tiny", "driver driver-tiny"]
    assert all(len(contents) == 12 for contents in found.values())


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (
            {"steps": 8, "threads": 2, "contents": {"driver d": "aa"}},
            "other contents of driver d: a file was",
        ),
        (
            {"steps": 8, "threads": 2},
            "did not note the contents of driver d, so it may be of others; name a new",
        ),
        ({"steps": 8}, "of an earlier version, which did not note --threads; name a new folder"),
        ({"steps": 9}, "a run with --steps 9, this one has 8"),
    ],
)
def test_a_folder_of_other_weights_says_which(before: dict[str, Any], words: str, tmp_path: Path) -> None:
    with run_folder(tmp_path, before):
        pass
    now = {"steps": 8, "threads": 2, "contents": {"driver d": "bb"}}
    with pytest.raises(InputError, match=words), run_folder(tmp_path, now):
        pass


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        imagination.main(["--out", str(tmp_path)])
    with pytest.raises(InputError, match="is a file"):
        imagination.main(["--out", str(tmp_path / "notes.txt")])


def test_two_runs_into_one_folder_are_refused(tmp_path: Path) -> None:
    settings = {"steps": 8}
    refused = pytest.raises(InputError, match=r"another run \(process \d+\) writes into")
    with run_folder(tmp_path, settings), refused, run_folder(tmp_path, settings):
        pass
    with run_folder(tmp_path, settings):
        pass
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"), run_folder(tmp_path, settings):
        pass


def test_quick_is_a_smaller_run_on_published_roads() -> None:
    options = imagination.parse(["--quick", "--out", "x"])
    assert (options.steps, options.evaluations, options.num_roads) == (1024, 1, 6)
    assert options.first_road >= FIRST_HELD_OUT_SEED
    plan = imagination_report.plan_of("imagination", options)
    assert plan.env_id == "WorldDreamer-Drive-v0"
    assert plan.num_steps == 1024


def test_ctrl_c_ends_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.imagination_report.make_report", interrupted)
    with pytest.raises(SystemExit) as ended:
        imagination.main(["--quick", "--out", str(tmp_path / "run")])
    assert ended.value.code == 130
    assert "run the same command again to go on" in capsys.readouterr().err
