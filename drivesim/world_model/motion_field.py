"""MotionField: how far away what stands above the ground is, and what moves by itself.

Two views with known motion between them show depth. The field compares the last frame with the one before at a few
candidate inverse depths (a plane sweep), and a small network turns that into one inverse depth and one displacement of
its own (moving cars) for each cell of the NEXT frame. Warping the last frame with it gives a sharp guess of the next
one. It is trained on nothing but frames and motion: the warped frame must look like the true one.

Letters: see ``drivesim/world_model/__init__.py``; `I` candidate inverse depths, `F` feature channels, `h w` cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn
from torch.nn import functional

from drivesim.tokenizer.convolution import Convolution
from drivesim.tokenizer.row_norm import RowGroupNorm
from drivesim.world_model.motion import (
    Compensated,
    Rays,
    Reprojection,
    flow_of,
    motion_after,
    planar_motion,
)

CELL_PX = 4
MATCH_PX = 2  # the plane sweep compares frames at this stride
BLUR_REACH = 2  # pixels at that stride over which the agreement of a pixel is blurred
DISPLACEMENT_SCALE_PX = 4.0
REFERENCE_INVERSE_DEPTH = 0.05  # whose parallax the network is shown


@dataclass(kw_only=True, slots=True)
class MotionFieldConfig:
    """Sizes of the network, and the inverse depths above the ground's that it chooses from."""

    widths: list[int] = field(default_factory=lambda: [48, 64, 96])
    inverse_depths: list[float] = field(
        default_factory=lambda: [0.0, 0.008, 0.018, 0.032, 0.05, 0.075, 0.11, 0.16, 0.24]
    )  # 1 / length along the ray, beyond the ground plane's

    def __post_init__(self) -> None:
        """Refuse candidates that are not rising from zero."""
        rising = all(a < b for a, b in zip(self.inverse_depths, self.inverse_depths[1:], strict=False))
        if len(self.inverse_depths) < 2 or self.inverse_depths[0] != 0 or not rising:
            raise ValueError(f"inverse_depths must rise from 0, got {self.inverse_depths}")
        if len(self.widths) != 3 or any(width % 8 for width in self.widths):
            raise ValueError(f"motion_field.widths must be three multiples of 8, got {self.widths}")


@dataclass(kw_only=True, slots=True)
class Expected:
    """The next frame as the motion field expects it."""

    compensated: Compensated
    features_BFHW: Tensor  # at a stride of CELL_PX
    displacement_B2HW: Tensor  # pixels: what moves beyond the motion of the camera


