"""Results of a benchmark: rows and curves -> a console table, one flat json file, a sheet of pictures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.statistics import Estimate
from drivesim import console
from drivesim.checkpoint import weights_hash
from drivesim.config import git_hash
from drivesim.errors import InputError, nearest
from drivesim.files import atomic_path
from drivesim.video import contact_sheet, with_label, write_image

Image = NDArray[np.uint8]
EMPTY_GREY = 24
COLUMNS = ("figure", "value", "95 % interval", "n", "target")


EnumT = TypeVar("EnumT", bound=Enum)


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
class Curve:
    """One measure at a series of steps."""

    steps: list[int]
    estimates: list[Estimate]

    def as_dict(self) -> dict[str, list[float]]:
        """Return lists of equal length: step, value and the ends of the 95 % interval."""
        return {
            "step": list(self.steps),
            "value": [estimate.value for estimate in self.estimates],
            "low": [estimate.low for estimate in self.estimates],
            "high": [estimate.high for estimate in self.estimates],
        }


@dataclass(kw_only=True, slots=True, frozen=True)
class Target:
    """What a figure is meant to reach."""

    name: str
    limit: float
    key: str | None = None
    is_minimum: bool = True

    def __str__(self) -> str:
        """Return such as ``>= 4``."""
        return f"{'>=' if self.is_minimum else '<='} {self.limit:g}"

    def is_reached(self, value: float) -> bool:
        """Tell whether a value does it."""
        return value >= self.limit if self.is_minimum else value <= self.limit


@dataclass(kw_only=True, slots=True)
class Report:
    """All rows of a run, and the facts without which they mean nothing."""

    title: str
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    targets: Sequence[Target] = ()

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

    def add_series(
        self, name: str, estimates: Sequence[Estimate], *, named_steps: Sequence[int] = (), note: str = ""
    ) -> None:
        """Add a curve over the steps 1, 2, ..., and rows of it at the named ones."""
        self.curves[name] = Curve(steps=list(range(1, len(estimates) + 1)), estimates=list(estimates))
        for step in named_steps:
            self.add_estimate(name, estimates[step - 1], key=step, note=note)

    def target_of(self, row: Row) -> Target | None:
        """Return what a row is meant to reach, if anything was asked of it."""
        return next((goal for goal in self.targets if (goal.name, goal.key) == (row.name, row.key)), None)

    def as_dict(self) -> dict[str, Any]:
        """Return ``{name: value}`` or ``{name: {key: value}}``, with ``name_interval`` beside it.

        Curves stand under ``name_curve``; what was asked of a figure and whether it got there under ``targets``.
        """
        result: dict[str, Any] = {"benchmark": self.title, **self.facts}
        for row in self.rows:
            _put(result, row.name, row.key, row.value)
            if row.interval is not None:
                _put(result, f"{row.name}_interval", row.key, list(row.interval))
        for name, curve in self.curves.items():
            result[f"{name}_curve"] = curve.as_dict()
        for row in self.rows:
            if (target := self.target_of(row)) is not None:
                verdict = {"target": str(target), "is_reached": target.is_reached(row.value)}
                _put(result, "targets", row.label, verdict)
        return result

    def cells(self) -> list[tuple[object, ...]]:
        """Return per row what a table shows under `COLUMNS`."""
        return [
            (
                row.label,
                row.value,
                "" if row.interval is None else f"{row.interval[0]:.3f} .. {row.interval[1]:.3f}",
                "" if row.count is None else str(row.count),
                _verdict(row, self.target_of(row)),
            )
            for row in self.rows
        ]

    def show(self) -> None:
        """Print the rows as a table, what they mean below it, and the facts."""
        width = len(COLUMNS) if self.targets else len(COLUMNS) - 1
        console.print_table(self.title, COLUMNS[:width], [row[:width] for row in self.cells()])
        for name, note in {row.name: row.note for row in self.rows if row.note}.items():
            console.say(f"  {name}: {note}")
        console.say(", ".join(f"{name} {value}" for name, value in self.facts.items()))

    def write(self, path: Path) -> None:
        """Write `as_dict` as json; the file appears only when it is complete."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self.as_dict(), indent=1) + "\n")
        console.say(f"wrote {path}")


def _verdict(row: Row, target: Target | None) -> str:
    if target is None:
        return ""
    return f"{target} {'reached' if target.is_reached(row.value) else 'missed'}"


def _put(result: dict[str, Any], name: str, key: str | None, value: Any) -> None:
    if key is None:
        result[name] = value
    else:
        result.setdefault(name, {})[key] = value


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a command line, and under ``command`` the line itself, as it was given."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(given)
    options.command = f"{parser.prog} {shlex.join(given)}".strip()
    return options


def member_named(enum: type[EnumT], name: str, *, what: str, flag: str) -> EnumT:
    """Return the member of an enum by its value.

    Raises:
        InputError: there is none; the sentence says what was asked for, by which flag, and what there is.
    """
    values = [str(member.value) for member in enum]
    if name not in values:
        raise InputError(f"there is no {what} {name!r} for {flag}; {nearest(name, values)}")
    return enum(name)


def weights_facts(**names: str) -> dict[str, str]:
    """Return as ``PART_sha256`` the hashes of weights, named by what they are for; "" is none.

    Raises:
        InputError: there are no such weights.
    """
    return {f"{part}_sha256": weights_hash(name) for part, name in names.items() if name}


def run_facts(options: argparse.Namespace, *, num_threads: int | None = None) -> dict[str, Any]:
    """Return how a run came about: the command line that `parsed` kept, the commit, what a speed depends on."""
    return {
        "command": options.command,
        "git": git_hash(),
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


Sheet = Sequence[Sequence[tuple[str, Image]]]
"""Rows of labelled pictures."""


def draw_sheet(rows: Sheet) -> Image:
    """Lay rows of labelled pictures of one size out as one; shorter rows are filled up with nothing."""
    columns = max(len(row) for row in rows)
    frames = []
    for row in rows:
        frames += [with_label(picture, label) for label, picture in row]
        frames += [np.full_like(row[0][1], EMPTY_GREY)] * (columns - len(row))
    return contact_sheet(frames, columns)


def write_sheet(path: Path, rows: Sheet) -> None:
    """Write rows of labelled pictures as one image beside the numbers."""
    write_image(path, draw_sheet(rows))
    console.say(f"wrote {path}")


def check_out(path: Path, *, suffixes: Sequence[str] = (".json",), flag: str = "--out") -> None:
    """Refuse, before anything is measured, a file that could not be written in the end.

    Raises:
        InputError: a file of another suffix, a folder, or inside something that is not a writable folder.
    """
    if path.suffix not in suffixes:
        raise InputError(f"{flag} must name a {' or '.join(suffixes)} file, got {path}")
    if path.is_dir():
        raise InputError(f"{flag} {path} is a folder; name a file in it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{flag} {path} cannot be written: {folder} is not a writable folder")


@contextmanager
def going_on_in(path: Path, *, by: str = "the same command again") -> Iterator[None]:
    """End a run that keeps what it has done in ``path`` with one sentence and exit code 130 at Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        console.fail(f"interrupted; run {by} to go on in {path}")
        raise SystemExit(130) from None


def run_command(main: Callable[[], None]) -> None:
    """Run a benchmark's main function: bad input ends it with one sentence and exit code 2, Ctrl-C with one and 130."""
    try:
        main()
    except KeyboardInterrupt:
        console.fail("interrupted before it was done")
        raise SystemExit(130) from None
    except (InputError, OSError) as error:
        console.fail(str(error))
        raise SystemExit(2) from error
