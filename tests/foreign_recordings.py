"""Recordings of other kinds, made from scenes in the layouts of their data sets, for tests that import them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drivesim.scene.geometry import FloatArray, quaternion_from_rotation
from drivesim.scene.types import Image, Scene
from drivesim.video import write_image

DONKEYCAR_MAX_SPEED_MPS = 20.0
DONKEYCAR_MAX_STEERING_RAD = 0.4
COMMA_RATIO = 15.38
COMMA_ROUTE = "99c94dc769b5d96e|2018-05-01--08-13-53"
COMMA_CAMERA_FORWARD_M = 1.7
KITTI_PROJECTION = (
    "7.215377e+02 0.0 6.095593e+02 4.485728e+01 0.0 7.215377e+02 1.728540e+02 "
    "2.163791e-01 0.0 0.0 1.0 2.745884e-03"
)
KITTI_IMU_TO_VELO = (
    "R: 9.999976e-01 7.553071e-04 -2.035826e-03 -7.854027e-04 9.998898e-01 -1.482298e-02 2.024406e-03 1.482454e-02 "
    "9.998881e-01\nT: -8.086759e-01 3.195559e-01 -7.997231e-01\n"
)
KITTI_VELO_TO_CAM = (
    "R: 7.533745e-03 -9.999714e-01 -6.166020e-04 1.480249e-02 7.280733e-04 -9.998902e-01 9.998621e-01 7.523790e-03 "
    "1.480755e-02\nT: -4.069766e-03 -7.631618e-02 -2.717806e-01\n"
)
_LATITUDE, _LONGITUDE = np.deg2rad(49.0), np.deg2rad(8.4)
_EARTH_RADIUS_M = 6_378_137.0


def at_instants(mean_into: FloatArray) -> FloatArray:
    """Means over the intervals that lead into frames -> values at the frames."""
    return 0.5 * (mean_into + np.append(mean_into[1:], mean_into[-1]))


def shown_frame(image: Image, scene: Scene) -> int:
    """Return the index of the frame of ``make_scene`` that a picture shows, whatever a codec did to it."""
    reds = np.array([frame[..., 0].mean() for frame in scene.frames])
    return int(np.abs(reds - image[..., 0].mean()).argmin())


# ------------------------------------------------------------------------------------------- Donkeycar


def write_donkeycar_v1(tub: Path, scene: Scene, *, has_times: bool = True) -> Path:
    """Write ``record_N.json`` beside the pictures."""
    tub.mkdir(parents=True)
    inputs = ["cam/image_array", "user/angle", "user/throttle", "user/mode"]
    meta = {"inputs": inputs, "types": ["image_array", "float", "float", "str"], "start": 1550950724.86}
    (tub / "meta.json").write_text(json.dumps(meta))
    for index, record in enumerate(_donkeycar_records(scene)):
        record["cam/image_array"] = f"{index}_cam-image_array_.jpg"
        if has_times:
            record["milliseconds"] = int(record.pop("time_s") * 1000) + 700
        else:
            del record["time_s"]
        write_image(tub / record["cam/image_array"], scene.frames[index])
        (tub / f"record_{index}.json").write_text(json.dumps(record))
    return tub


def write_donkeycar_v2(
    tub: Path,
    scene: Scene,
    *,
    deleted: Sequence[int] = (),
    per_catalog: int = 10,
    session: str = "25-08-02_1",
) -> Path:
    """Write ``manifest.json``, catalogs and ``images/``."""
    (tub / "images").mkdir(parents=True)
    lines = []
    for index, record in enumerate(_donkeycar_records(scene)):
        time_ms = 1_754_100_000_000 + int(record.pop("time_s") * 1000)
        record |= {"_index": index, "_session_id": session, "_timestamp_ms": time_ms}
        record["cam/image_array"] = f"{index}_cam_image_array_.jpg"
        write_image(tub / "images" / record["cam/image_array"], scene.frames[index])
        lines.append(json.dumps(record, sort_keys=True))
    names = []
    for start in range(0, len(lines), per_catalog):
        names.append(f"catalog_{start // per_catalog}.catalog")
        part = lines[start : start + per_catalog]
        (tub / names[-1]).write_text("".join(f"{line}\n" for line in part))
        facts = {"path": f"catalog_{start // per_catalog}.catalog_manifest", "start_index": start}
        (tub / facts["path"]).write_text(
            json.dumps(facts | {"line_lengths": [len(line) + 1 for line in part]})
        )
    manifest: list[Any] = [
        ["cam/image_array", "user/angle", "user/throttle", "user/mode"],
        ["image_array", "float", "float", "str"],
        {},
        {"created_at": 1754100000.0, "sessions": {"all_full_ids": [session], "last_id": 1}},
        {
            "current_index": len(lines),
            "deleted_indexes": list(deleted),
            "max_len": per_catalog,
            "paths": names,
        },
    ]
    (tub / "manifest.json").write_text("".join(f"{json.dumps(line)}\n" for line in manifest))
    return tub


def _donkeycar_records(scene: Scene) -> Iterable[dict[str, Any]]:
    angle = -at_instants(scene.steering_rad) / DONKEYCAR_MAX_STEERING_RAD
    throttle = at_instants(scene.speed_mps) / DONKEYCAR_MAX_SPEED_MPS
    for index in range(len(scene)):
        yield {
            "user/angle": float(angle[index]),
            "user/throttle": float(throttle[index]),
            "user/mode": "user",
            "time_s": float(scene.timestamps_s[index]),
        }


# ------------------------------------------------------------------------------------------- comma2k19


def write_comma2k19(
    root: Path, scene: Scene, *, segment: int = 3, route: str = COMMA_ROUTE, pitch_rad: float = 0.0
) -> Path:
    """Write a segment below the folder of its route; return the segment."""
    folder = root / route / str(segment)
    start_s = 1234.5
    times_s = start_s + scene.timestamps_s
    write_hevc(folder / "video.hevc", scene.frames)
    write_image(folder / "preview.png", scene.frames[0])
    can_times_s = np.arange(times_s[0] - 0.5, times_s[-1] + 0.5, 0.0123)
    speed = np.interp(can_times_s, times_s, at_instants(scene.speed_mps))
    wheel_deg = np.rad2deg(np.interp(can_times_s, times_s, at_instants(scene.steering_rad)) * COMMA_RATIO)
    can = folder / "processed_log" / "CAN"
    save_array(can / "speed" / "t", can_times_s)
    save_array(can / "speed" / "value", speed[:, None])  # as they are
    save_array(can / "steering_angle" / "t", can_times_s)
    save_array(can / "steering_angle" / "value", wheel_deg)
    pose = folder / "global_pose"
    positions, velocities, quaternions = _ecef_poses(scene, pitch_rad)
    save_array(pose / "frame_times", times_s)
    save_array(pose / "frame_positions", positions)
    save_array(pose / "frame_velocities", velocities)
    save_array(pose / "frame_orientations", quaternions)
    return folder


def save_array(path: Path, values: np.ndarray[Any, Any]) -> None:
    """Save an array without the suffix that numpy likes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.save(file, values)


