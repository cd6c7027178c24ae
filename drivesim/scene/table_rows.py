"""Rows of the small nuScenes tables and the values in them, checked: what is wrong is said with table and row."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from drivesim.errors import InputError
from drivesim.scene.geometry import FloatArray

Record = dict[str, Any]

ADVICE = "unpack the metadata archive again"
_LARGEST_WHOLE = 10**18 - 1
_LONGEST_NAME, _LONGEST_PATH = 255, 2000  # bytes; file systems allow no more


def read_table(path: Path, *, texts: Sequence[str] = ("token",)) -> list[Record]:
    """Read a table that fits into memory.

    Args:
        path: a JSON file that is a list of records.
        texts: fields that every row must have, as strings.

    Raises:
        InputError: the file cannot be read, is not a list of records, or a row lacks a field.
    """
    try:
        table = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"table {path} cannot be read ({error.strerror}); check the file") from error
    except RecursionError as error:
        raise InputError(f"table {path} is nested too deeply; {ADVICE}") from error
    except ValueError as error:
        raise InputError(f"table {path} is truncated or not JSON ({_brief(error)}); {ADVICE}") from error
    if not isinstance(table, list):
        raise InputError(f"table {path} is not a list of records; {ADVICE}")
    for number, record in enumerate(table, start=1):
        where = row_name(path, number)
        if not isinstance(record, dict):
            raise InputError(f"{where} is not a record; {ADVICE}")
        for name in texts:
            text_of(record, name, where)
    return table


def row_name(path: Path, number: int) -> str:
    """Return how errors name a row; the first is 1."""
    return f"table {path} row {number}"


def text_of(record: Record, name: str, where: str) -> str:
    """Return a string of a row."""
    value = record.get(name)
    if not isinstance(value, str):
        raise _unfit(record, name, where, "text")
    return value


def whole_of(record: Record, name: str, where: str) -> int:
    """Return a whole number of a row, which JSON may write as 1.5e15."""
    value = record.get(name)
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole or abs(value) > _LARGEST_WHOLE:  # type: ignore[arg-type]
        raise _unfit(record, name, where, "a whole number of at most 18 digits")
    return int(value)  # type: ignore[arg-type]


def size_of(record: Record, name: str, where: str) -> int:
    """Return a number of pixels."""
    value = whole_of(record, name, where)
    if not 0 < value < 100_000:
        raise _unfit(record, name, where, "a number of pixels")
    return value


def numbers_of(record: Record, name: str, where: str, shape: tuple[int, ...]) -> FloatArray:
    """Return an array of finite numbers of a row."""
    words = f"{' x '.join(map(str, shape))} finite numbers"
    values = _leaves(record.get(name), shape)
    if values is None or not all(_is_number(value) for value in values):
        raise _unfit(record, name, where, words)
    return np.array([float(value) for value in values], dtype=np.float64).reshape(shape)


def rotation_of(record: Record, name: str, where: str) -> FloatArray:
    """Return a quaternion (w, x, y, z) of a row."""
    quaternion = numbers_of(record, name, where, (4,))
    if not 1e-6 < float(np.linalg.norm(quaternion)) < 1e6:
        raise _unfit(record, name, where, "a quaternion")
    return quaternion


def file_of(record: Record, name: str, where: str) -> str:
    """Return a file name of a row, relative to the data root and inside it."""
    value = text_of(record, name, where)
    path = PurePosixPath(value)
    windows = PureWindowsPath(value)
    is_outside = path.is_absolute() or windows.drive or windows.root or ".." in (*path.parts, *windows.parts)
    if not value or "\0" in value or is_outside:
        raise InputError(f"{where}: {name} {_shown(value)} is not a file inside the data root; {ADVICE}")
    try:
        lengths = [len(part.encode()) for part in path.parts]
    except UnicodeEncodeError as error:
        raise _unfit(record, name, where, "a file name") from error
    if max(lengths, default=0) > _LONGEST_NAME or sum(lengths) > _LONGEST_PATH:
        raise _unfit(record, name, where, "a file name of usual length")
    return value


def _leaves(value: Any, shape: tuple[int, ...]) -> list[Any] | None:
    """Return the numbers of nested lists of a shape in order; None if they have another."""
    if not shape:
        return [value]
    if not isinstance(value, list) or len(value) != shape[0]:
        return None
    parts = [_leaves(item, shape[1:]) for item in value]
    return None if any(part is None for part in parts) else [leaf for part in parts for leaf in part or ()]


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 and math.isfinite(value)


def _unfit(record: Record, name: str, where: str, wanted: str) -> InputError:
    if name not in record:
        return InputError(f"{where} has no {name!r}; {ADVICE}")
    return InputError(f"{where}: {name} must be {wanted}, not {_shown(record[name])}; {ADVICE}")


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) > _LARGEST_WHOLE:  # repr() refuses very long ones
        return "a number of more than 18 digits"
    words = repr(value) if not isinstance(value, list | dict) else f"a {type(value).__name__}"
    return words if len(words) <= 60 else f"{words[:57]}..."


def _brief(error: ValueError) -> str:
    return str(error).split("\n", maxsplit=1)[0][:80]
