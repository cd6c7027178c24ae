"""Roads: families, winding courses, routes."""

import numpy as np
import pytest

from drivesim.errors import InputError
from drivesim.reference.layout import MARGIN_M, resample
from drivesim.reference.roads import FAMILIES, build_road
from drivesim.reference.route import Route
from drivesim.reference.winding import LaneStyle, draw_course, lay_lane
from drivesim.scene.geometry import wrap_angle


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_smooth_route_clear_of_the_origin(family):
    for seed in range(4):
        layout = build_road(family, np.random.default_rng(seed))
        steps = np.hypot(*np.diff(layout.route_xy_m, axis=0).T)
        assert steps.min() > 0.5
        assert steps.max() < 1.3
        assert steps.sum() > 220.0
        turns = np.abs(np.diff(Route(layout.route_xy_m).heading_rad))
        assert turns.max() < 0.3  # no kink: a metre of route never turns more than a car can
        for lane in layout.network.lanes_list():
            for along_m in np.linspace(0, lane.length, 5):
                assert min(lane.position(along_m, 0.0)) >= MARGIN_M - 6.0


def test_route_is_inside_the_lanes():
    for seed in range(10):
        layout = build_road("winding", np.random.default_rng(seed))
        lanes = [layout.network.get_lane(index) for index in layout.route]
        for point in layout.route_xy_m[5:-5:7]:
            assert min(lane.distance(point) for lane in lanes) < 0.5


def test_roads_repeat_by_seed_and_differ_between_seeds():
    one, same, other = (build_road("winding", np.random.default_rng(seed)).route_xy_m for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or not np.array_equal(one, other)


def test_winding_roads_vary():
    layouts = [build_road("winding", np.random.default_rng(seed)) for seed in range(60)]
    assert {layout.is_loop for layout in layouts} == {True, False}
    assert {layout.right_hand for layout in layouts} == {True, False}
    assert len({layout.words for layout in layouts}) >= 4
    widths = [layout.network.lanes_list()[0].width for layout in layouts]
    assert 3.0 <= min(widths) < 3.3
    assert 3.7 < max(widths) <= 4.0
    tightest = [np.abs(np.diff(Route(layout.route_xy_m).heading_rad)).max() for layout in layouts]
    assert max(tightest) > 1 / 20
    assert min(tightest) < 1 / 25
    lefts = sum(
        Route(layout.route_xy_m).heading_rad[-1] > Route(layout.route_xy_m).heading_rad[0]
        for layout in layouts
    )
    assert 15 < lefts < 45  # bends to both sides


def test_lanes_join_without_a_step(rng):
    for is_loop in (True, False):
        pieces = draw_course(rng, is_loop=is_loop, min_radius_m=14.0, half_width_m=4.0)
        for style in (
            LaneStyle(offset_m=-2.0, width_m=4.0),
            LaneStyle(offset_m=2.0, width_m=4.0, is_forward=False),
        ):
            lanes = [lay_lane(piece, style, 10.0) for piece in pieces]
            lanes = lanes if style.is_forward else lanes[::-1]
            followers = lanes[1:] + (lanes[:1] if is_loop else [])
            for lane, following in zip(lanes, followers, strict=False):
                end, start = lane.position(lane.length, 0.0), following.position(0.0, 0.0)
                np.testing.assert_allclose(end, start, atol=1e-6)
                turn = wrap_angle(lane.heading_at(lane.length) - following.heading_at(0.0))
                assert abs(turn) < 1e-6


def test_opposite_lanes_run_side_by_side(rng):
    for piece in draw_course(rng, is_loop=True, min_radius_m=14.0, half_width_m=4.0):
        ours = lay_lane(piece, LaneStyle(offset_m=-1.5, width_m=3.0), 10.0)
        theirs = lay_lane(piece, LaneStyle(offset_m=1.5, width_m=3.0, is_forward=False), 10.0)
        for share in (0.1, 0.5, 0.9):
            along_m, left_m = ours.local_coordinates(theirs.position((1 - share) * theirs.length, 0.0))
            assert left_m == pytest.approx(3.0, abs=1e-6)
            turn = wrap_angle(ours.heading_at(along_m) - theirs.heading_at((1 - share) * theirs.length))
            assert abs(abs(turn) - np.pi) < 1e-6


def test_traffic_never_turns_round():
    layout = build_road("two-way", np.random.default_rng(0))
    assert layout.successors[("a", "b", 1)] == []
    crossing = build_road("intersection", np.random.default_rng(0))
    incoming = [
        index for index in crossing.successors if index[0].startswith("o") and index[1].startswith("ir")
    ]
    assert all(len(crossing.successors[index]) == 3 for index in incoming)


def test_unknown_family_is_refused():
    with pytest.raises(InputError, match=r"'moebius'.*winding"):
        build_road("moebius", np.random.default_rng(0))


def test_route_finds_places_along_and_beside_it():
    route = Route(resample(np.array([[0.0, 0.0], [50.0, 0.0], [50.0, 50.0]]), 1.0))
    place = route.locate(np.array([20.0, 3.0]), 15.0)
    assert (place.along_m, place.left_m) == pytest.approx((20.0, 3.0))
    place = route.locate(np.array([52.0, 30.0]), 75.0)
    assert (place.along_m, place.left_m) == pytest.approx((80.0, -2.0))
    np.testing.assert_allclose(route.point_at(110.0), [50.0, 60.0])
    assert route.heading_at(90.0) == pytest.approx(np.pi / 2)
    assert route.curvature_between(0.0, 30.0) == pytest.approx(0.0)
    assert route.curvature_between(40.0, 60.0) > 0.15


def test_a_route_that_repeats_is_searched_near_the_known_place():
    angles = np.linspace(0, 4 * np.pi, 400)
    route = Route(np.stack([30 * np.cos(angles), 30 * np.sin(angles)], axis=1))
    point = np.array([30.0, 0.0])
    assert route.locate(point, 180.0).along_m == pytest.approx(60 * np.pi, abs=1.0)
    assert route.locate(point, 5.0).along_m == pytest.approx(0.0, abs=1.0)
