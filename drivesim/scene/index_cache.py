"""The index of a version folder: taken from the cache where the tables are still the same, else built and kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drivesim.scene.cache_folder import Arrays
from drivesim.scene.camera_rows import ROW
from drivesim.scene.index_store import IndexStore, table_stats
from drivesim.scene.table_index import PictureIndex, build_index

INDEX_VERSION = 2
INDEXED_TABLES = ("scene", "sample", "sensor", "calibrated_sensor", "sample_data")
CACHED_FROM_BYTES = 1 << 24  # smaller tables are indexed faster than a file is looked for
_ARRAYS = {"channels", "rows", "spans", "num_rows"}


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
    stats = table_stats(folder, INDEXED_TABLES)
    if cache is None and sum(stat[0] for stat in stats.values()) < CACHED_FROM_BYTES:
        return OpenedIndex(index=build_index(folder).index, is_from_cache=False)
    store = IndexStore(folder, cache, INDEXED_TABLES, kind="index", version=INDEX_VERSION)
    if (index := _index_of(store.load())) is not None:
        return OpenedIndex(index=index, is_from_cache=True)
    built = build_index(folder)
    note = store.save(_arrays_of(built.index), built.hashes)
    return OpenedIndex(index=built.index, is_from_cache=False, note=note)


def _index_of(arrays: Arrays | None) -> PictureIndex | None:
    if arrays is None or set(arrays) != _ARRAYS or arrays["rows"].dtype != ROW:
        return None
    return PictureIndex(
        channels=json.loads(arrays["channels"].tobytes()),
        rows=arrays["rows"],
        spans=arrays["spans"],
        num_rows=int(arrays["num_rows"]),
    )


def _arrays_of(index: PictureIndex) -> Arrays:
    return {
        "channels": np.frombuffer(json.dumps(index.channels).encode(), dtype=np.uint8),
        "rows": index.rows,
        "spans": index.spans,
        "num_rows": np.array(index.num_rows),
    }
