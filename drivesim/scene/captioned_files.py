"""Captioned media as plain files: folders with sidecar captions, and folders listed by WebVid's CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from drivesim.errors import InputError
from drivesim.scene.captioned import CaptionedMedia, one_line
from drivesim.scene.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, MediaFile

_CAPTION, _ID, _FOLDER, _PATH = "name", "videoid", "page_dir", "path"  # columns


class FolderSource:
    """All videos and pictures below a folder; the caption of ``a.mp4`` is the text of ``a.txt``, if there is one."""

    def __init__(self, folder: Path) -> None:
        """List the files.

        Raises:
            InputError: there is no folder, or nothing in it.
        """
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}; check the path")
        self._folder = folder
        self._names = sorted(_media_names(folder))
        self.num_missing = 0
        if not self._names:
            kinds = " ".join(VIDEO_SUFFIXES + IMAGE_SUFFIXES)
            raise InputError(f"{folder} holds no videos or pictures ({kinds}); name a folder that does")

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._names)

    def item(self, index: int) -> CaptionedMedia:
        """Return the item at ``index``; its caption is read now."""
        name = self._names[index]
        path = self._folder / name
        return CaptionedMedia(
            key=name, caption=_sidecar_text(path.with_suffix(".txt")), media=MediaFile(path=path)
        )


class WebVidSource:
    """The rows of CSV files whose media are below a folder.

    The columns are ``name``, the caption, and ``videoid`` with ``page_dir`` (the file is then
    ``page_dir/videoid.mp4``) or ``path``, relative to the folder; others are ignored.
    """

    def __init__(self, folder: Path, csv_paths: Sequence[Path]) -> None:
        """Read the rows and see which files are there; ``num_missing`` rows name files that are not.

        Raises:
            InputError: a table cannot be read or lacks columns, or none of its files is there.
        """
        self._folder = folder
        self._rows: list[tuple[str, str]] = []
        self.num_missing = 0
        listing = _Listing(folder)
        first_missing = ""
        for name, caption in (row for path in csv_paths for row in _rows_of(path)):
            if name in listing:
                self._rows.append((name, caption))
            else:
                self.num_missing += 1
                first_missing = first_missing or name
        if not self._rows:
            table = ", ".join(str(path) for path in csv_paths)
            reason = f"the first would be {folder / first_missing}" if first_missing else "it has no rows"
            raise InputError(
                f"none of the files that {table} lists is there ({reason}); check folder and table"
            )

    def __len__(self) -> int:
        """Return the number of rows whose files are there."""
        return len(self._rows)

    def item(self, index: int) -> CaptionedMedia:
        """Return the item at ``index``."""
        name, caption = self._rows[index]
        return CaptionedMedia(key=name, caption=caption, media=MediaFile(path=self._folder / name))


class _Listing:
    """Which files are there, by listing each folder once; asking for ten million one by one takes hours."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, set[str]] = {}

    def __contains__(self, name: str) -> bool:
        parent, _, file = name.rpartition("/")
        if parent not in self._names:
            try:
                self._names[parent] = set(os.listdir(self._folder / parent))
            except OSError:
                self._names[parent] = set()
        return bool(file) and file in self._names[parent]


def _media_names(folder: Path) -> Iterator[str]:
    suffixes = VIDEO_SUFFIXES + IMAGE_SUFFIXES
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(parent).relative_to(folder)
        for name in files:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield (below / name).as_posix()


def _sidecar_text(path: Path) -> str:
    try:
        return one_line(path.read_text(encoding="utf-8-sig", errors="replace"))
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InputError(f"cannot read caption {path} ({error.strerror}); check the file") from error


def _rows_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (file name relative to the folder, caption); bytes that are not UTF-8 become replacement characters."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.DictReader(file, restval="")
            _check_columns(path, rows.fieldnames or [])
            for row in rows:
                yield _name_of(row), one_line(row[_CAPTION])
    except (OSError, csv.Error) as error:
        raise InputError(f"cannot read table {path} ({error}); fetch the file again") from error


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    needed = {_CAPTION} | ({_PATH} if _PATH in columns else {_ID, _FOLDER})
    missing = sorted(needed - set(columns))
    if missing:
        raise InputError(
            f"table {path} lacks the column {', '.join(missing)}; it needs {_CAPTION} and either {_PATH} or {_ID} "
            f"with {_FOLDER}, and has {', '.join(columns) or 'none'}"
        )


def _name_of(row: dict[str, str]) -> str:
    if row.get(_PATH):
        return Path(row[_PATH]).as_posix()
    if not row.get(_ID):
        return ""
    return (Path(row.get(_FOLDER, "")) / f"{row[_ID]}.mp4").as_posix()
