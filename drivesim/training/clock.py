"""Training time over all resumes, noted step by step, so that a killed run relives the same minutes."""

from __future__ import annotations

import time
from io import TextIOWrapper
from pathlib import Path

from drivesim.files import atomic_path

CLOCK_NAME = "clock.txt"


class TrainingClock:
    """Says how long a run has trained when a step begins.

    Where the time decides anything (a time budget: learning rate, end), steps that are done again after a kill
    must see the times that they saw before. So the times since the last checkpoint are kept in a file.

    Args:
        path: Of that file; None keeps none.
        is_fresh: What a run wrote that was killed in the same folder does not count.
    """

    def __init__(self, path: Path | None, *, is_fresh: bool = False) -> None:
        self.elapsed_s = 0.0  # as of the start of the present step
        self._path, self._is_fresh = path, is_fresh
        self._file: TextIOWrapper | None = None
        self._seen_s: dict[int, float] = {}  # by step
        self._ticked_s = time.monotonic()

    def start(self, *, step: int, elapsed_s: float) -> None:
        """Go on from a checkpoint, or from nothing."""
        self.elapsed_s, self._ticked_s = elapsed_s, time.monotonic()
        if self._path is not None:
            seen_s = {} if self._is_fresh else _read(self._path)
            self._seen_s = {number: time_s for number, time_s in seen_s.items() if number >= step}
            self.forget()

    def tick(self, step: int) -> None:
        """Begin a step."""
        now_s = time.monotonic()
        seen_s = self._seen_s.pop(step, None)
        self.elapsed_s = self.elapsed_s + now_s - self._ticked_s if seen_s is None else seen_s
        self._ticked_s = now_s
        if self._file is not None and seen_s is None:
            self._file.write(_line(step, self.elapsed_s))

    def forget(self) -> None:
        """Drop what a new checkpoint makes needless: all but the steps that are still to be done again."""
        if self._path is None:
            return
        self.close()
        with atomic_path(self._path) as temporary:
            temporary.write_text("".join(_line(*seen) for seen in self._seen_s.items()), encoding="utf-8")
        self._file = self._path.open(
            "a", encoding="utf-8", buffering=1
        )  # a line is out before the step begins

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(step: int, elapsed_s: float) -> str:
    return f"{step} {elapsed_s!r}\n"


def _read(path: Path) -> dict[int, float]:
    """Return the times by step; a line that a kill cut short is left out."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    times = [line.split() for line in lines if line.endswith("\n")]
    return {int(step): float(elapsed_s) for step, elapsed_s in times}
