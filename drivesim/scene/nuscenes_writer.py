"""Scenes -> a nuScenes data set on disk, readable by the unmodified devkit.

All 13 tables, CAM_FRONT key frames (2 Hz) and sweeps, CAN bus files, one map mask and, where lines are known, one map
expansion per scene are written; what others annotate is added by whoever knows of others. Names and tokens depend
on the scenes alone, so that the same scenes give the same bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from drivesim.errors import InputError
from drivesim.files import atomic_folder
from drivesim.scene.can_messages import can_messages
from drivesim.scene.geometry import quaternion_from_rotation, quaternion_from_yaw
from drivesim.scene.keyframes import keyframes_of, nearest
from drivesim.scene.map_lines import EXPANSION_FOLDER, expansion_of
from drivesim.scene.map_mask import map_mask
from drivesim.scene.table_files import TableFiles, to_json, token_of
from drivesim.scene.types import Scene
from drivesim.video import write_image

FIRST_SCENE_NUMBER = 2001
"""nuScenes ends at scene-1110; none above is on the devkit's lists of scenes without CAN bus or route."""
LAST_SCENE_NUMBER = 9999
VEHICLE = "drivesim"
VISIBILITIES = {"1": (0, 40), "2": (40, 60), "3": (60, 80), "4": (80, 100)}
_EPOCH_US = 1_700_000_000_000_000
_SCENE_PERIOD_US = 3_600_000_000
_CHANNEL = "CAM_FRONT"
_SENSOR_TOKEN = token_of("sensor", _CHANNEL)
_MAX_NAME_BYTES = 160  # of a log in a file name; file systems allow 255


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
        if not 1 <= self.jpeg_quality <= 100:
            raise InputError(f"jpeg_quality is {self.jpeg_quality}; choose one from 1 to 100")


@dataclass(kw_only=True, slots=True)
class WrittenScene:
    """What a scene became."""

    token: str
    samples: dict[int, str]  # tokens of the annotated instants, by frame


def write_nuscenes(
    scenes: Iterable[Scene],
    out: Path,
    *,
    config: ExportConfig | None = None,
    on_left_out: Callable[[str], None] | None = None,
) -> int:
    """Write scenes as a nuScenes data set into the new folder ``out``, which appears only when complete.

    Scenes are taken one at a time, and their pictures too, so an iterator keeps one picture in memory. Coordinates stay
    as they are: a drivable area must lie where they are positive, and a scene without one gets an empty map.

    Args:
        scenes: what to write; their pictures become JPEG, their caption the description.
        out: the new data root.
        config: version, numbering, picture quality and rates.
        on_left_out: is told in one sentence of every picture that cannot be read, and of every scene that had less
            than two others; both are left out.

    Returns:
        The number of scenes written; they are named ``scene-2001`` onwards, in order.

    Raises:
        InputError: ``out`` exists and is not empty or cannot be written, there are no scenes, or too many to number.
    """
    with writing_nuscenes(out, config=config, on_left_out=on_left_out) as writer:
        for scene in scenes:
            writer.add_scene(scene)
    return writer.num_scenes


@contextmanager
def writing_nuscenes(
    out: Path, *, config: ExportConfig | None = None, on_left_out: Callable[[str], None] | None = None
) -> Iterator[NuScenesWriter]:
    """Yield a writer; ``out`` takes its name when the context is left, as in :func:`write_nuscenes`."""
    config = config or ExportConfig()
    try:
        with atomic_folder(out) as root:
            with TableFiles(root / config.version) as tables:
                writer = NuScenesWriter(root, tables, config, on_left_out or (lambda _: None))
                yield writer
            if writer.num_scenes == 0:
                raise InputError(f"nothing to write to {out}: ask for at least one scene")
    except FileExistsError as error:
        raise InputError(str(error)) from error


