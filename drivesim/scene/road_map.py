"""What a map says the camera sees: the distance to the road's edge at each cell of a picture.

The pose of the car is known exactly, so a map of the drivable area can be laid out before the camera like the ground
itself. A distance to the edge says more than "road or not": lanes and their markings lie at certain distances from it,
and it can be read between the cells of the raster. `h w`: rows and columns of cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera, DrivableArea

Float32Array = NDArray[np.float32]

EDGE_REACH_M = 4.0  # distances are clipped there
MAP_CELL_M = 0.5
VIEW_CELL_PX = 4
SAMPLE_PX = 2  # the map is read at this stride of the picture
FARTHEST_M = 90.0  # along the ray; farther ground is a row or two of pixels
UNKNOWN = -128  # in a packed view
PACKED_SCALE = 127


@dataclass(kw_only=True, slots=True)
class RoadMap:
    """Distances to the edge of the road over ``EDGE_REACH_M``: 1 well inside, 0 at the edge, -1 well outside."""

    distance: Float32Array  # (rows, columns) in [-1, 1]; row 0 is the southern edge
    cell_m: float
    origin_xy_m: FloatArray  # (2,) global position of the lower left corner


@dataclass(kw_only=True, slots=True)
class Ground:
    """Where the rays of a camera meet flat ground, ``SAMPLE_PX`` pixels apart."""

    xy_m: Float32Array  # (rows, columns, 2) in the ego frame
    is_near: Float32Array  # (rows, columns) 1 where that is below the horizon and within ``FARTHEST_M``


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
    )


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
    return Ground(xy_m=xy_m.astype(np.float32), is_near=is_near.astype(np.float32))


def road_view(roads: RoadMap | None, ground: Ground, pose: FloatArray) -> Float32Array:
    """Return what a map says is seen from a pose.

    Args:
        roads: the map; None where there is none.
        ground: of the camera.
        pose: (3,) x and y in metres and yaw in radians, global.

    Returns:
        (2, h, w): distance to the edge as in :class:`RoadMap`, and 1 where it is known: where the map covers at least
        half of a cell. Both are 0 elsewhere.
    """
    factor = VIEW_CELL_PX // SAMPLE_PX
    rows, columns = ground.is_near.shape
    if roads is None:
        return np.zeros((2, rows // factor, columns // factor), np.float32)
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    # Global positions are large: the offset is taken in double precision, the rest is small.
    start = (pose[:2] - roads.origin_xy_m) / roads.cell_m - 0.5
    cells = ground.xy_m @ (np.array([[cos, sin], [-sin, cos]]) / roads.cell_m) + start
    cells = cells.astype(np.float32)
    distance = cv2.remap(roads.distance, cells, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    limit = np.array(roads.distance.shape[::-1])
    is_known = ((cells > -0.5) & (cells < limit - 0.5)).all(axis=-1) * ground.is_near
    fine = np.stack([distance * is_known, is_known])
    sums, share = fine.reshape(2, rows // factor, factor, columns // factor, factor).mean(axis=(2, 4))
    is_cell_known = share >= 0.5
    view = np.stack([np.where(is_cell_known, sums / np.maximum(share, 0.5), 0.0), is_cell_known])
    return view.astype(np.float32)


def packed_road_views(
    roads: RoadMap | None, camera: Camera, xy_m: FloatArray, yaw_rad: FloatArray
) -> NDArray[np.int8]:
    """Return the views from T poses as recordings keep them: (T, h, w), ``UNKNOWN`` or 127 times the distance.

    Args:
        roads: the map; None where there is none.
        camera: at these poses.
        xy_m: (T, 2) global.
        yaw_rad: (T,).
    """
    ground, poses = ground_of(camera), np.concatenate([xy_m, np.asarray(yaw_rad)[:, None]], axis=1)
    distance, is_known = np.stack([road_view(roads, ground, pose) for pose in poses], axis=1)
    return np.where(is_known > 0, np.round(distance * PACKED_SCALE), UNKNOWN).astype(np.int8)