def write_hevc(path: Path, frames: Iterable[Image]) -> None:
    """Write pictures as a raw HEVC stream, which has no times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="hevc") as container:
        stream = container.add_stream(
            "libx265", rate=Fraction(20), options={"crf": "16", "x265-params": "log-level=none"}
        )
        pending = list(frames)
        stream.height, stream.width, stream.pix_fmt = *pending[0].shape[:2], "yuv420p"
        for image in pending:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _ecef_poses(scene: Scene, pitch_rad: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Camera positions, velocities and orientations on a round Earth."""
    up = np.array(
        [np.cos(_LATITUDE) * np.cos(_LONGITUDE), np.cos(_LATITUDE) * np.sin(_LONGITUDE), np.sin(_LATITUDE)]
    )
    east = np.array([-np.sin(_LONGITUDE), np.cos(_LONGITUDE), 0.0])
    north = np.cross(up, east)
    heading = np.cos(scene.yaw_rad)[:, None] * east + np.sin(scene.yaw_rad)[:, None] * north
    right = np.sin(scene.yaw_rad)[:, None] * east - np.cos(scene.yaw_rad)[:, None] * north
    offset = scene.xy_m - scene.xy_m[0]
    positions = 6.371e6 * up + offset[:, :1] * east + offset[:, 1:] * north + COMMA_CAMERA_FORWARD_M * heading
    forward = np.cos(pitch_rad) * heading - np.sin(pitch_rad) * up
    axes = np.stack([forward, right, np.cross(forward, right)], axis=-1)
    quaternions = np.array([quaternion_from_rotation(rotation) for rotation in axes])
    return positions, at_instants(scene.speed_mps)[:, None] * heading, quaternions


# ------------------------------------------------------------------------------------------- KITTI raw


