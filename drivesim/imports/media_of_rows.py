"""The pictures or the video that a table belongs to, and when each picture was taken on the table's clock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.imports.columns import TimedRows, increasing
from drivesim.imports.csv_table import CsvTable
from drivesim.imports.options import ImportConfig, TimeUnit
from drivesim.imports.picture_files import PictureFiles
from drivesim.imports.video_frames import VideoFrames
from drivesim.scene.geometry import FloatArray
from drivesim.scene.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, MediaFile, frame_times
from drivesim.scene.types import Image

_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_OTHER_CLOCK = 0.02  # of the length, by which video and table of as many rows must differ to be told apart
MAX_MISSING_SHARE = 0.5


@dataclass(kw_only=True, slots=True)
class RecordedMedia:
    """What lies beside a table: a video, or pictures in the order of their names."""

    video: MediaFile | None
    pictures: list[Path]
    folder: Path  # of the table


@dataclass(kw_only=True, slots=True)
class Matched:
    """Pictures with times, and the rows of the table with times on the same clock."""

    frames: Sequence[Image]
    frame_times_s: FloatArray  # (N,)
    rows: NDArray[np.int64]  # (R,) rows of the table
    row_times_s: FloatArray  # (R,)
    problems: list[str] = field(default_factory=list)


def recorded_media(table: Path, *, is_alone: bool) -> RecordedMedia:
    """Find what belongs to a table: what has its name, else the only video, else the pictures beside or below it.

    Raises:
        InputError: there is nothing, or more than one thing.
    """
    folder = table.parent
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    videos = [entry for entry in entries if entry.suffix.lower() in VIDEO_SUFFIXES and entry.is_file()]
    named = [entry for entry in videos if entry.stem == table.stem]
    if named or (len(videos) == 1 and is_alone):
        return RecordedMedia(video=MediaFile(path=(named or videos)[0]), pictures=[], folder=folder)
    folders = [entry for entry in entries if entry.is_dir() and (is_alone or entry.name == table.stem)]
    found = [pictures for pictures in map(pictures_in, [folder, *folders]) if pictures]
    if len(found) == 1:
        return RecordedMedia(video=None, pictures=found[0], folder=folder)
    what = (
        "neither a video nor pictures"
        if not found and not videos
        else "several videos or folders of pictures"
    )
    raise InputError(
        f"{what} beside {table}; put one video named {table.stem}.mp4 or one folder of pictures there"
    )


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder, numbers in their names in the order of numbers."""
    try:
        entries = list(folder.iterdir())
    except OSError:  # a folder that may not be opened holds nothing for us
        return []
    pictures = [e for e in entries if e.suffix.lower() in IMAGE_SUFFIXES and not e.name.startswith(".")]
    return sorted(pictures, key=lambda entry: natural_key(entry.name))


def natural_key(name: str) -> list[tuple[int, float, str]]:
    """Return what sorts ``img10`` behind ``img9``."""
    parts = re.split(r"(\d+)", name)
    return [
        (0, float(part[:300]), "") if part.isdigit() and part.isascii() else (1, 0.0, part) for part in parts
    ]


# ----------------------------------------------------------------------------------------------- pictures


def match_pictures(
    table: CsvTable, media: RecordedMedia, timed: TimedRows | None, files: int | None, config: ImportConfig
) -> Matched:
    """Say when each picture of a folder was taken.

    Raises:
        InputError: there are no times, or rows and pictures cannot be matched.
    """
    if files is not None:
        return _named_pictures(table, media, timed or _counted(table, config), files)
    pictures = media.pictures
    if timed is not None and len(table.rows) != len(pictures):
        times_s = times_in_names([picture.name for picture in pictures], timed.times_s)
        if times_s is None:
            raise InputError(
                f"{table.path} has {len(table.rows)} rows, but there are {len(pictures)} pictures without times in "
                "their names; add a column 'file' with the name of each row's picture"
            )
        return Matched(
            frames=PictureFiles(pictures),
            frame_times_s=times_s,
            rows=timed.rows,
            row_times_s=timed.times_s,
            problems=["pictures are matched by the times in their names"],
        )
    if len(table.rows) != len(pictures):
        raise InputError(
            f"{table.path} has {len(table.rows)} rows without times, but there are {len(pictures)} pictures"
        )
    timed = timed or _counted(table, config)
    return Matched(
        frames=PictureFiles([pictures[row] for row in timed.rows]),
        frame_times_s=timed.times_s,
        rows=timed.rows,
        row_times_s=timed.times_s,
        problems=["pictures are matched row by row, in the order of their names"],
    )


def _counted(table: CsvTable, config: ImportConfig) -> TimedRows:
    if config.recorded_rate_hz is None:
        raise InputError(
            f"{table.path} has no column of times; name it with --time-column, or say with --recorded-rate how many "
            "rows were recorded per second"
        )
    rows = np.arange(len(table.rows))
    return TimedRows(times_s=rows / config.recorded_rate_hz, rows=rows)


