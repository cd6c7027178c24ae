"""Files that others wrote, read with care: sizes are looked at first, numbers are checked, links are not followed."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from drivesim.errors import InputError

MAX_TEXT_BYTES = 64 << 20
MAX_LINE_BYTES = 1 << 20


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return what sorts names as people count: ``record_9`` before ``record_10``."""
    return [
        (int(part), "") if part.isdecimal() and len(part) < 300 else (-1, part)
        for part in re.split(r"(\d+)", name)
    ]


def folders_where(root: Path, is_wanted: Callable[[Sequence[str], Sequence[str]], bool]) -> list[Path]:
    """Return the folders in a tree, its root included, of which the names of folders and of files please.

    Nothing below a wanted folder is looked at. Links to folders are not followed, but for the root itself.

    Raises:
        InputError: the root is no folder that can be listed.
    """
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {state}; name the folder of the recording")
    if not os.access(root, os.R_OK | os.X_OK):
        raise InputError(f"cannot list {root}; check its permissions")
    found = []
    for folder, folders, files in os.walk(root):
        if is_wanted(folders, files):
            found.append(Path(folder))
            folders.clear()
        folders.sort(key=natural_key)
    return found


def log_name(root: Path, folder: Path) -> str:
    """Return a recording's name: the folders that lead to it from the one that was asked for, without slashes."""
    parts = folder.relative_to(root).parts or (root.resolve().name or "recording",)
    return "--".join(parts)


def read_bytes(path: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Read a whole file.

    Raises:
        InputError: it is missing, cannot be read, or larger than such files are.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check the path") from error
    if len(data) > max_bytes:
        raise InputError(
            f"{path} is larger than {max_bytes >> 20} MB, which no file of this kind is; fetch it again"
        )
    return data


def read_text(path: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a text of UTF-8, with or without byte order mark, or of Latin-1."""
    data = read_bytes(path, max_bytes=max_bytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Yield the number, from 1 on, and the bytes of each line that is not blank; None for one longer than 1 MB.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            number, is_rest = 0, False
            while line := file.readline(MAX_LINE_BYTES):
                is_whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
                if not is_rest:
                    number += 1
                    if line.strip():
                        yield number, line if is_whole else None
                is_rest = not is_whole
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check the path") from error


def parse_json(data: bytes | str) -> Any:
    """Parse JSON, whatever it is.

    Raises:
        ValueError: it is none, nested too deep, or holds an integer of thousands of digits.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_json(path: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file is missing, too large, or no JSON object.
    """
    data = read_bytes(path, max_bytes=max_bytes)
    try:
        value = parse_json(data)
    except ValueError as error:
        raise InputError(f"{path} is truncated or not JSON ({short(error)}); fetch it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object; fetch it again")
    return value


def number(value: object) -> float | None:
    """Return a number, or the number that a text is; None if it is neither or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        parsed = float(value)
    except (ValueError, OverflowError):
        return None
    return parsed if math.isfinite(parsed) else None


def whole_number(value: object, *, most: int = 1 << 53) -> int | None:
    """Return a count or an index; None if it is none."""
    parsed = number(value)
    return int(parsed) if parsed is not None and parsed.is_integer() and 0 <= parsed <= most else None


def path_inside(folder: Path, name: object) -> Path | None:
    """Return the path of a file that another file names; None if it is no name or would lead out of the folder."""
    if not isinstance(name, str) or not name or len(name) > 1000 or "\0" in name:
        return None
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(name)
        if path.anchor or ".." in path.parts:
            return None
    return folder / name


def has_bytes(path: Path) -> bool:
    """Tell whether there is a file that is not empty."""
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def short(value: object, *, length: int = 100) -> str:
    """Return what a message may quote of something, however long it is."""
    text = str(value)
    return text if len(text) <= length else f"{text[:length]}..."
