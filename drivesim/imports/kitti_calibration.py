"""The left colour camera of KITTI's car, from the three calibration files of a day or from KITTI's drawing of the car.

The drawing: the camera is 1.65 m above the ground and 1.03 m ahead of the rear axle; the GPS/IMU unit 0.93 m above
the ground, 0.05 m behind the rear axle and 0.32 m to its left.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from drivesim.errors import InputError
from drivesim.imports.foreign_files import number, read_text
from drivesim.imports.remarks import Check
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import CAM_FROM_FORWARD, Camera

KITTI_IMU_XY_M = (-0.05, 0.32)
_IMU_HEIGHT_M = 0.93
_CAMERA_M = (1.03, 0.06, 1.65)
_MAX_OFF_M = 1.0  # a calibration that is farther from the drawing is not of this car

Calibration = dict[str, FloatArray]


def kitti_camera(drive: Path, size: tuple[int, int], problems: list[str]) -> Camera | None:
    """Return the camera of ``image_02``; None if its calibration is nowhere to be found.

    Args:
        drive: folder of the drive; the files lie in it or, as KITTI has them, beside it.
        size: (height, width) of the pictures.
        problems: is told what is missing.
    """
    camera = _calibration(drive, "calib_cam_to_cam.txt")
    projection = camera.get("P_rect_02", np.zeros(0))
    if projection.shape != (12,) or not 0 < projection[0] < 1e5 or not 0 < projection[5] < 1e5:
        problems.append(
            Check("there is no calib_cam_to_cam.txt with P_rect_02; the field of view is not known")
        )
        return None
    recorded = camera.get("S_rect_02", np.zeros(0))
    if recorded.shape == (2,) and tuple(recorded.astype(int)) != size[::-1]:
        problems.append(
            f"the pictures are not of the size that was calibrated ({recorded[0]:g}x{recorded[1]:g} px)"
        )
        return None
    return Camera(
        width_px=size[1],
        height_px=size[0],
        fx_px=float(projection[0]),
        fy_px=float(projection[5]),
        cx_px=float(projection[2]),
        cy_px=float(projection[6]),
        ego_from_cam=_ego_from_cam(drive, camera, problems),
    )


def _ego_from_cam(drive: Path, camera: Calibration, problems: list[str]) -> FloatArray:
    drawn = np.eye(4)
    drawn[:3, :3] = CAM_FROM_FORWARD
    drawn[:3, 3] = _CAMERA_M
    velo_from_imu = _rigid(_calibration(drive, "calib_imu_to_velo.txt"))
    cam_from_velo = _rigid(_calibration(drive, "calib_velo_to_cam.txt"))
    rectification, projection = camera.get("R_rect_00", np.zeros(0)), camera["P_rect_02"]
    if velo_from_imu is None or cam_from_velo is None or rectification.shape != (9,):
        problems.append("the place of the camera is taken from KITTI's drawing of the car")
        return drawn
    rectified_from_cam, cam2_from_rectified = np.eye(4), np.eye(4)
    rectified_from_cam[:3, :3] = rectification.reshape(3, 3)
    cam2_from_rectified[0, 3] = projection[3] / projection[0]
    ego_from_imu = np.eye(4)
    ego_from_imu[:3, 3] = (*KITTI_IMU_XY_M, _IMU_HEIGHT_M)
    cam_from_imu = cam2_from_rectified @ rectified_from_cam @ cam_from_velo @ velo_from_imu
    rotation = cam_from_imu[:3, :3]
    ego_from_cam = ego_from_imu @ _inverse(cam_from_imu)
    is_rotation = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-2)
    if not is_rotation or np.abs(ego_from_cam[:3, 3] - drawn[:3, 3]).max() > _MAX_OFF_M:
        problems.append("the calibration files do not fit KITTI's car; its drawing is taken")
        return drawn
    return ego_from_cam


def _inverse(rigid: FloatArray) -> FloatArray:
    inverse = np.eye(4)
    inverse[:3, :3] = rigid[:3, :3].T
    inverse[:3, 3] = -rigid[:3, :3].T @ rigid[:3, 3]
    return inverse


def _rigid(calibration: Calibration) -> FloatArray | None:
    rotation, offset = calibration.get("R", np.zeros(0)), calibration.get("T", np.zeros(0))
    if rotation.shape != (9,) or offset.shape != (3,):
        return None
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = rotation.reshape(3, 3), offset
    return rigid


def _calibration(drive: Path, name: str) -> Calibration:
    """Return the lists of numbers in a file by their names; empty if there is none."""
    path = next((folder / name for folder in (drive, drive.parent) if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        lines = read_text(path, max_bytes=1 << 20).splitlines()
    except InputError:
        return {}
    values = {}
    for line in lines:
        key, _, rest = line.partition(":")
        numbers = [number(word) for word in rest.split()]
        if numbers and None not in numbers:
            values[key.strip()] = np.array(numbers, dtype=np.float64)
    return values
