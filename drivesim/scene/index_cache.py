"""The index of a version folder: taken from the cache where the tables are still the same, else built and kept.

An index is kept under the hash of the tables it was made from. Their hashes are remembered beside it with size, times
and inode of each file, so that opening a data set again reads none of the large tables.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.scene.cache_folder import default_cache, load_arrays, save_arrays
from drivesim.scene.camera_rows import ROW
from drivesim.scene.table_index import PictureIndex, build_index

INDEX_VERSION = 1
INDEXED_TABLES = ("scene", "sample", "sensor", "calibrated_sensor", "sample_data", "ego_pose")
CACHED_FROM_BYTES = 1 << 24  # smaller tables are indexed faster than a file is looked for
RACY_S = 2.0  # a file changed so recently could change again without its times telling

Stats = dict[str, list[int]]


@dataclass(kw_only=True, slots=True)
class OpenedIndex:
    """An index and where it came from."""

    index: PictureIndex
    is_from_cache: bool
    note: str = ""  # why it could not be kept


def open_index(folder: Path, cache: Path | None) -> OpenedIndex:
    """Return the index of the tables in a version folder.

    Args:
        folder: with the tables.
        cache: folder to keep it in; None is the user's cache folder, and for small tables none.

    Raises:
        InputError: the tables cannot be read or do not fit together.
    """
    stats = _stats(folder)
    if cache is None and sum(stat[0] for stat in stats.values()) < CACHED_FROM_BYTES:
        return OpenedIndex(index=build_index(folder).index, is_from_cache=False)
    store = _Store(folder, (cache or default_cache()) / "nuscenes", stats)
    hashes = store.remembered()
    is_new = hashes is None
    if hashes is None and store.has_candidates():
        hashes = {table: _sha256(folder / f"{table}.json") for table in INDEXED_TABLES}
    if hashes is not None and (index := store.load(hashes)) is not None:
        if is_new:
            store.remember(hashes)
        return OpenedIndex(index=index, is_from_cache=True)
    built = build_index(folder)
    hashes = {table: built.hashes.get(table) or _sha256(folder / f"{table}.json") for table in INDEXED_TABLES}
    return OpenedIndex(index=built.index, is_from_cache=False, note=store.save(built.index, hashes))


class _Store:
    """The files of one data set in the cache."""

    def __init__(self, folder: Path, cache: Path, stats: Stats) -> None:
        self._folder, self._cache, self._stats = folder, cache, stats
        self._opened_s = time.time()
        place = hashlib.sha256(str(folder.absolute()).encode("utf-8", "surrogateescape")).hexdigest()
        self._memory = cache / f"tables-{place[:32]}.json"
        sizes = json.dumps({table: stat[0] for table, stat in stats.items()}, sort_keys=True)
        self._prefix = f"index-{hashlib.sha256(sizes.encode()).hexdigest()[:16]}-"

    def remembered(self) -> dict[str, str] | None:
        """Return the hashes of the tables if these are as they were."""
        try:
            known = json.loads(self._memory.read_bytes())
            is_same = known["version"] == INDEX_VERSION and known["stats"] == self._stats
            hashes = {table: str(known["hashes"][table]) for table in INDEXED_TABLES}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return hashes if is_same else None

    def remember(self, hashes: dict[str, str]) -> str:
        """Keep the hashes, unless a table changed a moment ago or since it was looked at."""
        newest_s = max(max(stat[1:3]) for stat in self._stats.values()) * 1e-9
        if newest_s > self._opened_s - RACY_S or _stats(self._folder) != self._stats:
            return ""
        known = {
            "version": INDEX_VERSION,
            "folder": str(self._folder),
            "stats": self._stats,
            "hashes": hashes,
        }
        try:
            with atomic_path(self._memory) as temporary:
                temporary.write_text(json.dumps(known, indent=1))
        except OSError as error:
            return f"{error.strerror or error} ({self._cache})"
        return ""

    def has_candidates(self) -> bool:
        """Tell whether an index of tables of these sizes is kept."""
        try:
            return any(self._cache.glob(f"{self._prefix}*.npz"))
        except OSError:
            return False

    def load(self, hashes: dict[str, str]) -> PictureIndex | None:
        """Return the index of the tables with these hashes, if it is there and whole."""
        arrays = load_arrays(self._path(hashes), _facts(hashes))
        if arrays is None or set(arrays) != {"channels", "rows", "spans"}:
            return None
        index = PictureIndex(
            channels=json.loads(arrays["channels"].tobytes()),
            rows=arrays["rows"],
            spans=arrays["spans"],
        )
        return index if index.rows.dtype == ROW else None

    def save(self, index: PictureIndex, hashes: dict[str, str]) -> str:
        """Keep an index; return "" or why that is not possible."""
        channels = np.frombuffer(json.dumps(index.channels).encode(), dtype=np.uint8)
        arrays = {"channels": channels, "rows": index.rows, "spans": index.spans}
        return save_arrays(self._path(hashes), arrays, _facts(hashes)) or self.remember(hashes)

    def _path(self, hashes: dict[str, str]) -> Path:
        words = json.dumps(_facts(hashes), sort_keys=True).encode()
        return self._cache / f"{self._prefix}{hashlib.sha256(words).hexdigest()[:32]}.npz"


def _facts(hashes: dict[str, str]) -> dict[str, Any]:
    return {"version": INDEX_VERSION, "hashes": hashes}


def _stats(folder: Path) -> Stats:
    """Return size, times of change in ns and inode of each table."""
    stats = {}
    for table in INDEXED_TABLES:
        path = folder / f"{table}.json"
        try:
            stat = path.stat()
        except OSError as error:
            raise InputError(f"table {path} cannot be read ({error.strerror}); check the file") from error
        stats[table] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    return stats


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
