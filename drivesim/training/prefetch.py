"""Batches made ahead by a thread, so that an accelerator never waits for disk or recording processes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

_POLL_S = 0.2


class Prefetcher:
    """Iterate over ``batches`` one thread ahead, in order; use as a context manager so that the thread ends.

    Args:
        batches: What to iterate over; from now on only the thread touches it.
        prepare: Applied to every batch in the thread, such as the copy to the device.
        depth: Batches kept ready. 0 does everything in the caller's thread, which suits training on the CPU,
            where a second thread would only fight for the same cores.
    """

    def __init__(
        self, batches: Iterator[Any], *, depth: int, prepare: Callable[[Any], Any] | None = None
    ) -> None:
        self._batches, self._prepare = batches, prepare
        self._ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(max(1, depth))
        self._is_closed = threading.Event()
        self._thread = (
            threading.Thread(target=self._fill, name="prefetch", daemon=True) if depth > 0 else None
        )

    def __enter__(self) -> Prefetcher:
        """Start the thread."""
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread and the source of the batches; those that are ready are dropped."""
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join()
        close = getattr(self._batches, "close", None)
        if close is not None:  # a generator, which may hold processes
            close()

    def __iter__(self) -> Prefetcher:
        """Return itself."""
        return self

    def __next__(self) -> Any:
        """Return the next batch; an error in the thread is raised here."""
        if self._thread is None:
            return self._next_prepared()
        batch, error = self._ready.get()
        if error is not None:
            raise error
        return batch

    def _next_prepared(self) -> Any:
        batch = next(self._batches)
        return batch if self._prepare is None else self._prepare(batch)

    def _fill(self) -> None:
        while not self._is_closed.is_set():
            try:
                item: tuple[Any, BaseException | None] = (self._next_prepared(), None)
            except BaseException as error:
                item = (None, error)
            self._put(item)
            if item[1] is not None:
                return

    def _put(self, item: tuple[Any, BaseException | None]) -> None:
        while not self._is_closed.is_set():
            try:
                return self._ready.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
