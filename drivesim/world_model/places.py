"""What a map says of the next frame, as the world model reads it, and where the cars are on their maps.

With a map the picture stays where the route, the off-road check and the reward are. A model without one gets zeros,
which say that nothing is known, and imagines the road too.

Letters: see ``drivesim/world_model/__init__.py``; here `H W` are rows and columns of cells of ``VIEW_CELL_PX`` pixels,
`V` the ``VIEW_DIM`` numbers of a cell, `E` those of a packed one, and `M` numbers per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor

from drivesim.dynamics import planar_motion
from drivesim.scene.geometry import FloatArray
from drivesim.scene.road_map import (
    PACKED_SCALE,
    UNKNOWN,
    VIEW_CELL_PX,
    VIEW_DIM,
    Ground,
    RoadMap,
    road_view,
)


@dataclass(kw_only=True, slots=True, frozen=True)
class Places:
    """Where B cars are on their maps; a value."""

    maps: tuple[RoadMap | None, ...]
    ground: Ground  # of their camera
    pose: FloatArray  # (B, 3) x and y in metres and yaw in radians, global

    def after(self, twist: FloatArray, dt_s: float) -> Places:
        """Return the places after twists (B, 2: m/s, rad/s) held for ``dt_s``."""
        steps = np.array([planar_motion(speed, yaw_rate, dt_s) for speed, yaw_rate in twist.tolist()])
        cos, sin = np.cos(self.pose[:, 2]), np.sin(self.pose[:, 2])
        x_m = self.pose[:, 0] + cos * steps[:, 0] - sin * steps[:, 1]
        y_m = self.pose[:, 1] + sin * steps[:, 0] + cos * steps[:, 1]
        return self.at(np.stack([x_m, y_m, self.pose[:, 2] + steps[:, 2]], axis=1))

    def before(self, twist: FloatArray, dt_s: float) -> Places:
        """Return the places from which twists (B, 2) held for ``dt_s`` lead here."""
        turned_rad = self.pose[:, 2] - twist[:, 1] * dt_s
        behind = self.at(np.concatenate([np.zeros_like(self.pose[:, :2]), turned_rad[:, None]], axis=1))
        moved_xy_m = behind.after(twist, dt_s).pose[:, :2]
        return self.at(np.concatenate([self.pose[:, :2] - moved_xy_m, turned_rad[:, None]], axis=1))

    def at(self, pose: FloatArray) -> Places:
        """Return the same cars and maps at other poses (B, 3)."""
        return replace(self, pose=pose)

    def rows(self, indices: Sequence[int]) -> Places:
        """Return some rows, in their order; a row may be taken more than once."""
        chosen = [int(index) for index in indices]
        return replace(self, maps=tuple(self.maps[index] for index in chosen), pose=self.pose[chosen])

    @classmethod
    def joined(cls, parts: Sequence[Places]) -> Places:
        """Return the rows of several, all of one camera."""
        maps = tuple(roads for part in parts for roads in part.maps)
        return cls(maps=maps, ground=parts[0].ground, pose=np.concatenate([part.pose for part in parts]))

    def view(self) -> Tensor:
        """Return what the maps say is seen (B, V, H, W), see ``scene.road_map.road_view``."""
        pairs = zip(self.maps, self.pose, strict=True)
        return torch.from_numpy(np.stack([road_view(roads, self.ground, pose) for roads, pose in pairs]))


def unpacked_view(packed_BEHW: Tensor) -> Tensor:
    """Return the views (B, V, H, W) that a recording keeps packed, see ``scene.road_map.packed_road_views``."""
    is_known_BEHW = packed_BEHW != UNKNOWN
    value_BEHW = torch.where(is_known_BEHW, packed_BEHW.float() / PACKED_SCALE, 0.0)
    return torch.stack([value_BEHW, is_known_BEHW.float()], dim=2).flatten(1, 2)


def no_view(batch: int, size_px: tuple[int, int], device: torch.device) -> Tensor:
    """Return the view (B, V, H, W) of places without a map, for pictures of (height, width) pixels."""
    height, width = size_px
    return torch.zeros(batch, VIEW_DIM, height // VIEW_CELL_PX, width // VIEW_CELL_PX, device=device)


def token_road(view_BVHW: Tensor, stride_px: int) -> Tensor:
    """Return per token (B, S, M): the distances of its cells, and the share that is known; then likewise the paint."""
    factor = stride_px // VIEW_CELL_PX
    parts = []
    for value_BHW, known_BHW in (view_BVHW[:, 0:2].unbind(1), view_BVHW[:, 2:4].unbind(1)):
        parts.append(rearrange(value_BHW, "b (h i) (w j) -> b (h w) (i j)", i=factor, j=factor))
        parts.append(reduce(known_BHW, "b (h i) (w j) -> b (h w) 1", "mean", i=factor, j=factor))
    return torch.cat(parts, dim=-1)


def shows_road(view_BVHW: Tensor, stride_px: int) -> Tensor:
    """Tell for each token (B, S) whether most of it shows road of known shape and markings."""
    factor = stride_px // VIEW_CELL_PX
    is_road_BHW = ((view_BVHW[:, 0] > 0) & (view_BVHW[:, 1] > 0) & (view_BVHW[:, 3] > 0)).float()
    return reduce(is_road_BHW, "b (h i) (w j) -> b (h w)", "mean", i=factor, j=factor) > 0.5


def road_dim(stride_px: int) -> int:
    """Return M of :func:`token_road`."""
    return VIEW_DIM // 2 * ((stride_px // VIEW_CELL_PX) ** 2 + 1)
