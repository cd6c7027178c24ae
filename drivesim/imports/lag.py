"""By how many pictures recorded turns come too early or too late, and whether their sign is opposite.

The turns seen in the pictures are compared with the recorded ones, shifted by every lag. Pictures of a street mislead
the eye for seconds on end, so the error of one picture says something of the next: both series are freed of what an
error that decays would explain before they are compared. Pictures of a car that stands show no turn without any error,
which says nothing of the error elsewhere, so long stands are left out. Letters: `L` lags, `N` intervals between
pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.imports.drive_log import Signal
from drivesim.imports.survey import SeenTurns
from drivesim.scene.can_motion import interval_means
from drivesim.scene.geometry import FloatArray

Bools = NDArray[np.bool_]

LAGS = np.arange(-6, 11)
"""Pictures by which recorded turns may come too early."""

MIN_INTERVALS = 24
MIN_RECORDED_RADPS = 0.01  # standard deviation of the recorded yaw rate: with less the car hardly turns
MIN_EXPLAINED_SHARE = 0.15  # of the variance of seen turns, by recorded ones of another drive 1 % at most
MIN_EVIDENCE = 15.0  # log likelihood ratio against turns that have nothing to do with each other
MIN_SIGN_EVIDENCE = 6.0  # against the other sign at any lag
RIVAL_EVIDENCE = 2.0  # lags that are less likely by this much are still possible
MAX_GAIN = 2.0
_STANDING_RADPS = 1e-3  # no more is seen between two pictures of a car that stands, unless the camera shakes
_STANDING_KEPT = 3  # intervals before and after a motion: when it begins and ends says something of the lag
_DEGREES = 4.0  # of freedom of Student's t
_LEAST_ERROR_RADPS = 0.002
_NUM_REWEIGHTINGS = 12
_NUM_ROUNDS = 3
_MAX_MEMORY = 0.98


@dataclass(kw_only=True, slots=True)
class Evidence:
    """Log likelihood ratio of every lag, for turns of the same and of the opposite sign."""

    same: FloatArray  # (L,) 0 where the sign is opposite
    opposite: FloatArray  # (L,)
    gain: FloatArray  # (L,) of what is seen to what was recorded
    num_intervals: int
    recorded_radps: float  # standard deviation of the recorded yaw rate


@dataclass(kw_only=True, slots=True, frozen=True)
class LagEstimate:
    """What the pictures say; lag and sign are None where they cannot tell, and ``why_not`` says why."""

    lag_frames: int | None
    is_opposite: bool | None
    possible_lags: tuple[int, int]
    explained_share: float  # of the variance of what is seen
    gain: float = 1.0  # of seen turns to recorded ones; 1 where lens, units and steering ratio are right
    why_not: str = ""

    @property
    def words(self) -> str:
        """Return the estimate in words."""
        if self.lag_frames is None:
            return f"cannot tell: {self.why_not}"
        count = abs(self.lag_frames)
        pictures = f"{count} picture{'s' if count != 1 else ''}"
        when = f"{pictures} too {'early' if self.lag_frames > 0 else 'late'}" if count else "in time"
        low, high = self.possible_lags
        doubt = f" ({low} to {high} are possible)" if low != high else ""
        return f"{when}{doubt}, sign {'opposite' if self.is_opposite else 'right'}, {self.size_words}"

    def allows(self, lag_frames: int) -> bool:
        """Tell whether a lag is one of those that may be right."""
        return self.possible_lags[0] <= lag_frames <= self.possible_lags[1]

    @property
    def has_right_size(self) -> bool:
        """Tell whether recorded turns are about as large as they are seen, as far as an assumed lens can say."""
        return self.lag_frames is None or 1 / MAX_GAIN <= self.gain <= MAX_GAIN

    @property
    def size_words(self) -> str:
        """Return in words how large recorded turns are."""
        return f"seen turns are {self.gain:.2g} times the recorded ones"


def evidence_of(seen: SeenTurns, recorded: Signal, *, interval_s: float) -> Evidence:
    """Compare turns that are seen between pictures with recorded ones.

    Args:
        seen: turns in any scale, left positive.
        recorded: yaw rates, left positive if all is right.
        interval_s: the time from one picture to the next, in which lags are counted.
    """
    first_s, last_s = recorded.times_s[0], recorded.times_s[-1]
    is_valid = (
        np.isfinite(seen.radps)
        & (seen.start_s >= first_s + LAGS[-1] * interval_s - 1e-9)
        & (seen.end_s <= last_s + LAGS[0] * interval_s + 1e-9)
    )
    nothing = np.zeros(len(LAGS))
    if _is_pair(seen, is_valid).sum() < MIN_INTERVALS:
        return Evidence(same=nothing, opposite=nothing, gain=nothing, num_intervals=0, recorded_radps=0.0)
    told = np.stack([_told(recorded, seen, lag * interval_s) for lag in LAGS])
    in_time = told[-LAGS[0]]
    is_near = is_valid & _is_near_motion(seen)
    is_pair = _is_pair(seen, is_near)
    if is_pair.sum() < MIN_INTERVALS or in_time[is_near].std() < 1e-9:
        spread = float(in_time[is_valid].std())
        count = max(int(is_pair.sum()), 1)  # of a stand, which must not weigh against other recordings
        return Evidence(
            same=nothing, opposite=nothing, gain=nothing, num_intervals=count, recorded_radps=spread
        )
    gain, likelihood = _likelihoods(np.where(is_near, seen.radps, 0.0), told, is_near, is_pair)
    return Evidence(
        same=np.where(gain > 0, likelihood, 0.0),
        opposite=np.where(gain < 0, likelihood, 0.0),
        gain=gain,
        num_intervals=int(is_pair.sum()),
        recorded_radps=float(in_time[is_near].std()),
    )


def _is_pair(seen: SeenTurns, is_valid: Bools) -> Bools:
    """Tell of each interval but the first whether it and the one just before it are valid."""
    is_next = np.abs(seen.start_s[1:] - seen.end_s[:-1]) < 1e-6
    return np.asarray(is_valid[1:] & is_valid[:-1] & is_next)


def _is_near_motion(seen: SeenTurns) -> Bools:
    """Tell of each of at least one interval whether something moves in it, just did or will at once."""
    is_moving = np.abs(np.nan_to_num(seen.radps)) > _STANDING_RADPS
    near = np.convolve(is_moving, np.ones(2 * _STANDING_KEPT + 1))[_STANDING_KEPT:] > 0.5
    return np.asarray(near[: len(is_moving)])


def _told(recorded: Signal, seen: SeenTurns, delay_s: float) -> FloatArray:
    """Return the recorded means over the intervals in which turns were looked for."""
    instants_s = np.union1d(seen.start_s, seen.end_s)
    means = interval_means(recorded.times_s + delay_s, recorded.values, instants_s)
    turned = np.concatenate([[0.0], np.cumsum(means * np.diff(instants_s))])
    first, last = np.searchsorted(instants_s, seen.start_s), np.searchsorted(instants_s, seen.end_s)
    return np.asarray((turned[last] - turned[first]) / (seen.end_s - seen.start_s))


def _likelihoods(
    seen: FloatArray, told: FloatArray, is_valid: Bools, is_pair: Bools
) -> tuple[FloatArray, FloatArray]:
    """Return the (L,) gains and log likelihood ratios; the memory of the errors is that at the best lag."""
    memory = 0.5
    for _ in range(_NUM_ROUNDS):
        seen_new = _centred((seen[1:] - memory * seen[:-1])[is_pair])
        told_new = _centred((told[:, 1:] - memory * told[:, :-1])[:, is_pair])
        gain, likelihood = _fit(seen_new, told_new)
        best = int(np.argmax(likelihood))
        error = seen - gain[best] * told[best]
        error = np.clip(error - np.median(error[is_valid]), *_usual_range(error[is_valid]))
        after, before = error[1:][is_pair], error[:-1][is_pair]
        size = float(np.sqrt((after @ after) * (before @ before)))
        memory = float(np.clip(after @ before / size, 0.0, _MAX_MEMORY)) if size > 1e-12 else 0.0
    nothing_told = np.zeros((1, len(seen_new)))
    return gain, np.maximum(likelihood - _fit(seen_new, nothing_told)[1], 0.0)


def _usual_range(error: FloatArray) -> tuple[float, float]:
    spread = 3.0 * float(np.median(np.abs(error - np.median(error)))) / 0.67 + 1e-12
    return -spread, spread


def _fit(seen: FloatArray, told: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fit (N,) seen turns as multiples of (L, N) recorded ones, with errors as Student's t has them.

    Returns:
        The (L,) multiples and log likelihoods: a corner followed wrongly now and then costs little.
    """
    weight = np.ones_like(told)
    for _ in range(_NUM_REWEIGHTINGS):
        gain = (weight * told * seen).sum(axis=1) / ((weight * told**2).sum(axis=1) + 1e-15)
        square = (seen - gain[:, None] * told) ** 2
        variance = np.maximum((weight * square).mean(axis=1), _LEAST_ERROR_RADPS**2)[:, None]
        weight = (_DEGREES + 1) / (_DEGREES + square / variance)
    tails = (0.5 * (_DEGREES + 1) * np.log1p(square / variance / _DEGREES)).sum(axis=1)
    return gain, -0.5 * len(seen) * np.log(variance[:, 0]) - tails


