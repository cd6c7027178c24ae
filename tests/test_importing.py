"""`drivesim data import` from files of other recorders to a data set that drivesim loads."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import stat
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from drive_files import (
    driven,
    write_picture_drive,
    write_udacity_drive,
    write_video_drive,
)

from drivesim.cli import main
from drivesim.dynamics import planar_motion
from drivesim.errors import InputError
from drivesim.imports import importing, sheet
from drivesim.imports.importing import SUMMARY_FILE, import_recordings, write_import
from drivesim.imports.kinds import RecordingKind, reader_of
from drivesim.imports.options import ImportConfig
from drivesim.imports.remarks import of_all
from drivesim.scene.nuscenes import open_dataset
from drivesim.video import read_image

CONFIG = ImportConfig(width_px=112, height_px=64, field_of_view_rad=float(2 * np.arctan(80 / 114)))


def run(*arguments):
    """Run the command line; return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code or 0


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    """A video whose steering comes three pictures early, with the wrong sign."""
    return write_video_drive(tmp_path_factory.mktemp("a drive, früh"), lag=3, sign=-1.0)


@pytest.fixture(scope="module")
def true_twist():
    """Speed and yaw rate into each frame at 6 Hz, from the poses of the drive."""
    drive_ = driven()
    speed = 0.5 * (drive_.speed_mps[1:] + drive_.speed_mps[:-1])
    yaw_rate = np.diff(np.unwrap(drive_.yaw_rad)) * 12
    return (
        np.stack([speed[: 2 * (len(speed) // 2)], yaw_rate[: 2 * (len(speed) // 2)]])
        .reshape(2, -1, 2)
        .mean(-1)
        .T
    )


def twist_error(scene, true_twist, *, first=0):
    twist = np.stack([scene.speed_mps, scene.yaw_rate_radps], axis=-1)[1:]
    count = min(len(twist), len(true_twist) - first)
    return np.abs(twist[:count] - true_twist[first : first + count])


def test_round_trip_by_pictures(tmp_path, true_twist):
    folder = write_picture_drive(tmp_path / "src")
    imported = import_recordings(RecordingKind.CSV, folder, CONFIG)
    (found,) = imported.summary.estimates.values()
    assert (found.lag_frames, found.is_opposite, imported.summary.advice) == (0, False, "")
    assert found.gain == pytest.approx(1.0, abs=0.15)
    write_import(imported, tmp_path / "out")
    scene = open_dataset(tmp_path / "out").load(
        "scene-2001", rate_hz=6.0, width_px=112, height_px=64, min_frames=2
    )
    error = twist_error(scene, true_twist)
    assert np.median(error[:, 0]) < 0.05
    assert np.median(error[:, 1]) < 0.01
    assert scene.log_name == "src"
    assert scene.camera.fx_px == pytest.approx(114 * 112 / 160, rel=1e-3)
    forward, left, turn = planar_motion(scene.speed_mps[3], scene.yaw_rate_radps[3], 1 / 6)
    step = scene.xy_m[3] - scene.xy_m[2]
    assert np.hypot(*step) == pytest.approx(np.hypot(forward, left), abs=5e-3)
    assert scene.yaw_rad[3] - scene.yaw_rad[2] == pytest.approx(turn, abs=1e-3)


def test_lag_and_sign_are_told_and_only_corrected_when_asked(early, true_twist):
    imported = import_recordings(RecordingKind.CSV, early, CONFIG)
    assert imported.summary.advice == "--lag 3 --flip-steering"
    wrong = twist_error(imported.scenes[0], true_twist)
    fixed = import_recordings(RecordingKind.CSV, early, replace(CONFIG, fix=True))
    assert fixed.summary.advice == ""
    assert (fixed.summary.used.lag_frames, fixed.summary.used.flip_steering) == (3, True)
    by_hand = import_recordings(RecordingKind.CSV, early, replace(CONFIG, lag_frames=3, flip_steering=True))
    np.testing.assert_array_equal(by_hand.scenes[0].yaw_rate_radps, fixed.scenes[0].yaw_rate_radps)
    assert by_hand.summary.advice == ""
    right = twist_error(fixed.scenes[0], true_twist, first=1)  # two pictures have no readings any more
    assert np.median(right[:, 1]) < 0.02 < np.median(wrong[:, 1])
    back = import_recordings(RecordingKind.CSV, early, replace(CONFIG, lag_frames=1, flip_steering=True))
    assert back.summary.advice == "--lag 3"


def test_a_recording_that_differs_from_the_others_is_named(tmp_path):
    for name, sign in (("a", 1.0), ("b", -1.0), ("c", 1.0)):
        write_video_drive(tmp_path / name, sign=sign)
    summary = import_recordings(RecordingKind.CSV, tmp_path, CONFIG).summary
    assert summary.advice == ""
    (doubt,) = summary.doubts
    assert doubt.startswith("b differs from the others (in time, sign opposite")
    assert summary.record()["recordings"][1]["estimates"]["steering"]["is_opposite"] is True


def test_command_writes_data_set_summary_and_sheet(early, tmp_path, capsys):
    out = tmp_path / "data set é"
    assert run("data", "import", "csv", early, "--out", out, "--width", 112, "--height", 64) == 0
    printed = capsys.readouterr()
    assert "3 pictures too early, sign opposite" in printed.out.replace("\n", " ")
    assert "--lag 3 --flip-steering (or --fix)" in printed.err
    assert "160x96 cropped to 112x64" in printed.out
    record = json.loads((out / "import.json").read_text(encoding="utf-8"))
    assert record["estimates"]["steering"]["lag_frames"] == 3
    assert record["advice"] == "--lag 3 --flip-steering"
    assert record["used"]["fit"] == "crop"
    assert record["recordings"][0]["num_scenes"] == 1
    sheet = read_image(out / "contact-sheet.png")
    assert sheet.shape[1] == 5 * 112 + 4 * 2
    assert f"1 scene in {out}; list them with: drivesim scenes --dataroot '{out}'" in " ".join(
        printed.out.split("\n")
    )
    colours = {tuple(colour) for colour in sheet.reshape(-1, 3)}
    assert {(255, 150, 40), (70, 190, 255)} <= colours
    assert open_dataset(out).scene_names() == ["scene-2001"]


def test_stopped_by_hand_says_one_line(early, tmp_path, capsys, monkeypatch):
    def stop(imported, out):
        raise KeyboardInterrupt

    monkeypatch.setattr(importing, "write_import", stop)
    assert (
        run("data", "import", "csv", early, "--out", tmp_path / "set", "--width", 56, "--height", 32) == 130
    )
    printed = capsys.readouterr()
    assert printed.err == "error: stopped; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("width", "name"), [(224, "scene-filmed-100"), (112, "sce..100")])
def test_long_names_keep_both_ends(early, width, name):
    config = replace(CONFIG, width_px=width, height_px=width * 4 // 7)
    (scene,) = import_recordings(RecordingKind.CSV, early, config).scenes
    assert sheet._label(replace(scene, name="scene-filmed-100"), 3).split()[0] == name


def test_dry_run_writes_nothing(early, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("data", "import", "csv", early, "--dry-run", "--fix", "--fit", "pad") == 0
    printed = capsys.readouterr().out
    assert "padded to 224x128" in printed
    assert "--lag 3 --flip-steering" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["csv", "nowhere"], "say where the data set goes with --out"),
        (["csv", "nowhere", "--dry-run"], "nowhere does not exist"),
        (["udacity", "nowhere", "--dry-run"], "holds no driving_log.csv"),
        (["csv", "nowhere", "--dry-run", "--rate", "0"], "rate_hz must be positive"),
        (["csv", "nowhere", "--out", "taken"], "taken exists and is not empty"),
    ],
)
def test_bad_input_ends_with_one_sentence_and_2(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    assert run("data", "import", *arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


def test_nothing_is_left_behind_on_failure(early, tmp_path, monkeypatch):
    imported = import_recordings(RecordingKind.CSV, early, CONFIG)

    def fail(rows):
        raise OSError("disk full")

    monkeypatch.setattr(importing, "import_sheet", fail)
    with pytest.raises(OSError, match="disk full"):
        write_import(imported, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_one_bad_recording_among_others_is_left_out(tmp_path):
    write_udacity_drive(tmp_path / "good")
    write_udacity_drive(tmp_path / "bad", driven().part(0, 5))
    for picture in (tmp_path / "bad" / "IMG").iterdir():
        picture.write_bytes(b"")
    imported = import_recordings(RecordingKind.UDACITY, tmp_path, CONFIG)
    assert [recording.name for recording in imported.summary.recordings] == ["good"]
    assert "none of 5 pictures can be read" in imported.summary.refused[0]
    with pytest.raises(InputError, match="bad: none of 5 pictures can be read"):
        import_recordings(RecordingKind.UDACITY, tmp_path / "bad", CONFIG)


def test_too_short_or_single_frame_recordings_are_refused_with_the_reason(tmp_path):
    for count in (1, 5):
        folder = write_picture_drive(tmp_path / str(count), driven().part(0, count))
        with pytest.raises(InputError, match=r"can be used: 1 parts too short|1 holds 1 picture"):
            import_recordings(RecordingKind.CSV, folder, CONFIG)


def test_read_only_source(tmp_path):
    folder = write_picture_drive(tmp_path / "src")
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        write_import(import_recordings(RecordingKind.CSV, folder, CONFIG), tmp_path / "out")
    finally:
        folder.chmod(stat.S_IRWXU)
    assert sorted(entry.name for entry in folder.iterdir()) == ["images", "log.csv"]


def test_source_is_not_touched(early, tmp_path):
    before = {entry: (entry.stat().st_mtime_ns, entry.stat().st_size) for entry in early.rglob("*")}
    write_import(import_recordings(RecordingKind.CSV, early, CONFIG), tmp_path / "out")
    assert before == {entry: (entry.stat().st_mtime_ns, entry.stat().st_size) for entry in early.rglob("*")}


def test_wrong_steering_ratio_is_doubted(tmp_path, capsys):
    folder = write_video_drive(tmp_path / "src")
    lines = (folder / "drive.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    (folder / "drive.csv").write_text(
        "\n".join([lines[0], *(f"{time},{float(steering) / 8},{speed}" for time, steering, speed in rows)])
    )
    assert run("data", "import", "csv", folder, "--dry-run") == 0
    printed = capsys.readouterr()
    assert "the steering ratio is likely wrong" in " ".join(printed.err.split())
    assert "1 thing, see the warnings below" in printed.out


def test_what_was_left_out_noted_and_guessed_is_told_apart(tmp_path, capsys):
    folder = write_video_drive(tmp_path / "src", driven().part(0, 48))
    lines = (folder / "drive.csv").read_text().splitlines()
    lines[0], lines[20] = "time,steering_rad,speed", lines[20] + ",5"
    (folder / "drive.csv").write_text("\n".join(lines))
    out = tmp_path / "set"
    assert run("data", "import", "csv", folder, "--out", out, "--width", 56, "--height", 32) == 0
    record = json.loads((out / SUMMARY_FILE).read_text())
    assert ["too few or too many cells" in line for line in record["left_out"]] == [True]
    assert ["by their size" in line for line in record["noted"]] == [True]
    assert ["taken as m/s" in line for line in record["check"]] == [True]
    printed = capsys.readouterr()
    assert "warning: src: speeds have no unit in the file" in " ".join(printed.err.split())
    assert "left out, noted" not in printed.out


def test_recordings_share_a_line():
    told = of_all([("a", "2.5 m lost"), ("b", "1 m lost"), ("c", "else")])
    assert told == ["a: 2.5 m lost (and in 1 more)", "c: else"]


def test_every_setting_has_a_flag(capsys):
    assert run("data", "import", "--help") == 0
    shown = capsys.readouterr().out
    names = {
        "rate_hz": "rate",
        "is_right_positive": "right-positive",
        "lag_frames": "lag",
        "max_gap_s": "max-gap",
    }
    units = ("_hz", "_px", "_s", "_m", "_rad", "_mps")
    for name in (field.name for field in fields(ImportConfig)):
        flag = names.get(name) or name.replace("_", "-")
        for unit in units:
            if name.endswith(unit) and name not in names:
                flag = name.removesuffix(unit).replace("_", "-")
        assert f"--{flag}" in shown, name


def test_kinds_name_their_readers():
    for kind in RecordingKind:
        if importlib.util.find_spec(f"drivesim.imports.{kind.module}") is not None:
            assert reader_of(kind).__name__ == f"read_{kind.module}"


def test_copy_of_a_data_set_stays_readable(early, tmp_path):
    """Scenes are read lazily, so the source may go once the data set is written."""
    source = shutil.copytree(early, tmp_path / "src")
    write_import(import_recordings(RecordingKind.CSV, source, CONFIG), tmp_path / "out")
    shutil.rmtree(source)
    scene = open_dataset(tmp_path / "out").load(
        "scene-2001", rate_hz=6.0, width_px=56, height_px=32, min_frames=2
    )
    assert np.std(scene.frames[len(scene) - 1]) > 10


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_names_of_bytes_that_are_no_characters(early, tmp_path, capsys):
    copy = tmp_path / os.fsdecode(b"th\xe9")
    shutil.copytree(early, copy)
    assert run("data", "import", "csv", copy, "--out", tmp_path / "set") == 0
    assert json.loads((tmp_path / "set" / SUMMARY_FILE).read_text())["source"] == str(copy)
    assert open_dataset(tmp_path / "set").load("scene-2001").log_name == "th?"
    assert "th?" in capsys.readouterr().out


def test_pictures_a_second_apart_are_refused_in_a_sentence(tmp_path, capsys):
    """No two of them are compared, so nothing is told of lag and sign."""
    folder = write_picture_drive(tmp_path / "slow", driven())
    (table,) = folder.glob("*.csv")
    heading, *rows = table.read_text().splitlines()
    table.write_text("\n".join([heading, *rows[::12]]) + "\n")
    assert run("data", "import", "csv", folder, "--out", tmp_path / "out") == 2
    assert "too far apart for the rate" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
