"""The fidelity benchmark on a painted road: an oracle scores full marks, a model deaf to actions none."""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from painted_road import view
from small_models import small_config, small_world_model
from torch import Tensor

from benchmarks import control, fidelity, fidelity_figures, held_out, maneuvers
from benchmarks.decoding_rounds import compare_samplers, samplers_of
from benchmarks.fidelity_options import FULL, extent_of, parse
from benchmarks.held_out import (
    HeldOutScene,
    Start,
    check_horizon,
    check_seeds,
    draw_starts,
    is_drivable,
    is_moving,
    last_seed_of_kind,
    record_held_out,
    without_labels,
)
from benchmarks.lane_drives import DriftConfig
from benchmarks.page import Picture, Plot, render_page
from benchmarks.pictures import learned_facts, open_networks
from benchmarks.report import (
    Report,
    check_out,
    draw_sheet,
    parsed,
    run_command,
    run_facts,
    weights_facts,
)
from benchmarks.statistics import (
    bootstrap_correlation,
    bootstrap_mean,
    bootstrap_ratio,
    wilson_share,
)
from drivesim.checkpoint import read_header, resolve_weights, save_module, weights_hash
from drivesim.config import git_hash
from drivesim.dynamics import VehicleConfig, planar_motion
from drivesim.errors import InputError
from drivesim.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from drivesim.metrics.image import Extractor
from drivesim.scene.types import EgoState, Scene, front_camera
from drivesim.tokenizer.vqgan import VQGAN, VQGANConfig
from drivesim.world_model.sampler import UnmaskOrder
from drivesim.world_model.world_model import WorldModel

NUM_FRAMES = 18
RATE_HZ = 6.0
Pose = tuple[float, float, float]


def small_idm_config(**settings: float) -> InverseDynamicsConfig:
    return InverseDynamicsConfig(
        turn_widths=[16, 16], motion_widths=[16, 16], appearance_channels=4, **settings
    )


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

    def observe(self, frames_BTHWC: Tensor, twist_BTA: Tensor, camera: object, **_: object) -> PaintedState:
        assert frames_BTHWC.shape[1] == twist_BTA.shape[1] == self.num_context_frames
        return PaintedState([self.pose_of[clip[-1].numpy().tobytes()] for clip in frames_BTHWC])

    def imagine(self, state: PaintedState, twist_BA: Tensor, **_: object) -> SimpleNamespace:
        twists = twist_BA.tolist() if self.obeys else [(8.0, 0.0)] * len(twist_BA)
        poses = [next_pose(pose, *twist) for pose, twist in zip(state.poses, twists, strict=True)]
        frames_BHWC = torch.from_numpy(np.stack([view(*pose) for pose in poses]) ^ 1)  # never quite exact
        return SimpleNamespace(state=PaintedState(poses), frames_BHWC=frames_BHWC)


CONFIG = fidelity_figures.FidelityConfig(horizon=12, num_starts=2, batch_size=2)


@pytest.fixture(scope="module")
def obeying(scenes: list[HeldOutScene]) -> fidelity_figures.Measured:
    idm = InverseDynamics(small_idm_config()).eval()
    model = PaintedModel(scenes, obeys=True)
    return fidelity_figures.measure(model, scenes, CONFIG, inverse_dynamics=idm, true_frames_fn=drive_painted)


def test_a_world_that_obeys_gets_full_marks(obeying: fidelity_figures.Measured) -> None:
    result = obeying.report.as_dict()
    assert result["steering_sign_accuracy"] == 1.0
    assert result["steering_sign_accuracy_true_frames"] == 1.0
    assert result["speed_order_accuracy_road_motion"] == 1.0
    assert result["delta_psnr_db"]["6"] > 3
    assert set(result["psnr_gain_over_repeat_db"]) == {"1", "3", "6", "12"}
    assert all(gain > 3 for gain in result["psnr_gain_over_repeat_db"].values())
    assert 0 < result["codebook_usage"] < 1
    floor = result["trajectory_error_floor_m_at_2s"]
    assert result["trajectory_error_m_at_2s"] == pytest.approx(floor, abs=0.05)
    assert result["trajectory_error_over_floor_at_2s"] == pytest.approx(1.0, abs=0.02)


