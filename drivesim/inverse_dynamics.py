"""Inverse dynamics model (IDM): two neighbouring frames -> speed, yaw rate, and how sure it is of them.

It reads motion out of imagined pictures, so that trajectory error can be measured without a ground truth. Geometry does
what it can (``frame_comparison.py``): the turn is read first, coarsely; then the earlier frame is turned back by it and
the ground is laid over the later one at candidate speeds. Small networks vote, place by place, for bins of yaw rate and
speed; the votes' softmax gives value and standard deviation. The camera is part of the model: see ``camera`` below.
Letters: `B` pairs, `C H W` picture, `R X` cells, `Y` bins of yaw rate, `V` of speed, `D` of yaw rate about the first
reading, `A` = 2 (speed in m/s, yaw rate in rad/s).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn import functional

from drivesim.checkpoint import load_module
from drivesim.frame_comparison import CELL_PX, FrameComparison, planes, sideways_differences
from drivesim.scene.types import Camera, front_camera
from drivesim.tokenizer.vqgan import normalized

BESIDE_MEAN = 2  # per reach: -reach..reach, and the mean difference
KINDS = 2  # of differences: brightness and contrast
FIRST_TRUST = -3.0  # before the softplus
VOTE_SCALE = 8.0  # keeps the sum over all places of order one at the start of training


@dataclass(kw_only=True, slots=True)
class InverseDynamicsConfig:
    """Sizes of the networks, what is searched, and when a reading counts."""

    height_px: int = 128
    width_px: int = 224
    rate_hz: float = 6.0
    max_speed_mps: float = 24.0
    num_speeds: int = 25  # bins that are voted for
    max_candidate_mps: float = 22.0
    num_candidates: int = 17  # speeds at which the ground is compared
    max_yaw_rate_radps: float = 1.25
    num_yaw_rates: int = 51
    max_yaw_rate_error_radps: float = 0.24  # of the first reading; the second searches this far about it
    num_yaw_rate_errors: int = 25
    turn_reach: int = 9  # shifts of 4 pixels to each side for the first reading
    parallax_reach: int = 8  # shifts of 2 pixels to each side for the second
    num_rounds: int = 2  # the second reading, about the last one's yaw rate
    appearance_channels: int = 16
    turn_widths: list[int] = field(default_factory=lambda: [32, 48])
    motion_widths: list[int] = field(default_factory=lambda: [64, 96])
    readable_speed_std_mps: float = 2.5
    readable_yaw_rate_std_radps: float = 0.1

    def __post_init__(self) -> None:
        """Refuse sizes that the strides do not divide and ranges that are not positive."""
        if self.height_px % self.stride or self.width_px % self.stride:
            raise ValueError(
                f"frames of {self.height_px}x{self.width_px} px are not divisible by {self.stride}"
            )
        for name in ("rate_hz", "max_speed_mps", "max_candidate_mps", "max_yaw_rate_radps", "num_rounds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @property
    def stride(self) -> int:
        """Return the pixels per place and side at which votes are cast."""
        return CELL_PX * 4


@dataclass(kw_only=True, slots=True)
class TwistEstimate:
    """Motion read from a frame pair, with the standard deviation that the model expects of its error."""

    twist_BA: Tensor  # (B, 2) speed m/s, yaw rate rad/s
    std_BA: Tensor  # (B, 2) same units
    is_readable_B: Tensor  # (B,) bool: both standard deviations below the limits of the config


@dataclass(kw_only=True, slots=True)
class MotionVotes:
    """Logits of a pair's motion: of the second reading, which looks about a first yaw rate."""

    speed_BV: Tensor
    yaw_rate_error_BD: Tensor
    about_yaw_rate_B: Tensor  # rad/s; the errors are counted from here


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group norm, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the input plus what the block found; same shape."""
        refined_BCHW: Tensor = x_BCHW + self.layers(x_BCHW)
        return refined_BCHW


@dataclass(kw_only=True, slots=True)
class Fit:
    """How well each candidate fits at each place, as a vote of its own."""

    fit_BKRX: Tensor  # 0 is no better than the other candidates, 1 is perfect
    bins_from_candidates_VK: Tensor

    @classmethod
    def of_both_kinds(cls, found_BCRX: Tensor, bins_from_candidates_VK: Tensor, stride: int) -> list[Fit]:
        """Return the fits of brightness and contrast at ``stride`` cells, from :func:`differences`."""
        found = functional.avg_pool2d(found_BCRX, stride) if stride > 1 else found_BCRX
        return [
            cls(fit_BKRX=1 - kind[:, :-1], bins_from_candidates_VK=bins_from_candidates_VK)
            for kind in found.chunk(KINDS, dim=1)
        ]


class VotingNetwork(nn.Module):
    """Differences by cell -> logits of bins, added over all places as if these were independent.

    A place votes in two ways: with each candidate's fit, as far as the network trusts the fit there, and freely. At
    first there are no free votes, and all places are trusted alike: the search over candidates without any learning.
    """

    def __init__(
        self,
        num_channels: int,
        widths: list[int],
        num_bins: int,
        *,
        places: tuple[int, int],
        stem_stride: int,
    ) -> None:
        super().__init__()
        near, wide = widths
        self.stem = nn.Conv2d(num_channels, near, 3, stride=stem_stride, padding=1)
        self.place = nn.Parameter(torch.zeros(1, near, *places))
        self.near = nn.Sequential(ResidualBlock(near), nn.SiLU())
        self.trust = nn.Conv2d(near, KINDS * 2, 1)
        free = nn.Conv2d(wide, num_bins, 1)
        self.free = nn.Sequential(
            nn.Conv2d(near, wide, 3, stride=2, padding=1), ResidualBlock(wide), nn.SiLU(), free
        )
        with torch.no_grad():
            for parameter in (self.trust.weight, *free.parameters()):
                parameter.zero_()
            self.trust.bias.fill_(FIRST_TRUST)  # type: ignore[union-attr]

    def forward(self, x_BCRX: Tensor, fits: list[Fit]) -> Tensor:
        """Return `[B, num_bins]` logits; fits are at the places, one or two pairs of them."""
        near_BCRX = self.near(self.stem(x_BCRX) + self.place)
        trust_BFRX = functional.softplus(self.trust(near_BCRX).float())
        logits_BV = reduce(self.free(near_BCRX).float(), "B V R X -> B V", "sum") / VOTE_SCALE
        for fit, trust_BRX in zip(fits, trust_BFRX.unbind(1), strict=False):
            votes_BK = reduce(fit.fit_BKRX * trust_BRX.unsqueeze(1), "B K R X -> B K", "sum")
            logits_BV = logits_BV + (votes_BK.unsqueeze(1) * fit.bins_from_candidates_VK).sum(dim=-1)
        return logits_BV


class InverseDynamics(nn.Module):
    """Small networks from two frames at 1/rate_hz distance to the motion between them.

    Args:
        config: Sizes; the shipped ones by default.
        camera: Of the frames, :func:`drivesim.scene.types.front_camera` by default. The geometry follows it; what the
            networks have learned about where things stand holds for cameras much like the one of the training.
    """

    speeds_V: Tensor
    yaw_rates_Y: Tensor
    yaw_rate_errors_D: Tensor
    speed_votes_VK: Tensor
    turn_votes_YK: Tensor
    error_votes_DK: Tensor

    def __init__(self, config: InverseDynamicsConfig | None = None, *, camera: Camera | None = None) -> None:
        super().__init__()
        self.config = config = config or InverseDynamicsConfig()
        camera = camera or front_camera()
        if (camera.height_px, camera.width_px) != (config.height_px, config.width_px):
            camera = camera.resized(width_px=config.width_px, height_px=config.height_px)
        candidates = torch.linspace(0, config.max_candidate_mps, config.num_candidates).tolist()
        self.comparison = FrameComparison(camera, dt_s=1 / config.rate_hz, speeds_mps=candidates)
        self.appearance = nn.Sequential(
            nn.PixelUnshuffle(CELL_PX), nn.Conv2d(3 * CELL_PX**2, config.appearance_channels, 3, padding=1)
        )
        places = config.height_px // (2 * CELL_PX), config.width_px // (2 * CELL_PX)
        num_turned = KINDS * (2 * config.turn_reach + BESIDE_MEAN) + config.appearance_channels
        self.turn = VotingNetwork(
            num_turned, config.turn_widths, config.num_yaw_rates, places=places, stem_stride=1
        )
        num_ground = KINDS * (config.num_candidates + 1)
        num_sideways = KINDS * (2 * config.parallax_reach + BESIDE_MEAN)
        self.motion = VotingNetwork(
            num_ground + num_sideways + config.appearance_channels,
            config.motion_widths,
            config.num_speeds + config.num_yaw_rate_errors,
            places=places,
            stem_stride=2,
        )
        self._add_bins(camera, candidates)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _add_bins(self, camera: Camera, candidates: list[float]) -> None:
        """Register the bins' values and, for each search, how a candidate's vote is spread over them."""
        config = self.config
        reach, error = config.max_yaw_rate_radps, config.max_yaw_rate_error_radps
        speeds_V = torch.linspace(0, config.max_speed_mps, config.num_speeds)
        yaw_rates_Y = torch.linspace(-reach, reach, config.num_yaw_rates)
        errors_D = torch.linspace(-error, error, config.num_yaw_rate_errors)
        turns_K = _yaw_rates_of_shifts(config.turn_reach, CELL_PX, camera, config.rate_hz)
        errors_K = _yaw_rates_of_shifts(config.parallax_reach, CELL_PX // 2, camera, config.rate_hz)
        buffers = {
            "speeds_V": speeds_V,
            "yaw_rates_Y": yaw_rates_Y,
            "yaw_rate_errors_D": errors_D,
            "speed_votes_VK": _spread(torch.tensor(candidates), speeds_V),
            "turn_votes_YK": _spread(turns_K, yaw_rates_Y),
            "error_votes_DK": _spread(errors_K, errors_D),
        }
        # A speed says nothing of the error of the yaw rate, and the other way round.
        num_speeds, num_errors = len(speeds_V), len(errors_D)
        buffers["speed_votes_VK"] = functional.pad(buffers["speed_votes_VK"], (0, 0, 0, num_errors))
        buffers["error_votes_DK"] = functional.pad(buffers["error_votes_DK"], (0, 0, num_speeds, 0))
        for name, values in buffers.items():
            self.register_buffer(name, values.contiguous(), persistent=False)

    def turn_votes(self, previous_BCHW: Tensor, current_BCHW: Tensor) -> Tensor:
        """Return `[B, Y]` logits of the yaw rate, read coarsely from how the view shifted.

        Args:
            previous_BCHW: `[B, 3, H, W]` in [-1, 1], the earlier frame.
            current_BCHW: `[B, 3, H, W]` in [-1, 1], 1/rate_hz later.
        """
        self._check(previous_BCHW, current_BCHW)
        with torch.no_grad(), torch.autocast(current_BCHW.device.type, enabled=False):
            small = [planes(functional.avg_pool2d(x.float(), 2)) for x in (previous_BCHW, current_BCHW)]
            found = sideways_differences(small[0], small[1], reach=self.config.turn_reach, step=1)
        seen = functional.avg_pool2d(self._appearance(current_BCHW), 2)
        fits = Fit.of_both_kinds(found, self.turn_votes_YK, stride=1)
        logits_BY: Tensor = self.turn(torch.cat([found.to(seen.dtype), seen], dim=1), fits)
        return logits_BY

    def motion_votes(
        self, previous_BCHW: Tensor, current_BCHW: Tensor, about_yaw_rate_B: Tensor
    ) -> MotionVotes:
        """Return the votes for speed and for the error of ``about_yaw_rate_B``; frames as in :meth:`turn_votes`."""
        # In bfloat16 a position in the picture would be off by half a pixel.
        with torch.no_grad(), torch.autocast(current_BCHW.device.type, enabled=False):
            turned = planes(self.comparison.turned_back(previous_BCHW, about_yaw_rate_B))
            current = planes(current_BCHW)
            ground = self.comparison.ground_differences(turned, current, about_yaw_rate_B)
            sideways = sideways_differences(turned, current, reach=self.config.parallax_reach, step=1)
        seen = self._appearance(current_BCHW)
        fits = [
            *Fit.of_both_kinds(ground, self.speed_votes_VK, stride=2),
            *Fit.of_both_kinds(sideways, self.error_votes_DK, stride=2),
        ]
        logits = self.motion(torch.cat([ground.to(seen.dtype), sideways.to(seen.dtype), seen], dim=1), fits)
        speed_BV, error_BD = logits.split([len(self.speeds_V), len(self.yaw_rate_errors_D)], dim=-1)
        return MotionVotes(speed_BV=speed_BV, yaw_rate_error_BD=error_BD, about_yaw_rate_B=about_yaw_rate_B)

    def _appearance(self, current_BCHW: Tensor) -> Tensor:
        seen_BCRX: Tensor = self.appearance(current_BCHW.contiguous(memory_format=torch.channels_last))
        return seen_BCRX

    def _check(self, *frames: Tensor) -> None:
        expected = (3, self.config.height_px, self.config.width_px)
        for frames_BCHW in frames:
            if tuple(frames_BCHW.shape[1:]) != expected:
                shape = tuple(frames_BCHW.shape)
                raise ValueError(f"the IDM reads frames of shape [B, {expected}], got {shape}")

    def read(self, previous_BCHW: Tensor, current_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return `[B, 2]` speed and yaw rate, and `[B, 2]` their standard deviations, in m/s and rad/s."""
        yaw_rate_B, _ = moments(self.turn_votes(previous_BCHW, current_BCHW), self.yaw_rates_Y)
        for _ in range(self.config.num_rounds):
            votes = self.motion_votes(previous_BCHW, current_BCHW, yaw_rate_B)
            error_B, yaw_rate_std_B = moments(votes.yaw_rate_error_BD, self.yaw_rate_errors_D)
            yaw_rate_B = yaw_rate_B + error_B
        speed_B, speed_std_B = moments(votes.speed_BV, self.speeds_V)
        return torch.stack([speed_B, yaw_rate_B], dim=-1), torch.stack([speed_std_B, yaw_rate_std_B], dim=-1)

    def forward(self, previous_BCHW: Tensor, current_BCHW: Tensor) -> Tensor:
        """Return `[B, 2]` speed in m/s and yaw rate in rad/s of the motion from one frame to the next.

        Args:
            previous_BCHW: `[B, 3, H, W]` in [-1, 1].
            current_BCHW: `[B, 3, H, W]` in [-1, 1].
        """
        return self.read(previous_BCHW, current_BCHW)[0]

    @torch.no_grad()
    def estimate(self, previous_BHWC: Tensor, current_BHWC: Tensor) -> TwistEstimate:
        """Read the motion between two uint8 frames and tell whether it could be read.

        Args:
            previous_BHWC: `[B, H, W, 3]` uint8 RGB.
            current_BHWC: `[B, H, W, 3]` uint8 RGB, 1/rate_hz later.
        """
        previous_BCHW = normalized(previous_BHWC.to(self.speeds_V.device))
        current_BCHW = normalized(current_BHWC.to(self.speeds_V.device))
        twist_BA, std_BA = self.read(previous_BCHW, current_BCHW)
        limits = (self.config.readable_speed_std_mps, self.config.readable_yaw_rate_std_radps)
        is_readable_B = (std_BA < std_BA.new_tensor(limits)).all(dim=-1)
        return TwistEstimate(twist_BA=twist_BA, std_BA=std_BA, is_readable_B=is_readable_B)