class CellBlock(nn.Module):
    """Group norm and two 3x3 convolutions, added to the input."""

    def __init__(self, channels: int) -> None:
        """Build the block; the second convolution starts at zero."""
        super().__init__()
        self.norm = RowGroupNorm(8, channels)
        self.conv_in = Convolution(channels, channels, 3, padding=1)
        self.conv_out = Convolution(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return ``x_BCHW`` plus its refinement."""
        h_BCHW = self.conv_in(functional.silu(self.norm(x_BCHW)))
        refined: Tensor = x_BCHW + self.conv_out(functional.silu(h_BCHW))
        return refined


class MotionField(nn.Module):
    """From the last two frames and the motion to the last frame as it should look from the next pose."""

    def __init__(self, config: MotionFieldConfig) -> None:
        """Build the network; untrained, it says that the world is flat and stands still."""
        super().__init__()
        low, middle, high = config.widths
        num_depths = len(config.inverse_depths)
        self.inverse_depths = tuple(config.inverse_depths)
        num_inputs = 6 * CELL_PX**2 + 2 + 2 * num_depths + 4
        self.stem = Convolution(num_inputs, low, 3, padding=1)
        self.low_in = CellBlock(low)
        self.to_middle = Convolution(low, middle, 3, stride=2, padding=1)
        self.middle_in = nn.Sequential(CellBlock(middle), CellBlock(middle))
        self.to_high = Convolution(middle, high, 3, stride=2, padding=1)
        self.high = nn.Sequential(CellBlock(high), CellBlock(high))
        self.from_high = Convolution(high, middle, 1)
        self.middle_out = CellBlock(middle)
        self.from_middle = Convolution(middle, low, 1)
        self.low_out = CellBlock(low)
        self.out = Convolution(low, num_depths + 2, 3, padding=1)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            self.out.bias[0] = 2.0
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def feature_channels(self) -> int:
        """Return F."""
        return self.out.in_channels

    def forward(
        self,
        last_BCHW: Tensor,
        earlier_BCHW: Tensor,
        rays: Rays,
        twist_BA: Tensor,
        last_twist_BA: Tensor,
        dt_s: float,
    ) -> Expected:
        """Return the last frame (B, 3, H, W) as seen from the next pose.

        Args:
            last_BCHW: the newest frame, in [-1, 1].
            earlier_BCHW: the frame before it.
            rays: of the camera.
            twist_BA: speed in m/s and yaw rate in rad/s that lead into the next frame.
            last_twist_BA: those that led into the newest frame.
            dt_s: time between frames.
        """
        device_type = last_BCHW.device.type
        is_autocast = torch.is_autocast_enabled(device_type)
        with torch.autocast(device_type, enabled=False):  # positions in bfloat16 are off by half a pixel
            last_BCHW, earlier_BCHW = last_BCHW.float(), earlier_BCHW.float()
            motion = planar_motion(twist_BA.float(), dt_s)
            two_steps = motion_after(motion, planar_motion(last_twist_BA.float(), dt_s))
            one, two = Reprojection(rays, motion), Reprojection(rays, two_steps)
            flat_BHW2, _ = one.pixels(rays.inverse_depth_HW.unsqueeze(0))
            earlier_flat_BHW2, _ = two.pixels(rays.inverse_depth_HW.unsqueeze(0))
            views, seen_BQhw = _flat_views(
                [(last_BCHW, one, flat_BHW2), (earlier_BCHW, two, earlier_flat_BHW2)]
            )
            evidence = [
                seen_BQhw,
                self._sweep(last_BCHW, earlier_BCHW, rays, motion, two_steps),
                _geometry(rays, one, flat_BHW2, twist_BA),
            ]
            dtype = self.stem.weight.dtype
            cells = [*(unshuffled(view.to(dtype)) for view in views), *(part.to(dtype) for part in evidence)]
            with torch.autocast(device_type, enabled=is_autocast):
                features_BFHW = self._features(joined(cells))
                out_BQhw = self.out(functional.silu(features_BFHW))
            field_BQHW = self._field(out_BQhw.float())
            pixels_BHW2, is_ahead_BHW = one.pixels(rays.inverse_depth_HW + field_BQHW[:, 0])
            pixels_BHW2 = pixels_BHW2 + rearrange(field_BQHW[:, 1:], "b xy h w -> b h w xy")
            compensated = Compensated(
                frames_BCHW=one.sample(last_BCHW, pixels_BHW2, is_sharp=True).clamp(-1, 1),
                is_seen_BHW=one.is_inside(pixels_BHW2) & is_ahead_BHW,
                flow_BHW2=flow_of(pixels_BHW2),
            )
        return Expected(
            compensated=compensated, features_BFHW=features_BFHW, displacement_B2HW=field_BQHW[:, 1:]
        )

    def _sweep(
        self,
        last_BCHW: Tensor,
        earlier_BCHW: Tensor,
        rays: Rays,
        motion: tuple[Tensor, Tensor],
        two_steps: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Return how badly the two frames agree at each candidate, absolute and relative (B, 2 I, h, w)."""
        count = len(self.inverse_depths)
        ground_1HW = rays.coarse(MATCH_PX).inverse_depth_HW.unsqueeze(0)
        rho_IHW = ground_1HW + rearrange(ground_1HW.new_tensor(self.inverse_depths), "i -> i 1 1")
        seen_at = []
        for frames, steps in ((last_BCHW, motion), (earlier_BCHW, two_steps)):
            reprojection = Reprojection(rays, steps, stride=MATCH_PX)
            small = functional.avg_pool2d(frames, MATCH_PX)
            seen_at.append(reprojection.sample(small, reprojection.stacked_pixels(rho_IHW)))
        difference = seen_at[0].sub_(seen_at[1]).abs_()
        cost = reduce(difference, "b c (i h) w -> b i h w", "mean", i=count)
        cost = _blurred(cost)
        cost = functional.avg_pool2d(cost, CELL_PX // MATCH_PX)
        return torch.cat([cost * 4, (cost - cost.mean(1, keepdim=True)) * 8], dim=1)

    def _features(self, x_BCHW: Tensor) -> Tensor:
        low = self.low_in(self.stem(x_BCHW))
        middle = self.middle_in(self.to_middle(functional.silu(low)))
        high = self.high(self.to_high(functional.silu(middle)))
        middle = self.middle_out(middle + functional.interpolate(self.from_high(high), scale_factor=2))
        features: Tensor = self.low_out(
            low + functional.interpolate(self.from_middle(middle), scale_factor=2)
        )
        return features

    def _field(self, out: Tensor) -> Tensor:
        """Return inverse depth beyond the ground's and own displacement in pixels, (B, 3, H, W)."""
        chosen = out[:, :-2].softmax(1)
        depths_I11 = rearrange(chosen.new_tensor(self.inverse_depths), "i -> i 1 1")
        inverse_depth_B1HW = (chosen * depths_I11).sum(1, keepdim=True)
        field_BQhw = torch.cat([inverse_depth_B1HW, out[:, -2:] * DISPLACEMENT_SCALE_PX], dim=1)
        return functional.interpolate(field_BQhw, scale_factor=CELL_PX, mode="bilinear")


def _flat_views(seen_from: Sequence[tuple[Tensor, Reprojection, Tensor]]) -> tuple[list[Tensor], Tensor]:
    """Return frames (B, 3, H, W) as they would look from the next pose in a flat world, and how much of a cell is seen.

    Args:
        seen_from: each frame (B, 3, H, W), its reprojection, and where that finds a flat world's pixels (B, H, W, 2).
    """
    views = [reprojection.sample(frames, pixels) for frames, reprojection, pixels in seen_from]
    seen = [reprojection.is_inside(pixels).float() for _, reprojection, pixels in seen_from]
    return views, _cells(torch.stack(seen, dim=1))


def _geometry(rays: Rays, one: Reprojection, flat_BHW2: Tensor, twist_BA: Tensor) -> Tensor:
    """Return per cell (B, 4, h, w): parallax of a reference depth, the ground's inverse depth, and the speed."""
    ground_1HW = rays.inverse_depth_HW.unsqueeze(0)
    parallax = one.pixels(ground_1HW + REFERENCE_INVERSE_DEPTH)[0] - flat_BHW2
    parallax = rearrange(parallax.clamp(-60, 60) / 10, "b h w xy -> b xy h w")
    batch, _, height, width = parallax.shape
    ground = repeat(ground_1HW * 5, "1 h w -> b 1 h w", b=batch)
    speed = repeat(twist_BA[:, 0].float() / 10, "b -> b 1 h w", h=height, w=width)
    return _cells(torch.cat([parallax, ground, speed], dim=1))


def _blurred(x_BCHW: Tensor) -> Tensor:
    """Return the mean over the pixels around each, as ``avg_pool2d`` does without padding, in a fifth of its time."""
    sums = _windows(_windows(functional.pad(x_BCHW, (BLUR_REACH,) * 4), -1), -2)
    rows, columns = (_counts(size, x_BCHW) for size in x_BCHW.shape[-2:])
    return sums / (rows.unsqueeze(-1) * columns)


def _counts(size: int, like: Tensor) -> Tensor:
    """Return how many places of a side of ``size`` lie in the window around each."""
    return _windows(functional.pad(like.new_ones(size), (BLUR_REACH,) * 2), -1)


def _windows(x: Tensor, dim: int) -> Tensor:
    """Return the sum over each window of 2 ``BLUR_REACH`` + 1 along ``dim``."""
    size = x.shape[dim] - 2 * BLUR_REACH
    total = x.narrow(dim, 0, size)
    for start in range(1, 2 * BLUR_REACH + 1):
        total = total + x.narrow(dim, start, size)
    return total


def unshuffled(x_BCHW: Tensor) -> Tensor:
    """Return ``pixel_unshuffle`` by ``CELL_PX``, channels last in memory."""
    x = rearrange(x_BCHW, "b c (h i) (w j) -> b h w (c i j)", i=CELL_PX, j=CELL_PX)
    return rearrange(x, "b h w c -> b c h w")


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return parts (B, ?, H, W) side by side, channels last in memory whatever the parts are."""
    x_BHWC = torch.cat([rearrange(part, "b c h w -> b h w c") for part in parts], dim=-1)
    return rearrange(x_BHWC, "b h w c -> b c h w")


def _cells(x_BCHW: Tensor) -> Tensor:
    return functional.avg_pool2d(x_BCHW, CELL_PX)
