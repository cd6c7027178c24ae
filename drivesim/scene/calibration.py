"""The camera of a scene, from the record of its calibrated sensor."""

from __future__ import annotations

from typing import Any

import numpy as np

from drivesim.scene.geometry import rotation_from_quaternion
from drivesim.scene.types import Camera


def calibrated_camera(sensor: dict[str, Any], *, width_px: int, height_px: int) -> Camera:
    """Return the camera that a nuScenes ``calibrated_sensor`` record describes.

    Args:
        sensor: with ``camera_intrinsic`` (3, 3), ``translation`` in m and ``rotation`` as w, x, y, z.
        width_px: of its pictures.
        height_px: of its pictures.
    """
    intrinsic = np.asarray(sensor["camera_intrinsic"], dtype=np.float64)
    ego_from_cam = np.eye(4)
    ego_from_cam[:3, :3] = rotation_from_quaternion(sensor["rotation"])
    ego_from_cam[:3, 3] = sensor["translation"]
    return Camera(
        width_px=width_px,
        height_px=height_px,
        fx_px=float(intrinsic[0, 0]),
        fy_px=float(intrinsic[1, 1]),
        cx_px=float(intrinsic[0, 2]),
        cy_px=float(intrinsic[1, 2]),
        ego_from_cam=ego_from_cam,
    )
