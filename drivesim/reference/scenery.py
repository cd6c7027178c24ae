"""What stands along the roads, and never on them: trees, houses, posts, signs and rails."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import cv2
import numpy as np
from highway_env.road.road import RoadNetwork
from numpy.random import Generator

from drivesim.reference.look import Look, SceneryKind
from drivesim.reference.surface import LaneEdges, sample_lanes
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import DrivableArea

_CELL_M = 1.0


class PlantKind(IntEnum):
    """Shapes of plants."""

    BROADLEAF = 0
    CONIFER = 1
    BUSH = 2


class PostKind(IntEnum):
    """Shapes of posts."""

    DELINEATOR = 0
    LAMP = 1
    SIGN = 2
    UTILITY = 3


def _empty(*shape: int) -> FloatArray:
    return np.zeros(shape)


@dataclass(kw_only=True, slots=True)
class Scenery:
    """Props in global coordinates; row ``i`` of the arrays of one kind is one prop."""

    plant_xy_m: FloatArray = field(default_factory=lambda: _empty(0, 2))  # (P, 2)
    plant_height_m: FloatArray = field(default_factory=lambda: _empty(0))  # (P,)
    plant_kind: FloatArray = field(default_factory=lambda: _empty(0))  # (P,) of PlantKind
    plant_rgb: FloatArray = field(default_factory=lambda: _empty(0, 3))  # (P, 3)
    post_xy_m: FloatArray = field(default_factory=lambda: _empty(0, 2))  # (Q, 2)
    post_yaw_rad: FloatArray = field(default_factory=lambda: _empty(0))  # (Q,) from the post towards the road
    post_kind: FloatArray = field(default_factory=lambda: _empty(0))  # (Q,) of PostKind
    post_rgb: FloatArray = field(default_factory=lambda: _empty(0, 3))  # (Q, 3) of a sign's plate
    house_pose: FloatArray = field(default_factory=lambda: _empty(0, 3))  # (H, 3) x, y, yaw
    house_size_m: FloatArray = field(
        default_factory=lambda: _empty(0, 4)
    )  # (H, 4) length, width, wall, roof height
    house_rgb: FloatArray = field(default_factory=lambda: _empty(0, 2, 3))  # (H, 2, 3) wall, roof
    rail_xy_m: FloatArray = field(default_factory=lambda: _empty(0, 2, 2))  # (R, 2, 2) both ends of a piece


def place_scenery(
    network: RoadNetwork,
    drivable: DrivableArea,
    look: Look,
    rng: Generator,
    *,
    offset_m: FloatArray | None = None,
) -> Scenery:
    """Place the props of a look beside the roads.

    Args:
        network: the network that the surface was painted from.
        drivable: where nothing may stand.
        look: kind of scenery, density, colours.
        rng: draws the places.
        offset_m: (2,) the surface's offset; zero if left out.
    """
    lanes = sample_lanes(network, np.zeros(2) if offset_m is None else offset_m, spacing_m=4.0)
    clearance = _Clearance(drivable)
    scenery = Scenery()
    _place_houses(scenery, lanes, clearance, look, rng)
    _place_plants(scenery, clearance, look, rng)
    _place_posts(scenery, lanes, clearance, look, rng)
    if look.is_railed:
        _place_rails(scenery, lanes, clearance, look)
    return scenery


class _Clearance:
    """Distance in metres from any point to the nearest drivable or occupied one."""

    def __init__(self, drivable: DrivableArea) -> None:
        step = round(_CELL_M / drivable.resolution_m)
        rows, columns = (int(np.ceil(n / step)) * step for n in drivable.mask.shape)
        mask = np.zeros((rows, columns), np.uint8)
        mask[rows - drivable.mask.shape[0] :, : drivable.mask.shape[1]] = drivable.mask
        # a cell counts as road if any part of it is; row 0 is north, so the padding goes on top
        coarse = mask.reshape(rows // step, step, columns // step, step).max(axis=(1, 3))
        self._distance_m = cv2.distanceTransform(1 - coarse, cv2.DIST_L2, 5) * _CELL_M - 0.7 * _CELL_M
        self.size_m = np.array([coarse.shape[1], coarse.shape[0]]) * _CELL_M

    def __call__(self, xy_m: FloatArray) -> FloatArray:
        cells = np.floor(xy_m / _CELL_M).astype(np.int64)
        rows, columns = self._distance_m.shape
        row = np.clip(rows - 1 - cells[..., 1], 0, rows - 1)
        return np.asarray(self._distance_m[row, np.clip(cells[..., 0], 0, columns - 1)], dtype=np.float64)


def _kerb_points(lanes: list[LaneEdges], spacing_m: float, beyond_m: float) -> tuple[FloatArray, FloatArray]:
    """Return (N, 2) points ``beyond_m`` outside both edges of all lanes, (N,) yaws towards the lane."""
    points, yaws = [], []
    for lane in lanes:
        s_m = np.arange(0.5 * min(spacing_m, lane.s_m[-1]), lane.s_m[-1], spacing_m)
        for sign in (-1.0, 1.0):
            outside = lane.resampled(s_m, sign * (lane.width_m / 2 + beyond_m))
            towards = lane.resampled(s_m, 0.0) - outside
            points.append(outside)
            yaws.append(np.arctan2(towards[:, 1], towards[:, 0]))
    return np.concatenate(points), np.concatenate(yaws)


def _apart(xy_m: FloatArray, radius_m: FloatArray) -> list[int]:
    """Return indices of a greedy choice of discs that do not overlap."""
    kept: list[int] = []
    for index in range(len(xy_m)):
        gaps = np.hypot(*(xy_m[kept] - xy_m[index]).T)
        if (gaps > radius_m[kept] + radius_m[index]).all():
            kept.append(index)
    return kept


_HOUSES = {
    SceneryKind.TOWN: (14.0, 5.0, 14.0),
    SceneryKind.SUBURB: (22.0, 9.0, 20.0),
}  # spacing, nearest, farthest
_WALLS = np.array(
    [[206, 198, 182], [184, 150, 126], [168, 172, 180], [226, 222, 212], [150, 110, 92], [196, 178, 130]]
)
_ROOFS = np.array([[132, 72, 56], [92, 88, 88], [110, 84, 68], [74, 78, 88]])


def _place_houses(
    scenery: Scenery, lanes: list[LaneEdges], clearance: _Clearance, look: Look, rng: Generator
) -> None:
    spacing_m, nearest_m, farthest_m = _HOUSES.get(look.scenery, (110.0, 16.0, 40.0))
    is_town = look.scenery is SceneryKind.TOWN
    front_m = rng.uniform(nearest_m, farthest_m)
    points, yaws = _kerb_points(lanes, spacing_m / max(look.density, 0.3), front_m)
    points = points + rng.uniform(-3.0, 3.0, points.shape)
    count = len(points)
    low, high = (
        ([10.0, 9.0, 6.0, 0.0], [20.0, 14.0, 17.0, 0.0])
        if is_town
        else ([8.0, 7.0, 3.2, 1.8], [14.0, 10.0, 5.5, 3.4])
    )
    size = rng.uniform(low, high, (count, 4))
    radius = np.hypot(size[:, 0], size[:, 1]) / 2
    is_free = (clearance(points) > radius + 1.5) & (rng.random(count) < 0.85)
    chosen = np.flatnonzero(is_free)
    chosen = chosen[_apart(points[chosen], radius[chosen] + 0.5)]
    scenery.house_pose = np.concatenate([points, yaws[:, None] + np.pi / 2], axis=1)[chosen]
    scenery.house_size_m = size[chosen]
    walls = _WALLS[rng.integers(len(_WALLS), size=count)] + rng.uniform(-12, 12, (count, 1))
    roofs = _ROOFS[rng.integers(len(_ROOFS), size=count)] + rng.uniform(-8, 8, (count, 1))
    scenery.house_rgb = np.stack([walls, roofs], axis=1)[chosen].astype(np.float64)


_PLANTS = {  # per square metre near the road, nearest, fall-off with distance, shares of the three kinds
    SceneryKind.FOREST: (0.022, 3.0, 16.0, (0.45, 0.40, 0.15)),
    SceneryKind.TOWN: (0.003, 2.2, 12.0, (0.8, 0.05, 0.15)),
    SceneryKind.OPEN: (0.0016, 4.0, 40.0, (0.4, 0.15, 0.45)),
    SceneryKind.SUBURB: (0.007, 3.0, 22.0, (0.55, 0.15, 0.3)),
}


def _place_plants(scenery: Scenery, clearance: _Clearance, look: Look, rng: Generator) -> None:
    per_m2, nearest_m, reach_m, shares = _PLANTS[look.scenery]
    count = int(per_m2 * look.density * clearance.size_m.prod())
    points = rng.uniform(0.0, 1.0, (count, 2)) * clearance.size_m
    gap_m = clearance(points)
    kind = rng.choice(3, size=count, p=shares)
    nearest = np.where(kind == PlantKind.BUSH, 1.8, nearest_m)
    keep = (gap_m > nearest) & (rng.random(count) < np.exp(-np.maximum(gap_m - nearest, 0.0) / reach_m))
    if len(scenery.house_pose):
        reach = np.hypot(scenery.house_size_m[:, 0], scenery.house_size_m[:, 1]) / 2
        to_house = np.linalg.norm(points[:, None] - scenery.house_pose[None, :, :2], axis=-1) - reach
        keep &= to_house.min(axis=1) > 1.0
    points, kind = points[keep], kind[keep]
    tall = np.array(
        [
            rng.uniform(5.0, 10.0, len(kind)),
            rng.uniform(6.0, 14.0, len(kind)),
            rng.uniform(0.8, 2.0, len(kind)),
        ]
    )
    tint = np.where(kind == PlantKind.CONIFER, 0.72, 1.0) * rng.uniform(0.8, 1.2, len(kind))
    hue = rng.uniform(-8.0, 8.0, (len(kind), 3))
    scenery.plant_xy_m, scenery.plant_kind = points, kind.astype(np.float64)
    scenery.plant_height_m = tall[kind, np.arange(len(kind))]
    leaf = np.where((kind == PlantKind.CONIFER)[:, None], [58.0, 84.0, 52.0], look.leaf_rgb)
    scenery.plant_rgb = np.clip((leaf + hue) * tint[:, None], 5.0, 250.0)


_SIGN_RGB = np.array(
    [[40, 80, 170], [190, 40, 36], [34, 120, 70], [236, 190, 40], [235, 235, 235]], dtype=np.float64
)


def _place_posts(
    scenery: Scenery, lanes: list[LaneEdges], clearance: _Clearance, look: Look, rng: Generator
) -> None:
    is_built_up = look.scenery in (SceneryKind.TOWN, SceneryKind.SUBURB)
    beyond_m = look.asphalt_margin_m + min(look.shoulder_m, 1.6)
    plan = [(PostKind.SIGN, 70.0, beyond_m + 0.6, 0.6)]
    if is_built_up:
        plan.append((PostKind.LAMP, 28.0, beyond_m + 0.4, 1.0))
    elif not look.is_railed:
        plan.append((PostKind.DELINEATOR, 25.0, beyond_m, 1.0))
    if look.scenery is not SceneryKind.TOWN:
        plan.append((PostKind.UTILITY, 45.0, beyond_m + 4.5, float(rng.random() < 0.5)))
    parts = []
    for kind, spacing_m, lateral_m, share in plan:
        points, yaws = _kerb_points(lanes, spacing_m, lateral_m)
        is_kept = (clearance(points) > min(lateral_m, 1.8) - 1.2) & (rng.random(len(points)) < share)
        if kind is PostKind.UTILITY:
            is_kept &= np.sin(yaws - look.sun_azimuth_rad) > 0.0  # one side of the road only
        chosen = np.flatnonzero(is_kept & (clearance(points) > 0.1))
        chosen = chosen[_apart(points[chosen], np.full(len(chosen), spacing_m / 5))]
        parts.append((points[chosen], yaws[chosen], np.full(len(chosen), float(kind))))
    scenery.post_xy_m = np.concatenate([part[0] for part in parts])
    scenery.post_yaw_rad = np.concatenate([part[1] for part in parts])
    scenery.post_kind = np.concatenate([part[2] for part in parts])
    scenery.post_rgb = _SIGN_RGB[rng.integers(len(_SIGN_RGB), size=len(scenery.post_kind))]


def _place_rails(scenery: Scenery, lanes: list[LaneEdges], clearance: _Clearance, look: Look) -> None:
    pieces = []
    for lane in lanes:
        for sign in (-1.0, 1.0):
            curve = lane.at(sign * (lane.width_m / 2 + look.asphalt_margin_m + 1.2))
            is_clear = clearance(curve) > 0.2
            pieces.append(np.stack([curve[:-1], curve[1:]], axis=1)[is_clear[:-1] & is_clear[1:]])
    scenery.rail_xy_m = np.concatenate(pieces)
