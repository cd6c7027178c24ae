"""Tables of the size and the layout of nuScenes v1.0-trainval, made up: random tokens, twelve sensors, straight drives.

Only one scene has pictures, CAN bus files and a map of a city's size, for it is the one that is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks.opened_scene import (
    SCENE_S,
    SIZE_PX,
    SPEED_MPS,
    START_XY_M,
    straight_drive,
    write_mask,
    write_pictures,
)
from drivesim import console
from drivesim.scene.can_messages import can_messages

VERSION = "v1.0-trainval"
NUM_SCENES, NUM_SAMPLES, NUM_SAMPLE_DATA = 850, 34_149, 2_631_083
OPENED_SCENE = NUM_SCENES // 2
CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT")
RADARS = ("RADAR_FRONT", "RADAR_FRONT_LEFT", "RADAR_FRONT_RIGHT", "RADAR_BACK_LEFT", "RADAR_BACK_RIGHT")
SHARES = dict.fromkeys(CAMERAS, 12.0) | dict.fromkeys(RADARS, 13.0) | {"LIDAR_TOP": 20.0}
FIRST_US = 1_532_402_927_000_000
MASK_PIXELS = (29_795, 21_181)  # of boston-seaport, where half of the scenes are

_SAMPLE_DATA = """{
"token": "%s",
"sample_token": "%s",
"ego_pose_token": "%s",
"calibrated_sensor_token": "%s",
"timestamp": %d,
"fileformat": "%s",
"is_key_frame": %s,
"height": %d,
"width": %d,
"filename": "%s",
"prev": "%s",
"next": "%s"
}"""
_EGO_POSE = """{
"token": "%s",
"timestamp": %d,
"rotation": [
%r,
%r,
%r,
0.0
],
"translation": [
%r,
%r,
0.0
]
}"""


@dataclass(kw_only=True, slots=True)
class TableSet:
    """A data set on disk."""

    dataroot: Path
    num_bytes: int  # of its tables
    scene: str  # the one that can be opened


@dataclass(kw_only=True, slots=True)
class TableSize:
    """How large a set is; that of v1.0-trainval unless a test wants less."""

    scenes: int = NUM_SCENES
    samples: int = NUM_SAMPLES
    sample_data: int = NUM_SAMPLE_DATA
    mask_px: tuple[int, int] = MASK_PIXELS
    has_ordered_poses: bool = True  # as nuScenes has; else those of the last third come first


class _Tokens:
    """Random tokens, 32 hexadecimal digits each."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def take(self, count: int) -> list[str]:
        digits = self._rng.bytes(16 * count).hex()
        return [digits[start : start + 32] for start in range(0, 32 * count, 32)]


def write_tables(out: Path, *, size: TableSize | None = None, seed: int = 0) -> TableSet:
    """Write a data set of a size into a new folder."""
    size = size or TableSize()
    folder = out / VERSION
    folder.mkdir(parents=True)
    (out / "samples").mkdir()
    tokens = _Tokens(seed)
    scenes, logs = tokens.take(size.scenes), tokens.take(68)
    sensors = dict(zip(SHARES, tokens.take(len(SHARES)), strict=True))
    opened = min(OPENED_SCENE, size.scenes - 1)
    samples = _write_small(folder, tokens, scenes, logs, size)
    calibrated = _write_sensors(folder, tokens, sensors, size.scenes)
    with (folder / "sample_data.json").open("w") as data, (folder / "ego_pose.json").open("w") as poses:
        _write_large(out, (data, poses), tokens, samples, calibrated, size=size, opened=opened)
    mask = f"maps/{tokens.take(1)[0]}.png"
    write_mask(out / mask, size.mask_px)
    _write(
        folder / "map.json",
        [{"category": "semantic_prior", "token": "map", "filename": mask, "log_tokens": logs}],
    )
    for table in ("attribute", "category", "instance", "sample_annotation", "visibility"):
        _write(folder / f"{table}.json", [])  # opening a scene does not read them; the devkit wants the files
    name = scene_name(opened)
    for message, value in can_messages(
        straight_drive(name), _start_us(opened), pose_rate_hz=50, steering_rate_hz=100
    ).items():
        path = out / "can_bus" / f"{name}_{message}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value))
    num_bytes = sum(path.stat().st_size for path in folder.iterdir())
    return TableSet(dataroot=out, num_bytes=num_bytes, scene=name)


def scene_name(index: int) -> str:
    """Return the name of a scene; none that nuScenes lists as special."""
    return f"scene-{2001 + index:04d}"


def _start_us(scene: int) -> int:
    return FIRST_US + 60_000_000 * scene


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(records, indent=0))  # as nuScenes does


def _parts(total: int, count: int) -> list[int]:
    """Return ``count`` nearly equal whole numbers with the sum ``total``."""
    return np.diff(np.linspace(0, total, count + 1).round().astype(int)).tolist()


