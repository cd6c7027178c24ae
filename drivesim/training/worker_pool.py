"""Work spread over processes, in order, for what is made before a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from drivesim.errors import InputError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
JOBS_AT_ONCE = 512  # results wait in memory until they are taken


def worked(
    work: Callable[[JobT], ResultT],
    jobs: Sequence[JobT],
    *,
    num_workers: int,
    doing: str,
    setting: str,
    jobs_per_call: int = 4,
) -> Iterator[ResultT]:
    """Yield ``work`` of each job, in order.

    Args:
        work: a function of a module, which other processes can import.
        jobs: what it is called with.
        num_workers: processes; 1 works in this one.
        doing: what the processes do, for the error.
        setting: which setting says how many there are.
        jobs_per_call: jobs that a process is given at a time.

    Raises:
        InputError: a process died.
    """
    if num_workers == 1:
        yield from map(work, jobs)
        return
    try:
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            for start in range(0, len(jobs), JOBS_AT_ONCE):
                yield from pool.map(work, jobs[start : start + JOBS_AT_ONCE], chunksize=jobs_per_call)
    except BrokenProcessPool as error:
        raise InputError(
            f"one of {num_workers} {doing} processes was killed, as happens when memory runs out; "
            f"lower {setting} and start again"
        ) from error
