"""Frames of a raw video stream, which has no times: they are found by counting from the start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import av
import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.scene.types import Image


@dataclass(slots=True)
class CountedFrames(Sequence[Image]):
    """Chosen frames of a video by their number; reading on is cheap, going back starts again.

    After damaged data nothing can be counted, so that all frames from there on raise InputError.
    """

    path: Path
    numbers: NDArray[np.int64]  # (N,) of the frames in the video, increasing
    _decoded: Iterator[av.VideoFrame] | None = field(default=None, repr=False, compare=False)
    _next: int = field(default=0, repr=False, compare=False)  # number of the frame that is decoded next
    _end: int | None = field(default=None, repr=False, compare=False)  # first frame that cannot be decoded

    def __len__(self) -> int:
        """Return the number of chosen frames."""
        return len(self.numbers)

    def __iter__(self) -> Iterator[Image]:
        """Decode the frames one after another."""
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Image: ...

    @overload
    def __getitem__(self, index: slice) -> CountedFrames: ...

    def __getitem__(self, index: int | slice) -> Image | CountedFrames:
        """Decode one frame, or return the sequence of a part of them without decoding."""
        if isinstance(index, slice):
            return CountedFrames(self.path, self.numbers[index])
        wanted = int(self.numbers[index])
        if self._end is not None and wanted >= self._end:
            raise self._damaged(wanted)
        if self._decoded is None or wanted < self._next:
            self._decoded, self._next = _decode(self.path), 0
        frame = None
        while self._next <= wanted:
            frame = next(self._decoded, None)
            if frame is None or frame.is_corrupt:
                self._end, self._decoded = self._next, None
                raise self._damaged(wanted)
            self._next += 1
        assert frame is not None
        return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the open decoder out of copies that go to other processes."""
        return CountedFrames, (self.path, self.numbers)

    def _damaged(self, wanted: int) -> InputError:
        return InputError(
            f"frame {wanted} of video {self.path} cannot be decoded (damaged from frame {self._end} on); fetch it again"
        )


def count_frames(path: Path) -> int:
    """Return how many frames a video has, without decoding them.

    Raises:
        InputError: it is missing or holds no video.
    """
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            return sum(1 for packet in container.demux(stream) if packet.size)
    except (OSError, IndexError, av.error.FFmpegError) as error:
        raise InputError(f"cannot read video {path} ({error}); fetch the file again") from error


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    """Yield the frames up to the end or to damaged data."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            yield from container.decode(stream)
    except (OSError, IndexError, av.error.FFmpegError):
        return
