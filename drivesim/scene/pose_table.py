"""Rows of ``ego_pose.json`` by their tokens, without passing over the table where that can be helped.

nuScenes has one pose for every row of ``sample_data.json``, in the same order. So the pose of a row lies about as far
into its table as the row in its own, and a few kilobytes around there are read. Where a scene's poses do not lie
together the whole table is passed over, once; what was learned of a large one is kept in the cache folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from drivesim.errors import InputError
from drivesim.scene.index_store import IndexStore, table_stats
from drivesim.scene.pose_rows import Poses, scan_poses
from drivesim.scene.table_records import changed_table, read_records, unreadable_table
from drivesim.scene.table_rows import Record, row_name
from drivesim.scene.token_keys import find_keys, token_keys

INDEX_VERSION = 1
SEARCHED_FROM_BYTES = 1 << 24  # of smaller tables all rows are known sooner than one is found
MOST_SEARCHED_BYTES = 1 << 27  # for one scene; more take longer than a pass over the table
_REACHES = (1 << 13, 1 << 18, 1 << 22)  # bytes to either side of where a row should be
_STRIDE = 1 << 25
_LONGEST_ROW = 1 << 12  # bytes
_ARRAYS = ("keys", "rows", "offsets", "lengths")
_DECODER = json.JSONDecoder()
_MOST_BETWEEN = 64  # bytes between two rows; with more a table is passed over


class PoseTable:
    """The poses of a data set."""

    def __init__(self, folder: Path, *, num_rows: int, cache: Path | None = None) -> None:
        """Pass over the table if it is small or its ends are wrong, so that what is wrong is said at once.

        Args:
            folder: with the tables.
            num_rows: of ``sample_data.json``.
            cache: folder for what is learned of a large table; None is the user's.

        Raises:
            InputError: the table is missing, or was passed over and is not JSON.
        """
        self.path = folder / "ego_pose.json"
        self.note = ""  # why what was learned could not be kept
        self._num_rows, self._cache = max(num_rows, 1), cache
        self._error: InputError | None = None
        size = table_stats(folder, ("ego_pose",))["ego_pose"][0]
        is_searched = size >= SEARCHED_FROM_BYTES and self._has_ends(size)
        self._poses = None if is_searched else scan_poses(self.path)

    def read(self, tokens: Sequence[str], rows: Sequence[int]) -> list[tuple[str, Record] | None]:
        """Return poses and how errors name them; None for each that is not there.

        Of several rows with one token a table that was passed over gives the last, else one near the picture's row is
        taken.

        Args:
            tokens: of the poses.
            rows: of ``sample_data.json`` that name them, 0 for the first.

        Raises:
            InputError: the table cannot be read, or has changed meanwhile.
        """
        if self._poses is None and (found := self._near(tokens, rows)) is not None:
            return list(found)
        return self._indexed(self.index(), tokens)

    def index(self) -> Poses:
        """Return where all rows are; the first time the table is passed over unless the cache knows them.

        Raises:
            InputError: the table is not JSON.
        """
        if self._error is not None:
            raise self._error
        if self._poses is None:
            try:
                self._poses = self._learned()
            except InputError as error:
                self._error = error  # a pass takes long, and every scene needs it
                raise
        return self._poses

    # ----------------------------------------------------------------------------------------- by the index

    def _indexed(self, poses: Poses, tokens: Sequence[str]) -> list[tuple[str, Record] | None]:
        places = find_keys(
            token_keys([token.encode("utf-8", "surrogatepass") for token in tokens]), poses.keys
        )
        held = places[places >= 0]
        records = iter(read_records(self.path, poses.offsets[held], poses.lengths[held]))
        found: list[tuple[str, Record] | None] = []
        for token, place in zip(tokens, places.tolist(), strict=True):
            if place < 0:
                found.append(None)
                continue
            record = next(records)
            if record.get("token") != token:
                raise changed_table(self.path)
            found.append((row_name(self.path, int(poses.rows[place]) + 1), record))
        return found

    def _learned(self) -> Poses:
        """Return where all rows of a large table are, from the cache if possible."""
        store = IndexStore(self.path.parent, self._cache, ("ego_pose",), kind="poses", version=INDEX_VERSION)
        arrays = store.load()
        if arrays is not None and set(arrays) == set(_ARRAYS):
            return Poses(**arrays, sha256="")
        poses = scan_poses(self.path)
        self.note = store.save({name: getattr(poses, name) for name in _ARRAYS}, {"ego_pose": poses.sha256})
        return poses

    # ------------------------------------------------------------------------------------ where they should be

    def _has_ends(self, size: int) -> bool:
        """Tell whether the table begins and ends as a list of records does."""
        try:
            with self.path.open("rb") as file:
                first = file.read(_LONGEST_ROW)
                file.seek(max(size - _LONGEST_ROW, 0))
                last = b"".join(file.read().split())
        except OSError as error:
            raise unreadable_table(self.path, error) from error
        return first.startswith(b"[") and last.endswith(b"}]")

    def _near(self, tokens: Sequence[str], rows: Sequence[int]) -> list[tuple[str, Record]] | None:
        """Return the poses from around where they should be; None if one of them is not there."""
        found: list[tuple[str, Record]] = []
        try:
            with self.path.open("rb") as file:
                size = self.path.stat().st_size
                fields = _fields(file)
                mean_bytes = size / self._num_rows
                begin, begin_row, budget = 0, 0, MOST_SEARCHED_BYTES
                for token, row in zip(tokens, rows, strict=True):
                    expected = min(max(begin + round((row - begin_row) * mean_bytes), 0), size)
                    for window, num_bytes in _around(expected) if found else _everywhere(expected, size):
                        budget -= num_bytes if found else 0
                        there = _row_in(file, token, window, num_bytes, fields)
                        if there is not None or budget < 0:
                            break
                    if there is None or budget < 0:
                        return None
                    begin, begin_row = there[0], row
                    found.append((f"table {self.path} row {token!r}", there[1]))
        except OSError as error:
            raise unreadable_table(self.path, error) from error
        return found


def _around(expected: int) -> Iterator[tuple[int, int]]:
    """Yield where to begin and how many bytes to read, around where a row should be."""
    for reach in _REACHES:
        begin = max(expected - reach, 0)
        yield begin, expected + reach - begin


def _everywhere(expected: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the same for a scene's first row, of which less is known, at last for the whole table."""
    begin = max(expected - _REACHES[-1], 0)
    yield begin, expected + _REACHES[-1] - begin
    for begin in range(0, size, _STRIDE):
        yield begin, _STRIDE + 2 * _LONGEST_ROW


