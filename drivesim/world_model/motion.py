"""Motion compensation: where a frame's pixels were one frame ago, if the world stood still and were flat.

The ego motion between two frames is known exactly (it is the action), and so are camera height and intrinsics. Pixels
below the horizon lie on the ground plane, the rest is taken as infinitely far. That gives every token of the next frame
a guess, the previous frame warped and encoded, and two numbers, the image motion at its centre. What the guess cannot
know, moving cars, standing objects and what comes into view, is left to the transformer.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from torch import Tensor
from torch.nn import functional

from drivesim.scene.types import Camera


@dataclass(kw_only=True, slots=True)
class Rays:
    """The viewing rays of a camera, in the ego frame."""

    direction_HW3: Tensor
    inverse_depth_HW: Tensor  # 1 / length along the (unnormalised) ray to the ground; 0 above the horizon
    camera_xyz_3: Tensor  # camera centre in the ego frame
    cam_from_ego_33: Tensor
    intrinsic_33: Tensor

    def to(self, device: torch.device) -> Rays:
        """Return the same rays on ``device``."""
        return Rays(**{name: getattr(self, name).to(device) for name in self.__slots__})


@dataclass(kw_only=True, slots=True)
class Compensated:
    """The previous frame as it should look from the new pose."""

    frames_BCHW: Tensor
    is_seen_BHW: Tensor  # bool: the pixel was inside the previous frame
    flow_BHW2: Tensor  # pixels: position in the previous frame minus position now


def camera_rays(camera: Camera) -> Rays:
    """Return the rays of ``camera``; its height above the ground gives the ground plane."""
    intrinsic = torch.tensor(camera.intrinsic, dtype=torch.float32)
    ego_from_cam = torch.tensor(camera.ego_from_cam, dtype=torch.float32)
    rows = torch.arange(camera.height_px, dtype=torch.float32) + 0.5
    columns = torch.arange(camera.width_px, dtype=torch.float32) + 0.5
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    pixels_HW3 = torch.stack([u, v, torch.ones_like(u)], dim=-1)
    direction_HW3 = pixels_HW3 @ torch.linalg.inv(intrinsic).T @ ego_from_cam[:3, :3].T
    inverse_depth_HW = (-direction_HW3[..., 2] / ego_from_cam[2, 3]).clamp_min(0)
    return Rays(
        direction_HW3=direction_HW3,
        inverse_depth_HW=inverse_depth_HW,
        camera_xyz_3=ego_from_cam[:3, 3],
        cam_from_ego_33=ego_from_cam[:3, :3].T.contiguous(),
        intrinsic_33=intrinsic,
    )


def planar_motion(twist_BA: Tensor, dt_s: float) -> tuple[Tensor, Tensor]:
    """Return translation (B, 2) in metres and yaw (B,) of ``previous_from_current`` for twists held ``dt_s``."""
    speed_B, yaw_rate_B = twist_BA.unbind(-1)
    yaw_B = yaw_rate_B * dt_s
    chord_B = speed_B * dt_s * torch.sinc(yaw_B / (2 * torch.pi))
    return torch.stack([chord_B * torch.cos(yaw_B / 2), chord_B * torch.sin(yaw_B / 2)], dim=-1), yaw_B


def previous_pixels(rays: Rays, twist_BA: Tensor, dt_s: float) -> tuple[Tensor, Tensor]:
    """Return where each pixel was one frame ago (B, H, W, 2), and whether that lies before the camera (B, H, W).

    With inverse depth rho, ray d, camera centre c and motion (R, t) the point is, up to scale, R d + rho (R c + t - c)
    in the previous ego axes, relative to the previous camera.
    """
    offset_B2, yaw_B = planar_motion(twist_BA.float(), dt_s)
    cos, sin, zero, one = yaw_B.cos(), yaw_B.sin(), torch.zeros_like(yaw_B), torch.ones_like(yaw_B)
    rotation_B33 = rearrange(
        torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=-1), "b (i j) -> b i j", i=3
    )
    shift_B3 = functional.pad(offset_B2, (0, 1)) + rotation_B33 @ rays.camera_xyz_3 - rays.camera_xyz_3
    to_pixels_33 = rays.intrinsic_33 @ rays.cam_from_ego_33
    turned = torch.einsum("bij,hwj->bhwi", to_pixels_33 @ rotation_B33, rays.direction_HW3)
    shifted = torch.einsum("hw,bi->bhwi", rays.inverse_depth_HW, shift_B3 @ to_pixels_33.T)
    u, v, depth = (turned + shifted).unbind(-1)
    is_ahead = depth > 1e-3
    safe = depth.clamp_min(1e-3)
    return torch.stack([u / safe, v / safe], dim=-1), is_ahead


def compensate(frames_BCHW: Tensor, rays: Rays, twist_BA: Tensor, dt_s: float) -> Compensated:
    """Warp the previous frames (B, 3, H, W) to the pose that the twists (B, A) lead to."""
    height, width = frames_BCHW.shape[-2:]
    pixels_BHW2, is_ahead_BHW = previous_pixels(rays, twist_BA, dt_s)
    size = torch.tensor([width, height], dtype=torch.float32, device=frames_BCHW.device)
    grid_BHW2 = pixels_BHW2 / size * 2 - 1
    is_inside_BHW = (grid_BHW2.abs() <= 1).all(-1)
    warped = functional.grid_sample(
        frames_BCHW.float(),
        grid_BHW2.clamp(-2, 2),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    rows = torch.arange(height, device=size.device) + 0.5
    columns = torch.arange(width, device=size.device) + 0.5
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    flow_BHW2 = (pixels_BHW2 - torch.stack([u, v], dim=-1)).clamp(-200, 200)
    return Compensated(frames_BCHW=warped, is_seen_BHW=is_inside_BHW & is_ahead_BHW, flow_BHW2=flow_BHW2)


def token_motion(compensated: Compensated, stride: int) -> Tensor:
    """Return per token (B, S, 3): share of pixels seen before, and mean image motion in tokens (x, y)."""
    seen = reduce(compensated.is_seen_BHW.float(), "b (h i) (w j) -> b (h w)", "mean", i=stride, j=stride)
    flow = reduce(compensated.flow_BHW2, "b (h i) (w j) xy -> b (h w) xy", "mean", i=stride, j=stride)
    return torch.cat([seen.unsqueeze(-1), (flow / stride).clamp(-4, 4)], dim=-1)
