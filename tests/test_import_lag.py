"""Lag and sign told from pictures: on made series, and on drives of the reference world."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from drive_files import RATE_HZ, driven, lagged

from drivesim.imports.drive_log import DriveLog, Signal
from drivesim.imports.lag import LAGS, LagEstimate, estimate, evidence_of
from drivesim.imports.motion import yaw_signals
from drivesim.imports.options import ImportConfig
from drivesim.imports.survey import SeenTurns, survey_of
from drivesim.scene.can_motion import interval_means
from drivesim.scene.seen_turn import Lens, small_grey, turn_between
from drivesim.scene.types import front_camera

RNG = np.random.default_rng(0)


def wandering(num: int, rng: np.random.Generator) -> np.ndarray:
    """A yaw rate that wanders as a driver's does."""
    noise = rng.normal(size=num + 60)
    return np.convolve(noise, np.hanning(15) / 7, mode="same")[30:-30] * 0.1


def compared(times, seen, recorded):
    turns = SeenTurns(start_s=times[:-1], end_s=times[1:], radps=seen)
    return evidence_of(turns, recorded, interval_s=float(np.median(np.diff(times))))


def told(
    lag: int, sign: float, *, noise: float = 0.02, num: int = 300, rate_hz: float = 10.0, gain=0.8
) -> LagEstimate:
    rng = np.random.default_rng([lag + 10, num])
    times = np.arange(num) / rate_hz
    true = wandering(num + 40, rng)
    signal = Signal(times_s=times, values=sign * true[20 + lag : 20 + lag + num])
    seen = gain * interval_means(times, true[20 : 20 + num], times) + noise * rng.normal(size=num - 1)
    seen += 0.03 * np.sin(times[1:] / 3)  # what scenery does to the eye
    return estimate([compared(times, seen, signal)])


@pytest.mark.parametrize("lag", LAGS.tolist())
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_every_lag_and_sign_is_found(lag, sign):
    found = told(lag, sign)
    assert (found.lag_frames, found.is_opposite) == (lag, sign < 0)
    assert found.gain == pytest.approx(0.8, abs=0.3)
    assert found.has_right_size


def test_words_say_what_is_wrong():
    assert told(3, -1.0).words.startswith("3 pictures too early, sign opposite, seen turns are 0.7")
    assert told(-1, 1.0).words.startswith("1 picture too late, sign right")
    assert told(0, 1.0).words.startswith("in time, sign right")
    assert not told(0, 1.0, gain=3.0).has_right_size


def test_uneven_times_are_respected():
    rng = np.random.default_rng(4)
    times = np.cumsum(rng.uniform(0.05, 0.15, 400))
    fine = np.arange(-3, times[-1] + 3, 0.05)
    true = wandering(len(fine), rng)
    signal = Signal(times_s=fine - 2 * float(np.median(np.diff(times))), values=true)
    seen = interval_means(fine, true, times) + 0.01 * rng.normal(size=399)
    seen[50:90] = np.nan
    assert estimate([compared(times, seen, signal)]).lag_frames == 2


def test_corners_followed_wrongly_now_and_then_cost_little():
    rng = np.random.default_rng(6)
    times = np.arange(200) / 10
    true = wandering(240, rng)
    seen = interval_means(times, true[20:220], times) + 0.01 * rng.normal(size=199)
    seen[rng.choice(199, 12, replace=False)] += rng.choice([-1.0, 1.0], 12) * 1.5
    found = estimate([compared(times, seen, Signal(times_s=times, values=true[23:223]))])
    assert (found.lag_frames, found.is_opposite) == (3, False)


def test_quick_pictures_are_compared_over_a_tenth_of_a_second():
    drive_ = driven()
    times = drive_.times_s / 2  # 24 Hz
    log = DriveLog(
        name="quick",
        frames=list(drive_.frames),
        frame_times_s=times,
        speed_mps=Signal(times_s=times, values=2 * drive_.speed_mps),
        steering_rad=Signal(times_s=times, values=drive_.steering_rad),
    )
    seen = survey_of(log, ImportConfig()).seen
    assert len(seen.radps) == 47
    np.testing.assert_allclose(seen.end_s - seen.start_s, 2 / 24)
    turned = np.diff(np.interp(np.append(seen.start_s[:1], seen.end_s), times, np.unwrap(drive_.yaw_rad)))
    is_seen = np.isfinite(seen.radps)
    assert is_seen.mean() > 0.8
    assert np.corrcoef(seen.radps[is_seen], turned[is_seen])[0, 1] > 0.8
    assert seen.at(float(times[3])) == seen.at(float(times[4])) == seen.radps[1]
    assert math.isnan(seen.at(-1.0))


def test_light_that_flickers_does_not_matter():
    frame = driven().frames[20].astype(float)
    np.testing.assert_array_less(
        np.abs(
            small_grey(np.uint8(frame)).astype(float) - small_grey(np.uint8(60 + frame / 3)).astype(float)
        ).mean(),
        3,
    )


def test_unrelated_straight_and_short_recordings_are_not_judged():
    times = np.arange(300) / 10
    unrelated = Signal(times_s=times, values=wandering(300, RNG))
    found = estimate([compared(times, wandering(299, RNG), unrelated)])
    assert found.lag_frames is None
    assert found.is_opposite is None
    assert "too little in common" in found.words
    straight = Signal(times_s=times, values=0.002 * wandering(300, RNG))
    seen = interval_means(times, straight.values, times) + 1e-5 * RNG.normal(size=299)
    assert "hardly turns" in estimate([compared(times, seen, straight)]).words
    still = Signal(times_s=times, values=np.zeros(300))
    assert estimate([compared(times, seen, still)]).lag_frames is None
    assert "too few pictures" in estimate([compared(times[:20], seen[:19], unrelated)]).words
    none = SeenTurns(start_s=np.zeros(0), end_s=np.zeros(0), radps=np.zeros(0))
    assert "too few pictures" in estimate([evidence_of(none, unrelated, interval_s=1.0)]).words
    blind = estimate([compared(times, np.full(299, np.nan), unrelated)])
    assert "too little to follow" in blind.words
    assert estimate([]).lag_frames is None


