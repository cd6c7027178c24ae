"""Reading drawn roads: the free way ahead and the lane, in several lights."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_roads import DrawnRoad

from drivesim.scene.types import front_camera
from policies.lane_vision import Lane, LaneTracker, read_lane
from policies.road_vision import FreeWay, free_way, pixels_of, read_at

LIGHTS = [{"light": 1.0}, {"light": 0.35}, {"light": 1.0, "haze_per_m": 0.015}]


def look(road: DrawnRoad) -> FreeWay:
    return free_way(road.picture(), road.way_m())


def test_ground_points_are_where_the_camera_sees_them() -> None:
    camera = front_camera()
    u, v = pixels_of(camera, np.array([[1.7 + 20.0, 2.0], [-5.0, 0.0]])).T
    assert u[0] == pytest.approx(112.0 - 160.0 * 2.0 / 20.0)
    assert v[0] == pytest.approx(54.0 + 160.0 * 1.5 / 20.0)
    assert np.isnan(u[1])


def test_colours_are_read_between_pixels_and_not_beside_the_picture() -> None:
    picture = np.zeros((4, 6, 3), dtype=np.uint8)
    picture[:, 3:] = 100
    colours = read_at(picture, np.array([[2.5, 2.0], [3.0, 2.0], [3.5, 2.0], [6.5, 2.0], [np.nan, 1.0]]))
    assert colours[:3, 0].tolist() == [0.0, 50.0, 100.0]
    assert np.isnan(colours[3:]).all()


@pytest.mark.parametrize("light", LIGHTS)
@pytest.mark.parametrize("curvature_1pm", [0.0, 0.02, -0.02])
def test_an_empty_road_is_free(light: dict[str, float], curvature_1pm: float) -> None:
    way = look(DrawnRoad(curvature_1pm=curvature_1pm, **light))
    assert not way.is_blocked
    assert way.distance_m == way.reach_m > 15.0


@pytest.mark.parametrize("light", LIGHTS)
@pytest.mark.parametrize("car_m", [7.0, 12.0, 20.0, 28.0])
def test_a_car_ahead_ends_the_free_way(light: dict[str, float], car_m: float) -> None:
    way = look(DrawnRoad(car_m=car_m, **light))
    assert way.is_blocked
    assert way.distance_m == pytest.approx(car_m, abs=0.5 + 0.12 * car_m)


def test_a_car_in_a_bend_is_seen_and_one_beside_the_way_is_not() -> None:
    bend = DrawnRoad(curvature_1pm=0.02, car_m=18.0)
    assert look(bend).distance_m == pytest.approx(18.0, abs=3.0)
    beside = DrawnRoad(offset_m=3.4, car_m=15.0, width_m=12.0, has_lines=False)
    straight_on = np.stack([np.arange(1, 21) * 2.0, np.zeros(20)], axis=-1)
    assert not free_way(beside.picture(), straight_on).is_blocked


def test_repaired_asphalt_is_no_obstacle() -> None:
    assert not look(DrawnRoad(patch_m=(9.0, 14.0))).is_blocked
    assert look(DrawnRoad(patch_m=(9.0, 14.0), car_m=20.0)).distance_m == pytest.approx(20.0, abs=3.0)


def test_a_way_that_leaves_the_picture_is_free_as_far_as_it_is_seen() -> None:
    turn = np.stack(
        [4.0 * np.sin(np.arange(1, 21) * 0.5), 4.0 * (1 - np.cos(np.arange(1, 21) * 0.5))], axis=-1
    )
    way = free_way(DrawnRoad().picture(), turn)
    assert not way.is_blocked
    assert np.isfinite(way.distance_m)


@pytest.mark.parametrize(
    "shape", [(0.0, 0.0, 0.0), (0.4, -0.03, 0.0), (-0.5, 0.05, 0.013), (0.2, 0.0, -0.026)]
)
@pytest.mark.parametrize("light", LIGHTS)
def test_a_lane_is_read(shape: tuple[float, float, float], light: dict[str, float]) -> None:
    offset_m, heading_rad, curvature_1pm = shape
    road = DrawnRoad(offset_m=offset_m, heading_rad=heading_rad, curvature_1pm=curvature_1pm, **light)
    lane = read_lane(road.picture())
    ahead_m = np.array([7.0, 12.0])
    assert lane.points(ahead_m)[:, 1] == pytest.approx(road.middle_m(ahead_m), abs=0.3)
    assert lane.width_m == pytest.approx(3.6, abs=0.35)
    assert lane.confidence > 0.6


def test_a_road_without_lines_is_read_by_its_edges() -> None:
    road = DrawnRoad(offset_m=0.5, has_lines=False)
    lane = read_lane(road.picture())
    assert lane.points(np.array([8.0]))[0, 1] == pytest.approx(0.5, abs=0.4)
    assert lane.confidence > 0.0


def test_nothing_to_see_gives_no_confidence_and_what_was_expected() -> None:
    grey = np.full((128, 224, 3), 90, dtype=np.uint8)
    lane = read_lane(grey, expected=Lane(offset_m=0.3, confidence=0.5))
    assert lane.confidence == 0.0
    assert lane.offset_m == pytest.approx(0.3, abs=0.06)


def test_a_lane_moves_with_the_car() -> None:
    lane = Lane(offset_m=0.0, heading_rad=0.0, curvature_1pm=0.02)
    after = lane.after(10.0, 0.2)  # along the lane
    assert after.offset_m == pytest.approx(0.0, abs=0.02)
    assert after.heading_rad == pytest.approx(0.0, abs=0.01)
    assert Lane(offset_m=1.0, heading_rad=-0.1).after(5.0, 0.0).offset_m == pytest.approx(0.5)


def test_the_tracker_stays_on_its_lane_while_pictures_fail() -> None:
    tracker, road = LaneTracker(), DrawnRoad(offset_m=0.4)
    for _ in range(3):
        tracker.update(road.picture(), distance_m=0.0, turned_rad=0.0)
    sure = tracker.lane.confidence
    blank = np.full((128, 224, 3), 90, dtype=np.uint8)
    for _ in range(3):
        tracker.update(blank, distance_m=1.0, turned_rad=0.0)
    assert tracker.lane.offset_m == pytest.approx(0.4, abs=0.15)
    assert tracker.lane.confidence < sure
