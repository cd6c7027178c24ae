"""`drivesim data check`, `scenes --split` and cameras on the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import edit_table

from drivesim import cli, console
from drivesim.scene.health import check_dataset
from drivesim.scene.nuscenes import open_dataset
from drivesim.scene.picture_check import fault_of_ends, fault_of_picture
from drivesim.video import write_image

NAME = "scene-2001"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console._out, "width", 200, raising=False)


def pictures(dataroot: Path) -> list[Path]:
    dataset = open_dataset(dataroot)
    return [dataroot / name for name in dataset.pictures(NAME).filenames]


def test_a_whole_data_set(capsys: pytest.CaptureFixture[str], dataroot: Path, tmp_path: Path) -> None:
    code, out, err = run(capsys, "data", "check", "--dataroot", dataroot, "--json", tmp_path / "report.json")
    assert (code, err) == (0, "")
    assert "32 pictures: 0 missing, 0 unreadable, 32 decoded; 0 gaps" in out
    assert "nothing is wrong" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["num_scenes"], report["num_faults"], report["sources"]) == (2, 0, {"can": 2})
    scene = report["scenes"][0]
    assert (scene["name"], scene["num_pictures"], scene["has_map"]) == (NAME, 25, True)
    assert scene["rate_hz"] == pytest.approx(6.0, abs=1e-3)
    assert scene["longest_gap_s"] == pytest.approx(1 / 6, abs=1e-5)
    assert scene["steering_ratio"] == pytest.approx(16.0, rel=0.03)
    assert report["cameras"] == {"CAM_FRONT": 2}


def test_the_embedded_set_is_healthy() -> None:
    from drivesim.scene.nuscenes import embedded_dataset

    seen: list[int] = []
    health = check_dataset(embedded_dataset(), num_decoded=15, on_progress=seen.append)
    assert health.num_faults == 0
    assert sum(scene.num_decoded for scene in health.scenes) == 15
    assert seen == list(range(1, 11))


def test_damage_is_counted_and_named(capsys: pytest.CaptureFixture[str], dataroot: Path) -> None:
    files = pictures(dataroot)
    files[3].write_bytes(b"")
    files[5].write_bytes(files[5].read_bytes()[:400])
    files[7].write_bytes(b"<html>")
    files[9].unlink()
    data = bytearray(files[11].read_bytes())
    data[20:200] = bytes(180)  # its ends are whole
    files[11].write_bytes(data)
    (dataroot / "can_bus" / f"{NAME}_pose.json").write_text("[{")
    code, out, _ = run(capsys, "data", "check", "--dataroot", dataroot, "--json", "-", "--decode", "all")
    assert code == 1
    report = json.loads(out)  # nothing else is printed
    assert (report["num_missing"], report["num_unreadable"]) == (1, 4)
    faults = "\n".join(report["scenes"][0]["faults"])
    assert "1 of 25 CAM_FRONT pictures of 'scene-2001' are missing" in faults
    assert f"{files[3]} is empty" in faults
    assert f"{files[5]} is truncated after 400 bytes" in faults
    assert f"{files[7]} is neither JPEG nor PNG" in faults
    assert f"{files[11]}" in faults
    assert "scene-2001_pose.json cannot be read" in faults
    code, out, err = run(capsys, "data", "check", "--dataroot", dataroot, "--decode", "0")
    assert code == 1
    assert "3 unreadable, 0 decoded" in out
    assert f"warning: {NAME}: " in err


def test_scenes_that_cannot_be_used(capsys: pytest.CaptureFixture[str], dataroot: Path) -> None:
    for path in pictures(dataroot)[:20]:
        path.unlink()
    edit_table(
        dataroot, "sample_data", lambda rows: [*rows[:20], *rows[-8:], rows[-1] | {"filename": "/etc/passwd"}]
    )
    health = check_dataset(open_dataset(dataroot))
    first, second = health.scenes
    assert first.num_missing == 20
    assert any("download the archive" in fault for fault in first.faults)
    assert second.faults == ["1 pictures have the timestamp of another and are left out"]
    edit_table(dataroot, "scene", lambda rows: [])
    code, out, _ = run(capsys, "data", "check", "--dataroot", dataroot)
    assert code == 1
    assert "0 scenes" in out


def test_gaps_and_doubles(dataroot: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [*rows[:4], rows[4] | {"timestamp": rows[3]["timestamp"]}, *rows[12:]]

    edit_table(dataroot, "sample_data", change)
    scene = check_dataset(open_dataset(dataroot)).scenes[0]
    assert (scene.num_gaps, round(scene.longest_gap_s, 2)) == (1, 1.5)
    assert len(scene.faults) == 3  # a gap, a double, links


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataroot", "/no/such"], "does not exist"),
        (["--version", "v1.0-test"], "name one with --dataroot"),
        (["--decode", "some"], "--decode takes a number"),
        (["--decode", "-1"], "--decode takes a number"),
    ],
)
def test_unusable_input(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    code, _, err = run(capsys, "data", "check", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert words in err


def test_a_camera_that_is_not_there(capsys: pytest.CaptureFixture[str], dataroot: Path) -> None:
    code, _, err = run(capsys, "data", "check", "--dataroot", dataroot, "--camera", "CAM_BACK")
    assert code == 1
    assert "has no CAM_BACK; name one of its cameras: CAM_FRONT" in err


def test_scenes_of_a_split(capsys: pytest.CaptureFixture[str], dataroot: Path) -> None:
    edit_table(dataroot, "scene", lambda rows: [rows[0] | {"name": "scene-0103"}, rows[1]])
    edit_table(dataroot, "sample_data", lambda rows: rows[:25])  # the second scene has no pictures
    code, out, _ = run(capsys, "scenes", "--dataroot", dataroot, "--split", "val")
    assert code == 0
    assert "scene-0103" in out
    assert "scene-2002" not in out
    code, out, _ = run(capsys, "scenes", "--dataroot", dataroot)
    assert "it has no camera at all" in " ".join(out.split())
    code, _, err = run(capsys, "scenes", "--dataroot", dataroot, "--split", "train")
    assert (code, err.count("\n")) == (2, 1)


def test_a_rollout_of_an_unknown_camera(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "rollout", "--camera", "CAM_BACK", "--out", tmp_path, "--steps", "1")
    assert code == 2
    assert "has no CAM_BACK" in err


def test_ends_of_files(tmp_path: Path) -> None:
    for suffix in ("png", "jpg"):
        path = tmp_path / f"a.{suffix}"
        write_image(path, np.zeros((8, 8, 3), dtype=np.uint8))
        assert fault_of_ends(path) == fault_of_picture(path) == ""
        path.write_bytes(path.read_bytes() + bytes(20))  # filled up
        assert fault_of_ends(path) == ""
        path.write_bytes(path.read_bytes()[:60])
        assert "truncated" in fault_of_ends(path)
    assert fault_of_ends(tmp_path / "none.jpg") == "is missing"
    assert fault_of_ends(tmp_path) == "is not a file"
    os.mkfifo(tmp_path / "pipe.jpg")  # which nobody may wait for
    assert fault_of_ends(tmp_path / "pipe.jpg") == "is not a file"
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert "cannot be read" in fault_of_ends(tmp_path / "loop.jpg")
