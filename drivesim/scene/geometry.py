"""Planar and spatial rigid maps, named ``dst_from_src``; the only place where angles are wrapped.

Axes: global and ego frames are x forward (ego), y left, z up, right-handed; yaw is counter-clockwise.
Camera frames are x right, y down, z forward (the nuScenes convention). Quaternions are (w, x, y, z).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def wrap_angle(angle_rad: ArrayLike) -> FloatArray:
    """Wrap angles to [-pi, pi)."""
    return np.asarray((np.asarray(angle_rad, dtype=np.float64) + np.pi) % (2 * np.pi) - np.pi)


def rotation_2d(yaw_rad: float) -> FloatArray:
    """Return the (2, 2) counter-clockwise rotation by ``yaw_rad``."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[cos, -sin], [sin, cos]])


def global_from_ego(xy_m: ArrayLike, yaw_rad: float) -> FloatArray:
    """Return the (3, 3) homogeneous planar map that takes ego points to global points."""
    matrix = np.eye(3)
    matrix[:2, :2] = rotation_2d(yaw_rad)
    matrix[:2, 2] = np.asarray(xy_m, dtype=np.float64)
    return matrix


def transform_points(dst_from_src: FloatArray, points: ArrayLike) -> FloatArray:
    """Apply a (D+1, D+1) homogeneous map to (..., D) points."""
    points = np.asarray(points, dtype=np.float64)
    linear, offset = dst_from_src[:-1, :-1], dst_from_src[:-1, -1]
    return np.asarray(points @ linear.T + offset)


def rotation_from_quaternion(quaternion_wxyz: ArrayLike) -> FloatArray:
    """Return the (3, 3) rotation of a (w, x, y, z) quaternion; it is normalised first."""
    quaternion = np.asarray(quaternion_wxyz, dtype=np.float64)
    norm = float(np.linalg.norm(quaternion))
    if quaternion.shape != (4,) or not norm > 0:
        raise ValueError(f"a quaternion is four numbers (w, x, y, z), not all zero; got {quaternion}")
    w, x, y, z = quaternion / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def yaw_from_quaternion(quaternion_wxyz: ArrayLike) -> float:
    """Return the yaw of a (w, x, y, z) quaternion: the heading of its x axis in the x-y plane."""
    rotation = rotation_from_quaternion(quaternion_wxyz)
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def quaternion_from_yaw(yaw_rad: float) -> FloatArray:
    """Return the (w, x, y, z) quaternion of a rotation by ``yaw_rad`` about z."""
    return np.array([np.cos(yaw_rad / 2), 0.0, 0.0, np.sin(yaw_rad / 2)])


def quaternion_from_rotation(rotation: ArrayLike) -> FloatArray:
    """Return the (w, x, y, z) quaternion, w >= 0, of a (3, 3) rotation matrix."""
    matrix = np.asarray(rotation, dtype=np.float64)
    # The eigenvector of the largest eigenvalue of this symmetric matrix is the quaternion (Bar-Itzhack 2000).
    xx, yx, zx = matrix[:, 0]
    xy, yy, zy = matrix[:, 1]
    xz, yz, zz = matrix[:, 2]
    k = np.array(
        [
            [xx - yy - zz, 0, 0, 0],
            [yx + xy, yy - xx - zz, 0, 0],
            [zx + xz, zy + yz, zz - xx - yy, 0],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    _, vectors = np.linalg.eigh(k / 3.0)
    x, y, z, w = vectors[:, -1]
    quaternion = np.array([w, x, y, z])
    return np.asarray(quaternion if w >= 0 else -quaternion)


def spaced(points_m: FloatArray, *, least_m: float) -> FloatArray:
    """Return the (K, 2) points of a (R, 2) polyline that lie ``least_m`` or more from the one kept before."""
    kept = [points_m[0]] if len(points_m) else []
    for point in points_m[1:]:
        if float(np.linalg.norm(point - kept[-1])) >= least_m:
            kept.append(point)
    return np.array(kept, dtype=np.float64).reshape(-1, 2)
