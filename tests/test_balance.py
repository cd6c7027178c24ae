"""The balance of streamed clips: wanted shares of targets, windows that meet them, and the shares that come of it."""

import numpy as np
import pytest

from drivesim.reference.drivers import HABITS
from drivesim.reference.look import Weather
from drivesim.training.balance import (
    BANDS,
    USUAL_EVENTS,
    USUAL_MOTION,
    WEATHER,
    BalanceConfig,
    DriveMotion,
    Target,
    TargetTable,
    choose_windows,
    class_of,
    fit_shares,
    measured_shares,
    mismatch,
    window_values,
)
from drivesim.training.balanced_drives import BalancedDrives
from drivesim.training.drive_orders import DriveOrder

TARGET = Target(driver="good", weather="clear", turning="sharp", speed="fast", traffic="none")


def motion(num_frames=40, **series):
    zeros = np.zeros(num_frames)
    return DriveMotion(
        speed_mps=series.get("speed", zeros + 12.0),
        yaw_rate_radps=series.get("yaw_rate", zeros),
        num_cars_in_view=series.get("cars", zeros),
        is_collision=series.get("collision", zeros > 0),
    )


def choose(moved, target=TARGET, *, num_windows=1, seed=0):
    return choose_windows(
        moved,
        target,
        num_windows=num_windows,
        num_frames=8,
        max_crashed_share=0.25,
        rng=np.random.default_rng(seed),
    )


def test_the_tables_know_all_drivers_and_weathers():
    assert set(USUAL_MOTION) == set(USUAL_EVENTS) == set(HABITS)
    assert set(WEATHER) == {weather.value for weather in Weather}
    assert set(BalanceConfig().drivers) == set(HABITS)


@pytest.mark.parametrize(
    ("table", "shares"),
    [("drivers", {"goood": 1.0}), ("speed", {"rapid": 1.0}), ("weather", {"rain": 0.0}), ("turning", {})],
)
def test_tables_of_nothing_are_refused(table, shares):
    with pytest.raises(ValueError, match=rf"balance\.{table}"):
        BalanceConfig(**{table: shares})


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(ValueError, match="did you mean good"):
        BalanceConfig(drivers={"goood": 1.0})


def test_fitted_shares_have_the_wanted_sums(rng):
    wanted = [np.array([0.7, 0.3]), np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.9])]
    table = fit_shares(rng.uniform(0.01, 1.0, (2, 3, 2)), wanted)
    for axis, shares in enumerate(wanted):
        others = tuple(other for other in range(3) if other != axis)
        np.testing.assert_allclose(table.sum(axis=others), shares, atol=1e-6)


@pytest.mark.parametrize("first", [0, 10_000_000])
def test_targets_have_the_configured_shares(first, rng):
    config = BalanceConfig(turning={"straight": 1.0, "sharp": 3.0}, weather={"rain": 0.4, "clear": 0.6})
    table, phase = TargetTable(config), rng.random(3)
    targets = [table.target(first + number, phase) for number in range(400)]
    for name in ("weather", "turning", "speed", "traffic"):
        assert_shares([getattr(target, name) for target in targets], getattr(config, name), within=0.025)
    assert_shares([target.driver for target in targets], config.drivers, within=0.02)
    assert_shares([target.event for target in targets], config.events, within=0.02)
    assert "none" not in {target.traffic for target in targets if target.event == "crash"}
    rainy = [target for target in targets if target.weather == "rain"]  # one table does not follow another
    assert_shares([target.traffic for target in rainy], config.traffic, within=0.08)
    assert_shares([target.turning for target in rainy], config.turning, within=0.08)


def test_good_drivers_are_asked_for_what_they_do():
    shares = TargetTable(BalanceConfig()).shares
    good, hunter = (shares[list(USUAL_MOTION).index(name)] for name in ("good", "collision"))
    assert good[0].sum() > 3 * good[2].sum()
    assert hunter[..., 2].sum() > 10 * good[..., 2].sum()


