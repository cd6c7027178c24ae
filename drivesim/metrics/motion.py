"""Image motion without weights: how far the view turned and how fast the road went by between two frames.

Turning is a sideways shift of the view around the horizon, found by correlating every shift in reach. Speed is
found by moving the earlier frame's ground as a flat road would move at each candidate speed and keeping the one
that fits best; a road without any mark across it (between two solid lines, say) does not show its speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from drivesim.dynamics import planar_motion
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera

Images = NDArray[np.uint8]
GRAY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(kw_only=True, slots=True)
class MotionConfig:
    """Which part of the picture is compared, and over which motions."""

    band_above_horizon: float = 0.30  # of the picture's height
    band_below_horizon: float = 0.12
    max_shift: float = 0.20  # of the picture's width, per frame
    ground_below_horizon: float = 0.06  # the ground used for speed starts this far below the horizon
    max_speed_mps: float = 24.0
    speed_step_mps: float = 1.0
    yaw_rate_reach_radps: float = 0.12  # searched around the yaw rate that the shift gives
    num_yaw_rates: int = 3


def horizontal_shift_px(
    previous: Images, current: Images, *, camera: Camera, config: MotionConfig | None = None
) -> float:
    """Return how far the view around the horizon moved to the right, in pixels; turning left is positive.

    Args:
        previous: (H, W, 3) uint8, the earlier frame.
        current: (H, W, 3) uint8, the later frame.
        camera: Of both frames; its principal row is the horizon.
        config: The band and the reach.
    """
    curve = shift_correlation(previous, current, camera=camera, config=config or MotionConfig())
    best = int(np.argmax(curve))
    reach = len(curve) // 2
    return best - reach + _parabola_offset(curve, best)


def shift_correlation(
    previous: Images, current: Images, *, camera: Camera, config: MotionConfig
) -> FloatArray:
    """Return the normalised correlation (2 R + 1,) of the band for every shift from -R to R pixels."""
    height, width = previous.shape[:2]
    top = max(int(camera.cy_px - config.band_above_horizon * height), 0)
    bottom = min(int(camera.cy_px + config.band_below_horizon * height), height)
    # Rows that do not change sideways (the sky's gradient, the horizon itself) say nothing about a shift.
    a, b = (_without_row_means(frame[top:bottom] @ GRAY) for frame in (previous, current))
    reach = round(config.max_shift * width)
    scores = np.zeros(2 * reach + 1)
    for shift in range(-reach, reach + 1):
        left = a[:, max(-shift, 0) : width - max(shift, 0)]
        right = b[:, max(shift, 0) : width - max(-shift, 0)]
        left, right = left - left.mean(), right - right.mean()
        energy = float(np.sqrt(np.square(left).sum() * np.square(right).sum()))
        scores[shift + reach] = float((left * right).sum()) / energy if energy > 1e-3 else 0.0
    return scores


def _without_row_means(gray: NDArray[np.float32]) -> NDArray[np.float32]:
    return gray - gray.mean(axis=1, keepdims=True)


def _parabola_offset(curve: FloatArray, best: int) -> float:
    if not 0 < best < len(curve) - 1:
        return 0.0
    before, peak, after = curve[best - 1 : best + 2]
    bend = before - 2 * peak + after
    return float(0.5 * (before - after) / bend) if bend < -1e-9 else 0.0


def turning_px(frames: Images, *, camera: Camera, config: MotionConfig | None = None) -> float:
    """Return the median sideways shift per frame of (T, H, W, 3) frames: positive when the car turns left."""
    shifts = [
        horizontal_shift_px(previous, current, camera=camera, config=config)
        for previous, current in pairwise(frames)
    ]
    return float(np.median(shifts))


class RoadMotion:
    """Speed by moving the flat ground at every candidate speed and comparing it with what was seen."""

    def __init__(self, camera: Camera, *, rate_hz: float, config: MotionConfig | None = None) -> None:
        self.camera, self.dt_s, self.config = camera, 1.0 / rate_hz, config or MotionConfig()
        config = self.config
        self.speeds_mps = np.arange(0.0, config.max_speed_mps + 1e-9, config.speed_step_mps)
        reach = config.yaw_rate_reach_radps
        self.yaw_offsets_radps = np.linspace(-reach, reach, config.num_yaw_rates)
        self._rows_px, self._ground_xy_m = _ground_points(camera, config)

    def speed_mps(self, frames: Images) -> float:
        """Return the one speed that fits all steps of (T, H, W, 3) uint8 frames best."""
        curve = np.mean([self._fit(previous, current) for previous, current in pairwise(frames)], axis=0)
        best = int(curve.argmax())
        return float(self.speeds_mps[best] + _parabola_offset(curve, best) * self.config.speed_step_mps)

    def _fit(self, previous: Images, current: Images) -> FloatArray:
        """Return how well each candidate speed explains two frames, at the yaw rate that suits it best."""
        shift_px = horizontal_shift_px(previous, current, camera=self.camera, config=self.config)
        turned_radps = float(np.arctan(shift_px / self.camera.fx_px)) / self.dt_s
        scores = [self._scores(previous, current, turned_radps + d) for d in self.yaw_offsets_radps]
        return np.asarray(np.max(scores, axis=0))

    def _scores(self, previous: Images, current: Images, yaw_rate_radps: float) -> FloatArray:
        """Return the correlation of the later frame's ground with the earlier one's, per candidate speed."""
        source_BHW2 = torch.from_numpy(self._source_grid(yaw_rate_radps))
        gray_HW = torch.from_numpy(previous @ GRAY)
        num = len(self.speeds_mps)
        moved_BHW = functional.grid_sample(
            gray_HW.expand(num, 1, *gray_HW.shape), source_BHW2, align_corners=False, padding_mode="zeros"
        )[:, 0]
        is_seen_BHW = (source_BHW2.abs() < 1).all(dim=-1)
        target_HW = torch.from_numpy(current @ GRAY)[self._rows_px]
        return _masked_correlation(moved_BHW, target_HW.expand_as(moved_BHW), is_seen_BHW)

    def _source_grid(self, yaw_rate_radps: float) -> NDArray[np.float32]:
        """Return where (B, H, W, 2) the later frame's ground pixels lay in the earlier frame, in [-1, 1]."""
        camera = self.camera
        forward_m, above_m = camera.ego_from_cam[0, 3], camera.ego_from_cam[2, 3]
        dx_m, dy_m, dyaw_rad = np.transpose(
            [planar_motion(float(speed), yaw_rate_radps, self.dt_s) for speed in self.speeds_mps]
        ).astype(np.float32)[:, :, None, None]
        x_m, y_m = self._ground_xy_m
        cos, sin = np.cos(dyaw_rad[0]), np.sin(dyaw_rad[0])
        depth_m = np.maximum((cos * x_m - sin * y_m - forward_m) + dx_m, 0.1)
        left_m = (sin * x_m + cos * y_m) + dy_m
        column_px = camera.cx_px - camera.fx_px * left_m / depth_m
        row_px = camera.cy_px + camera.fy_px * above_m / depth_m
        grid = np.stack([2 * column_px / camera.width_px - 1, 2 * row_px / camera.height_px - 1], axis=-1)
        return np.asarray(grid, dtype=np.float32)


