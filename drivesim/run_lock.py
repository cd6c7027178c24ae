"""One run at a time in a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drivesim.errors import InputError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"


@contextmanager
def locked(path: Path, *, flag: str) -> Iterator[None]:
    """Make a folder and hold its lock; it falls with the process, so a killed run leaves a file but no lock.

    Raises:
        InputError: it is a file, or another process holds the lock.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{flag} {path} is a file; name a folder")
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if sys.platform != "win32":
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.read(descriptor, 32).decode(errors="replace").strip() or "of unknown number"
                raise InputError(
                    f"another run (process {owner}) writes into {path}; wait for it or name another folder for {flag}"
                ) from error
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
