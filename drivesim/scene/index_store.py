"""Arrays made from tables of a version folder, kept in a cache folder for as long as the tables are the same.

They are kept under the hashes of the tables. The hashes are remembered beside them with size, times and inode of each
file, so that taking the arrays again reads none of the tables.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from drivesim.files import atomic_path
from drivesim.scene.cache_folder import Arrays, default_cache, load_arrays, save_arrays
from drivesim.scene.table_records import unreadable_table

RACY_S = 2.0  # a file changed so recently could change again without its times telling

Hashes = dict[str, str]
Stats = dict[str, list[int]]


class IndexStore:
    """The files of one kind and one version folder in the cache."""

    def __init__(
        self, folder: Path, cache: Path | None, tables: Sequence[str], *, kind: str, version: int
    ) -> None:
        """Look at the tables.

        Args:
            folder: with the tables.
            cache: folder to keep arrays in; None is the user's cache folder.
            tables: from which they are made.
            kind: of arrays, in names of files.
            version: of these.

        Raises:
            InputError: a table is missing.
        """
        self._folder, self._tables, self._version = folder, tables, version
        self._cache = (cache or default_cache()) / "nuscenes"
        self._opened_s = time.time()
        self._stats = table_stats(folder, tables)
        place = hashlib.sha256(str(folder.absolute()).encode("utf-8", "surrogateescape")).hexdigest()
        self._memory = self._cache / f"tables-{kind}-{place[:32]}.json"
        sizes = json.dumps({table: stat[0] for table, stat in self._stats.items()}, sort_keys=True)
        self._prefix = f"{kind}-{hashlib.sha256(sizes.encode()).hexdigest()[:16]}-"

    def load(self) -> Arrays | None:
        """Return the arrays of these very tables, if they are there and whole."""
        hashes = self._remembered()
        is_new = hashes is None
        if hashes is None and self._has_candidates():
            hashes = self._hashes({})
        arrays = None if hashes is None else load_arrays(self._path(hashes), self._facts(hashes))
        if is_new and arrays is not None and hashes is not None:
            self._remember(hashes)
        return arrays

    def save(self, arrays: Mapping[str, NDArray[Any]], known: Mapping[str, str]) -> str:
        """Keep arrays.

        Args:
            arrays: by name.
            known: hashes of tables, as far as they are known.

        Returns:
            "" or why that is not possible.
        """
        hashes = self._hashes(known)
        return save_arrays(self._path(hashes), arrays, self._facts(hashes)) or self._remember(hashes)

    def _hashes(self, known: Mapping[str, str]) -> Hashes:
        return {table: known.get(table) or _sha256(self._folder / f"{table}.json") for table in self._tables}

    def _remembered(self) -> Hashes | None:
        """Return the hashes of the tables if these are as they were."""
        try:
            known = json.loads(self._memory.read_bytes())
            is_same = known["version"] == self._version and known["stats"] == self._stats
            hashes = {table: str(known["hashes"][table]) for table in self._tables}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return hashes if is_same else None

    def _remember(self, hashes: Hashes) -> str:
        """Keep the hashes, unless a table changed a moment ago or since it was looked at."""
        newest_s = max(max(stat[1:3]) for stat in self._stats.values()) * 1e-9
        if newest_s > self._opened_s - RACY_S or table_stats(self._folder, self._tables) != self._stats:
            return ""
        known = {
            "version": self._version,
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

    def _has_candidates(self) -> bool:
        """Tell whether arrays from tables of these sizes are kept."""
        try:
            return any(self._cache.glob(f"{self._prefix}*.npz"))
        except OSError:
            return False

    def _path(self, hashes: Hashes) -> Path:
        words = json.dumps(self._facts(hashes), sort_keys=True).encode()
        return self._cache / f"{self._prefix}{hashlib.sha256(words).hexdigest()[:32]}.npz"

    def _facts(self, hashes: Hashes) -> dict[str, Any]:
        return {"version": self._version, "hashes": hashes}


def table_stats(folder: Path, tables: Sequence[str]) -> Stats:
    """Return size, times of change in ns and inode of each table.

    Raises:
        InputError: a table is missing.
    """
    stats = {}
    for table in tables:
        path = folder / f"{table}.json"
        try:
            stat = path.stat()
        except OSError as error:
            raise unreadable_table(path, error) from error
        stats[table] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    return stats


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
