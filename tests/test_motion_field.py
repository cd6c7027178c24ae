"""The motion field: flat and still before training, exact for a known depth; and what the causal decoder does."""

import pytest
import torch

from drivesim.scene.road_map import VIEW_DIM
from drivesim.scene.types import front_camera
from drivesim.world_model.causal_decoder import CausalDecoder, CausalDecoderConfig
from drivesim.world_model.motion import (
    Reprojection,
    camera_rays,
    compensate,
    motion_after,
    planar_motion,
)
from drivesim.world_model.motion_field import (
    CELL_PX,
    MotionField,
    MotionFieldConfig,
    _blurred,
    joined,
    unshuffled,
)

DT_S = 1 / 6
WALL_INVERSE_DEPTH = 0.05


@pytest.fixture(scope="module")
def rays():
    return camera_rays(front_camera())


@pytest.fixture(scope="module")
def field():
    torch.manual_seed(0)
    return MotionField(MotionFieldConfig(widths=[8, 8, 16])).eval()


def twist(speed, yaw_rate):
    return torch.tensor([[speed, yaw_rate]])


def smooth_picture(seed=0):
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, 16, 28, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(small, size=(128, 224), mode="bicubic").clamp(-1, 1)


def test_two_steps_in_one_motion(rays):
    near, far = planar_motion(twist(9.0, 0.4), DT_S), planar_motion(twist(5.0, -0.7), DT_S)
    both = motion_after(near, far)
    point_now = torch.tensor([12.0, -3.0])

    def moved(point, motion):
        (offset,), (yaw,) = motion
        c, s = yaw.cos(), yaw.sin()
        return torch.stack([c * point[0] - s * point[1], s * point[0] + c * point[1]]) + offset

    torch.testing.assert_close(moved(point_now, both), moved(moved(point_now, near), far))


@torch.no_grad()
def test_untrained_it_takes_the_world_for_flat(field, rays):
    last, earlier = smooth_picture(0), smooth_picture(1)
    first_candidate = MotionField(MotionFieldConfig(widths=[8, 8, 16]))
    first_candidate.out.bias[0] = 50.0
    expected = first_candidate(last, earlier, rays, twist(8.0, 0.3), twist(8.0, 0.3), DT_S)
    flat = compensate(last, rays, twist(8.0, 0.3), DT_S)
    torch.testing.assert_close(expected.compensated.frames_BCHW, flat.frames_BCHW, atol=1e-4, rtol=0)
    assert torch.equal(expected.compensated.is_seen_BHW, flat.is_seen_BHW)
    assert not expected.displacement_B2HW.any()


@torch.no_grad()
def test_a_standing_car_sees_what_it_saw(field, rays):
    last = smooth_picture()
    expected = field(last, last, rays, twist(0.0, 0.0), twist(0.0, 0.0), DT_S)
    torch.testing.assert_close(expected.compensated.frames_BCHW, last, atol=1e-3, rtol=0)
    assert expected.compensated.is_seen_BHW.all()


@torch.no_grad()
def test_the_sweep_finds_the_depth_of_a_wall(field, rays):
    """Two views of a wall at one inverse depth agree best at that candidate."""
    motion = planar_motion(twist(10.0, 0.0), DT_S)
    two_steps = motion_after(motion, motion)
    wall = torch.full((1, 128, 224), WALL_INVERSE_DEPTH)
    texture = smooth_picture()
    views = []
    for steps in (
        motion,
        two_steps,
    ):  # where a pixel of an earlier view lies in the next one, found by iteration
        reprojection = Reprojection(rays, steps)
        grid = reprojection.pixels(torch.zeros(1, 128, 224))[0]
        here = grid.clone()
        for _ in range(30):
            rho_pixels = reprojection.pixels(wall)[0]
            offset = reprojection.sample((rho_pixels - grid).permute(0, 3, 1, 2), here).permute(0, 2, 3, 1)
            here = grid - offset
        views.append(reprojection.sample(texture, here))
    without_ground = camera_rays(front_camera())
    without_ground.inverse_depth_HW.zero_()
    cost = field._sweep(views[0], views[1], without_ground, motion, two_steps)
    count = len(field.inverse_depths)
    inner = cost[0, :count, 6:-6, 12:-12].mean((1, 2))
    assert field.inverse_depths[int(inner.argmin())] == WALL_INVERSE_DEPTH


