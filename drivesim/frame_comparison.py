"""Two frames laid over each other at candidate motions: what the inverse dynamics model looks at.

Camera height, intrinsics and the flat ground are known, so a turn and a speed say where every pixel of the road was
one frame ago. Here the earlier frame is turned back by a yaw rate, and the differences that remain are measured:
of the ground at candidate speeds, and of everything at sideways shifts (parallax of what stands). Nothing is learned.
Letters: `B` pairs, `C` = 3 colours, `H W` pixels, `Q` planes that are compared, `K` candidates, `R X` cells.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from drivesim.scene.types import Camera

CELL_PX = 4  # differences are measured at half resolution and averaged over cells of this size
HALF = 2
NUM_PLANES = 2  # differences are given for the colours and for the local contrast
CONTRAST_WINDOW = 9  # pixels at half resolution
FLAT_CONTRAST = (
    0.03  # standard deviation, on the [-1, 1] scale, below which a place counts as without texture
)
NO_DIFFERENCE = 0.02


class FrameComparison(nn.Module):
    """The differences between two frames of one camera, at candidate speeds and sideways shifts.

    Args:
        camera: Of both frames; its height above the ground gives the ground plane.
        dt_s: Time between the frames.
        speeds_mps: Candidate speeds.
    """

    rays_HW3: Tensor
    ground_rays_RX3: Tensor
    inverse_depth_RX: Tensor
    pixels_from_ego_33: Tensor
    centre_3: Tensor
    speeds_K: Tensor

    def __init__(self, camera: Camera, *, dt_s: float, speeds_mps: list[float]) -> None:
        super().__init__()
        self.dt_s, self.height_px, self.width_px = dt_s, camera.height_px, camera.width_px
        intrinsic = torch.tensor(camera.intrinsic, dtype=torch.float32)
        ego_from_cam = torch.tensor(camera.ego_from_cam, dtype=torch.float32)
        ego_from_pixels = ego_from_cam[:3, :3] @ torch.linalg.inv(intrinsic)
        half_RX3 = _pixel_centres(camera, HALF) @ ego_from_pixels.T
        is_ground_R = (half_RX3[..., 2] < 0).any(-1)
        first = int(is_ground_R.long().argmax()) * HALF // CELL_PX
        self.first_ground_cell = first
        ground_RX3 = half_RX3[first * CELL_PX // HALF :]
        constants = {
            "rays_HW3": _pixel_centres(camera, 1) @ ego_from_pixels.T,
            "ground_rays_RX3": ground_RX3,
            "inverse_depth_RX": (-ground_RX3[..., 2] / ego_from_cam[2, 3]).clamp_min(0),
            "pixels_from_ego_33": intrinsic @ ego_from_cam[:3, :3].T,
            "centre_3": ego_from_cam[:3, 3],
            "speeds_K": torch.tensor(speeds_mps, dtype=torch.float32),
        }
        for name, value in constants.items():
            self.register_buffer(name, value.contiguous(), persistent=False)

    def turned_back(self, frames_BCHW: Tensor, yaw_rate_B: Tensor) -> Tensor:
        """Return `[B, C + 1, H, W]`: the earlier frames from the later heading; the last channel is 1 where seen."""
        rotation_B33 = rotation_about_z(yaw_rate_B.float() * self.dt_s)
        rays_BHW3 = torch.einsum("bij,hwj->bhwi", self.pixels_from_ego_33 @ rotation_B33, self.rays_HW3)
        seen_B1HW = torch.ones_like(frames_BCHW[:, :1], dtype=torch.float32)
        with_seen = torch.cat([frames_BCHW.float(), seen_B1HW], dim=1)
        return functional.grid_sample(with_seen, self._grid(rays_BHW3), align_corners=False)

    def ground_differences(self, previous_BQHW: Tensor, current_BQHW: Tensor, yaw_rate_B: Tensor) -> Tensor:
        """Return `[B, 2 (K + 1), R, X]` differences of the ground, 0 in the rows above it.

        Args:
            previous_BQHW: :func:`planes` of the earlier frames, turned back by ``yaw_rate_B``.
            current_BQHW: :func:`planes` of the later frames.
            yaw_rate_B: in rad/s; with the speed it says which way the camera moved.
        """
        num, rows = len(self.speeds_K), len(self.ground_rays_RX3)
        moved = torch.einsum("rx,bki->bkrxi", self.inverse_depth_RX, self._moved_from(yaw_rate_B))
        rays = (self.ground_rays_RX3 + moved) @ self.pixels_from_ego_33.T
        grid = rearrange(self._grid(rays), "B K R X xy -> B (K R) X xy")
        sampled = functional.grid_sample(previous_BQHW, grid, align_corners=False)
        sampled = rearrange(sampled, "B Q (K R) X -> B K Q R X", K=num)
        found = differences(sampled, current_BQHW[:, None, :, -rows:])
        return functional.pad(found, (0, 0, self.first_ground_cell, 0))

    def _moved_from(self, yaw_rate_B: Tensor) -> Tensor:
        """Return (B, K, 3): the camera's path in metres in the later heading, for every candidate speed."""
        yaw_B1 = yaw_rate_B.float().unsqueeze(-1) * self.dt_s
        chord_BK = self.speeds_K * self.dt_s * torch.sinc(yaw_B1 / (2 * torch.pi))
        path = [
            chord_BK * torch.cos(yaw_B1 / 2),
            chord_BK * torch.sin(yaw_B1 / 2),
            torch.zeros_like(chord_BK),
        ]
        rotation_B33 = rotation_about_z(yaw_B1[:, 0])
        lever_B3 = rotation_B33 @ self.centre_3 - self.centre_3
        return (torch.stack(path, dim=-1) + lever_B3.unsqueeze(1)) @ rotation_B33

    def _grid(self, pixels: Tensor) -> Tensor:
        """Turn homogeneous pixels (..., 3) into positions in [-1, 1]; what lies behind falls outside."""
        depth = pixels[..., 2:].clamp_min(1e-3)
        size = pixels.new_tensor([self.width_px, self.height_px])
        return (pixels[..., :2] / depth / size * 2 - 1).clamp(-3, 3)


