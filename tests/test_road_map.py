"""What a map says is seen: distances to the road's edge, laid out before the camera, and places that move."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import make_scene

from drivesim import dynamics
from drivesim.dynamics import VehicleConfig
from drivesim.scene.road_map import (
    EDGE_REACH_M,
    PACKED_DIM,
    UNKNOWN,
    VIEW_DIM,
    ground_of,
    packed_road_views,
    road_map,
    road_view,
)
from drivesim.scene.types import Control, DrivableArea, EgoState, PaintedLine, front_camera
from drivesim.world_model.places import Places, no_view, road_dim, shows_road, token_road, unpacked_view


@pytest.fixture(scope="module")
def straight() -> DrivableArea:
    """A road along x, eight metres wide, its middle at y = 30."""
    mask = np.zeros((300, 600), bool)
    mask[130:170] = True  # 0.2 m cells: 26 m to 34 m from either edge
    return DrivableArea(mask=mask, resolution_m=0.2, origin_xy_m=np.array([1000.0, 2000.0]))


def test_distances_are_metres_from_the_edge(straight):
    known = road_map(straight)
    row_of = lambda y_m: int((y_m - known.origin_xy_m[1]) / known.cell_m)  # noqa: E731
    column = known.distance.shape[1] // 2
    y_m = known.origin_xy_m[1] + (np.arange(row_of(2024.0), row_of(2036.0)) + 0.5) * known.cell_m
    wanted = np.clip((4.0 - np.abs(y_m - 2030.0)) / EDGE_REACH_M, -1, 1)
    found = known.distance[row_of(2024.0) : row_of(2036.0), column]
    np.testing.assert_allclose(found, wanted, atol=0.04)


@pytest.mark.parametrize("filled", [True, False])
def test_a_map_without_edges_is_all_road_or_none(filled):
    area = DrivableArea(mask=np.full((40, 40), filled), resolution_m=0.5, origin_xy_m=np.zeros(2))
    inner = road_map(area).distance[20:-20, 20:-20]
    assert (inner == (1.0 if filled else -1.0)).all()


def test_the_view_agrees_with_the_drivable_area():
    scene = make_scene(half_width_m=3.0)
    ground = ground_of(scene.camera)
    pose = np.array([*scene.xy_m[12], scene.yaw_rad[12]])
    view = road_view(road_map(scene.drivable), ground, pose)
    assert view.shape == (VIEW_DIM, 32, 56)
    distance, share, *paint = view
    assert not np.any(paint)  # of which this map knows nothing
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    points = ground.xy_m @ np.array([[cos, sin], [-sin, cos]]) + pose[:2]
    is_road = scene.drivable.contains(points)[1::2, 1::2]
    is_clear = (share == 1) & (np.abs(distance) > 0.15)
    assert is_clear.sum() > 200
    assert (is_road[is_clear] == (distance[is_clear] > 0)).mean() > 0.98


def test_nothing_is_known_above_the_horizon_or_beside_the_map(straight):
    view = road_view(road_map(straight), ground_of(front_camera()), np.array([1060.0, 2030.0, 0.0]))
    assert (view[:, : 54 // 4] == 0).all()
    assert view[1, -1].min() == 1
    elsewhere = road_view(road_map(straight), ground_of(front_camera()), np.array([5000.0, 0.0, 0.0]))
    assert (elsewhere == 0).all()
    assert (road_view(None, ground_of(front_camera()), np.zeros(3)) == 0).all()


def test_on_the_middle_of_a_straight_road_left_and_right_look_alike(straight):
    distance = road_view(road_map(straight), ground_of(front_camera()), np.array([1050.0, 2030.0, 0.0]))[0]
    np.testing.assert_allclose(distance, distance[:, ::-1], atol=0.05)
    to_the_left = road_view(road_map(straight), ground_of(front_camera()), np.array([1050.0, 2032.5, 0.0]))[0]
    assert to_the_left[-1, :28].mean() < to_the_left[-1, 28:].mean() - 0.1


def test_a_stripe_is_seen_where_it_is_painted(straight):
    stripe = PaintedLine(xy_m=np.array([[1055.0, 2030.0], [1056.5, 2030.0], [1058.0, 2030.0]]), width_m=0.4)
    painted = replace(straight, lines=(stripe,))
    view = road_view(road_map(painted), ground_of(front_camera()), np.array([1050.0, 2030.0, 0.0]))
    np.testing.assert_array_equal(view[3], view[1])
    assert (view[2].sum(0) @ np.arange(56)) / view[2].sum() == pytest.approx(27.5, abs=0.3)
    rows, columns = np.nonzero(view[2] > 0.4)
    assert len(rows) > 4
    assert 24 <= columns.min() <= columns.max() <= 32  # cells of the raster are half as wide
    ahead_m = ground_of(front_camera()).xy_m[1::2, 1::2, 0][rows, columns]
    assert ahead_m.min() == pytest.approx(5.0, abs=0.6)
    assert ahead_m.max() == pytest.approx(8.0, abs=1.0)
    assert view[2, :, :22].max() == 0


def test_a_far_stripe_fades_instead_of_flickering(straight):
    """A line of a tenth of a cell's width must not come and go while the car moves on."""
    line = PaintedLine(xy_m=np.array([[1000.0, 2030.5], [1120.0, 2030.5]]), width_m=0.15)
    known = road_map(replace(straight, lines=(line,)))
    ground = ground_of(front_camera())
    views = [road_view(known, ground, np.array([1040.0 + step, 2030.0, 0.0]))[2] for step in range(8)]
    row = int(np.argmax((ground.xy_m[1::2, 28, 0] < 30) & (ground.is_near[1::2, 28] > 0)))
    shares = np.array([view[row, 24:32].sum() for view in views])
    assert shares.min() > 0
    assert shares.max() < 1.3 * shares.min()