class NuScenesWriter:
    """Writes scenes into the folder of a data set; :func:`writing_nuscenes` makes it."""

    def __init__(
        self, root: Path, tables: TableFiles, config: ExportConfig, on_left_out: Callable[[str], None]
    ) -> None:
        """Fill the tables that do not depend on the scenes."""
        self.tables = tables
        self.num_scenes = 0
        self._root, self._config, self._on_left_out = root, config, on_left_out
        self._free_us = 0
        tables.add("sensor", token=_SENSOR_TOKEN, channel=_CHANNEL, modality="camera")
        for token, (least, most) in VISIBILITIES.items():
            words = f"{least} to {most} % of the object is visible"
            tables.add("visibility", token=token, level=f"v{least}-{most}", description=words)
        (root / "samples").mkdir()

    def add_scene(self, scene: Scene) -> WrittenScene | None:
        """Write its log, map, calibration, key frames, sweeps and CAN bus files; None if it had to be left out."""
        scene.validate()
        if len(scene) < 2:
            raise InputError(f"recording {scene.log_name!r} has {len(scene)} frame; record at least 2")
        number = self._config.first_scene_number + self.num_scenes
        if number > LAST_SCENE_NUMBER:
            raise InputError(f"a data set holds scenes up to {LAST_SCENE_NUMBER}; export fewer recordings")
        start_us = max(_EPOCH_US + number * _SCENE_PERIOD_US, self._free_us)
        pictures = self._write_pictures(scene, start_us)
        if len(pictures) < 2:
            for picture in pictures.values():
                picture.path.unlink()
            self._on_left_out(f"scene {scene.name!r} was left out: it has {len(pictures)} readable pictures")
            return None
        self.num_scenes += 1
        self._free_us = start_us + (1 + _offset_us(scene, -1) // _SCENE_PERIOD_US) * _SCENE_PERIOD_US
        return self._add_records(scene, pictures, name=f"scene-{number:04d}", start_us=start_us)

    def _write_pictures(self, scene: Scene, start_us: int) -> dict[int, _Picture]:
        """Write every frame that can be read as a sweep."""
        pictures = {}
        for index in range(len(scene)):
            name = f"{_file_stem(scene.log_name)}__{_CHANNEL}__{start_us + _offset_us(scene, index)}.jpg"
            path = self._root / "sweeps" / _CHANNEL / name
            try:
                image = np.asarray(scene.frames[index])
            except InputError as error:
                self._on_left_out(f"frame {index} of scene {scene.name!r} was left out: {error}")
                continue
            write_image(path, image, quality=self._config.jpeg_quality)
            pictures[index] = _Picture(path=path, height_px=image.shape[0], width_px=image.shape[1])
        return pictures

    def _add_records(
        self, scene: Scene, pictures: dict[int, _Picture], *, name: str, start_us: int
    ) -> WrittenScene:
        token, log_token = token_of("scene", name, scene.log_name), token_of("log", name, scene.log_name)
        self._add_place(scene, log_token, start_us)
        frames = np.array(list(pictures))
        keyframes = keyframes_of(scene.timestamps_s, frames)
        samples = self._add_samples(scene, keyframes, scene_token=token, start_us=start_us)
        for index in keyframes:
            pictures[index].become_sample(self._root)
        self._add_frames(scene, pictures, samples, start_us)
        self.tables.add(
            "scene",
            token=token,
            log_token=log_token,
            nbr_samples=len(samples),
            first_sample_token=samples[keyframes[0]],
            last_sample_token=samples[keyframes[-1]],
            name=name,
            description=scene.caption,
        )
        rates = {"pose_rate_hz": self._config.pose_rate_hz, "steering_rate_hz": self._config.steering_rate_hz}
        folder = self._root / "can_bus"
        folder.mkdir(exist_ok=True)
        for message, value in can_messages(scene, start_us, **rates).items():
            (folder / f"{name}_{message}.json").write_text(to_json(value) + "\n", encoding="utf-8")
        return WrittenScene(token=token, samples=samples)

    def _add_place(self, scene: Scene, log_token: str, start_us: int) -> None:
        """Every scene has a log, a map and a map expansion of its own; a map without drivable area is empty."""
        date = datetime.fromtimestamp(start_us / 1e6, tz=UTC).date().isoformat()
        log = {"logfile": scene.log_name, "vehicle": VEHICLE, "date_captured": date, "location": scene.place}
        self.tables.add("log", token=log_token, **log)
        token = token_of("map", log_token)
        filename = f"maps/{token}.png"
        mask = np.zeros((2, 2), dtype=np.uint8) if scene.drivable is None else map_mask(scene.drivable)
        write_image(self._root / filename, mask)
        if scene.drivable is not None and scene.drivable.lines is not None:
            folder = self._root / EXPANSION_FOLDER
            folder.mkdir(exist_ok=True)
            tables = expansion_of(scene.drivable.lines, seed=token)
            (folder / f"{token}.json").write_text(to_json(tables) + "\n", encoding="utf-8")
        facts: dict[str, Any] = {
            "category": "semantic_prior",
            "filename": filename,
            "log_tokens": [log_token],
        }
        self.tables.add("map", token=token, **facts)

    def _add_samples(
        self, scene: Scene, keyframes: list[int], *, scene_token: str, start_us: int
    ) -> dict[int, str]:
        """Add the annotated instants; return their tokens by frame."""
        tokens = [token_of("sample", scene_token, index) for index in keyframes]
        for position, (index, token) in enumerate(zip(keyframes, tokens, strict=True)):
            self.tables.add(
                "sample",
                token=token,
                timestamp=start_us + _offset_us(scene, index),
                prev=tokens[position - 1] if position else "",
                next=tokens[position + 1] if position + 1 < len(tokens) else "",
                scene_token=scene_token,
            )
        return dict(zip(keyframes, tokens, strict=True))

    def _add_frames(
        self, scene: Scene, pictures: dict[int, _Picture], samples: dict[int, str], start_us: int
    ) -> None:
        """Write the records of the pictures: ``calibrated_sensor``, ``sample_data`` and ``ego_pose``."""
        keyframes = np.array(list(samples))
        first = samples[int(keyframes[0])]
        calibration = self._add_calibration(scene, first)
        frames = np.array(list(pictures))
        samples_near = keyframes[nearest(keyframes, frames)]
        tokens = [token_of("sample_data", first, index) for index in pictures]
        for position, (index, token) in enumerate(zip(pictures, tokens, strict=True)):
            picture, timestamp = pictures[index], start_us + _offset_us(scene, index)
            self._add_pose(scene, index, token=token, timestamp=timestamp)
            self.tables.add(
                "sample_data",
                token=token,
                sample_token=samples[int(samples_near[position])],
                ego_pose_token=token,
                calibrated_sensor_token=calibration,
                timestamp=timestamp,
                fileformat="jpg",
                is_key_frame=index in samples,
                height=picture.height_px,
                width=picture.width_px,
                filename=picture.path.relative_to(self._root).as_posix(),
                prev=tokens[position - 1] if position else "",
                next=tokens[position + 1] if position + 1 < len(tokens) else "",
            )

    def _add_calibration(self, scene: Scene, first_sample_token: str) -> str:
        camera = scene.camera
        return self.tables.add(
            "calibrated_sensor",
            token=token_of("calibrated_sensor", first_sample_token),
            sensor_token=_SENSOR_TOKEN,
            translation=camera.ego_from_cam[:3, 3].tolist(),
            rotation=quaternion_from_rotation(camera.ego_from_cam[:3, :3]).tolist(),
            camera_intrinsic=camera.intrinsic.tolist(),
        )

    def _add_pose(self, scene: Scene, index: int, *, token: str, timestamp: int) -> None:
        x, y = (round(float(value), 6) for value in scene.xy_m[index])
        rotation = np.round(quaternion_from_yaw(float(scene.yaw_rad[index])), 9).tolist()
        pose = {"timestamp": timestamp, "rotation": rotation, "translation": [x, y, 0.0]}
        self.tables.add("ego_pose", token=token, **pose)


@dataclass(kw_only=True, slots=True)
class _Picture:
    """A picture on disk."""

    path: Path
    height_px: int
    width_px: int

    def become_sample(self, root: Path) -> None:
        """Move it to where key frames are kept."""
        path = root / "samples" / _CHANNEL / self.path.name
        path.parent.mkdir(exist_ok=True)
        os.replace(self.path, path)
        self.path = path


def _file_stem(log_name: str) -> str:
    """Return a log's name as it may stand in a file name."""
    return re.sub(r"[^\w.-]", "_", log_name).encode()[:_MAX_NAME_BYTES].decode(errors="ignore")


def _offset_us(scene: Scene, index: int) -> int:
    return round(float(scene.timestamps_s[index]) * 1e6)
