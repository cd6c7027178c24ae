"""The kinds of recordings there are, and the reader of each."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from importlib import import_module
from pathlib import Path

from drivesim.imports.drive_log import DriveLog
from drivesim.imports.options import ImportConfig

Reader = Callable[[Path, ImportConfig], list[DriveLog]]


class RecordingKind(Enum):
    """A layout of files that a recorder leaves."""

    CSV = "csv"  # pictures in a folder or one video, and a table
    UDACITY = "udacity"
    DONKEYCAR = "donkeycar"
    COMMA2K19 = "comma2k19"
    LEROBOT = "lerobot"
    KITTI = "kitti"

    @property
    def module(self) -> str:
        """Return the name of the module that reads it, within this package."""
        return "csv_video" if self is RecordingKind.CSV else self.value


def reader_of(kind: RecordingKind) -> Reader:
    """Return the function that reads a kind; its module is imported only now."""
    module = import_module(f"drivesim.imports.{kind.module}")
    reader: Reader = getattr(module, f"read_{kind.module}")
    return reader
