"""What generating reads and writes: videos, scenes, masks and actions; clips, sheets and a record of how.

Everything is read at the size and rate of the weights. Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from drivesim.dynamics import checked_actions
from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.generate import Generated
from drivesim.scene.geometry import FloatArray
from drivesim.scene.media import IMAGE_SUFFIXES, MediaFile, frames_at, read_span
from drivesim.scene.nuscenes import embedded_dataset
from drivesim.video import contact_sheet, read_image, write_image, write_video
from drivesim.world_model.drives import DriveStart, scene_start
from drivesim.world_model.long_clips import Clip

SUFFIXES = (".mp4", ".gif", ".png")
MAX_FRAMES = 512  # of a clip that is read or made
MAX_NAME_BYTES = 200  # of 255 that file systems allow: numbers and endings are added
SHEET_COLUMNS = 16  # most frames of a clip in a contact sheet
ACTION_COLUMNS = ("steering_rad", "speed_mps")
# GIF rounds times to hundredths of a second. The slack that ``frames_at`` has for all is a millisecond: at 100 Hz a
# hundredth is the next frame.
_GIF_SLACK_S = 0.01
_RECTANGLE = re.compile(r"[-+.\d\s]+(,[-+.\d\s]+)+")


# ------------------------------------------------------------------------------------------------ inputs


def read_clip(path: Path, size: tuple[int, int], *, rate_hz: float, num_frames: int | None = None) -> Clip:
    """Read the frames (T, H, W, 3) that a player shows every ``1 / rate_hz`` seconds from a video's start on.

    Args:
        path: the video, of any rate, steady or not.
        size: height and width; the frames are scaled to cover it and centre-cropped.
        rate_hz: of the clip.
        num_frames: T; all there are if left out.

    Raises:
        InputError: it is no video, or one without frames, or too short for ``num_frames``, or too long.
    """
    media = MediaFile(path=path)
    span = read_span(media)
    has = max(1, round(span.length_s * rate_hz))
    if num_frames is not None and num_frames > has:
        raise InputError(
            f"{num_frames} frames are asked of {path}, which has {has} at {rate_hz:g} Hz; ask for fewer"
        )
    if (num_frames or has) > MAX_FRAMES:
        raise InputError(
            f"{path} has {has} frames at {rate_hz:g} Hz, at most {MAX_FRAMES} are read; ask for fewer"
        )
    start_s = span.start_s + (_GIF_SLACK_S if path.suffix.lower() == ".gif" else 0.0)
    return frames_at(media, [start_s + index / rate_hz for index in range(num_frames or has)], size)


def read_scene(name: str, size: tuple[int, int], *, rate_hz: float, num_frames: int) -> DriveStart:
    """Return the beginning of an embedded scene, as far as ``num_frames`` frames.

    Raises:
        InputError: there is no such scene.
    """
    scene = embedded_dataset().load(name, rate_hz=rate_hz, width_px=size[1], height_px=size[0])
    return scene_start(scene, num_frames)


def read_mask(text: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read what is to be drawn anew: (H, W), or (T, H, W) from a folder.

    Args:
        text: a picture in which white is drawn anew; a folder with one for each frame, in the order of their names; or
            a rectangle ``x,y,width,height`` in pixels of the weights' frame, from its upper left corner. Pictures of
            other sizes are scaled and cropped as the clip is.
        shape: T, H, W of the clip.

    Raises:
        InputError: it is none of these, a rectangle that leaves the frame, or a folder of another number of pictures.
    """
    num_frames, *size = shape
    if _RECTANGLE.fullmatch(text):
        return _rectangle(text, size)
    path = Path(text)
    if not path.is_dir():
        return _read_mask_picture(path, size)
    pictures = sorted(
        (file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=_by_number
    )
    if len(pictures) != num_frames:
        raise InputError(
            f"mask folder {path} holds {len(pictures)} pictures for {num_frames} frames; give one for each"
        )
    return np.stack([_read_mask_picture(picture, size) for picture in pictures])


def _rectangle(text: str, size: Sequence[int]) -> NDArray[np.bool_]:
    try:
        x, y, width, height = (int(number) for number in text.split(","))
    except ValueError as error:
        raise InputError(f"mask {text!r} is no rectangle x,y,width,height in whole pixels") from error
    if x < 0 or y < 0 or width < 1 or height < 1 or x + width > size[1] or y + height > size[0]:
        raise InputError(
            f"mask rectangle {text} (x,y,width,height) does not lie inside the weights' frame of {size[1]}x{size[0]} "
            "pixels; move it"
        )
    mask = np.zeros(size, dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def _read_mask_picture(path: Path, size: Sequence[int]) -> NDArray[np.bool_]:
    """Return (H, W) by the nearest pixels of the picture as ``cover`` lays it over the frame."""
    is_white = read_image(path, backdrop=0).mean(-1) >= 128
    scale = max(size[axis] / is_white.shape[axis] for axis in range(2))
    rows, columns = (
        np.floor((np.arange(size[axis]) + 0.5 - size[axis] / 2) / scale + is_white.shape[axis] / 2).astype(
            int
        )
        for axis in range(2)
    )
    last = is_white.shape[0] - 1, is_white.shape[1] - 1
    return np.asarray(is_white[np.ix_(rows.clip(0, last[0]), columns.clip(0, last[1]))])


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Order names as one counts: frame-2 before frame-10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)]


