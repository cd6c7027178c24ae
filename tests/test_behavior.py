"""Drivers, stunts and recordings."""

from collections import Counter

import numpy as np
import pytest

from drivesim.dynamics import control_from_action, planar_motion, step
from drivesim.errors import InputError
from drivesim.reference.behavior import record
from drivesim.reference.drivers import HABITS, draw_driver, named_driver
from drivesim.reference.simulator import ReferenceWorld, WorldSpec, draw_spec
from drivesim.reference.stunts import STUNTS, Stunt, draw_stunt


def _drive(spec, driver, num_steps=60):
    """Drive without pictures; return (lateral offsets, speeds, steering angles, whether anything was hit)."""
    world = ReferenceWorld(spec)
    places, speeds, wheels, along_m, has_hit = [], [], [], 0.0, False
    for _ in range(num_steps):
        control = control_from_action(*driver.act(world), world.ego, world.vehicle, 1 / 6)
        world.advance(step(world.ego, control, world.vehicle, 1 / 6))
        place = world.route.locate(np.array([world.ego.x_m, world.ego.y_m]), along_m)
        along_m = place.along_m
        places.append(place.left_m)
        speeds.append(world.ego.speed_mps)
        wheels.append(world.ego.steering_rad)
        has_hit = has_hit or world.is_collision
    return np.array(places), np.array(speeds), np.array(wheels), has_hit


@pytest.fixture(scope="module")
def recording():
    return record(WorldSpec(family="winding", seed=5), driver="bursts", num_frames=40, driver_seed=3)


def test_good_drivers_keep_their_lane_and_hit_nothing():
    for seed in range(9):
        places, speeds, _, has_hit = _drive(
            draw_spec(seed), named_driver("good", np.random.default_rng(seed))
        )
        assert np.abs(places).max() < 2.5, seed
        assert not has_hit, seed
        assert speeds.max() > 1.0, seed


def test_reckless_drivers_turn_hard_to_both_sides_leave_the_road_and_come_back():
    places, wheels, speeds = [], [], []
    for seed in range(7):
        place, speed, wheel, _ = _drive(
            WorldSpec(family="winding", seed=seed), named_driver("bursts", np.random.default_rng(seed)), 96
        )
        places.append(place)
        wheels.append(wheel)
        speeds.append(speed)
    wheel, place = np.concatenate(wheels), np.abs(np.concatenate(places))
    assert (wheel > 0.4).sum() > 10
    assert (wheel < -0.4).sum() > 10
    assert place.max() > 4.0
    assert (place < 3.0).mean() > 0.6
    assert place.max() < 35.0
    assert np.ptp(np.concatenate(speeds)) > 10.0


def test_hunters_hit_cars_more_often_than_others():
    hits = Counter()
    for name in ("collision", "good"):
        for seed in range(8):
            driver = named_driver(name, np.random.default_rng(seed))
            hits[name] += _drive(WorldSpec(family="two-way", seed=seed), driver, 60)[3]
    assert hits["collision"] >= 2
    assert hits["good"] == 0


def test_all_drivers_occur_and_are_deterministic():
    names = Counter(draw_driver(np.random.default_rng(seed)).name for seed in range(400))
    assert set(names) == set(HABITS)
    assert names["good"] < 0.25 * 400
    spec = WorldSpec(family="racetrack", seed=4)
    runs = [_drive(spec, draw_driver(np.random.default_rng(9)), 40) for _ in range(2)]
    np.testing.assert_array_equal(runs[0][0], runs[1][0])


@pytest.mark.parametrize("name", HABITS)
def test_every_driver_stays_within_the_limits_of_the_action(name):
    world = ReferenceWorld(WorldSpec(family="winding", seed=2))
    driver = named_driver(name, np.random.default_rng(1))
    for _ in range(30):
        steering_rad, speed_mps = driver.act(world)
        assert abs(steering_rad) <= 0.5
        assert 0.0 <= speed_mps <= 20.0
        control = control_from_action(steering_rad, speed_mps, world.ego, world.vehicle, 1 / 6)
        world.advance(step(world.ego, control, world.vehicle, 1 / 6))


def test_unknown_driver_and_too_short_recording_are_refused():
    with pytest.raises(InputError, match=r"'saint'.*good"):
        named_driver("saint", np.random.default_rng(0))
    with pytest.raises(InputError, match="got 1"):
        record(WorldSpec(family="winding", seed=0), num_frames=1, driver_seed=0)


@pytest.mark.parametrize("kind", STUNTS)
def test_stunts_end(kind):
    for seed in range(20):
        stunt = draw_stunt(np.random.default_rng(seed), weights={kind: 1.0}, rate_hz=6.0)
        for _ in range(100):
            instant = stunt.pop()
            assert instant.steering_rad is None or abs(instant.steering_rad) <= 0.5
        assert stunt.is_over


def test_a_stunt_that_is_over_leaves_all_to_the_driver():
    assert Stunt([]).pop().steering_rad is None


def test_hard_turns_go_both_ways_with_the_wheel_at_the_stop():
    starts = [STUNTS["hard-turn"](np.random.default_rng(seed), 6.0)[0].steering_rad for seed in range(200)]
    assert 60 < sum(wheel == 0.5 for wheel in np.abs(starts)) < 110
    assert 70 < sum(wheel > 0 for wheel in starts) < 130


def test_speed_and_yaw_rate_are_the_motion_into_a_frame(recording):
    scene = recording.scene
    assert len(scene) == 40
    for index in range(1, len(scene)):
        dx, dy, dyaw = planar_motion(float(scene.speed_mps[index]), float(scene.yaw_rate_radps[index]), 1 / 6)
        cos, sin = np.cos(scene.yaw_rad[index - 1]), np.sin(scene.yaw_rad[index - 1])
        moved = scene.xy_m[index] - scene.xy_m[index - 1]
        np.testing.assert_allclose(moved, [cos * dx - sin * dy, sin * dx + cos * dy], atol=1e-9)
        turned = scene.yaw_rad[index] - scene.yaw_rad[index - 1] - dyaw
        assert abs(np.sin(turned)) < 1e-9


def test_a_recording_knows_its_world(recording):
    scene = recording.scene
    assert WorldSpec.from_log_name(scene.log_name) == WorldSpec(family="winding", seed=5)
    assert scene.caption.endswith("steering at random")
    assert recording.driver == "bursts"
    assert len(recording.is_collision) == len(recording.is_off_road) == len(recording.traffic) == 40
    assert len(scene.route_xy_m) > 200
    assert scene.drivable.contains(scene.xy_m[~recording.is_off_road]).all()
    np.testing.assert_array_equal(
        scene.frames[0], ReferenceWorld(WorldSpec(family="winding", seed=5)).render()
    )


def test_after_a_crash_the_car_stands():
    for seed in range(40):
        spec = WorldSpec(family="two-way", seed=seed)
        if _drive(spec, named_driver("collision", np.random.default_rng([seed, 2])), 40)[3]:
            break
    crash = record(spec, driver="collision", num_frames=48, driver_seed=seed)
    first = int(np.argmax(crash.is_collision))
    assert crash.is_collision[first]
    assert (crash.scene.speed_mps[first + 3 :] == 0).all()
    np.testing.assert_array_equal(crash.scene.xy_m[first + 3], crash.scene.xy_m[-1])
