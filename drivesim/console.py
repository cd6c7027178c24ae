"""The only file that prints: tables, progress bars and one-sentence failures, all through rich."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

PLAIN_INTERVAL_S = 20.0  # without a terminal a line is printed this often

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print one line to standard output, as it is (square brackets are not markup)."""
    _out.print(_shown(text))


def counted(count: int, noun: str) -> str:
    """Return a count with its noun in the right number: ``1 scene``, ``2 scenes``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def mute() -> None:
    """Print nothing more to standard output; warnings and errors are still seen."""
    _out.quiet = True


def warn(text: str) -> None:
    """Print a warning to standard error; the command goes on."""
    _err.print(f"[yellow]warning:[/yellow] {_shown(text)}")


def fail(message: str) -> None:
    """Print one sentence about what went wrong to standard error; the caller chooses the exit code."""
    _err.print(f"[bold red]error:[/bold red] {_shown(' '.join(message.split()))}")


def print_exception() -> None:
    """Print the traceback of the exception being handled to standard error (``--debug``)."""
    _err.print_exception()


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = ""
) -> None:
    """Print a table. Numbers stand to the right, floats with three decimals.

    Args:
        title: Printed above the table.
        columns: One heading per column.
        rows: Cells, each row as long as ``columns``.
        caption: Printed below the table when not empty.
    """
    table = Table(
        title=_shown(title), caption=_shown(caption) or None, title_justify="left", caption_justify="left"
    )
    is_number = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    for heading, right in zip(columns, is_number, strict=True):
        table.add_column(_shown(heading), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    _out.print(table)


def _shown(text: str) -> str:
    """Return what is printed of a text: no markup, and no bytes of file names that are no characters."""
    return escape(text.encode(errors="replace").decode())


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return _shown(str(value))
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


class ProgressBar:
    """A bar with elapsed and remaining time on a terminal; a line every 20 s where there is none."""

    def __init__(self, description: str, total: int, *, done: int = 0) -> None:
        self._description, self._total, self._done, self._first = description, total, done, done
        self._note = ""
        self._started_s = self._printed_s = time.monotonic()
        self._progress: Progress | None = None
        self._task = TaskID(0)
        if _out.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=_out,
            )
            self._task = self._progress.add_task(_shown(description), total=total, completed=done, note="")

    def update(self, done: int, note: str = "") -> None:
        """Say that ``done`` of the total are finished; ``note`` is a short text, such as the loss."""
        self._done, self._note = done, note or self._note
        if self._progress is not None:
            self._progress.update(self._task, completed=done, note=_shown(self._note))
        elif time.monotonic() - self._printed_s >= PLAIN_INTERVAL_S:
            self._print_line()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Say that ``count`` more are finished."""
        self.update(self._done + count, note)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        say(text)

    def _print_line(self) -> None:
        self._printed_s = time.monotonic()
        elapsed_s = self._printed_s - self._started_s
        rate = (self._done - self._first) / max(elapsed_s, 1e-9)
        left = f"{(self._total - self._done) / rate:.0f} s left" if rate > 0 else "unknown time left"
        note = f", {self._note}" if self._note else ""
        say(f"{self._description}: {self._done}/{self._total}, {elapsed_s:.0f} s elapsed, {left}{note}")

    def _start(self) -> None:
        if self._progress is not None:
            self._progress.start()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        else:
            self._print_line()


@contextmanager
def progress_bar(description: str, total: int, *, done: int = 0) -> Iterator[ProgressBar]:
    """Show progress with the estimated time left while the block runs.

    Args:
        description: What is being done, a few words.
        total: How many items there are.
        done: How many were finished before (a resumed run); they do not count for the speed.
    """
    bar = ProgressBar(description, total, done=done)
    bar._start()
    try:
        yield bar
    finally:
        bar._stop()