def _yaw_rates_of_shifts(reach: int, step_px: int, camera: Camera, rate_hz: float) -> Tensor:
    """Return the yaw rates that show far things at ``-reach..reach`` steps in the earlier frame: left is positive."""
    shifts_px = step_px * torch.arange(-reach, reach + 1, dtype=torch.float32)
    return -torch.atan(shifts_px / camera.fx_px) * rate_hz


def _spread(candidates_K: Tensor, bins_V: Tensor) -> Tensor:
    """Return (V, K): what a candidate's vote counts for a bin, falling to 0 at the next candidate."""
    gap = (candidates_K[1:] - candidates_K[:-1]).abs().mean()
    return (1 - (bins_V.unsqueeze(-1) - candidates_K).abs() / gap).clamp_min(0)


def moments(logits_BK: Tensor, values_K: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (B,) of values under the softmax of logits `[B, K]`."""
    share_BK = logits_BK.float().softmax(dim=-1)
    mean_B = (share_BK * values_K).sum(dim=-1)
    variance_B = (share_BK * (values_K - mean_B.unsqueeze(-1)).square()).sum(dim=-1)
    return mean_B, variance_B.sqrt()


def bin_loss(logits_BK: Tensor, target_B: Tensor, values_K: Tensor) -> Tensor:
    """Return the cross-entropy against targets shared between their two neighbouring bins; ends take what is beyond.

    Args:
        logits_BK: `[B, K]`.
        target_B: `[B]` in the units of the bins.
        values_K: `[K]` evenly spaced, rising.
    """
    position_B = (target_B - values_K[0]) / (values_K[1] - values_K[0])
    position_B1 = position_B.clamp(0, len(values_K) - 1).unsqueeze(-1)
    share_BK = (1 - (position_B1 - torch.arange(len(values_K), device=target_B.device)).abs()).clamp_min(0)
    return -(share_BK * logits_BK.float().log_softmax(dim=-1)).sum(dim=-1).mean()


def load_inverse_dynamics(
    name_or_path: str | Path = "inverse-dynamics", *, device: str = "cpu", camera: Camera | None = None
) -> InverseDynamics:
    """Load an IDM for reading motion, in float32.

    Args:
        name_or_path: A shipped name or a file.
        device: Where it runs.
        camera: Of the frames that will be read; by default the front camera that the shipped weights learned with.

    Raises:
        InputError: unknown weights, damaged, of another kind, or of shapes that do not fit their configuration.
    """
    build_fn = partial(InverseDynamics, camera=camera)
    return load_module(name_or_path, "inverse-dynamics", InverseDynamicsConfig, build_fn, device=device)
