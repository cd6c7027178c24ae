"""Recordings of the reference world -> a nuScenes data set on disk, readable by the unmodified devkit.

All 13 tables, CAM_FRONT key frames (2 Hz) and sweeps, CAN bus files and one map mask per scene are written.
Names and tokens depend on the recordings alone, so that the same recordings give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drivesim.errors import InputError
from drivesim.files import atomic_folder
from drivesim.reference.annotations import CATEGORIES, VISIBILITIES, AnnotationTables, token_of
from drivesim.reference.can_messages import can_messages
from drivesim.scene.dataroot import TABLES
from drivesim.scene.geometry import quaternion_from_rotation, quaternion_from_yaw
from drivesim.scene.types import DrivableArea, Image, Scene
from drivesim.video import write_image

if TYPE_CHECKING:
    from drivesim.reference.behavior import Recording

FIRST_SCENE_NUMBER = 2001
"""nuScenes ends at scene-1110; none above is on the devkit's lists of scenes without CAN bus or route."""
LAST_SCENE_NUMBER = 9999
KEYFRAME_RATE_HZ = 2.0
MAP_RESOLUTION_M = 0.1
VEHICLE = "drivesim"
_EPOCH_US = 1_700_000_000_000_000
_SCENE_PERIOD_US = 3_600_000_000
_CHANNEL = "CAM_FRONT"
_SENSOR_TOKEN = token_of("sensor", _CHANNEL)
_ATTRIBUTES = {"vehicle.moving": "Vehicle is moving.", "vehicle.stopped": "Vehicle stands but may go on."}

Record = dict[str, Any]


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    """How a data set is written; the defaults are those of nuScenes."""

    version: str = "v1.0-mini"
    first_scene_number: int = FIRST_SCENE_NUMBER
    jpeg_quality: int = 92
    pose_rate_hz: float = 50.0
    steering_rate_hz: float = 100.0

    def __post_init__(self) -> None:
        """Refuse scene numbers that the devkit's scene names cannot hold."""
        if not FIRST_SCENE_NUMBER <= self.first_scene_number <= LAST_SCENE_NUMBER:
            raise InputError(
                f"first_scene_number is {self.first_scene_number}; "
                f"choose one from {FIRST_SCENE_NUMBER} to {LAST_SCENE_NUMBER}"
            )


@dataclass(kw_only=True, slots=True)
class _Tables:
    """The records collected so far, and where they go."""

    root: Path
    config: ExportConfig
    records: dict[str, list[Record]] = field(default_factory=lambda: {name: [] for name in TABLES})

    def add(self, table: str, **record: Any) -> str:
        self.records[table].append(record)
        return str(record["token"])

    def write(self) -> None:
        for name, records in self.records.items():
            _write_json(self.root / self.config.version / f"{name}.json", records)


def export_nuscenes(recordings: Iterable[Recording], out: Path, *, config: ExportConfig | None = None) -> int:
    """Write recordings as a nuScenes data set into the new folder ``out``, which appears only when complete.

    Recordings are taken one at a time, so an iterator keeps only one in memory.

    Returns:
        The number of scenes written; they are named ``scene-2001`` onwards, in order.

    Raises:
        InputError: ``out`` exists and is not empty, there are no recordings, or too many to number.
    """
    config = config or ExportConfig()
    count = 0
    try:
        with atomic_folder(out) as root:
            tables = _Tables(root=root, config=config)
            _add_vocabulary(tables)
            for count, recording in enumerate(recordings, start=1):
                number = config.first_scene_number + count - 1
                if number > LAST_SCENE_NUMBER:
                    raise InputError(
                        f"a data set holds scenes up to {LAST_SCENE_NUMBER}; export fewer recordings"
                    )
                _add_scene(tables, recording, number)
            if count == 0:
                raise InputError(f"nothing to write to {out}: ask for at least one scene")
            tables.write()
    except FileExistsError as error:
        raise InputError(str(error)) from error
    return count


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n", encoding="utf-8")


