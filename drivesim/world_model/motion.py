"""The geometry of motion compensation: where a frame's pixels were one frame ago, given how far away they are.

The ego motion between two frames is known exactly (it is the action), and so are camera height and intrinsics. On flat
ground without objects that is enough (:func:`compensate`): pixels below the horizon lie on the ground plane, the rest
is infinitely far. Whatever stands above the ground is nearer, by an inverse depth that ``motion_field.py`` learns.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from einops import rearrange, reduce
from torch import Tensor
from torch.nn import functional

from drivesim.scene.types import Camera

MIN_DEPTH = 0.05  # along the optical axis, in units of the ray; nearer points count as behind the camera


@dataclass(kw_only=True, slots=True)
class Rays:
    """The viewing rays of a camera, in the ego frame."""

    direction_3HW: Tensor
    inverse_depth_HW: Tensor  # 1 / length along the (unnormalised) ray to the ground; 0 above the horizon
    camera_xyz_3: Tensor  # camera centre in the ego frame
    cam_from_ego_33: Tensor
    intrinsic_33: Tensor
    _coarse: dict[int, Rays] = field(init=False, default_factory=dict, repr=False, compare=False)

    def to(self, device: torch.device) -> Rays:
        """Return the same rays on ``device``, themselves where they are there already."""
        if self.direction_3HW.device == device:
            return self
        names = ("direction_3HW", "inverse_depth_HW", "camera_xyz_3", "cam_from_ego_33", "intrinsic_33")
        return Rays(**{name: getattr(self, name).to(device) for name in names})

    def coarse(self, stride: int) -> Rays:
        """Return the rays of which ``stride x stride`` pixels share one, their mean; worked out once."""
        if stride == 1:
            return self
        if stride not in self._coarse:
            mean = reduce(self.direction_3HW, "d (h i) (w j) -> d h w", "mean", i=stride, j=stride)
            ground = reduce(self.inverse_depth_HW, "(h i) (w j) -> h w", "mean", i=stride, j=stride)
            self._coarse[stride] = replace(self, direction_3HW=mean, inverse_depth_HW=ground)
        return self._coarse[stride]


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
        direction_3HW=rearrange(direction_HW3, "h w d -> d h w").contiguous(),
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


def motion_after(nearer: tuple[Tensor, Tensor], farther: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the motion over two steps from that of the last step and that of the step before."""
    (near_B2, near_yaw_B), (far_B2, far_yaw_B) = nearer, farther
    cos, sin = far_yaw_B.cos(), far_yaw_B.sin()
    x, y = near_B2.unbind(-1)
    turned_B2 = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
    return turned_B2 + far_B2, near_yaw_B + far_yaw_B


