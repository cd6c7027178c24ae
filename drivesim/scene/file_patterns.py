"""Files named by a path, a folder, a glob or a brace pattern such as ``shard-{000..099}.tar``."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drivesim.errors import InputError

_CHOICE = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(kw_only=True, slots=True)
class FoundFiles:
    """The files that are there, in order, and how many of those named are not."""

    paths: list[Path]
    num_missing: int


def find_files(pattern: str, suffix: str) -> FoundFiles:
    """Find the files that a pattern names; in a folder, those directly in it that end in ``suffix``.

    Raises:
        InputError: there are none.
    """
    path = Path(pattern)
    if path.is_dir():
        paths = sorted(file for file in path.glob(f"*{suffix}") if file.is_file() and file.name[0] != ".")
        if not paths:
            raise InputError(f"{path} holds no {suffix} file; name a folder that does")
        return FoundFiles(paths=paths, num_missing=0)
    named = [pattern] if path.exists() else list(expand_braces(pattern))
    found = [_matches(name) for name in named]
    paths = [path for matches in found for path in matches]
    if not paths:
        raise InputError(f"there is no file {named[0]}; check the path")
    return FoundFiles(paths=paths, num_missing=sum(not matches for matches in found))


def expand_braces(pattern: str) -> Iterator[str]:
    """Yield what the shell makes of ``{a,b}`` and ``{000..010}``; leading zeros are kept."""
    match = _CHOICE.search(pattern)
    if match is None:
        yield pattern
        return
    for choice in _choices(match[1]):
        yield from expand_braces(pattern[: match.start()] + choice + pattern[match.end() :])


def _choices(body: str) -> list[str]:
    ends = _RANGE.fullmatch(body)
    if ends is None:
        return body.split(",")
    first, last = int(ends[1]), int(ends[2])
    step = 1 if first <= last else -1
    return [f"{number:0{len(ends[1])}d}" for number in range(first, last + step, step)]


def _matches(name: str) -> list[Path]:
    if Path(name).is_file():
        return [Path(name)]
    return [Path(path) for path in sorted(glob.glob(name, recursive=True)) if Path(path).is_file()]