def _add_vocabulary(tables: _Tables) -> None:
    """Fill the tables that do not depend on the scenes."""
    tables.add("sensor", token=_SENSOR_TOKEN, channel=_CHANNEL, modality="camera")
    for token, (least, most) in VISIBILITIES.items():
        words = f"{least} to {most} % of the object is visible"
        tables.add("visibility", token=token, level=f"v{least}-{most}", description=words)
    for name, words in CATEGORIES.items():
        tables.add("category", token=token_of("category", name), name=name, description=words)
    for name, words in _ATTRIBUTES.items():
        tables.add("attribute", token=token_of("attribute", name), name=name, description=words)


def _add_scene(tables: _Tables, recording: Recording, number: int) -> None:
    """Write one recording: its log, map, calibration, key frames, sweeps and CAN bus files."""
    scene = recording.scene
    scene.validate()
    if len(scene) < 2:
        raise InputError(f"recording {scene.log_name!r} has {len(scene)} frame; record at least 2")
    name = f"scene-{number:04d}"
    scene_token, log_token = token_of("scene", name, scene.log_name), token_of("log", name, scene.log_name)
    start_us = _EPOCH_US + number * _SCENE_PERIOD_US
    date = datetime.fromtimestamp(start_us / 1e6, tz=UTC).date().isoformat()
    tables.add(
        "log",
        token=log_token,
        logfile=scene.log_name,
        vehicle=VEHICLE,
        date_captured=date,
        location=scene.place,
    )
    _add_map(tables, scene, log_token)
    samples = _add_samples(tables, scene, scene_token, start_us)
    _add_frames(tables, scene, samples, start_us)
    boxes = AnnotationTables(scene_token)
    for index in _keyframes(scene):
        boxes.add(samples[index], recording.traffic[index], xy_m=scene.xy_m[index])
    tables.records["instance"] += boxes.instances()
    tables.records["sample_annotation"] += boxes.annotations()
    tables.add(
        "scene",
        token=scene_token,
        log_token=log_token,
        nbr_samples=len(set(samples)),
        first_sample_token=samples[0],
        last_sample_token=samples[-1],
        name=name,
        description=scene.caption,
    )
    config = tables.config
    rates = {"pose_rate_hz": config.pose_rate_hz, "steering_rate_hz": config.steering_rate_hz}
    for message, value in can_messages(scene, start_us, **rates).items():
        _write_json(tables.root / "can_bus" / f"{name}_{message}.json", value)


def _keyframes(scene: Scene) -> list[int]:
    """Return the frames nearest to every half second."""
    instants = np.arange(0, scene.timestamps_s[-1] + 1e-6, 1 / KEYFRAME_RATE_HZ)
    nearest = np.abs(scene.timestamps_s[None] - instants[:, None]).argmin(axis=1)
    return sorted(set(nearest.tolist()))


def _frame_us(scene: Scene, start_us: int, index: int) -> int:
    return start_us + round(float(scene.timestamps_s[index]) * 1e6)


def _add_samples(tables: _Tables, scene: Scene, scene_token: str, start_us: int) -> list[str]:
    """Add the annotated instants; return for each frame the token of the nearest one."""
    keyframes = _keyframes(scene)
    tokens = [token_of("sample", scene_token, index) for index in keyframes]
    for position, (index, token) in enumerate(zip(keyframes, tokens, strict=True)):
        tables.add(
            "sample",
            token=token,
            timestamp=_frame_us(scene, start_us, index),
            prev=tokens[position - 1] if position else "",
            next=tokens[position + 1] if position + 1 < len(tokens) else "",
            scene_token=scene_token,
        )
    distance = np.abs(np.arange(len(scene))[:, None] - np.array(keyframes)[None])
    return [tokens[position] for position in distance.argmin(axis=1)]


