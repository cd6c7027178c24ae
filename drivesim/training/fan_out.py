"""Work spread over processes of this machine, or over machines through Ray; results come back in order.

A process that dies (killed, out of memory, hung up for good) costs its own job only. Jobs are taken one after another
as there is room for them, so that they may be made when they are asked for. This is the one door to Ray.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar, cast

from drivesim.errors import InputError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
Function = Callable[[JobT], ResultT]
OnResult = Callable[[int, ResultT], None]
OnDeath = Callable[[JobT], ResultT]

JOIN_S = 5.0
RAY_JOBS_PER_CPU = 2  # that are waiting or at work at a time


def fan_out(
    function: Function[JobT, ResultT],
    jobs: Iterable[JobT],
    *,
    processes: int = 1,
    setting: str = "--processes",
    ray_address: str | None = None,
    ray_resources: Mapping[str, float] | None = None,
    on_result: OnResult[ResultT] | None = None,
    on_death: OnDeath[JobT, ResultT] | None = None,
) -> list[ResultT]:
    """Return ``function`` of each job, in the order of the jobs.

    Args:
        function: of a module, or a ``functools.partial`` of one, so that other processes can import it.
        jobs: what it is called with; an iterator is asked for the next one when somebody is free.
        processes: spawned processes to share the jobs; 0 works in this one.
        setting: which setting says how many processes there are, for errors.
        ray_address: of a Ray cluster (``auto``, ``ray://HOST:10001``) whose machines share the jobs instead;
            ``local`` starts one on this machine.
        ray_resources: what a job needs of a machine, such as ``{"num_gpus": 1}``.
        on_result: called here with the job's index and its result as soon as there is one, in any order.
        on_death: makes the result of a job whose process died; without it that is an error.

    Raises:
        InputError: a negative number of processes, Ray is missing or cannot be reached, or a process died.
        Exception: whatever ``function`` raised; the other jobs are given up.
    """
    if processes < 0:
        raise InputError(f"{setting} must be 0 or more, got {processes}")
    results: dict[int, ResultT] = {}

    def take(index: int, result: ResultT) -> None:
        results[index] = result
        if on_result is not None:
            on_result(index, result)

    if ray_address is not None:
        _over_machines(
            function, enumerate(jobs), _opened_ray(ray_address), ray_resources or {}, take, on_death
        )
    elif processes == 0:
        for index, job in enumerate(jobs):
            take(index, function(job))
    else:
        _over_processes(function, enumerate(jobs), processes, take, on_death or _refused(setting))
    return [results[index] for index in range(len(results))]


def _refused(setting: str) -> OnDeath[Any, Any]:
    def refuse(_job: object) -> Any:
        raise InputError(
            "a process that shared the work was killed, as happens when memory runs out; "
            f"lower {setting} and start again"
        )

    return refuse


# ------------------------------------------------------------------------------------------------ processes


@dataclass(kw_only=True, slots=True)
class _Worker(Generic[JobT]):
    """A process, our end of its pipe, and the job it has."""

    process: BaseProcess
    pipe: Connection
    index: int
    job: JobT

    def give(self, index: int, job: JobT) -> None:
        self.index, self.job = index, job
        with suppress(ConnectionError):  # a process that has died is noticed when it does not answer
            self.pipe.send(job)

    def stop(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join(JOIN_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _over_processes(
    function: Function[JobT, ResultT],
    waiting: Iterator[tuple[int, JobT]],
    processes: int,
    take: OnResult[ResultT],
    on_death: OnDeath[JobT, ResultT],
) -> None:
    workers: list[_Worker[JobT]] = []
    try:
        for index, job in islice(waiting, processes):
            workers.append(_started(function, index, job))
        while workers:
            for pipe in connection.wait([worker.pipe for worker in workers]):
                worker = next(worker for worker in workers if worker.pipe is pipe)
                is_alive = _take_answer(worker, take, on_death)
                following = next(waiting, None)
                if following is not None and is_alive:
                    worker.give(*following)
                    continue
                workers.remove(worker)
                worker.stop()
                if following is not None:
                    workers.append(_started(function, *following))
    finally:
        for worker in workers:
            worker.stop()


def _started(function: Function[JobT, ResultT], index: int, job: JobT) -> _Worker[JobT]:
    context = get_context("spawn")  # a process that uses threads must not be forked
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function), daemon=True)
    process.start()
    theirs.close()  # so that the death of the process ends the pipe
    worker = _Worker(process=process, pipe=ours, index=index, job=job)
    worker.give(index, job)
    return worker


def _take_answer(worker: _Worker[JobT], take: OnResult[ResultT], on_death: OnDeath[JobT, ResultT]) -> bool:
    """Take what a process has to say; False if it died before it could."""
    try:
        is_result, answer = worker.pipe.recv()
    except (EOFError, ConnectionError):
        take(worker.index, on_death(worker.job))
        return False
    if not is_result:
        raise cast(Exception, answer)
    take(worker.index, cast(ResultT, answer))
    return True


def _serve(pipe: Connection, function: Function[Any, Any]) -> None:
    """Answer jobs until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that has the terminal
    while True:
        try:
            job = pipe.recv()
        except (EOFError, ConnectionError):
            return
        try:
            answer: tuple[bool, Any] = (True, function(job))
        except Exception as error:
            answer = (False, error)
        _send(pipe, answer)


def _send(pipe: Connection, answer: tuple[bool, Any]) -> None:
    try:
        pipe.send(answer)
    except (EOFError, ConnectionError):
        return  # nobody waits for it any more
    except Exception as error:  # it cannot be pickled
        pipe.send((False, RuntimeError(f"{answer[1]!r} cannot be sent between processes: {error}")))


# ------------------------------------------------------------------------------------------------- machines


def _over_machines(
    function: Function[JobT, ResultT],
    waiting: Iterator[tuple[int, JobT]],
    ray: Any,
    resources: Mapping[str, float],
    take: OnResult[ResultT],
    on_death: OnDeath[JobT, ResultT] | None,
) -> None:
    task = ray.remote(max_retries=0, **resources)(_call)
    most = max(1, RAY_JOBS_PER_CPU * int(ray.cluster_resources().get("CPU", 1)))
    started: dict[Any, tuple[int, JobT]] = {}
    try:
        while True:
            for index, job in islice(waiting, most - len(started)):
                started[task.remote(function, job)] = (index, job)
            if not started:
                return
            ready, _ = ray.wait(list(started), num_returns=1)
            for reference in ready:
                index, job = started.pop(reference)
                take(index, _fetched(ray, reference, job, on_death))
    finally:
        for reference in started:
            ray.cancel(reference, force=True)


def _opened_ray(address: str) -> Any:
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise InputError("--ray needs Ray: pip install 'drivesim[ray]'") from error
    try:
        ray.init(address=address, ignore_reinit_error=True)
    except Exception as error:  # Ray raises errors of many kinds
        raise InputError(f"no Ray cluster answers at {address!r} ({error}); check --ray") from error
    return ray


def _fetched(ray: Any, reference: Any, job: JobT, on_death: OnDeath[JobT, ResultT] | None) -> ResultT:
    try:
        is_result, answer = ray.get(reference)
    except (
        ray.exceptions.RayError
    ) as error:  # the worker or its machine died, ran out of memory, was lost ...
        if on_death is None:
            kind = type(error).__name__
            raise InputError(f"a Ray worker that shared the work died ({kind}); see Ray's own log") from error
        return on_death(job)
    if not is_result:
        raise cast(Exception, answer)
    return cast(ResultT, answer)


def _call(function: Function[Any, Any], job: Any) -> tuple[bool, Any]:
    """Return what the function made of the job, or what it raised, as it is (Ray would wrap it)."""
    try:
        return True, function(job)
    except Exception as error:
        return False, error
