"""A policy of anybody's, kept from harming the run: limited in time and output, random numbers and settings its own.

Whatever it does wrong becomes a `PolicyFailure` with the reason. An alarm interrupts Python that takes too long; a
process of its own that even the alarm cannot interrupt (a library that never returns) is ended.
"""

from __future__ import annotations

import copy
import faulthandler
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

import numpy as np

from benchmarks.guarded_output import Printed, TooMuchPrinted, nowhere, silent_descriptors
from benchmarks.guarded_state import ProcessState
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
        self._printed = Printed(self.limits.printed, takes_threads=self.limits.ends_process)
        self._state = ProcessState.seeded(seed)
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
                self._state.installed(),
                silent_descriptors() if self.limits.ends_process else nullcontext(),
                self._printed.captured(),
                _time_limit(limit_s, ends_process=self.limits.ends_process),
            ):
                answer = call()
        except InputError:
            raise
        except _TooSlow:
            raise PolicyFailure(f"{doing} took longer than {limit_s:g} s") from None
        except TooMuchPrinted:
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
        faulthandler.dump_traceback_later(limit_s + grace_s, exit=True, file=nowhere())
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