def test_recordings_of_one_recorder_are_judged_together():
    rng = np.random.default_rng(8)
    evidence = []
    for _ in range(8):
        times = np.arange(60) / 10
        true = wandering(100, rng)
        seen = interval_means(times, true[20:80], times) + 0.04 * rng.normal(size=59)
        evidence.append(compared(times, seen, Signal(times_s=times, values=-true[24:84])))
    together = estimate(evidence)
    assert (together.lag_frames, together.is_opposite) == (4, True)


def test_a_long_stand_does_not_make_small_errors_of_the_drive_large():
    """Fourteen seconds of a drive with wild errors now and then, then a stand with hardly any."""
    num_right = 0
    times, is_driving = np.arange(1000) / 10, np.arange(999) < 140
    for seed in range(40):
        rng = np.random.default_rng(seed)
        true = np.where(np.arange(1020) < 150, wandering(1020, rng), 0.0)
        seen = interval_means(times, true[10:1010], times)
        seen += np.where(is_driving, 0.02 * rng.standard_t(2, 999), 2e-4 * rng.normal(size=999))
        found = estimate([compared(times, seen, Signal(times_s=times, values=true[13:1013]))])
        num_right += (found.lag_frames, found.is_opposite) == (3, False)
    assert num_right >= 34


def test_a_recording_of_a_stand_says_nothing_against_others():
    rng, times = np.random.default_rng(3), np.arange(300) / 10
    true = wandering(320, rng)
    seen = interval_means(times, true[10:310], times) + 0.06 * rng.normal(size=299)
    drive_ = compared(times, seen, Signal(times_s=times, values=true[13:313]))
    long = np.arange(6000) / 10
    stand = compared(long, np.zeros(5999), Signal(times_s=long, values=np.zeros(6000)))
    assert estimate([drive_]).lag_frames == 3
    assert estimate([drive_, stand]) == estimate([stand, drive_])
    assert estimate([drive_, stand]).lag_frames == 3
    assert "hardly turns" in estimate([stand]).words


# ---------------------------------------------------------------------------------------- from pictures


@pytest.mark.parametrize(("lag", "sign"), [(3, -1.0), (-2, 1.0), (6, 1.0)])
def test_lag_of_a_drive_is_seen_in_its_pictures(lag, sign):
    drive_ = driven()
    log = DriveLog(
        name="drive",
        frames=list(drive_.frames),
        frame_times_s=drive_.times_s,
        speed_mps=Signal(times_s=drive_.times_s, values=lagged(drive_.speed_mps, lag)),
        steering_rad=Signal(times_s=drive_.times_s, values=sign * lagged(drive_.steering_rad, lag)),
    )
    seen, recorded = survey_of(log, ImportConfig()).seen, yaw_signals(log, ImportConfig())["steering"]
    found = estimate([evidence_of(seen, recorded, interval_s=1 / RATE_HZ)])
    assert (found.lag_frames, found.is_opposite) == (lag, sign < 0)
    assert found.gain == pytest.approx(1.0, abs=0.25)


def test_seen_turns_are_those_of_the_drive():
    drive_ = driven()
    lens = Lens(focal=114 / 160, horizon=(40 - 48) / 160)
    grey = [small_grey(frame) for frame in drive_.frames]
    seen = [turn_between(before, after, lens) for before, after in pairwise(grey)]
    is_seen = np.isfinite(seen)
    assert is_seen.mean() > 0.95
    seen, true = np.array(seen)[is_seen], np.diff(drive_.yaw_rad)[is_seen]
    np.testing.assert_allclose(seen, true, atol=0.2 / RATE_HZ)
    assert np.corrcoef(seen, true)[0, 1] > 0.98


def test_lens_knows_the_horizon():
    lens = Lens.of(front_camera())
    assert (lens.focal, lens.horizon) == (pytest.approx(160 / 224), pytest.approx(-10 / 224))


def test_nothing_is_seen_in_empty_or_different_pictures():
    lens = Lens(focal=0.7, horizon=0.0)
    empty = np.full((90, 160), 100, np.uint8)
    assert math.isnan(turn_between(empty, empty, lens))
    textured = RNG.integers(0, 255, (90, 160)).astype(np.uint8)
    assert math.isnan(turn_between(textured, textured[:80], lens))
    assert turn_between(textured, textured, lens) == pytest.approx(0.0, abs=1e-4)
    assert small_grey(RNG.integers(0, 255, (5, 400, 3)).astype(np.uint8)).shape == (8, 240)


def test_a_crowd_of_corners_does_not_decide():
    """A car ahead, full of corners, stays where it is in the picture while all else turns."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 255, (12, 24, 3)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    car = rng.integers(0, 255, (15, 15, 3)).astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    before, after = wide[:90, :160].copy(), wide[:90, 4:164].copy()  # moved by 4 of 160 px
    before[28:88, 50:110] = after[28:88, 50:110] = car
    turn = turn_between(small_grey(before), small_grey(after), Lens(focal=0.7, horizon=0.0))
    assert turn == pytest.approx(-math.atan(4 / 160 / 0.7), rel=0.2)
