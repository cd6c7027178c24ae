"""What is known of the next frame's scene, as the world model reads it: where the cars are on their maps, and others.

With a map the picture stays where the route, the off-road check and the reward are. A model without one gets zeros,
which say that nothing is known, and imagines the road too. So it is with agents, who are moved on from where they were
at the last true frame, for twelve seconds.

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
from drivesim.scene.agents import MovingAgents, agents_at
from drivesim.scene.geometry import FloatArray
from drivesim.scene.road_map import (
    PACKED_SCALE,
    UNKNOWN,
    VIEW_CELL_PX,
    VIEW_DIM,
    Ground,
    RoadMap,
    ground_of,
    mapped,
    road_view,
)
from drivesim.scene.types import Scene


@dataclass(kw_only=True, slots=True, frozen=True)
class Places:
    """Where B cars are on their maps; a value."""

    maps: tuple[RoadMap | None, ...]
    ground: Ground  # of their camera
    pose: FloatArray  # (B, 3) x and y in metres and yaw in radians, global
    agents: tuple[MovingAgents | None, ...]  # the others; None where nothing is known of them
    time_s: FloatArray  # (B,) since the instant at which the agents were known

    @classmethod
    def begin(
        cls,
        maps: Sequence[RoadMap | None],
        ground: Ground,
        pose: FloatArray,
        agents: Sequence[MovingAgents | None] | None = None,
    ) -> Places:
        """Return the places of B cars at the instant at which their ``agents`` are known; arguments as the fields."""
        known = (None,) * len(maps) if agents is None else tuple(agents)
        if not len(maps) == len(pose) == len(known):
            raise ValueError(f"got {len(maps)} maps, {len(pose)} poses and {len(known)} rows of agents")
        return cls(maps=tuple(maps), ground=ground, pose=pose, agents=known, time_s=np.zeros(len(maps)))

    def after(self, twist: FloatArray, dt_s: float) -> Places:
        """Return the places after twists (B, 2: m/s, rad/s) held for ``dt_s``."""
        steps = np.array([planar_motion(speed, yaw_rate, dt_s) for speed, yaw_rate in twist.tolist()])
        cos, sin = np.cos(self.pose[:, 2]), np.sin(self.pose[:, 2])
        x_m = self.pose[:, 0] + cos * steps[:, 0] - sin * steps[:, 1]
        y_m = self.pose[:, 1] + sin * steps[:, 0] + cos * steps[:, 1]
        moved = self.at(np.stack([x_m, y_m, self.pose[:, 2] + steps[:, 2]], axis=1))
        return replace(moved, time_s=self.time_s + dt_s)

    def before(self, twist: FloatArray, dt_s: float) -> Places:
        """Return the places from which twists (B, 2) held for ``dt_s`` lead here."""
        turned_rad = self.pose[:, 2] - twist[:, 1] * dt_s
        behind = self.at(np.concatenate([np.zeros_like(self.pose[:, :2]), turned_rad[:, None]], axis=1))
        moved_xy_m = behind.after(twist, dt_s).pose[:, :2]
        earlier = self.at(np.concatenate([self.pose[:, :2] - moved_xy_m, turned_rad[:, None]], axis=1))
        return replace(earlier, time_s=self.time_s - dt_s)

    def at(self, pose: FloatArray) -> Places:
        """Return the same cars and maps at other poses (B, 3), at the same time."""
        return replace(self, pose=pose)

    def rows(self, indices: Sequence[int]) -> Places:
        """Return some rows, in their order; a row may be taken more than once."""
        chosen = [int(index) for index in indices]
        return replace(
            self,
            maps=tuple(self.maps[index] for index in chosen),
            pose=self.pose[chosen],
            agents=tuple(self.agents[index] for index in chosen),
            time_s=self.time_s[chosen],
        )

    @classmethod
    def joined(cls, parts: Sequence[Places]) -> Places:
        """Return the rows of several, all of one camera."""
        return cls(
            maps=tuple(roads for part in parts for roads in part.maps),
            ground=parts[0].ground,
            pose=np.concatenate([part.pose for part in parts]),
            agents=tuple(others for part in parts for others in part.agents),
            time_s=np.concatenate([part.time_s for part in parts]),
        )

    def view(self) -> Tensor:
        """Return what is known of what is seen (B, V, H, W), see ``scene.road_map.road_view``."""
        views = [
            road_view(roads, self.ground, pose, None if others is None else others.known_at(float(time_s)))
            for roads, pose, others, time_s in zip(
                self.maps, self.pose, self.agents, self.time_s, strict=True
            )
        ]
        return torch.from_numpy(np.stack(views))


def place_in(scene: Scene, index: int) -> Places:
    """Return where a scene's car is at a frame, with the scene's map and agents as far as there are any."""
    ego = scene.ego_state(index)
    pose = np.array([[ego.x_m, ego.y_m, ego.yaw_rad]])
    return Places.begin([mapped(scene.drivable)], ground_of(scene.camera), pose, [agents_at(scene, index)])


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
    """Return per token (B, S, M): the distances of its cells, and the share that is known; then paint, then agents."""
    factor = stride_px // VIEW_CELL_PX
    parts = []
    for value_BHW, known_BHW in (pair.unbind(1) for pair in view_BVHW.split(2, dim=1)):
        parts.append(rearrange(value_BHW, "b (h i) (w j) -> b (h w) (i j)", i=factor, j=factor))
        parts.append(reduce(known_BHW, "b (h i) (w j) -> b (h w) 1", "mean", i=factor, j=factor))
    return torch.cat(parts, dim=-1)


def shows_road(view_BVHW: Tensor, stride_px: int) -> Tensor:
    """Tell for each token (B, S) whether most of it shows road of known shape and markings."""
    factor = stride_px // VIEW_CELL_PX
    is_road_BHW = ((view_BVHW[:, 0] > 0) & (view_BVHW[:, 1] > 0) & (view_BVHW[:, 3] > 0)).float()
    return reduce(is_road_BHW, "b (h i) (w j) -> b (h w)", "mean", i=factor, j=factor) > 0.5


def shows_agents(view_BVHW: Tensor, stride_px: int) -> Tensor:
    """Tell for each token (B, S) whether a quarter of it or more shows agents whose places are known."""
    factor = stride_px // VIEW_CELL_PX
    cover_BS = reduce(view_BVHW[:, 4], "b (h i) (w j) -> b (h w)", "mean", i=factor, j=factor)
    return cover_BS >= 0.25


def road_dim(stride_px: int) -> int:
    """Return M of :func:`token_road`."""
    return VIEW_DIM // 2 * ((stride_px // VIEW_CELL_PX) ** 2 + 1)