def rotation_about_z(yaw_B: Tensor) -> Tensor:
    """Return `[B, 3, 3]` rotations to the left by ``yaw_B`` radians."""
    cos, sin, zero, one = yaw_B.cos(), yaw_B.sin(), torch.zeros_like(yaw_B), torch.ones_like(yaw_B)
    entries = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=-1)
    return rearrange(entries, "B (i j) -> B i j", i=3)


def planes(frames_BCHW: Tensor) -> Tensor:
    """Return what is compared, `[B, 3, H / 2, W / 2]`: brightness, local contrast, and 1 where seen.

    Args:
        frames_BCHW: `[B, 3 or 4, H, W]` in [-1, 1]; a fourth channel says what was seen (else: everything).
    """
    half_BCHW = functional.avg_pool2d(frames_BCHW.float(), HALF)
    gray = half_BCHW[:, :3].mean(dim=1, keepdim=True)
    is_seen = half_BCHW[:, 3:] > 0.99 if half_BCHW.shape[1] == 4 else torch.ones_like(gray)
    mean, square = (_local_mean(x) for x in (gray, gray.square()))
    std = (square - mean.square()).clamp_min(0).sqrt()
    return torch.cat([gray, 0.3 * (gray - mean) / (std + FLAT_CONTRAST), is_seen.to(gray.dtype)], dim=1)


def differences(previous_BKQHW: Tensor, current_B1QHW: Tensor) -> Tensor:
    """Return `[B, 2 (K + 1), R, X]` differences of planes by cell, relative to their mean over the candidates.

    For brightness and for contrast: 1 is no better than the other candidates, near 0 a perfect fit, what was not
    seen counts 1; then the logarithm of that mean, which says how much there is to be seen at all.
    """
    seen_BK1HW = previous_BKQHW[:, :, 2:]
    gap = (previous_BKQHW[:, :, :2] - current_B1QHW[:, :, :2]).abs_().mul_(seen_BK1HW)
    gap, seen = (_by_cell(x) for x in (gap, seen_BK1HW))
    gap = gap / seen.clamp_min(0.1)
    is_seen = seen > 0.5
    mean = (gap * is_seen).sum(dim=1, keepdim=True) / is_seen.sum(dim=1, keepdim=True).clamp_min(1)
    relative = (gap + NO_DIFFERENCE) / (mean + NO_DIFFERENCE)
    relative = torch.where(is_seen, relative, torch.ones_like(relative)).clamp(0, 3)
    with_mean = torch.cat([relative, (mean + NO_DIFFERENCE).log() + 2], dim=1)
    return rearrange(with_mean, "B K P R X -> B (P K) R X")


def _by_cell(x_BKQHW: Tensor) -> Tensor:
    cells = functional.avg_pool2d(rearrange(x_BKQHW, "B K Q H W -> (B K) Q H W"), CELL_PX // HALF)
    return rearrange(cells, "(B K) Q R X -> B K Q R X", B=len(x_BKQHW))


def sideways_differences(previous_BQHW: Tensor, current_BQHW: Tensor, *, reach: int, step: int) -> Tensor:
    """Return `[B, 2 (2 reach + 2), R, X]` differences at shifts by ``-reach..reach`` times ``step`` half pixels."""
    width, margin = current_BQHW.shape[-1], reach * step
    padded = functional.pad(previous_BQHW, (margin, margin))
    starts = range(0, 2 * margin + 1, step)
    shifted = torch.stack([padded[..., start : start + width] for start in starts], dim=1)
    return differences(shifted, current_BQHW.unsqueeze(1))


def _local_mean(x_BCHW: Tensor) -> Tensor:
    radius = CONTRAST_WINDOW // 2
    return functional.avg_pool2d(x_BCHW, CONTRAST_WINDOW, stride=1, padding=radius, count_include_pad=False)


def _pixel_centres(camera: Camera, stride: int) -> Tensor:
    """Return (rows, columns, 3) homogeneous pixel positions of the centres of stride x stride blocks."""
    rows = torch.arange(0, camera.height_px, stride, dtype=torch.float32) + stride / 2
    columns = torch.arange(0, camera.width_px, stride, dtype=torch.float32) + stride / 2
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([u, v, torch.ones_like(u)], dim=-1)
