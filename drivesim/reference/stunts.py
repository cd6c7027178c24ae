"""Stunts: short scripts of wheel and speed that ignore the road, as policies under training drive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_MAX_STEERING_RAD = 0.5
_SPEEDS_MPS = (0.0, 4.0, 8.0, 12.0, 12.0, 16.0)


@dataclass(kw_only=True, slots=True)
class Instant:
    """One step of a stunt; None leaves that part to the driver's own way."""

    steering_rad: float | None = None
    speed_mps: float | None = None
    shift_m: float | None = None  # to the left of the route, instead of the usual place


class Stunt:
    """A script of instants, taken one per step."""

    def __init__(self, instants: list[Instant]) -> None:
        """Take the instants in order."""
        self._left = instants[::-1]

    @property
    def is_over(self) -> bool:
        """Tell whether all instants have been taken."""
        return not self._left

    def pop(self) -> Instant:
        """Return the next instant; an empty one when the stunt is over."""
        return self._left.pop() if self._left else Instant()


def draw_stunt(rng: np.random.Generator, *, weights: dict[str, float], rate_hz: float) -> Stunt:
    """Draw a stunt.

    Args:
        rng: all chance.
        weights: relative frequency of the kinds, out of ``STUNTS``.
        rate_hz: steps per second.
    """
    kinds = list(weights)
    shares = np.array(list(weights.values()))
    kind = kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]
    return Stunt(STUNTS[kind](rng, rate_hz))


def _duration(rng: np.random.Generator, rate_hz: float, shortest_s: float, longest_s: float) -> int:
    return max(1, round(float(rng.uniform(shortest_s, longest_s)) * rate_hz))


def _wheel(rng: np.random.Generator) -> float:
    """Return a wheel angle to either side, at the stop in two of five cases."""
    size = _MAX_STEERING_RAD if rng.random() < 0.4 else float(rng.uniform(0.06, _MAX_STEERING_RAD))
    return size if rng.random() < 0.5 else -size


def _speed(rng: np.random.Generator) -> float:
    return float(rng.choice(_SPEEDS_MPS)) if rng.random() < 0.75 else float(rng.uniform(0.0, 20.0))


def _hard_turn(rng: np.random.Generator, rate_hz: float, speed_mps: float | None = None) -> list[Instant]:
    """Hold the wheel to one side, often the same time to the other side after it."""
    wheel, count = _wheel(rng), _duration(rng, rate_hz, 0.6, 2.0)
    instants = [Instant(steering_rad=wheel, speed_mps=speed_mps) for _ in range(count)]
    if rng.random() < 0.4:
        instants += [Instant(steering_rad=-wheel, speed_mps=speed_mps) for _ in range(count)]
    return instants


def _speed_step(rng: np.random.Generator, rate_hz: float) -> list[Instant]:
    speed_mps = _speed(rng)
    shortest_s = 1.2 + speed_mps / 8.0  # time to reach it
    return [
        Instant(speed_mps=speed_mps) for _ in range(_duration(rng, rate_hz, shortest_s, shortest_s + 2.0))
    ]


def _both(rng: np.random.Generator, rate_hz: float) -> list[Instant]:
    """Take a speed first, then turn hard at it."""
    speed_mps = float(rng.choice(_SPEEDS_MPS[1:]))
    run_up_s = 0.3 + speed_mps / 10.0
    run_up = [Instant(speed_mps=speed_mps) for _ in range(_duration(rng, rate_hz, 0.3, run_up_s))]
    return run_up + _hard_turn(rng, rate_hz, speed_mps)


def _slalom(rng: np.random.Generator, rate_hz: float) -> list[Instant]:
    wheel, half = _wheel(rng), _duration(rng, rate_hz, 0.35, 0.9)
    signs = [1.0] * (half // 2 + 1)
    for _ in range(int(rng.integers(2, 5))):
        signs += [-np.sign(signs[-1])] * half
    return [Instant(steering_rad=wheel * sign) for sign in signs]


def _random(rng: np.random.Generator, rate_hz: float) -> list[Instant]:
    """Draw a new action every few steps."""
    instants: list[Instant] = []
    for _ in range(int(rng.integers(3, 8))):
        wheel = float(rng.uniform(-_MAX_STEERING_RAD, _MAX_STEERING_RAD))
        speed_mps = float(rng.uniform(0.0, 16.0))
        instants += [Instant(steering_rad=wheel, speed_mps=speed_mps)] * _duration(rng, rate_hz, 0.16, 0.8)
    return instants


def _frozen(rng: np.random.Generator, rate_hz: float) -> list[Instant]:
    """Hold one action, as an untrained policy does."""
    wheel, speed_mps = float(rng.normal(0.0, 0.1)), _speed(rng)
    return [
        Instant(steering_rad=wheel, speed_mps=speed_mps) for _ in range(_duration(rng, rate_hz, 1.0, 3.0))
    ]


def _run_off(rng: np.random.Generator, rate_hz: float) -> list[Instant]:
    """Drive beside the road for a while."""
    shift_m = float(rng.uniform(3.5, 11.0)) * (1.0 if rng.random() < 0.5 else -1.0)
    return [Instant(shift_m=shift_m) for _ in range(_duration(rng, rate_hz, 1.5, 4.0))]


STUNTS: dict[str, Callable[[np.random.Generator, float], list[Instant]]] = {
    "hard-turn": _hard_turn,
    "speed-step": _speed_step,
    "both": _both,
    "slalom": _slalom,
    "random": _random,
    "frozen": _frozen,
    "run-off": _run_off,
}
"""All kinds of stunts by name."""
