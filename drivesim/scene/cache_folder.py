"""Files that can be made again: arrays under a name and a key, in the user's cache folder or where they are told.

A file that is damaged, of another version or of other content counts as not there. A folder that cannot be written to
costs time only.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from drivesim.files import atomic_path

CACHE_VARIABLE = "DRIVESIM_CACHE"
_HEAD = b"drivesim-cache\n"
_DIGEST_BYTES = 32
_FACTS = "facts"

Arrays = dict[str, NDArray[Any]]


def default_cache() -> Path:
    """Return where things are kept unless the caller says otherwise; ``DRIVESIM_CACHE`` moves it."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(base)) / "drivesim"


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> str:
    """Write arrays and what they were made from.

    Returns:
        "" or why it was not possible.
    """
    content = io.BytesIO()
    words = np.frombuffer(json.dumps(dict(facts), sort_keys=True).encode(), dtype=np.uint8)
    np.savez(content, **{_FACTS: words}, **arrays)
    data = content.getbuffer()
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(_HEAD + hashlib.sha256(data).digest())
            file.write(data)
    except OSError as error:
        return f"{error.strerror or error} ({path.parent})"
    return ""


def load_arrays(path: Path, facts: Mapping[str, Any]) -> Arrays | None:
    """Return what :func:`save_arrays` wrote; None if it is not there, damaged, or made from something else."""
    try:
        data = path.read_bytes()
        begin = len(_HEAD) + _DIGEST_BYTES
        content = memoryview(data)[begin:]
        if not data.startswith(_HEAD) or data[len(_HEAD) : begin] != hashlib.sha256(content).digest():
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        kept = json.loads(arrays.pop(_FACTS).tobytes())
    except (OSError, ValueError, KeyError, BadZipFile):
        return None
    return arrays if kept == json.loads(json.dumps(dict(facts))) else None
