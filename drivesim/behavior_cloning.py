"""A driver by camera: picture, speed and command -> steering and target speed (behaviour cloning).

The picture is all it knows of the road: neither route points nor other cars are given. Trained by
``drivesim/training/behavior_cloning.py``. Letters: `B` pictures, `C H W` picture, `A` = 2 (steering, target speed).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from drivesim.checkpoint import load_module
from drivesim.scene.types import Command, Image
from drivesim.torchvision_guard import import_timm
from drivesim.video import resize

KIND = "driving-policy"
COMMANDS = tuple(Command)
"""The order in which commands are counted."""


@dataclass(kw_only=True, slots=True)
class CameraDriverConfig:
    """Sizes of the network and of what it sees."""

    backbone: str = "mobilenetv3_small_050"  # any timm model that gives features
    width_px: int = 112  # the picture is scaled to this size
    height_px: int = 64
    first_row: int = 16  # the sky above is not looked at
    channels: int = 24  # to which coarse features are narrowed
    hidden: int = 112
    dropout: float = 0.1
    max_steering_rad: float = 0.5
    max_speed_mps: float = 20.0

    def __post_init__(self) -> None:
        """Refuse a picture without rows and ranges that are not positive."""
        if not 0 <= self.first_row < self.height_px:
            raise ValueError(
                f"first_row must lie in the picture's {self.height_px} rows, got {self.first_row}"
            )
        for name in ("width_px", "channels", "hidden", "max_steering_rad", "max_speed_mps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class CameraDriver(nn.Module):
    """Features of a small timm backbone at two scales, and what the car and the route say, to an action."""

    def __init__(self, config: CameraDriverConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CameraDriverConfig()
        timm = import_timm()
        self.backbone = timm.create_model(
            config.backbone, pretrained=False, features_only=True, out_indices=(-2, -1)
        )
        fine, coarse = self.backbone.feature_info.channels()
        self.narrow = nn.ModuleList([nn.Conv2d(width, config.channels, 1) for width in (fine, coarse)])
        picture = torch.zeros(1, 3, config.height_px - config.first_row, config.width_px)
        with torch.no_grad():
            was_training = self.backbone.training
            seen = self.backbone.eval()(picture)
            self.backbone.train(was_training)
        num_seen = sum(config.channels * features[0, 0].numel() for features in seen)
        self.head = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(num_seen + 1 + len(COMMANDS), config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, 2),
        )

    def forward(self, picture_BCHW: Tensor, state_BV: Tensor) -> Tensor:
        """Return `[B, 2]` steering and target speed as shares of their largest values, not limited to them.

        Args:
            picture_BCHW: `[B, 3, H, W]` in [-1, 1], of :func:`view_of`.
            state_BV: `[B, 4]`: speed as a share of the largest, one-hot command; see :func:`state_of`.
        """
        seen = self.backbone(picture_BCHW.contiguous(memory_format=torch.channels_last))
        flat = [
            rearrange(narrow(features), "B C H W -> B (C H W)")
            for narrow, features in zip(self.narrow, seen, strict=True)
        ]
        action_BA: Tensor = self.head(torch.cat([*flat, state_BV], dim=-1))
        return action_BA

    @torch.inference_mode()
    def drive(self, frame: Image, *, speed_mps: float, command: Command) -> NDArray[np.float64]:
        """Return the (2,) steering in rad and target speed in m/s for a camera picture (H, W, 3), within limits."""
        config = self.config
        device = next(self.parameters()).device
        picture = torch.from_numpy(view_of(frame, config))[None].to(device)
        state = torch.from_numpy(state_of(np.array([speed_mps]), [command], config)).to(device)
        shares = self(as_input(picture), state)[0].double().cpu().numpy()
        steering, speed = float(np.clip(shares[0], -1, 1)), float(np.clip(shares[1], 0, 1))
        return np.array([steering * config.max_steering_rad, speed * config.max_speed_mps])


def view_of(frame: Image, config: CameraDriverConfig) -> Image:
    """Return the part of a picture that is looked at, small: (height_px - first_row, width_px, 3)."""
    small = resize(frame, config.width_px, config.height_px)
    return np.ascontiguousarray(small[config.first_row :])


def state_of(
    speed_mps: NDArray[np.float64], commands: list[Command], config: CameraDriverConfig
) -> NDArray[np.float32]:
    """Return (B, 4): speeds as shares of the largest, one-hot commands."""
    hot = np.array([[command is known for known in COMMANDS] for command in commands], dtype=np.float32)
    share = np.asarray(speed_mps, dtype=np.float32)[:, None] / config.max_speed_mps
    return np.concatenate([share, hot], axis=1).astype(np.float32)


def as_input(pictures_BHWC: Tensor) -> Tensor:
    """Turn uint8 `[B, H, W, 3]` into float `[B, 3, H, W]` in [-1, 1]."""
    return rearrange(pictures_BHWC, "B H W C -> B C H W").float() / 127.5 - 1.0


def load_camera_driver(name_or_path: str | Path = "driver-tiny", *, device: str = "cpu") -> CameraDriver:
    """Load a camera driver, in float32 and ready to drive.

    Raises:
        InputError: unknown weights, damaged, of another kind, or of shapes that do not fit their configuration.
    """
    return load_module(name_or_path, KIND, CameraDriverConfig, CameraDriver, device=device)
