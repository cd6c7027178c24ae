"""What a map says the camera sees: the distance to the road's edge, and what is painted, at each cell of a picture.

The pose of the car is known exactly, so a map of the drivable area can be laid out before the camera like the ground
itself. A distance to the edge says more than "road or not": lanes and their markings lie at certain distances from it,
and it can be read between the cells of the raster. Where the map knows the markings they are laid out as well, so that
a long imagined road keeps its lines. Other cars are laid out beside it, as far as it is known where they are, see
``agents``. `h w`: rows and columns of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drivesim.scene.agents import agent_cover
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Agents, Camera, DrivableArea, PaintedLine

Float32Array = NDArray[np.float32]

EDGE_REACH_M = 4.0  # distances are clipped there
MAP_CELL_M = 0.5
PAINT_CELL_M = 0.2
FAR_PAINT_FACTOR = 4  # cells of markings that share one on the coarse map, which is read from afar
FAR_PAINT_M = 14.0  # where that begins
VIEW_CELL_PX = 4
SAMPLE_PX = 2  # the map is read at this stride of the picture
FARTHEST_M = 90.0  # along the ray; farther ground is a row or two of pixels
UNKNOWN = -128  # in a packed view
PACKED_SCALE = 127
PACKED_DIM = 3  # of a packed view: distance, painted share, share covered by agents; each may be unknown
VIEW_DIM = 2 * PACKED_DIM  # numbers per cell of a view: each of these, followed by whether it is known
_MOST_CELLS = 32_000  # a side that OpenCV reads from
_SHIFT = 4  # fractional bits of the coordinates that cv2 draws


@dataclass(kw_only=True, slots=True)
class RoadMap:
    """Distances to the edge of the road over ``EDGE_REACH_M``: 1 well inside, 0 at the edge, -1 well outside."""

    distance: Float32Array  # (rows, columns) in [-1, 1]; row 0 is the southern edge
    cell_m: float
    origin_xy_m: FloatArray  # (2,) global position of the lower left corner
    paint: Paint | None = None  # None where the markings are not known


@dataclass(kw_only=True, slots=True)
class Paint:
    """Painted lines, 0 to 255, in cells of ``PAINT_CELL_M`` and in ``FAR_PAINT_FACTOR`` times as large ones."""

    near: NDArray[np.uint8]  # (rows, columns); row 0 is the southern edge
    far: NDArray[np.uint8]
    cell_m: float  # of the fine cells
    origin_xy_m: FloatArray  # (2,) global position of the lower left corner


@dataclass(kw_only=True, slots=True)
class Ground:
    """Where the rays of a camera meet flat ground, ``SAMPLE_PX`` pixels apart."""

    xy_m: Float32Array  # (rows, columns, 2) in the ego frame
    is_near: Float32Array  # (rows, columns) 1 where that is below the horizon and within ``FARTHEST_M``
    first_near_row: int  # from here on down the ground is nearer than ``FAR_PAINT_M``
    camera: Camera


def road_map(drivable: DrivableArea, *, cell_m: float = MAP_CELL_M) -> RoadMap:
    """Return the map of a drivable area, in cells of about ``cell_m``."""
    step = max(1, round(cell_m / drivable.resolution_m))
    inside = np.flipud(drivable.mask).astype(np.uint8)
    margin = int(np.ceil(EDGE_REACH_M / drivable.resolution_m / step)) * step
    rows, columns = ((-size) % step for size in inside.shape)
    inside = np.pad(inside, ((margin, margin + rows), (margin, margin + columns)))
    signed = _distance(inside) - _distance(np.logical_not(inside).astype(np.uint8))
    near = np.clip(signed * drivable.resolution_m / EDGE_REACH_M, -1.0, 1.0)
    size = (near.shape[1] // step, near.shape[0] // step)
    return RoadMap(
        distance=np.asarray(cv2.resize(near, size, interpolation=cv2.INTER_AREA), dtype=np.float32),
        cell_m=step * drivable.resolution_m,
        origin_xy_m=np.asarray(drivable.origin_xy_m, dtype=np.float64) - margin * drivable.resolution_m,
        paint=_paint(drivable),
    )


def _paint(drivable: DrivableArea) -> Paint | None:
    if drivable.lines is None:
        return None
    near = np.flipud(_markings(drivable, drivable.lines))
    near = np.pad(near, [(0, (-size) % FAR_PAINT_FACTOR) for size in near.shape])
    size = (near.shape[1] // FAR_PAINT_FACTOR, near.shape[0] // FAR_PAINT_FACTOR)
    return Paint(
        near=near,
        far=np.asarray(cv2.resize(near, size, interpolation=cv2.INTER_AREA), dtype=np.uint8),
        cell_m=PAINT_CELL_M,
        origin_xy_m=np.asarray(drivable.origin_xy_m, dtype=np.float64),
    )


def _markings(drivable: DrivableArea, lines: tuple[PaintedLine, ...]) -> NDArray[np.uint8]:
    """Draw lines in cells of ``PAINT_CELL_M``, (rows, columns) 0 to 255; row 0 is the northern edge.

    Every line comes out half a cell wider on either side than it is, so that a thin one can be seen from afar.
    """
    size = np.array(drivable.mask.shape) * drivable.resolution_m / PAINT_CELL_M
    raster = np.zeros(np.ceil(size - 1e-6).astype(int), np.uint8)
    corner = np.array([drivable.origin_xy_m[0], drivable.origin_xy_m[1] + len(raster) * PAINT_CELL_M])
    for line in sorted(lines, key=lambda line: line.share):  # what is painted more is drawn over the rest
        cells = (_outline(line) - corner) * [1.0, -1.0] / PAINT_CELL_M - 0.5
        points = np.round(cells * (1 << _SHIFT)).astype(np.int32)
        for quad in points:
            cv2.fillConvexPoly(raster, quad, round(255 * line.share), cv2.LINE_AA, _SHIFT)
    return raster


def _outline(line: PaintedLine) -> FloatArray:
    """Return the corners (N - 1, 4, 2) of each stretch of a line, global."""
    along = np.gradient(line.xy_m, axis=0)
    length = np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    aside = along[:, ::-1] * [-1.0, 1.0] / length * line.width_m / 2
    first, second = line.xy_m - aside, line.xy_m + aside
    return np.stack([first[:-1], first[1:], second[1:], second[:-1]], axis=1)


def mapped(drivable: DrivableArea | None) -> RoadMap | None:
    """Return the map of a drivable area, where there is one."""
    return None if drivable is None else road_map(drivable)


def _distance(mask: NDArray[np.uint8]) -> Float32Array:
    """Return for cells that are not zero how many cells it is to the edge, else 0; the edge lies between cells."""
    if mask.all():
        return np.full(mask.shape, EDGE_REACH_M * 1e3, np.float32)
    cells = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(np.maximum(cells - 0.5, 0.0), dtype=np.float32)


def ground_of(camera: Camera) -> Ground:
    """Return where the rays of a camera meet the ground."""
    rows = np.arange(SAMPLE_PX / 2, camera.height_px, SAMPLE_PX)
    columns = np.arange(SAMPLE_PX / 2, camera.width_px, SAMPLE_PX)
    u, v = np.meshgrid(columns, rows)
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
    direction = pixels @ np.linalg.inv(camera.intrinsic).T @ camera.ego_from_cam[:3, :3].T
    centre = camera.ego_from_cam[:3, 3]
    inverse_depth = -direction[..., 2] / centre[2]
    is_near = inverse_depth > 1.0 / FARTHEST_M
    xy_m = centre[:2] + direction[..., :2] / np.where(is_near, inverse_depth, 1.0)[..., None]
    is_row_near = ((np.hypot(xy_m[..., 0], xy_m[..., 1]) < FAR_PAINT_M) & is_near).any(axis=1)
    return Ground(
        xy_m=xy_m.astype(np.float32),
        is_near=is_near.astype(np.float32),
        first_near_row=int(is_row_near.argmax()) if is_row_near.any() else len(rows),
        camera=camera,
    )


def road_view(
    roads: RoadMap | None, ground: Ground, pose: FloatArray, agents: Agents | None = None
) -> Float32Array:
    """Return what a map says is seen from a pose, and where other cars are in the picture.

    Args:
        roads: the map; None where there is none.
        ground: of the camera.
        pose: (3,) x and y in metres and yaw in radians, global.
        agents: the others; None where nothing is known of them.

    Returns:
        (VIEW_DIM, h, w): distance to the edge as in :class:`RoadMap`, and 1 where it is known: where the map covers at
        least half of a cell; the share of the cell that is painted, and 1 where the markings are known; the share that
        boxes of agents cover, and 1 if they are known. All are 0 elsewhere.
    """
    factor = VIEW_CELL_PX // SAMPLE_PX
    rows, columns = ground.is_near.shape
    view = np.zeros((VIEW_DIM, rows // factor, columns // factor), np.float32)
    if roads is not None:
        view[:4] = _mapped_view(roads, ground, pose, factor)
    if agents is not None:
        view[4], view[5] = agent_cover(agents, ground.camera, pose, cell_px=VIEW_CELL_PX), 1.0
    return view


def _mapped_view(roads: RoadMap, ground: Ground, pose: FloatArray, factor: int) -> Float32Array:
    """Return the part (4, h, w) of a view that a map knows."""
    cells = _cells(ground.xy_m, pose, roads.origin_xy_m, roads.cell_m)
    distance = _read_at(roads.distance, cells, cv2.BORDER_REPLICATE)
    column, row = cells[..., 0], cells[..., 1]
    most_row, most_column = (size - 0.5 for size in roads.distance.shape)
    is_inside = (column > -0.5) & (column < most_column) & (row > -0.5) & (row < most_row)
    is_known = is_inside * ground.is_near
    fine = np.stack([distance * is_known, is_known, _painted(roads.paint, ground, pose)])
    parts = [fine[:, i::factor, j::factor] for i in range(factor) for j in range(factor)]
    sums, share, paint = np.sum(parts, axis=0) / factor**2
    is_cell_known = share >= 0.5
    view = np.stack(
        [
            np.where(is_cell_known, sums / np.maximum(share, 0.5), 0.0),
            is_cell_known,
            np.where(is_cell_known, paint, 0.0),
            is_cell_known & (roads.paint is not None),
        ]
    )
    return view.astype(np.float32)


def _cells(xy_m: Float32Array, pose: FloatArray, origin_xy_m: FloatArray, cell_m: float) -> Float32Array:
    """Return where points (..., 2) of the ego frame lie on a raster, in cells from the middle of its first."""
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    # Global positions are large: the offset is taken in double precision, the rest is small.
    start = (pose[:2] - origin_xy_m) / cell_m - 0.5
    cells = xy_m @ (np.array([[cos, sin], [-sin, cos]]) / cell_m) + start
    return np.asarray(cells, dtype=np.float32)


def _read_at(raster: NDArray[Any], cells: Float32Array, border: int) -> NDArray[Any]:
    """Read a raster between its cells at (..., 2) columns and rows; one too large for OpenCV around them only."""
    if max(raster.shape) >= _MOST_CELLS:
        limit = np.array(raster.shape[::-1])
        low = np.clip(np.floor(cells.min(axis=(0, 1))) - 1, 0, limit - 1).astype(int)
        high = np.clip(np.ceil(cells.max(axis=(0, 1))) + 2, low + 1, limit).astype(int)
        raster = np.ascontiguousarray(raster[low[1] : high[1], low[0] : high[0]])
        cells = cells - low.astype(np.float32)
    return np.asarray(cv2.remap(raster, cells, None, cv2.INTER_LINEAR, borderMode=border))


def _painted(paint: Paint | None, ground: Ground, pose: FloatArray) -> Float32Array:
    """Return the painted share (rows, columns) at each place of the ground; 0 where nothing is known."""
    result = np.zeros(ground.is_near.shape, np.float32)
    if paint is None:
        return result
    border = ground.first_near_row
    for part, raster, factor in (
        (slice(None, border), paint.far, FAR_PAINT_FACTOR),
        (slice(border, None), paint.near, 1),
    ):
        if ground.xy_m[part].size:
            cells = _cells(ground.xy_m[part], pose, paint.origin_xy_m, paint.cell_m * factor)
            result[part] = _read_at(raster, cells, cv2.BORDER_CONSTANT)
    return result * ground.is_near / 255.0


def packed_road_views(
    roads: RoadMap | None,
    camera: Camera,
    xy_m: FloatArray,
    yaw_rad: FloatArray,
    agents: Sequence[Agents | None] | None = None,
) -> NDArray[np.int8]:
    """Return the views (T, PACKED_DIM, h, w) from T poses as recordings keep them.

    That is ``UNKNOWN`` or 127 times the distance, and likewise the share that is painted and that agents cover.

    Args:
        roads: the map; None where there is none.
        camera: at these poses.
        xy_m: (T, 2) global.
        yaw_rad: (T,).
        agents: T, also of each instant; None where nothing is known of them.
    """
    ground, poses = ground_of(camera), np.concatenate([xy_m, np.asarray(yaw_rad)[:, None]], axis=1)
    others = [None] * len(poses) if agents is None else agents
    views = np.stack([road_view(roads, ground, pose, seen) for pose, seen in zip(poses, others, strict=True)])
    values, is_known = views[:, 0::2], views[:, 1::2] > 0
    return np.where(is_known, np.round(values * PACKED_SCALE), UNKNOWN).astype(np.int8)
