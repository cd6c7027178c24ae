"""Results of a benchmark: rows with intervals -> a console table, one flat json file, a sheet of pictures."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.statistics import Estimate
from drivesim import console
from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.video import contact_sheet, with_label, write_image

Image = NDArray[np.uint8]


@dataclass(kw_only=True, slots=True)
class Row:
    """One published number."""

    name: str
    value: float
    key: str | None = None  # second level, such as the horizon
    interval: tuple[float, float] | None = None  # 95 %
    count: int | None = None
    note: str = ""

    @property
    def label(self) -> str:
        """Return name and key."""
        return self.name if self.key is None else f"{self.name} [{self.key}]"


@dataclass(kw_only=True, slots=True)
class Report:
    """All rows of a run, and the facts without which they mean nothing."""

    title: str
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, value: float, *, key: str | int | None = None, note: str = "") -> None:
        """Add a plain number."""
        self.rows.append(Row(name=name, value=float(value), key=None if key is None else str(key), note=note))

    def add_estimate(
        self, name: str, estimate: Estimate, *, key: str | int | None = None, note: str = ""
    ) -> None:
        """Add a number with its interval."""
        self.rows.append(
            Row(
                name=name,
                value=estimate.value,
                key=None if key is None else str(key),
                interval=(estimate.low, estimate.high),
                count=estimate.count,
                note=note,
            )
        )

    def as_dict(self) -> dict[str, Any]:
        """Return ``{name: value}`` or ``{name: {key: value}}``, with ``name_interval`` beside it."""
        result: dict[str, Any] = {"benchmark": self.title, **self.facts}
        for row in self.rows:
            _put(result, row.name, row.key, row.value)
            if row.interval is not None:
                _put(result, f"{row.name}_interval", row.key, list(row.interval))
        return result

    def show(self) -> None:
        """Print the rows as a table, what they mean below it, and the facts."""
        cells = [
            (
                row.label,
                row.value,
                "" if row.interval is None else f"{row.interval[0]:.3f} .. {row.interval[1]:.3f}",
                "" if row.count is None else str(row.count),
            )
            for row in self.rows
        ]
        console.print_table(self.title, ["figure", "value", "95 % interval", "n"], cells)
        for name, note in {row.name: row.note for row in self.rows if row.note}.items():
            console.say(f"  {name}: {note}")
        console.say(", ".join(f"{name} {value}" for name, value in self.facts.items()))

    def write(self, path: Path) -> None:
        """Write `as_dict` as json; the file appears only when it is complete."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self.as_dict(), indent=1) + "\n")
        console.say(f"wrote {path}")


def _put(result: dict[str, Any], name: str, key: str | None, value: Any) -> None:
    if key is None:
        result[name] = value
    else:
        result.setdefault(name, {})[key] = value


def machine_facts(*, num_threads: int | None = None) -> dict[str, Any]:
    """Return what a speed depends on: processor, threads, library version."""
    return {
        "machine": _processor_name(),
        "threads": num_threads or torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor_name() -> str:
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        for line in cpu_info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_sheet(path: Path, rows: Sequence[Sequence[tuple[str, Image]]]) -> None:
    """Write rows of labelled pictures, each row as long as the first, as one image beside the numbers."""
    frames = [with_label(picture, label) for row in rows for label, picture in row]
    write_image(path, contact_sheet(frames, len(rows[0])))
    console.say(f"wrote {path}")


def run_command(main: Callable[[], None]) -> None:
    """Run a benchmark's main function: bad input ends it with one sentence and exit code 2."""
    try:
        main()
    except (InputError, OSError) as error:
        console.fail(str(error))
        raise SystemExit(2) from error
