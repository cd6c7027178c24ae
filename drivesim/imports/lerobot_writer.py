"""Scenes -> a LeRobot data set v3.0: an episode per scene, in tables (Parquet) and videos (H.264).

``action`` is the mean motion from a frame to the next, ``observation.state`` the mean motion that led into the frame,
``observation.pose`` the rear axle in the scene's own frame. Left is positive. What LeRobot has no place for, the
camera and the place, stands in columns of ``meta/episodes`` that others may overlook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from drivesim.errors import InputError
from drivesim.files import atomic_folder
from drivesim.imports.lerobot_arrow import pa, pq
from drivesim.imports.lerobot_episodes import CAMERA_COLUMN, PLACE_COLUMN, camera_text
from drivesim.imports.lerobot_info import V3_DATA_PATH, V3_VIDEO_PATH
from drivesim.imports.lerobot_meta import CHUNKS_SIZE, column_features, video_feature, write_meta
from drivesim.imports.lerobot_stats import PictureStats, Stats, as_columns, combined, number_stats
from drivesim.scene.types import Image, Scene
from drivesim.video import write_video

VIDEO_KEY = "observation.images.front"
STATE_NAMES = ["speed_mps", "yaw_rate_radps", "steering_rad"]
POSE_NAMES = ["x_m", "y_m", "yaw_rad"]
ACTION_NAMES = ["steering_rad", "speed_mps", "yaw_rate_radps"]
_NAMES = {"observation.state": STATE_NAMES, "observation.pose": POSE_NAMES, "action": ACTION_NAMES}
_STATS_FRAMES = 40  # of an episode, that the statistics of pictures look at
_SCHEMA = pa.schema(
    [
        ("observation.state", pa.list_(pa.float32(), len(STATE_NAMES))),
        ("observation.pose", pa.list_(pa.float64(), len(POSE_NAMES))),
        ("action", pa.list_(pa.float32(), len(ACTION_NAMES))),
        ("timestamp", pa.float32()),
        ("frame_index", pa.int64()),
        ("episode_index", pa.int64()),
        ("index", pa.int64()),
        ("task_index", pa.int64()),
    ]
)


@dataclass(kw_only=True, slots=True)
class LeRobotConfig:
    """How a LeRobot data set is written."""

    crf: int = 18  # H.264's constant rate factor
    keyframe_every: int = 2  # as LeRobot has it: any frame is quick to reach
    frames_per_file: int = 20_000  # from which on the next episode begins new files

    def __post_init__(self) -> None:
        """Refuse what is not positive."""
        for name in ("keyframe_every", "frames_per_file"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


def write_lerobot(
    scenes: Iterable[Scene],
    out: Path,
    *,
    config: LeRobotConfig | None = None,
    on_left_out: Callable[[str], None] | None = None,
) -> int:
    """Write scenes as a LeRobot data set into the new folder ``out``, which appears only when complete.

    Scenes are taken one at a time, and their pictures too. A picture that cannot be read ends an episode, and the next
    one begins after it.

    Args:
        scenes: all of one rate, a whole number of frames per second, and with pictures of one size.
        out: the new data set.
        config: quality, and how much goes into a file.
        on_left_out: is told in one sentence of every picture or scene that had to be left out.

    Returns:
        The number of episodes.

    Raises:
        InputError: ``out`` exists and is not empty, there is nothing to write, or rates or sizes differ.
    """
    try:
        with atomic_folder(out) as root:
            writer = _Writer(root, config or LeRobotConfig(), on_left_out or (lambda _: None))
            writer.write(scenes)
            if not writer.episodes:
                raise InputError(
                    f"nothing to write to {out}: ask for at least one scene of two readable pictures"
                )
            writer.write_meta()
            return len(writer.episodes)
    except FileExistsError as error:
        raise InputError(str(error)) from error


@dataclass(kw_only=True, slots=True)
class _Shown:
    """A readable frame of a scene."""

    scene: Scene
    index: int
    image: Image
    is_first: bool  # of an episode


@dataclass(kw_only=True, slots=True)
class _OpenEpisode:
    """An episode that is being written."""

    scene: Scene
    first_index: int
    first_frame: int  # of the video
    length: int = 0
    pictures: PictureStats = field(default_factory=PictureStats)


class _Writer:
    """Writes videos and tables side by side; each pair of files holds the same episodes."""

    def __init__(self, root: Path, config: LeRobotConfig, on_left_out: Callable[[str], None]) -> None:
        self.episodes: list[dict[str, Any]] = []
        self._root, self._config, self._on_left_out = root, config, on_left_out
        self._stats: list[dict[str, Stats]] = []
        self._tasks: dict[str, int] = {}
        self._num_frames = 0
        self._fps = 0
        self._size: tuple[int, int] | None = None
        self._open: _OpenEpisode | None = None
        self._table: pq.ParquetWriter | None = None

    def write(self, scenes: Iterable[Scene]) -> None:
        """Write the episodes."""
        shown = self._readable(scenes)
        pending = next(shown, None)
        file = 0
        while pending is not None:
            place = {"chunk_index": file // CHUNKS_SIZE, "file_index": file % CHUNKS_SIZE}
            data, video = (
                self._root / template.format(video_key=VIDEO_KEY, **place)
                for template in (V3_DATA_PATH, V3_VIDEO_PATH)
            )
            data.parent.mkdir(parents=True, exist_ok=True)
            rest: list[_Shown] = []
            with pq.ParquetWriter(data, _SCHEMA, compression="snappy") as self._table:
                images = self._one_file(chain([pending], shown), place, rest)
                quality = {"crf": self._config.crf, "keyframe_every": self._config.keyframe_every}
                write_video(video, images, self._fps, **quality)
            pending = rest[0] if rest else None
            file += 1

    def _one_file(
        self, shown: Iterable[_Shown], place: dict[str, int], rest: list[_Shown]
    ) -> Iterator[Image]:
        """Yield the pictures of a video up to the end of an episode; what is read too far goes to ``rest``."""
        for number, item in enumerate(shown):
            if item.is_first:
                self._close(place)
                if number >= self._config.frames_per_file:
                    rest.append(item)
                    return
                self._open = _OpenEpisode(scene=item.scene, first_index=item.index, first_frame=number)
            assert self._open is not None
            if self._open.length % max(len(item.scene) // _STATS_FRAMES, 1) == 0:
                self._open.pictures.add(item.image)
            self._open.length += 1
            yield item.image
        self._close(place)

    def _readable(self, scenes: Iterable[Scene]) -> Iterator[_Shown]:
        for scene in scenes:
            scene.validate()
            self._check_rate(scene)
            is_first = True
            for index in range(len(scene)):
                try:
                    image = np.asarray(scene.frames[index])
                except InputError as error:
                    self._on_left_out(f"frame {index} of scene {scene.name!r} was left out: {error}")
                    is_first = True
                    continue
                self._check_size(scene, image)
                yield _Shown(scene=scene, index=index, image=image, is_first=is_first)
                is_first = False

    def _check_rate(self, scene: Scene) -> None:
        if not float(scene.rate_hz).is_integer() or scene.rate_hz < 1:
            raise InputError(
                f"LeRobot holds whole frames per second, not {scene.rate_hz:g}; choose another rate"
            )
        if self._fps not in (0, round(scene.rate_hz)):
            raise InputError(
                f"scene {scene.name!r} has {scene.rate_hz:g} Hz, others {self._fps} Hz; export one rate"
            )
        self._fps = round(scene.rate_hz)

    def _check_size(self, scene: Scene, image: Image) -> None:
        size = (image.shape[0], image.shape[1])
        if self._size not in (None, size):
            raise InputError(
                f"pictures of scene {scene.name!r} have another size than others; export one size"
            )
        self._size = size

    def _close(self, place: dict[str, int]) -> None:
        """Write the table of the open episode; one of a single frame stays a frame that nobody names."""
        episode, self._open = self._open, None
        if episode is None:
            return
        if episode.length < 2:
            self._on_left_out(
                f"frame {episode.first_index} of scene {episode.scene.name!r} stands alone; left out"
            )
            return
        scene, number = episode.scene, len(self.episodes)
        task = scene.caption or "drive"
        task_index = self._tasks.setdefault(task, len(self._tasks))
        rows = _rows(scene, episode.first_index, episode.length, fps=self._fps)
        rows["episode_index"] = np.full(episode.length, number)
        rows["index"] = self._num_frames + np.arange(episode.length)
        rows["task_index"] = np.full(episode.length, task_index)
        assert self._table is not None
        self._table.write_table(
            pa.table(
                {name: _cells(rows[name], _SCHEMA.field(name).type) for name in _SCHEMA.names}, schema=_SCHEMA
            )
        )
        stats = {name: number_stats(values) for name, values in rows.items()}
        stats[VIDEO_KEY] = episode.pictures.stats()
        self._stats.append(stats)
        start_s = episode.first_frame / self._fps
        self.episodes.append(
            {
                "episode_index": number,
                "tasks": [task],
                "length": episode.length,
                **{f"data/{key}": value for key, value in place.items()},
                "dataset_from_index": self._num_frames,
                "dataset_to_index": self._num_frames + episode.length,
                **{f"videos/{VIDEO_KEY}/{key}": value for key, value in place.items()},
                f"videos/{VIDEO_KEY}/from_timestamp": start_s,
                f"videos/{VIDEO_KEY}/to_timestamp": start_s + episode.length / self._fps,
                **as_columns(stats),
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                PLACE_COLUMN: scene.place,
                CAMERA_COLUMN: camera_text(scene.camera),
            }
        )
        self._num_frames += episode.length

    def write_meta(self) -> None:
        """Write what is known only at the end."""
        assert self._size is not None
        write_meta(
            self._root,
            self.episodes,
            {key: combined(part[key] for part in self._stats) for key in self._stats[0]},
            tasks=self._tasks,
            features={VIDEO_KEY: video_feature(self._size, self._fps), **column_features(_SCHEMA, _NAMES)},
            fps=self._fps,
        )


def _rows(scene: Scene, first: int, length: int, *, fps: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return the numbers of an episode by their columns."""
    part = slice(first, first + length)
    following = np.minimum(np.arange(first, first + length) + 1, len(scene) - 1)
    state = [scene.speed_mps[part], scene.yaw_rate_radps[part], scene.steering_rad[part]]
    action = [scene.steering_rad[following], scene.speed_mps[following], scene.yaw_rate_radps[following]]
    return {
        "observation.state": np.stack(state, axis=-1).astype(np.float32),
        "observation.pose": np.concatenate([scene.xy_m[part], scene.yaw_rad[part, None]], axis=-1),
        "action": np.stack(action, axis=-1).astype(np.float32),
        "timestamp": (np.arange(length) / fps).astype(np.float32),
        "frame_index": np.arange(length),
    }


def _cells(values: np.ndarray[Any, Any], kind: Any) -> Any:
    if values.ndim == 1:
        return pa.array(values, type=kind)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(values.reshape(-1), type=kind.value_type), values.shape[1]
    )
