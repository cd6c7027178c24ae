"""Frames of a video file as a sequence that decodes when it is indexed; reading on from the last one is cheap."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import av
import numpy as np

from drivesim.errors import InputError
from drivesim.scene.geometry import FloatArray
from drivesim.scene.media import CLOCK_SLACK_S, MediaFile, rgb_of, timed_frames
from drivesim.scene.types import Image

_Decoded = Generator[tuple[float, av.VideoFrame], None, None]
_READ_ON_FRAMES = (
    64  # a frame this close behind the last one is reached by decoding on, a farther one by seeking
)


@dataclass(slots=True)
class VideoFrames(Sequence[Image]):
    """The frames of a video that begin at given times of its clock; InputError names one that cannot be read."""

    media: MediaFile
    times_s: FloatArray  # (N,) increasing
    _decoded: _Decoded | None = field(default=None, repr=False, compare=False)
    _next: int = field(default=0, repr=False, compare=False)  # index that decoding comes to next
    _pending: tuple[float, av.VideoFrame] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.times_s)

    def __iter__(self) -> Iterator[Image]:
        """Decode the frames one after another."""
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Image: ...

    @overload
    def __getitem__(self, index: slice) -> VideoFrames: ...

    def __getitem__(self, index: int | slice) -> Image | VideoFrames:
        """Decode one frame, or return the sequence of a part of them without decoding."""
        if isinstance(index, slice):
            return VideoFrames(self.media, self.times_s[index])
        position = range(len(self))[index]
        if self._decoded is None or not self._next <= position < self._next + _READ_ON_FRAMES:
            self._restart(position)
        try:
            frame = self._decode_to(float(self.times_s[position]))
        except InputError:
            self._stop()
            raise
        self._next = position + 1
        return rgb_of(frame)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the open decoder out of copies that go to other processes."""
        return VideoFrames, (self.media, self.times_s)

    def _restart(self, position: int) -> None:
        self._stop()
        self._decoded = timed_frames(self.media, float(self.times_s[position]))

    def _stop(self) -> None:
        if self._decoded is not None:
            self._decoded.close()
        self._decoded, self._pending = None, None

    def _decode_to(self, time_s: float) -> av.VideoFrame:
        """Return the frame that a player shows at a time."""
        assert self._decoded is not None
        shown = self._pending
        for at_s, frame in self._decoded:
            if at_s > time_s + CLOCK_SLACK_S:
                self._pending = (at_s, frame)
                break
            shown = (at_s, frame)
            if at_s >= time_s - CLOCK_SLACK_S:
                self._pending = shown
                break
        if shown is None or shown[0] > time_s + CLOCK_SLACK_S or shown[1].is_corrupt:
            raise InputError(f"the frame at {time_s:.3f} s of video {self.media.name} cannot be decoded")
        return shown[1]


def check_not_empty(media: MediaFile, times_s: FloatArray) -> None:
    """Raise InputError for a video without frames."""
    if not np.size(times_s):
        raise InputError(f"video {media.name} holds no frames; fetch the file again")
