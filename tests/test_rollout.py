"""Episodes by configuration, policies by name, and the record of a rollout."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from helpers import FakeWorldModel, make_scene

import drivesim  # noqa: F401  (registers the environments)
from drivesim.errors import InputError
from drivesim.rollout import EpisodeConfig, Policy, load_policy, make_env, rollout
from policies.constant import ConstantPolicy

STEP_KEYS = {
    "step", "action", "ego", "speed_mps", "reward", "rewards", "confidence", "metrics", "log_index",
    "terminated", "truncated", "end_reason",
}  # fmt: skip


def hand_made(**episode: object) -> gym.Env:
    """Return the learned environment over the hand-made scene."""
    config = EpisodeConfig(**episode)  # type: ignore[arg-type]
    return make_env(config, scene=make_scene(24), world_model=FakeWorldModel())


def test_rollout_records_every_step_as_json() -> None:
    told: list[int] = []
    result = rollout(hand_made(), ConstantPolicy(), seed=3, num_steps=5, on_step=told.append)
    assert told == [1, 2, 3, 4, 5]
    record = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert [step["step"] for step in record["steps"]] == [1, 2, 3, 4, 5]
    assert set(record["steps"][0]) == STEP_KEYS
    assert record["steps"][0]["action"].keys() == {"steering_rad", "target_speed_mps"}
    assert record["summary"]["num_steps"] == 5
    assert record["seed"] == 3
    assert record["policy"] == "ConstantPolicy"
    for step in record["steps"]:
        assert step["reward"] == pytest.approx(sum(step["rewards"].values()))


def test_rollout_keeps_imagined_and_recorded_frames_side_by_side() -> None:
    scene = make_scene(6)
    env = gym.make("WorldDreamer-Drive-v0", scene=scene, world_model=FakeWorldModel(), off_road_limit=1.0)
    scene_of_env = env.get_wrapper_attr("scene")
    result = rollout(env, ConstantPolicy(), seed=0, num_steps=4)
    assert len(result.frames) == len(result.log_frames) == len(result.steps) + 1
    assert np.array_equal(result.frames[0], scene.frames[3])
    assert np.array_equal(result.log_frames[1], scene_of_env.frames[4])
    for record, log_frame in zip(result.steps, result.log_frames[1:], strict=True):
        assert (log_frame is not None) == (record.log_index < len(scene))


def test_equal_seeds_give_equal_rollouts_and_other_seeds_do_not() -> None:
    first, second, other = (rollout(hand_made(), ConstantPolicy(), seed=s, num_steps=6) for s in (1, 1, 2))
    assert first.to_json() == second.to_json()
    assert np.array_equal(first.frames, second.frames)
    assert not np.array_equal(first.frames, other.frames)


def test_time_limit_comes_from_the_horizon() -> None:
    result = rollout(hand_made(horizon=4), ConstantPolicy(target_speed_mps=2.0), seed=0)
    assert len(result.steps) == 4
    assert result.end_reason == "time_limit"
    assert result.steps[-1].truncated


def test_a_rollout_needs_a_step() -> None:
    with pytest.raises(InputError, match="at least one step, got 0"):
        rollout(hand_made(), ConstantPolicy(), num_steps=0)


@pytest.mark.parametrize(
    "field", [{"horizon": 0}, {"context_frames": 0}, {"rate_hz": -1.0}, {"off_road_limit": 2.0}]
)
def test_episodes_that_make_no_sense_are_refused(field: dict[str, float]) -> None:
    name, value = next(iter(field.items()))
    with pytest.raises(InputError, match=f"{name}.*{value}"):
        EpisodeConfig(**field)  # type: ignore[arg-type]


def test_unknown_environment_names_the_ones_there_are() -> None:
    with pytest.raises(InputError, match="WorldDreamer-Drive-v0"):
        make_env(EpisodeConfig(env_id="WorldDreamer-Drve-v0"))


def test_load_policy_by_short_name_with_arguments() -> None:
    policy = load_policy("constant", steering_rad=0.1)
    assert isinstance(policy, ConstantPolicy)
    assert policy.steering_rad == 0.1
    for name in ("constant", "replay", "pure-pursuit"):
        assert isinstance(load_policy(name), Policy)


def test_load_policy_from_a_users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_driving.py").write_text(
        "class Mine:\n    def select_action(self, observation, info):\n        return info['log_action']\n"
        "class Empty:\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert type(load_policy("my_driving:Mine")).__name__ == "Mine"
    with pytest.raises(InputError, match="no select_action"):
        load_policy("my_driving:Empty")
    with pytest.raises(InputError, match="no class 'Mime'; did you mean Mine"):
        load_policy("my_driving:Mime")


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("pure-persuit", {}, "did you mean pure-pursuit"),
        ("zzz", {}, "choose from constant, replay, pure-pursuit"),
        ("no_such_module_here:Policy", {}, "cannot import.*no_such_module_here"),
        ("constant", {"gain": 2}, "gain"),
        (":", {}, "there is no policy ':'"),
    ],
)
def test_load_policy_says_what_is_wrong(name: str, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_policy(name, **kwargs)
