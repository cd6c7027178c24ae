"""A hundred seconds of lane following: the drives are real, frozen and blurred pictures are found out."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_models import small_world_model

from benchmarks import drift, lane_drives
from benchmarks.control import MotionReader
from benchmarks.drift import Footage
from benchmarks.lane_drives import DriftConfig
from benchmarks.open_loop import OpenLoop
from benchmarks.report import Report
from drivesim.errors import InputError
from drivesim.reference.simulator import ReferenceWorld, WorldSpec
from drivesim.reference.vehicles import agents_of
from drivesim.scene.agents import moving_before
from drivesim.scene.types import front_camera

LOOP, OPEN_ROAD = WorldSpec(family="winding", seed=900_007), WorldSpec(family="winding", seed=900_002)
RATE_HZ = 6.0


class Counting:
    """An inverse dynamics model that reads the step of the first pixel's value as speed."""

    def estimate(self, previous: torch.Tensor, current: torch.Tensor) -> SimpleNamespace:
        speed = (current[:, 0, 0, 0].float() - previous[:, 0, 0, 0].float()).abs()
        twist = torch.stack([speed, torch.zeros_like(speed)], dim=-1)
        return SimpleNamespace(twist_BA=twist, is_readable_B=speed < 100)


def reader(model: object = None) -> MotionReader:
    return MotionReader(camera=front_camera(), rate_hz=RATE_HZ, inverse_dynamics=model or Counting())


