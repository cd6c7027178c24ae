"""The camera: geometry without mirror errors, hiding, light, determinism."""

import dataclasses

import cv2
import numpy as np
import pytest
from road_samples import OFFSET_M, curved_network, straight_network

from drivesim.reference.camera import FrameRenderer, VehicleBox
from drivesim.reference.look import Look, SceneryKind, TimeOfDay, Weather
from drivesim.reference.scenery import Scenery, place_scenery
from drivesim.reference.surface import paint_surface
from drivesim.scene.types import front_camera

LOOK = Look(scenery=SceneryKind.SUBURB, seed=5, edge_rgb=(240.0, 180.0, 40.0))
PLACE = OFFSET_M + np.array([30.0, 0.0])
CAMERA = front_camera()


def _renderer(look=LOOK, *, network=None, camera=CAMERA, is_bare=False):
    network = network or straight_network()
    rng = np.random.default_rng(0)
    surface = paint_surface(network, offset_m=OFFSET_M, look=look, rng=rng)
    scenery = Scenery() if is_bare else place_scenery(network, surface.drivable, look, rng, offset_m=OFFSET_M)
    return FrameRenderer(surface, scenery, look, camera)


@pytest.fixture(scope="module")
def renderer():
    return _renderer()


@pytest.fixture(scope="module")
def bare():
    return _renderer(is_bare=True)


def _box(forward_m, left_m, rgb=(230.0, 0.0, 230.0), **fields):
    return VehicleBox(x_m=PLACE[0] + forward_m, y_m=PLACE[1] + left_m, yaw_rad=0.0, color_rgb=rgb, **fields)


def _changed(renderer, vehicles, *, yaw_rad=0.0):
    before = renderer.render(xy_m=PLACE, yaw_rad=yaw_rad, vehicles=[])
    after = renderer.render(xy_m=PLACE, yaw_rad=yaw_rad, vehicles=vehicles)
    rows, columns = np.nonzero(np.abs(after.astype(int) - before).max(axis=-1) > 24)
    return rows, columns


def _shift_px(first, second, rows):
    """Horizontal motion of the picture's content from first to second, positive to the right."""
    first, second = (cv2.cvtColor(np.ascontiguousarray(p[rows]), cv2.COLOR_RGB2GRAY) for p in (first, second))
    shift, _ = cv2.phaseCorrelate(first.astype(np.float32), second.astype(np.float32))
    return shift[0]


def test_pictures_are_rgb_of_the_camera_size(renderer):
    picture = renderer.render(xy_m=PLACE, yaw_rad=0.0)
    assert picture.shape == (128, 224, 3)
    assert picture.dtype == np.uint8
    assert picture[:20, :, 2].mean() > picture[:20, :, 0].mean() + 20  # a blue sky
    small = _renderer(camera=CAMERA.resized(width_px=112, height_px=64), is_bare=True)
    assert small.render(xy_m=PLACE, yaw_rad=0.0).shape == (64, 112, 3)


def test_rendering_is_a_pure_function(renderer):
    vehicles = [_box(15.0, 1.0), _box(40.0, 4.0)]
    first = renderer.render(xy_m=PLACE, yaw_rad=0.1, vehicles=vehicles)
    renderer.render(xy_m=PLACE + 5.0, yaw_rad=2.0)
    assert (renderer.render(xy_m=PLACE, yaw_rad=0.1, vehicles=vehicles[::-1]) == first).all()
    assert (_renderer().render(xy_m=PLACE, yaw_rad=0.1, vehicles=vehicles) == first).all()


@pytest.mark.parametrize("left_m", [3.0, -3.0])
def test_what_is_on_the_left_appears_on_the_left(bare, left_m):
    _, columns = _changed(bare, [_box(14.0, left_m)])
    expected = CAMERA.cx_px - CAMERA.fx_px * left_m / (14.0 - 1.7)
    assert abs(columns.mean() - expected) < 8
    assert (columns < 112).mean() > 0.9 if left_m > 0 else (columns > 112).mean() > 0.9


@pytest.mark.parametrize("heading_rad", [0.0, 1.3, 3.1, -2.0])
def test_turning_left_moves_the_scene_right(renderer, heading_rad):
    turn_rad = 0.04
    straight, left, right = (
        renderer.render(xy_m=PLACE, yaw_rad=heading_rad + turn) for turn in (0.0, turn_rad, -turn_rad)
    )
    rows = slice(20, 60)
    expected = CAMERA.fx_px * turn_rad
    assert abs(_shift_px(straight, left, rows) - expected) < 2.5
    assert abs(_shift_px(straight, right, rows) + expected) < 2.5


def test_ground_points_project_where_the_pinhole_says(bare):
    picture = bare.render(xy_m=PLACE, yaw_rad=0.0).astype(int)
    yellowness = picture[:, :, 0] - picture[:, :, 2]
    for forward_m in (6.0, 9.0, 13.0):  # edge lines at 2 m to the right and 6 m to the left
        row = CAMERA.cy_px + CAMERA.fy_px * 1.5 / forward_m
        right = CAMERA.cx_px + CAMERA.fx_px * 2.0 / forward_m
        columns = np.arange(int(right) - 9, min(int(right) + 10, 224))
        line = np.clip(yellowness[int(row), columns] - 40, 0, None)
        assert abs((line * (columns + 0.5)).sum() / line.sum() - right) < 2.0


def test_vehicles_stand_on_the_ground_and_have_their_size(bare):
    rows, columns = _changed(bare, [_box(20.0 + 2.4, 0.0)])
    distance = 20.0 - 1.7  # to the rear of a 4.8 m car
    assert abs(rows.max() - (CAMERA.cy_px + 160.0 * 1.5 / distance)) < 2.5
    assert abs((columns.max() - columns.min()) - 160.0 * 1.9 / distance) < 5.0