def test_curves_run_over_every_step_beside_both_reference_lines(obeying: fidelity_figures.Measured) -> None:
    result = obeying.report.as_dict()
    for name in ("psnr_db", "ssim", "delta_psnr_db", "trajectory_error_m", "yaw_rate_correlation"):
        curve = result[f"{name}_curve"]
        assert curve["step"] == list(range(1, 13))
        assert all(low <= high for low, high in zip(curve["low"], curve["high"], strict=True))
    assert result["psnr_db_curve"]["value"][5] == result["psnr_db"]["6"]
    assert result["psnr_db_interval"]["6"][0] == result["psnr_db_curve"]["low"][5]
    gain = result["psnr_db"]["6"] - result["repeat_psnr_db"]["6"]
    assert result["psnr_gain_over_repeat_db"]["6"] == pytest.approx(gain)
    ceiling = np.mean(result["ceiling_psnr_db_curve"]["value"])
    assert result["tokenizer_psnr_db"] == pytest.approx(ceiling)


def test_targets_stand_beside_what_was_reached(obeying: fidelity_figures.Measured) -> None:
    verdicts = obeying.report.as_dict()["targets"]
    assert verdicts["psnr_gain_over_repeat_db [6]"] == {"target": ">= 4", "is_reached": True}
    assert verdicts["trajectory_error_over_floor_at_2s"] == {"target": "<= 2", "is_reached": True}
    assert verdicts["tokenizer_psnr_db"]["is_reached"] is False


def test_the_sheets_show_recorded_above_imagined_and_the_manoeuvres(
    obeying: fidelity_figures.Measured,
) -> None:
    rows = fidelity_figures.sheet(obeying, CONFIG.horizons)
    assert [row[1][0] for row in rows[:2]] == ["recorded +1", "imagined +1"]
    assert {len(row) for row in rows} == {5}
    assert obeying.maneuver_frames is not None
    driven = fidelity_figures.maneuver_sheet(obeying.maneuver_frames)
    assert draw_sheet([rows[0], driven[0][:3]]).shape == (258, 5 * 226 - 2, 3)


def test_a_world_that_ignores_actions_is_found_out(scenes: list[HeldOutScene]) -> None:
    model = PaintedModel(scenes, obeys=False)
    measured = fidelity_figures.measure(model, scenes, CONFIG, true_frames_fn=drive_painted)
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
    with pytest.raises(InputError, match="only 18 frames of 2 scenes fit"):
        draw_starts(scenes, 19, num_context_frames=4, horizon=6, is_eligible=eligible)
    fewer = draw_starts(scenes, 19, num_context_frames=4, horizon=6, is_eligible=eligible, may_be_fewer=True)
    assert len(fewer) == 18


def test_standing_off_road_and_crashed_frames_are_left_out() -> None:
    standing = painted_scene(0.2, 0.0)
    assert not is_moving(standing).any()
    scene = painted_scene(8.0, 0.0)
    scene.is_collision[5], scene.is_off_road[2] = True, True
    assert np.flatnonzero(is_drivable(scene, min_speed_mps=4.0)).tolist() == [0, 1, 3, 4]


def test_only_held_out_and_validation_seeds_are_measured() -> None:
    with pytest.raises(InputError, match="are not held out"):
        record_held_out(first_seed=100, num_scenes=1, num_frames=10)
    with pytest.raises(InputError, match="are not held out"):
        record_held_out(first_seed=949_999, num_scenes=2, num_frames=10)
    with pytest.raises(InputError, match="are not held out"):
        check_seeds(899_999, 2)
    assert check_seeds(900_000, 64) == "held-out roads"
    assert check_seeds(890_000, 64) == "validation roads, not published figures"
    assert last_seed_of_kind(890_010) == 899_999
    assert last_seed_of_kind(900_010) == 949_999


def test_a_horizon_beyond_the_log_is_refused(scenes: list[HeldOutScene]) -> None:
    check_horizon(24, num_context_frames=4, num_frames=28)
    with pytest.raises(InputError, match="beyond the log: the recordings have 27 frames, 4 of them"):
        check_horizon(24, num_context_frames=4, num_frames=27)
    config = fidelity_figures.FidelityConfig(horizon=NUM_FRAMES - 3, num_starts=1)
    with pytest.raises(InputError, match="ask for at most 14"):
        fidelity_figures.measure(PaintedModel(scenes, obeys=True), scenes, config)
    with pytest.raises(InputError, match="--horizon must be at least 1, got 0"):
        fidelity_figures.FidelityConfig(horizon=0)
    assert fidelity_figures.FidelityConfig(horizon=8).horizons == [1, 3, 6, 8]


