"""Policies act by the info of an environment; here the environment imagines with a fake world model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from drawn_roads import DrawnRoad
from helpers import FakeWorldModel, make_scene

import drivesim  # noqa: F401  (registers the environments)
from drivesim import dynamics
from drivesim.dynamics import VehicleConfig
from drivesim.errors import InputError
from drivesim.rollout import Rollout, load_policy, make_policy, rollout
from drivesim.scene.types import EgoState
from policies.blind import BlindPolicy
from policies.constant import ConstantPolicy
from policies.idm import GapTracker, IdmPolicy
from policies.lane_keeping import LaneKeepingPolicy
from policies.late_steering import LateSteeringPolicy
from policies.left_drifting import LeftDriftingPolicy
from policies.oscillating import OscillatingPolicy
from policies.pure_pursuit import PurePursuitPolicy
from policies.random_actions import RandomPolicy
from policies.reckless import RecklessPolicy
from policies.replay import ReplayPolicy
from policies.timid import TimidPolicy

WITHOUT_WEIGHTS = (
    "constant", "replay", "pure-pursuit", "idm", "lane-keeping", "timid", "reckless", "late-steering",
    "oscillating", "left-drifting", "blind", "random",
)  # fmt: skip
STRAIGHT = np.stack([np.arange(1, 21) * 2.0, np.zeros(20)], axis=-1)
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


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_policies_stay_in_the_action_space_on_any_route(name: str) -> None:
    policy = make_policy(name, seed=1)
    env = gym.make("WorldDreamer-Drive-v0", scene=make_scene(8), world_model=FakeWorldModel())
    _, info = env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(30):
        info["route_ahead_m"] = np.cumsum(rng.normal(0, 3, (20, 2)), axis=0).astype(np.float32)
        info["ego"].update(speed_mps=float(rng.uniform(0, 20)), accel_mps2=float(rng.uniform(-8, 4)))
        action = policy.select_action(PICTURE, info)
        assert action.dtype == np.float32
        assert env.action_space.contains(action)


def offsets_m(result: Rollout) -> np.ndarray:
    return np.array([record.metrics["lateral_error_m"]["value"] for record in result.steps])


def wheels_rad(result: Rollout) -> np.ndarray:
    return np.array([record.action["steering_rad"] for record in result.steps])


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_an_episode_is_the_same_for_a_seed(name: str) -> None:
    first, second = (drive(make_policy(name, seed=4), num_frames=12, off_road_limit=1.0) for _ in range(2))
    assert first.to_json() == second.to_json()


def test_random_actions_are_held_and_differ_between_seeds() -> None:
    info = info_ahead(STRAIGHT)
    policy = RandomPolicy(seed=1, hold_s=0.5)
    actions = np.array([policy.select_action(PICTURE, info) for _ in range(9)])
    assert (actions[:3] == actions[0]).all()
    assert (actions[3:6] == actions[3]).all()
    assert not np.allclose(actions[0], actions[3])
    assert not np.allclose(actions[0], RandomPolicy(seed=2).select_action(PICTURE, info))


def test_late_steering_lags_by_its_delay() -> None:
    bend, straight = info_ahead(arc(20.0)), info_ahead(STRAIGHT)
    wanted = float(PurePursuitPolicy().select_action(PICTURE, bend)[0])
    policy = LateSteeringPolicy(delay_s=0.5)
    wheels = [float(policy.select_action(PICTURE, info)[0]) for info in [straight] * 2 + [bend] * 5]
    assert wheels[:5] == pytest.approx([0.0] * 5)
    assert wheels[5:] == pytest.approx([wanted] * 2)
    assert policy.select_action(PICTURE, bend)[1] == PurePursuitPolicy().select_action(PICTURE, bend)[1]
    punctual, late = (
        drive(p, num_frames=60) for p in (LateSteeringPolicy(delay_s=0.0), LateSteeringPolicy())
    )
    assert np.abs(offsets_m(late)).max() > 2.0 * np.abs(offsets_m(punctual)).max()


def test_oscillating_swings_with_its_period() -> None:
    policy = OscillatingPolicy(amplitude_rad=0.1, period_s=1.0)
    wheels = [float(policy.select_action(PICTURE, info_ahead(STRAIGHT))[0]) for _ in range(12)]
    assert max(wheels) == pytest.approx(0.1 * np.sin(np.pi / 3), abs=1e-6)
    assert wheels[:6] == pytest.approx(wheels[6:], abs=1e-6)
    result = drive(OscillatingPolicy(), num_frames=60)
    assert np.mean([record.metrics["comfort"]["value"] for record in result.steps]) < 0.93


def test_left_drifting_drives_left_of_the_route() -> None:
    result = drive(LeftDriftingPolicy(), num_frames=60, steering_rad=0.0)
    assert offsets_m(result)[-20:].min() > 0.4


def test_blind_ignores_the_bend() -> None:
    result = drive(BlindPolicy(), num_frames=60, steering_rad=0.1)
    assert not wheels_rad(result).any()
    assert result.end_reason == "off_road"


def test_timid_is_slower_and_reckless_faster_than_pure_pursuit() -> None:
    policies = (TimidPolicy(), PurePursuitPolicy(), RecklessPolicy())
    timid, normal, reckless = (drive(p, num_frames=60, steering_rad=0.03) for p in policies)
    assert len(timid.steps) > len(normal.steps) > len(reckless.steps)
    assert max(record.speed_mps for record in reckless.steps) > 12.0


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("random", {"hold_s": 0.0}), ("late-steering", {"delay_s": -1.0}), ("oscillating", {"period_s": 0.0})],
)
def test_settings_that_make_no_policy_are_refused(name: str, kwargs: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(kwargs))} must .*, got"):
        load_policy(name, **kwargs)


def approach(policy: Any, *, tail_m: float, speed_mps: float, tail_speed_mps: float = 0.0) -> list[float]:
    """Drive straight towards the tail of a car in drawn pictures for 6 s; return the gaps, bumper to bumper."""
    config, gaps = VehicleConfig(), []
    ego = EgoState(x_m=0.0, y_m=0.0, yaw_rad=0.0, speed_mps=speed_mps)
    for _ in range(36):
        info = info_ahead(STRAIGHT, speed_mps=ego.speed_mps)
        info["ego"]["accel_mps2"] = ego.accel_mps2
        picture = DrawnRoad(car_m=tail_m - ego.x_m).picture()
        steering_rad, wanted_mps = policy.select_action(picture, info)
        control = dynamics.control_from_action(float(steering_rad), float(wanted_mps), ego, config, 1 / 6)
        ego = dynamics.step(ego, control, config, 1 / 6)
        tail_m += tail_speed_mps / 6
        gaps.append(tail_m - ego.x_m - (config.length_m - config.rear_overhang_m))
    return gaps


def test_idm_stops_behind_a_standing_car() -> None:
    gaps = approach(IdmPolicy(), tail_m=38.0, speed_mps=9.0)
    assert min(gaps) > 0.5
    assert gaps[-1] < 8.0
    assert gaps[-4] - gaps[-1] < 1.0  # a walking pace at most
    assert min(approach(PurePursuitPolicy(), tail_m=38.0, speed_mps=9.0)) < 0.0


def test_idm_follows_a_slower_car_and_drives_freely_without_one() -> None:
    gaps = approach(IdmPolicy(), tail_m=22.0, speed_mps=9.0, tail_speed_mps=5.0)
    assert min(gaps) > 2.0
    assert gaps[-1] < 25.0
    info, picture = info_ahead(STRAIGHT, speed_mps=6.0), DrawnRoad().picture()
    assert IdmPolicy().select_action(picture, info)[1] > 6.0


def test_a_gap_is_followed_through_noise_and_gaps_in_sight() -> None:
    rng, tracker = np.random.default_rng(0), GapTracker()
    for step in range(24):
        true_m = 30.0 - 4.0 * step / 6
        tracker.update(None if step % 6 == 5 else true_m + rng.normal(0, 0.3), 8.0, 1 / 6)
    assert tracker.gap_m == pytest.approx(true_m, abs=1.0)
    assert tracker.closing_mps == pytest.approx(4.0, abs=1.5)
    for _ in range(3):
        tracker.update(None, 8.0, 1 / 6)
    assert tracker.gap_m is None


def test_a_new_obstacle_is_taken_to_stand() -> None:
    tracker = GapTracker()
    tracker.update(25.0, 9.0, 1 / 6)
    assert tracker.closing_mps == 9.0
    tracker.update(10.0, 9.0, 1 / 6)  # nearer than it can have come: another one
    assert tracker.gap_m == 10.0


def test_lane_keeping_drives_by_the_picture_and_not_by_the_route() -> None:
    wrong_way = info_ahead(arc(-15.0), speed_mps=6.0)
    wrong_way["ego"]["yaw_rate_radps"] = 0.0
    left = LaneKeepingPolicy().select_action(DrawnRoad(curvature_1pm=0.03).picture(), wrong_way)
    right = LaneKeepingPolicy().select_action(DrawnRoad(curvature_1pm=-0.03).picture(), wrong_way)
    assert left[0] == pytest.approx(np.arctan(2.8 * 0.03), abs=0.03)
    assert right[0] == pytest.approx(-np.arctan(2.8 * 0.03), abs=0.03)


def test_lane_keeping_finds_back_to_the_middle_and_slows_down_without_a_lane() -> None:
    policy, config = LaneKeepingPolicy(), VehicleConfig()
    ego = EgoState(x_m=0.0, y_m=0.6, yaw_rad=0.0, speed_mps=8.0)
    for _ in range(18):
        info = info_ahead(STRAIGHT, speed_mps=ego.speed_mps)
        info["ego"].update(accel_mps2=ego.accel_mps2, yaw_rate_radps=ego.yaw_rate_radps)
        picture = DrawnRoad(offset_m=-ego.y_m, heading_rad=-ego.yaw_rad).picture()
        steering_rad, wanted_mps = policy.select_action(picture, info)
        control = dynamics.control_from_action(float(steering_rad), float(wanted_mps), ego, config, 1 / 6)
        ego = dynamics.step(ego, control, config, 1 / 6)
    assert abs(ego.y_m) < 0.25
    info["ego"]["speed_mps"] = 8.0
    speeds = [policy.select_action(np.full_like(PICTURE, 90), info)[1] for _ in range(8)]
    assert speeds[-1] < 8.0
