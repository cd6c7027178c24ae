"""The folder of an imagination run: one run at a time, of the settings that are noted in it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drivesim.errors import InputError
from drivesim.files import atomic_path

if sys.platform != "win32":
    import fcntl

SETTINGS_FILE, LOCK_FILE = "settings.json", ".lock"


@contextmanager
def run_folder(out: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Make or reopen the folder of a run, alone, and note the run's settings in it.

    Raises:
        InputError: it is a file, holds other files or a run of other settings, or another process uses it.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder")
    out.mkdir(parents=True, exist_ok=True)
    with _lock(out):
        path = out / SETTINGS_FILE
        if path.is_file():
            _require_same(path, settings)
        elif any(entry.name != LOCK_FILE for entry in out.iterdir()):
            raise InputError(f"--out {out} holds other files; name a new folder")
        else:
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(dict(settings), indent=1) + "\n", encoding="utf-8")
        yield


def _require_same(path: Path, settings: Mapping[str, Any]) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({error}); name a new folder for --out") from error
    for name, value in settings.items():
        if found.get(name) != value:
            raise InputError(
                f"--out {path.parent} holds a run with --{name.replace('_', '-')} {found.get(name)}, this one has "
                f"{value}; name a new folder, or give the same arguments to go on"
            )


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Hold the folder's lock; it falls with the process, so a killed run leaves a file but no lock."""
    descriptor = os.open(out / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if sys.platform != "win32":
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"another run writes into {out}; wait for it or name another folder for --out"
                ) from error
        yield
    finally:
        os.close(descriptor)