def write_kitti(
    root: Path, scene: Scene, *, day: str = "2011_09_26", number: int = 5, has_calibration: bool = True
) -> Path:
    """Write a drive below the folder of its day; return the drive."""
    drive = root / day / f"{day}_drive_{number:04d}_sync"
    start = datetime(2011, 9, 26, 13, 2, 25, tzinfo=UTC)
    nanoseconds = [964_389_445 + round(float(time) * 1e9) for time in scene.timestamps_s]
    stamps = [
        f"{start + timedelta(seconds=value // 1_000_000_000):%Y-%m-%d %H:%M:%S}.{value % 1_000_000_000:09d}"
        for value in nanoseconds
    ]
    packets = _oxts(scene)
    for folder in ("image_02", "oxts"):
        (drive / folder / "data").mkdir(parents=True)
        (drive / folder / "timestamps.txt").write_text("".join(f"{stamp}\n" for stamp in stamps))
    for index in range(len(scene)):
        write_image(drive / "image_02" / "data" / f"{index:010d}.png", scene.frames[index])
        words = " ".join(f"{value:.12g}" for value in packets[index])
        (drive / "oxts" / "data" / f"{index:010d}.txt").write_text(f"{words} 4 10 5 5 0\n")
    if has_calibration:
        height, width = scene.frames[0].shape[:2]
        identity = "R_rect_00: 1 0 0 0 1 0 0 0 1\n"
        text = f"calib_time: 09-Jan-2012 13:57:47\nS_rect_02: {width:e} {height:e}\n{identity}"
        (root / day / "calib_cam_to_cam.txt").write_text(f"{text}P_rect_02: {KITTI_PROJECTION}\n")
        (root / day / "calib_imu_to_velo.txt").write_text(f"calib_time: 25-May-2012\n{KITTI_IMU_TO_VELO}")
        (root / day / "calib_velo_to_cam.txt").write_text(f"calib_time: 15-Mar-2012\n{KITTI_VELO_TO_CAM}")
    return drive


def _oxts(scene: Scene) -> FloatArray:
    """Rows of the 25 numbers before the five flags."""
    cos, sin = np.cos(scene.yaw_rad), np.sin(scene.yaw_rad)
    imu_m = (
        scene.xy_m - scene.xy_m[0] + np.stack([-0.05 * cos - 0.32 * sin, -0.05 * sin + 0.32 * cos], axis=-1)
    )
    scale = _EARTH_RADIUS_M * np.cos(_LATITUDE)
    mercator = np.log(np.tan(np.pi / 4 + _LATITUDE / 2)) + imu_m[:, 1] / scale
    values = np.zeros((len(scene), 25))
    values[:, 0] = np.rad2deg(2 * np.arctan(np.exp(mercator)) - np.pi / 2)
    values[:, 1] = np.rad2deg(_LONGITUDE + imu_m[:, 0] / scale)
    values[:, 2] = 112.8
    values[:, 5] = scene.yaw_rad
    values[:, 8] = at_instants(scene.speed_mps)
    values[:, 19] = values[:, 22] = at_instants(scene.yaw_rate_radps)
    values[:, 23:] = 0.05
    return values


# ------------------------------------------------------------------------------------------- LeRobot v2.1


def write_lerobot_v21(
    root: Path,
    scenes: Sequence[Scene],
    *,
    names: Sequence[str] = ("speed_kmh", "steering_angle_deg"),
    right_positive: bool = False,
) -> Path:
    """Write a table and a video per episode, as LeRobot did before v3; a second camera has no videos."""
    keys = ("observation.images.front_left", "observation.images.rear")
    episodes, total = [], 0
    for number, scene in enumerate(scenes):
        count = len(scene)
        speed, steering = at_instants(scene.speed_mps) * 3.6, np.rad2deg(at_instants(scene.steering_rad))
        state = np.stack([speed, -steering if right_positive else steering], axis=-1).astype(np.float32)
        table = {
            "observation.state.vehicle": list(state),
            "timestamp": pa.array(np.arange(count) / scene.rate_hz, pa.float32()),
            "frame_index": np.arange(count),
            "episode_index": np.full(count, number),
            "index": total + np.arange(count),
            "task_index": np.zeros(count, int),
        }
        data = root / "data" / "chunk-000" / f"episode_{number:06d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), data)
        _write_h264(root / "videos" / "chunk-000" / keys[0] / f"episode_{number:06d}.mp4", scene)
        episodes.append({"episode_index": number, "tasks": [scene.caption], "length": count})
        total += count
    video = {"dtype": "video", "shape": [3, 128, 224], "names": ["channel", "height", "width"]}
    number_feature = {"dtype": "int64", "shape": [1], "names": None}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "car",
        "total_episodes": len(scenes),
        "total_frames": total,
        "chunks_size": 1000,
        "fps": int(scenes[0].rate_hz),
        "splits": {"train": f"0:{len(scenes)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            **{key: {**video, "info": {"video.fps": scenes[0].rate_hz}} for key in keys},
            "observation.state.vehicle": {"dtype": "float32", "shape": [2], "names": {"axes": list(names)}},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), number_feature),
        },
    }
    (root / "meta").mkdir()
    (root / "meta" / "info.json").write_text(json.dumps(info, indent=4))
    (root / "meta" / "episodes.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in episodes))
    (root / "meta" / "tasks.jsonl").write_text('{"task_index": 0, "task": "drive"}\n')
    return root


def _write_h264(path: Path, scene: Scene) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(scene.rate_hz), options={"crf": "16", "g": "2"}
        )
        stream.height, stream.width, stream.pix_fmt = *scene.frames[0].shape[:2], "yuv420p"
        for image in scene.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
