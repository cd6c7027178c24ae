"""Pictures of a scene as a sequence that reads a file when it is indexed, and how they meet a steady rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Image
from drivesim.video import read_image, resize

LONGEST_STAND_IN_S = 0.5  # a picture is shown no farther than this from its time


@dataclass(slots=True)
class FrameFiles(Sequence[Image]):
    """Image files that become (height_px, width_px, 3) pictures when indexed; InputError names a bad one.

    Frames of a gap have no picture: reading one is an error too, so that a clip across a gap is left out.
    """

    paths: list[Path]
    width_px: int
    height_px: int
    is_in_gap: list[bool] | None = None  # as long as ``paths``; the path is then only the nearest picture

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.paths)

    def __iter__(self) -> Iterator[Image]:
        """Read the pictures one after another."""
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Image: ...

    @overload
    def __getitem__(self, index: slice) -> FrameFiles: ...

    def __getitem__(self, index: int | slice) -> Image | FrameFiles:
        """Read one picture, or return the sequence of a part of the files without reading them."""
        if isinstance(index, slice):
            is_in_gap = None if self.is_in_gap is None else self.is_in_gap[index]
            return FrameFiles(self.paths[index], self.width_px, self.height_px, is_in_gap)
        if self.is_in_gap is not None and self.is_in_gap[index]:
            raise InputError(
                f"frame {index} lies in a gap of its recording: the nearest picture, {self.paths[index]}, was taken "
                f"more than {LONGEST_STAND_IN_S:g} s away"
            )
        size = (self.width_px, self.height_px)
        return resize(read_image(self.paths[index], enough_px=size), *size)


@dataclass(kw_only=True, slots=True)
class SteadyFrames:
    """Instants at a steady rate and the recorded pictures shown at them."""

    instants_us: FloatArray  # (T,)
    indices: NDArray[np.int64]  # (T,) of the nearest picture
    num_repeated: int  # instants farther than half a step from any picture
    is_in_gap: NDArray[np.bool_]  # (T,) the nearest picture is too far away to be shown

    def check_length(self, scene_name: str, min_frames: int) -> None:
        """Raise InputError if there are fewer instants than ``min_frames`` (at least 2)."""
        count, needed = len(self.indices), max(min_frames, 2)
        if count < needed:
            raise InputError(
                f"scene {scene_name!r} has {count} frames at the rate asked for and {needed} are needed; "
                "choose a longer scene or a shorter context"
            )


def steady_frames(recorded_us: NDArray[np.int64], rate_hz: float) -> SteadyFrames:
    """Choose for every instant, from the first picture to the last, the picture nearest in time.

    Args:
        recorded_us: (N,) increasing times of the pictures, microseconds; intervals may vary.
        rate_hz: the rate wanted.
    """
    span_us = float(recorded_us[-1] - recorded_us[0])
    count = int(np.floor(span_us * 1e-6 * rate_hz + 1e-3)) + 1
    offsets_us = np.arange(count) * (1e6 / rate_hz)
    times_us = (recorded_us - recorded_us[0]).astype(np.float64)
    after = np.clip(np.searchsorted(times_us, offsets_us), 1, max(len(times_us) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(times_us) - 1)
    is_before = offsets_us - times_us[before] <= times_us[after] - offsets_us
    indices = np.where(is_before, before, after)
    distance_us = np.abs(times_us[indices] - offsets_us)
    return SteadyFrames(
        instants_us=offsets_us + float(recorded_us[0]),
        indices=indices,
        num_repeated=int((distance_us > 0.5e6 / rate_hz + 1e3).sum()),
        is_in_gap=distance_us > max(LONGEST_STAND_IN_S, 0.5 / rate_hz) * 1e6 + 1e3,
    )
