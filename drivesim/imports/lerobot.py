"""LeRobot data sets, v2.x (a table and a video per episode) and v3.x (many episodes in each): one log per episode.

LeRobot names the numbers of actions and observations but has no convention for cars: names such as ``steering_rad``
or ``speed_kmh`` tell the unit, others need a flag. Left is taken as positive. A time in a table is that of the
frame; the frame of the video is found by it, never by counting.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.imports.drive_log import DriveLog, Signal, Track
from drivesim.imports.foreign_files import folders_where, log_name
from drivesim.imports.lerobot_entries import DRIVESIM, Entries, Entry, find_entries
from drivesim.imports.lerobot_episodes import Episode, camera_of, episodes_of
from drivesim.imports.lerobot_info import INFO_PATH, Info, read_info
from drivesim.imports.lerobot_tables import Columns, read_columns
from drivesim.imports.many_recordings import logs_of_all
from drivesim.imports.options import ImportConfig
from drivesim.imports.readings import increasing, signal, track
from drivesim.imports.remarks import Loss
from drivesim.imports.units import road_wheel_rad, speed_from_throttle, speed_mps
from drivesim.imports.video_frames import VideoFrames
from drivesim.scene.geometry import FloatArray
from drivesim.scene.keyframes import nearest
from drivesim.scene.media import MediaFile, frame_times

_HOLD_SLACK = 1e-4  # of the time between frames, between the end of one action and the next
_FRAME_SLACK = 0.6  # of the time between frames, within which a frame of the video belongs to a row


def read_lerobot(path: Path, config: ImportConfig) -> list[DriveLog]:
    """Read a data set, or all data sets in a folder.

    Raises:
        InputError: there is no data set, one is broken, nothing tells the speed, or a flag is needed.
    """
    roots = folders_where(path, _is_dataset)
    if not roots:
        raise InputError(f"{path} holds no LeRobot data set; name the folder that holds {INFO_PATH}")
    return logs_of_all(roots, lambda root: _logs(root, log_name(path, root), config))


def _is_dataset(folders: Sequence[str], _: Sequence[str]) -> bool:
    return "meta" in folders and ("data" in folders or "videos" in folders)


def _logs(root: Path, name: str, config: ImportConfig) -> list[DriveLog]:
    info = read_info(root)
    video_key, entries = info.video_key(config.camera_key), find_entries(info, config)
    problems: list[str] = []
    listed = list(episodes_of(info, video_key, problems))
    episodes = {episode.index: episode for episode in listed}
    if len(episodes) < len(listed):
        problems.append(f"{len(listed) - len(episodes)} episodes are listed again; the last entry counts")
    by_file: dict[Path, list[Episode]] = {}
    for episode in episodes.values():
        by_file.setdefault(episode.data, []).append(episode)
    logs, left_out = [], list[str]()
    for data, members in by_file.items():
        try:
            columns = read_columns(data, _columns(entries))
            indices = columns.whole("episode_index")
        except InputError as error:
            left_out.append(f"{len(members)} episodes were left out: {error}")
            continue
        for episode in members:
            rows = np.flatnonzero(indices == episode.index)
            try:
                reader = _EpisodeReader(info, entries, columns, config)
                logs.append(reader.log(episode, rows, f"{name}--episode_{episode.index:06d}"))
            except InputError as error:
                left_out.append(f"episode {episode.index} was left out: {error}")
    if not logs:
        raise InputError(f"{root} has no usable episode: {left_out[0] if left_out else 'there is none'}")
    logs[0].problems[:0] = [*problems, *map(Loss, left_out)]
    return logs


def _columns(entries: Entries) -> list[str]:
    return ["timestamp", "episode_index", *{entry.feature: None for entry in entries.all()}]


class _EpisodeReader:
    """Makes logs of rows of a table."""

    def __init__(self, info: Info, entries: Entries, columns: Columns, config: ImportConfig) -> None:
        self._info, self._entries, self._columns, self._config = info, entries, columns, config
        self._times_s = columns.numbers("timestamp")

    def log(self, episode: Episode, rows: NDArray[np.int64], name: str) -> DriveLog:
        """Return an episode; InputError says why it cannot be used."""
        problems: list[str] = []
        if not len(rows):
            raise InputError(f"{episode.data} has no row of it; fetch it again")
        kept = increasing(self._times_s[rows])
        if len(kept) < len(rows):
            problems.append(
                Loss(
                    f"{len(rows) - len(kept)} rows have a time that is missing or does not increase; left out"
                )
            )
        rows = rows[kept]
        times_s = self._times_s[rows]
        has_frame, shown_s = self._frames(episode, times_s)
        if not has_frame.all():
            problems.append(
                Loss(f"{int((~has_frame).sum())} rows have no frame in {episode.video}; left out")
            )
        log = DriveLog(
            name=name,
            frames=VideoFrames(MediaFile(path=episode.video), shown_s),
            frame_times_s=times_s[has_frame],
            speed_mps=self._speed(rows, times_s, problems),
            steering_rad=self._steering(rows, times_s, problems),
            yaw_rate_radps=self._signal("yaw rate", self._entries.yaw_rate, rows, times_s, problems),
            track=self._track(rows, times_s, problems),
            camera=camera_of(episode.camera, problems),
            place=episode.place,
            caption=episode.task,
            problems=problems,
        )
        log.check()
        return log

    def _frames(self, episode: Episode, times_s: FloatArray) -> tuple[NDArray[np.bool_], FloatArray]:
        """Tell which rows have a frame in the video, and the times of those frames on its clock."""
        shown_s = np.array(_frame_times(episode.video, *MediaFile(path=episode.video).stamp()))
        wanted_s = episode.video_start_s + times_s
        chosen = nearest(shown_s, wanted_s)
        has_frame = np.abs(shown_s[chosen] - wanted_s) <= _FRAME_SLACK / self._info.fps
        has_frame[1:] &= chosen[1:] != chosen[:-1]
        if not has_frame.any():
            raise InputError(f"video {episode.video} has no frame at its times; fetch it again")
        return has_frame, shown_s[chosen[has_frame]]

    def _signal(
        self,
        name: str,
        entry: Entry | None,
        rows: NDArray[np.int64],
        times_s: FloatArray,
        problems: list[str],
    ) -> Signal | None:
        if entry is None:
            return None
        values = self._columns.entry(entry)[rows]
        if self._info.robot_type == DRIVESIM and entry.is_action:  # held until the next frame
            ends_s = np.array([_HOLD_SLACK, 1.0 - _HOLD_SLACK]) / self._info.fps
            times_s, values = (times_s[:, None] + ends_s).ravel(), np.repeat(values, 2)
        return signal(name, times_s, values, problems=problems)

    def _speed(self, rows: NDArray[np.int64], times_s: FloatArray, problems: list[str]) -> Signal | None:
        entries = self._entries
        if entries.throttle is not None:
            throttle = self._signal("throttle", entries.throttle, rows, times_s, problems)
            if throttle is not None:
                throttle.values = speed_from_throttle(throttle.values, self._config)
            return throttle
        speed = self._signal("speed", entries.speed, rows, times_s, problems)
        if speed is not None:
            speed.values = speed_mps(speed.values, self._config, unit=entries.speed_unit)
        return speed

    def _steering(self, rows: NDArray[np.int64], times_s: FloatArray, problems: list[str]) -> Signal | None:
        entries = self._entries
        steering = self._signal("steering", entries.steering, rows, times_s, problems)
        if steering is not None:
            unit, ratio = entries.steering_unit, entries.steering_ratio
            steering.values = road_wheel_rad(steering.values, self._config, unit=unit, ratio=ratio)
        return steering

    def _track(self, rows: NDArray[np.int64], times_s: FloatArray, problems: list[str]) -> Track | None:
        if self._entries.pose is None:
            return None
        x_m, y_m, yaw_rad = (self._columns.entry(entry)[rows] for entry in self._entries.pose)
        return track(times_s, np.stack([x_m, y_m], axis=-1), yaw_rad, problems=problems)


@lru_cache(maxsize=2)
def _frame_times(video: Path, size: int, changed_ns: int) -> list[float]:
    """Return the times of a video's frames; the last files are remembered, as many episodes share them."""
    del size, changed_ns
    return frame_times(MediaFile(path=video))
