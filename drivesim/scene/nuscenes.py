"""Any nuScenes data root -> Scene. No other module knows its tables.

The large tables are never loaded: an index, see ``table_index``, tells where the rows of a scene are.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError, nearest
from drivesim.scene.annotations import AnnotatedAgents, AnnotationTable
from drivesim.scene.calibration import calibrated_camera
from drivesim.scene.can_files import CanFiles, read_can_files
from drivesim.scene.can_motion import Motion, motion_from_poses, motion_of_scene
from drivesim.scene.dataroot import check_dataroot
from drivesim.scene.devkit import split_scenes
from drivesim.scene.faults import Fault
from drivesim.scene.frame_files import FrameFiles, SteadyFrames, steady_frames
from drivesim.scene.geometry import FloatArray
from drivesim.scene.index_cache import open_index
from drivesim.scene.map_lines import MapExpansions
from drivesim.scene.map_masks import MAP_RESOLUTION_M, MapMasks
from drivesim.scene.nuscenes_lists import MISALIGNED_ROUTE, OUTSIDE_MAP, WRONG_POSE, number_of
from drivesim.scene.pose_table import PoseTable
from drivesim.scene.scene_pictures import Pictures, distinct_times, read_pictures, time_problems
from drivesim.scene.small_tables import SceneRow, SmallTables, read_small_tables
from drivesim.scene.surroundings import (
    Surroundings,
    as_polyline,
    drivable_around,
    route_from_path,
    route_is_near,
)
from drivesim.scene.table_index import PictureIndex
from drivesim.scene.types import Camera, Scene

EMBEDDED_ROOT = Path(__file__).resolve().parents[1] / "data" / "drivesim-mini"
EMBEDDED_VERSION = "v1.0-mini"
FRONT_CAMERA = "CAM_FRONT"
MAX_MISSING_SHARE = 0.1
MAX_RATE_HZ = 1000.0


@dataclass(kw_only=True, slots=True)
class SceneSummary:
    """What a list of scenes shows; no picture is read for it."""

    name: str
    length_s: float
    num_frames: int  # at the rate asked for
    place: str
    caption: str


def open_dataset(
    dataroot: str | Path, version: str = EMBEDDED_VERSION, *, cache: str | Path | None = None
) -> NuScenesDataset:
    """Open a nuScenes data set.

    Args:
        dataroot: folder that holds ``samples/``, ``maps/`` and the table folder; nothing is written to it.
        version: name of the table folder, for instance ``v1.0-mini`` or ``v1.0-trainval``.
        cache: folder for the index of the tables. None is ``DRIVESIM_CACHE`` or the user's cache folder, and small
            tables then need none.

    Raises:
        InputError: the folder is missing, partial, has not this version, or is not nuScenes.
    """
    root = Path(dataroot).expanduser()
    kept = None if cache is None else Path(cache).expanduser()
    check_dataroot(root, version)
    opened = open_index(root / version, kept)
    dataset = NuScenesDataset(
        root,
        version,
        read_small_tables(root / version),
        opened.index,
        PoseTable(root / version, num_rows=opened.index.num_rows, cache=kept),
        MapMasks(root, kept),
    )
    dataset.is_index_from_cache = opened.is_from_cache
    if opened.note:
        dataset.notes.append(_not_kept("pictures", opened.note))
    return dataset


def _not_kept(what: str, why: str) -> str:
    return f"the index of {what} could not be kept ({why}); it will be made again"


@lru_cache(maxsize=1)
def embedded_dataset() -> NuScenesDataset:
    """Open the data set that comes with the package, drivesim-mini; once per process."""
    return open_dataset(EMBEDDED_ROOT, EMBEDDED_VERSION)


class NuScenesDataset:
    """An opened data set; scenes are read when asked for."""

    def __init__(
        self,
        dataroot: Path,
        version: str,
        tables: SmallTables,
        index: PictureIndex,
        poses: PoseTable,
        masks: MapMasks,
    ) -> None:
        """Put the parts together; :func:`open_dataset` makes them."""
        self.dataroot = dataroot
        self.version = version
        self.is_index_from_cache = False
        self.notes = list(tables.notes)  # what the data set as a whole has to do without
        self._tables, self._index, self._poses, self._masks = tables, index, poses, masks
        self._lines = MapExpansions(dataroot)
        self._annotations = AnnotationTable(dataroot / version)
        self._has_can = (dataroot / "can_bus").is_dir()

    # ------------------------------------------------------------------------------------- what there is

    def scene_names(self, split: str | None = None) -> list[str]:
        """Return the names of all scenes, or of an official split, in the order of the data set.

        Raises:
            InputError: there is no such split, or the data set has no scene of it.
        """
        names = list(self._tables.scenes)
        if split is None:
            return names
        splits = split_scenes()
        if split not in splits:
            raise InputError(f"nuScenes has no split {split!r}; {nearest(split, splits)}")
        chosen = set(splits[split])
        names = [name for name in names if name in chosen]
        if not names:
            have = ", ".join(self.split_names()) or "no scene of an official split"
            raise InputError(
                f"{self.dataroot} ({self.version}) has no scene of split {split!r}; it has {have}"
            )
        return names

    def split_names(self) -> list[str]:
        """Return the official splits that the data set has scenes of."""
        return [name for name, scenes in split_scenes().items() if self._tables.scenes.keys() & set(scenes)]

    def camera_names(self, name: str | None = None) -> list[str]:
        """Return the cameras of a scene, or of the data set."""
        return self._index.channels if name is None else self._index.channels_of(self._scene(name).place)

    def summary(self, name: str, *, rate_hz: float = 6.0, camera: str = FRONT_CAMERA) -> SceneSummary:
        """Describe a scene without reading pictures."""
        scene = self._scene(name)
        times_us = distinct_times(self._rows(scene, camera), name)
        return SceneSummary(
            name=name,
            length_s=float(times_us[-1] - times_us[0]) * 1e-6,
            num_frames=len(steady_frames(times_us, rate_hz).indices),
            place=self._tables.log_of(scene).location,
            caption=scene.description,
        )

    def pictures(self, name: str, camera: str = FRONT_CAMERA) -> Pictures:
        """Return the files, times and poses of a camera in a scene, whether the files are there or not.

        Raises:
            InputError: there is no such scene or camera, or its rows cannot be used.
        """
        path = self.dataroot / self.version / "sample_data.json"
        pictures = read_pictures(path, self._rows(self._scene(name), camera), name, self._poses)
        self._add_pose_note()
        return pictures

    def check_poses(self) -> None:
        """Pass over the table of ego poses, where opening the data set did not.

        Raises:
            InputError: it is not JSON.
        """
        self._poses.index()
        self._add_pose_note()

    def _add_pose_note(self) -> None:
        if self._poses.note:
            self.notes.append(_not_kept("ego poses", self._poses.note))
            self._poses.note = ""

    # ---------------------------------------------------------------------------------------- one scene

    def load(
        self,
        name: str,
        *,
        rate_hz: float = 6.0,
        width_px: int = 224,
        height_px: int = 128,
        min_frames: int = 2,
        camera: str = FRONT_CAMERA,
    ) -> Scene:
        """Read a scene: a camera at a steady rate, poses interpolated to it, motion from the CAN bus.

        Args:
            name: for instance ``scene-0061``.
            rate_hz: frames per second; the picture nearest in time is taken.
            width_px: width of the pictures as delivered.
            height_px: height of the pictures as delivered.
            min_frames: fewest frames the caller can use, for instance its context and one more.
            camera: one of ``camera_names(name)``.

        Raises:
            InputError: there is no such scene or camera, its pictures were not downloaded, or it is too short. A
                frame whose file is missing or cannot be read, or that lies in a gap, raises it when it is indexed.
        """
        if not (0 < rate_hz <= MAX_RATE_HZ and width_px > 0 and height_px > 0):
            raise InputError(
                f"rate (at most {MAX_RATE_HZ:g} Hz) and size must be positive, got {rate_hz} Hz and "
                f"{width_px}x{height_px} px"
            )
        row = self._scene(name)
        pictures = self.pictures(name, camera)
        missing = self._missing(name, camera, pictures)
        steady = steady_frames(pictures.times_us, rate_hz)
        steady.check_length(name, min_frames)
        scene = self._assemble(row, pictures, steady, rate_hz)
        paths = [self.dataroot / pictures.filenames[index] for index in steady.indices]
        is_in_gap = steady.is_in_gap.tolist() if steady.is_in_gap.any() else None
        scene.frames = FrameFiles(paths, width_px, height_px, is_in_gap)
        scene.camera = scene.camera.resized(width_px=width_px, height_px=height_px)
        scene.problems[:0] = [*missing, *pictures.problems, *time_problems(pictures, steady)]
        scene.validate()
        return scene

    def _assemble(self, row: SceneRow, pictures: Pictures, steady: SteadyFrames, rate_hz: float) -> Scene:
        """Return the scene without its frames, with the camera as recorded."""
        xy_m, yaw_rad = pictures.poses_at(steady.instants_us)
        can = read_can_files(self.dataroot, row.name) if self._has_can else CanFiles()
        motion = self._motion(row.name, can, steady, motion_from_poses(xy_m, yaw_rad, rate_hz))
        place = self._surroundings(row, can, xy_m, yaw_rad)
        log = self._tables.log_of(row)
        return Scene(
            name=row.name,
            place=log.location,
            caption=row.description,
            log_name=log.logfile,
            rate_hz=rate_hz,
            timestamps_s=np.arange(len(xy_m)) / rate_hz,
            frames=[],
            camera=self._camera(pictures),
            xy_m=xy_m,
            yaw_rad=yaw_rad,
            speed_mps=motion.speed_mps,
            yaw_rate_radps=motion.yaw_rate_radps,
            steering_rad=motion.steering_rad,
            motion_source=motion.source,
            route_xy_m=place.route_xy_m,
            drivable=place.drivable,
            problems=[*can.problems, *motion.problems, *place.problems],
            signal_sources=motion.signal_sources,
            steering_ratio=motion.steering_ratio,
            agents=self._agents(row, steady),
        )

    def _agents(self, row: SceneRow, steady: SteadyFrames) -> AnnotatedAgents | None:
        if not self._annotations.is_there:
            return None
        return AnnotatedAgents(self._annotations, row.token, steady.instants_us)

    def _scene(self, name: str) -> SceneRow:
        if name in self._tables.scenes:
            return self._tables.scenes[name]
        names = self.scene_names()
        near = get_close_matches(name, names, n=3, cutoff=0.5) or names[:3]
        raise InputError(
            f"no scene {name!r} in {self.dataroot} ({self.version}); did you mean {', '.join(near)}?"
        )

    def _rows(self, scene: SceneRow, camera: str) -> NDArray[np.void]:
        rows = self._index.pictures(scene.place, camera)
        if len(rows):
            return rows
        cameras = self._index.channels_of(scene.place)
        advice = f"name one of its cameras: {', '.join(cameras)}" if cameras else "it has no camera at all"
        raise InputError(f"scene {scene.name!r} has no {camera}; {advice}")

    def _missing(self, name: str, camera: str, pictures: Pictures) -> list[str]:
        """Return what is to be said about files that are not there; their frames cannot be read."""
        missing = [file for file in pictures.filenames if not (self.dataroot / file).is_file()]
        if not missing:
            return []
        found = f"{len(missing)} of {len(pictures)} {camera} pictures of {name!r} are missing"
        if len(missing) > MAX_MISSING_SHARE * len(pictures):
            raise InputError(
                f"{found} (first: {self.dataroot / missing[0]}); download the archive that holds them"
            )
        return [Fault(found)]

    def _camera(self, pictures: Pictures) -> Camera:
        calibrated = self._tables.calibrated_sensor(pictures.sensor_tokens[0])
        width_px, height_px = pictures.sizes_px[0]
        return calibrated_camera(calibrated, width_px=width_px, height_px=height_px)

    def _motion(self, name: str, can: CanFiles, steady: SteadyFrames, poses: Motion) -> Motion:
        is_wrong = number_of(name) in WRONG_POSE
        motion = motion_of_scene(
            can.messages, steady.instants_us, poses, has_can=self._has_can, are_poses_wrong=is_wrong
        )
        if is_wrong:
            motion.problems.append(
                "nuScenes lists the ego poses of this scene as wrong; positions are not to be trusted"
            )
        return motion

    def _surroundings(
        self, row: SceneRow, can: CanFiles, xy_m: FloatArray, yaw_rad: FloatArray
    ) -> Surroundings:
        problems: list[str] = []
        route_xy_m = None if number_of(row.name) in MISALIGNED_ROUTE else as_polyline(can.route)
        if route_xy_m is None or not route_is_near(route_xy_m, xy_m):
            problems.append("no navigation route is known near the car; the driven path is the route")
            route_xy_m = route_from_path(xy_m, yaw_rad)
        drivable = None
        if number_of(row.name) in (WRONG_POSE | OUTSIDE_MAP):
            problems.append("nuScenes lists this scene as off its map; off-road cannot be told")
        elif (filename := self._tables.map_of(row)) is None:
            problems.append("the data set has no map of this place; off-road cannot be told")
        elif isinstance(mask := self._masks.mask(filename), str):
            problems.append(Fault(f"{mask}; off-road cannot be told"))
        else:
            drivable = drivable_around(mask, MAP_RESOLUTION_M, np.concatenate([xy_m, route_xy_m]))
            if drivable is None:
                problems.append("the map shows nothing drivable here; off-road cannot be told")
            else:
                location = self._tables.log_of(row).location
                problems += self._lines.add_to(drivable, names=[location, Path(filename).stem])
        return Surroundings(route_xy_m=route_xy_m, drivable=drivable, problems=problems)
