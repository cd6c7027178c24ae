"""A policy of anybody's, kept from harming the run: limited in time and output, with random numbers of its own.

Whatever it does wrong becomes a `PolicyFailure` with the reason. An alarm interrupts Python that takes too long; a
process of its own that even the alarm cannot interrupt (a library that never returns) is ended.
"""

from __future__ import annotations

import copy
import faulthandler
import io
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import torch

from drivesim.dynamics import VehicleConfig
from drivesim.errors import InputError
from drivesim.policy_loading import Action, Policy, make_policy
from drivesim.scene.types import Image
from envs.spaces import action_space, checked_action

AnswerT = TypeVar("AnswerT")

SETUP_LIMIT_S = 120.0  # to import and make a policy, which may read weights
MAX_PRINTED = 1_000_000  # characters per episode
MOST_GRACE_S = 5.0  # between the alarm and the end of the process; else as long as the limit
ALARM_AGAIN_S = 1.0  # a policy may have swallowed the first
MAX_REASON = 300  # characters


class PolicyFailure(Exception):
    """What a policy did wrong, in one sentence."""


class _TooSlow(BaseException):
    """Raised by the alarm; no Exception, so that fewer policies swallow it."""


class _TooMuchPrinted(BaseException):
    """Raised by the write that goes beyond the limit."""


@dataclass(kw_only=True, slots=True)
class Limits:
    """What a policy may take."""

    action_s: float = 10.0
    setup_s: float = SETUP_LIMIT_S
    printed: int = MAX_PRINTED
    ends_process: bool = False  # whether this process is there for the policies only

    def __post_init__(self) -> None:
        """Refuse limits that no policy can keep."""
        if not self.action_s > 0:
            raise InputError(f"--time-limit must be positive, got {self.action_s}")


