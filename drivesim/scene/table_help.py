"""Another process that reads the end of ``sample_data.json`` meanwhile, and hashes it.

It is a plain Python process on files, so that it works from any program. Whatever goes wrong with it, the work is then
done here, where errors also get their sentence.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

import numpy as np

from drivesim.scene.camera_rows import CameraPart, CameraRows
from drivesim.scene.table_scan import row_start_after

HELPED_FROM_BYTES = 1 << 26  # smaller tables are read before another process has started
OWN_SHARE = 0.57  # of the table, read here: as much work as the rest and the hash
_CODE = "import sys; from drivesim.scene.table_help import write_help; write_help(*sys.argv[1:])"


@dataclass(kw_only=True, slots=True)
class Helped:
    """What the other process found."""

    cameras: CameraPart  # with rows counted from where it began
    num_rows: int  # passed over
    sample_data: str  # sha256 of the whole table


def write_help(folder: str, begin: str, out: str) -> None:
    """Do the other process's part and leave the result in a file."""
    cameras = CameraRows(Path(folder))
    cameras.scan(begin=int(begin), is_hashed=False)
    part = cameras.collected()
    with cameras.path.open("rb") as file:
        sample_data = hashlib.file_digest(file, "sha256").hexdigest()
    np.savez(
        out, sample_data=sample_data, rows=part.rows, groups=part.groups, num_rows=np.array(cameras.num_rows)
    )


class Help:
    """The other process, as a context; ``begin`` is the byte from where it reads, None if there is no help."""

    def __init__(self, folder: Path) -> None:
        """Start it if the tables are large."""
        self.begin: int | None = None
        path = folder / "sample_data.json"
        size = path.stat().st_size
        self._temporary: TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        if size < HELPED_FROM_BYTES or (os.cpu_count() or 1) < 2:
            return
        begin = row_start_after(path, int(OWN_SHARE * size))
        if begin is None:
            return
        self._temporary = TemporaryDirectory()
        self._out = Path(self._temporary.name) / "help.npz"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CODE, str(folder.absolute()), str(begin), str(self._out)],
                env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            return
        self.begin = begin

    def result(self) -> Helped | None:
        """Wait for what it found; None if there is nothing."""
        if self._process is None or self._process.wait() != 0:
            return None
        try:
            with np.load(self._out) as found:
                return Helped(
                    cameras=CameraPart(rows=found["rows"], groups=found["groups"]),
                    num_rows=int(found["num_rows"]),
                    sample_data=str(found["sample_data"]),
                )
        except (OSError, ValueError, KeyError):
            return None

    def __enter__(self) -> Help:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()  # it has ended unless an error interrupts the work here
            self._process.wait()
        if self._temporary is not None:
            self._temporary.cleanup()
