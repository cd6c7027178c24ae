"""The fidelity benchmark on a painted road: an oracle scores full marks, a model deaf to actions none."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from painted_road import view
from torch import Tensor

from benchmarks import control, fidelity, maneuvers
from benchmarks.held_out import (
    HeldOutScene,
    Start,
    draw_starts,
    is_drivable,
    is_moving,
    record_held_out,
    without_labels,
)
from benchmarks.report import Report, run_command
from benchmarks.statistics import bootstrap_mean, wilson_share
from drivesim.dynamics import VehicleConfig, planar_motion
from drivesim.errors import InputError
from drivesim.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from drivesim.scene.types import EgoState, Scene, front_camera
from drivesim.tokenizer.vqgan import VQGAN, VQGANConfig

NUM_FRAMES = 14
RATE_HZ = 6.0
Pose = tuple[float, float, float]


def next_pose(pose: Pose, speed_mps: float, yaw_rate_radps: float) -> Pose:
    dx, dy, dyaw = planar_motion(speed_mps, yaw_rate_radps, 1 / RATE_HZ)
    x_m, y_m, yaw_rad = pose
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return (x_m + cos * dx - sin * dy, y_m + sin * dx + cos * dy, yaw_rad + dyaw)


def painted_scene(speed_mps: float, yaw_rate_radps: float) -> HeldOutScene:
    poses: list[Pose] = [(50.0, 50.0, 0.1)]
    while len(poses) < NUM_FRAMES:
        poses.append(next_pose(poses[-1], speed_mps, yaw_rate_radps))
    scene = Scene(
        name=f"painted-{speed_mps}-{yaw_rate_radps}",
        place="painted",
        caption="",
        log_name="painted",
        rate_hz=RATE_HZ,
        timestamps_s=np.arange(NUM_FRAMES) / RATE_HZ,
        frames=[view(*pose) for pose in poses],
        camera=front_camera(),
        xy_m=np.array([pose[:2] for pose in poses]),
        yaw_rad=np.array([pose[2] for pose in poses]),
        speed_mps=np.full(NUM_FRAMES, speed_mps),
        yaw_rate_radps=np.full(NUM_FRAMES, yaw_rate_radps),
        steering_rad=np.zeros(NUM_FRAMES),
        motion_source="can",
    )
    return without_labels(scene)


@pytest.fixture(scope="module")
def scenes() -> list[HeldOutScene]:
    return [painted_scene(6.0, 0.2), painted_scene(10.0, -0.2)]


def drive_painted(
    scene: HeldOutScene, frame_index: int, plans: Sequence[maneuvers.Maneuver]
) -> list[np.ndarray]:
    return [np.stack([view(state.x_m, state.y_m, state.yaw_rad) for state in plan.states]) for plan in plans]


@dataclass
class PaintedState:
    poses: list[Pose]


class PaintedModel:
    """Knows where every recorded frame was taken; moves on from there, or for ever straight on."""

    num_context_frames = 4

    def __init__(self, scenes: list[HeldOutScene], *, obeys: bool) -> None:
        self.obeys = obeys
        self.pose_of = {
            frame.tobytes(): (*map(float, xy_m), float(yaw_rad))
            for held_out in scenes
            for frame, xy_m, yaw_rad in zip(
                held_out.scene.frames, held_out.scene.xy_m, held_out.scene.yaw_rad, strict=True
            )
        }
        self.tokenizer = VQGAN(VQGANConfig(channels=[8, 8, 8], num_res_blocks=[1, 1, 1]))

    def observe(self, frames_BTHWC: Tensor, twist_BTA: Tensor, camera: object) -> PaintedState:
        assert frames_BTHWC.shape[1] == twist_BTA.shape[1] == self.num_context_frames
        return PaintedState([self.pose_of[clip[-1].numpy().tobytes()] for clip in frames_BTHWC])

    def imagine(self, state: PaintedState, twist_BA: Tensor, **_: object) -> SimpleNamespace:
        twists = twist_BA.tolist() if self.obeys else [(8.0, 0.0)] * len(twist_BA)
        poses = [next_pose(pose, *twist) for pose, twist in zip(state.poses, twists, strict=True)]
        frames_BHWC = torch.from_numpy(np.stack([view(*pose) for pose in poses]) ^ 1)  # never quite exact
        return SimpleNamespace(state=PaintedState(poses), frames_BHWC=frames_BHWC)


CONFIG = fidelity.FidelityConfig(horizon=6, num_starts=2, batch_size=2)


@pytest.fixture(scope="module")
def obeying(scenes: list[HeldOutScene]) -> fidelity.Measured:
    idm = InverseDynamics(InverseDynamicsConfig(widths=[16], blocks=[1], unshuffle=16)).eval()
    model = PaintedModel(scenes, obeys=True)
    return fidelity.measure(model, scenes, CONFIG, inverse_dynamics=idm, true_frames_fn=drive_painted)


def test_a_world_that_obeys_gets_full_marks(obeying: fidelity.Measured) -> None:
    result = obeying.report.as_dict()
    assert result["steering_sign_accuracy"] == 1.0
    assert result["steering_sign_accuracy_true_frames"] == 1.0
    assert result["speed_order_accuracy_road_motion"] == 1.0
    assert result["delta_psnr_db"]["6"] > 3
    assert set(result["psnr_gain_over_repeat_db"]) == {"1", "3", "6"}
    assert all(gain > 3 for gain in result["psnr_gain_over_repeat_db"].values())
    assert 0 < result["codebook_usage"] < 1
    assert result["trajectory_error_m"] == pytest.approx(result["trajectory_error_m_true_frames"], abs=0.05)


def test_the_sheet_has_rows_of_one_length(obeying: fidelity.Measured, tmp_path: Path) -> None:
    rows = fidelity.sheet(obeying, CONFIG.horizons)
    assert {len(row) for row in rows} == {4}
    assert all(picture.shape == (128, 224, 3) for row in rows for _, picture in row)


def test_a_world_that_ignores_actions_is_found_out(scenes: list[HeldOutScene]) -> None:
    model = PaintedModel(scenes, obeys=False)
    measured = fidelity.measure(model, scenes, CONFIG, true_frames_fn=drive_painted)
    result = measured.report.as_dict()
    assert result["steering_sign_accuracy"] == 0.0
    assert result["steering_sign_accuracy_true_frames"] == 1.0
    assert result["speed_order_accuracy"] == 0.0
    assert result["speed_order_accuracy_true_frames"] == 1.0
    assert result["delta_psnr_db"]["3"] == pytest.approx(0.0)


def test_hard_steering_follows_the_dynamics() -> None:
    slow = EgoState(x_m=0, y_m=0, yaw_rad=0, speed_mps=1.0)
    left = maneuvers.steer_hard(slow, 1 / RATE_HZ, side=1)
    right = maneuvers.steer_hard(slow, 1 / RATE_HZ, side=-1)
    assert left.twist[:, 0] == pytest.approx(4.0)
    assert (left.twist[:, 1] > 0).all()
    assert right.twist[:, 1] == pytest.approx(-left.twist[:, 1])
    fast = maneuvers.steer_hard(EgoState(x_m=0, y_m=0, yaw_rad=0, speed_mps=15.0), 1 / RATE_HZ, side=1)
    assert (fast.twist.prod(axis=1) <= VehicleConfig().max_lateral_accel_mps2 + 1e-5).all()


def test_both_speeds_drive_the_same_curve() -> None:
    ego = EgoState(x_m=0, y_m=0, yaw_rad=0, speed_mps=8.0, yaw_rate_radps=0.2)
    slow = maneuvers.hold_speed(ego, 1 / RATE_HZ, speed_mps=4.0)
    fast = maneuvers.hold_speed(ego, 1 / RATE_HZ, speed_mps=12.0)
    assert slow.twist[:, 1] / slow.twist[:, 0] == pytest.approx(fast.twist[:, 1] / fast.twist[:, 0])
    assert fast.twist[0] == pytest.approx([12.0, 0.3])


def test_starts_leave_room_and_spread_over_scenes(scenes: list[HeldOutScene]) -> None:
    eligible = partial(is_drivable, min_speed_mps=4.0)
    starts = draw_starts(scenes, 6, num_context_frames=4, horizon=6, is_eligible=eligible)
    assert len(set(starts)) == 6
    assert [start.scene_index for start in starts].count(0) == 3
    assert all(3 <= start.frame_index <= NUM_FRAMES - 7 for start in starts)
    with pytest.raises(InputError, match="only 10 frames of 2 scenes fit"):
        draw_starts(scenes, 11, num_context_frames=4, horizon=6, is_eligible=eligible)


def test_standing_off_road_and_crashed_frames_are_left_out() -> None:
    standing = painted_scene(0.2, 0.0)
    assert not is_moving(standing).any()
    scene = painted_scene(8.0, 0.0)
    scene.is_collision[5], scene.is_off_road[2] = True, True
    assert np.flatnonzero(is_drivable(scene, min_speed_mps=4.0)).tolist() == [0, 1, 3, 4]


def test_only_held_out_seeds_are_measured() -> None:
    with pytest.raises(InputError, match="are not held out"):
        record_held_out(first_seed=100, num_scenes=1, num_frames=10)
    with pytest.raises(InputError, match="are not held out"):
        record_held_out(first_seed=949_999, num_scenes=2, num_frames=10)


def test_random_actions_stay_within_the_car(scenes: list[HeldOutScene]) -> None:
    twist = maneuvers.random_twist(scenes[0], 5, 40, seed=0)
    assert twist.shape == (40, 2)
    assert (twist[:, 0] >= 0).all()
    assert (np.abs(twist.prod(axis=1)) <= VehicleConfig().max_lateral_accel_mps2 + 1e-4).all()
    assert np.array_equal(twist, maneuvers.random_twist(scenes[0], 5, 40, seed=0))


def test_tracks_equal_the_car_s_own_integration() -> None:
    twist = np.array([[[5.0, 0.4], [6.0, -0.2], [0.0, 0.0]]])
    pose: Pose = (0.0, 0.0, 0.0)
    positions = []
    for speed_mps, yaw_rate_radps in twist[0]:
        pose = next_pose(pose, speed_mps, yaw_rate_radps)
        positions.append(pose[:2])
    assert control.track(twist, RATE_HZ)[0] == pytest.approx(np.array(positions))
    errors = control.trajectory_errors(twist + np.array([1.0, 0.0]), twist, rate_hz=RATE_HZ)
    assert errors.final_m[0] == pytest.approx(0.5, abs=0.05)


def test_intervals_hold_the_value_and_do_not_collapse() -> None:
    perfect = wilson_share(np.ones(64, dtype=bool))
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert 0.93 < perfect.low < 0.95
    mean = bootstrap_mean(np.arange(10.0), [0] * 5 + [1] * 5)
    assert (mean.low, mean.value, mean.high) == pytest.approx((2.0, 4.5, 7.0))


def test_the_report_is_flat_and_replaces_nothing_on_failure(tmp_path: Path) -> None:
    report = Report(title="trial", facts={"weights": "none"})
    report.add("gain", 1.0, key=3)
    report.add_estimate("share", wilson_share([True, False]))
    report.write(tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["gain"] == {"3": 1.0}
    assert written["share"] == 0.5
    assert len(written["share_interval"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_bad_input_ends_with_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--weights", "no-such-weights", "--out", "x.json"]
    with pytest.raises(SystemExit) as ended:
        run_command(partial(fidelity.main, arguments))
    assert ended.value.code == 2
    assert "no-such-weights" in capfd.readouterr().err
    with pytest.raises(InputError, match="--horizon must be at least 6"):
        fidelity.FidelityConfig(horizon=3)


def test_a_replayed_recording_shows_the_recorded_world() -> None:
    [recorded] = record_held_out(first_seed=900_000, num_scenes=1, num_frames=5)
    states = [recorded.scene.ego_state(index) for index in (3, 4)]
    plan = maneuvers.Maneuver(states=states)
    plans = {"once": [plan], "again": [plan]}
    shown = maneuvers.true_frames([recorded], [Start(scene_index=0, frame_index=2)], plans)
    assert np.array_equal(shown["once"][0], recorded.frames(3, 2))
    assert np.array_equal(shown["again"][0], recorded.frames(3, 2))