def _named_pictures(table: CsvTable, media: RecordedMedia, timed: TimedRows, files: int) -> Matched:
    """Take each row's own picture; rows whose picture is missing keep their readings."""
    by_name = {picture.name: picture for picture in media.pictures}
    names = table.texts(files)
    paths = [_picture(names[row], media.folder, by_name) for row in timed.rows]
    is_there = np.array([path is not None for path in paths])
    problems = []
    if not is_there.all():
        first = int(np.argmin(is_there))
        where = f"{table.place(int(timed.rows[first]))}: {names[timed.rows[first]]!r}"
        missing = int((~is_there).sum())
        if missing > MAX_MISSING_SHARE * len(paths):
            raise InputError(
                f"{missing} of {len(paths)} pictures are missing (first: {where}); put them beside the table"
            )
        problems.append(f"{missing} pictures are missing (first: {where})")
    return Matched(
        frames=PictureFiles([path for path in paths if path is not None]),
        frame_times_s=timed.times_s[is_there],
        rows=timed.rows,
        row_times_s=timed.times_s,
        problems=problems,
    )


def _picture(name: str, folder: Path, by_name: dict[str, Path]) -> Path | None:
    """Find a picture by the path in a table, which may be of another machine."""
    if not name or "\0" in name:
        return None
    base = PureWindowsPath(name).name if "\\" in name else Path(name).name
    if base in by_name:
        return by_name[base]
    inside = folder / name
    try:
        is_inside = inside.resolve().is_relative_to(folder.resolve())
        return inside if is_inside and inside.is_file() else None
    except (OSError, RuntimeError):  # too long a name, or links that end in themselves
        return None


def times_in_names(names: list[str], near_s: FloatArray) -> FloatArray | None:
    """Return the times that names hold, if one of their numbers is one in some unit and falls among other times.

    Args:
        names: of files.
        near_s: times of the table.
    """
    numbers = [_DIGITS.findall(Path(name).stem) for name in names]
    if not names or not all(numbers):
        return None
    for position in (-1, 0):
        raw = np.array([float(found[position][:300]) for found in numbers])
        if not np.isfinite(raw).all() or not (np.diff(raw) > 0).all():
            continue
        for unit in TimeUnit:
            times_s = raw * unit.seconds
            is_near = (times_s >= near_s[0] - 1.0) & (times_s <= near_s[-1] + 1.0)
            length = (times_s[-1] - times_s[0]) / max(near_s[-1] - near_s[0], 1e-9)
            if is_near.mean() > 0.9 and length > 0.5:
                return times_s
    return None


# -------------------------------------------------------------------------------------------------- video


def match_video(
    table: CsvTable, video: MediaFile, timed: TimedRows | None, frames: int | None, config: ImportConfig
) -> Matched:
    """Say when each frame of a video was taken.

    Raises:
        InputError: the video cannot be read, or rows and frames cannot be matched.
    """
    shown_s = np.array(frame_times(video))
    if timed is None and frames is None and len(table.rows) != len(shown_s):
        raise InputError(
            f"{table.path} has {len(table.rows)} rows without times, but {video.path.name} has {len(shown_s)} frames; "
            "name the column of times with --time-column"
        )
    if frames is not None and timed is None:
        return _numbered_frames(table, video, shown_s, frames)
    if timed is None:
        timed = TimedRows(times_s=shown_s, rows=np.arange(len(shown_s)))
    return _frames_by_time(table, video, shown_s, timed, config)


def _numbered_frames(table: CsvTable, video: MediaFile, shown_s: FloatArray, column: int) -> Matched:
    numbers = table.numbers(column)
    is_frame = np.isfinite(numbers) & (numbers >= 0) & (numbers < len(shown_s))
    at_s = np.where(is_frame, shown_s[np.where(is_frame, numbers, 0).astype(np.int64)], np.nan)
    if not is_frame.any():
        raise InputError(
            f"{table.place(0)}: {table.rows[0][column]!r} is no frame of {video.path.name}, nor is any below"
        )
    timed = increasing(table, at_s)
    return Matched(
        frames=VideoFrames(video, shown_s),
        frame_times_s=shown_s,
        rows=timed.rows,
        row_times_s=timed.times_s,
        problems=timed.problems,
    )


def _frames_by_time(
    table: CsvTable, video: MediaFile, shown_s: FloatArray, timed: TimedRows, config: ImportConfig
) -> Matched:
    times_s, row_times_s, problems = shown_s, timed.times_s, []
    length_s, told_s = float(np.ptp(shown_s)), float(np.ptp(timed.times_s))
    is_row_by_row = len(timed.rows) == len(shown_s) and len(shown_s) > 1
    if is_row_by_row and abs(length_s - told_s) > _OTHER_CLOCK * max(length_s, told_s):
        times_s = timed.times_s
        problems.append(
            f"the video runs {length_s:.1f} s, its {len(shown_s)} rows {told_s:.1f} s; the times of the rows are used"
        )
    elif config.time_offset_s == 0.0 and not _overlaps(shown_s, row_times_s):
        row_times_s = row_times_s - timed.times_s[0] + shown_s[0]
        problems.append(
            "the table has a clock of its own; its first row is put at the first frame (--time-offset)"
        )
    return Matched(
        frames=VideoFrames(video, shown_s),
        frame_times_s=times_s,
        rows=timed.rows,
        row_times_s=row_times_s,
        problems=problems,
    )


def _overlaps(shown_s: FloatArray, row_times_s: FloatArray) -> bool:
    return bool(row_times_s[0] < shown_s[-1] and row_times_s[-1] > shown_s[0])
