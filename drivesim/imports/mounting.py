"""Cameras whose lens is known: where they sit in the car comes from the configuration."""

from __future__ import annotations

import numpy as np

from drivesim.imports.options import ImportConfig
from drivesim.scene.types import CAM_FROM_FORWARD, Camera


def mounted_camera(
    config: ImportConfig, *, size: tuple[int, int], focal_px: float, pitch_rad: float | None = None
) -> Camera:
    """Return a camera that looks ahead, with its principal point in the middle.

    Args:
        config: height, distance ahead of the rear axle and, unless given, pitch.
        size: (height, width) of its pictures.
        focal_px: focal length.
        pitch_rad: down is positive.
    """
    pitch = config.camera_pitch_rad if pitch_rad is None else pitch_rad
    cos, sin = np.cos(pitch), np.sin(pitch)
    ego_from_level = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    ego_from_cam = np.eye(4)
    ego_from_cam[:3, :3] = ego_from_level @ CAM_FROM_FORWARD
    ego_from_cam[:3, 3] = (config.camera_forward_m, 0.0, config.camera_height_m)
    return Camera(
        width_px=size[1],
        height_px=size[0],
        fx_px=focal_px,
        fy_px=focal_px,
        cx_px=size[1] / 2,
        cy_px=size[0] / 2,
        ego_from_cam=ego_from_cam,
    )
