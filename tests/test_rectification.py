"""Pictures of one camera as another in its place would have taken them."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import make_scene

from drivesim.errors import InputError
from drivesim.scene.rectification import Fleet, largest_shift_px, rectified, source_from_target
from drivesim.scene.types import front_camera


def turned(camera, *, yaw_deg=0.0, pitch_deg=0.0, roll_deg=0.0, zoom=1.0, moved_m=0.0):
    """Return a camera turned about its own axes: right, down, clockwise."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    ego_from_cam = camera.ego_from_cam.copy()
    ego_from_cam[:3, :3] = ego_from_cam[:3, :3] @ about_y @ about_x @ about_z
    ego_from_cam[1, 3] += moved_m
    return replace(camera, fx_px=camera.fx_px * zoom, fy_px=camera.fy_px * zoom, ego_from_cam=ego_from_cam)


def far_points(count=300):
    """Return directions in front of the car, as points so far away that the mount does not matter."""
    rng = np.random.default_rng(0)
    return np.stack(
        [np.full(count, 1e6), rng.uniform(-5e5, 5e5, count), rng.uniform(-2e5, 2e5, count)], axis=-1
    )


def seen(camera, points_m):
    """Return where a camera sees points of the ego frame, pixels."""
    cam_from_ego = np.linalg.inv(camera.ego_from_cam)
    rays = points_m @ cam_from_ego[:3, :3].T + cam_from_ego[:3, 3]
    pixels = rays @ camera.intrinsic.T
    return pixels[:, :2] / pixels[:, 2:]


@pytest.mark.parametrize("turn", [{"yaw_deg": 2.0}, {"pitch_deg": -1.5}, {"roll_deg": 1.0}, {"zoom": 1.05}])
def test_the_homography_takes_every_direction_to_where_the_other_camera_sees_it(turn):
    target, source = front_camera(), turned(front_camera(), **turn)
    points = far_points()
    in_target = np.concatenate([seen(target, points), np.ones((len(points), 1))], axis=1)
    found = in_target @ source_from_target(source, target).T
    np.testing.assert_allclose(found[:, :2] / found[:, 2:], seen(source, points), atol=1e-3)


def test_pictures_are_turned_back():
    """A blob far away, drawn where each camera sees it, lies in the same place after rectification."""
    target, source = front_camera(), turned(front_camera(), yaw_deg=2.0, pitch_deg=1.0, zoom=1.03)
    point = np.array([[1e6, 1.2e5, -0.6e5]])
    rows, columns = np.mgrid[0:128, 0:224] + 0.5

    def blob(camera):
        [[x, y]] = seen(camera, point)
        light = 250 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 18)
        return np.repeat(light[..., None], 3, axis=2).astype(np.uint8)

    scene = replace(make_scene(num_frames=2, camera=source), frames=[blob(source)] * 2)
    before = np.abs(blob(source).astype(int) - blob(target)).mean()
    after = np.abs(rectified(scene, target).frames[0].astype(int) - blob(target)).mean()
    assert after < 0.05 * before


def test_a_camera_is_its_own():
    camera = front_camera()
    np.testing.assert_allclose(source_from_target(camera, camera), np.eye(3), atol=1e-12)
    scene = make_scene(num_frames=3)
    assert rectified(scene, scene.camera) is scene


def test_parts_stay_lazy():
    scene = make_scene(num_frames=4, camera=turned(front_camera(), yaw_deg=1.0))
    frames = rectified(scene, front_camera()).frames
    assert len(frames[1:3]) == 2
    np.testing.assert_array_equal(frames[1:3][0], frames[1])
    assert len(list(frames)) == 4


def test_the_shift_is_that_of_the_worst_corner():
    camera = front_camera()
    assert largest_shift_px(camera, camera) == pytest.approx(0, abs=1e-9)
    zoomed = turned(camera, zoom=1.1)
    corner = np.hypot(camera.cx_px, max(camera.cy_px, camera.height_px - camera.cy_px))
    assert largest_shift_px(zoomed, camera) == pytest.approx(0.1 * corner, rel=0.01)
    assert largest_shift_px(turned(camera, yaw_deg=179.0), camera) == np.inf


def test_cars_of_a_fleet_are_brought_to_one_camera_and_others_refused():
    first = replace(make_scene(num_frames=2), name="scene-1")
    second = replace(make_scene(num_frames=2, camera=turned(front_camera(), yaw_deg=1.0)), name="scene-2")
    fleet = Fleet()
    assert fleet.aligned(first) is first
    assert fleet.aligned(second).camera.equals(first.camera)
    assert 2.5 < fleet.largest_shift_px < 5
    aside = turned(front_camera(), yaw_deg=30.0)
    with pytest.raises(InputError, match=r"'scene-1' and 'scene-3' differ by up to \d+ pixels"):
        fleet.aligned(replace(make_scene(num_frames=2, camera=aside), name="scene-3"))
    beside = turned(front_camera(), moved_m=0.5)
    with pytest.raises(InputError, match=r"mounts by 0\.50 m"):
        fleet.aligned(replace(make_scene(num_frames=2, camera=beside), name="scene-4"))
