"""Where in the large tables the pictures of every scene and camera are, and with them their ego poses.

``sample_data.json`` and ``ego_pose.json`` are passed over once; what is kept of a camera's row is a few numbers. A row
itself is read when its scene is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.scene.camera_rows import CameraRows
from drivesim.scene.pose_rows import Poses, scan_poses
from drivesim.scene.table_help import Help
from drivesim.scene.token_keys import find_keys


@dataclass(kw_only=True, slots=True)
class PictureIndex:
    """The pictures of a data set, by scene, camera and time."""

    channels: list[str]  # cameras
    rows: NDArray[np.void]  # (N,) of ROW
    spans: NDArray[np.int64]  # (scenes * cameras + 1,) where each scene's camera begins in ``rows``

    def pictures(self, scene: int, channel: str) -> NDArray[np.void]:
        """Return the rows of a camera in a scene, by time; none if it has no such camera."""
        if channel not in self.channels:
            return self.rows[:0]
        place = scene * len(self.channels) + self.channels.index(channel)
        return self.rows[self.spans[place] : self.spans[place + 1]]

    def channels_of(self, scene: int) -> list[str]:
        """Return the cameras that have pictures of a scene."""
        return [channel for channel in self.channels if len(self.pictures(scene, channel))]


@dataclass(kw_only=True, slots=True)
class BuiltIndex:
    """A new index, and the hashes of the two large tables it was made from."""

    index: PictureIndex
    hashes: dict[str, str]  # by table


def build_index(folder: Path) -> BuiltIndex:
    """Read the tables in a version folder; of large ones another process reads a part.

    Raises:
        InputError: a table is missing, is not JSON, or does not fit to another.
    """
    with Help(folder) as help_:
        cameras = CameraRows(folder)
        has_met = cameras.scan(end=help_.begin, is_hashed=help_.begin is None)
        helped = help_.result()
    if helped is None:
        if has_met:  # the other half is still to be read
            cameras = CameraRows(folder)
            cameras.scan()
        poses, sample_data = scan_poses(folder), cameras.sha256
    else:
        poses, sample_data = helped.poses, helped.sample_data
        if has_met:
            cameras.add_part(helped.cameras, first_row=cameras.num_rows)
    hashes = {"ego_pose": poses.sha256} | ({"sample_data": sample_data} if sample_data else {})
    return BuiltIndex(index=_joined(cameras, poses), hashes=hashes)


def _joined(cameras: CameraRows, poses: Poses) -> PictureIndex:
    """Return the index, with the place of every picture's pose."""
    found = cameras.collected()
    rows, groups = found.rows, found.groups
    pose_rows = find_keys(found.pose_keys, poses.keys, poses.order)
    is_found = pose_rows >= 0
    rows["pose_row"], rows["pose_offset"] = pose_rows, -1
    rows["pose_offset"][is_found] = poses.offsets[pose_rows[is_found]]
    rows["pose_length"][is_found] = poses.lengths[pose_rows[is_found]]
    order = np.lexsort((rows["time_us"], groups))
    counts = np.bincount(groups, minlength=cameras.num_scenes * len(cameras.channels))
    spans = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return PictureIndex(channels=cameras.channels, rows=rows[order], spans=spans)
