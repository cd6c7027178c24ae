"""What a policy prints: counted and dropped, whether its calls print it, or threads that it started.

In a process that is there for policies only, threads are followed beyond the call that started them: what they print
between calls counts for their policy, and never reaches the terminal.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

BEGIN_LENGTH = 300  # characters that are kept, for the reason of a failure


class TooMuchPrinted(BaseException):
    """Raised by the write that goes beyond the limit; no Exception, so that fewer policies swallow it."""


class Printed(io.TextIOBase):
    """Takes the place of standard output and error while a policy is asked; counts and keeps the beginning.

    In a shared process other threads than the one that asks print as before.
    """

    def __init__(self, limit: int, *, takes_threads: bool) -> None:
        """Begin at nothing.

        Args:
            limit: characters that may be printed.
            takes_threads: what threads print that began during a call is the policy's too.
        """
        self.begin, self.count = "", 0
        self._limit, self._takes_threads = limit, takes_threads
        self._asking, self._before = 0, sys.stdout
        self._others: weakref.WeakSet[threading.Thread] = weakref.WeakSet()  # not of the policy
        self._bytes = _Bytes(self.write_bytes)

    @property
    def is_too_much(self) -> bool:
        """Tell whether more was printed than may be."""
        return self.count > self._limit

    @property
    def buffer(self) -> io.RawIOBase:
        """Return what bytes are written to."""
        return self._bytes

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return the encoding that bytes are read with."""
        return "utf-8"

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Count some text."""
        taker = self._taker()
        if taker is None:
            return self._passed_on.write(text)
        taker.note(text)
        return len(text)

    def write_bytes(self, data: bytes) -> int:
        """Count some bytes, each as a character."""
        taker = self._taker()
        if taker is None:
            return _write_bytes(self._passed_on, data)
        taker.note(data.decode("latin-1"))
        return len(data)

    def note(self, text: str) -> None:
        """Count what was printed.

        Raises:
            TooMuchPrinted: it is more than allowed.
            SystemExit: the same in a thread of the policy, which ends without a word.
        """
        self.begin += text[: max(BEGIN_LENGTH - len(self.begin), 0)]
        self.count += len(text)
        if self.is_too_much:
            if threading.current_thread() in _OWNERS:
                raise SystemExit
            raise TooMuchPrinted

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Take what is printed inside the block, and later what threads print that began in it."""
        before = sys.stdout, sys.stderr
        self._asking, self._before = threading.get_ident(), before[0]
        self._others = weakref.WeakSet(threading.enumerate())
        try:
            sys.stdout = sys.stderr = self
            yield
        finally:
            self._asking = 0
            sys.stdout, sys.stderr = before
            if self._takes_threads:
                self._follow_threads()

    @property
    def _passed_on(self) -> TextIO:
        """Return where goes what is not the policy's, such as words of a library that found this when imported."""
        return self._before if sys.stdout is self else sys.stdout

    def _taker(self) -> Printed | None:
        """Return who counts what this thread prints; None if it is no policy's."""
        if threading.get_ident() == self._asking:
            return self
        if not self._takes_threads:
            return None
        thread = threading.current_thread()
        if thread not in _OWNERS and thread not in self._others:
            _OWNERS[thread] = self
        return _OWNERS.get(thread)

    def _follow_threads(self) -> None:
        for thread in threading.enumerate():
            if thread not in self._others and thread not in _OWNERS:
                _OWNERS[thread] = self
        if len(_OWNERS):
            sys.stdout, sys.stderr = _between(sys.stdout), _between(sys.stderr)


_OWNERS: weakref.WeakKeyDictionary[threading.Thread, Printed] = weakref.WeakKeyDictionary()


class _Between(io.TextIOBase):
    """Stands for standard output or error between calls, while threads of policies live."""

    def __init__(self, behind: TextIO) -> None:
        self.behind = behind
        self.buffer = _Bytes(self._write_bytes)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        owner = _OWNERS.get(threading.current_thread())
        if owner is None:
            return self.behind.write(text)
        owner.note(text)
        return len(text)

    def flush(self) -> None:
        self.behind.flush()

    def fileno(self) -> int:
        return self.behind.fileno()

    def _write_bytes(self, data: bytes) -> int:
        owner = _OWNERS.get(threading.current_thread())
        if owner is None:
            return _write_bytes(self.behind, data)
        owner.note(data.decode("latin-1"))
        return len(data)


def _between(stream: Any) -> Any:
    return stream if isinstance(stream, _Between) else _Between(stream)


def _write_bytes(stream: TextIO, data: bytes) -> int:
    stream.flush()
    written = stream.buffer.write(data)
    stream.buffer.flush()
    return written


class _Bytes(io.RawIOBase):
    """The binary side of a text stream."""

    def __init__(self, take: Callable[[bytes], int]) -> None:
        self._take = take

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._take(bytes(data))


# --------------------------------------------------------------------------------------------- descriptors


_NOWHERE: list[io.TextIOBase] = []


def nowhere() -> Any:
    """Return an open file that keeps nothing."""
    if not _NOWHERE:
        _NOWHERE.append(open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  it stays open
    return _NOWHERE[0]


@contextmanager
def silent_descriptors() -> Iterator[None]:
    """Send to nowhere what libraries write past Python."""
    kept = [os.dup(number) for number in (1, 2)]
    try:
        for number in (1, 2):
            os.dup2(nowhere().fileno(), number)
        yield
    finally:
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
