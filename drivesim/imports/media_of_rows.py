"""The pictures or the video that a table belongs to, and when each picture was taken; videos: ``video_of_rows``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.imports.columns import TimedRows
from drivesim.imports.csv_table import CsvTable
from drivesim.imports.foreign_files import natural_key
from drivesim.imports.options import ImportConfig, TimeUnit
from drivesim.imports.picture_files import PictureFiles
from drivesim.imports.remarks import Loss
from drivesim.scene.geometry import FloatArray
from drivesim.scene.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, MediaFile
from drivesim.scene.types import Image

_DIGITS = re.compile(r"\d+(?:\.\d+)?")
MAX_MISSING_SHARE = 0.5
_COUNTER_SLACK = 0.01


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
    if timed is not None and (by_time := _pictures_by_time(table, pictures, timed)) is not None:
        return by_time
    if len(table.rows) != len(pictures):
        if timed is not None:
            raise InputError(
                f"{table.path} has {len(table.rows)} rows, but there are {len(pictures)} pictures without times in "
                "their names; add a column 'file' with the name of each row's picture"
            )
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


def _pictures_by_time(table: CsvTable, pictures: list[Path], timed: TimedRows) -> Matched | None:
    """Match pictures by the times in their names; None where names hold none of the table's clock."""
    times_s = times_in_names([picture.name for picture in pictures], timed.times_s)
    if times_s is None or (len(table.rows) == len(pictures) and _is_counter(times_s, timed.times_s)):
        return None
    order = np.argsort(times_s)  # 1.25 stands behind 1.5 by name
    note = "pictures are matched by the times in their names"
    if len(table.rows) == len(pictures):
        note += ", though there are as many as rows"
    return Matched(
        frames=PictureFiles([pictures[place] for place in order]),
        frame_times_s=times_s[order],
        rows=timed.rows,
        row_times_s=timed.times_s,
        problems=[note],
    )


def _is_counter(times_s: FloatArray, row_times_s: FloatArray) -> bool:
    """Tell whether names count by ones in the unit of time in which rows, as many, do not."""
    if min(len(times_s), len(row_times_s)) < 2:
        return True
    step_s, row_step_s = (float(np.median(np.diff(each))) for each in (np.sort(times_s), row_times_s))
    is_by_ones = any(np.isclose(step_s, unit.seconds, rtol=1e-6) for unit in TimeUnit)
    return is_by_ones and abs(row_step_s / step_s - 1.0) > _COUNTER_SLACK


def _counted(table: CsvTable, config: ImportConfig) -> TimedRows:
    if config.recorded_rate_hz is None:
        raise InputError(
            f"{table.path} has no column of times; name it with --time-column, or say with --recorded-rate how many "
            "rows were recorded per second"
        )
    rows = np.arange(len(table.rows))
    return TimedRows(times_s=rows / config.recorded_rate_hz, rows=rows)


def _named_pictures(table: CsvTable, media: RecordedMedia, timed: TimedRows, files: int) -> Matched:
    """Take each row's own picture; rows whose picture is missing, or that of a row before, keep their readings."""
    by_name = {picture.name: picture for picture in media.pictures}
    names = table.texts(files)
    paths = [_picture(names[row], media.folder, by_name) for row in timed.rows]
    is_there = np.array([path is not None for path in paths])
    problems: list[str] = []
    if not is_there.all():
        first = int(np.argmin(is_there))
        where = f"{table.place(int(timed.rows[first]))}: {names[timed.rows[first]]!r}"
        missing = int((~is_there).sum())
        if missing > MAX_MISSING_SHARE * len(paths):
            raise InputError(
                f"{missing} of {len(paths)} pictures are missing (first: {where}); put them beside the table"
            )
        problems.append(Loss(f"{missing} pictures are missing (first: {where})"))
    shown: dict[Path, int] = {}
    for position, path in enumerate(paths):
        if path is not None:
            shown.setdefault(path, position)
    if len(shown) < is_there.sum():
        count = int(is_there.sum()) - len(shown)
        problems.append(f"{count} rows name a picture again; it is taken to be of the first row that does")
    return Matched(
        frames=PictureFiles(list(shown)),
        frame_times_s=timed.times_s[list(shown.values())],
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
        if any("." in found[position] for found in numbers):
            is_in_order = len(np.unique(raw)) == len(raw)  # sorted as whole numbers, 1.25 stands behind 1.5
        else:
            is_in_order = bool((np.diff(raw) > 0).all())
        if not np.isfinite(raw).all() or not is_in_order:
            continue
        for unit in TimeUnit:
            times_s = raw * unit.seconds
            is_near = (times_s >= near_s[0] - 1.0) & (times_s <= near_s[-1] + 1.0)
            length = np.ptp(times_s) / max(near_s[-1] - near_s[0], 1e-9)
            if is_near.mean() > 0.9 and length > 0.5:
                return times_s
    return None
