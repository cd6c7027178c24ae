"""Ctrl-C and SIGTERM, held back until the running step is finished and saved."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """Notes the first SIGINT or SIGTERM within the ``with`` block; a second one acts at once.

    A process that another one started is told to end by a SIGTERM of that one, or by its death, and by nothing else:
    a terminal sends Ctrl-C to all of them. It waits for the others, however often it is told.

    Args:
        is_child: Whether this is such a process.
    """

    def __init__(self, *, is_child: bool = False) -> None:
        self._parent = multiprocessing.parent_process() if is_child else None
        self._is_active = threading.current_thread() is threading.main_thread()
        self._previous: dict[int, object] = {}
        self._noted: int | None = None

    @property
    def received(self) -> int | None:
        """The signal to act upon, if there was one."""
        if self._noted is None and self._parent is not None and not self._parent.is_alive():
            self._noted = signal.SIGTERM
        return self._noted

    def __enter__(self) -> HeldSignals:
        """Take the signals over."""
        if self._is_active:
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        self._restore()

    def raise_received(self) -> None:
        """Do what the signal would have done."""
        raise_signal(self.received)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._parent is None:
            self._noted = number
            self._restore()
        elif number == signal.SIGTERM:
            self._noted = number

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}


def raise_signal(number: int | None) -> None:
    """Raise KeyboardInterrupt, or the exit code of a terminated process; nothing without a signal."""
    if number == signal.SIGTERM:
        raise SystemExit(128 + signal.SIGTERM)
    if number is not None:
        raise KeyboardInterrupt