def test_lines_look_alike_in_maps_of_other_cells(straight):
    line = PaintedLine(xy_m=np.array([[1000.0, 2030.5], [1120.0, 2030.5]]), width_m=0.15)
    ground, pose = ground_of(front_camera()), np.array([1040.0, 2030.0, 0.0])
    fine = road_view(road_map(replace(straight, lines=(line,))), ground, pose)
    coarse = DrivableArea(
        mask=straight.mask[::5, ::5], resolution_m=1.0, origin_xy_m=straight.origin_xy_m, lines=(line,)
    )
    np.testing.assert_allclose(road_view(road_map(coarse), ground, pose)[2], fine[2], atol=1e-3)


def test_a_solid_line_hides_a_dashed_one(straight):
    xy_m = np.array([[1000.0, 2030.0], [1120.0, 2030.0]])
    solid, dashed = (PaintedLine(xy_m=xy_m, width_m=0.4, share=share) for share in (1.0, 0.4))
    ground, pose = ground_of(front_camera()), np.array([1040.0, 2030.0, 0.0])
    alone, *both = (
        road_view(road_map(replace(straight, lines=lines)), ground, pose)[2]
        for lines in ((solid,), (solid, dashed), (dashed, solid))
    )
    for view in both:
        np.testing.assert_allclose(view, alone, atol=0.1)  # a soft edge over another
    only_dashed = road_view(road_map(replace(straight, lines=(dashed,))), ground, pose)[2]
    np.testing.assert_allclose(only_dashed, 0.4 * alone, atol=0.02)


def test_a_map_of_many_kilometres_is_read_like_a_small_one():
    line = PaintedLine(xy_m=np.array([[0.0, 4.0], [6600.0, 4.0]]), width_m=0.15)
    pose, ground = np.array([6500.0, 4.0, 0.0]), ground_of(front_camera())
    whole = DrivableArea(
        mask=np.ones((40, 33_000), bool), resolution_m=0.2, origin_xy_m=np.zeros(2), lines=(line,)
    )
    end = replace(whole, mask=whole.mask[:, 32_000:], origin_xy_m=np.array([6400.0, 0.0]))
    np.testing.assert_allclose(
        road_view(road_map(whole), ground, pose)[2], road_view(road_map(end), ground, pose)[2], atol=0.02
    )


@pytest.mark.parametrize("has_markings", [True, False])
def test_packed_views_come_back(has_markings):
    scene = make_scene()
    if has_markings:
        lines = tuple(PaintedLine(xy_m=scene.xy_m + shift, width_m=0.3, share=0.4) for shift in (-1.0, 1.5))
        scene.drivable = replace(scene.drivable, lines=lines)
    packed = packed_road_views(road_map(scene.drivable), scene.camera, scene.xy_m[:3], scene.yaw_rad[:3])
    assert packed.dtype == np.int8
    poses = np.concatenate([scene.xy_m, scene.yaw_rad[:, None]], axis=1)
    views = [road_view(road_map(scene.drivable), ground_of(scene.camera), pose) for pose in poses[:3]]
    unpacked = unpacked_view(torch.from_numpy(packed)).numpy()
    np.testing.assert_allclose(unpacked, np.stack(views), atol=0.005)
    assert (packed_road_views(None, scene.camera, scene.xy_m[:2], scene.yaw_rad[:2]) == UNKNOWN).all()
    assert torch.equal(
        unpacked_view(torch.full((1, PACKED_DIM, 32, 56), UNKNOWN, dtype=torch.int8)),
        no_view(1, (128, 224), torch.device("cpu")),
    )


def test_places_move_as_the_car_does_and_back():
    state, vehicle = EgoState(x_m=500.0, y_m=-20.0, yaw_rad=0.7, speed_mps=6.0), VehicleConfig()
    scene = make_scene()
    first = Places.begin((None,), ground_of(scene.camera), np.array([[500.0, -20.0, 0.7]]))
    places, twists = first, []
    for step in range(40):
        before = state
        control = Control(steering_rad=0.3 * np.sin(step / 5), accel_mps2=np.cos(step / 7))
        state = dynamics.step(state, control, vehicle, 1 / 6)
        twists.append(np.array([[0.5 * (before.speed_mps + state.speed_mps), state.yaw_rate_radps]]))
        places = places.after(twists[-1], 1 / 6)
    np.testing.assert_allclose(places.pose[0, :2], [state.x_m, state.y_m], atol=1e-6)
    np.testing.assert_allclose(places.time_s, 40 / 6)
    for twist in reversed(twists):
        places = places.before(twist, 1 / 6)
    np.testing.assert_allclose(places.pose, first.pose, atol=1e-6)
    np.testing.assert_allclose(places.time_s, 0.0, atol=1e-9)


def test_every_token_is_told_its_cells():
    view = torch.rand(2, VIEW_DIM, 32, 56)
    tokens = token_road(view, 16)
    assert tokens.shape == (2, 112, road_dim(16))
    for first in (0, 2, 4):
        begin = 17 * first // 2
        assert torch.equal(tokens[1, 15, begin : begin + 4], view[1, first, 4, 4:8])
        torch.testing.assert_close(tokens[1, 15, begin + 16], view[1, first + 1, 4:8, 4:8].mean())


def test_road_of_known_markings_is_told_from_the_rest():
    view = torch.ones(1, VIEW_DIM, 8, 8)
    view[0, 0, :4, :4] = -0.5  # beside the road
    view[0, 1, :4, 4:] = 0.0  # nothing known
    view[0, 3, 4:, :4] = 0.0  # no markings known
    assert shows_road(view, 16).tolist() == [[False, False, False, True]]