def test_nearer_vehicles_hide_farther_ones(bare):
    near, far = _box(12.0, 0.0, (220.0, 0.0, 0.0)), _box(30.0, 0.0, (0.0, 0.0, 230.0))
    alone = bare.render(xy_m=PLACE, yaw_rad=0.0, vehicles=[near])
    for order in ([near, far], [far, near]):
        both = bare.render(xy_m=PLACE, yaw_rad=0.0, vehicles=order)
        assert (both[75, 100:124] == alone[75, 100:124]).all()


def test_vehicles_behind_are_not_seen_and_close_ones_are_cut(bare):
    assert len(_changed(bare, [_box(-8.0, 0.0)])[0]) == 0
    rows, columns = _changed(bare, [_box(3.5, 2.6)])  # beside the camera, its rear behind the near plane
    assert len(columns) > 30
    assert columns.max() < 60
    assert rows.max() > 90


def test_far_vehicles_fade_into_haze(bare):
    def contrast(forward_m):
        empty = bare.render(xy_m=PLACE, yaw_rad=0.0).astype(int)
        with_car = bare.render(xy_m=PLACE, yaw_rad=0.0, vehicles=[_box(forward_m, 0.0)])
        return np.abs(with_car - empty).max()

    assert contrast(20.0) > contrast(80.0) > contrast(148.0)
    assert len(_changed(bare, [_box(148.0, 0.0)])[0]) < 12


def test_brake_lights_glow(bare):
    resting, braking = (
        bare.render(xy_m=PLACE, yaw_rad=0.0, vehicles=[_box(14.0, 0.0, (60.0, 60.0, 60.0), is_braking=flag)])
        for flag in (False, True)
    )
    difference = braking.astype(int) - resting
    assert difference[..., 0].max() > 80
    rows, columns = np.nonzero(difference[..., 0] > 60)
    assert (columns < 112).any()
    assert (columns > 112).any()
    assert rows.min() > 54


def test_moving_forward_expands_the_picture(renderer):
    before, after = (renderer.render(xy_m=PLACE + np.array([dx, 0.0]), yaw_rad=0.0) for dx in (0.0, 1.5))
    points = cv2.goodFeaturesToTrack(cv2.cvtColor(before, cv2.COLOR_RGB2GRAY), 60, 0.02, 6)
    grays = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (before, after)]
    moved, status, _ = cv2.calcOpticalFlowPyrLK(*grays, points, None)
    points, moved = points[status == 1].reshape(-1, 2), moved[status == 1].reshape(-1, 2)
    centre = np.array([CAMERA.cx_px, CAMERA.cy_px])
    outward = ((moved - points) * (points - centre)).sum(axis=1)
    is_moving = np.linalg.norm(moved - points, axis=1) > 0.7
    assert (outward[is_moving] > 0).mean() > 0.8


def test_distant_ground_does_not_shimmer(bare):
    pictures = [
        bare.render(xy_m=PLACE + np.array([0.1 * k, 0.0]), yaw_rad=0.0).astype(float) for k in range(12)
    ]
    change = np.abs(np.diff(np.stack(pictures), axis=0)).mean(axis=(0, 2, 3))
    assert change[56:72].max() < 3.0


def test_light_and_weather_show():
    def ground(**fields):
        picture = _renderer(dataclasses.replace(LOOK, **fields), is_bare=True).render(xy_m=PLACE, yaw_rad=0.0)
        return picture[60:].astype(float)

    noon, night = ground(), ground(time_of_day=TimeOfDay.NIGHT)
    assert night[:, :20].mean() < 0.5 * noon[:, :20].mean()
    pool, side = night[20:40, 90:134].mean(), night[10:30, :20].mean()
    assert pool > 1.5 * side  # headlights
    assert ground(weather=Weather.RAIN)[30:, 90:134].mean() < 0.85 * noon[30:, 90:134].mean()
    assert ground(weather=Weather.HAZE)[:6].std() < noon[:6].std()


def test_curves_bend_the_right_way():
    renderer = _renderer(network=curved_network(), is_bare=True)
    at_start = OFFSET_M + np.array([120.0, 0.0])  # the arc from here turns left
    picture = renderer.render(xy_m=at_start, yaw_rad=0.0).astype(int)
    yellow = picture[66:74, :, 0] - picture[66:74, :, 2] > 60
    assert np.nonzero(yellow)[1].mean() < 112


def test_cameras_that_look_elsewhere_are_refused():
    tilted = np.array(CAMERA.ego_from_cam)
    tilted[:3, :3] = np.eye(3)
    with pytest.raises(ValueError, match="straight ahead"):
        _renderer(camera=dataclasses.replace(CAMERA, ego_from_cam=tilted), is_bare=True)
    with pytest.raises(ValueError, match="horizon"):
        _renderer(camera=dataclasses.replace(CAMERA, cy_px=200.0), is_bare=True)


SHIPPED_LOOK = (
    np.array(  # mean grey of 4 x 7 blocks; the weights in the package were trained on these pictures
        [
            [162, 165, 172, 165, 158, 165, 168],
            [95, 102, 125, 139, 142, 135, 139],
            [102, 97, 103, 87, 107, 119, 111],
            [92, 108, 89, 89, 87, 95, 122],
        ]
    )
)


def test_the_look_that_weights_were_trained_on_stays(renderer):
    picture = renderer.render(xy_m=PLACE, yaw_rad=0.05, vehicles=[_box(16.0, 1.0)])
    blocks = picture.astype(float).mean(axis=-1).reshape(4, 32, 7, 32).mean(axis=(1, 3))
    np.testing.assert_allclose(blocks, SHIPPED_LOOK, atol=2.0)
