"""Chance that moves with the picture: what a token is drawn by is carried along with what it shows.

Tokens that are drawn anew in every frame flicker, and a road that flickers does not flow. So each frame has a field of
unit normal noise, finer than its tokens. The next frame takes it from where its content was a frame before, renews a
share of it, and draws every token by the noise of its cell: under like probabilities it becomes the same token again.
(Diffusion models of video warp the noise they begin with for the same end: Chang et al., ICLR 2024.) Of a cell's
noise the mean around it is taken off, or whole regions would lean to one side and the light would drift; and it is
counted in its spread around there, which shrinks where driving on stretches the field.

Letters: see ``drivesim/world_model/__init__.py``; `h w` points of the field, a token covers ``POINTS`` x ``POINTS``.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from drivesim.world_model.motion import Compensated
from drivesim.world_model.sampler import Generators, draws

POINTS = 4
_BLUR_POINTS, _BLUR_REACH = 3.0, 6  # standard deviation of the kernel, and where it ends
_AROUND = 5  # cells: the neighbourhood whose mean is taken off


def no_noise(batch: int, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Return the field (B, h, w) of frames for which nothing was drawn: exact zeros, which nothing is carried from.

    Args:
        batch: B.
        grid: tokens down and across.
        device: where the model runs.
    """
    return torch.zeros(batch, POINTS * grid[0], POINTS * grid[1], device=device)


def next_noise(
    noise_BHW: Tensor, compensated: Compensated, memory: float, generator: Generators, is_drawn_B: Tensor
) -> Tensor:
    """Return the field (B, h, w) of the next frame.

    Args:
        noise_BHW: of the frame before.
        compensated: where what is seen next was in the frame before.
        memory: correlation with the noise carried along, in [0, 1).
        generator: of new noise, for all rows or one for each.
        is_drawn_B: rows that are drawn. The others take no number and are left without noise.
    """
    fresh_BHW = _smooth(draws(torch.randn, noise_BHW.shape, generator, is_drawn_B).to(noise_BHW.device))
    carried_BHW = _carried(noise_BHW, compensated)
    renewed_BHW = memory * carried_BHW + math.sqrt(1 - memory**2) * fresh_BHW
    next_BHW = torch.where(carried_BHW == 0, fresh_BHW, renewed_BHW)
    return torch.where(is_drawn_B.to(next_BHW.device).view(-1, 1, 1), next_BHW, torch.zeros_like(next_BHW))


def uniform_of(noise_BHW: Tensor) -> Tensor:
    """Return the number (B, S) in [0, 1) by which each token is drawn."""
    inner = slice((POINTS - 1) // 2, POINTS // 2 + 1)
    points = rearrange(noise_BHW, "b (h i) (w j) -> b h w i j", i=POINTS, j=POINTS)[..., inner, inner]
    cells_BHW = points.mean(dim=(-2, -1))
    apart_BHW = cells_BHW - _around(cells_BHW)
    spread_BHW = _around(apart_BHW.square()).sqrt().clamp_min(1e-6)
    return rearrange(torch.special.ndtr(apart_BHW / spread_BHW), "b h w -> b (h w)").clamp_max(1 - 1e-6)


def _around(cells_BHW: Tensor) -> Tensor:
    """Return the mean over the neighbourhood of each cell."""
    mean_B1HW = functional.avg_pool2d(
        cells_BHW.unsqueeze(1), _AROUND, stride=1, padding=_AROUND // 2, count_include_pad=False
    )
    return mean_B1HW.squeeze(1)


def _carried(noise_BHW: Tensor, compensated: Compensated) -> Tensor:
    """Return the field from where the content of each point was; zero where that was not in the picture."""
    batch, height, width = noise_BHW.shape
    stride_px = compensated.flow_BHW2.shape[1] // height
    flow = rearrange(compensated.flow_BHW2, "b h w xy -> b xy h w")
    flow_B2HW = functional.avg_pool2d(flow, stride_px) / stride_px
    seen_BHW = functional.avg_pool2d(compensated.is_seen_BHW.float().unsqueeze(1), stride_px).squeeze(1)
    rows = torch.arange(height, device=noise_BHW.device).view(-1, 1)
    columns = torch.arange(width, device=noise_BHW.device)
    from_column = (columns + flow_B2HW[:, 0]).round().long()
    from_row = (rows + flow_B2HW[:, 1]).round().long()
    is_inside = (from_column >= 0) & (from_column < width) & (from_row >= 0) & (from_row < height)
    place = from_row.clamp(0, height - 1) * width + from_column.clamp(0, width - 1)
    moved_BHW = noise_BHW.flatten(1).gather(1, place.flatten(1)).view(batch, height, width)
    return torch.where(is_inside & (seen_BHW > 0.5), moved_BHW, torch.zeros_like(moved_BHW))


def _smooth(noise_BHW: Tensor) -> Tensor:
    """Return white unit noise with the kernel's correlation, of unit variance still."""
    reach = torch.arange(-_BLUR_REACH, _BLUR_REACH + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (reach / _BLUR_POINTS) ** 2)
    weights = (kernel / kernel.square().sum().sqrt()).tolist()
    for dim in (-2, -1):
        size = noise_BHW.shape[dim]
        places = torch.arange(-_BLUR_REACH, size + _BLUR_REACH, device=noise_BHW.device) % size
        around = noise_BHW.index_select(dim, places)
        smooth_BHW = torch.zeros_like(noise_BHW)
        # Added up one by one: the same for a row whatever its neighbours are.
        for start, weight in enumerate(weights):
            smooth_BHW.add_(around.narrow(dim, start, size), alpha=weight)
        noise_BHW = smooth_BHW
    return noise_BHW
