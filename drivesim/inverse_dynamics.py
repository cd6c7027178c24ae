"""Inverse dynamics model (IDM): two neighbouring frames -> speed, yaw rate, and how sure it is of them.

It reads motion out of imagined pictures, so that trajectory error can be measured without a ground truth. What moved
where is laid open first: every place of the later frame is compared with its neighbourhood in the earlier one (a cost
volume, as in FlowNet), and a small network reads speed and yaw rate from the comparison.
Letters: `B` batch, `H W` pixels, `C` channels, `R` rows and `X` columns of cells, `D` displacements,
`A` = 2 (speed in m/s, yaw rate in rad/s).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from drivesim.checkpoint import config_from_json, load_state, read_checkpoint, resolve_weights
from drivesim.tokenizer.vqgan import normalized

MIN_LOG_VARIANCE, MAX_LOG_VARIANCE = -8.0, 4.0


@dataclass(kw_only=True, slots=True)
class InverseDynamicsConfig:
    """Sizes of the network, and the units that make its targets of order one."""

    height_px: int = 128
    width_px: int = 224
    rate_hz: float = 6.0
    unshuffle: int = 4
    feature_channels: int = 32  # by which cells of unshuffle x unshuffle pixels are compared
    reach_rows: int = 3  # cells that a place is searched for up and down
    reach_columns: int = 8  # and to the sides
    widths: list[int] = field(default_factory=lambda: [64, 96])
    blocks: list[int] = field(default_factory=lambda: [1, 1])
    head_channels: int = 16
    head_width: int = 96
    typical_speed_mps: float = 8.0
    speed_scale_mps: float = 5.0
    yaw_rate_scale_radps: float = 0.3
    readable_speed_std_mps: float = 2.0
    readable_yaw_rate_std_radps: float = 0.15

    def __post_init__(self) -> None:
        """Refuse sizes that the strides do not divide and scales that are not positive."""
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ValueError(f"widths {self.widths} and blocks {self.blocks} need one entry per level")
        stride = self.unshuffle * 2 ** len(self.widths)
        if self.height_px % stride or self.width_px % stride:
            raise ValueError(f"frames of {self.height_px}x{self.width_px} px are not divisible by {stride}")
        for name in ("rate_hz", "speed_scale_mps", "yaw_rate_scale_radps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of the coarsest level."""
        stride = self.unshuffle * 2 ** len(self.widths)
        return self.height_px // stride, self.width_px // stride


@dataclass(kw_only=True, slots=True)
class TwistEstimate:
    """Motion read from a frame pair, with the standard deviation that the model expects of its error."""

    twist_BA: Tensor  # (B, 2) speed m/s, yaw rate rad/s
    std_BA: Tensor  # (B, 2) same units
    is_readable_B: Tensor  # (B,) bool: both standard deviations below the limits of the config


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


def compared(previous_BCRX: Tensor, current_BCRX: Tensor, *, reach_rows: int, reach_columns: int) -> Tensor:
    """Return the cost volume (B, D, R, X): products of each cell with the earlier cells around it.

    Displacement ``(dy, dx)`` stands at ``(dy + reach_rows) * (2 * reach_columns + 1) + dx + reach_columns``; cells
    outside the earlier frame give 0. Whole rows are multiplied at once, then the near diagonals are kept.
    """
    rows, columns = current_BCRX.shape[-2:]
    padded = functional.pad(previous_BCRX, (0, 0, reach_rows, reach_rows))
    shifted = torch.stack([padded[:, :, k : k + rows] for k in range(2 * reach_rows + 1)], dim=1)
    products = torch.matmul(
        rearrange(current_BCRX, "B C R X -> B 1 R X C"), rearrange(shifted, "B K C R X -> B K R C X")
    )
    products = functional.pad(products, (reach_columns, reach_columns))
    here = torch.arange(columns, device=products.device).unsqueeze(-1)
    index = here + torch.arange(2 * reach_columns + 1, device=products.device)
    near = products.gather(-1, index.expand(*products.shape[:-1], -1))
    return rearrange(near, "B K R X D -> B (K D) R X")


