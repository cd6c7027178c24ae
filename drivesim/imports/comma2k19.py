"""comma2k19 segments: a minute of highway each, as ``video.hevc``, CAN readings and camera poses in numpy files.

comma2k19's convention: all times are seconds since the phone was started; frame i of the video was taken at
``frame_times[i]`` (the stream itself has no times). Speed is in m/s; the steering angle in degrees of the steering
wheel, left positive. Positions are ECEF, of the camera; orientations are quaternions (w, x, y, z) that turn the
camera's axes (forward, right, down) to ECEF. The camera is the EON's, 910 px at 1164x874.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drivesim.errors import InputError
from drivesim.imports.counted_frames import CountedFrames, count_frames
from drivesim.imports.drive_log import DriveLog, Signal, Track
from drivesim.imports.foreign_files import folders_where, log_name
from drivesim.imports.many_recordings import logs_of_all
from drivesim.imports.mounting import mounted_camera
from drivesim.imports.numpy_files import read_array
from drivesim.imports.options import ImportConfig, SpeedUnit, SteeringUnit
from drivesim.imports.readings import increasing, signal, track
from drivesim.imports.remarks import Check, Loss
from drivesim.imports.units import road_wheel_rad, speed_mps
from drivesim.scene.geometry import FloatArray, rotation_from_quaternion, wrap_angle

EON_SIZE_PX = (874, 1164)
EON_FOCAL_PX = 910.0
STEERING_RATIOS = {"b0c9d2329ad1606b": 16.88, "99c94dc769b5d96e": 15.38}
"""By the device in the name of the route: a Toyota RAV4 and a Honda Civic, as openpilot has them."""
_OTHER_RATIO = 16.0
_VIDEO = "video.hevc"
_LEAST_SPEED_MPS = 5.0  # from which on the direction of travel is well known
_MAX_MOUNTING_RAD = 0.35
_MAX_SPEED_MPS = 100.0


@dataclass(kw_only=True, slots=True)
class _Poses:
    """Where the camera was, in a frame that is level at the first of its places: x east, y north, z up."""

    xyz_m: FloatArray  # (N, 3)
    forward: FloatArray  # (N, 3) unit vectors
    right: FloatArray  # (N, 3)
    velocity_mps: FloatArray  # (N, 3) NaN where it is not known


@dataclass(kw_only=True, slots=True)
class _Mounting:
    """How the camera looks past the direction of travel."""

    pitch_rad: float = 0.0  # down is positive
    yaw_rad: float = 0.0  # left is positive


def read_comma2k19(path: Path, config: ImportConfig) -> list[DriveLog]:
    """Read a segment, or all segments in a folder.

    Raises:
        InputError: there is no segment, or none has frames, times, and speed or poses.
    """
    segments = folders_where(path, _is_segment)
    if not segments:
        raise InputError(f"{path} holds no comma2k19 segment; name a folder with {_VIDEO} and processed_log/")

    def read(segment: Path) -> list[DriveLog]:
        return [_log(segment, log_name(path, segment).replace("|", "_"), config)]

    return logs_of_all(segments, read)


def _is_segment(_: Sequence[str], files: Sequence[str]) -> bool:
    return _VIDEO in files


def _log(segment: Path, name: str, config: ImportConfig) -> DriveLog:
    problems: list[str] = []
    poses_folder = next(
        (segment / folder for folder in ("global_pose", "global_pos") if (segment / folder).is_dir()), None
    )
    if poses_folder is None:
        raise InputError(
            f"segment {segment} has no global_pose/, where the times of its frames are; fetch it again"
        )
    all_times_s = read_array(poses_folder / "frame_times")
    kept = _frames(segment / _VIDEO, all_times_s, problems)
    start_s = float(all_times_s[kept[0]])
    mounting, driven = _track(poses_folder, all_times_s - start_s, config, problems)
    speed, steering = _readings(segment, start_s, config, problems)
    if speed is None and driven is None:
        raise InputError(f"segment {segment} has neither speed nor poses that can be read; leave it out")
    log = DriveLog(
        name=name,
        frames=CountedFrames(segment / _VIDEO, kept),
        frame_times_s=all_times_s[kept] - start_s,
        speed_mps=speed,
        steering_rad=steering,
        track=driven,
        camera=mounted_camera(
            config,
            size=EON_SIZE_PX,
            focal_px=EON_FOCAL_PX,
            pitch_rad=config.camera_pitch_rad or mounting.pitch_rad,
        ),
        place="comma2k19",
        problems=problems,
    )
    log.check()
    return log


def _frames(
    video: Path, times_s: FloatArray, problems: list[str]
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the numbers of the frames that have a time of their own."""
    count = count_frames(video)
    if count != len(times_s):
        problems.append(
            f"{video.name} has {count} frames but {len(times_s)} times; the first of both belong together"
        )
    times_s = times_s[:count]
    kept = increasing(np.where(np.isfinite(times_s), times_s, np.nan))
    if len(kept) < len(times_s):
        problems.append(
            Loss(
                f"{len(times_s) - len(kept)} frames have a time that is missing or does not increase; left out"
            )
        )
    if not len(kept):
        raise InputError(f"video {video} holds no frame that has a time; fetch it again")
    return kept


