"""The bicycle: forward and inverse agree, limits hold, turning left is positive."""

import numpy as np
import pytest

from drivesim import dynamics
from drivesim.dynamics import VehicleConfig, checked_actions, control_from_action, step, twists
from drivesim.errors import InputError
from drivesim.scene.types import EgoState

CAR = VehicleConfig()
START = EgoState(x_m=0.0, y_m=0.0, yaw_rad=0.0, speed_mps=6.0)
DT_S = 1 / 6


def drive(state, steering_rad, target_mps, count):
    states = [state]
    for _ in range(count):
        states.append(
            step(states[-1], control_from_action(steering_rad, target_mps, states[-1], CAR, DT_S), CAR, DT_S)
        )
    return states


def test_steering_left_turns_left():
    end = drive(START, 0.2, 6.0, 6)[-1]
    assert end.yaw_rad > 0.3
    assert end.y_m > 0.5


def test_arc_has_the_radius_of_the_bicycle():
    states = drive(START, 0.2, 6.0, 40)
    radius = CAR.wheelbase_m / np.tan(0.2)
    distances = [np.hypot(s.x_m, s.y_m - radius) for s in states]
    np.testing.assert_allclose(distances, radius, rtol=1e-9)


def test_inverse_of_forward_is_the_log(rng):
    states = [START]
    steerings, speeds = [], []
    for _ in range(30):
        steering = float(rng.uniform(-0.25, 0.25))
        control = control_from_action(steering, float(rng.uniform(3, 9)), states[-1], CAR, DT_S)
        states.append(step(states[-1], control, CAR, DT_S))
        steerings.append(steering)
        speeds.append(0.5 * (states[-1].speed_mps + states[-2].speed_mps))
    xy = np.array([[s.x_m, s.y_m] for s in states])
    speed, steering = dynamics.inverse(xy, np.array([s.yaw_rad for s in states]), DT_S, CAR)
    np.testing.assert_allclose(speed, speeds, atol=1e-9)
    np.testing.assert_allclose(steering, steerings, atol=1e-9)


def test_speed_changes_within_the_limits_and_never_below_zero():
    braking = drive(EgoState(x_m=0, y_m=0, yaw_rad=0, speed_mps=10), 0.0, 0.0, 12)
    drops = -np.diff([s.speed_mps for s in braking]) / DT_S
    assert drops.max() <= CAR.max_braking_mps2 + 1e-9
    assert braking[-1].speed_mps == 0.0
    rising = drive(START, 0.0, 20.0, 6)
    assert max(s.accel_mps2 for s in rising) <= CAR.max_accel_mps2 + 1e-9


def test_grip_limits_the_yaw_rate_at_speed():
    fast = drive(EgoState(x_m=0, y_m=0, yaw_rad=0, speed_mps=18), 0.5, 18.0, 3)[-1]
    assert fast.yaw_rate_radps * 18 == pytest.approx(CAR.max_lateral_accel_mps2)


def test_standing_car_does_not_turn():
    end = drive(EgoState(x_m=1, y_m=2, yaw_rad=0.3, speed_mps=0), 0.5, 0.0, 5)[-1]
    assert (end.x_m, end.y_m, end.yaw_rad) == (1, 2, pytest.approx(0.3))


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match=r"wheelbase_m.*-1"):
        VehicleConfig(wheelbase_m=-1)


def test_twists_follow_the_bicycle():
    straight, turning, braking = twists(checked_actions([(0.0, 8.0), (0.1, 8.0), (0.0, 0.0)]), 1 / 6)
    assert straight.tolist() == [8.0, 0.0]
    assert turning[1] == pytest.approx(8.0 * np.tan(0.1) / 2.8)
    assert 7.0 < braking[0] < 8.0
    before = twists(checked_actions([(0.5, 8.0)]), 1 / 6, num_before=2)
    assert before[:2].tolist() == [[8.0, 0.0], [8.0, 0.0]]
    assert len(before) == 3


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([], "at least one"),
        ([1.0, 2.0], "at least one"),
        ([(0.0, 8.0, 1.0)], "at least one"),
        ([(0.0, 8.0), (np.nan, 8.0)], "action 1 is"),
        ([(0.0, np.inf)], "action 0 is"),
        ([(0.0, 300.0)], "from 0 to 20 m/s"),
        ([(0.0, -1.0)], "from 0 to 20 m/s"),
        ([(1.5, 5.0)], "within 0.5 rad"),
        ([("left", "fast")], "rows of two numbers"),
    ],
)
def test_actions_that_no_car_can_follow_are_refused(actions, expected):
    with pytest.raises(InputError, match=expected):
        checked_actions(actions)


def test_twists_before_the_actions_are_kept_and_the_car_goes_on_at_their_speed():
    before = np.array([(5.0, 0.1), (6.0, 0.2)])
    found = twists(np.array([(0.0, 12.0)]), DT_S, num_before=2, before=before)
    assert found[:2].tolist() == before.tolist()
    assert 6.0 < found[2, 0] < 7.0
    assert twists(np.array([(0.0, 12.0)]), DT_S, num_before=2).tolist() == [[12.0, 0.0]] * 3
