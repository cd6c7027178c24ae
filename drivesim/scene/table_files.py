"""Tables of a nuScenes data set as they are written: record by record, so that none is held in memory."""

from __future__ import annotations

import json
from contextlib import ExitStack
from hashlib import md5
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from drivesim.scene.dataroot import TABLES

Record = dict[str, Any]


def token_of(*parts: object) -> str:
    """Return the 32 hex digits that name a record in the tables; the same parts give the same name."""
    return md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def to_json(value: object) -> str:
    """Return JSON without blanks; ValueError where a number is not finite."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


class TableFiles:
    """The 13 tables in a folder, open for records; each is a JSON list once the context is left."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; it is made when the context is entered."""
        self._folder = folder
        self._files: dict[str, TextIO] = {}
        self._is_empty = dict.fromkeys(TABLES, True)
        self._stack = ExitStack()

    def __enter__(self) -> TableFiles:
        """Open all tables."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in TABLES:
            file = (self._folder / f"{name}.json").open("w", encoding="utf-8", newline="\n")
            self._files[name] = self._stack.enter_context(file)
            file.write("[")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all tables, and end their lists unless something went wrong."""
        with self._stack:
            if kind is None:
                for file in self._files.values():
                    file.write("]\n")

    def add(self, table: str, **record: Any) -> str:
        """Write a record; return its token."""
        separator = "" if self._is_empty[table] else ","
        self._files[table].write(separator + to_json(record))
        self._is_empty[table] = False
        return str(record["token"])
