"""What the hazard head reads of a world state: pictures, tokens, and facts about the motion and the map.

Letters: see ``drivesim/hazard.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from drivesim.dynamics import VehicleConfig
from drivesim.scene.geometry import FloatArray
from drivesim.scene.road_map import RoadMap
from drivesim.world_model.conditioning import SPEED_SCALE_MPS, YAW_RATE_SCALE_RADPS
from drivesim.world_model.world_state import WorldState

EVENTS = ("collision", "off_road")
PICTURE_STRIDE = 4
NUM_PICTURES = 2  # the newest and the one before
YAW_RATE_CHANGES = (-0.35, 0.0, 0.35)  # rad/s; the car is also followed as if it steered a little
NUM_CORNERS = 5  # of the car, its middle included
AHEAD_M = (2.0, 26.0)  # from the rear axle: where the head learns to say where other cars are
ACROSS_M = (-7.5, 7.5)
CELLS = (6, 5)  # ahead and across
DEPTH_SCALE = 4.0  # the logarithm of 60 imagined frames


@dataclass(kw_only=True, slots=True)
class HazardConfig:
    """Sizes of the head, its calibration, and the thresholds that turn probabilities into decisions."""

    height_px: int = 128
    width_px: int = 224
    rate_hz: float = 6.0
    num_steps: int = 6  # looked ahead: one second
    fsq_levels: list[int] = field(default_factory=lambda: [8, 8, 6, 5])  # of the world model's tokenizer
    picture_widths: list[int] = field(default_factory=lambda: [24, 48])
    width: int = 64
    num_blocks: int = 2
    num_skipped_rows: int = 2  # of tokens: the sky
    place_channels: int = 16
    dropout: float = 0.3
    logit_scale: list[float] = field(
        default_factory=lambda: [1.0, 1.0]
    )  # per event; found on validation roads
    logit_shift: list[float] = field(default_factory=lambda: [0.0, 0.0])
    num_contact_steps: int = 2  # that count as now: an imagined car stands where it should to about a step
    contact_threshold: float = 0.5
    collision_threshold: float = 0.5

    def __post_init__(self) -> None:
        """Refuse sizes that do not divide and thresholds that are no probabilities."""
        if self.height_px % self.stride or self.width_px % self.stride:
            raise ValueError(
                f"frames of {self.height_px}x{self.width_px} px are not divisible by {self.stride}"
            )
        if self.num_steps < 1 or not self.rate_hz > 0 or not 0 <= self.num_skipped_rows < self.grid[0]:
            raise ValueError(
                "a hazard head needs num_steps >= 1, rate_hz > 0 and num_skipped_rows within the grid"
            )
        if not 1 <= self.num_contact_steps <= self.num_steps + 1:
            raise ValueError(
                f"num_contact_steps must lie in 1..{self.num_steps + 1}, got {self.num_contact_steps}"
            )
        if not (0 < self.contact_threshold < 1 and 0 < self.collision_threshold < 1):
            raise ValueError(
                "thresholds lie in (0, 1), got "
                f"contact_threshold={self.contact_threshold} and collision_threshold={self.collision_threshold}"
            )

    @property
    def stride(self) -> int:
        """Return the pixels per token and side."""
        return PICTURE_STRIDE * 2 ** len(self.picture_widths)

    @property
    def grid(self) -> tuple[int, int]:
        """Return the token rows and columns of a frame."""
        return self.height_px // self.stride, self.width_px // self.stride

    @property
    def num_facts(self) -> int:
        """Return F: speed, yaw rate, depth of the imagination, whether there is a map, and what it says."""
        return 4 + len(YAW_RATE_CHANGES) * (self.num_steps + 1) * NUM_CORNERS


@dataclass(kw_only=True, slots=True)
class HazardInputs:
    """What the head reads of world states, small enough to be kept for training."""

    pictures_BCHW: Tensor  # uint8 (B, 6, H, W): the newest picture, then the one before
    token_ids_BS: Tensor  # of the newest
    facts_BF: Tensor  # float32

    def rows(self, indices: Tensor) -> HazardInputs:
        """Return some of the rows."""
        return HazardInputs(
            pictures_BCHW=self.pictures_BCHW[indices],
            token_ids_BS=self.token_ids_BS[indices],
            facts_BF=self.facts_BF[indices],
        )

    def to(self, device: torch.device) -> HazardInputs:
        """Return the same on a device."""
        return HazardInputs(
            pictures_BCHW=self.pictures_BCHW.to(device),
            token_ids_BS=self.token_ids_BS.to(device),
            facts_BF=self.facts_BF.to(device),
        )


def read_state(state: WorldState, config: HazardConfig) -> HazardInputs:
    """Read what the head needs of a world state.

    Raises:
        ValueError: pictures or tokens of another size than the head's.
    """
    rows, columns = config.grid
    if state.frames_BCHW.shape[-2:] != (config.height_px, config.width_px):
        raise ValueError(
            f"this hazard head reads pictures of {config.height_px}x{config.width_px} px, got "
            f"{tuple(state.frames_BCHW.shape[-2:])}"
        )
    if state.token_ids_BS.shape[-1] != rows * columns:
        raise ValueError(
            f"this hazard head reads {rows * columns} tokens, got {state.token_ids_BS.shape[-1]}"
        )
    pictures_BCHW = torch.cat([state.frames_BCHW, state.earlier_BCHW], dim=1).float()
    return HazardInputs(
        pictures_BCHW=small_pictures(pictures_BCHW),
        token_ids_BS=state.token_ids_BS,
        facts_BF=_facts(state, config).to(state.frames_BCHW.device),
    )


def small_pictures(pictures_BCHW: Tensor) -> Tensor:
    """Return pictures in [-1, 1] as uint8, made smaller by ``PICTURE_STRIDE``."""
    small_BCHW = functional.avg_pool2d(pictures_BCHW, PICTURE_STRIDE)
    return ((small_BCHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _facts(state: WorldState, config: HazardConfig) -> Tensor:
    """Return motion, depth of the imagination and what the maps say (B, F)."""
    twist_BA = state.twist_BA.detach().double().cpu().numpy()
    depth_B = state.num_imagined_B.double().numpy()
    places = state.places
    rows = []
    for index, twist in enumerate(twist_BA):
        roads = None if places is None else places.maps[index]
        pose = np.zeros(3) if places is None else places.pose[index]
        rows.append(facts_of(twist, float(depth_B[index]), roads, pose, config))
    return torch.from_numpy(np.stack(rows).astype(np.float32))


def facts_of(
    twist: FloatArray, depth: float, roads: RoadMap | None, pose: FloatArray, config: HazardConfig
) -> FloatArray:
    """Return the facts (F,) of one car: its twist, frames since the last true one, its map and pose on it."""
    scaled = [twist[0] / SPEED_SCALE_MPS, twist[1] / YAW_RATE_SCALE_RADPS, np.log1p(depth) / DEPTH_SCALE]
    if roads is None:
        return np.concatenate([scaled, np.zeros(config.num_facts - len(scaled))])
    xy_m = _corners_ahead(twist, config)
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    distance = _distances(roads, pose[:2] + xy_m @ np.array([[cos, sin], [-sin, cos]]))
    return np.concatenate([scaled, [1.0], distance])


def hide_map(facts_BF: Tensor) -> Tensor:
    """Return the facts as they are where there is no map."""
    hidden_BF = facts_BF.clone()
    hidden_BF[:, 3:] = 0
    return hidden_BF


def _corners_ahead(twist: FloatArray, config: HazardConfig) -> FloatArray:
    """Return where the car's corners and middle will be if it goes on, or turns a little: (N, 2), ego frame now."""
    car = VehicleConfig()
    back, front = -car.rear_overhang_m, car.length_m - car.rear_overhang_m
    half = car.width_m / 2
    corners = np.array(
        [[back, -half], [back, half], [front, half], [front, -half], [(back + front) / 2, 0.0]]
    )
    time_s = np.arange(config.num_steps + 1) / config.rate_hz
    yaw = (twist[1] + np.array(YAW_RATE_CHANGES))[:, None] * time_s  # (changes, steps)
    chord = twist[0] * time_s * np.sinc(0.5 * yaw / np.pi)
    x_m, y_m = chord * np.cos(0.5 * yaw), chord * np.sin(0.5 * yaw)
    cos, sin = np.cos(yaw)[..., None], np.sin(yaw)[..., None]
    moved_x = x_m[..., None] + cos * corners[:, 0] - sin * corners[:, 1]
    moved_y = y_m[..., None] + sin * corners[:, 0] + cos * corners[:, 1]
    return np.stack([moved_x, moved_y], axis=-1).reshape(-1, 2)


def _distances(roads: RoadMap, xy_m: FloatArray) -> FloatArray:
    """Return the distances to the road's edge at global points (N, 2), as a map has them; -1 beyond the map."""
    rows, columns = roads.distance.shape
    cells = (xy_m - roads.origin_xy_m) / roads.cell_m - 0.5
    whole = np.floor(cells)
    across, up = (cells - whole).T
    column, row = whole.astype(np.int64).T
    total = np.zeros(len(xy_m))
    for step_x, step_y in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = column + step_x, row + step_y
        is_inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
        value = np.where(is_inside, roads.distance[y.clip(0, rows - 1), x.clip(0, columns - 1)], -1.0)
        total += value * (across if step_x else 1 - across) * (up if step_y else 1 - up)
    return total