def _write_small(
    folder: Path, tokens: _Tokens, scenes: list[str], logs: list[str], size: TableSize
) -> list[list[str]]:
    """Write scenes, logs and samples; return the samples of each scene."""
    samples = [tokens.take(count) for count in _parts(size.samples, size.scenes)]
    _write(
        folder / "scene.json",
        [
            {
                "token": token,
                "log_token": logs[index % len(logs)],
                "nbr_samples": len(own),
                "first_sample_token": own[0],
                "last_sample_token": own[-1],
                "name": scene_name(index),
                "description": "Straight on, parked cars, a bus",
            }
            for index, (token, own) in enumerate(zip(scenes, samples, strict=True))
        ],
    )
    _write(
        folder / "log.json",
        [
            {
                "token": token,
                "logfile": f"n015-{index:03d}",
                "vehicle": "n015",
                "date_captured": "2018-07-24",
                "location": "boston-seaport",
            }
            for index, token in enumerate(logs)
        ],
    )
    _write(
        folder / "sample.json",
        [
            {
                "token": token,
                "timestamp": _start_us(index) + 500_000 * place,
                "prev": own[place - 1] if place else "",
                "next": own[place + 1] if place + 1 < len(own) else "",
                "scene_token": scenes[index],
            }
            for index, own in enumerate(samples)
            for place, token in enumerate(own)
        ],
    )
    return samples


def _write_sensors(
    folder: Path, tokens: _Tokens, sensors: dict[str, str], num_scenes: int
) -> list[dict[str, str]]:
    """Write the sensors; return for each scene the calibrated one of every channel."""
    modality = {"CAM": "camera", "RAD": "radar", "LID": "lidar"}
    _write(
        folder / "sensor.json",
        [
            {"token": token, "channel": channel, "modality": modality[channel[:3]]}
            for channel, token in sensors.items()
        ],
    )
    calibrated = [dict(zip(sensors, tokens.take(len(sensors)), strict=True)) for _ in range(num_scenes)]
    intrinsic = [[1266.4, 0.0, 816.3], [0.0, 1266.4, 491.5], [0.0, 0.0, 1.0]]
    _write(
        folder / "calibrated_sensor.json",
        [
            {
                "token": token,
                "sensor_token": sensors[channel],
                "translation": [1.7, 0.0, 1.5],
                "rotation": [0.5, -0.5, 0.5, -0.5],
                "camera_intrinsic": intrinsic if channel in CAMERAS else [],
            }
            for own in calibrated
            for channel, token in own.items()
        ],
    )
    return calibrated


def _write_large(
    out: Path,
    files: tuple[TextIO, TextIO],
    tokens: _Tokens,
    samples: list[list[str]],
    calibrated: list[dict[str, str]],
    *,
    size: TableSize,
    opened: int,
) -> None:
    """Write ``sample_data`` and ``ego_pose`` scene by scene, and the pictures of one scene."""
    shares = np.array(list(SHARES.values()))
    data_file, pose_file = files
    poses: list[str] = []  # of each scene
    with console.progress_bar("writing tables", size.scenes) as bar:
        for scene, count in enumerate(_parts(size.sample_data, size.scenes)):
            ends = np.round(np.cumsum(shares) / shares.sum() * count).astype(int)
            counts = dict(zip(SHARES, np.diff(ends, prepend=0).tolist(), strict=True))
            rows = list(_rows(scene, counts, tokens, samples[scene], calibrated[scene]))
            data_file.write((",\n" if scene else "[\n") + ",\n".join(data for data, _ in rows))
            poses.append(",\n".join(pose for _, pose in rows))
            if scene == opened:
                names = [json.loads(data)["filename"] for data, _ in rows]
                write_pictures(out, [name for name in names if f"/{CAMERAS[0]}/" in name])
            bar.advance()
    first = 0 if size.has_ordered_poses else len(poses) * 2 // 3
    for place, part in enumerate(poses[first:] + poses[:first]):
        pose_file.write((",\n" if place else "[\n") + part)
    for file in files:
        file.write("\n]")


def _rows(
    scene: int, counts: dict[str, int], tokens: _Tokens, samples: list[str], calibrated: dict[str, str]
) -> Iterator[tuple[str, str]]:
    for channel, count in counts.items():
        own = ["", *tokens.take(count), ""]
        width, height = SIZE_PX if channel in CAMERAS else (0, 0)
        suffix = "jpg" if channel in CAMERAS else "pcd"
        keyframes = set(np.linspace(0, count - 1, len(samples)).round().astype(int).tolist())
        for index, offset_s in enumerate(np.linspace(0.0, SCENE_S, count).tolist()):
            token, time_us = own[index + 1], _start_us(scene) + round(1e6 * offset_s)
            is_key, folder = ("true", "samples") if index in keyframes else ("false", "sweeps")
            name = f"{folder}/{channel}/n015-2018-07-24-11-22-45+0800__{channel}__{time_us}.{suffix}"
            sample = samples[min(int(2 * offset_s), len(samples) - 1)]
            data = (token, sample, token, calibrated[channel], time_us, suffix, is_key, height, width, name)
            x_m, y_m = START_XY_M[0] + SPEED_MPS * offset_s, START_XY_M[1]
            pose = (token, time_us, 1.0 - 1e-9 * index, 1e-5 * offset_s, -1e-4 * offset_s, x_m, y_m)
            yield _SAMPLE_DATA % (*data, own[index], own[index + 2]), _EGO_POSE % pose