def test_windows_are_where_the_target_is_met():
    yaw_rate = np.zeros(40)
    yaw_rate[20:30] = -0.5
    choice = choose(motion(yaw_rate=yaw_rate))
    assert 16 <= choice.starts[0] <= 26
    assert choice.mismatch == pytest.approx(0)
    assert choose(motion(speed=np.full(40, 2.0), yaw_rate=yaw_rate)).mismatch > 1


def test_windows_of_one_drive_lie_apart():
    for seed in range(5):
        first, second = choose(motion(yaw_rate=np.full(40, 0.4)), num_windows=2, seed=seed).starts
        assert abs(first - second) >= 8


def test_windows_end_soon_after_a_crash():
    collision, speed = np.arange(40) == 24, np.where(np.arange(40) < 24, 12.0, 0.0)
    for seed in range(5):
        slow = Target(driver="good", weather="clear", turning="straight", speed="slow", traffic="none")
        start = choose(motion(speed=speed, collision=collision), slow, seed=seed).starts[0]
        assert start + 8 <= 24 + 2


def test_the_first_window_shows_the_event():
    speed, collision = np.full(40, 12.0), np.arange(40) == 30
    speed[12:15] = 0.0
    crash, halt = (
        Target(
            driver="good", weather="clear", turning="straight", speed="medium", traffic="none", event=event
        )
        for event in ("crash", "halt")
    )
    for seed in range(5):
        start = choose(motion(speed=speed, collision=collision), crash, num_windows=2, seed=seed).starts[0]
        assert start <= 30 < start + 8
        start = choose(motion(speed=speed, collision=collision), halt, num_windows=2, seed=seed).starts[0]
        assert start < 15
        assert start + 8 > 12
    assert choose(motion(), crash).mismatch >= 1


def test_mismatch_grows_with_the_distance_from_the_band():
    values = window_values(motion(speed=np.linspace(0, 10, 40), yaw_rate=np.full(40, 0.5)), 8)
    distance = mismatch(values, TARGET)
    assert (np.diff(distance) < 0).all()


def test_every_value_has_a_class():
    assert class_of("turning", 0.0) == "straight"
    assert class_of("speed", 10.0) == "fast"
    assert class_of("traffic", 50.0) == "busy"


@pytest.mark.slow
def test_clips_of_the_reference_world_have_the_configured_shares():
    """240 clips of 4 s that are driven, not drawn; sampling alone spreads a share of 0.4 by 0.03."""
    config = BalanceConfig()
    order = DriveOrder(
        seed_words=[5],
        first_seed=0,
        last_seed=889_999,
        clips_per_drive=2,
        frames_per_clip=24,
        balance=config,
    )
    drives = BalancedDrives(order)
    clips = [clip for number in range(120) for clip in drives.plan(number)]
    assert_shares([clip.origin.driver for clip in clips], config.drivers, within=0.1)
    assert_shares([clip.origin.weather for clip in clips], config.weather, within=0.12)
    values = {"turning": [], "speed": [], "traffic": [clip.origin.mean_cars_in_view for clip in clips]}
    for clip in clips:
        window = slice(clip.origin.start, clip.origin.start + 24)
        values["turning"].append(np.abs(clip.source.yaw_rate_radps[window]).mean())
        values["speed"].append(clip.source.speed_mps[window].mean())
    has_crash = [clip.source.is_collision[clip.origin.start :][:24].any() for clip in clips]
    assert 0.01 < np.mean(has_crash) < 0.12
    for axis in BANDS:
        assert_shares([class_of(axis, value) for value in values[axis]], getattr(config, axis), within=0.13)


def assert_shares(classes, wanted, *, within):
    measured, total = measured_shares(classes), sum(wanted.values())
    for name, share in wanted.items():
        assert measured.get(name, 0.0) == pytest.approx(share / total, abs=within), (name, measured)
