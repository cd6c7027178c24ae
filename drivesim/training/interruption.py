"""Ctrl-C and SIGTERM, held back until the running step is finished and saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """Notes the first SIGINT or SIGTERM within the ``with`` block; a second one acts at once.

    Args:
        is_active: False leaves the signals alone, as does any thread but the main one.
    """

    def __init__(self, *, is_active: bool = True) -> None:
        self._is_active = is_active and threading.current_thread() is threading.main_thread()
        self._previous: dict[int, object] = {}
        self.received: int | None = None

    def __enter__(self) -> HeldSignals:
        """Take the signals over."""
        if self._is_active:
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        self._restore()

    def raise_received(self) -> None:
        """Do what the signal would have done: KeyboardInterrupt, or the exit code of a terminated process."""
        if self.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        if self.received is not None:
            raise KeyboardInterrupt

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
