"""Policies that look, and what is wrong with each."""

import dataclasses

import numpy as np
import pytest
from helpers import DT_S

from benchmarks.looking_policies import (
    HastyLaneKeeping,
    LateIdm,
    LateLaneKeeping,
    OldPictures,
    TailgatingIdm,
)
from drivesim.dynamics import VehicleConfig
from policies.idm import IdmPolicy
from policies.lane_keeping import LaneKeepingPolicy


def info(speed_mps=8.0):
    return {
        "ego": {"speed_mps": speed_mps, "accel_mps2": 0.0, "yaw_rate_radps": 0.0},
        "route_ahead_m": np.stack([np.arange(1, 21) * 2.0, np.zeros(20)], axis=-1).astype(np.float32),
        "vehicle": dataclasses.asdict(VehicleConfig()),
        "dt_s": DT_S,
    }


def pictures(count):
    return [
        np.random.default_rng(seed).integers(0, 255, (128, 224, 3), dtype=np.uint8) for seed in range(count)
    ]


def test_old_pictures_come_late_and_in_order():
    late = OldPictures(0.5)
    shown = [int(late.next(np.full((1, 1, 3), index, dtype=np.uint8), DT_S)[0, 0, 0]) for index in range(6)]
    assert shown == [0, 0, 0, 0, 1, 2]


@pytest.mark.parametrize(
    ("late", "own", "num_late"), [(LateLaneKeeping, LaneKeepingPolicy, 3), (LateIdm, IdmPolicy, 6)]
)
def test_late_ones_do_what_the_old_picture_asked_for(late, own, num_late):
    seen = pictures(num_late + 2)
    delayed, timely = late(), own()
    for index, picture in enumerate(seen):
        expected = timely.select_action(seen[max(index - num_late, 0)], info())
        assert np.array_equal(delayed.select_action(picture, info()), expected)


@pytest.mark.parametrize("policy_class", [LateLaneKeeping, HastyLaneKeeping, LateIdm, TailgatingIdm])
def test_actions_are_within_the_limits(policy_class):
    policy, car = policy_class(), VehicleConfig()
    for picture in pictures(4):
        steering_rad, speed_mps = policy.select_action(picture, info())
        assert abs(steering_rad) <= car.max_steering_rad
        assert 0.0 <= speed_mps <= car.max_speed_mps


def test_the_tailgater_wants_less_room():
    bold, careful = TailgatingIdm(), IdmPolicy()
    arguments = {"gap_m": 8.0, "closing_mps": 1.0, "speed_mps": 10.0, "allowed_mps": 12.0}
    assert bold.following_accel_mps2(**arguments) > careful.following_accel_mps2(**arguments)
