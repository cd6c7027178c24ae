"""The one door to the nuScenes devkit: any nuScenes data root -> Scene. No other module knows its tables.

The devkit takes more than a second to import, so it is imported when the first data set is opened.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.scene.calibration import calibrated_camera
from drivesim.scene.can_motion import Messages, Motion, motion_from_poses, motion_of_scene
from drivesim.scene.dataroot import check_dataroot, check_tables
from drivesim.scene.frame_files import FrameFiles, SteadyFrames, steady_frames
from drivesim.scene.geometry import FloatArray, wrap_angle, yaw_from_quaternion
from drivesim.scene.surroundings import (
    Surroundings,
    as_polyline,
    drivable_around,
    route_from_path,
    route_is_near,
)
from drivesim.scene.types import Scene

if TYPE_CHECKING:
    from nuscenes.can_bus.can_bus_api import NuScenesCanBus
    from nuscenes.nuscenes import NuScenes

EMBEDDED_ROOT = Path(__file__).resolve().parents[1] / "data" / "drivesim-mini"
EMBEDDED_VERSION = "v1.0-mini"
CAN_MESSAGES = ("pose", "steeranglefeedback", "vehicle_monitor")
MAP_RESOLUTION_M = 0.2
MAX_MISSING_SHARE = 0.1
_CHANNEL = "CAM_FRONT"

Record = dict[str, Any]


@dataclass(kw_only=True, slots=True)
class SceneSummary:
    """What a list of scenes shows; no picture is read for it."""

    name: str
    length_s: float
    num_frames: int  # at the rate asked for
    place: str
    caption: str


def open_dataset(dataroot: str | Path, version: str = EMBEDDED_VERSION) -> NuScenesDataset:
    """Open a nuScenes data set.

    Args:
        dataroot: folder that holds ``samples/``, ``maps/`` and the table folder.
        version: name of the table folder, for instance ``v1.0-mini`` or ``v1.0-trainval``.

    Raises:
        InputError: the folder is missing, partial, has not this version, or is not nuScenes.
    """
    root = Path(dataroot).expanduser()
    check_dataroot(root, version)
    from nuscenes.nuscenes import NuScenes

    try:
        tables = NuScenes(version=version, dataroot=str(root), verbose=False, map_resolution=MAP_RESOLUTION_M)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        check_tables(root, version)
        raise InputError(
            f"the tables in {root / version} do not fit together ({error}); unpack the metadata archive again"
        ) from error
    return NuScenesDataset(tables)


@lru_cache(maxsize=1)
def embedded_dataset() -> NuScenesDataset:
    """Open the data set that comes with the package, drivesim-mini; once per process."""
    return open_dataset(EMBEDDED_ROOT, EMBEDDED_VERSION)


class NuScenesDataset:
    """An opened data set; scenes are read when asked for."""

    def __init__(self, tables: NuScenes) -> None:
        """Wrap the devkit's tables; :func:`open_dataset` makes them."""
        self.dataroot = Path(tables.dataroot)
        self.version = str(tables.version)
        self._tables = tables
        self._scenes: dict[str, Record] = {record["name"]: record for record in tables.scene}
        self._can = self._open_can()

    def scene_names(self) -> list[str]:
        """Return the names of all scenes, in the order of the data set."""
        return list(self._scenes)

    def summary(self, name: str, *, rate_hz: float = 6.0) -> SceneSummary:
        """Describe a scene without reading pictures."""
        scene = self._scene(name)
        times_us = _times_us(self._pictures(scene))
        return SceneSummary(
            name=name,
            length_s=float(times_us[-1] - times_us[0]) * 1e-6,
            num_frames=len(steady_frames(times_us, rate_hz).indices),
            place=self._row("log", scene["log_token"])["location"],
            caption=scene["description"],
        )

    def load(
        self,
        name: str,
        *,
        rate_hz: float = 6.0,
        width_px: int = 224,
        height_px: int = 128,
        min_frames: int = 2,
    ) -> Scene:
        """Read a scene: front camera at a steady rate, poses interpolated to it, motion from the CAN bus.

        Args:
            name: for instance ``scene-0061``.
            rate_hz: frames per second; the picture nearest in time is taken.
            width_px: width of the pictures as delivered.
            height_px: height of the pictures as delivered.
            min_frames: fewest frames the caller can use, for instance its context and one more.

        Raises:
            InputError: there is no such scene, its pictures were not downloaded, or it is too short. A file
                that cannot be read raises it when it is indexed.
        """
        if not (rate_hz > 0 and width_px > 0 and height_px > 0):
            raise InputError(
                f"rate and size must be positive, got {rate_hz} Hz and {width_px}x{height_px} px"
            )
        record = self._scene(name)
        pictures, problems = self._readable_pictures(record)
        steady = steady_frames(_times_us(pictures), rate_hz)
        steady.check_length(name, min_frames)
        if steady.num_repeated:
            count = f"{steady.num_repeated} of {len(steady.indices)}"
            problems.append(f"{count} instants lack a picture of their own")
        paths = [self.dataroot / pictures[index]["filename"] for index in steady.indices]
        scene = self._assemble(record, pictures, steady, rate_hz)
        scene.frames = FrameFiles(paths, width_px, height_px)
        scene.camera = scene.camera.resized(width_px=width_px, height_px=height_px)
        scene.problems[:0] = problems
        scene.validate()
        return scene

    def _assemble(
        self, record: Record, pictures: list[Record], steady: SteadyFrames, rate_hz: float
    ) -> Scene:
        """Return the scene without its frames, with the camera as recorded."""
        name = record["name"]
        xy_m, yaw_rad = self._poses(pictures, steady.instants_us)
        motion = self._motion(name, steady.instants_us, motion_from_poses(xy_m, yaw_rad, rate_hz))
        log = self._row("log", record["log_token"])
        place = self._surroundings(name, log, xy_m, yaw_rad)
        sensor = self._row("calibrated_sensor", pictures[0]["calibrated_sensor_token"])
        return Scene(
            name=name,
            place=log["location"],
            caption=record["description"],
            log_name=log["logfile"],
            rate_hz=rate_hz,
            timestamps_s=np.arange(len(xy_m)) / rate_hz,
            frames=[],
            camera=calibrated_camera(sensor, width_px=pictures[0]["width"], height_px=pictures[0]["height"]),
            xy_m=xy_m,
            yaw_rad=yaw_rad,
            speed_mps=motion.speed_mps,
            yaw_rate_radps=motion.yaw_rate_radps,
            steering_rad=motion.steering_rad,
            motion_source=motion.source,
            route_xy_m=place.route_xy_m,
            drivable=place.drivable,
            problems=[*motion.problems, *place.problems],
        )

    def _row(self, table: str, token: str) -> Record:
        """Return the record of a table; the devkit itself knows no better than a KeyError."""
        try:
            record: Record = self._tables.get(table, token)
        except KeyError as error:
            raise InputError(
                f"{self.dataroot / self.version / table}.json has no row {token!r}, which other tables "
                "name; unpack the metadata archive again"
            ) from error
        return record

    def _scene(self, name: str) -> Record:
        if name in self._scenes:
            return self._scenes[name]
        names = self.scene_names()
        near = get_close_matches(name, names, n=3, cutoff=0.5) or names[:3]
        raise InputError(
            f"no scene {name!r} in {self.dataroot} ({self.version}); did you mean {', '.join(near)}?"
        )

    def _pictures(self, scene: Record) -> list[Record]:
        """Return the front camera's ``sample_data`` records, key frames and sweeps, in order of time."""
        token = self._row("sample", scene["first_sample_token"])["data"].get(_CHANNEL)
        if token is None:
            raise InputError(f"scene {scene['name']!r} has no {_CHANNEL}; drivesim needs a front camera")
        record = self._row("sample_data", token)
        while record["prev"] and self._is_of(scene, record["prev"]):
            record = self._row("sample_data", record["prev"])
        records = [record]
        while record["next"] and self._is_of(scene, record["next"]):
            record = self._row("sample_data", record["next"])
            records.append(record)
        records.sort(key=lambda item: int(item["timestamp"]))
        is_new = np.diff(_times_us(records), prepend=-1) > 0
        return [item for item, keep in zip(records, is_new, strict=True) if keep]

    def _is_of(self, scene: Record, sample_data_token: str) -> bool:
        sample_token = self._row("sample_data", sample_data_token)["sample_token"]
        return bool(self._row("sample", sample_token)["scene_token"] == scene["token"])

    def _readable_pictures(self, scene: Record) -> tuple[list[Record], list[str]]:
        """Return the pictures whose files are there, and what is to be said about the others."""
        records = self._pictures(scene)
        missing = [
            record["filename"] for record in records if not (self.dataroot / record["filename"]).is_file()
        ]
        if not missing:
            return records, []
        found = f"{len(missing)} of {len(records)} {_CHANNEL} pictures of {scene['name']!r} are missing"
        if len(missing) > MAX_MISSING_SHARE * len(records):
            raise InputError(
                f"{found} (first: {self.dataroot / missing[0]}); download the archive that holds them"
            )
        absent = set(missing)
        return [record for record in records if record["filename"] not in absent], [found]

    def _poses(self, pictures: list[Record], instants_us: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (T, 2) positions and (T,) yaws between the recorded poses."""
        poses = [self._row("ego_pose", record["ego_pose_token"]) for record in pictures]
        start_us = pictures[0]["timestamp"]
        times_us = (_times_us(pictures) - start_us).astype(np.float64)
        recorded = np.array([pose["translation"][:2] for pose in poses], dtype=np.float64)
        yaws = np.unwrap([yaw_from_quaternion(pose["rotation"]) for pose in poses])
        offsets_us = instants_us - start_us
        xy_m = np.stack([np.interp(offsets_us, times_us, recorded[:, axis]) for axis in (0, 1)], axis=-1)
        return xy_m, wrap_angle(np.interp(offsets_us, times_us, yaws))

    def _open_can(self) -> NuScenesCanBus | None:
        if not (self.dataroot / "can_bus").is_dir():
            return None
        from nuscenes.can_bus.can_bus_api import NuScenesCanBus

        return NuScenesCanBus(dataroot=str(self.dataroot))

    def _can_messages(self, name: str, message: str) -> Messages:
        """Return the messages of one kind; none if the scene has none or its file cannot be read."""
        is_named = self._can is not None and re.fullmatch(r"scene-\d{4}", name)
        if self._can is None or not is_named or int(name[-4:]) in self._can.can_blacklist:
            return []
        try:
            messages = self._can.get_messages(name, message, print_warnings=False)
        except (OSError, json.JSONDecodeError, AssertionError):
            return []
        return messages if isinstance(messages, list) else []

    def _motion(self, name: str, instants_us: FloatArray, poses: Motion) -> Motion:
        messages = {message: self._can_messages(name, message) for message in CAN_MESSAGES}
        return motion_of_scene(messages, instants_us, poses, has_can=self._can is not None)

    def _surroundings(self, name: str, log: Record, xy_m: FloatArray, yaw_rad: FloatArray) -> Surroundings:
        problems = []
        route_xy_m = self._route(name)
        if route_xy_m is None or not route_is_near(route_xy_m, xy_m):
            problems.append("no navigation route is known near the car; the driven path is the route")
            route_xy_m = route_from_path(xy_m, yaw_rad)
        mask = self._row("map", log["map_token"])["mask"].mask()
        drivable = drivable_around(mask, MAP_RESOLUTION_M, np.concatenate([xy_m, route_xy_m]))
        if drivable is None:
            problems.append("the map shows nothing drivable here; off-road cannot be told")
        return Surroundings(route_xy_m=route_xy_m, drivable=drivable, problems=problems)

    def _route(self, name: str) -> FloatArray | None:
        """Return the planned route unless the devkit lists it as misaligned with the poses."""
        points = self._can_messages(name, "route")
        if self._can is None or not points or int(name[-4:]) in self._can.route_blacklist:
            return None
        return as_polyline(points)


def _times_us(pictures: list[Record]) -> NDArray[np.int64]:
    return np.array([record["timestamp"] for record in pictures], dtype=np.int64)
