"""What was found out about files, kept on disk until they change: JSON, written atomically."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.scene.media import MediaFile

_HASH_DIGITS = 3  # 4096 small files, so that a new fact costs little however many there are


class FileFacts:
    """Facts by file name, size and time of change.

    Processes may share a folder: should two write to the same JSON file at once, one of the facts is found out again.

    Args:
        folder: Where they are kept; None keeps them in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory: dict[str, Any] = {}

    def get(self, media: MediaFile, what: str, find_out: Callable[[], Any]) -> Any:
        """Return a fact about a file; it is found out if it is not known or the file has changed since.

        Args:
            media: The file.
            what: The fact's name, with all settings that it depends on.
            find_out: Makes it; returns what JSON can hold.

        Raises:
            InputError: the file is missing, or the folder cannot be written.
        """
        stamp = media.stamp()
        name = f"{media.path.absolute()}:{media.member}"
        facts = self._facts_of(self._read(name), name, stamp)
        if what not in facts:
            fact = find_out()
            bucket = self._read(name)
            facts = {**self._facts_of(bucket, name, stamp), what: fact}
            self._write(name, {**bucket, name: {"stamp": stamp, "facts": facts}})
        return facts[what]

    @staticmethod
    def _facts_of(bucket: dict[str, Any], name: str, stamp: list[int]) -> dict[str, Any]:
        entry = bucket.get(name)
        return entry["facts"] if entry is not None and entry["stamp"] == stamp else {}

    def _path(self, folder: Path, name: str) -> Path:
        return folder / f"{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:_HASH_DIGITS]}.json"

    def _read(self, name: str) -> dict[str, Any]:
        if self._folder is None:
            return self._memory
        try:
            return dict(json.loads(self._path(self._folder, name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # not there yet, or damaged: everything is found out again
            return {}

    def _write(self, name: str, bucket: dict[str, Any]) -> None:
        if self._folder is None:
            self._memory = bucket
            return
        try:
            with atomic_path(self._path(self._folder, name)) as temporary:
                temporary.write_text(json.dumps(bucket), encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"cannot write to {self._folder} ({error.strerror}); set cache to a folder that can be written"
            ) from error
