"""The painted ground: coordinates, markings, mip levels, drivable area."""

from itertools import pairwise

import numpy as np
import pytest
from road_samples import OFFSET_M, curved_network, straight_network

from drivesim.reference.look import Look
from drivesim.reference.surface import paint_surface, sample_lanes

LOOK = Look(asphalt_rgb=(80.0, 80.0, 80.0), line_rgb=(240.0, 240.0, 240.0), edge_rgb=(240.0, 180.0, 40.0))


def _paint(network, look=LOOK, seed=0):
    return paint_surface(network, offset_m=OFFSET_M, look=look, rng=np.random.default_rng(seed))


def _color_at(surface, xy_m, level=0):
    column, row, _ = surface.level_from_global(level) @ np.array([*xy_m, 1.0])
    return surface.levels[level][round(row), round(column)].astype(int)


@pytest.fixture(scope="module")
def straight():
    return _paint(straight_network())


def test_markings_lie_on_the_lane_borders(straight):
    lower_edge, divider, middle = (
        OFFSET_M + np.array([51.0, -2.0]),
        OFFSET_M + np.array([1.5, 2.0]),
        OFFSET_M + np.array([55.0, 0.0]),
    )
    red, _, blue = _color_at(straight, lower_edge)
    assert red - blue > 80  # the yellow edge line
    assert _color_at(straight, divider).min() > 170  # first stripe starts with the lane
    assert (
        _color_at(straight, OFFSET_M + np.array([4.5 + LOOK.stripe_length_m, 2.0])).max() < 130
    )  # the gap after it
    assert _color_at(straight, middle).max() < 130


def test_x_grows_to_the_right_and_y_upwards(straight):
    far_side = OFFSET_M + np.array([100.0, 6.0])  # the upper edge line of lane 1
    wrong_side = OFFSET_M + np.array([100.0, -6.0])
    red, _, blue = _color_at(straight, far_side)
    assert red - blue > 80
    red, _, blue = _color_at(straight, wrong_side)
    assert red - blue < 80


def test_levels_halve_exactly_and_agree(straight):
    shapes = [level.shape[:2] for level in straight.levels]
    for finer, coarser in pairwise(shapes):
        assert (coarser[0] * 2, coarser[1] * 2) == finer
    place = OFFSET_M + np.array([120.0, -15.0])
    assert np.abs(_color_at(straight, place, 0) - _color_at(straight, place, 3)).max() < 20


def test_drivable_area_is_the_lanes(straight):
    inside = OFFSET_M + np.array([[1.0, 0.0], [100.0, -1.8], [150.0, 5.8], [199.0, 2.0]])
    outside = OFFSET_M + np.array([[100.0, -2.4], [100.0, 6.4], [-2.0, 0.0], [202.0, 0.0]])
    assert straight.drivable.contains(inside).all()
    assert not straight.drivable.contains(outside).any()


def test_curved_lanes_are_drivable_along_their_middle():
    network = curved_network()
    surface = _paint(network)
    lanes = sample_lanes(network, OFFSET_M)
    for lane in lanes:
        assert surface.drivable.contains(lane.at(0.0)[1:-1]).all()
        assert not surface.drivable.contains(lane.at(lane.width_m / 2 + 1.0)[5:-5]).any()
    arc = network.get_lane(("b", "c", 0))
    np.testing.assert_allclose(lanes[1].resampled(np.array([0.0]), 1.0)[0], arc.position(0.0, 1.0) + OFFSET_M)


def test_painting_repeats_with_the_seed():
    network = curved_network()
    first, again, other = _paint(network), _paint(network), _paint(network, seed=1)
    assert (first.levels[0] == again.levels[0]).all()
    assert (first.levels[0] != other.levels[0]).any()


def test_large_roads_stay_within_memory():
    surface = _paint(straight_network(length_m=1500.0))
    assert surface.levels[0].size < 3 * 12_000_000
    assert surface.drivable.contains(OFFSET_M + np.array([1400.0, 0.0]))


def test_roads_at_negative_coordinates_are_refused():
    with pytest.raises(ValueError, match="offset_m"):
        paint_surface(straight_network(), offset_m=np.zeros(2), look=LOOK, rng=np.random.default_rng(0))
