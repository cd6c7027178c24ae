"""Small videos of the formats that people have; the brightness of a frame says when it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from drivesim.video import write_video

SIZE = (32, 48)


def level(index: int) -> int:
    """Return the brightness of frame ``index``; it starts anew after 40 frames."""
    return 10 + 6 * (index % 40)


def ramp(num_frames: int, size: tuple[int, int] = SIZE) -> list[NDArray[np.uint8]]:
    return [np.full((*size, 3), level(index), np.uint8) for index in range(num_frames)]


def seen(frames: NDArray[np.uint8]) -> list[int]:
    """Return which frame of a ramp each frame is."""
    return [round((float(frame.mean()) - level(0)) / 6) for frame in frames]


def write_ramp(path: Path, num_frames: int = 40, rate_hz: float = 10.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, ramp(num_frames), rate_hz)
    return path


def write_timed(
    path: Path,
    times_s: Sequence[float],
    *,
    codec: str = "libx264",
    key_every: int = 250,
    faststart: bool = False,
) -> Path:
    """Write a ramp whose frames are shown at any times."""
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=30, options={"g": str(key_every)})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for time_s, image in zip(times_s, ramp(len(times_s)), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_audio(path: Path, *, with_empty_video: bool = False) -> Path:
    """Write an mp4 with sound only, or with a video stream of no frames beside it."""
    with av.open(str(path), "w") as container:
        if with_empty_video:
            video = container.add_stream("libx264", rate=10)
            video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        stream = container.add_stream("aac", rate=16000)
        for index in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 16000, index * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut_short(path: Path, share: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path