class Reprojection:
    """Where the pixels of a frame were in an earlier one, as a function of their inverse depth.

    With inverse depth rho, ray d, camera centre c and motion (R, t) the point is, up to scale, R d + rho (R c + t - c)
    in the earlier ego axes, relative to the earlier camera. Positions (..., H, W, 2) lie in memory plane by plane,
    which is several times as fast on a CPU.
    """

    def __init__(self, rays: Rays, motion: tuple[Tensor, Tensor], *, stride: int = 1) -> None:
        """Take the ``motion`` of :func:`planar_motion`; ``stride`` pixels share one ray, the one at their centre."""
        offset_B2, yaw_B = motion
        cos, sin, zero, one = yaw_B.cos(), yaw_B.sin(), torch.zeros_like(yaw_B), torch.ones_like(yaw_B)
        rotation_B33 = rearrange(
            torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=-1), "b (i j) -> b i j", i=3
        )
        shift_B3 = functional.pad(offset_B2, (0, 1)) + rotation_B33 @ rays.camera_xyz_3 - rays.camera_xyz_3
        to_pixels_33 = rays.intrinsic_33 @ rays.cam_from_ego_33
        self._turned_B3HW = _turned(rays.coarse(stride).direction_3HW, to_pixels_33 @ rotation_B33)
        self._shift_B311 = rearrange(shift_B3 @ to_pixels_33.T, "b i -> b i 1 1")
        height, width = rays.inverse_depth_HW.shape
        self.size_2 = torch.tensor([width, height], dtype=torch.float32, device=shift_B3.device)

    def pixels(self, inverse_depth: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions (B, H, W, 2) in pixels and whether they lie before the camera, for rho (B or 1, H, W)."""
        points_B3HW = self._turned_B3HW + inverse_depth.unsqueeze(1) * self._shift_B311
        depth_B1HW = points_B3HW[:, 2:]
        positions_B2HW = points_B3HW[:, :2] / depth_B1HW.clamp_min(MIN_DEPTH)
        return positions_B2HW.movedim(1, -1), depth_B1HW.squeeze(1) > MIN_DEPTH

    def stacked_pixels(self, inverse_depth_IHW: Tensor) -> Tensor:
        """Return the positions (B, I * H, W, 2) for I inverse depths of every ray, one below the other."""
        # In place: for several cars these tensors are larger than a processor's caches.
        points_B3IHW = inverse_depth_IHW * self._shift_B311.unsqueeze(2)
        points_B3IHW += self._turned_B3HW.unsqueeze(2)
        positions_B2IHW = points_B3IHW[:, :2] / points_B3IHW[:, 2:].clamp_min_(MIN_DEPTH)
        return positions_B2IHW.flatten(2, 3).movedim(1, -1)

    def sample(self, frames_BCHW: Tensor, pixels_BHW2: Tensor, *, is_sharp: bool = False) -> Tensor:
        """Read frames of any resolution at positions in pixels; beyond the border its pixels are repeated.

        Sharp reading is bicubic: a picture that is carried along for many frames blurs less.
        """
        grid_BHW2 = (pixels_BHW2 / self.size_2).mul_(2).sub_(1)
        if is_sharp:  # which rounds before it looks for the border
            grid_BHW2 = grid_BHW2.clamp_(-2, 2)
        return functional.grid_sample(
            frames_BCHW,
            grid_BHW2,
            mode="bicubic" if is_sharp else "bilinear",
            padding_mode="border",
            align_corners=False,
        )

    def is_inside(self, pixels_BHW2: Tensor) -> Tensor:
        """Return (B, H, W): whether positions lie inside the frame."""
        u, v = pixels_BHW2.unbind(-1)
        width, height = self.size_2.unbind()
        return (u >= 0) & (u <= width) & (v >= 0) & (v <= height)


def _turned(direction_3HW: Tensor, matrix_B33: Tensor) -> Tensor:
    """Return the matrices times the directions (B, 3, H, W), term by term: a row is the same in every batch."""
    columns_3B311 = rearrange(matrix_B33, "b i j -> j b i 1 1")
    x, y, z = direction_3HW
    return x * columns_3B311[0] + y * columns_3B311[1] + z * columns_3B311[2]


def previous_pixels(rays: Rays, twist_BA: Tensor, dt_s: float) -> tuple[Tensor, Tensor]:
    """Return where each pixel was one frame ago (B, H, W, 2) in a flat world, and whether before the camera."""
    motion = planar_motion(twist_BA.float(), dt_s)
    return Reprojection(rays, motion).pixels(rays.inverse_depth_HW.unsqueeze(0))


def compensate(frames_BCHW: Tensor, rays: Rays, twist_BA: Tensor, dt_s: float) -> Compensated:
    """Warp the previous frames (B, 3, H, W) to the pose that the twists (B, A) lead to, in a flat world."""
    reprojection = Reprojection(rays, planar_motion(twist_BA.float(), dt_s))
    pixels_BHW2, is_ahead_BHW = reprojection.pixels(rays.inverse_depth_HW.unsqueeze(0))
    return Compensated(
        frames_BCHW=reprojection.sample(frames_BCHW.float(), pixels_BHW2, is_sharp=True).clamp(-1, 1),
        is_seen_BHW=reprojection.is_inside(pixels_BHW2) & is_ahead_BHW,
        flow_BHW2=flow_of(pixels_BHW2),
    )


def flow_of(pixels_BHW2: Tensor) -> Tensor:
    """Return positions in the previous frame minus positions now, in pixels."""
    height, width = pixels_BHW2.shape[1:3]
    rows = torch.arange(height, device=pixels_BHW2.device) + 0.5
    columns = torch.arange(width, device=pixels_BHW2.device) + 0.5
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    return (pixels_BHW2 - torch.stack([u, v]).movedim(0, -1)).clamp(-200, 200)


def token_motion(compensated: Compensated, stride: int) -> Tensor:
    """Return per token (B, S, 3): share of pixels seen before, and mean image motion in tokens (x, y)."""
    seen = reduce(compensated.is_seen_BHW.float(), "b (h i) (w j) -> b (h w)", "mean", i=stride, j=stride)
    flow = reduce(compensated.flow_BHW2, "b (h i) (w j) xy -> b (h w) xy", "mean", i=stride, j=stride)
    return torch.cat([seen.unsqueeze(-1), (flow / stride).clamp(-4, 4)], dim=-1)
