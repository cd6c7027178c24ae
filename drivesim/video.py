"""Pictures and videos on disk and in memory: the door to PyAV and, outside the reference world, to OpenCV.

A picture is uint8 RGB of shape (H, W, 3); a video is a sequence of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.scene.picture_headers import JPEG_START, is_truncated, jpeg_size, orientation

Image = NDArray[np.uint8]

_BACKGROUND = 24  # grey level between and around pictures
_ACROSS_RADIUS_PX = 3  # around a pixel under a mask, of those that it is drawn on from
_JPEG_REDUCTIONS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}


@dataclass(kw_only=True, slots=True)
class Video:
    """A decoded video."""

    frames: Image  # (T, H, W, 3) RGB
    rate_hz: float


# ---------------------------------------------------------------------------------------------- pictures


def work_in_one_thread() -> None:
    """Keep decoding and scaling to one thread in this process; for worker processes that share the cores."""
    cv2.setNumThreads(1)


def read_image(path: Path, *, backdrop: int = 255, enough_px: tuple[int, int] | None = None) -> Image:
    """Read a picture file of any colour mode and depth as it is to be looked at, (H, W, 3) RGB.

    Args:
        path: JPEG, PNG, WebP, TIFF or BMP; turned as its EXIF says.
        backdrop: grey level behind what is transparent.
        enough_px: width and height that the caller will shrink the picture to. A JPEG of at least twice that size is
            decoded at a half, a quarter or an eighth of its own, never below it, which is a few times faster;
            after shrinking, the PSNR against one decoded in full is above 40 dB.

    Raises:
        InputError: the file is missing, truncated or not a picture of these formats.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read image {path} ({error.strerror}); check the path") from error
    if not data or is_truncated(data):
        raise InputError(f"image {path} is truncated after {len(data)} bytes; fetch the file again")
    bgr = _decoded(data, backdrop, enough_px)
    if bgr is None:
        raise InputError(
            f"{path} cannot be decoded as an image; convert it to JPEG, PNG, WebP, TIFF or BMP, or fetch it again if "
            "it is one of these"
        )
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(bgr), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _decoded(data: bytes, backdrop: int, enough_px: tuple[int, int] | None) -> Image | None:
    """Return the picture as BGR; None if it is none, or one of more pixels than OpenCV reads."""
    encoded = np.frombuffer(data, dtype=np.uint8)
    try:
        if data.startswith(JPEG_START):  # which knows no transparency
            return _decoded_jpeg(data, enough_px)
        picture = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        if picture is not None and picture.ndim == 3 and picture.shape[2] == 4 and picture.dtype.kind == "u":
            picture = _before(picture, backdrop)
        else:
            # OpenCV turns TIFF whatever it is told, PNG unless it is told not to, and WebP never.
            picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return None if picture is None else _upright(picture, orientation(data))


def _decoded_jpeg(data: bytes, enough_px: tuple[int, int] | None) -> Image | None:
    """Return a JPEG as BGR, turned as its EXIF says, at the smallest scale that is enough."""
    encoded, size = np.frombuffer(data, dtype=np.uint8), jpeg_size(data)
    if enough_px is not None and size is not None:
        width_px, height_px = enough_px
        for factor, flag in _JPEG_REDUCTIONS.items():
            if size[0] >= factor * width_px and size[1] >= factor * height_px:
                picture = cv2.imdecode(encoded, flag)
                if picture is None or (picture.shape[0] >= height_px and picture.shape[1] >= width_px):
                    return picture
                break  # it was held sideways
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)


def _upright(picture: Image, held: int) -> Image:
    if held in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    if held in (3, 4, 7, 8):
        picture = picture[::-1]
    return picture[:, ::-1] if held in (2, 3, 6, 7) else picture


def _before(bgra: NDArray[np.unsignedinteger[Any]], backdrop: int) -> Image:
    """Lay a picture with transparency before a grey level."""
    values = bgra.astype(np.float32) / np.iinfo(bgra.dtype).max
    alpha = values[..., 3:]
    return (alpha * values[..., :3] * 255 + (1 - alpha) * backdrop).round().astype(np.uint8)