class InverseDynamics(nn.Module):
    """A small network from two frames at 1/rate_hz distance to the motion between them."""

    offset_A: Tensor
    scale_A: Tensor

    def __init__(self, config: InverseDynamicsConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or InverseDynamicsConfig()
        self.features = nn.Sequential(
            nn.PixelUnshuffle(config.unshuffle),
            nn.Conv2d(3 * config.unshuffle**2, config.feature_channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(config.feature_channels, config.feature_channels, 3, padding=1),
        )
        num_displacements = (2 * config.reach_rows + 1) * (2 * config.reach_columns + 1)
        widths = [num_displacements + config.feature_channels, *config.widths]
        layers: list[nn.Module] = []
        for level, num_blocks in enumerate(config.blocks):
            layers.append(nn.Conv2d(widths[level], widths[level + 1], 3, stride=2, padding=1))
            layers += [ResidualBlock(widths[level + 1]) for _ in range(num_blocks)]
        layers += [nn.SiLU(), nn.Conv2d(widths[-1], config.head_channels, 1)]
        self.trunk = nn.Sequential(*layers)
        rows, columns = config.grid
        self.head = nn.Sequential(
            nn.LayerNorm(config.head_channels * rows * columns),
            nn.Linear(config.head_channels * rows * columns, config.head_width),
            nn.SiLU(),
            nn.Linear(config.head_width, 4),
        )
        self.register_buffer("offset_A", torch.tensor([config.typical_speed_mps, 0.0]), persistent=False)
        scale = torch.tensor([config.speed_scale_mps, config.yaw_rate_scale_radps])
        self.register_buffer("scale_A", scale, persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def normalised(self, previous_BCHW: Tensor, current_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mean_BA, log_variance_BA) in units of the config's scales, for the training loss.

        Args:
            previous_BCHW: `[B, 3, H, W]` in [-1, 1], the earlier frame.
            current_BCHW: `[B, 3, H, W]` in [-1, 1], 1/rate_hz later.
        """
        expected = (3, self.config.height_px, self.config.width_px)
        for frames_BCHW in (previous_BCHW, current_BCHW):
            if tuple(frames_BCHW.shape[1:]) != expected:
                shape = tuple(frames_BCHW.shape)
                raise ValueError(f"the IDM reads frames of shape [B, {expected}], got {shape}")
        both_BCHW = torch.cat([previous_BCHW, current_BCHW]).contiguous(memory_format=torch.channels_last)
        previous_BCRX, current_BCRX = self.features(both_BCHW).chunk(2)
        costs_BDRX = compared(
            functional.normalize(previous_BCRX, dim=1),
            functional.normalize(current_BCRX, dim=1),
            reach_rows=self.config.reach_rows,
            reach_columns=self.config.reach_columns,
        )
        features_BCHW = self.trunk(torch.cat([costs_BDRX, current_BCRX.to(costs_BDRX.dtype)], dim=1))
        output = self.head(rearrange(features_BCHW, "B C H W -> B (C H W)")).float()
        mean_BA, log_variance_BA = output.chunk(2, dim=-1)
        return mean_BA, log_variance_BA.clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)

    def forward(self, previous_BCHW: Tensor, current_BCHW: Tensor) -> Tensor:
        """Return `[B, 2]` speed in m/s and yaw rate in rad/s of the motion from one frame to the next.

        Args:
            previous_BCHW: `[B, 3, H, W]` in [-1, 1].
            current_BCHW: `[B, 3, H, W]` in [-1, 1].
        """
        mean_BA, _ = self.normalised(previous_BCHW, current_BCHW)
        return self.in_units(mean_BA)

    def in_units(self, mean_BA: Tensor) -> Tensor:
        """Turn `[B, 2]` network outputs into m/s and rad/s."""
        twist_BA: Tensor = mean_BA * self.scale_A + self.offset_A
        return twist_BA

    def in_scales(self, twist_BA: Tensor) -> Tensor:
        """Turn `[B, 2]` m/s and rad/s into the network's units."""
        mean_BA: Tensor = (twist_BA - self.offset_A) / self.scale_A
        return mean_BA

    @torch.no_grad()
    def estimate(self, previous_BHWC: Tensor, current_BHWC: Tensor) -> TwistEstimate:
        """Read the motion between two uint8 frames and tell whether it could be read.

        Args:
            previous_BHWC: `[B, H, W, 3]` uint8 RGB.
            current_BHWC: `[B, H, W, 3]` uint8 RGB, 1/rate_hz later.
        """
        previous_BCHW = normalized(previous_BHWC.to(self.scale_A.device))
        current_BCHW = normalized(current_BHWC.to(self.scale_A.device))
        mean_BA, log_variance_BA = self.normalised(previous_BCHW, current_BCHW)
        std_BA = (0.5 * log_variance_BA).exp() * self.scale_A
        limits = (self.config.readable_speed_std_mps, self.config.readable_yaw_rate_std_radps)
        is_readable_B = (std_BA < std_BA.new_tensor(limits)).all(dim=-1)
        return TwistEstimate(twist_BA=self.in_units(mean_BA), std_BA=std_BA, is_readable_B=is_readable_B)


def twist_loss(mean_BA: Tensor, log_variance_BA: Tensor, target_BA: Tensor) -> Tensor:
    """Return the Gaussian negative log-likelihood, weighted by the variance's square root (beta-NLL, 0.5).

    All three `[B, 2]` in the network's units. The weight keeps hard pairs from being given up early.
    """
    variance_BA = log_variance_BA.exp()
    nll_BA = functional.gaussian_nll_loss(mean_BA, target_BA, variance_BA, reduction="none")
    return (nll_BA * variance_BA.detach().sqrt()).mean()


def load_inverse_dynamics(
    name_or_path: str | Path = "inverse-dynamics", *, device: str = "cpu"
) -> InverseDynamics:
    """Load an IDM for reading motion, in float32.

    Raises:
        InputError: unknown weights, damaged, of another kind, or of shapes that do not fit their configuration.
    """
    checkpoint = read_checkpoint(resolve_weights(name_or_path), kind="inverse-dynamics")
    model = InverseDynamics(config_from_json(InverseDynamicsConfig, checkpoint.config))
    load_state(model, checkpoint)
    return model.to(device).eval().requires_grad_(False)
