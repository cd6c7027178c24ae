"""Where in ``sample_data.json`` the pictures of every scene and camera are.

The table is passed over once; what is kept of a camera's row is a few numbers. A row itself is read when its scene is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.scene.camera_rows import CameraRows
from drivesim.scene.table_help import Help


@dataclass(kw_only=True, slots=True)
class PictureIndex:
    """The pictures of a data set, by scene, camera and time."""

    channels: list[str]  # cameras
    rows: NDArray[np.void]  # (N,) of ROW
    spans: NDArray[np.int64]  # (scenes * cameras + 1,) where each scene's camera begins in ``rows``
    num_rows: int  # of the table, those of no camera included

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
    """A new index, and the hash of the large table it was made from."""

    index: PictureIndex
    hashes: dict[str, str]  # by table


def build_index(folder: Path) -> BuiltIndex:
    """Read the tables in a version folder; of a large one another process reads a part.

    Raises:
        InputError: a table is missing, is not JSON, or does not fit to another.
    """
    with Help(folder) as help_:
        cameras = CameraRows(folder)
        has_met = cameras.scan(end=help_.begin, is_hashed=help_.begin is None)
        helped = help_.result()
    sha256 = cameras.sha256
    if has_met and helped is None:  # the other part is still to be read
        cameras = CameraRows(folder)
        cameras.scan()
        sha256 = cameras.sha256
    elif helped is not None:
        sha256 = helped.sample_data
        if has_met:
            cameras.add_part(helped.cameras, num_rows=helped.num_rows)
    return BuiltIndex(index=_joined(cameras), hashes={"sample_data": sha256} if sha256 else {})


def _joined(cameras: CameraRows) -> PictureIndex:
    """Return the index, by scene, camera and time."""
    found = cameras.collected()
    order = np.lexsort((found.rows["time_us"], found.groups))
    counts = np.bincount(found.groups, minlength=cameras.num_scenes * len(cameras.channels))
    spans = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return PictureIndex(
        channels=cameras.channels, rows=found.rows[order], spans=spans, num_rows=cameras.num_rows
    )
