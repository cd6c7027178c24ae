"""Time to collision: made-by-hand meetings whose answer is known, and a slow projection to agree with."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon

from drivesim.dynamics import VehicleConfig
from drivesim.metrics.closeness import HORIZON_S, STANDING_MPS, time_to_collision
from drivesim.scene.types import EgoState

VEHICLE = VehicleConfig()
FRONT_M = VEHICLE.length_m - VEHICLE.rear_overhang_m  # of the rear axle
LENGTH_M, WIDTH_M = 4.0, 2.0


def ego(*, x_m=0.0, y_m=0.0, yaw_rad=0.0, speed_mps=10.0) -> EgoState:
    return EgoState(x_m=x_m, y_m=y_m, yaw_rad=yaw_rad, speed_mps=speed_mps)


def box(x_m, y_m=0.0, yaw_rad=0.0, speed_mps=0.0, length_m=LENGTH_M, width_m=WIDTH_M) -> list[float]:
    return [x_m, y_m, yaw_rad, speed_mps, length_m, width_m]


def seconds(*boxes, **kwargs) -> float:
    return time_to_collision(ego(**kwargs), VEHICLE, np.array(boxes, dtype=float).reshape(-1, 6))


def test_standing_car_ahead_is_reached_when_the_bumpers_meet():
    ahead_m = FRONT_M + 0.5 * LENGTH_M + 12.0
    assert seconds(box(ahead_m)) == pytest.approx(1.2)
    assert seconds(box(ahead_m, speed_mps=4.0)) == pytest.approx(2.0)
    assert seconds(box(ahead_m, yaw_rad=np.pi, speed_mps=10.0)) == pytest.approx(0.6)


def test_nothing_close_is_the_horizon():
    assert seconds() == HORIZON_S
    assert seconds(box(200.0)) == HORIZON_S
    assert seconds(box(20.0, speed_mps=12.0)) == HORIZON_S  # drives away
    assert seconds(box(20.0, y_m=3.5)) == HORIZON_S  # the next lane
    assert time_to_collision(ego(), VEHICLE, []) == HORIZON_S


def test_rear_axle_is_the_reference_point():
    long_tail = VehicleConfig(length_m=6.0, rear_overhang_m=2.4)
    same_front = time_to_collision(ego(), long_tail, [box(FRONT_M + 0.5 * LENGTH_M + 5.0)])
    assert same_front == pytest.approx(0.5)


def test_crossing_car_that_lies_between_two_instants_is_not_missed():
    """A narrow, fast one crosses the bonnet within less than a tenth of a second."""
    crossing = box(FRONT_M + 0.5, y_m=30.0, yaw_rad=-np.pi / 2, speed_mps=60.0, length_m=1.0, width_m=0.5)
    found = seconds(crossing, speed_mps=1.0)
    assert found == pytest.approx((30.0 - 0.5 * VEHICLE.width_m - 0.5) / 60.0)


def test_overlap_is_zero_and_standing_is_safe():
    assert seconds(box(3.0)) == 0.0
    assert seconds(box(3.0), speed_mps=0.9 * STANDING_MPS) == HORIZON_S
    assert seconds(box(10.0, yaw_rad=np.pi, speed_mps=15.0), speed_mps=0.0) == HORIZON_S
    assert seconds(box(3.0), speed_mps=2 * STANDING_MPS) == 0.0


def test_a_car_from_behind_does_not_count():
    assert seconds(box(-8.0, speed_mps=20.0)) == HORIZON_S
    assert seconds(box(-2.0)) == HORIZON_S  # it already touches the rear bumper
    assert seconds(box(2.0, y_m=2.5, yaw_rad=-0.5, speed_mps=12.0)) < HORIZON_S  # beside, steers into the ego


def test_the_nearest_of_many_counts():
    many = [box(30.0 + 5 * index, y_m=0.1 * index) for index in range(20)]
    assert seconds(*many) == pytest.approx(seconds(many[0]))


@pytest.mark.parametrize("wrong", [np.zeros((2, 5)), np.zeros(6), [box(np.nan)], [box(5.0, length_m=0.0)]])
def test_wrong_boxes_are_refused(wrong):
    with pytest.raises(ValueError, match="other cars"):
        time_to_collision(ego(), VEHICLE, wrong)


def _outline(x_m, y_m, yaw_rad, length_m, width_m) -> Polygon:
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [length_m / 2, width_m / 2]
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return Polygon(corners @ np.array([[cos, sin], [-sin, cos]]) + [x_m, y_m])


def _by_projection(state: EgoState, other, step_s=0.01) -> float:
    """Move both a little, look whether they overlap, and so on."""
    x_m, y_m, yaw_rad, speed_mps, length_m, width_m = other
    middle_m = 0.5 * VEHICLE.length_m - VEHICLE.rear_overhang_m
    for at_s in np.arange(0.0, HORIZON_S, step_s):
        way_m = state.speed_mps * at_s + middle_m
        mine = _outline(
            state.x_m + way_m * np.cos(state.yaw_rad),
            state.y_m + way_m * np.sin(state.yaw_rad),
            state.yaw_rad,
            VEHICLE.length_m,
            VEHICLE.width_m,
        )
        theirs = _outline(
            x_m + speed_mps * at_s * np.cos(yaw_rad),
            y_m + speed_mps * at_s * np.sin(yaw_rad),
            yaw_rad,
            length_m,
            width_m,
        )
        if mine.intersects(theirs):
            return float(at_s)
    return HORIZON_S


@pytest.mark.parametrize("seed", range(25))
def test_agrees_with_a_fine_projection(seed):
    rng = np.random.default_rng(seed)
    state = ego(x_m=5.0, y_m=-3.0, yaw_rad=rng.uniform(-3, 3), speed_mps=rng.uniform(1, 15))
    ahead_m, left_m = rng.uniform(1, 30), rng.uniform(-10, 10)
    cos, sin = np.cos(state.yaw_rad), np.sin(state.yaw_rad)
    other = box(
        5.0 + cos * ahead_m - sin * left_m,
        -3.0 + sin * ahead_m + cos * left_m,
        rng.uniform(-3, 3),
        rng.uniform(0, 15),
    )
    exact, slow = time_to_collision(state, VEHICLE, [other]), _by_projection(state, other)
    assert slow - 0.011 <= exact <= slow + 1e-9 or (slow == HORIZON_S and exact > HORIZON_S - 0.02)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    ahead_m=st.floats(0.5, 60),
    left_m=st.floats(-15, 15),
    yaw_rad=st.floats(-3.1, 3.1),
    speed_mps=st.floats(0, 20),
    turn_rad=st.floats(-3.1, 3.1),
)
def test_only_the_relative_place_matters(ahead_m, left_m, yaw_rad, speed_mps, turn_rad):
    here = seconds(box(ahead_m, left_m, yaw_rad, speed_mps))
    assert 0.0 <= here <= HORIZON_S
    cos, sin = np.cos(turn_rad), np.sin(turn_rad)
    moved = box(
        40.0 + cos * ahead_m - sin * left_m,
        -7.0 + sin * ahead_m + cos * left_m,
        yaw_rad + turn_rad,
        speed_mps,
    )
    there = seconds(moved, x_m=40.0, y_m=-7.0, yaw_rad=turn_rad)
    assert there == pytest.approx(here, abs=1e-6)
    mirrored = seconds(box(ahead_m, -left_m, -yaw_rad, speed_mps))
    assert mirrored == pytest.approx(here, abs=1e-6)