def _centred(values: FloatArray) -> FloatArray:
    return np.asarray(values - values.mean(axis=-1, keepdims=True))


def estimate(evidence: Sequence[Evidence]) -> LagEstimate:
    """Return the lag and sign that explain one recording, or several of one recorder together."""
    num = sum(each.num_intervals for each in evidence)
    nobody = (int(LAGS[0]), int(LAGS[-1]))
    if num == 0:
        why = "too few pictures in a row, or too little to follow in them"
        return LagEstimate(
            lag_frames=None, is_opposite=None, possible_lags=nobody, explained_share=0.0, why_not=why
        )
    same = np.sum([each.same for each in evidence], axis=0)
    opposite = np.sum([each.opposite for each in evidence], axis=0)
    best, other = (same, opposite) if same.max() >= opposite.max() else (opposite, same)
    share = float(1.0 - np.exp(-2.0 * best.max() / num))
    possible = LAGS[best >= best.max() - RIVAL_EVIDENCE]
    lags = (int(possible.min()), int(possible.max()))
    why = ""
    if max(each.recorded_radps for each in evidence) < MIN_RECORDED_RADPS:
        why = "the car hardly turns"
    elif share < MIN_EXPLAINED_SHARE or best.max() < MIN_EVIDENCE:
        why = "recorded and seen turns have too little in common"
    elif best.max() - other.max() < MIN_SIGN_EVIDENCE:
        why = "either sign fits"
    if why:
        return LagEstimate(
            lag_frames=None, is_opposite=None, possible_lags=nobody, explained_share=share, why_not=why
        )
    place = int(np.argmax(best))
    sign = -1.0 if best is opposite else 1.0
    agreeing = [each for each in evidence if sign * each.gain[place] > 0]
    weights = [each.num_intervals for each in agreeing]
    return LagEstimate(
        lag_frames=int(LAGS[place]),
        is_opposite=best is opposite,
        possible_lags=lags,
        explained_share=share,
        gain=sign * float(np.average([each.gain[place] for each in agreeing], weights=weights)),
    )