def read_actions(path: Path) -> FloatArray:
    """Read a CSV file with the columns ``steering_rad`` and ``speed_mps``, (N, 2): one row per frame to come.

    Raises:
        InputError: it is missing, lacks a column or a row, or a row is no pair of numbers a car can follow.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_action_rows(csv.DictReader(file), path))
    except OSError as error:
        raise InputError(f"cannot read actions {path} ({error.strerror}); check the path") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"cannot read actions {path} ({error}); save it as CSV in UTF-8") from error
    if not rows:
        raise InputError(f"actions {path} hold no row; write one per frame to come")
    return checked_actions(rows)


def _action_rows(reader: csv.DictReader[str], path: Path) -> Iterator[list[float]]:
    missing = [name for name in ACTION_COLUMNS if name not in (reader.fieldnames or [])]
    if missing:
        raise InputError(
            f"actions {path} lack the column {missing[0]}; name the columns {','.join(ACTION_COLUMNS)}"
        )
    for number, row in enumerate(reader):
        try:
            yield [float(row[name] or "") for name in ACTION_COLUMNS]
        except ValueError as error:
            values = [row[name] for name in ACTION_COLUMNS]
            raise InputError(f"row {number} of actions {path} is {values}; write two numbers") from error


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file, or of the files in a folder by their names."""
    files = sorted(path.iterdir(), key=_by_number) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            with file.open("rb") as opened:
                hashlib.file_digest(opened, lambda: digest)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------ outputs


def check_out(out: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed; nothing is made.

    Raises:
        InputError: another suffix, a folder, or a place that cannot be written to.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise InputError(f"cannot write {out}: name a file that ends in {', '.join(SUFFIXES)}")
    try:
        num_bytes = len(out.name.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"cannot write {str(out)!r}: its name is no text; choose another") from error
    if num_bytes > MAX_NAME_BYTES:
        raise InputError(
            f"cannot write {out}: its name has {num_bytes} bytes, more than {MAX_NAME_BYTES}; shorten it"
        )
    if out.is_dir():
        raise InputError(f"cannot write {out}: it is a folder; name a file")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise InputError(f"cannot write {out}: {folder} is no folder; name another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {out}: {folder} cannot be written to; name another place")


def check_inputs_stay(out: Path, flags: Mapping[str, Any]) -> None:
    """Refuse to write over what a command reads.

    Raises:
        InputError: ``out`` is the file of another flag.
    """
    for name in ("image", "video", "mask", "actions"):
        given = flags.get(name)
        if given is not None and out.exists() and Path(given).exists() and out.samefile(given):
            raise InputError(f"--out {out} is the file of --{name}, which would be lost; name another")


def write_generated(result: Generated, out: Path, record: dict[str, Any]) -> list[Path]:
    """Write what was made, and beside it ``<out>.json``; all of it appears at once, when it is complete.

    Args:
        result: the samples.
        out: ``.mp4`` or ``.gif``: several samples go into files numbered from 1. ``.png``: a picture of one frame, or a
            sheet with a row for each sample, of sixteen of its frames at most.
        record: how it was made; the files and their size are added.

    Returns:
        the files, the record last.

    Raises:
        OSError: the disk is full, or the place cannot be written to after all; nothing is left behind.
    """
    targets = _targets(result, out)
    shape = dict(zip(("samples", "frames", "height_px", "width_px"), result.frames.shape, strict=False))
    content = record | {"files": [path.name for path in targets]} | shape | {"rate_hz": result.rate_hz}
    text = json.dumps(content, indent=1) + "\n"
    record_path = out.with_name(f"{out.name}.json")
    try:
        with ExitStack() as stack:
            stack.enter_context(atomic_path(record_path)).write_text(text, encoding="utf-8")
            for path, write in targets.items():
                write(stack.enter_context(atomic_path(path)))
    except OSError as error:  # names a file of which the user knows nothing
        raise OSError(error.errno, error.strerror or str(error), str(out)) from error
    return [*targets, record_path]


def _targets(result: Generated, out: Path) -> dict[Path, Callable[[Path], None]]:
    """Return what writes each file, by its name."""
    if out.suffix.lower() == ".png":
        return {out: lambda path: write_image(path, sheet_of(result.frames))}

    def writer(clip: Clip) -> Callable[[Path], None]:
        return lambda path: write_video(path, clip, result.rate_hz)

    names = [out] if len(result.frames) == 1 else numbered(out, len(result.frames))
    return {name: writer(clip) for name, clip in zip(names, result.frames, strict=True)}


def numbered(out: Path, count: int) -> Sequence[Path]:
    """Return ``clip-1.mp4``, ``clip-2.mp4`` and so on for ``clip.mp4``."""
    digits = len(str(count))
    return [out.with_name(f"{out.stem}-{number:0{digits}}{out.suffix}") for number in range(1, count + 1)]


def sheet_of(frames_NTHWC: Clip) -> Clip:
    """Return one picture of clips: a row for each, evenly spaced frames where there are too many."""
    num_frames = frames_NTHWC.shape[1]
    shown = np.linspace(0, num_frames - 1, min(num_frames, SHEET_COLUMNS)).round().astype(int)
    rows = frames_NTHWC[:, shown]
    return contact_sheet(rearrange(rows, "n t h w c -> (n t) h w c"), len(shown))
