"""Motion compensation: geometry, signs, and agreement with pictures of the reference world."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from drivesim import dynamics
from drivesim.scene.types import front_camera
from drivesim.world_model.motion import camera_rays, compensate, planar_motion, previous_pixels, token_motion

DT_S = 1 / 6


@pytest.fixture(scope="module")
def rays():
    return camera_rays(front_camera())


def twist(speed, yaw_rate):
    return torch.tensor([[speed, yaw_rate]])


def test_standing_still_changes_nothing(rays):
    picture = torch.rand(1, 3, 128, 224)
    result = compensate(picture, rays, twist(0.0, 0.0), DT_S)
    torch.testing.assert_close(result.frames_BCHW, picture, atol=1e-4, rtol=0)
    assert result.is_seen_BHW.all()
    assert result.flow_BHW2.abs().max() < 1e-3


def test_motion_agrees_with_the_bicycle():
    offset, yaw = planar_motion(twist(9.0, 0.4), DT_S)
    expected = dynamics.planar_motion(9.0, 0.4, DT_S)
    np.testing.assert_allclose([*offset[0].tolist(), yaw.item()], expected, rtol=1e-5)


def test_a_ground_point_comes_from_where_the_camera_saw_it(rays):
    camera = front_camera()
    pixels, _ = previous_pixels(rays, twist(12.0, 0.3), DT_S)
    row, column = 100, 60
    ray = rays.direction_3HW[:, row, column].double().numpy()
    eye = camera.ego_from_cam[:3, 3]
    ground_now = eye + ray * (-eye[2] / ray[2])
    dx, dy, dyaw = dynamics.planar_motion(12.0, 0.3, DT_S)
    c, s = np.cos(dyaw), np.sin(dyaw)
    before = np.array(
        [c * ground_now[0] - s * ground_now[1] + dx, s * ground_now[0] + c * ground_now[1] + dy, 0.0]
    )
    in_cam = camera.ego_from_cam[:3, :3].T @ (before - eye)
    u, v, w = camera.intrinsic @ in_cam
    np.testing.assert_allclose(pixels[0, row, column].tolist(), [u / w, v / w], atol=1e-2)


def test_turning_left_takes_pixels_from_the_left(rays):
    flow = compensate(torch.zeros(1, 3, 128, 224), rays, twist(5.0, 0.6), DT_S).flow_BHW2
    assert flow[0, 54, 112, 0] == pytest.approx(-160 * np.tan(0.1), abs=1.0)


def test_driving_on_takes_the_road_from_nearer_the_horizon(rays):
    flow = compensate(torch.zeros(1, 3, 128, 224), rays, twist(12.0, 0.0), DT_S).flow_BHW2
    assert (flow[0, 70:, 112, 1] < -0.5).all()
    assert flow[0, :50].abs().max() < 1e-2


def test_what_was_outside_is_not_seen(rays):
    result = compensate(torch.zeros(1, 3, 128, 224), rays, twist(8.0, 0.9), DT_S)
    assert not result.is_seen_BHW[0, 30, :10].any()
    motion = token_motion(result, 16)
    assert motion.shape == (1, 112, 3)
    assert motion[0, 14, 0] < 0.3
    assert motion[0, 14 + 13, 0] == 1


def test_rays_move_to_a_device_as_a_whole(rays):
    moved = rays.to(torch.device("meta"))
    tensors = {
        name: value for name in rays.__slots__ if isinstance(value := getattr(moved, name), torch.Tensor)
    }
    assert len(tensors) == 5
    assert all(value.device.type == "meta" for value in tensors.values())
    assert moved.coarse(2).direction_3HW.device.type == "meta"
    pixels, is_ahead = previous_pixels(moved, twist(3.0, 0.1).to("meta"), DT_S)
    assert pixels.device.type == is_ahead.device.type == "meta"


def test_coarse_rays_are_the_mean_of_their_pixels_and_kept(rays):
    coarse = rays.coarse(2)
    assert coarse is rays.coarse(2)
    assert rays.coarse(1) is rays
    assert rays.to(torch.device("cpu")) is rays
    level = replace(rays, inverse_depth_HW=torch.zeros_like(rays.inverse_depth_HW))
    assert level.coarse(2).inverse_depth_HW.abs().max() == 0
    torch.testing.assert_close(
        coarse.direction_3HW[:, 5, 7], rays.direction_3HW[:, 10:12, 14:16].mean((1, 2))
    )
    torch.testing.assert_close(coarse.inverse_depth_HW[60, 7], rays.inverse_depth_HW[120:122, 14:16].mean())
