"""The reference world: specs, repeatability, traffic, collisions, drivable area."""

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from drivesim.dynamics import VehicleConfig
from drivesim.errors import InputError
from drivesim.reference.roads import FAMILIES, build_road
from drivesim.reference.simulator import ReferenceWorld, WorldSpec, draw_spec, footprint
from drivesim.reference.traffic import Traffic
from drivesim.scene.types import EgoState

_DIGEST = """
import hashlib, numpy as np
from drivesim.dynamics import step
from drivesim.reference.simulator import ReferenceWorld, WorldSpec
from drivesim.scene.types import Control
digests = []
for family in ("winding", "roundabout"):
    world = ReferenceWorld(WorldSpec(family=family, seed=12))
    for _ in range(24):
        world.advance(step(world.ego, Control(steering_rad=0.02, accel_mps2=0.3), world.vehicle, 1 / 6))
    poses = np.array([[b.x_m, b.y_m, b.yaw_rad] for b in world.traffic] + [[world.ego.x_m, world.ego.y_m, 0]])
    digests.append(hashlib.sha256(poses.tobytes() + world.caption.encode()).hexdigest())
picture = ReferenceWorld(WorldSpec(family="racetrack", seed=3)).render()
digests.append(hashlib.sha256(picture.tobytes()).hexdigest())
"""


def _moved(ego: EgoState, forward_m: float, speed_mps: float) -> EgoState:
    return EgoState(
        x_m=ego.x_m + forward_m * float(np.cos(ego.yaw_rad)),
        y_m=ego.y_m + forward_m * float(np.sin(ego.yaw_rad)),
        yaw_rad=ego.yaw_rad,
        speed_mps=speed_mps,
    )


def _busy_traffic(num_cars=4, seed=1):
    layout = build_road("two-way", np.random.default_rng(0))
    traffic = Traffic(layout, vehicle=VehicleConfig(), rng=np.random.default_rng(seed))
    traffic._num_cars = num_cars
    x_m, y_m = layout.route_xy_m[300]
    ego = EgoState(x_m=float(x_m), y_m=float(y_m), yaw_rad=0.0, speed_mps=10.0)
    traffic.populate(ego)
    return traffic, ego


@pytest.mark.parametrize("family", FAMILIES)
def test_log_names_hold_the_spec(family):
    spec = WorldSpec(family=family, seed=900003)
    assert WorldSpec.from_log_name(spec.log_name) == spec


def test_bad_specs_are_refused():
    with pytest.raises(InputError, match="n015-2018"):
        WorldSpec.from_log_name("n015-2018-07-18")
    with pytest.raises(InputError, match="moebius"):
        WorldSpec.from_log_name("reference-moebius-3")
    with pytest.raises(InputError, match="-1"):
        WorldSpec(family="winding", seed=-1)


def test_three_of_five_worlds_are_winding_and_all_families_occur():
    counts = Counter(draw_spec(seed).family for seed in range(600))
    assert 0.54 < counts["winding"] / 600 < 0.66
    assert set(counts) == set(FAMILIES)
    assert draw_spec(5) == draw_spec(5)


def test_worlds_are_equal_bit_for_bit_across_processes():
    elsewhere = subprocess.run(
        [sys.executable, "-c", _DIGEST + "print(*digests)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77"},
    )
    here: dict[str, list[str]] = {}
    exec(_DIGEST, here)
    assert elsewhere.stdout.split() == here["digests"]
    assert len(set(here["digests"])) == 3


def test_reset_goes_back_to_the_start():
    world = ReferenceWorld(WorldSpec(family="winding", seed=8))
    start, boxes, caption = world.ego, world.traffic, world.caption
    for _ in range(6):
        world.advance(_moved(world.ego, 1.0, 6.0))
    assert world.ego != start
    assert world.reset() == start
    assert world.traffic == boxes
    assert world.caption == caption


def test_start_is_on_the_route_and_the_route_is_long_enough():
    for seed in range(20):
        world = ReferenceWorld(draw_spec(seed))
        place = world.route.locate(np.array([world.ego.x_m, world.ego.y_m]), 0.0)
        assert abs(place.left_m) < 0.8
        assert np.cos(world.ego.yaw_rad - world.route.heading_at(place.along_m)) > 0.98
        assert world.route.length_m - place.along_m > (
            180.0 if world.spec.family == "intersection" else 220.0
        )
        assert world.route_xy_m.min() > 40.0
        assert world.caption.count(",") >= 2


def test_traffic_brakes_behind_a_standing_ego_car():
    traffic, ego = _busy_traffic(num_cars=0)
    traffic._num_cars = 1
    traffic._spawn(ego, reach_m=(25.0, 40.0), bearing_rad=np.pi, half_angle_rad=0.5)
    (car,) = traffic.cars
    car.speed, car.enable_lane_change = 9.0, False
    standing = _moved(ego, 0.0, 0.0)
    hits = [traffic.advance(standing, standing, duration_s=1 / 6) for _ in range(60)]
    assert not any(hits)
    assert car.speed < 0.7
    assert 5.0 < ego.x_m - car.position[0] < 20.0


def test_driving_into_a_car_is_a_collision():
    traffic, ego = _busy_traffic(num_cars=0)
    traffic._num_cars = 1
    traffic._spawn(ego, reach_m=(20.0, 30.0), bearing_rad=0.0, half_angle_rad=0.05)
    (car,) = traffic.cars
    near = _moved(ego, float(car.position[0]) - ego.x_m + 1.0, 10.0)
    assert not traffic.advance(ego, ego, duration_s=1 / 6)
    assert traffic.advance(ego, near, duration_s=1 / 6)
    assert traffic.boxes[0].is_braking  # a hit car stops


def test_the_mirrored_car_lies_over_its_footprint():
    traffic, ego = _busy_traffic(num_cars=0)
    traffic.advance(ego, ego, duration_s=1 / 6)
    corners = footprint(ego, VehicleConfig())
    np.testing.assert_allclose(traffic._ego.polygon()[:4].mean(axis=0), corners.mean(axis=0))
    np.testing.assert_allclose(np.ptp(corners, axis=0), [4.6, 1.9])
    assert corners[:, 0].min() == pytest.approx(ego.x_m - 1.0)


def test_cars_stay_few_and_near():
    traffic, ego = _busy_traffic(num_cars=5)
    for _ in range(120):
        following = _moved(ego, 2.0, 12.0)
        traffic.advance(ego, following, duration_s=1 / 6)
        ego = following
        assert len(traffic.cars) <= 5
        assert all(
            np.hypot(car.position[0] - ego.x_m, car.position[1] - ego.y_m) < 135.0 for car in traffic.cars
        )
    assert traffic.cars  # new ones came


def test_picture_and_drivable_area():
    world = ReferenceWorld(WorldSpec(family="winding", seed=21))
    frame = world.render()
    assert frame.shape == (128, 224, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 10
    assert not world.is_off_road
    assert not world.is_collision
    side = EgoState(
        x_m=world.ego.x_m - 30.0 * float(np.sin(world.ego.yaw_rad)),
        y_m=world.ego.y_m + 30.0 * float(np.cos(world.ego.yaw_rad)),
        yaw_rad=world.ego.yaw_rad,
        speed_mps=0.0,
    )
    world.advance(side)
    assert world.is_off_road
    assert not np.array_equal(world.render(), frame)