class GuardedPolicy:
    """One policy for one episode; after a failure it is not asked again."""

    def __init__(
        self, name: str, *, seed: int, limits: Limits | None = None, vehicle: VehicleConfig | None = None
    ) -> None:
        """Make the policy.

        Args:
            name: as `drivesim.policy_loading.load_policy` takes it.
            seed: of the policy, if it takes one, and of Python's, NumPy's and PyTorch's global generators.
            limits: of time and output.
            vehicle: whose actions are possible.

        Raises:
            InputError: the policy does not exist or cannot be made.
            PolicyFailure: making it took too long or printed too much.
        """
        self.name, self.limits = name, limits or Limits()
        self.seconds = 0.0  # spent choosing actions
        self._space = action_space(vehicle or VehicleConfig())
        self._printed = _Printed(self.limits.printed)
        self._random = _RandomState.seeded(seed)
        made = self._guarded(lambda: make_policy(name, seed=seed), self.limits.setup_s, "making it")
        self._policy: Policy = made

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the policy's action; it gets copies, so it cannot change what is measured.

        Raises:
            PolicyFailure: it raised, took too long, printed too much, or its answer is no possible action.
        """
        shown, told = observation.copy(), copy.deepcopy(info)
        began = time.perf_counter()
        try:
            action = self._guarded(
                lambda: self._policy.select_action(shown, told), self.limits.action_s, "select_action"
            )
            self.seconds += time.perf_counter() - began
            return checked_action(action, self._space).astype(np.float32)
        except InputError as error:
            raise PolicyFailure(_shortened(str(error))) from error

    def _guarded(self, call: Callable[[], AnswerT], limit_s: float, doing: str) -> AnswerT:
        try:
            with (
                self._random.installed(),
                self._printed.captured(hides_descriptors=self.limits.ends_process),
                _time_limit(limit_s, ends_process=self.limits.ends_process),
            ):
                answer = call()
        except InputError:
            raise
        except _TooSlow:
            raise PolicyFailure(f"{doing} took longer than {limit_s:g} s") from None
        except _TooMuchPrinted:
            raise self._printed_failure() from None
        except BaseException as error:  # a policy may raise anything, SystemExit too
            if isinstance(error, KeyboardInterrupt) and not self.limits.ends_process:
                raise  # the user's
            raise PolicyFailure(f"{doing} raised {_shortened(_words(error))}") from error
        if self._printed.is_too_much:  # and it swallowed the exception
            raise self._printed_failure()
        return answer

    def _printed_failure(self) -> PolicyFailure:
        begin = self._printed.begin[:40].replace("\n", " ")
        return PolicyFailure(
            f"it printed more than {self.limits.printed} characters, beginning with {begin!r}"
        )


def _words(error: BaseException) -> str:
    said = str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _shortened(text: str) -> str:
    sentence = " ".join(text.split())
    return sentence if len(sentence) <= MAX_REASON else f"{sentence[: MAX_REASON - 3]}..."


# ----------------------------------------------------------------------------------------------- the clock


@contextmanager
def _time_limit(limit_s: float, *, ends_process: bool) -> Iterator[None]:
    """Raise `_TooSlow` inside the block when it takes too long; only the main thread can be interrupted."""
    can_interrupt = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if ends_process:  # the watchdog is a thread in C: it needs neither Python nor its lock
        grace_s = min(limit_s, MOST_GRACE_S)
        faulthandler.dump_traceback_later(limit_s + grace_s, exit=True, file=_nowhere())
    is_inside = True

    def ring(signal_number: int, frame: FrameType | None) -> None:
        del signal_number, frame
        if is_inside:
            raise _TooSlow

    if can_interrupt:
        previous = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, limit_s, ALARM_AGAIN_S)
    try:
        yield
    finally:
        is_inside = False
        if can_interrupt:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, previous)
        if ends_process:
            faulthandler.cancel_dump_traceback_later()


_NOWHERE: list[io.TextIOBase] = []


def _nowhere() -> Any:
    """Return an open file that keeps nothing."""
    if not _NOWHERE:
        _NOWHERE.append(open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  it stays open
    return _NOWHERE[0]


# ----------------------------------------------------------------------------------------------- the output


class _Printed(io.TextIOBase):
    """Takes what one thread prints, counts it and keeps the beginning; other threads print as before."""

    def __init__(self, limit: int) -> None:
        self.begin, self.count, self._limit = "", 0, limit
        self._owner, self._before = 0, sys.stdout

    @property
    def is_too_much(self) -> bool:
        return self.count > self._limit

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if threading.get_ident() != self._owner:
            return self._before.write(text)
        self.begin += text[: MAX_REASON - len(self.begin)]
        self.count += len(text)
        if self.is_too_much:
            raise _TooMuchPrinted
        return len(text)

    @contextmanager
    def captured(self, *, hides_descriptors: bool) -> Iterator[None]:
        """Take the place of standard output and error; what libraries write past Python goes nowhere."""
        before = sys.stdout, sys.stderr
        self._owner, self._before = threading.get_ident(), before[0]
        kept = [os.dup(number) for number in (1, 2)] if hides_descriptors else []
        try:
            for number in range(1, len(kept) + 1):
                os.dup2(_nowhere().fileno(), number)
            sys.stdout = sys.stderr = self
            yield
        finally:
            sys.stdout, sys.stderr = before
            for number, descriptor in enumerate(kept, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)


# --------------------------------------------------------------------------------------------- randomness


@dataclass(slots=True)
class _RandomState:
    """The global generators as one policy left them, so that policies side by side do not share numbers."""

    python: Any
    numpy: Any
    torch: torch.Tensor

    @classmethod
    def seeded(cls, seed: int) -> _RandomState:
        own = np.random.RandomState(seed % 2**32)
        return cls(
            random.Random(seed).getstate(), own.get_state(), torch.Generator().manual_seed(seed).get_state()
        )

    @classmethod
    def present(cls) -> _RandomState:
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002  that of policies

    def install(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.torch)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Put these generators in place, and keep them as they are afterwards."""
        outer = self.present()
        self.install()
        try:
            yield
        finally:
            now = self.present()
            self.python, self.numpy, self.torch = now.python, now.numpy, now.torch
            outer.install()