def test_scenes_in_which_nothing_moves_are_refused_and_slow_ones_not_steered(
    scenes: list[HeldOutScene],
) -> None:
    standing, slow = painted_scene(0.0, 0.0), painted_scene(2.0, 0.1)
    config = fidelity_figures.FidelityConfig(horizon=6, num_starts=2, takes_fewer=True)
    with pytest.raises(InputError, match="in none of the 1 scenes does the car move"):
        fidelity_figures.measure(PaintedModel([standing], obeys=True), [standing], config)
    measured = fidelity_figures.measure(PaintedModel([slow], obeys=True), [slow], config)
    assert measured.maneuver_frames is None
    assert measured.report.facts["starts_of_manoeuvres"] == 0
    assert "trajectory_error_m_at_2s" not in measured.report.as_dict()


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
    errors_m = control.trajectory_errors_m(twist + np.array([1.0, 0.0]), twist, rate_hz=RATE_HZ)
    assert errors_m[0, -1] == pytest.approx(0.5, abs=0.05)


def test_intervals_hold_the_value_and_do_not_collapse() -> None:
    perfect = wilson_share(np.ones(64, dtype=bool))
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert 0.93 < perfect.low < 0.95
    mean = bootstrap_mean(np.arange(10.0), [0] * 5 + [1] * 5)
    assert (mean.low, mean.value, mean.high) == pytest.approx((2.0, 4.5, 7.0))
    ratio = bootstrap_ratio([2.0, 4.0], [1.0, 4.0], [0, 1])
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((1.0, 1.2, 2.0))


def test_correlations_are_pearson_s_and_zero_without_variation() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(6, 9)) + 100.0
    b = 0.5 * a + rng.normal(size=(6, 9))
    found = bootstrap_correlation(a, b, [0, 0, 1, 1, 2, 2])
    assert found.value == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert found.low <= found.value <= found.high
    assert found.count == 54
    assert bootstrap_correlation(a, np.full_like(a, 3.0), range(6)).value == 0.0


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


def test_a_run_notes_its_command_its_commit_and_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trial")
    parser.add_argument("--out")
    facts = run_facts(parsed(parser, ["--out", "a b.json"]), num_threads=3)
    assert facts["command"] == "python -m benchmarks.trial --out 'a b.json'"
    assert facts["git"] == git_hash()
    assert facts["threads"] == 3
    monkeypatch.setattr("sys.argv", ["trial.py", "--out", "c.json"])
    assert parsed(parser, None).command == "python -m benchmarks.trial --out c.json"
    hashes = weights_facts(weights="drive-tiny", hazard_head="")
    assert hashes == {"weights_sha256": read_header(resolve_weights("drive-tiny"))["sha256"]}
    assert len(hashes["weights_sha256"]) == 64
    with pytest.raises(InputError, match="no weights named"):
        weights_facts(weights="drive-tinny")


