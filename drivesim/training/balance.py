"""Which clips a training run sees: wanted shares of what happens in them, and the choice of windows that have it.

Worlds and drivers stay as they are drawn; only which of them, and which part of a drive, is taken is decided here. Pure
functions of numbers and generators: nothing here knows the reference world.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from einops import reduce
from numpy.typing import NDArray

from drivesim.errors import nearest
from drivesim.scene.geometry import FloatArray

Shares = dict[str, float]

BANDS: dict[str, dict[str, tuple[float, float]]] = {
    "turning": {"straight": (0.0, 0.06), "bending": (0.06, 0.25), "sharp": (0.25, np.inf)},
    "speed": {"slow": (0.0, 5.0), "medium": (5.0, 10.0), "fast": (10.0, np.inf)},
    "traffic": {"none": (0.0, 0.1), "light": (0.1, 1.2), "busy": (1.2, np.inf)},
}
"""Classes of a clip: its mean |yaw rate| in rad/s, mean speed in m/s, mean number of cars in view."""

WEATHER = ("clear", "overcast", "haze", "rain")
EVENTS = ("none", "halt", "crash")
"""What the first clip of a drive shows besides: nothing wanted, standing for a tenth of the time, a crash."""

USUAL_MOTION = {
    "good": ((5, 18, 5), (4, 49, 12), (0, 7, 0)),
    "sloppy": ((0, 1, 0), (5, 27, 10), (5, 41, 10)),
    "swerving": ((0, 0, 0), (2, 20, 3), (7, 57, 11)),
    "leaving-road": ((0, 1, 0), (3, 15, 4), (8, 66, 3)),
    "stop-and-go": ((4, 20, 8), (2, 31, 8), (0, 20, 7)),
    "speeding": ((0, 5, 10), (0, 21, 23), (1, 14, 27)),
    "bursts": ((0, 1, 1), (2, 8, 4), (11, 62, 10)),
    "random": ((0, 0, 0), (10, 5, 0), (9, 75, 0)),
    "near-collision": ((3, 9, 3), (3, 19, 24), (0, 31, 9)),
    "collision": ((0, 7, 1), (2, 27, 20), (2, 35, 5)),
}
"""Per cent of the 8 s windows of each driver by turning (rows) and speed (columns), as drawn: 45 roads a driver."""

USUAL_EVENTS = {
    "good": (0, 0),
    "sloppy": (2, 2),
    "swerving": (2, 6),
    "leaving-road": (4, 4),
    "stop-and-go": (20, 6),
    "speeding": (0, 1),
    "bursts": (4, 4),
    "random": (24, 6),
    "near-collision": (0, 1),
    "collision": (13, 30),
}
"""Per cent of the 16 s drives of each driver with a halt and with a crash, the first third aside, as drawn."""

_SCALES = {"turning": 0.1, "speed": 3.0, "traffic": 0.5}
"""How far outside its band a value must be to count as one whole mismatch."""

_CRASHED_MISMATCH = 10.0
_NO_CRASH_MISMATCH = 3.0  # of windows without a wanted crash: rare as it is, the rest may be off
_TWIN_MISMATCH = 1.0  # of a window less than a quarter of its length from another
_OVERLAP_MISMATCH = 1e-3  # decides among equally good windows only
_HALT_SHARE = 0.1  # of a clip's frames, at less than this speed:
_STANDING_MPS = 0.5
_LEAST_SHARE = 0.002  # of a driver's windows are taken to have what was never seen
_NUM_FITTING_ROUNDS = 200
_STEPS = np.sqrt([5.0, 2.0, 3.0]) % 1.0


@dataclass(kw_only=True, slots=True)
class BalanceConfig:
    """Wanted shares of the clips, one table per kind of thing; the tables are scaled to sum 1."""

    drivers: Shares = field(
        default_factory=lambda: {
            "good": 0.24,
            "sloppy": 0.08,
            "swerving": 0.08,
            "leaving-road": 0.07,
            "stop-and-go": 0.1,
            "speeding": 0.1,
            "bursts": 0.18,
            "random": 0.05,
            "near-collision": 0.05,
            "collision": 0.05,
        }
    )
    weather: Shares = field(
        default_factory=lambda: {"clear": 0.3, "overcast": 0.25, "haze": 0.2, "rain": 0.25}
    )
    traffic: Shares = field(default_factory=lambda: {"none": 0.3, "light": 0.35, "busy": 0.35})
    turning: Shares = field(default_factory=lambda: {"straight": 0.2, "bending": 0.4, "sharp": 0.4})
    speed: Shares = field(default_factory=lambda: {"slow": 0.15, "medium": 0.5, "fast": 0.35})
    events: Shares = field(default_factory=lambda: {"none": 0.86, "halt": 0.08, "crash": 0.06})  # of drives
    max_drives: int = 4  # driven, but not drawn, in search of what is wanted; then the nearest is taken
    max_crashed_share: float = 0.25  # of a clip's frames may follow a crash that was not wanted

    def __post_init__(self) -> None:
        """Refuse tables that name unknown classes or nothing at all."""
        known = {"drivers": tuple(USUAL_MOTION), "weather": WEATHER, "events": EVENTS}
        known |= {axis: tuple(bands) for axis, bands in BANDS.items()}
        for table, names in known.items():
            shares: Shares = getattr(self, table)
            for name in shares:
                if name not in names:
                    raise ValueError(f"balance.{table} has no {name!r}; {nearest(name, names)}")
            if any(share < 0 for share in shares.values()) or not sum(shares.values()) > 0:
                raise ValueError(f"balance.{table} needs shares of at least 0, not all 0; got {shares}")
        if self.max_drives < 1 or not 0 <= self.max_crashed_share <= 1:
            raise ValueError(
                "balance.max_drives must be >= 1 and balance.max_crashed_share in [0, 1], "
                f"got {self.max_drives} and {self.max_crashed_share}"
            )


@dataclass(kw_only=True, slots=True)
class Target:
    """What a drive and all clips cut from it are to be like."""

    driver: str
    weather: str
    turning: str
    speed: str
    traffic: str
    event: str = "none"  # of the first clip


@dataclass(kw_only=True, slots=True)
class DriveMotion:
    """What is known of a drive of T instants before anything is drawn."""

    speed_mps: FloatArray  # (T,)
    yaw_rate_radps: FloatArray  # (T,)
    num_cars_in_view: FloatArray  # (T,)
    is_collision: NDArray[np.bool_]  # (T,)


@dataclass(kw_only=True, slots=True)
class Choice:
    """Windows of a drive, and how far they are from what was wanted; 0 is a hit."""

    starts: list[int]
    mismatch: float


class TargetTable:
    """Targets with the wanted shares of drivers, turning, speed and events, joined as they usually come if possible.

    Fast drivers turn little and good ones never sharply: drawn apart, many targets could not be met. So the usual
    joint shares are scaled until every table has the wanted sums (iterative proportional fitting).
    """

    def __init__(self, config: BalanceConfig) -> None:
        """Fit the joint shares."""
        self._config = config
        self._names = {
            "drivers": list(USUAL_MOTION),
            "turning": list(BANDS["turning"]),
            "speed": list(BANDS["speed"]),
            "events": list(EVENTS),
        }
        wanted = [_wanted(getattr(config, table), names) for table, names in self._names.items()]
        self.shares = fit_shares(_usual_shares(), wanted)  # (drivers, turning, speed, events)

    def target(self, number: int, phase: FloatArray) -> Target:
        """Return what a drive is to be like.

        Drives in a row share the tables out evenly, where independent draws would leave gaps: place ``number`` of a
        low-discrepancy (Kronecker) sequence decides.

        Args:
            number: of the drive.
            phase: (3,) in [0, 1), where the sequence begins.
        """
        joint, weather, traffic = (phase + number * _STEPS) % 1.0
        places = np.unravel_index(_place(self.shares.ravel(), joint), self.shares.shape)
        driver, turning, speed, event = (
            names[int(place)] for names, place in zip(self._names.values(), places, strict=True)
        )
        cars = dict(self._config.traffic)
        if event == "crash" and sum(cars.values()) > cars.get("none", 0.0):
            cars.pop("none", None)  # there must be somebody to hit
        return Target(
            driver=driver,
            turning=turning,
            speed=speed,
            event=event,
            weather=_name_at(self._config.weather, weather),
            traffic=_name_at(cars, traffic),
        )


def fit_shares(usual: FloatArray, wanted: Sequence[FloatArray]) -> FloatArray:
    """Scale a positive table until its sums along each axis are the wanted shares; the result sums to 1."""
    table = usual / usual.sum()
    letters = "abcdefgh"[: table.ndim]
    for _ in range(_NUM_FITTING_ROUNDS):
        for axis, shares in enumerate(wanted):
            sums = reduce(table, f"{' '.join(letters)} -> {letters[axis]}", "sum")
            factors = np.divide(shares, sums, out=np.zeros_like(sums), where=sums > 0)
            table = table * np.expand_dims(factors, [other for other in range(table.ndim) if other != axis])
    return np.asarray(table / table.sum())


def class_of(axis: str, value: float) -> str:
    """Return the class of a value on an axis of `BANDS`."""
    return next(name for name, (low, high) in BANDS[axis].items() if low <= value < high)


def measured_shares(classes: Sequence[str]) -> Shares:
    """Return the shares of names in a list of them."""
    return {name: count / len(classes) for name, count in Counter(classes).items()}


def window_values(motion: DriveMotion, num_frames: int) -> dict[str, FloatArray]:
    """Return for every start of a window of ``num_frames`` its value on each axis of `BANDS`."""
    series = {
        "turning": np.abs(motion.yaw_rate_radps),
        "speed": motion.speed_mps,
        "traffic": motion.num_cars_in_view,
    }
    return {axis: _window_means(values, num_frames) for axis, values in series.items()}


def mismatch(values: Mapping[str, FloatArray], target: Target) -> FloatArray:
    """Return for every start how far its window is from the wanted classes; 0 is inside all of them."""
    total = np.zeros_like(values["speed"])
    for axis, scale in _SCALES.items():
        low, high = BANDS[axis][getattr(target, axis)]
        outside = np.maximum(low - values[axis], values[axis] - np.nextafter(high, 0))
        total = total + np.maximum(outside, 0.0) / scale
    return total


def choose_windows(
    motion: DriveMotion,
    target: Target,
    *,
    num_windows: int,
    num_frames: int,
    max_crashed_share: float,
    rng: np.random.Generator,
) -> Choice:
    """Choose the windows that fit the target best and, among equals, overlap least; the rest is chance.

    Args:
        motion: at least as many frames as all windows together.
        target: what is wanted.
        num_windows: how many; the first is to show the event, the others are to lie apart.
        num_frames: length of the windows.
        max_crashed_share: windows with more frames after a crash count as far off, unless they are to show it.
        rng: all chance.
    """
    is_after_crash = np.logical_or.accumulate(motion.is_collision)
    is_crashed = _window_means(is_after_crash, num_frames) > max_crashed_share + 1e-9
    if target.event == "crash":  # many come early in a drive
        is_crashed &= event_mismatch(motion, "crash", num_frames) > 0
    distance = mismatch(window_values(motion, num_frames), target) + _CRASHED_MISMATCH * is_crashed
    places = np.arange(len(distance))
    rank = distance + event_mismatch(motion, target.event, num_frames)
    overlap = np.zeros_like(rank)
    starts: list[int] = []
    total = 0.0
    for _ in range(num_windows):
        best = np.flatnonzero(rank <= rank.min() + 1e-9)
        starts.append(int(rng.choice(best)))
        total += float(rank[starts[-1]] - overlap[starts[-1]])
        gaps = np.abs(places[:, None] - np.array(starts)) / num_frames
        overlap = _OVERLAP_MISMATCH * reduce(np.maximum(1 - gaps, 0.0), "place start -> place", "sum")
        is_twin = reduce(gaps, "place start -> place", "min") < 0.25
        rank = distance + _TWIN_MISMATCH * is_twin + overlap
    return Choice(starts=starts, mismatch=total)


def event_mismatch(motion: DriveMotion, event: str, num_frames: int) -> FloatArray:
    """Return for every start how far its window is from showing an event of `EVENTS`."""
    is_after_crash = np.logical_or.accumulate(motion.is_collision)
    if event == "halt":
        is_standing = (motion.speed_mps < _STANDING_MPS) & ~is_after_crash
        return np.maximum(_HALT_SHARE - _window_means(is_standing, num_frames), 0.0) / _HALT_SHARE
    if event == "crash":
        is_first = is_after_crash & ~np.concatenate([[False], is_after_crash[:-1]])
        return np.where(_window_means(is_first, num_frames) > 0, 0.0, _NO_CRASH_MISMATCH)
    return np.zeros(len(motion.speed_mps) - num_frames + 1)


def _usual_shares() -> FloatArray:
    """Return (drivers, turning, speed, events): how often each comes with the others, about."""
    motion = np.array(list(USUAL_MOTION.values()), dtype=np.float64) / 100
    events = np.array(list(USUAL_EVENTS.values()), dtype=np.float64) / 100
    events = np.concatenate([1 - events.sum(axis=1, keepdims=True), events], axis=1)
    shares = np.maximum(motion, _LEAST_SHARE)[..., None] * np.maximum(events, _LEAST_SHARE)[:, None, None]
    is_fast_halt = (slice(None), slice(None), list(BANDS["speed"]).index("fast"), EVENTS.index("halt"))
    shares[is_fast_halt] *= 0.1
    return np.asarray(shares)


def _name_at(shares: Shares, place: float) -> str:
    """Return the name whose stretch of [0, 1) holds a place; stretches are as long as the shares."""
    names = list(shares)
    return names[_place(_wanted(shares, names), place)]


def _place(shares: FloatArray, place: float) -> int:
    inside = np.searchsorted(np.cumsum(shares), place, side="right")
    return int(min(inside, np.flatnonzero(shares)[-1]))


def _wanted(shares: Shares, names: Sequence[str]) -> FloatArray:
    weights = np.array([shares.get(name, 0.0) for name in names])
    return np.asarray(weights / weights.sum())


def _window_means(values: NDArray[np.generic], num_frames: int) -> FloatArray:
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.asarray(np.maximum(sums[num_frames:] - sums[:-num_frames], 0.0) / num_frames)
