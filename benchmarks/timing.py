"""Wall-clock times of things that are compared: taken in turns, so that a slow minute of the machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.report import Report
from drivesim import console


@dataclass(kw_only=True, slots=True, frozen=True)
class Timing:
    """Repeated measurements of one thing."""

    samples_s: Sequence[float]

    @property
    def median_s(self) -> float:
        """Return the middle of the samples, which one interruption does not move."""
        return median(self.samples_s)

    @property
    def min_s(self) -> float:
        """Return the fastest sample."""
        return min(self.samples_s)

    @property
    def max_s(self) -> float:
        """Return the slowest sample."""
        return max(self.samples_s)


def seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    started_s = time.perf_counter()
    call()
    return time.perf_counter() - started_s


def take_turns(
    title: str,
    contenders: Mapping[str, Callable[[], object]],
    *,
    num_rounds: int,
    num_warm_up: int = 1,
    num_calls: int = 1,
) -> dict[str, Timing]:
    """Time every contender in every round, in an order that turns around from round to round.

    Args:
        title: What is being timed, for the progress line.
        contenders: What to call, by name.
        num_rounds: Samples per contender.
        num_warm_up: Calls of each that are not counted, before the first round.
        num_calls: Calls in a row that make a sample, which is their mean: more than one for what is called again and
            again in use, and would otherwise pay each time for caches that the contender before it left to it.
    """
    for call in contenders.values():
        for _ in range(num_warm_up):
            call()
    samples_s: dict[str, list[float]] = {name: [] for name in contenders}
    with console.progress_bar(title, num_rounds) as bar:
        for round_index in range(num_rounds):
            names = list(contenders)
            for name in names if round_index % 2 == 0 else reversed(names):
                seconds = [seconds_of(contenders[name]) for _ in range(num_calls)]
                samples_s[name].append(sum(seconds) / num_calls)
            bar.advance()
    return {name: Timing(samples_s=samples) for name, samples in samples_s.items()}


def add_timings(
    report: Report, name: str, timings: Mapping[str, Timing], *, per: int = 1, note: str = ""
) -> None:
    """Add medians in milliseconds as ``name``, and ``name_min`` and ``name_max``; ``per`` divides them all."""
    for key, timing in timings.items():
        report.add(name, 1e3 * timing.median_s / per, key=key, note=note)
    for key, timing in timings.items():
        report.add(f"{name}_min", 1e3 * timing.min_s / per, key=key)
        report.add(f"{name}_max", 1e3 * timing.max_s / per, key=key)
