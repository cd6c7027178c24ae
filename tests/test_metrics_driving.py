"""Each metric: with the fault, without it, and where it cannot be measured; and the route below them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import DT_S, drivable_along, make_scene

from drivesim.dynamics import VehicleConfig
from drivesim.errors import InputError
from drivesim.metrics import driving
from drivesim.scene.route import Route, route_of
from drivesim.scene.types import Command, EgoState

VEHICLE = VehicleConfig()
STRAIGHT = Route([(0.0, 0.0), (100.0, 0.0)])
EGO = EgoState(x_m=10.0, y_m=0.0, yaw_rad=0.0, speed_mps=6.0)


def driven_step(current: EgoState, **facts: object) -> driving.DrivenStep:
    """Return the step from ``EGO`` to ``current`` along the straight road."""
    return driving.DrivenStep(
        previous=EGO,
        current=current,
        dt_s=DT_S,
        previous_route=STRAIGHT.project((EGO.x_m, EGO.y_m), EGO.yaw_rad),
        current_route=STRAIGHT.project((current.x_m, current.y_m), current.yaw_rad),
        route_length_m=STRAIGHT.length_m,
        vehicle=VEHICLE,
        **facts,  # type: ignore[arg-type]
    )


def test_progress_is_signed_metres_along_the_route() -> None:
    ahead = driving.measure(driven_step(replace(EGO, x_m=12.0, y_m=1.0)))
    assert ahead["progress_m"].value == pytest.approx(2.0)
    assert ahead["lateral_error_m"].value == pytest.approx(1.0)  # left is positive
    back = driving.measure(driven_step(replace(EGO, x_m=9.0)))
    assert back["progress_m"].value == pytest.approx(-1.0)
    assert back["route_completion"].value == pytest.approx(0.09)


def test_heading_error_is_left_positive_and_wrapped() -> None:
    left = driving.measure(driven_step(replace(EGO, yaw_rad=0.3)))["heading_error_rad"].value
    assert left == pytest.approx(0.3)
    turned = driving.measure(driven_step(replace(EGO, yaw_rad=2 * np.pi - 0.2)))["heading_error_rad"].value
    assert turned == pytest.approx(-0.2)


def test_off_road_is_the_share_of_the_footprint_outside() -> None:
    road = drivable_along(np.array([(x, 0.0) for x in range(60)]), half_width_m=3.0, resolution_m=0.25)
    assert driving.off_road(replace(EGO, x_m=30.0), road, VEHICLE).value == 0.0
    partly = driving.off_road(replace(EGO, x_m=30.0, y_m=3.0), road, VEHICLE)
    assert 0.3 <= partly.value < 0.7
    assert driving.off_road(replace(EGO, x_m=30.0, y_m=8.0), road, VEHICLE).value == 1.0
    assert not driving.off_road(EGO, None, VEHICLE).is_valid


def test_without_a_map_the_picture_tells_whether_the_car_left_the_road() -> None:
    ego = EgoState(x_m=0.0, y_m=0.0, yaw_rad=0.0, speed_mps=8.0)
    assert not driving.off_road(ego, None, VehicleConfig()).is_valid
    for seen in (True, False):
        result = driving.measure(driven_step(ego, is_off_road=seen, drivable=None))["off_road"]
        assert (result.value, result.is_valid) == (float(seen), True)


def test_footprint_spans_the_car_around_its_rear_axle() -> None:
    points = driving.footprint(replace(EGO, x_m=0.0), VEHICLE)
    assert points[:, 0].min() == pytest.approx(-VEHICLE.rear_overhang_m)
    assert points[:, 0].max() == pytest.approx(VEHICLE.length_m - VEHICLE.rear_overhang_m)
    assert np.ptp(points[:, 1]) == pytest.approx(VEHICLE.width_m)


@pytest.mark.parametrize(
    ("change", "num_broken"),
    [
        ({}, 0),
        ({"accel_mps2": 0.6}, 0),
        ({"accel_mps2": -5.0}, 3),  # braking, longitudinal and total jerk
        ({"yaw_rate_radps": 1.0}, 4),  # yaw rate and acceleration, lateral acceleration, total jerk
    ],
)
def test_comfort_counts_kept_limits(change: dict[str, float], num_broken: int) -> None:
    result = driving.comfort(EGO, replace(EGO, **change), dt_s=DT_S)
    assert result.value == pytest.approx(1.0 - num_broken / 6)


def test_collision_and_log_deviation_say_when_they_are_not_measurable() -> None:
    unknown = driving.measure(driven_step(EGO))
    assert not unknown["collision"].is_valid
    assert not unknown["log_deviation_m"].is_valid
    known = driving.measure(driven_step(EGO, is_collision=True, log_xy_m=np.array([13.0, 4.0])))
    assert known["collision"].as_dict() == {"value": 1.0, "is_valid": True}
    assert known["log_deviation_m"].value == pytest.approx(5.0)
    assert driving.measure(driven_step(EGO, is_collision=False))["collision"].value == 0.0


def test_speeding_and_time_to_collision_need_a_limit_and_a_world_that_can_tell() -> None:
    ego = EgoState(x_m=0.0, y_m=0.0, yaw_rad=0.0, speed_mps=14.0)
    unknown = driving.measure(driven_step(ego))
    assert not unknown["speed_over_limit_mps"].is_valid
    assert not unknown["time_to_collision_s"].is_valid
    known = driving.measure(driven_step(ego, speed_limit_mps=12.0, time_to_collision_s=1.5))
    assert known["speed_over_limit_mps"].value == pytest.approx(2.0)
    assert known["time_to_collision_s"].value == pytest.approx(1.5)
    assert driving.measure(driven_step(ego, speed_limit_mps=20.0))["speed_over_limit_mps"].value == 0.0


def test_route_that_repeats_itself_is_told_apart_by_the_last_place() -> None:
    square = np.array([(0, 0), (40, 0), (40, 40), (0, 40)], dtype=float)
    laps = Route(np.concatenate([square, square, square[:1]]))
    first = laps.project((20.0, 0.5), 0.0)
    assert first.distance_m == pytest.approx(20.0)
    assert laps.project((20.0, 0.5), 0.0, near_m=178.0).distance_m == pytest.approx(180.0)


def test_route_is_continued_straight_beyond_its_ends() -> None:
    assert STRAIGHT.points_at([-5.0, 50.0, 110.0]) == pytest.approx(np.array([(-5, 0), (50, 0), (110, 0)]))


def test_route_commands_follow_sharp_turns_only() -> None:
    corner = Route([(0.0, 0.0), (50.0, 0.0), (50.0, 50.0)])
    assert corner.command_at(0.0) is Command.FOLLOW
    assert corner.command_at(40.0) is Command.LEFT
    assert Route([(0.0, 0.0), (50.0, 0.0), (50.0, -50.0)]).command_at(40.0) is Command.RIGHT


def test_route_of_a_standing_car_goes_straight_ahead() -> None:
    scene = make_scene(8)
    scene.route_xy_m, scene.xy_m = None, np.tile(scene.xy_m[:1], (8, 1))
    route = route_of(scene)
    assert route.length_m == pytest.approx(100.0)
    assert route.project(scene.xy_m[0], 0.0).lateral_m == pytest.approx(0.0)


@pytest.mark.parametrize("points", [[(1.0, 1.0)], [(1.0, 1.0), (1.0, 1.0)], [(0.0, 0.0), (np.nan, 1.0)]])
def test_degenerate_routes_are_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(InputError, match="route"):
        Route(points)