def write_image(path: Path, image: NDArray[np.generic], *, quality: int = 92) -> None:
    """Write an (H, W, 3) RGB or (H, W) grey uint8 picture, JPEG (``quality`` 1-100) or PNG by suffix."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"a picture is uint8 (H, W, 3) or (H, W), got {pixels.dtype} {pixels.shape}")
    suffix = path.suffix.lower()
    if suffix not in (".jpg", ".jpeg", ".png"):
        raise InputError(f"cannot write {path}: name an image that ends in .jpg or .png")
    options = [cv2.IMWRITE_PNG_COMPRESSION, 9]
    if suffix != ".png":
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    bgr = np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    is_encoded, data = cv2.imencode(suffix, bgr, options)
    assert is_encoded
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def resize(image: Image, width_px: int, height_px: int) -> Image:
    """Scale a picture; shrinking averages over the area, so that nothing flickers."""
    if image.shape[:2] == (height_px, width_px):
        return image
    is_smaller = width_px <= image.shape[1] and height_px <= image.shape[0]
    method = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width_px, height_px), interpolation=method), dtype=np.uint8)


def warp(image: Image, source_from_target: NDArray[np.float64], size_px: tuple[int, int]) -> Image:
    """Return the picture of ``size_px`` (width, height) whose pixels a homography finds in ``image``.

    Positions count from the upper left corner, so that the middle of the first pixel is (0.5, 0.5). What lies outside
    ``image`` continues its border.
    """
    to_middle = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    homography = np.linalg.inv(to_middle) @ source_from_target @ to_middle  # OpenCV counts from the middle
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(image, homography, size_px, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, dtype=np.uint8)


# ------------------------------------------------------------------------------------------ compositions


def drawn_across(images: Image, mask: NDArray[np.bool_]) -> Image:
    """Draw what surrounds a mask on across it (Bertalmio et al., 2001); what is under it is not read.

    Args:
        images: (T, H, W, 3).
        mask: (T, H, W). A picture that it covers wholly comes back black.
    """
    holed = np.where(mask[..., None], np.uint8(0), images)
    pairs = zip(holed, mask.astype(np.uint8), strict=True)
    return np.stack([cv2.inpaint(image, hole, _ACROSS_RADIUS_PX, cv2.INPAINT_NS) for image, hole in pairs])


def contact_sheet(frames: Sequence[Image] | Image, columns: int, *, gap_px: int = 2) -> Image:
    """Lay equal pictures out in rows of ``columns``, first to last as one reads."""
    if len(frames) == 0 or columns < 1:
        raise ValueError(f"a contact sheet needs pictures and columns >= 1, got {len(frames)} and {columns}")
    height, width = frames[0].shape[:2]
    rows = -(-len(frames) // columns)
    size = (rows * (height + gap_px) - gap_px, columns * (width + gap_px) - gap_px, 3)
    sheet = np.full(size, _BACKGROUND, dtype=np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // columns * (height + gap_px), index % columns * (width + gap_px)
        sheet[top : top + height, left : left + width] = frame
    return sheet


def side_by_side(*pictures: Image | None, gap_px: int = 4) -> Image:
    """Put pictures of one size next to each other; None leaves its place empty."""
    given = next((picture for picture in pictures if picture is not None), None)
    if given is None:
        raise ValueError("side_by_side needs at least one picture")
    empty = np.full_like(given, _BACKGROUND)
    filled = [empty if picture is None else picture for picture in pictures]
    return contact_sheet(filled, len(filled), gap_px=gap_px)


def with_label(image: Image, text: str) -> Image:
    """Return a copy with a line of white text on a dark band at the top left; ASCII only."""
    labelled = image.copy()
    scale = max(0.35, image.shape[0] / 360)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    band = labelled[: height + below + 5, : width + 8]
    band[:] = band // 3
    white = (255, 255, 255)
    cv2.putText(labelled, text, (4, height + 3), cv2.FONT_HERSHEY_SIMPLEX, scale, white, 1, cv2.LINE_AA)
    return labelled


# ------------------------------------------------------------------------------------------------ videos


def write_video(
    path: Path, frames: Iterable[Image], rate_hz: float, *, crf: int = 18, keyframe_every: int | None = None
) -> None:
    """Write equal pictures as ``.mp4`` (H.264) or ``.gif``; odd sizes lose nothing, mp4 pads them by a pixel.

    Args:
        path: of the file.
        frames: the pictures.
        rate_hz: pictures per second.
        crf: H.264's constant rate factor; each 6 more halve an mp4 file.
        keyframe_every: frames from one of an mp4's key frames to the next; few make every frame quick to reach.

    Raises:
        InputError: the suffix is neither, there are no pictures, or the rate is not positive.
    """
    suffix = path.suffix.lower()
    if suffix not in (".mp4", ".gif"):
        raise InputError(f"cannot write {path}: name a video that ends in .mp4 or .gif")
    if not rate_hz > 0:
        raise InputError(f"cannot write {path} at {rate_hz} Hz: the rate must be positive")
    pending = iter(frames)
    first = next(pending, None)
    if first is None:
        raise InputError(f"cannot write {path}: there are no frames; record at least one")
    rate = Fraction(rate_hz).limit_denominator(1000)
    with atomic_path(path) as temporary:
        every = chain([first], pending)
        if suffix == ".mp4":
            options = {"crf": str(crf)} | ({} if keyframe_every is None else {"g": str(keyframe_every)})
            _write_mp4(temporary, every, first.shape, rate, options)
        else:
            _write_gif(temporary, every, first.shape, rate)


def read_video(path: Path) -> Video:
    """Read all frames of a video file.

    Raises:
        InputError: the file is missing or no video can be decoded from it.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate_hz = float(stream.average_rate or 0)
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except (OSError, IndexError, av.error.FFmpegError) as error:
        raise InputError(f"cannot read video {path} ({error}); check the path or write it again") from error
    if not frames:
        raise InputError(f"video {path} holds no frames; write it again")
    return Video(frames=np.stack(frames).astype(np.uint8), rate_hz=rate_hz)


