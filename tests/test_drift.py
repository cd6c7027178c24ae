"""A hundred seconds of lane following: the drives are real, frozen, blurred and misled pictures are found out."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_models import small_world_model

from benchmarks import drift, drift_figures, lane_drives, pictures
from benchmarks.control import MotionReader
from benchmarks.drift import Drift, Footage
from benchmarks.fidelity_page import PLOTS
from benchmarks.lane_drives import DriftConfig
from benchmarks.open_loop import OpenLoop
from benchmarks.report import Report
from drivesim.errors import InputError
from drivesim.metrics.image import Extractor
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


def drifted(
    imagined: Footage, true: Footage, *, tokenized: np.ndarray | None = None, level: int = 0
) -> Drift:
    """Return a drift whose start is of one grey level; without other frames the tokenizer is perfect."""
    return Drift(
        twist=true.twist.copy(),
        start=np.full((len(true.kept), *true.kept.shape[2:]), level, dtype=np.uint8),
        imagined=imagined,
        true=true,
        tokenized=true.kept if tokenized is None else tokenized,
        names=["a", "b"],
        rate_hz=RATE_HZ,
    )


def with_frames(frames: np.ndarray) -> Footage:
    """Return footage of a car at constant motion that shows these kept frames (R, K, H, W, 3)."""
    shown = footage(commanded(num_steps=10 * frames.shape[1]))
    shown.kept = frames
    return shown


def reported(measured: Drift, *, networks: dict | None = None) -> dict:
    config = DriftConfig(first_seed=900_000, num_roads=2, num_steps=measured.twist.shape[1])
    report = Report(title="drift")
    drift_figures.add_drift_rows(report, measured, config, networks)
    return report.as_dict()


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
    assert drift_figures.is_followed(footage(wanted), wanted, rate_hz=RATE_HZ).all()
    frozen = footage(np.zeros_like(wanted))
    assert not drift_figures.is_followed(frozen, wanted, rate_hz=RATE_HZ).any()
    slowly = commanded(1.5, 0.0)
    assert not drift_figures.is_followed(frozen, slowly, rate_hz=RATE_HZ).any()


def test_deaf_and_untrusted_readings_are_not_followed() -> None:
    wanted = commanded(8.0, 0.3)
    straight = footage(commanded(8.0, 0.0))
    assert not drift_figures.is_followed(straight, wanted, rate_hz=RATE_HZ).any()
    untrusted = footage(wanted)
    untrusted.is_trusted[:, 30:] = False
    followed = drift_figures.is_followed(untrusted, wanted, rate_hz=RATE_HZ)
    assert followed[:, :30].all()
    assert not followed[:, 30:].any()


def test_readings_are_judged_by_their_mean_over_a_second() -> None:
    wanted = commanded()
    noisy = footage(wanted + np.array([6.0, 0.0]) * (-1.0) ** np.arange(60)[:, None])
    followed = drift_figures.is_followed(noisy, wanted, rate_hz=RATE_HZ)
    assert not followed[:, 0].any()
    assert followed[:, 5:].all()


def test_a_blurred_world_does_not_keep_its_look() -> None:
    true = footage(commanded())
    assert drift_figures.is_look_kept(true, true).all()
    assert drift_figures.is_look_kept(footage(commanded(), sharpness=2.5), true).all()
    assert not drift_figures.is_look_kept(footage(commanded(), sharpness=1.5), true).any()
    assert not drift_figures.is_look_kept(footage(commanded(), contrast=90.0), true).any()


def test_sharpness_and_contrast_fall_with_blur() -> None:
    sharp = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    sharp[:, :, ::4] = 200
    blurred = np.repeat(sharp.mean(axis=2, keepdims=True), 32, axis=2).astype(np.uint8)
    assert drift.sharpness_of(sharp) > 10 * drift.sharpness_of(blurred) + 1
    assert drift.contrast_of(sharp) > 10 * drift.contrast_of(blurred) + 1


def test_tracks_part_by_the_error_of_speed_times_two_seconds() -> None:
    wanted = commanded(8.0, 0.0)
    settings = {"num_steps": 12, "rate_hz": RATE_HZ}
    assert not drift_figures.stretch_errors_m(wanted, wanted, **settings).any()
    faster = drift_figures.stretch_errors_m(commanded(8.5, 0.0), wanted, **settings)
    assert faster.shape == (2, 49)
    assert faster == pytest.approx(np.full((2, 49), 1.0))
    turned = commanded(0.0, 0.3)
    assert drift_figures.stretch_errors_m(turned, commanded(0.0, 0.0), **settings) == pytest.approx(0.0)


def test_an_error_of_one_step_is_in_the_stretches_that_hold_it_and_no_other() -> None:
    read = commanded(8.0, 0.0)
    read[:, 30, 0] += 3.0
    errors_m = drift_figures.stretch_errors_m(read, commanded(8.0, 0.0), num_steps=12, rate_hz=RATE_HZ)
    steps = np.arange(12, 61)
    is_hit = (steps > 30) & (steps <= 42)
    assert errors_m[0, is_hit] == pytest.approx(0.5)
    assert errors_m[0, ~is_hit] == pytest.approx(0.0)


def test_trajectory_errors_stand_beside_those_of_true_frames() -> None:
    wanted = commanded(8.0, 0.0, num_steps=120)
    imagined, true = footage(wanted.copy()), footage(wanted.copy())
    imagined.twist[0, :, 0] += 1.0
    imagined.twist[1, 100:, 0] += 2.0
    measured = drifted(imagined, true)
    true.twist[..., 0] += 0.25
    result = reported(measured)
    name = "drift_trajectory_error_m_at_2s"
    curve = result[f"{name}_curve"]
    assert curve["step"] == [50, 100, 120]
    assert curve["value"][:2] == pytest.approx([1.0, 1.0])
    assert (curve["low"][0], curve["high"][0]) == pytest.approx((0.0, 2.0))
    growing_m = np.minimum(np.arange(1, 21), 12) / 3
    assert curve["value"][2] == pytest.approx((2.0 + growing_m.mean()) / 2)
    whole_m = (2.0 + growing_m.sum() / 109) / 2
    assert result[name] == pytest.approx(whole_m)
    assert result[f"{name}_interval"] == pytest.approx([growing_m.sum() / 109, 2.0])
    assert result[f"{name}_true_frames"] == pytest.approx(0.5)
    assert result["drift_trajectory_error_over_floor_at_2s"] == pytest.approx(whole_m / 0.5)
    assert result["drift_trajectory_error_over_floor_at_2s_curve"]["value"][0] == pytest.approx(2.0)


def test_a_perfect_tokenizer_is_no_ceiling_and_a_start_of_another_grey_a_low_floor() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(60, 200, (2, 12, 16, 16, 3), dtype=np.uint8)
    imagined = true.copy()
    imagined[:, 5:] += 10
    result = reported(drifted(with_frames(imagined), with_frames(true)))
    assert result["drift_ceiling_psnr_db"] == 100.0
    assert result["drift_ceiling_ssim"] == pytest.approx(1.0, abs=1e-5)
    curve = result["drift_psnr_db_curve"]
    off_by_ten_db = 20 * np.log10(255 / 10)
    assert curve["step"] == [50, 100, 120]
    assert curve["value"] == pytest.approx([100.0, off_by_ten_db, off_by_ten_db])
    assert result["drift_psnr_db"] == pytest.approx((5 * 100 + 7 * off_by_ten_db) / 12)
    repeat_db = result["drift_repeat_psnr_db"]
    assert repeat_db < 7
    assert result["drift_psnr_gain_over_repeat_db"] == pytest.approx(result["drift_psnr_db"] - repeat_db)
    ssim = result["drift_ssim_curve"]["value"]
    assert ssim[0] == pytest.approx(1.0, abs=1e-5)
    assert 0.9 < ssim[1] < 0.999
    assert result["drift_repeat_ssim"] < 0.1


def test_a_coarse_tokenizer_is_a_ceiling_of_its_own() -> None:
    true = np.full((2, 5, 16, 16, 3), 100, dtype=np.uint8)
    tokenized = true.copy()
    tokenized[0] += 5
    tokenized[1] += 20
    result = reported(drifted(with_frames(true), with_frames(true), tokenized=tokenized, level=100))
    by_road_db = [20 * np.log10(255 / error) for error in (20, 5)]
    assert result["drift_ceiling_psnr_db"] == pytest.approx(np.mean(by_road_db))
    assert result["drift_ceiling_psnr_db_interval"] == pytest.approx(by_road_db)
    assert result["drift_psnr_db"] == result["drift_repeat_psnr_db"] == 100.0


def test_lpips_of_a_drift_is_measured_where_a_network_was_named() -> None:
    true = np.full((2, 5, 16, 16, 3), 100, dtype=np.uint8)
    network = SimpleNamespace(features=lambda stack: stack.reshape(len(stack), -1).mean(axis=1)[:, None])
    measured = drifted(with_frames(true + 3), with_frames(true), level=102)
    result = reported(measured, networks={Extractor.LPIPS: network})
    names = ("drift_lpips", "drift_repeat_lpips", "drift_ceiling_lpips")
    assert [result[name] for name in names] == pytest.approx([9.0, 4.0, 0.0])
    assert "drift_lpips" not in reported(measured)


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
    back = pictures.tokenized(small_world_model().tokenizer, measured.true.kept[1])
    assert np.array_equal(measured.tokenized[1], back.frames)


def test_a_drift_of_a_second_has_neither_pictures_nor_tracks() -> None:
    open_loop = OpenLoop(model=small_world_model(), camera=front_camera())
    config = DriftConfig(first_seed=900_007, num_roads=1, num_steps=6)
    result = reported(drift.measure_drift(open_loop, reader(), config))
    assert "drift_readable_share_at_6" in result
    assert not [name for name in result if "psnr" in name or "ssim" in name or "trajectory" in name]


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
    result = reported(measured)
    assert result["drift_look_kept_share_at_22_true_frames"] == 1.0
    assert 0 <= result["drift_readable_share_at_22"] <= 1
    assert len(result["drift_readable_share_at_22_interval"]) == 2
    assert result["drift_sharpness_ratio_curve"]["step"] == [22]
    assert result["drift_psnr_db_curve"]["value"][0] < 60
    assert DriftConfig(first_seed=900_006, num_steps=120).window_ends == [50, 100, 120]
    rows = drift_figures.drift_sheet(measured)
    assert len(rows) == 4
    assert [label for label, _ in rows[0]] == ["start"]


def test_every_drift_curve_is_drawn_and_lies_within_its_interval(measured: drift.Drift) -> None:
    result = reported(measured)
    drawn = {name for plot in PLOTS for name in plot.lines.values() if name.startswith("drift_")}
    curves = {name.removesuffix("_curve") for name in result if name.endswith("_curve")}
    assert drawn - curves == {"drift_lpips", "drift_repeat_lpips", "drift_ceiling_lpips"}
    undrawn = {"drift_look_kept_share", "drift_look_kept_share_true_frames"}
    assert curves - drawn == undrawn | {"drift_trajectory_error_over_floor_at_2s"}
    for name in curves:
        curve = result[f"{name}_curve"]
        low, value, high = (np.array(curve[key]) for key in ("low", "value", "high"))
        assert (low <= value + 1e-9).all(), name
        assert (value <= high + 1e-9).all(), name


def test_impossible_drifts_are_refused() -> None:
    with pytest.raises(InputError, match="not held out"):
        DriftConfig(first_seed=7)
    with pytest.raises(InputError, match="--drift-steps 0 leaves the drift out"):
        DriftConfig(first_seed=900_000, num_steps=-1)
    with pytest.raises(InputError, match="only 0 of 1 roads from seed 949999 on"):
        lane_drives.find_drives(DriftConfig(first_seed=949_999, num_roads=1, num_steps=5), num_frames=9)