def _ground_points(camera: Camera, config: MotionConfig) -> tuple[slice, NDArray[np.float32]]:
    """Return the rows below the horizon and (2, rows, W) ego coordinates of their pixels on a flat ground."""
    first = int(np.ceil(camera.cy_px + config.ground_below_horizon * camera.height_px))
    rows = np.arange(first, camera.height_px) + 0.5
    columns = np.arange(camera.width_px) + 0.5
    depth_m = camera.fy_px * camera.ego_from_cam[2, 3] / (rows[:, None] - camera.cy_px)
    left_m = (camera.cx_px - columns[None, :]) / camera.fx_px * depth_m
    x_m = np.broadcast_to(depth_m + camera.ego_from_cam[0, 3], left_m.shape)
    return slice(first, camera.height_px), np.stack([x_m, left_m]).astype(np.float32)


def _masked_correlation(a_BHW: Tensor, b_BHW: Tensor, is_seen_BHW: Tensor) -> FloatArray:
    """Return (B,) normalised correlations over the pixels that both frames see."""
    a_BP, b_BP, seen_BP = (rearrange(x, "B H W -> B (H W)") for x in (a_BHW, b_BHW, is_seen_BHW.float()))
    count_B1 = seen_BP.sum(-1, keepdim=True).clamp_min(1)
    a_BP = (a_BP - (a_BP * seen_BP).sum(-1, keepdim=True) / count_B1) * seen_BP
    b_BP = (b_BP - (b_BP * seen_BP).sum(-1, keepdim=True) / count_B1) * seen_BP
    energy_B = (a_BP.square().sum(-1) * b_BP.square().sum(-1)).sqrt().clamp_min(1e-3)
    scores_B = (a_BP * b_BP).sum(-1) / energy_B
    is_enough_B = count_B1[:, 0] > 0.2 * seen_BP.shape[-1]
    return np.asarray(torch.where(is_enough_B, scores_B, -torch.ones_like(scores_B)).double().numpy())