SMALL_RUN = [
    *("--scenes", "scene-2001", "--threads", "1"),
    *("--starts", "1", "--batch", "1", "--horizon", "2"),
    *("--drift-roads", "1", "--drift-steps", "12"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("weights")
    model = small_world_model()
    save_module(model, folder / "world.safetensors", kind="world-model", config=model.config)
    idm = InverseDynamics(small_idm_config())
    save_module(idm, folder / "idm.safetensors", kind="inverse-dynamics", config=idm.config)
    return ["--weights", str(folder / "world.safetensors"), "--idm", str(folder / "idm.safetensors")]


class Averages(torch.nn.Module):
    """Stands for a network for FID or FVD; like that for FVD, it cannot read clips that are too short."""

    def forward(
        self,
        x: Tensor,
        rescale: bool = False,
        resize: bool = False,
        return_features: bool = False,
    ) -> Tensor:
        if x.dim() == 5:
            x = torch.nn.functional.avg_pool3d(x, [4, 1, 1])
        return x.mean(dim=[-1, -2])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("networks") / "net.pt"
    with pytest.warns(DeprecationWarning, match="deprecated"):
        torch.jit.script(Averages()).save(str(path))
    return path


@pytest.fixture(scope="module")
def unfit(tmp_path_factory: pytest.TempPathFactory, network: Path) -> dict[str, str]:
    """Files by short names: a network, and weights that fit no recorded road."""
    folder = tmp_path_factory.mktemp("unfit")
    paths = {name: folder / f"{name}.safetensors" for name in ("wide", "clips", "fast")}
    config = small_config()
    wide = WorldModel(replace(config, vqgan=replace(config.vqgan, width_px=256)))
    clips = small_world_model(is_frame_causal=False)
    save_module(wide, paths["wide"], kind="world-model", config=wide.config)
    save_module(clips, paths["clips"], kind="world-model", config=clips.config)
    idm = InverseDynamics(small_idm_config(rate_hz=12.0))
    save_module(idm, paths["fast"], kind="inverse-dynamics", config=idm.config)
    return {name: str(path) for name, path in paths.items()} | {"net": str(network)}


def test_one_command_writes_figures_page_and_sheets(weights: list[str], tmp_path: Path) -> None:
    fidelity.main([*weights, *SMALL_RUN, "--out", str(tmp_path / "f.json")])
    names = ["f-drift.jpg", "f-manoeuvres.png", "f.gif", "f.html", "f.json", "f.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    result = json.loads((tmp_path / "f.json").read_text())
    assert result["roads"] == "embedded scenes"
    assert result["extent"] == "other: chosen on the command line"
    assert result["command"].startswith("python -m benchmarks.fidelity --weights ")
    assert result["command"].endswith(f"--out {tmp_path / 'f.json'}")
    assert result["weights_sha256"] == weights_hash(weights[1])
    assert result["idm_sha256"] == weights_hash(weights[3])
    assert result["took_s"] >= 0
    assert "git" in result
    assert result["lpips_network"] == "none named (--lpips FILE), not measured"
    assert 0 <= result["drift_readable_share_at_12"] <= 1
    assert result["drift_look_kept_share_at_12_true_frames"] == 1.0
    assert result["drift_readable_share_true_frames_curve"]["step"] == [12]
    page = (tmp_path / "f.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3
    assert page.count("data:image/png;base64,") >= 6
    assert "http" not in page


def test_decoding_rounds_are_compared_by_one_command(weights: list[str], tmp_path: Path) -> None:
    out = tmp_path / "rounds.json"
    fidelity.main([*weights, *SMALL_RUN, "--rounds", "1", "2", "--out", str(out)])
    result = json.loads(out.read_text())
    labels = ["rounds_1_confidence_t0", "rounds_2_confidence_t0", "rounds_2_random_t0"]
    gains = [name for name in result if name.startswith("psnr_gain") and name.endswith("_t0")]
    assert gains == [f"psnr_gain_over_repeat_db_{label}" for label in labels]
    assert all(set(result[name]) == {"1", "2"} for name in gains)
    assert all(result[f"imagined_frames_per_s_{label}"] > 0 for label in labels)
    assert (tmp_path / "rounds.html").is_file()


def test_more_rounds_change_nothing_in_a_world_without_a_sampler(scenes: list[HeldOutScene]) -> None:
    open_loop, _ = fidelity_figures.instruments(
        PaintedModel(scenes, obeys=True), scenes[0].scene, CONFIG, None
    )
    starts = fidelity_figures.moving_starts(scenes, CONFIG, open_loop)
    samplers = samplers_of([1, 4], list(UnmaskOrder), [0.0, 1.0])
    assert len(samplers) == 6
    report = compare_samplers(open_loop, scenes, starts, samplers, horizons=[1, 6])
    gains = {row.value for row in report.rows if row.name.startswith("psnr") and row.key == "6"}
    assert len(gains) == 1
    assert gains.pop() > 3
    with pytest.raises(InputError, match="num_decode_steps must be at least 1, got 0"):
        samplers_of([0], [UnmaskOrder.RANDOM], [0.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "no-such-weights"], "no-such-weights"),
        (["--weights", "inverse-dynamics"], "holds an inverse-dynamics, but a world-model is needed"),
        (["--scenes", "scene-9999"], "scene-9999"),
        (["--scenes", "scene-2001", "--horizon", "500"], "beyond the log"),
        (["--horizon", "45"], "beyond the log"),
        (["--horizon", "0"], "--horizon must be at least 1"),
        (["--num-scenes", "0"], "--num-scenes must be at least 1"),
        (["--seed", "5"], "not held out"),
        (["--scenes", "scene-2001", "--seed", "5"], "not held out"),
        (["--scenes", "scene-2001", "--drift-steps", "-3"], "--drift-steps"),
        (["--scenes", "scene-2001", "--num-scenes", "3"], "--num-scenes is for roads to record"),
        (["--scenes", "scene-2001", "--frames", "30"], "--frames is for roads to record"),
        (["--orders", "randon"], "no order 'randon' for --orders; did you mean random?"),
        (["--lpips", "no-such-network.pt"], "no feature network for lpips"),
    ],
)
def test_bad_input_ends_with_one_sentence(
    arguments: list[str],
    message: str,
    weights: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    command = [*weights, *arguments, "--threads", "1", "--out", str(tmp_path / "x.json")]
    with pytest.raises(SystemExit) as ended:
        run_command(partial(fidelity.main, command))
    assert ended.value.code == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("error:") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--drift-steps", "-3"], "--drift-roads and --drift-steps must be at least 1, got 4 and -3"),
        (["--drift-roads", "0"], "--drift-roads and --drift-steps must be at least 1, got 0 and 600"),
        (["--rounds", "0"], "num_decode_steps must be at least 1, got 0"),
        (["--rounds", "1", "--temperatures", "-1"], "temperature must be >= 0"),
        (["--starts", "0"], "--starts and --batch must be at least 1"),
        (["--idm", "fast"], "224x128 px at 12 Hz, but the recordings have 224x128 px at 6 Hz"),
        (["--weights", "wide"], "256x128 px at 6 Hz, but the recordings have 224x128 px at 6 Hz"),
        (["--weights", "clips"], "of a preset that reads whole clips"),
        (["--fid", "net", "--starts", "1", "--horizon", "1"], "--fid needs at least two pictures"),
        (["--fvd", "net", "--starts", "1"], "--fvd needs at least two clips to compare, got 1"),
        (["--fvd", "net", "--horizon", "3"], "net.pt cannot serve as the FVD network on clips of 3 frames"),
    ],
)
def test_nothing_is_recorded_before_it_is_refused(
    arguments: list[str],
    message: str,
    weights: list[str],
    unfit: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded: list[int] = []
    monkeypatch.setattr(held_out, "record", lambda *_, **__: recorded.append(1))
    arguments = [unfit.get(argument, argument) for argument in arguments]
    with pytest.raises(InputError, match=re.escape(message)):
        fidelity.main([*weights, *arguments, "--threads", "1", "--out", str(tmp_path / "x.json")])
    assert recorded == []


def test_all_of_it_is_checked_and_then_roads_are_recorded(
    weights: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(*_: object, rate_hz: float, camera: object, **__: object) -> None:
        assert (rate_hz, str(camera)) == (RATE_HZ, str(front_camera()))
        raise InputError("recording")

    monkeypatch.setattr(held_out, "record", record)
    with pytest.raises(InputError, match=r"^recording$"):
        fidelity.main([*weights, "--threads", "1", "--out", str(tmp_path / "x.json")])


@pytest.mark.parametrize(
    ("arguments", "extent"),
    [
        ([], "full"),
        (["--weights", "drive-tiny", "--num-scenes", "64", "--threads", "1", "--fid", "net.pt"], "full"),
        (["--quick"], "quick"),
        (["--starts", "10", "--num-scenes", "10", "--drift-roads", "2", "--drift-steps", "100"], "quick"),
        (["--quick", "--scenes", "all"], "other"),
        (["--quick", "--horizon", "12"], "other"),
        (["--no-map"], "other"),
        (["--no-agents"], "other"),
        (["--weights", "mine.safetensors"], "other"),
        (["--idm", "none"], "other"),
        (["--frames", "60"], "other"),
        (["--seed", "890000"], "other"),
        (["--rounds", "1"], "other"),
    ],
)
def test_the_extent_is_full_or_quick_only_with_their_defaults(arguments: list[str], extent: str) -> None:
    options = parse([*arguments, "--out", "x.json"])
    assert extent_of(options).partition(":")[0] == extent


def test_the_drift_is_the_published_one_unless_told_otherwise() -> None:
    config = DriftConfig(first_seed=900_000)
    assert (config.num_roads, config.num_steps) == (FULL.drift_roads, FULL.drift_steps) == (4, 600)


def test_damaged_and_unfitting_weights_are_refused(
    weights: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = Path(weights[1]).read_bytes()
    (tmp_path / "short.safetensors").write_bytes(whole[:-100])
    (tmp_path / "bent.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    both_ways = small_world_model(is_frame_causal=False)
    save_module(both_ways, tmp_path / "clips.safetensors", kind="world-model", config=both_ways.config)
    idm = InverseDynamics(small_idm_config(rate_hz=12.0))
    save_module(idm, tmp_path / "fast.safetensors", kind="inverse-dynamics", config=idm.config)
    refused = {
        "short": "not a readable safetensors file",
        "bent": "is damaged",
        "clips": "of a preset that reads whole clips",
        "fast": "224x128 px at 12 Hz, but the recordings have 224x128 px at 6 Hz",
    }
    for name, message in refused.items():
        option = "--idm" if name == "fast" else "--weights"
        command = [*weights, *SMALL_RUN, option, str(tmp_path / f"{name}.safetensors")]
        with pytest.raises(SystemExit) as ended:
            run_command(partial(fidelity.main, [*command, "--out", str(tmp_path / "out" / "x.json")]))
        assert ended.value.code == 2
        assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.json").mkdir()
    for path, message in {
        tmp_path / "table.csv": "must name a .json file",
        tmp_path / "folder.json": "is a folder",
        tmp_path / "file" / "x.json": "not a writable folder",
    }.items():
        with pytest.raises(InputError, match=message):
            check_out(path)
    check_out(tmp_path / "new" / "x.json")


def test_learned_networks_are_tried_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        torch.jit.script(torch.nn.Flatten()).save(str(tmp_path / "flat.pt"))
    with pytest.raises(InputError, match=r"flat\.pt cannot serve as the LPIPS network"):
        open_networks({Extractor.LPIPS: tmp_path / "flat.pt", Extractor.FID: None}, num_starts=2, horizon=4)
    assert open_networks(dict.fromkeys(Extractor), num_starts=1, horizon=1) == {}
    assert "not measured" in learned_facts({})["fvd_network"]


def test_networks_are_tried_on_clips_as_long_as_the_horizon(network: Path) -> None:
    named = {Extractor.FID: network, Extractor.FVD: network}
    assert set(open_networks(named, num_starts=2, horizon=4)) == set(named)
    with pytest.raises(InputError, match=r"clips of 3 frames .* or a longer --horizon"):
        open_networks(named, num_starts=2, horizon=3)
    assert set(open_networks({Extractor.FID: network}, num_starts=1, horizon=2)) == {Extractor.FID}


def test_scenes_with_a_single_start_have_no_spread(scenes: list[HeldOutScene], network: Path) -> None:
    networks = open_networks({Extractor.FVD: network}, num_starts=64, horizon=NUM_FRAMES - 4)
    config = fidelity_figures.FidelityConfig(horizon=NUM_FRAMES - 4, takes_fewer=True, networks=networks)
    with pytest.raises(InputError, match="--fvd needs at least two clips to compare, got 1"):
        fidelity_figures.measure(PaintedModel(scenes, obeys=True), scenes[:1], config)


def test_the_page_escapes_names_and_leaves_out_plots_without_curves() -> None:
    report = Report(title="a < b", facts={"scene": "<script>"})
    report.add("share", 0.5, note="half & half")
    plot = Plot(title="nothing", unit="", lines={"line": "missing"})
    picture = Picture(title="grey", rows=[[("one", np.zeros((128, 224, 3), np.uint8))]])
    page = render_page(report, plots=[plot], pictures=[picture])
    assert "<script>" not in page
    assert "half &amp; half" in page
    assert page.count("<img") == 1


def test_a_replayed_recording_shows_the_recorded_world() -> None:
    [recorded] = record_held_out(first_seed=900_000, num_scenes=1, num_frames=5)
    states = [recorded.scene.ego_state(index) for index in (3, 4)]
    plan = maneuvers.Maneuver(states=states)
    plans = {"once": [plan], "again": [plan]}
    shown = maneuvers.true_frames([recorded], [Start(scene_index=0, frame_index=2)], plans)
    assert np.array_equal(shown["once"][0], recorded.frames(3, 2))
    assert np.array_equal(shown["again"][0], recorded.frames(3, 2))