def _fields(file: BinaryIO) -> frozenset[str]:
    """Return the names of the fields of the first row; none if there are records in it."""
    file.seek(0)
    start = file.read(_LONGEST_ROW).find(b"{")
    record = None if start < 0 else _record_at(file, start)
    return frozenset() if record is None or _has_records(record) else frozenset(record)


def _has_records(record: Record) -> bool:
    return any("{" in json.dumps(value) for value in record.values())


def _row_in(
    file: BinaryIO, token: str, begin: int, num_bytes: int, fields: frozenset[str]
) -> tuple[int, Record] | None:
    """Return where the row with a token begins, and the row; None if it is not there, or not plain to see."""
    wanted = json.dumps(token).encode()
    file.seek(begin)
    window = file.read(num_bytes)
    place = window.find(wanted)
    start = window.rfind(b"{", 0, max(place, 0))
    if start < 0 or window.find(wanted, place + 1) >= 0:
        return None
    before = b"".join(window[max(start - _MOST_BETWEEN, 0) : start].split())
    if not (before.endswith(b"},") or (before == b"[" and begin + start < _MOST_BETWEEN)):
        return None  # inside another record
    record = _record_at(file, begin + start)
    is_row = record is not None and record.get("token") == token and fields == set(record)
    return (begin + start, record) if is_row and record is not None else None


def _record_at(file: BinaryIO, begin: int) -> Record | None:
    file.seek(begin)
    text = file.read(_LONGEST_ROW).decode(errors="replace")
    try:
        record: Any = _DECODER.raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