def _readings(
    segment: Path, start_s: float, config: ImportConfig, problems: list[str]
) -> tuple[Signal | None, Signal | None]:
    """Return speed and road-wheel steering."""
    can = segment / "processed_log" / "CAN"
    speed = _series(can, ("speed", "car_speed"), problems)
    if speed is not None:
        times_s, values = speed
        values = speed_mps(values, config, unit=SpeedUnit.MPS)
        speed_signal = signal("speed", times_s - start_s, values, problems=problems)
    else:
        speed_signal = None
    wheel = _series(can, ("steering_angle",), problems)
    if wheel is None:
        return speed_signal, None
    times_s, values = wheel
    device = next((device for device in STEERING_RATIOS if device in str(segment.resolve())), None)
    if device is None and config.steering_ratio is None:
        problems.append(
            Check(f"the car is not one of comma2k19's two; its steering ratio is taken as {_OTHER_RATIO:g}")
        )
    ratio = STEERING_RATIOS.get(device or "", _OTHER_RATIO)
    values = road_wheel_rad(values, config, unit=SteeringUnit.DEG, ratio=ratio)
    return speed_signal, signal("steering", times_s - start_s, values, problems=problems)


def _series(can: Path, names: tuple[str, ...], problems: list[str]) -> tuple[FloatArray, FloatArray] | None:
    """Return times and values of a reading; None if there are none, or not as many of one as of the other."""
    folder = next((can / name for name in names if (can / name).is_dir()), None)
    if folder is None:
        problems.append(Loss(f"processed_log/CAN/{names[0]} is missing; it is done without"))
        return None
    try:
        times_s, values = read_array(folder / "t"), read_array(folder / "value")
    except InputError as error:
        problems.append(Loss(f"{error}; it is done without"))
        return None
    if len(times_s) != len(values):
        problems.append(
            Loss(f"{folder} has {len(times_s)} times but {len(values)} values; it is done without")
        )
        return None
    return times_s, values


def _track(
    folder: Path, times_s: FloatArray, config: ImportConfig, problems: list[str]
) -> tuple[_Mounting, Track | None]:
    """Return the path of the rear axle, and how the camera is mounted, which the poses tell."""
    try:
        poses = _poses(folder, len(times_s))
    except InputError as error:
        problems.append(Loss(f"{error}; the track is done without"))
        return _Mounting(), None
    mounting = _mounting(poses)
    yaw = wrap_angle(np.arctan2(poses.forward[:, 1], poses.forward[:, 0]) - mounting.yaw_rad)
    heading = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
    rear_axle_m = poses.xyz_m[:, :2] - config.camera_forward_m * heading
    return mounting, track(times_s, rear_axle_m, yaw, problems=problems)


def _poses(folder: Path, count: int) -> _Poses:
    positions = read_array(folder / "frame_positions", columns=3)
    quaternions = read_array(folder / "frame_orientations", columns=4)
    if not len(positions) == len(quaternions) == count:
        raise InputError(
            f"{folder} has {count} times, {len(positions)} positions and {len(quaternions)} orientations"
        )
    velocities = np.full_like(positions, np.nan)
    if (folder / "frame_velocities").is_file():
        read = read_array(folder / "frame_velocities", columns=3)
        velocities = read if len(read) == count else velocities
    norms = np.linalg.norm(quaternions, axis=1)
    is_good = np.isfinite(positions).all(axis=1) & (np.abs(norms - 1.0) < 1e-2)
    is_good &= np.abs(np.linalg.norm(positions, axis=1) - 6.37e6) < 1e5  # on the ground of the Earth
    if not is_good.any():
        raise InputError(f"{folder} holds no pose on Earth; fetch it again")
    axes = np.full((count, 3, 3), np.nan)
    axes[is_good] = [rotation_from_quaternion(quaternion) for quaternion in quaternions[is_good]]
    origin = positions[int(np.argmax(is_good))]
    level = _east_north_up(origin)
    xyz_m = np.where(is_good[:, None], (positions - origin) @ level.T, np.nan)
    return _Poses(
        xyz_m=xyz_m,
        forward=axes[:, :, 0] @ level.T,
        right=axes[:, :, 1] @ level.T,
        velocity_mps=velocities @ level.T,
    )


def _east_north_up(position_m: FloatArray) -> FloatArray:
    """Return the (3, 3) rotation from ECEF to east, north and up at a place; up is from the middle of the Earth.

    That is off the plumb line by 0.2 degrees at most, too little to matter for a path in the plane.
    """
    up = position_m / np.linalg.norm(position_m)
    east = np.cross([0.0, 0.0, 1.0], up)
    east = east / np.linalg.norm(east)
    return np.stack([east, np.cross(up, east), up])


def _mounting(poses: _Poses) -> _Mounting:
    """Compare where the camera looks with where it goes; the medians over the segment are its mounting."""
    speed = np.linalg.norm(poses.velocity_mps, axis=1)
    with np.errstate(invalid="ignore"):
        is_moving = (
            (speed > _LEAST_SPEED_MPS) & (speed < _MAX_SPEED_MPS) & np.isfinite(poses.forward).all(axis=1)
        )
    if is_moving.sum() < 2:
        return _Mounting()
    going, forward, right = (part[is_moving] for part in (poses.velocity_mps, poses.forward, poses.right))
    down = np.cross(forward, right)
    ahead = (going * forward).sum(axis=1)
    pitch = float(np.median(np.arctan2(-(going * down).sum(axis=1), ahead)))
    yaw = float(np.median(np.arctan2((going * right).sum(axis=1), ahead)))
    if max(abs(pitch), abs(yaw)) > _MAX_MOUNTING_RAD:
        return _Mounting()
    return _Mounting(pitch_rad=pitch, yaw_rad=yaw)
