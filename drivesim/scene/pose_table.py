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

from drivesim.scene.index_store import IndexStore, table_stats
from drivesim.scene.pose_rows import Poses, scan_poses
from drivesim.scene.table_records import changed_table, read_records, unreadable_table
from drivesim.scene.table_rows import Record, row_name
from drivesim.scene.token_keys import find_keys, token_keys

INDEX_VERSION = 1
SEARCHED_FROM_BYTES = 1 << 24  # of smaller tables all rows are known sooner than one is found
_REACHES = (1 << 13, 1 << 18, 1 << 22, 1 << 25)  # bytes to either side of where a row should be
_LONGEST_ROW = 1 << 12  # bytes
_ARRAYS = ("keys", "order", "offsets", "lengths")
_DECODER = json.JSONDecoder()


class PoseTable:
    """The poses of a data set."""

    def __init__(self, folder: Path, *, num_rows: int, cache: Path | None = None) -> None:
        """Pass over the table if it is small, so that what is wrong with it is said at once.

        Args:
            folder: with the tables.
            num_rows: of ``sample_data.json``.
            cache: folder for what is learned of a large table; None is the user's.

        Raises:
            InputError: the table is missing, or is small and not JSON.
        """
        self.path = folder / "ego_pose.json"
        self._num_rows, self._cache = max(num_rows, 1), cache
        self._poses = None if self._is_large() else scan_poses(self.path)

    def read(self, tokens: Sequence[str], rows: Sequence[int]) -> list[tuple[str, Record] | None]:
        """Return poses and how errors name them; None for each that is not there.

        Of several rows with one token a small table gives the last and a large one the nearest.

        Args:
            tokens: of the poses.
            rows: of ``sample_data.json`` that name them, 0 for the first.

        Raises:
            InputError: the table cannot be read, or has changed meanwhile.
        """
        if self._poses is None:
            found = self._near(tokens, rows)
            if found is not None:
                return list(found)
            self._poses = self._index()
        return self._indexed(self._poses, tokens)

    # ----------------------------------------------------------------------------------------- by the index

    def _indexed(self, poses: Poses, tokens: Sequence[str]) -> list[tuple[str, Record] | None]:
        keys = token_keys([token.encode("utf-8", "surrogatepass") for token in tokens])
        places = find_keys(keys, poses.keys, poses.order)
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
            found.append((row_name(self.path, place + 1), record))
        return found

    def _index(self) -> Poses:
        """Return where all rows of a large table are, from the cache if possible."""
        store = IndexStore(self.path.parent, self._cache, ("ego_pose",), kind="poses", version=INDEX_VERSION)
        arrays = store.load()
        if arrays is not None and set(arrays) == set(_ARRAYS):
            return Poses(**arrays, sha256="")
        poses = scan_poses(self.path)
        store.save({name: getattr(poses, name) for name in _ARRAYS}, {"ego_pose": poses.sha256})
        return poses

    def _is_large(self) -> bool:
        return table_stats(self.path.parent, ("ego_pose",))["ego_pose"][0] >= SEARCHED_FROM_BYTES

    # ------------------------------------------------------------------------------------ where they should be

    def _near(self, tokens: Sequence[str], rows: Sequence[int]) -> list[tuple[str, Record]] | None:
        """Return the poses from around where they should be; None if one of them is not there."""
        found: list[tuple[str, Record]] = []
        try:
            with self.path.open("rb") as file:
                size = self.path.stat().st_size
                mean_bytes = size / self._num_rows
                begin, begin_row = 0, 0
                for token, row in zip(tokens, rows, strict=True):
                    expected = min(max(begin + round((row - begin_row) * mean_bytes), 0), size)
                    windows = _around(expected, _REACHES) if found else _everywhere(expected, size)
                    there = _row_in(file, token, windows)
                    if there is None:
                        return None
                    begin, begin_row = there[0], row
                    found.append((f"table {self.path} row {token!r}", there[1]))
        except OSError as error:
            raise unreadable_table(self.path, error) from error
        return found


def _around(expected: int, reaches: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield where to begin and how many bytes to read, around where a row should be."""
    for reach in reaches:
        begin = max(expected - reach, 0)
        yield begin, expected + reach - begin


def _everywhere(expected: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the same for a row of which less is known, at last for the whole table."""
    yield from _around(expected, _REACHES[2:])
    for begin in range(0, size, _REACHES[-1]):
        yield begin, _REACHES[-1] + _LONGEST_ROW


def _row_in(file: BinaryIO, token: str, windows: Iterator[tuple[int, int]]) -> tuple[int, Record] | None:
    """Return where the row with a token begins, and the row."""
    wanted = json.dumps(token).encode()
    for begin, num_bytes in windows:
        file.seek(begin)
        window = file.read(num_bytes)
        place = window.find(wanted)
        start = window.rfind(b"{", 0, max(place, 0))
        if start >= 0:
            record = _record_at(file, begin + start)
            return None if record is None or record.get("token") != token else (begin + start, record)
    return None


def _record_at(file: BinaryIO, begin: int) -> Record | None:
    file.seek(begin)
    text = file.read(_LONGEST_ROW).decode(errors="replace")
    try:
        record: Any = _DECODER.raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