def footage(twist: np.ndarray, *, sharpness: float = 4.0, contrast: float = 40.0) -> Footage:
    shape = twist.shape[:2]
    return Footage(
        twist=twist,
        is_trusted=np.ones(shape, dtype=bool),
        sharpness=np.full(shape, sharpness),
        contrast=np.full(shape, contrast),
        kept=np.zeros((shape[0], shape[1] // 10, 8, 8, 3), dtype=np.uint8),
    )


def commanded(speed_mps: float = 8.0, yaw_rate_radps: float = 0.2, num_steps: int = 60) -> np.ndarray:
    return np.broadcast_to(np.array([speed_mps, yaw_rate_radps]), (2, num_steps, 2)).copy()


def test_a_closed_road_goes_on_for_ever_from_the_start() -> None:
    world = lane_drives.endless_world(LOOP, length_m=2500)
    assert world is not None
    assert world.route.length_m == pytest.approx(2500, rel=0.05)
    usual = ReferenceWorld(LOOP).route.xy_m
    assert np.array_equal(world.route.xy_m[: len(usual)], usual)
    assert lane_drives.endless_world(OPEN_ROAD, length_m=2500) is None
    assert lane_drives.keep_lane(OPEN_ROAD, num_frames=10) is None


def test_a_drive_keeps_its_lane_and_notes_its_motion() -> None:
    driven = lane_drives.keep_lane(LOOP, num_frames=40)
    assert driven is not None
    twist = lane_drives.twist_of(driven)
    assert twist.shape == (40, 2)
    assert (twist[:, 0] >= lane_drives.MIN_SPEED_MPS).all()
    travelled_m = np.linalg.norm(np.diff(driven.xy_m, axis=0), axis=1).sum()
    assert twist[1:, 0].sum() / RATE_HZ == pytest.approx(travelled_m, rel=0.02)
    assert not any(driven.is_off_road(index) for index in range(40))


def test_exact_motion_is_followed_and_a_frozen_picture_is_not() -> None:
    wanted = commanded()
    assert drift.is_followed(footage(wanted), wanted, rate_hz=RATE_HZ).all()
    frozen = footage(np.zeros_like(wanted))
    assert not drift.is_followed(frozen, wanted, rate_hz=RATE_HZ).any()
    slowly = commanded(1.5, 0.0)
    assert not drift.is_followed(frozen, slowly, rate_hz=RATE_HZ).any()


def test_deaf_and_untrusted_readings_are_not_followed() -> None:
    wanted = commanded(8.0, 0.3)
    straight = footage(commanded(8.0, 0.0))
    assert not drift.is_followed(straight, wanted, rate_hz=RATE_HZ).any()
    untrusted = footage(wanted)
    untrusted.is_trusted[:, 30:] = False
    followed = drift.is_followed(untrusted, wanted, rate_hz=RATE_HZ)
    assert followed[:, :30].all()
    assert not followed[:, 30:].any()


def test_readings_are_judged_by_their_mean_over_a_second() -> None:
    wanted = commanded()
    noisy = footage(wanted + np.array([6.0, 0.0]) * (-1.0) ** np.arange(60)[:, None])
    followed = drift.is_followed(noisy, wanted, rate_hz=RATE_HZ)
    assert not followed[:, 0].any()
    assert followed[:, 5:].all()


def test_a_blurred_world_does_not_keep_its_look() -> None:
    true = footage(commanded())
    assert drift.is_look_kept(true, true).all()
    assert drift.is_look_kept(footage(commanded(), sharpness=2.5), true).all()
    assert not drift.is_look_kept(footage(commanded(), sharpness=1.5), true).any()
    assert not drift.is_look_kept(footage(commanded(), contrast=90.0), true).any()


def test_sharpness_and_contrast_fall_with_blur() -> None:
    sharp = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    sharp[:, :, ::4] = 200
    blurred = np.repeat(sharp.mean(axis=2, keepdims=True), 32, axis=2).astype(np.uint8)
    assert drift.sharpness_of(sharp) > 10 * drift.sharpness_of(blurred) + 1
    assert drift.contrast_of(sharp) > 10 * drift.contrast_of(blurred) + 1


def test_watching_a_stream_sees_every_step_once() -> None:
    speeds = np.arange(24) % 7
    values = np.cumsum(np.concatenate([[0], speeds]))
    frames = [np.full((2, 8, 8, 3), value, dtype=np.uint8) for value in values]
    seen = drift.watch(iter(frames), reader())
    assert np.array_equal(seen.twist[..., 0], np.broadcast_to(speeds, (2, 24)))
    assert seen.sharpness.shape == seen.contrast.shape == seen.is_trusted.shape == (2, 24)
    assert seen.kept[:, :, 0, 0, 0].tolist() == [[values[10], values[20]]] * 2


@pytest.fixture(scope="module")
def measured() -> drift.Drift:
    open_loop = OpenLoop(model=small_world_model(), camera=front_camera())
    config = DriftConfig(first_seed=900_006, num_roads=2, num_steps=22)
    return drift.measure_drift(open_loop, reader(), config)


def test_a_drift_measures_two_worlds_on_the_same_roads(measured: drift.Drift) -> None:
    assert measured.names == ["reference-racetrack-oval-900006", "reference-winding-900007"]
    assert measured.twist.shape == measured.true.twist.shape == measured.imagined.twist.shape == (2, 22, 2)
    driven = lane_drives.keep_lane(LOOP, num_frames=26)
    assert driven is not None
    assert np.array_equal(measured.start[1], driven.picture(3))
    assert np.array_equal(measured.true.kept[1, 1], driven.picture(23))
    assert measured.twist[1] == pytest.approx(lane_drives.twist_of(driven)[4:])


def test_the_model_is_shown_as_much_of_the_map_as_is_asked_for() -> None:
    world = ReferenceWorld(LOOP)
    model, ego = small_world_model(), world.ego
    shown = {}
    agents = moving_before(agents_of(world.traffic), ego, world.camera, world.route_xy_m)
    asked = {
        "all": {},
        "area": {"has_markings": False},
        "alone": {"has_agents": False},
        "others": {"has_map": False},
        "none": {"has_map": False, "has_agents": False},
    }
    for name, settings in asked.items():
        open_loop = OpenLoop(model=model, camera=front_camera(), **settings)
        shown[name] = open_loop.places([world.drivable], [ego], [agents])
    assert shown["none"] is None
    area, full = shown["area"].view(), shown["all"].view()
    assert torch.equal(area[:, :2], full[:, :2])
    assert full[:, 2].sum() > 1
    assert not area[:, 2:4].any()
    assert full[:, 5].all()
    others = shown["others"].view()
    assert torch.equal(others[:, 4:], full[:, 4:])
    assert not others[:, :4].any()
    alone = shown["alone"].view()
    assert torch.equal(alone[:, :4], full[:, :4])
    assert not alone[:, 4:].any()


def test_drift_rows_name_the_steps_and_curves_run_in_windows(measured: drift.Drift) -> None:
    report = Report(title="drift")
    drift.add_drift_rows(report, measured, DriftConfig(first_seed=900_006, num_roads=2, num_steps=22))
    result = report.as_dict()
    assert result["drift_look_kept_share_at_22_true_frames"] == 1.0
    assert 0 <= result["drift_readable_share_at_22"] <= 1
    assert len(result["drift_readable_share_at_22_interval"]) == 2
    assert result["drift_sharpness_ratio_curve"]["step"] == [22]
    assert result["drift_psnr_db_curve"]["value"][0] < 60
    assert DriftConfig(first_seed=900_006, num_steps=120).window_ends == [50, 100, 120]
    rows = drift.drift_sheet(measured)
    assert len(rows) == 4
    assert [label for label, _ in rows[0]] == ["start"]


def test_impossible_drifts_are_refused() -> None:
    with pytest.raises(InputError, match="not held out"):
        DriftConfig(first_seed=7)
    with pytest.raises(InputError, match="--drift-steps 0 leaves the drift out"):
        DriftConfig(first_seed=900_000, num_steps=-1)
    with pytest.raises(InputError, match="only 0 of 1 roads from seed 949999 on"):
        lane_drives.find_drives(DriftConfig(first_seed=949_999, num_roads=1, num_steps=5), num_frames=9)
