"""Records of a table, read from where an index says they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.scene.table_rows import Record


def read_records(path: Path, offsets: NDArray[Any], lengths: NDArray[Any]) -> list[Record]:
    """Return the records that begin at some bytes of a table and are so long.

    Raises:
        InputError: the file cannot be read, or no records are there.
    """
    records: list[Record] = []
    try:
        with path.open("rb") as file:
            for offset, length in zip(offsets.tolist(), lengths.tolist(), strict=True):
                file.seek(offset)
                records.append(_record(path, file.read(length)))
    except OSError as error:
        raise unreadable_table(path, error) from error
    return records


def _record(path: Path, data: bytes) -> Record:
    try:
        record: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise changed_table(path) from error
    if not isinstance(record, dict):
        raise changed_table(path)
    return record


def changed_table(path: Path) -> InputError:
    """Return the error of a table that is no longer what was opened."""
    return InputError(f"table {path} has changed since the data set was opened; open it again")


def unreadable_table(path: Path, error: OSError) -> InputError:
    """Return the error of a table that the system does not give."""
    return InputError(f"table {path} cannot be read ({os.strerror(error.errno or 0)}); check the file")
