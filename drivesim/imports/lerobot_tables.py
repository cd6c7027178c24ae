"""Parquet files of LeRobot data sets: sizes are checked before anything is read, and only wanted columns are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.imports.foreign_files import short
from drivesim.imports.lerobot_arrow import pa, pc, pq
from drivesim.imports.lerobot_entries import Entry
from drivesim.scene.geometry import FloatArray

MAX_ROWS = 20_000_000
MAX_COLUMN_BYTES = 2 << 30
_ERRORS = (
    pa.ArrowException,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
)


class Columns:
    """Some columns of a table, as numbers."""

    def __init__(self, path: Path, table: Any) -> None:
        """Wrap a table; :func:`read_columns` makes it."""
        self._path, self._table = path, table

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._table.num_rows)

    def numbers(self, name: str, index: int | None = None) -> FloatArray:
        """Return a column, or one number of its lists, as (M,); NaN where there is none.

        Raises:
            InputError: the column is missing or holds something else.
        """
        if name not in self._table.column_names:
            raise InputError(f"{self._path} has no column {name!r}; fetch it again")
        try:
            column = self._table.column(name)
            if index is None and (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)):
                index = 0
            if index is not None:
                column = pc.list_element(column, index)
            return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
        except _ERRORS as error:
            raise InputError(
                f"column {name!r} of {self._path} cannot be read as numbers ({short(error)})"
            ) from error

    def entry(self, entry: Entry) -> FloatArray:
        """Return the numbers of an entry as (M,)."""
        return self.numbers(entry.feature, entry.index)

    def whole(self, name: str) -> NDArray[np.int64]:
        """Return a column of indices as (M,); -1 where there is none."""
        values = self.numbers(name)
        is_good = np.isfinite(values) & (np.abs(values) < 2**53) & (values >= 0)
        return np.where(is_good, values, -1.0).astype(np.int64)

    def texts(self, name: str) -> list[str]:
        """Return a column of texts, or of lists of them, of which the first counts; empty where there is none."""
        if name not in self._table.column_names:
            return [""] * len(self)
        try:
            values = self._table.column(name).to_pylist()
        except _ERRORS as error:
            raise InputError(f"column {name!r} of {self._path} cannot be read ({short(error)})") from error
        firsts = (value[0] if isinstance(value, list) and value else value for value in values)
        return [value if isinstance(value, str) else "" for value in firsts]


def read_columns(path: Path, wanted: Sequence[str]) -> Columns:
    """Read the wanted columns, those of them that there are.

    Raises:
        InputError: the file is missing, truncated, no Parquet, or would need too much memory.
    """
    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in wanted if name in file.schema_arrow.names]
            _check_size(path, file.metadata, columns)
            table = file.read(columns=columns, use_threads=False)
    except InputError:
        raise
    except _ERRORS as error:
        raise InputError(
            f"{path} is missing, truncated or not Parquet ({short(error)}); fetch it again"
        ) from error
    if table.num_rows > MAX_ROWS:
        raise InputError(f"{path} has {table.num_rows} rows, more than {MAX_ROWS}; leave it out")
    return Columns(path, table)


def _check_size(path: Path, metadata: Any, columns: list[str]) -> None:
    num_bytes = 0
    for group in range(metadata.num_row_groups):
        facts = metadata.row_group(group)
        for position in range(facts.num_columns):
            column = facts.column(position)
            if any(f"{column.path_in_schema}.".startswith(f"{name}.") for name in columns):
                num_bytes += max(column.total_uncompressed_size, 8 * column.num_values)
    if metadata.num_rows > MAX_ROWS or num_bytes > MAX_COLUMN_BYTES:
        raise InputError(
            f"{path} says that it holds {metadata.num_rows} rows of {num_bytes >> 20} MB; that is no LeRobot table"
        )
