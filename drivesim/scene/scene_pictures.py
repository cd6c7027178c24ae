"""The pictures of one camera in one scene, read from their rows in the large tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.scene.faults import Fault
from drivesim.scene.frame_files import LONGEST_STAND_IN_S, SteadyFrames
from drivesim.scene.geometry import FloatArray, wrap_angle, yaw_from_quaternion
from drivesim.scene.pose_table import PoseTable
from drivesim.scene.table_records import changed_table, read_records
from drivesim.scene.table_rows import (
    ADVICE,
    Record,
    file_of,
    numbers_of,
    rotation_of,
    row_name,
    size_of,
    text_of,
    whole_of,
)

LONGEST_SCENE_S = 86_400.0
FARTHEST_M = 1e8  # from the origin of the map; the Earth measures 4e7 m around
LONGEST_GAP_S = 2 * LONGEST_STAND_IN_S  # between pictures; nuScenes has two key frames a second


@dataclass(kw_only=True, slots=True)
class Pictures:
    """N pictures in order of time, no two at the same."""

    times_us: NDArray[np.int64]  # (N,) increasing
    filenames: list[str]  # relative to the data root
    xy_m: FloatArray  # (N, 2) ego pose
    yaw_rad: FloatArray  # (N,)
    sizes_px: list[tuple[int, int]]  # width, height
    sensor_tokens: list[str]  # calibrated sensors
    num_doubled: int = 0  # pictures left out as another has their time
    num_broken_links: int = 0  # neighbours whose ``prev`` or ``next`` do not name each other
    problems: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.filenames)

    @property
    def gaps_s(self) -> FloatArray:
        """Return the (N - 1,) seconds between pictures."""
        return np.diff(self.times_us) * 1e-6

    @property
    def num_gaps(self) -> int:
        """Return how many of them are longer than ``LONGEST_GAP_S``."""
        return int((self.gaps_s > LONGEST_GAP_S).sum())

    def poses_at(self, instants_us: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (T, 2) positions and (T,) yaws between the recorded poses."""
        times_us = (self.times_us - self.times_us[0]).astype(np.float64)
        offsets_us = instants_us - float(self.times_us[0])
        yaws = np.unwrap(self.yaw_rad)
        xy_m = np.stack([np.interp(offsets_us, times_us, self.xy_m[:, axis]) for axis in (0, 1)], axis=-1)
        return xy_m, wrap_angle(np.interp(offsets_us, times_us, yaws))


def distinct_times(rows: NDArray[np.void], name: str) -> NDArray[np.int64]:
    """Return the increasing times of a scene's rows.

    Raises:
        InputError: they span more than a day, so one of them is wrong.
    """
    times_us = np.unique(rows["time_us"])
    if len(times_us) and (times_us[-1] - times_us[0]) * 1e-6 > LONGEST_SCENE_S:
        first, last = (int(row["row"]) + 1 for row in (rows[0], rows[-1]))
        raise InputError(
            f"scene {name!r} lasts more than a day by the timestamps in rows {first} and {last} of sample_data.json; "
            f"one of them is wrong; {ADVICE}"
        )
    return times_us


def read_pictures(path: Path, rows: NDArray[np.void], name: str, poses: PoseTable) -> Pictures:
    """Read the rows of a camera in a scene.

    Args:
        path: of ``sample_data.json``.
        rows: of the index, in order of time.
        name: of the scene.
        poses: of the data set.

    Raises:
        InputError: a row cannot be used, or names a pose that is not there.
    """
    distinct_times(rows, name)
    kept = rows[np.diff(rows["time_us"], prepend=np.iinfo(np.int64).min) != 0]
    records = read_records(path, kept["offset"], kept["length"])
    names = [row_name(path, row + 1) for row in kept["row"].tolist()]
    for time_us, record, where in zip(kept["time_us"].tolist(), records, names, strict=True):
        if whole_of(record, "timestamp", where) != time_us:
            raise changed_table(path)
    tokens = [text_of(record, "ego_pose_token", where) for record, where in zip(records, names, strict=True)]
    pictures = _checked(kept, records, names)
    for index, found in enumerate(poses.read(tokens, kept["row"].tolist())):
        if found is None:
            raise InputError(
                f"{poses.path} has no row {tokens[index]!r}, which row {int(kept['row'][index]) + 1} of "
                f"sample_data.json names; {ADVICE}"
            )
        where, pose = found
        pictures.xy_m[index] = numbers_of(pose, "translation", where, (3,))[:2]
        if np.abs(pictures.xy_m[index]).max() > FARTHEST_M:
            raise InputError(
                f"{where}: translation is more than {FARTHEST_M / 1e3:g} km away, which no place is; {ADVICE}"
            )
        pictures.yaw_rad[index] = yaw_from_quaternion(rotation_of(pose, "rotation", where))
    pictures.num_doubled = len(rows) - len(kept)
    pictures.problems = _problems(pictures)
    return pictures


def time_problems(pictures: Pictures, steady: SteadyFrames) -> list[str]:
    """Say where pictures are too far apart for the frames asked for."""
    problems: list[str] = []
    gaps_s = pictures.gaps_s
    if pictures.num_gaps:
        at_s = float(pictures.times_us[int(gaps_s.argmax())] - pictures.times_us[0]) * 1e-6
        problems.append(
            Fault(
                f"{pictures.num_gaps} gaps of more than {LONGEST_GAP_S:g} s without a picture, the longest of "
                f"{gaps_s.max():.1f} s at {at_s:.1f} s; frames in them cannot be read"
            )
        )
    if steady.num_repeated:
        count = f"{steady.num_repeated} of {len(steady.indices)}"
        problems.append(f"{count} instants lack a picture of their own")
    return problems


def _checked(rows: NDArray[np.void], records: Sequence[Record], names: Sequence[str]) -> Pictures:
    """Return the pictures without their poses."""
    both = list(zip(records, names, strict=True))
    return Pictures(
        times_us=rows["time_us"].astype(np.int64),
        filenames=[file_of(record, "filename", where) for record, where in both],
        xy_m=np.zeros((len(rows), 2)),
        yaw_rad=np.zeros(len(rows)),
        sizes_px=[
            (size_of(record, "width", where), size_of(record, "height", where)) for record, where in both
        ],
        sensor_tokens=[text_of(record, "calibrated_sensor_token", where) for record, where in both],
        num_broken_links=sum(
            one.get("next") != other.get("token") or other.get("prev") != one.get("token")
            for one, other in pairwise(records)
        ),
    )


def _problems(pictures: Pictures) -> list[str]:
    problems: list[str] = []
    if pictures.num_doubled:
        problems.append(
            Fault(f"{pictures.num_doubled} pictures have the timestamp of another and are left out")
        )
    if pictures.num_broken_links:
        count = pictures.num_broken_links
        problems.append(
            Fault(f"{count} links between pictures are missing or wrong; their timestamps tell the order")
        )
    return problems
