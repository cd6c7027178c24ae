"""The folder of an imagination run: one run at a time, of the settings that are noted in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.drive_contents import CONTENTS, said_of_contents
from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.run_lock import LOCK, locked

SETTINGS_FILE = "settings.json"


@contextmanager
def run_folder(out: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Make or reopen the folder of a run, alone, and note the run's settings in it.

    Raises:
        InputError: it is a file, holds other files or a run of other settings, or another process uses it.
    """
    with locked(out, flag="--out"):
        path = out / SETTINGS_FILE
        if path.is_file():
            _require_same(path, settings)
        elif any(entry.name != LOCK for entry in out.iterdir()):
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
        flag = f"--{name.replace('_', '-')}"
        if name != CONTENTS and name not in found:
            raise InputError(
                f"--out {path.parent} holds a run of an earlier version, which did not note {flag}; name a new folder"
            )
        if name != CONTENTS and found[name] != value:
            raise InputError(
                f"--out {path.parent} holds a run with {flag} {found[name]}, this one has "
                f"{value}; name a new folder, or give the same arguments to go on"
            )
    before, now = found.get(CONTENTS), settings.get(CONTENTS)
    if now is not None and before != now:
        raise InputError(f"--out {path.parent} holds {said_of_contents(before, now)}; name a new folder")
