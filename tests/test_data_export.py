"""`drivesim data export`, and recordings of every kind all the way: import, export, import again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from foreign_recordings import (
    COMMA_RATIO,
    DONKEYCAR_MAX_SPEED_MPS,
    DONKEYCAR_MAX_STEERING_RAD,
    write_comma2k19,
    write_donkeycar_v1,
    write_donkeycar_v2,
    write_kitti,
    write_lerobot_v21,
)
from recordings import make_scene, write_dataset

from drivesim import cli
from drivesim.imports.kinds import RecordingKind, reader_of
from drivesim.imports.options import ImportConfig
from drivesim.imports.scenes import scenes_of
from drivesim.scene.nuscenes import open_dataset
from drivesim.scene.nuscenes_writer import write_nuscenes
from drivesim.scene.types import Scene

SCENE = make_scene(25)
CONFIG = ImportConfig(
    max_speed_mps=DONKEYCAR_MAX_SPEED_MPS,
    max_steering_rad=DONKEYCAR_MAX_STEERING_RAD,
    steering_ratio=COMMA_RATIO,
    min_length_s=1.0,
)
MAKERS: dict[str, tuple[RecordingKind, Callable[[Path], object], ImportConfig]] = {
    "donkeycar v1": (RecordingKind.DONKEYCAR, lambda out: write_donkeycar_v1(out / "tub", SCENE), CONFIG),
    "donkeycar v2": (RecordingKind.DONKEYCAR, lambda out: write_donkeycar_v2(out / "tub", SCENE), CONFIG),
    "comma2k19": (RecordingKind.COMMA2K19, lambda out: write_comma2k19(out, SCENE), CONFIG),
    "kitti": (RecordingKind.KITTI, lambda out: write_kitti(out, SCENE), CONFIG),
    "lerobot": (
        RecordingKind.LEROBOT,
        lambda out: write_lerobot_v21(out / "set", [SCENE]),
        ImportConfig(min_length_s=1.0),
    ),
}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def check_motion(scene: Scene, original: Scene, *, speed_mps: float, yaw_rate_radps: float) -> None:
    inner = slice(2, -2)
    assert len(scene) == len(original)
    np.testing.assert_allclose(scene.speed_mps[inner], original.speed_mps[inner], atol=speed_mps)
    np.testing.assert_allclose(
        scene.yaw_rate_radps[inner], original.yaw_rate_radps[inner], atol=yaw_rate_radps
    )
    np.testing.assert_allclose(scene.steering_rad[inner], original.steering_rad[inner], atol=0.01)
    turned = np.unwrap(scene.yaw_rad)
    np.testing.assert_allclose(turned[-1] - turned[0], original.yaw_rad[-1] - original.yaw_rad[0], atol=0.05)


@pytest.mark.parametrize(("kind", "make", "config"), MAKERS.values(), ids=MAKERS.keys())
def test_every_kind_becomes_a_data_set(
    tmp_path: Path, kind: RecordingKind, make: Callable[[Path], object], config: ImportConfig
) -> None:
    make(tmp_path / "src")
    (log,) = reader_of(kind)(tmp_path / "src", config)
    (scene,) = scenes_of(log, config).scenes
    check_motion(scene, SCENE, speed_mps=0.05, yaw_rate_radps=0.02)
    write_nuscenes([scene], tmp_path / "set")
    loaded = open_dataset(tmp_path / "set").load("scene-2001")
    check_motion(loaded, SCENE, speed_mps=0.06, yaw_rate_radps=0.025)
    assert loaded.motion_source == "can"


def test_lerobot_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataroot = write_dataset(tmp_path / "set", SCENE, make_scene(14))
    out = tmp_path / "le robot"
    code, printed, _ = run(capsys, "data", "export", "lerobot", "--dataroot", dataroot, "--out", out)
    assert (code, printed.strip().splitlines()[-1]) == (0, f"2 episodes in {out}")
    original = open_dataset(dataroot).load("scene-2001")
    first, second = reader_of(RecordingKind.LEROBOT)(out, ImportConfig())
    (scene,) = scenes_of(first, ImportConfig()).scenes
    assert (len(second.frames), scene.caption, scene.place) == (14, original.caption, original.place)
    np.testing.assert_allclose(scene.xy_m, original.xy_m, atol=1e-6)
    np.testing.assert_allclose(scene.speed_mps[1:], original.speed_mps[1:], atol=1e-4)
    np.testing.assert_allclose(scene.yaw_rate_radps[1:], original.yaw_rate_radps[1:], atol=1e-4)
    np.testing.assert_allclose(scene.steering_rad[1:], original.steering_rad[1:], atol=1e-4)
    assert scene.camera.equals(original.camera)
    error = np.asarray(scene.frames[10], float) - original.frames[10]
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 35


def test_chosen_scenes_at_another_rate_and_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataroot = write_dataset(tmp_path / "set", SCENE, make_scene(14))
    chosen = ["--scenes", "scene-2002", "--rate", "3", "--width", "112", "--height", "64"]
    code, _, _ = run(
        capsys, "data", "export", "nuscenes", "--dataroot", dataroot, *chosen, "--out", tmp_path / "n"
    )
    assert code == 0
    (name,) = open_dataset(tmp_path / "n").scene_names()
    scene = open_dataset(tmp_path / "n").load(name, rate_hz=3.0, width_px=112, height_px=64)
    original = open_dataset(dataroot).load("scene-2002", rate_hz=3.0)
    np.testing.assert_allclose(scene.xy_m, original.xy_m, atol=1e-5)
    np.testing.assert_allclose(scene.speed_mps[1:], original.speed_mps[1:], atol=0.03)
    assert scene.drivable is not None
    code, _, _ = run(
        capsys, "data", "export", "lerobot", "--dataroot", dataroot, *chosen, "--out", tmp_path / "l"
    )
    info = json.loads((tmp_path / "l" / "meta" / "info.json").read_text())
    assert (code, info["fps"], info["total_episodes"]) == (0, 3, 1)
    assert info["features"]["observation.images.front"]["shape"] == [64, 112, 3]


def test_unreadable_pictures_are_told_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataroot = write_dataset(tmp_path / "set", SCENE)
    for path in sorted((dataroot / "sweeps").rglob("*.jpg"))[:2]:
        path.write_bytes(path.read_bytes()[:400])
    code, printed, warned = run(
        capsys, "data", "export", "nuscenes", "--dataroot", dataroot, "--out", tmp_path / "n"
    )
    assert (code, printed.strip().splitlines()[-1]) == (0, f"1 scene in {tmp_path / 'n'}")
    assert warned.count("warning: frame ") == 2
    assert len(list((tmp_path / "n").rglob("*.jpg"))) == 23


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--scenes", "scene-2003"], "no scene 'scene-2003'"),
        (["--dataroot", "/nowhere"], "does not exist"),
        (["--version", "v9"], "has no version 'v9'"),
        (["--rate", "0"], "must be positive"),
        (["--rate", "2.5"], "not 2.5"),
    ],
)
def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[str], words: str) -> None:
    dataroot = write_dataset(tmp_path / "set", make_scene(8))
    arguments = ["data", "export", "lerobot", "--dataroot", dataroot, "--out", tmp_path / "out", *changes]
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "Traceback" not in err
    assert words in err
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    code, _, err = run(capsys, *arguments)
    assert code == 2
