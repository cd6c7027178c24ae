"""Videos and pictures by time: a whole file or a part of one, what times it covers, its frames at given times.

Times are seconds on the file's own clock, which need not start at 0; ``read_span`` says what it covers. Frames are
found by their timestamps, never by counting, so that variable frame rates are right.
"""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from drivesim.errors import InputError
from drivesim.scene.types import Image
from drivesim.video import read_image, resize

VIDEO_SUFFIXES = (".mp4", ".webm", ".gif", ".mkv", ".mov", ".m4v")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

CLOCK_SLACK_S = 1e-3  # containers round times, WebM to a millisecond
_BUFFER_BYTES = 1 << 16
_GIF_END, _TAIL_BYTES = b";", 16  # some programs append zeros
_MISSING_S, _MISSING_SHARE = 1.0, 0.05  # of the declared duration, from which on a file counts as truncated


@dataclass(kw_only=True, slots=True, frozen=True)
class Span:
    """A stretch of time; the end does not belong to it."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """Return how long it is."""
        return self.end_s - self.start_s


@dataclass(kw_only=True, slots=True, frozen=True)
class MediaFile:
    """A video or picture on disk: a whole file, or the part of one that a tar member takes."""

    path: Path
    member: str = ""  # name in the tar
    offset: int = 0
    num_bytes: int | None = None  # None: up to the end

    @property
    def name(self) -> str:
        """Return what messages and caches call it."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def is_image(self) -> bool:
        """Tell by the suffix whether it is a picture."""
        return Path(self.member or self.path).suffix.lower() in IMAGE_SUFFIXES

    def open(self) -> BinaryIO:
        """Open it for reading; the caller closes it."""
        if self.num_bytes is None:
            return self.path.open("rb")
        part = _FilePart(self.path.open("rb", buffering=0), self.offset, self.num_bytes)
        return io.BufferedReader(part, _BUFFER_BYTES)

    def stamp(self) -> list[int]:
        """Return size and time of change of the file on disk; they tell whether what was measured still holds."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise InputError(f"cannot read {self.name} ({error.strerror}); check the path") from error
        return [status.st_size, status.st_mtime_ns]


class _FilePart(io.RawIOBase):
    """A range of bytes of an open file as a file of its own."""

    def __init__(self, file: io.FileIO, offset: int, num_bytes: int) -> None:
        self._file, self._offset, self._num_bytes, self._position = file, offset, num_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._num_bytes}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        left = max(self._num_bytes - self._position, 0)
        self._file.seek(self._offset + self._position)
        count = self._file.readinto(memoryview(buffer)[:left]) or 0
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def read_picture(media: MediaFile, size: tuple[int, int]) -> Image:
    """Read a picture, scaled and centre-cropped to ``size`` (height, width).

    Raises:
        InputError: it is missing, truncated or not a picture.
    """
    if media.num_bytes is None:
        return cover(read_image(media.path), size)
    with media.open() as file, tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / Path(media.member).name
        copy.write_bytes(file.read())
        try:
            return cover(read_image(copy), size)
        except InputError as error:
            raise InputError(f"cannot read image {media.name}; fetch {media.path.name} again") from error


def read_span(media: MediaFile) -> Span:
    """Return the time from a video's first frame to the end of its last; reads all packets, decodes none.

    Raises:
        InputError: it is missing, truncated, or holds no video.
    """
    starts_s, end_s = _clock_of(media)
    if end_s == starts_s[-1] > starts_s[0]:  # no durations: the last frame stays as long as the others
        end_s += (end_s - starts_s[0]) / (len(starts_s) - 1)
    return Span(start_s=starts_s[0], end_s=end_s)


def frame_times(media: MediaFile) -> list[float]:
    """Return when each frame of a video begins to be shown, in order; reads all packets, decodes none.

    Raises:
        InputError: it is missing, truncated, or holds no video.
    """
    return sorted(set(_clock_of(media)[0]))


def _clock_of(media: MediaFile) -> tuple[list[float], float]:
    """Return the sorted times at which frames begin, at least one, and the time at which the last ends."""
    starts_s: list[float] = []
    end_s = last_s = -math.inf
    with _opened(media) as (container, stream):
        declared_s = ((container.start_time or 0) + (container.duration or 0)) / av.time_base
        is_cut = container.format.name == "gif" and not _ends_with(media, _GIF_END)
        for packet in container.demux():
            is_cut |= packet.is_corrupt
            if packet.pts is None or packet.is_discard:
                continue
            until_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            last_s = max(last_s, until_s)
            if packet.stream.index == stream.index:
                starts_s.append(float(packet.pts * packet.time_base))
                end_s = max(end_s, until_s)
    if is_cut or (starts_s and declared_s - last_s > max(_MISSING_S, _MISSING_SHARE * declared_s)):
        raise InputError(f"video {media.name} is truncated; fetch the file again")
    if not starts_s:
        raise InputError(f"video {media.name} holds no frames; fetch the file again")
    return sorted(starts_s), end_s


def frames_at(media: MediaFile, times_s: Sequence[float], size: tuple[int, int]) -> Image:
    """Return the (T, H, W, 3) frames that a player shows at increasing times, scaled and centre-cropped to ``size``.

    Only the frames from the key frame before the first time to the last time are decoded.

    Raises:
        InputError: the file is missing or broken.
    """
    chosen: list[av.VideoFrame] = []
    shown: av.VideoFrame | None = None
    with closing(timed_frames(media, times_s[0])) as decoded:
        for time_s, frame in decoded:
            while len(chosen) < len(times_s) and times_s[len(chosen)] + CLOCK_SLACK_S < time_s:
                chosen.append(shown or frame)
            if len(chosen) == len(times_s):
                break
            shown = frame
    if shown is None:
        raise InputError(f"no frames of video {media.name} can be decoded; fetch the file again")
    chosen += [shown] * (len(times_s) - len(chosen))
    if any(frame.is_corrupt for frame in chosen):
        raise InputError(f"video {media.name} is damaged; fetch the file again")
    pictures: list[Image] = []
    for index, frame in enumerate(chosen):
        is_repeated = index > 0 and frame is chosen[index - 1]
        pictures.append(pictures[-1] if is_repeated else cover(rgb_of(frame), size))
    return np.stack(pictures)


def timed_frames(
    media: MediaFile, from_s: float | None = None
) -> Generator[tuple[float, av.VideoFrame], None, None]:
    """Decode a video; with ``from_s``, from the key frame before it.

    Yields:
        The time and the frame, in the order of time.

    Raises:
        InputError: the file is missing or broken.
    """
    decoded = _decoded(media, from_s)
    first = next(decoded, None)
    if from_s is not None and (first is None or first[0] > from_s + CLOCK_SLACK_S):  # the seek went too far
        decoded = _decoded(media, None)
        first = next(decoded, None)
    if first is not None:
        yield first
        yield from decoded


def cover(image: Image, size: tuple[int, int]) -> Image:
    """Scale a picture so that it covers (height, width) without distortion, and cut off what stands out evenly."""
    scale = max(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(min(round(size[i] / scale), image.shape[i]), 1) for i in range(2))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    crop = np.ascontiguousarray(image[top : top + height, left : left + width])
    return resize(crop, size[1], size[0])


def _decoded(media: MediaFile, from_s: float | None) -> Iterator[tuple[float, av.VideoFrame]]:
    with _opened(media) as (container, stream):
        if from_s is not None and stream.time_base is not None:
            container.seek(int((from_s + CLOCK_SLACK_S) / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.time is not None:
                yield frame.time, frame


def _ends_with(media: MediaFile, end: bytes) -> bool:
    with media.open() as file:
        file.seek(max(file.seek(0, io.SEEK_END) - _TAIL_BYTES, 0))
        return end in file.read()


@contextmanager
def _opened(media: MediaFile) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        with media.open() as file, av.open(file, "r", metadata_errors="replace") as container:
            if not container.streams.video:
                raise InputError(f"{media.name} holds no video; leave it out")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # the loader's workers share the cores
            yield container, stream
    except (OSError, av.error.FFmpegError) as error:
        raise InputError(
            f"cannot read video {media.name} ({error.strerror}); fetch the file again"
        ) from error


def rgb_of(frame: av.VideoFrame) -> Image:
    """Return the (H, W, 3) picture of a decoded frame, upright."""
    rgb = frame.to_ndarray(format="rgb24")
    return np.asarray(np.rot90(rgb, getattr(frame, "rotation", 0) // 90), dtype=np.uint8)
