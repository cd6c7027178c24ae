"""The sheet of tasks: a row for every task, marked where something was given; small enough for a README."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import small_video_model, small_world_model

from benchmarks import task_sheets, task_strips
from benchmarks.report import run_command
from benchmarks.task_strips import NUM_SEEDS, Strip, action_strips, load_scene, outlined
from benchmarks.task_strips import task_strips as strips_of
from drivesim.checkpoint import save_module
from drivesim.video import read_image, read_video

SEED = 900_000


@pytest.fixture(autouse=True)
def _short_drives(monkeypatch):
    monkeypatch.setattr(task_strips, "DRIVE_FRAMES", 4)


@pytest.fixture(scope="module")
def strips():
    return strips_of(small_video_model(), SEED)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    video, drive = small_video_model(), small_world_model()
    save_module(video, folder / "video.safetensors", kind="video-model", config=video.config)
    save_module(drive, folder / "drive.safetensors", kind="world-model", config=drive.config)
    return [f"--weights={folder / 'video.safetensors'}", f"--drive-weights={folder / 'drive.safetensors'}"]


def test_every_task_has_its_rows(strips):
    assert [strip.label.split(":")[0] for strip in strips] == [
        *["text to video"] * 2,
        *["image to video"] * 2,
        "prediction",
        *["inpainting"] * 2,
        *["stylisation"] * 2,
    ]
    assert all(strip.frames.shape == (4, 64, 96, 3) for strip in strips)
    assert [strip.num_given for strip in strips] == [0, 0, 1, 1, 1, 0, 0, 0, 0]


def test_one_image_goes_on_under_opposite_prompts(strips):
    one, other = strips[2:4]
    assert (one.frames[0] == other.frames[0]).all()
    assert one.label != other.label


def test_inpainting_keeps_what_was_not_hidden(strips):
    given, result = strips[5:7]
    is_line = (given.frames == 255).all(axis=(0, -1))
    rows, columns = np.flatnonzero(is_line.any(axis=1)), np.flatnonzero(is_line.any(axis=0))
    is_kept = np.ones((64, 96), dtype=bool)
    is_kept[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = False
    assert 0.7 < is_kept.mean() < 0.95
    assert (given.frames[:, is_kept] == result.frames[:, is_kept]).all()
    assert (given.frames[:, ~is_kept] != result.frames[:, ~is_kept]).any()


def test_a_rectangle_is_outlined_inside_of_it():
    mask = np.zeros((20, 30), dtype=bool)
    mask[3:13, 5:20] = True
    shown = outlined(np.zeros((2, 20, 30, 3), dtype=np.uint8), mask)
    is_line = (shown == 255).all(axis=(0, -1))
    assert is_line.sum() == 10 * 15 - 6 * 11
    assert not is_line[~mask].any()


def test_drives_begin_with_the_scene_and_turn_both_ways():
    model = small_world_model()
    scene = load_scene("scene-2001", model)
    left, right = action_strips(model, scene)
    assert ("left" in left.label, "right" in right.label) == (True, True)
    for strip in (left, right):
        assert strip.frames.shape == (4, 128, 224, 3)
        assert (strip.frames[0] == scene.frames[model.num_context_frames - 1]).all()
    assert (left.frames[1:] != right.frames[1:]).any()


def test_a_strip_shows_the_first_frame_and_the_last(monkeypatch):
    labels = []
    monkeypatch.setattr(task_sheets, "with_label", lambda image, text: labels.append(text) or image)
    frames = np.repeat(np.arange(16, dtype=np.uint8) * 16, 64 * 96 * 3).reshape(16, 64, 96, 3)
    picture = task_sheets.draw_strip(Strip(label="a clip", frames=frames, num_given=4))
    assert labels == ["given", "given", "a clip"]
    assert 980 <= picture.shape[1] <= 1000
    middle = picture[task_sheets.CAPTION_PX + 10, 80 :: picture.shape[1] // 6, 0]
    assert middle.tolist() == [0, 48, 96, 144, 192, 240]


def test_a_run_writes_the_sheet_and_the_gif(tmp_path, weights, capsys):
    sheet, gif = tmp_path / "new" / "tasks.jpg", tmp_path / "new" / "tasks.gif"
    task_sheets.main([*weights, "--threads=1", "--out", str(sheet), "--gif", str(gif)])
    picture = read_image(sheet)
    assert picture.shape[1] <= 1000
    assert picture.shape[0] > 11 * 100
    video = read_video(gif)
    assert video.frames.shape == (4, 2 * 64 + 2, 3 * 96 + 4, 3)
    assert video.rate_hz == pytest.approx(8.0, rel=0.05)
    assert sheet.stat().st_size < task_sheets.MAX_SHEET_BYTES
    assert gif.stat().st_size < task_sheets.MAX_GIF_BYTES
    assert "tasks.jpg" in capsys.readouterr().out


def test_files_that_are_too_large_are_noticed(tmp_path, capsys):
    path = tmp_path / "tasks.jpg"
    path.write_bytes(bytes(3000))
    task_sheets.say_written(path, 2000)
    said = capsys.readouterr()
    assert ("3 kB" in said.out, "at most" in said.err) == (True, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=tasks.png"], "--out must name a .jpg"),
        (["--gif=tasks.mp4"], "--gif must name a .gif"),
        (["--seed=5"], "not held out"),
        (["--threads=0"], "--threads"),
        (["--scene=nowhere"], "nowhere"),
    ],
)
def test_what_has_no_meaning_ends_with_a_sentence(tmp_path, monkeypatch, weights, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: task_sheets.main([*weights, "--out=tasks.jpg", *arguments]))
    assert stopped.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.glob("tasks*"))


def test_cases_of_the_gif_have_seeds_of_their_own():
    cases = task_sheets.moving_cases(first_seed=SEED + NUM_SEEDS)
    assert [case.seed for case in cases] == list(range(SEED + NUM_SEEDS, SEED + NUM_SEEDS + 6))