def _write_mp4(
    path: Path, frames: Iterable[Image], shape: tuple[int, ...], rate: Fraction, options: dict[str, str]
) -> None:
    pad = [(0, shape[0] % 2), (0, shape[1] % 2), (0, 0)]
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        # Without the last option x264's result depends on where in memory the pictures lie.
        options = {**options, "preset": "veryfast", "x264-params": "cpu-independent=1"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for image in frames:
            _check_size(image, shape)
            padded = np.pad(image, pad, mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))
        container.mux(stream.encode())


def _write_gif(path: Path, frames: Iterable[Image], shape: tuple[int, ...], rate: Fraction) -> None:
    """One palette, made of all frames, serves the whole film."""
    graph = Graph()
    source = graph.add_buffer(
        width=shape[1], height=shape[0], format=av.VideoFormat("rgb24"), time_base=1 / rate
    )
    split, palette, use = graph.add("split"), graph.add("palettegen"), graph.add("paletteuse", "dither=bayer")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    for index, image in enumerate(frames):
        _check_size(image, shape)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = index, 1 / rate
        source.push(frame)
    source.push(None)
    with av.open(str(path), "w", format="gif") as container:
        stream = container.add_stream("gif", rate=rate)
        stream.height, stream.width, stream.pix_fmt = shape[0], shape[1], "pal8"
        while (drawn := _pull(sink)) is not None:
            container.mux(stream.encode(drawn))
        container.mux(stream.encode())


def _pull(sink: av.filter.context.FilterContext) -> av.VideoFrame | None:
    try:
        frame = sink.pull()
    except (BlockingIOError, av.error.EOFError):
        return None
    assert isinstance(frame, av.VideoFrame)
    return frame


def _check_size(image: Image, shape: tuple[int, ...]) -> None:
    if image.shape != shape or image.dtype != np.uint8:
        raise ValueError(f"all frames of a video are uint8 {shape}, got {image.dtype} {image.shape}")