def _add_frames(tables: _Tables, scene: Scene, samples: list[str], start_us: int) -> None:
    """Write the pictures and their ``sample_data`` and ``ego_pose`` records."""
    camera = scene.camera
    calibration = tables.add(
        "calibrated_sensor",
        token=token_of("calibrated_sensor", samples[0]),
        sensor_token=_SENSOR_TOKEN,
        translation=camera.ego_from_cam[:3, 3].tolist(),
        rotation=quaternion_from_rotation(camera.ego_from_cam[:3, :3]).tolist(),
        camera_intrinsic=camera.intrinsic.tolist(),
    )
    tokens = [token_of("sample_data", samples[0], index) for index in range(len(scene))]
    keyframes = set(_keyframes(scene))
    for index, token in enumerate(tokens):
        timestamp = _frame_us(scene, start_us, index)
        folder = "samples" if index in keyframes else "sweeps"
        filename = f"{folder}/{_CHANNEL}/{scene.log_name}__{_CHANNEL}__{timestamp}.jpg"
        image = np.asarray(scene.frames[index])
        write_image(tables.root / filename, image, quality=tables.config.jpeg_quality)
        _add_pose(tables, scene, index, token=token, timestamp=timestamp)
        tables.add(
            "sample_data",
            token=token,
            sample_token=samples[index],
            ego_pose_token=token,
            calibrated_sensor_token=calibration,
            timestamp=timestamp,
            fileformat="jpg",
            is_key_frame=index in keyframes,
            height=image.shape[0],
            width=image.shape[1],
            filename=filename,
            prev=tokens[index - 1] if index else "",
            next=tokens[index + 1] if index + 1 < len(tokens) else "",
        )


def _add_pose(tables: _Tables, scene: Scene, index: int, *, token: str, timestamp: int) -> None:
    x, y = (round(float(value), 6) for value in scene.xy_m[index])
    rotation = np.round(quaternion_from_yaw(float(scene.yaw_rad[index])), 9).tolist()
    tables.add("ego_pose", token=token, timestamp=timestamp, rotation=rotation, translation=[x, y, 0.0])


def _add_map(tables: _Tables, scene: Scene, log_token: str) -> None:
    """Every recording has a world, and so a map, of its own; one without drivable area is empty."""
    token = token_of("map", log_token)
    filename = f"maps/{token}.png"
    mask = np.zeros((2, 2), dtype=np.uint8) if scene.drivable is None else map_mask(scene.drivable)
    write_image(tables.root / filename, mask)
    tables.add("map", token=token, category="semantic_prior", filename=filename, log_tokens=[log_token])


def map_mask(drivable: DrivableArea) -> Image:
    """Return a (rows, columns) mask of 0 and 255 at 0.1 m per pixel; its lower left is the global origin.

    The devkit compares pixels with 255, so the file must be 8-bit grey; where coordinates are negative a map
    cannot reach.
    """
    size_m = np.array(drivable.mask.shape[::-1]) * drivable.resolution_m + drivable.origin_xy_m
    columns, rows = np.maximum(2, 2 * np.ceil(size_m / MAP_RESOLUTION_M / 2 - 1e-6).astype(int))
    x = (np.arange(columns) + 0.5) * MAP_RESOLUTION_M - drivable.origin_xy_m[0]
    y = (rows - np.arange(rows) - 0.5) * MAP_RESOLUTION_M - drivable.origin_xy_m[1]
    column = np.floor(x / drivable.resolution_m).astype(int)
    row = drivable.mask.shape[0] - 1 - np.floor(y / drivable.resolution_m).astype(int)
    is_column, is_row = _is_within(column, drivable.mask.shape[1]), _is_within(row, drivable.mask.shape[0])
    cells = drivable.mask[np.ix_(np.where(is_row, row, 0), np.where(is_column, column, 0))]
    return np.where(cells & is_row[:, None] & is_column[None], 255, 0).astype(np.uint8)


def _is_within(index: np.ndarray[Any, np.dtype[np.int64]], size: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return (index >= 0) & (index < size)
