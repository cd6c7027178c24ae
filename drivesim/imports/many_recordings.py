"""Many recordings in one folder: one that is broken does not cost the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from drivesim.errors import InputError
from drivesim.imports.drive_log import DriveLog
from drivesim.imports.remarks import Loss


def logs_of_all(folders: Iterable[Path], read: Callable[[Path], list[DriveLog]]) -> list[DriveLog]:
    """Return the logs of all folders; the first log tells which folders were left out, and why.

    Raises:
        InputError: that of the first folder, if none can be read.
    """
    logs: list[DriveLog] = []
    refused: list[InputError] = []
    for folder in folders:
        try:
            logs += read(folder)
        except InputError as error:
            refused.append(error)
    if refused and not logs:
        raise refused[0]
    if refused:
        logs[0].problems[:0] = [Loss(f"a recording was left out: {error}") for error in refused]
    return logs