@torch.no_grad()
def test_positions_keep_their_precision_under_autocast(field, rays):
    arguments = (smooth_picture(0), smooth_picture(1), rays, twist(12.0, 0.6), twist(12.0, 0.6), DT_S)
    exact = field(*arguments).compensated.flow_BHW2
    with torch.autocast("cpu", torch.bfloat16):
        rounded = field(*arguments).compensated.flow_BHW2
    difference_px = (exact - rounded).abs()
    assert (
        difference_px.median() < 0.02
    )  # positions in bfloat16 would be off by a quarter of a pixel and more


def test_gradients_reach_the_depths(rays):
    torch.manual_seed(0)
    field = MotionField(MotionFieldConfig(widths=[8, 8, 16]))
    target = smooth_picture(2)
    expected = field(smooth_picture(0), smooth_picture(1), rays, twist(8.0, 0.1), twist(8.0, 0.1), DT_S)
    (expected.compensated.frames_BCHW - target).square().mean().backward()
    assert field.out.weight.grad is not None
    assert field.out.weight.grad.abs().max() > 0


@torch.no_grad()
def test_the_decoder_keeps_what_was_seen_and_draws_what_was_not(field, rays):
    decoder = CausalDecoder(
        CausalDecoderConfig(width=16, inner_width=16), feature_channels=field.feature_channels
    )
    last, drawn = smooth_picture(), torch.zeros(1, 3, 128, 224)
    expected = field(last, last, rays, twist(3.0, 1.2), twist(3.0, 1.2), DT_S)
    picture = decoder(drawn, expected, torch.zeros(1, VIEW_DIM, 32, 56))
    is_seen = expected.compensated.is_seen_BHW[0]
    assert 0 < is_seen.float().mean() < 1
    warped = expected.compensated.frames_BCHW
    assert (picture - warped)[0, :, is_seen].abs().mean() < 0.3 * warped[0, :, is_seen].abs().mean()
    assert picture[0, :, ~is_seen].abs().mean() < 0.15 * warped[0, :, ~is_seen].abs().mean()


@pytest.mark.parametrize("depths", [[0.0], [0.1, 0.2], [0.0, 0.2, 0.1]])
def test_candidates_must_rise_from_zero(depths):
    with pytest.raises(ValueError, match="rise from 0"):
        MotionFieldConfig(inverse_depths=depths)


@pytest.mark.parametrize("widths", [[8, 8], [8, 12, 16]])
def test_widths_must_fit_group_norm(widths):
    with pytest.raises(ValueError, match="widths"):
        MotionFieldConfig(widths=widths)
    with pytest.raises(ValueError, match="widths"):
        CausalDecoderConfig(width=sum(widths) + 1)


def test_blurring_is_pooling_that_does_not_count_what_is_outside():
    x = torch.randn(2, 3, 9, 11)
    pooled = torch.nn.functional.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=False)
    torch.testing.assert_close(_blurred(x), pooled)


def test_cells_are_those_of_pixel_unshuffle_with_channels_last():
    x, other = torch.randn(2, 3, 8, 12), torch.randn(2, 1, 2, 3)
    cells = unshuffled(x)
    assert torch.equal(cells, torch.nn.functional.pixel_unshuffle(x, CELL_PX))
    both = joined([cells, other])
    assert torch.equal(both, torch.cat([cells, other], dim=1))
    assert both.is_contiguous(memory_format=torch.channels_last)
