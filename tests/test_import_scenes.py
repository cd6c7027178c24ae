"""Logs made by hand -> scenes: gaps, jumps, rates, units, sizes and corrections."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from drivesim.errors import InputError
from drivesim.imports.drive_log import DriveLog, Signal, Track
from drivesim.imports.fitted_frames import assumed_camera, fitted, fitted_camera
from drivesim.imports.motion import corrected, motion_at, yaw_signals
from drivesim.imports.options import Fit, ImportConfig
from drivesim.imports.remarks import Check
from drivesim.imports.scenes import scenes_of
from drivesim.imports.survey import survey_of
from drivesim.scene.faults import Fault
from drivesim.scene.nuscenes import open_dataset
from drivesim.scene.nuscenes_writer import write_nuscenes
from drivesim.scene.types import front_camera

CONFIG = ImportConfig(width_px=56, height_px=32, min_length_s=1.0)


class Pictures(list):
    """Pictures whose level is their index; those of some indices cannot be read."""

    def __init__(self, count, *, bad=(), sizes=((24, 40),)):
        super().__init__(
            np.full((*sizes[index % len(sizes)], 3), index % 250, np.uint8) for index in range(count)
        )
        self.bad = set(bad)

    def __getitem__(self, index):
        if index in self.bad:
            raise InputError(f"picture {index} is broken")
        return super().__getitem__(index)


def make_log(times_s, *, speed=8.0, steering=0.05, **changes) -> DriveLog:
    times_s = np.asarray(times_s, dtype=float)
    log = DriveLog(
        name="drive",
        frames=Pictures(len(times_s)),
        frame_times_s=times_s,
        speed_mps=Signal(times_s=times_s, values=np.full(len(times_s), speed)),
        steering_rad=Signal(times_s=times_s, values=np.full(len(times_s), steering)),
    )
    return replace(log, **changes)


def steady(seconds: float = 4.0, rate_hz: float = 12.0) -> np.ndarray:
    return np.arange(round(seconds * rate_hz) + 1) / rate_hz


def test_steady_drive_is_one_scene_on_a_circle():
    made = scenes_of(make_log(steady()), CONFIG)
    (scene,) = made.scenes
    assert (scene.name, scene.rate_hz, len(scene)) == ("drive", 6.0, 25)
    assert scene.motion_source == "log"
    yaw_rate = 8.0 * np.tan(0.05) / 2.8
    np.testing.assert_allclose(scene.yaw_rate_radps, yaw_rate)
    radius = 8.0 / yaw_rate
    np.testing.assert_allclose(np.hypot(scene.xy_m[:, 0], scene.xy_m[:, 1] - radius), radius, rtol=1e-9)
    assert scene.frames[3].shape == (32, 56, 3)
    assert scene.frames[3].mean() == 6
    assert made.left_out.lines == []
    assert made.sources.poses == "integrated"
    assert (scene.camera.width_px, scene.camera.height_px) == (56, 32)


@pytest.mark.parametrize(("speed", "count"), [(15.0, 0), (30.0, 49)])
def test_turns_beyond_a_tyres_grip_are_counted(speed, count):
    made = scenes_of(make_log(steady(), speed=speed, steering=0.03), CONFIG)
    told = [line for line in made.problems if isinstance(line, Check)]
    assert [line.split(" pictures")[0] for line in told] == ([f"in {count} of 49"] if count else [])
    assert max(abs(made.scenes[0].yaw_rate_radps)) * speed <= 7.0 + 1e-9


def test_scene_can_go_to_another_process():
    (scene,) = scenes_of(make_log(steady()), CONFIG).scenes
    copy = pickle.loads(pickle.dumps(scene))
    np.testing.assert_array_equal(copy.frames[4], scene.frames[4])
    assert len(scene.frames[2:5]) == 3


def test_gap_splits_and_short_parts_are_counted():
    times = np.concatenate([steady(3.0), 4.0 + steady(0.5), 10.0 + steady(2.0)])
    made = scenes_of(make_log(times), CONFIG)
    assert [scene.name for scene in made.scenes] == ["drive-1", "drive-2"]
    assert [scene.log_name for scene in made.scenes] == ["drive", "drive"]
    assert (made.left_out.num_gaps, made.left_out.num_short_parts) == (2, 1)
    assert made.left_out.short_parts_s == pytest.approx(0.5)
    assert any("--max-gap" in line for line in made.left_out.lines)


def test_a_lost_picture_is_bridged_and_said():
    times = np.delete(steady(4.0, 6.0), 10)
    (scene,) = scenes_of(make_log(times), CONFIG).scenes
    assert len(scene) == 25
    assert any("lack a picture" in line for line in scene.problems)


def test_unreadable_pictures_are_skipped_and_counted():
    log = make_log(steady(), frames=Pictures(49, bad=[0, 7, 8]))
    made = scenes_of(log, CONFIG)
    assert made.left_out.num_unreadable == 3
    (scene,) = made.scenes
    assert not {0, 7, 8} & set(scene.frames.indices)
    with pytest.raises(InputError, match=r"none of 49 pictures can be read; picture 0 is broken"):
        scenes_of(make_log(steady(), frames=Pictures(49, bad=range(49))), CONFIG)


def test_frame_rate_that_changes_tenfold_is_handled_by_time():
    times = np.concatenate([steady(3.0, 20.0), 3.5 + 0.5 * np.arange(10)])
    made = scenes_of(make_log(times), CONFIG)
    (scene,) = made.scenes
    assert scene.timestamps_s[-1] == pytest.approx(3.0)
    assert made.left_out.num_too_slow == 10
    assert any("too far apart for the rate" in line for line in made.left_out.lines)
    slow = scenes_of(make_log(times), replace(CONFIG, rate_hz=2.0))
    assert len(slow.scenes) == 1
    assert slow.scenes[0].timestamps_s[-1] == pytest.approx(8.0)


def test_rate_that_does_not_divide_is_said():
    made = scenes_of(make_log(steady(4.0, 10.0)), CONFIG)
    assert any("--rate 5 shows them on time" in line for line in made.problems)
    assert not any("--rate" in line for line in scenes_of(make_log(steady(4.0, 30.0)), CONFIG).problems)


def test_one_picture_makes_no_scene():
    with pytest.raises(InputError, match=r"drive holds 1 picture; a scene needs 2"):
        scenes_of(make_log([0.0]), CONFIG)


def test_pictures_without_readings_are_left_out():
    log = make_log(steady(6.0))
    half = Signal(times_s=np.arange(0, 3.05, 0.1), values=np.full(31, 8.0))
    made = scenes_of(replace(log, speed_mps=half), CONFIG)
    assert made.left_out.num_without_readings > 30
    assert made.scenes[0].timestamps_s[-1] <= 3.2
    hole = Signal(times_s=np.r_[0:2.05:0.1, 4:6.05:0.1], values=np.full(42, 8.0))
    assert len(scenes_of(replace(log, speed_mps=hole), CONFIG).scenes) == 2


def test_steering_that_ends_is_not_held_where_the_yaw_rate_goes_on():
    times = steady(6.0)
    yaw_rate = Signal(times_s=times, values=np.full(len(times), 0.1))
    steering = Signal(times_s=times[:40], values=np.full(40, 0.05))
    made = scenes_of(replace(make_log(times), yaw_rate_radps=yaw_rate, steering_rad=steering), CONFIG)
    assert made.left_out.num_without_readings > 0
    assert all(scene.timestamps_s[-1] <= times[40] for scene in made.scenes)


def test_lag_and_flip_move_and_mirror_the_readings():
    times = steady(4.0)
    steering = np.where(times < 2.0, 0.0, 0.1)
    log = make_log(times, steering_rad=Signal(times_s=times, values=steering))
    late = corrected(log, replace(CONFIG, lag_frames=6, flip_steering=True))
    assert np.interp(2.4, late.steering_rad.times_s, late.steering_rad.values) == 0.0
    assert np.interp(2.6, late.steering_rad.times_s, late.steering_rad.values) == pytest.approx(-0.1)
    made = scenes_of(log, replace(CONFIG, lag_frames=6))
    assert (
        made.left_out.num_without_readings == 5
    )  # of the six at the start, one is within reach of a reading


def test_slips_are_left_out_and_wrong_units_refused():
    log = make_log(steady(20.0))
    log.speed_mps.values[100] = 1e6
    made = scenes_of(log, CONFIG)
    assert any("1 readings left out" in line for line in made.problems)
    np.testing.assert_allclose(made.scenes[0].speed_mps, 8.0)
    with pytest.raises(InputError, match=r"steering.*reach 25.*--steering-unit"):
        scenes_of(make_log(steady(), steering=25.0), CONFIG)
    with pytest.raises(InputError, match=r"speeds.*--speed-unit"):
        scenes_of(make_log(steady(), speed=300.0), CONFIG)


def test_speed_jump_cuts():
    times = steady(6.0)
    speed = Signal(times_s=times, values=np.where(times < 3.0, 2.0, 40.0))
    made = scenes_of(make_log(times, speed_mps=speed), CONFIG)
    assert made.left_out.num_jumps == 1
    assert len(made.scenes) == 2
    assert {round(float(scene.speed_mps.mean())) for scene in made.scenes} == {2, 40}


def circle(times: np.ndarray, *, speed=10.0, yaw_rate=0.2) -> Track:
    yaw = yaw_rate * times
    xy = speed / yaw_rate * np.stack([np.sin(yaw), 1 - np.cos(yaw)], axis=-1)
    return Track(times_s=times, xy_m=xy, yaw_rad=np.mod(yaw + np.pi, 2 * np.pi) - np.pi)


def test_track_alone_gives_speed_yaw_rate_and_steering():
    times = steady(20.0)
    log = make_log(times, speed_mps=None, steering_rad=None, track=circle(times))
    made = scenes_of(log, CONFIG)
    (scene,) = made.scenes
    assert (made.sources.speed, made.sources.yaw_rate, made.sources.poses) == ("track", "track", "track")
    np.testing.assert_allclose(scene.speed_mps, 10.0, rtol=1e-6)
    np.testing.assert_allclose(scene.yaw_rate_radps, 0.2, rtol=1e-6)
    np.testing.assert_allclose(scene.steering_rad, np.arctan(2.8 * 0.02), rtol=1e-3)
    assert (np.abs(scene.yaw_rad) <= np.pi).all()


def test_track_jump_cuts_and_speed_that_disagrees_is_replaced():
    times = steady(6.0)
    track = circle(times)
    track.xy_m[times > 3.0] += 500.0
    made = scenes_of(make_log(times, track=track, speed=10.0), CONFIG)
    assert len(made.scenes) == 2
    assert made.left_out.num_jumps == 1
    slow = scenes_of(make_log(times, track=circle(times), speed=3.6), CONFIG)
    assert any("off the positions by 6.4 m/s" in line for line in slow.problems)
    np.testing.assert_allclose(slow.scenes[0].speed_mps, 10.0, rtol=1e-6)


def test_measured_yaw_rate_wins_over_steering():
    times = steady()
    log = make_log(times, yaw_rate_radps=Signal(times_s=times, values=np.full(len(times), -0.3)))
    assert list(yaw_signals(log, CONFIG)) == ["yaw rate", "steering"]
    np.testing.assert_allclose(motion_at(log, times[::2], CONFIG).yaw_rate_radps, -0.3)
    flipped = scenes_of(log, replace(CONFIG, flip_yaw_rate=True)).scenes[0]
    np.testing.assert_allclose(flipped.yaw_rate_radps, 0.3)


def test_steering_of_a_small_car_is_that_of_drivesims_on_the_same_curve(tmp_path):
    config = replace(CONFIG, wheelbase_m=0.5)
    log = make_log(steady(), speed=2.0, steering=0.05)
    (scene,) = scenes_of(log, config).scenes
    np.testing.assert_allclose(scene.yaw_rate_radps, 2.0 * np.tan(0.05) / 0.5, rtol=1e-9)
    np.testing.assert_allclose(np.tan(scene.steering_rad), 2.8 * np.tan(0.05) / 0.5, rtol=1e-9)
    write_nuscenes([scene], tmp_path / "set")
    back = open_dataset(tmp_path / "set").load("scene-2001")
    assert [problem for problem in back.problems if isinstance(problem, Fault)] == []
    assert back.signal_sources["steering"] == "steeranglefeedback"


def test_tyres_limit_the_bicycle():
    log = make_log(steady(), speed=30.0, steering=0.4)
    (signal,) = yaw_signals(log, CONFIG).values()
    np.testing.assert_allclose(signal.values, 7.0 / 30.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"speed_mps": None}, "no speed and no positions"),
        ({"steering_rad": None}, "no steering, yaw rate or positions"),
        ({"frames": Pictures(3)}, "3 pictures but 49 times"),
        ({"frame_times_s": np.zeros(49)}, "do not increase"),
    ],
)
def test_logs_that_tell_too_little_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        scenes_of(make_log(steady(), **changes), CONFIG)


# ---------------------------------------------------------------------------------------- pictures, camera


def test_mixed_sizes_are_fitted_and_said():
    log = make_log(steady(), frames=Pictures(49, sizes=((24, 40), (24, 40), (48, 60))))
    made = scenes_of(log, CONFIG)
    assert {image.shape for image in made.scenes[0].frames} == {(32, 56, 3)}
    assert any("2 sizes" in line and "40x24" in line for line in made.problems)


@pytest.mark.parametrize("how", list(Fit))
@pytest.mark.parametrize("size", [(320, 160), (160, 120), (100, 300), (224, 128)])
def test_camera_follows_the_picture(how, size):
    """A white square drawn where the camera sees a direction is found where the fitted camera sees it."""
    camera = assumed_camera(*size, ImportConfig(camera_pitch_rad=0.03))
    column, row = camera.cx_px + 0.2 * camera.fx_px, camera.cy_px - 0.1 * camera.fy_px
    image = np.zeros((size[1], size[0], 3), np.uint8)
    reach = max(size) // 40
    image[round(row) - reach : round(row) + reach, round(column) - reach : round(column) + reach] = 255
    small = fitted(image, width_px=224, height_px=128, how=how)
    seen = fitted_camera(camera, width_px=224, height_px=128, how=how)
    assert small.shape == (128, 224, 3)
    weight = small[..., 0].astype(float)
    rows, columns = np.mgrid[0:128, 0:224] + 0.5
    assert (columns * weight).sum() / weight.sum() == pytest.approx(seen.cx_px + 0.2 * seen.fx_px, abs=1.5)
    assert (rows * weight).sum() / weight.sum() == pytest.approx(seen.cy_px - 0.1 * seen.fy_px, abs=1.5)


def test_assumed_camera_is_that_of_the_reference_world_and_pitch_lifts_the_horizon():
    camera = assumed_camera(224, 128, ImportConfig())
    assert camera.fx_px == pytest.approx(160.0)
    np.testing.assert_allclose(camera.ego_from_cam, front_camera().ego_from_cam, atol=1e-12)
    down = assumed_camera(224, 128, ImportConfig(camera_pitch_rad=0.1))
    ahead = down.ego_from_cam[:3, :3].T @ [1.0, 0.0, 0.0]
    assert down.cy_px + down.fy_px * ahead[1] / ahead[2] == pytest.approx(64 - 160 * np.tan(0.1))


def test_calibrated_camera_is_scaled_to_the_pictures():
    log = make_log(
        steady(), camera=front_camera(width_px=80, height_px=48, focal_px=60.0, horizon_row_px=20.0)
    )
    made = scenes_of(log, replace(CONFIG, width_px=40, height_px=24))
    assert made.scenes[0].camera.fx_px == pytest.approx(30.0)
    assert made.scenes[0].camera.cy_px == pytest.approx(10.0)
    survey = survey_of(log, CONFIG)
    assert survey.common_size == (40, 24)
    off = scenes_of(replace(log, camera=front_camera(width_px=100, height_px=100)), CONFIG)
    assert any("another shape" in line for line in off.problems)


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"field_of_view_rad": 3.1},
            {"camera_pitch_rad": 1.0},
            {"rate_hz": 0.0},
            {"recorded_rate_hz": -1.0},
        ),
        *({"rate_hz": np.inf}, {"steering_ratio": np.inf}, {"time_offset_s": np.nan}, {"width_px": 10**6}),
    ],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        ImportConfig(**changes)
