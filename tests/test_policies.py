"""Policies act by the info of an environment; here the environment imagines with a fake world model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from helpers import FakeWorldModel, make_scene

import drivesim  # noqa: F401  (registers the environments)
from drivesim.dynamics import VehicleConfig
from drivesim.rollout import Rollout, load_policy, rollout
from policies.constant import ConstantPolicy
from policies.pure_pursuit import PurePursuitPolicy
from policies.replay import ReplayPolicy

PICTURE = np.zeros((128, 224, 3), dtype=np.uint8)


def drive(policy: Any, *, num_frames: int = 48, steering_rad: float = 0.1, **settings: Any) -> Rollout:
    """Drive the hand-made scene to its end."""
    scene = make_scene(num_frames, steering_rad=steering_rad)
    env = gym.make("WorldDreamer-Drive-v0", scene=scene, world_model=FakeWorldModel(), **settings)
    return rollout(env, policy, seed=0)


def info_ahead(route_ahead_m: np.ndarray, *, speed_mps: float = 10.0) -> dict[str, Any]:
    """Return the part of an info that pure pursuit reads."""
    return {
        "route_ahead_m": route_ahead_m,
        "ego": {"speed_mps": speed_mps, "accel_mps2": 0.0},
        "vehicle": asdict(VehicleConfig()),
        "dt_s": 1 / 6,
    }


def arc(radius_m: float, *, spacing_m: float = 2.0) -> np.ndarray:
    """Return (20, 2) points of an arc that starts straight ahead; a negative radius bends right."""
    angle = np.arange(1, 21) * spacing_m / radius_m
    return np.stack([radius_m * np.sin(angle), radius_m * (1 - np.cos(angle))], axis=-1)


def test_constant_holds_wheel_and_speed() -> None:
    info = {"ego": {"speed_mps": 7.5}}
    assert ConstantPolicy().select_action(PICTURE, info) == pytest.approx([0.0, 7.5])
    fixed = ConstantPolicy(steering_rad=0.2, target_speed_mps=3.0)
    assert fixed.select_action(PICTURE, info) == pytest.approx([0.2, 3.0])


def test_replay_follows_the_log_to_centimetres() -> None:
    result = drive(ReplayPolicy())
    deviations = [record.metrics["log_deviation_m"]["value"] for record in result.steps]
    assert len(deviations) >= 40
    assert max(deviations) < 0.05
    assert result.end_reason == "goal"


def test_replay_goes_straight_on_after_the_log() -> None:
    info = {"is_log_valid": False, "log_action": np.zeros(2, np.float32), "ego": {"speed_mps": 4.0}}
    assert ReplayPolicy().select_action(PICTURE, info) == pytest.approx([0.0, 4.0])


@pytest.mark.parametrize("steering_rad", [0.12, -0.12])
def test_pure_pursuit_stays_on_a_bending_road(steering_rad: float) -> None:
    result = drive(PurePursuitPolicy(), num_frames=60, steering_rad=steering_rad)
    assert result.end_reason == "goal"
    assert max(abs(record.metrics["lateral_error_m"]["value"]) for record in result.steps) < 0.5
    assert np.mean([record.metrics["comfort"]["value"] for record in result.steps]) > 0.95


@pytest.mark.parametrize("radius_m", [20.0, -20.0, 60.0])
def test_pure_pursuit_steers_the_arc_of_the_route(radius_m: float) -> None:
    policy = PurePursuitPolicy()
    steering = float(policy.select_action(PICTURE, info_ahead(arc(radius_m)))[0])
    assert steering == pytest.approx(np.arctan(VehicleConfig().wheelbase_m / radius_m), rel=0.05)


def test_pure_pursuit_slows_in_bends_and_speeds_up_on_straights() -> None:
    straight = np.stack([np.arange(1, 21) * 2.0, np.zeros(20)], axis=-1)
    policy = PurePursuitPolicy(cruise_speed_mps=12.0)
    assert policy.select_action(PICTURE, info_ahead(straight))[1] > 10.0
    assert policy.select_action(PICTURE, info_ahead(arc(15.0)))[1] < 10.0
    bend_far_ahead = np.concatenate(
        [straight[:15], straight[14] + np.cumsum(np.tile([0.5, 1.9], (5, 1)), axis=0)]
    )
    late = policy.select_action(PICTURE, info_ahead(bend_far_ahead, speed_mps=12.0))[1]
    assert late < 12.0


def test_pure_pursuit_drives_the_car_of_the_environment() -> None:
    straight = np.stack([np.arange(1, 21) * 2.0, np.zeros(20)], axis=-1)
    policy, info = PurePursuitPolicy(), info_ahead(straight, speed_mps=7.5)
    info["vehicle"]["max_speed_mps"] = 7.6
    assert policy.select_action(PICTURE, info)[1] == pytest.approx(7.6)
    info = info_ahead(arc(30.0))
    info["vehicle"]["wheelbase_m"] = 4.0
    assert policy.select_action(PICTURE, info)[0] == pytest.approx(np.arctan(4.0 / 30.0), rel=0.05)
    slow_steps = {**info_ahead(straight, speed_mps=5.0), "dt_s": 0.5}
    assert policy.select_action(PICTURE, slow_steps)[1] == pytest.approx(5.0 + 1.5 * 0.5)


def test_pure_pursuit_keeps_to_a_slow_car() -> None:
    result = drive(PurePursuitPolicy(), vehicle=VehicleConfig(max_speed_mps=8.0))
    assert max(record.action["target_speed_mps"] for record in result.steps) <= 8.0 + 1e-5


@pytest.mark.parametrize("name", ["constant", "replay", "pure-pursuit"])
def test_policies_stay_in_the_action_space_on_any_route(name: str) -> None:
    policy = load_policy(name)
    env = gym.make("WorldDreamer-Drive-v0", scene=make_scene(8), world_model=FakeWorldModel())
    _, info = env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(30):
        info["route_ahead_m"] = np.cumsum(rng.normal(0, 3, (20, 2)), axis=0).astype(np.float32)
        info["ego"].update(speed_mps=float(rng.uniform(0, 20)), accel_mps2=float(rng.uniform(-8, 4)))
        action = policy.select_action(PICTURE, info)
        assert action.dtype == np.float32
        assert env.action_space.contains(action)
