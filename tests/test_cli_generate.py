"""`drivesim generate`: every command to its files, what the record is good for, and bad input as one sentence."""

import json
import shlex
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_models import CAUSAL, small_video_model, small_world_model

from drivesim import cli, console
from drivesim.checkpoint import read_checkpoint, save_module
from drivesim.video import read_image, read_video, write_image, write_video

H, W = 64, 96
TASKS = {
    "text": [],
    "image": ["--image", "picture.png"],
    "predict": ["--video", "clip.mp4", "--given", "2"],
    "inpaint": ["--video", "clip.mp4", "--mask", "10,10,30,30"],
    "stylize": ["--image", "picture.png"],
    "action": ["--image", "picture.png", "--steps", "2"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights and inputs, not to be changed."""
    folder = tmp_path_factory.mktemp("generate")
    video_model, world_model = small_video_model(), small_world_model()
    save_module(video_model, folder / "video.safetensors", kind="video-model", config=video_model.config)
    both_ways = small_video_model(stpt=CAUSAL, fills_both_ways=True)
    save_module(both_ways, folder / "both.safetensors", kind="video-model", config=both_ways.config)
    acting_model = small_video_model(num_action_tokens=2)
    save_module(acting_model, folder / "acting.safetensors", kind="video-model", config=acting_model.config)
    save_module(world_model, folder / "drive.safetensors", kind="world-model", config=world_model.config)
    tokenizer = video_model.tokenizer
    save_module(tokenizer, folder / "tokenizer.safetensors", kind="tokenizer", config=tokenizer.config)
    frames = np.random.default_rng(0).integers(0, 255, (3, 100, 150, 3), dtype=np.uint8)
    write_image(folder / "picture.png", frames[0])
    write_image(folder / "black.png", np.zeros((9, 9, 3), dtype=np.uint8))
    (folder / "cut.png").write_bytes((folder / "picture.png").read_bytes()[:5000])
    write_video(folder / "clip.mp4", list(frames), 8.0)
    (folder / "bad.csv").write_text("steering_rad,speed_mps\n0,fast\n")
    (folder / "drive.csv").write_text("steering_rad,speed_mps\n0,8\n0.1,7\n0.1,6\n")
    (folder / "masks").mkdir()
    write_image(folder / "masks" / "1.png", frames[0])
    return folder


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    """Compute in float32 on every processor."""
    for module in ("pretrained", "pretrained_video"):
        monkeypatch.setattr(f"drivesim.world_model.{module}.fast_dtype", lambda _: torch.float32)


@pytest.fixture
def run(capsys, folder, tmp_path, monkeypatch):
    """Return a function that runs a command among the inputs: (exit code, standard output, standard error)."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return run


def weights_of(task):
    return ["--weights", "drive.safetensors" if task == "action" else "video.safetensors"]


def generate(run, task, out, *arguments):
    """Run a command that must succeed; return its last line."""
    code, said, err = run("generate", task, *TASKS[task], *weights_of(task), "--out", out, *arguments)
    assert code == 0, err
    return said.splitlines()[-1]


def refused(run, out, task, *arguments):
    """Run a command that must fail with one sentence and write nothing; return the sentence."""
    code, _, err = run("generate", task, "--out", out, *arguments)
    assert code == 2
    assert "Traceback" not in err
    assert err.count("\n") == 1, err
    assert not list(out.parent.iterdir())
    return err


# ------------------------------------------------------------------------------------------------ all tasks


@pytest.mark.parametrize(
    ("task", "num_frames"),
    [("text", 4), ("image", 4), ("predict", 4), ("inpaint", 3), ("stylize", 1), ("action", 2)],
)
def test_every_task_writes_its_clip_and_how_it_was_made(run, folder, tmp_path, task, num_frames):
    out = tmp_path / "new" / "made.mp4"
    line = generate(run, task, out, "--seed", "3")
    assert str(out) in line
    assert line.endswith(" s")
    assert {path.name for path in out.parent.iterdir()} == {"made.mp4", "made.mp4.json"}
    assert len(read_video(out).frames) == num_frames
    record = json.loads((tmp_path / "new" / "made.mp4.json").read_text())
    assert (record["task"], record["files"], record["frames"]) == (task, ["made.mp4"], num_frames)
    assert record["settings"]["seed"] == 3
    assert record["settings"]["rounds"] == record["sampler"]["num_decode_steps"]
    assert (record["guidance"] is None) == (task == "action")
    weights = weights_of(task)[1]
    assert record["weights"]["name"] == weights
    assert read_checkpoint(folder / weights).kind == record["weights"]["kind"]
    assert len(record["weights"]["sha256"]) == 64
    assert {len(value) for value in record["inputs_sha256"].values()} <= {64}


@pytest.mark.parametrize("task", list(TASKS))
def test_the_recorded_command_makes_the_clip_again(run, tmp_path, task):
    out = tmp_path / "made.png"
    text = [] if task == "action" else ["--prompt", "a dog's \N{DOG FACE} 'day'", "--negative-prompt", "-fog"]
    generate(run, task, out, "--seed", "5", "--samples", "2", "--rounds", "2", "--temperature", "0.9", *text)
    first = out.read_bytes()
    record = json.loads((tmp_path / "made.png.json").read_text())
    out.unlink()
    name, *arguments = shlex.split(record["command"])
    assert name == "drivesim"
    assert run(*arguments)[0] == 0
    assert out.read_bytes() == first


def test_a_text_makes_a_picture(run, tmp_path):
    generate(run, "text", tmp_path / "a.png", "--frames", "1", "--prompt", "a red ball")
    assert read_image(tmp_path / "a.png").shape == (H, W, 3)


def test_samples_get_numbers_or_rows(run, tmp_path):
    line = generate(run, "text", tmp_path / "a.gif", "--samples", "2", "--frames", "2")
    assert "a-1.gif" in line
    assert "a-2.gif" in line
    generate(run, "text", tmp_path / "a.png", "--samples", "2", "--frames", "3")
    assert read_image(tmp_path / "a.png").shape == (2 * H + 2, 3 * W + 4, 3)


def test_inpainting_leaves_the_rest_of_a_picture(run, folder, tmp_path):
    write_image(tmp_path / "small.png", read_image(folder / "picture.png")[:H, :W])
    arguments = ["--image", tmp_path / "small.png", "--mask", "0,0,48,64", *weights_of("inpaint")]
    assert run("generate", "inpaint", *arguments, "--out", tmp_path / "a.png")[0] == 0
    before, after = read_image(tmp_path / "small.png"), read_image(tmp_path / "a.png")
    assert np.array_equal(before[:, 48:], after[:, 48:])
    assert not np.array_equal(before[:, :48], after[:, :48])


@pytest.mark.parametrize(
    ("asked", "mask", "way"),
    [
        ([], "10,10,30,30", "--both-ways"),
        ([], "0,0,96,64", "--one-way"),
        (["--one-way"], "10,10,30,30", "--one-way"),
        (["--both-ways"], "0,0,96,64", "--both-ways"),
    ],
)
def test_how_many_ways_a_hole_was_filled_in_is_recorded(run, tmp_path, monkeypatch, asked, mask, way):
    totals, told = [], []
    bar = SimpleNamespace(update=told.append)
    monkeypatch.setattr(console, "progress_bar", lambda _, total: totals.append(total) or nullcontext(bar))
    out = tmp_path / "made.png"
    arguments = ["--video", "clip.mp4", "--mask", mask, "--weights", "both.safetensors", "--out", out]
    assert run("generate", "inpaint", *arguments, *asked)[0] == 0
    record = json.loads((tmp_path / "made.png.json").read_text())
    assert record["settings"]["both_ways"] == (way == "--both-ways")
    assert way in shlex.split(record["command"])
    assert told == list(range(1, totals[0] + 1))
    first = out.read_bytes()
    out.unlink()
    _, *again = shlex.split(record["command"])
    assert run(*again)[0] == 0
    assert out.read_bytes() == first


def test_weights_that_fill_in_one_way_refuse_both(run, tmp_path):
    arguments = ["--video", "clip.mp4", "--mask", "10,10,30,30", "--weights", "video.safetensors"]
    out = tmp_path / "made.png"
    assert "leave out" in refused(run, out, "inpaint", *arguments, "--both-ways")


def test_settings_reach_the_sampler(run, tmp_path):
    arguments = ["--guidance", "4", "--guidance-schedule", "linear", "--order", "random", "--rounds", "2"]
    arguments += ["--revisions", "3"]
    generate(run, "text", tmp_path / "a.png", *arguments, "--temperature", "0", "--frames", "2")
    record = json.loads((tmp_path / "a.png.json").read_text())
    assert record["guidance"] == {"scale": 4.0, "schedule": "linear"}
    assert record["sampler"]["order"] == "random"
    assert record["sampler"]["num_decode_steps"] == 2
    assert record["sampler"]["num_revisions"] == record["settings"]["revisions"] == 3
    assert record["sampler"]["temperature"] == 0.0


def test_a_drive_follows_a_file_or_flags(run, tmp_path):
    arguments = ["--image", "picture.png", *weights_of("action"), "--out", tmp_path / "a.gif"]
    assert run("generate", "action", *arguments, "--actions", "drive.csv")[0] == 0
    assert len(read_video(tmp_path / "a.gif").frames) == 3
    assert run("generate", "action", *arguments, "--steering", "-0.1", "--steps", "2")[0] == 0
    settings = json.loads((tmp_path / "a.gif.json").read_text())["settings"]
    assert (settings["steering"], settings["speed"], settings["steps"]) == (-0.1, 8.0, 2)


def test_a_drive_begins_at_a_scene(run, tmp_path):
    arguments = ["--scene", "scene-2001", "--steps", "1", *weights_of("action"), "--out", tmp_path / "a.png"]
    assert run("generate", "action", *arguments)[0] == 0
    assert json.loads((tmp_path / "a.png.json").read_text())["settings"]["scene"] == "scene-2001"


def test_a_general_model_that_reads_actions_drives(run, tmp_path):
    out = tmp_path / "a.gif"
    drive = ["generate", "action", "--video", "clip.mp4", "--weights", "acting.safetensors", "--out", out]
    assert run(*drive, "--given", "2", "--speed", "5")[0] == 0
    assert len(read_video(out).frames) == 2  # all that it sees at once, without those given
    record = json.loads((tmp_path / "a.gif.json").read_text())
    assert (record["settings"]["steps"], record["weights"]["kind"]) == (2, "video-model")
    assert record["guidance"] is not None
    first = out.read_bytes()
    assert run(*shlex.split(record["command"])[1:])[0] == 0
    assert out.read_bytes() == first


@pytest.mark.parametrize("task", ["text", "action"])
def test_a_tokenizer_and_a_t5_are_those_of_the_flags(run, tmp_path, monkeypatch, task):
    seen = []

    def load(name, **options):
        seen.append(options)
        return small_video_model(num_action_tokens=1, public_tokenizer="hash")

    monkeypatch.setattr("drivesim.cli_generate.record.load_video_model", load)
    flags = ["--tokenizer", "vqgan", "--t5", "google-t5/t5-base", "--weights", "video.safetensors"]
    assert run("generate", task, *TASKS[task], *flags, "--out", tmp_path / "a.png")[0] == 0
    assert seen == [{"device": "cpu", "public_tokenizer": Path("vqgan"), "t5": "google-t5/t5-base"}]
    settings = json.loads((tmp_path / "a.png.json").read_text())["settings"]
    assert (settings["tokenizer"], settings["t5"]) == ("vqgan", "google-t5/t5-base")


@pytest.mark.parametrize(
    "prompt",
    ["", "   ", "\N{DOG FACE}\N{ZERO WIDTH JOINER}\N{ROCKET}", "собака, 犬 and كلب", "[bold]x[/bold]", "-x"],
)
def test_prompts_of_all_kinds_work(run, tmp_path, prompt):
    generate(run, "text", tmp_path / "a.png", "--prompt", prompt, "--frames", "1", "--rounds", "1")
    assert json.loads((tmp_path / "a.png.json").read_text())["settings"]["prompt"] == prompt


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("is_linked", [False, True])
def test_inputs_are_not_written_over(run, folder, tmp_path, is_linked):
    own = tmp_path / "own.mp4"
    own.write_bytes((folder / "clip.mp4").read_bytes())
    out = own
    if is_linked:
        out = tmp_path / "other.mp4"
        out.symlink_to(own)
    before = own.read_bytes()
    style = ["generate", "stylize", "--prompt", "a", "--weights", "video.safetensors", "--video", own]
    code, _, err = run(*style, "--out", out)
    assert code == 2
    assert "is the file of --video" in " ".join(err.split())
    assert own.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({own.name, out.name})


@pytest.mark.parametrize(
    ("task", "arguments", "expected"),
    [
        ("text", ["--prompt", "x" * 100_000], "shorten it"),
        ("text", ["--negative-prompt", "x " * 100], "shorten it"),
        ("text", ["--prompt", "a \udcff dog"], "is no character"),
        ("text", ["--frames", "0"], "--frames 0 must be a number from 1 to"),
        ("text", ["--frames", "1000000000"], "--frames 1000000000 must"),
        ("text", ["--samples", "0"], "--samples 0 must"),
        ("text", ["--samples", "9999"], "--samples 9999 must"),
        ("text", ["--seed", "-1"], "--seed -1 must"),
        ("text", ["--seed", str(2**64)], "--seed"),
        ("text", ["--rounds", "0"], "--rounds 0 must"),
        ("text", ["--revisions", "-1"], "--revisions -1 must"),
        ("text", ["--guidance", "nan"], "--guidance nan must"),
        ("text", ["--guidance", "1e9"], "--guidance 1000000000.0 must"),
        ("text", ["--guidance", "-1"], "--guidance -1.0 must"),
        ("text", ["--temperature", "-0.5"], "--temperature -0.5 must"),
        ("text", ["--temperature", "inf"], "--temperature inf must"),
        ("text", ["--order", "confidnce"], "did you mean confidence?"),
        ("text", ["--guidance-schedule", "cubic"], "choose from constant, linear"),
        ("text", ["--device", "no-such-device"], "name another, such as cpu"),
        ("image", ["--image", "none.png"], "check the path"),
        ("image", ["--image", "cut.png"], "truncated"),
        ("image", ["--image", "clip.mp4"], "cannot be decoded as an image"),
        ("predict", ["--video", "clip.mp4", "--given", "4"], "4 frames are asked of clip.mp4, which has 3"),
        ("predict", ["--video", "clip.mp4", "--given", "0"], "--given 0 must"),
        ("predict", ["--video", "clip.mp4", "--frames", "3"], "nothing is left to predict"),
        ("predict", ["--video", "none.mp4"], "none.mp4"),
        ("predict", ["--video", "bad.csv"], "cannot read video bad.csv"),
        ("inpaint", ["--image", "picture.png", "--mask", "90,0,10,10"], "does not lie inside"),
        ("inpaint", ["--image", "picture.png", "--mask", "black.png"], "covers nothing"),
        ("inpaint", ["--image", "picture.png", "--mask", "none.png"], "check the path"),
        ("inpaint", ["--video", "clip.mp4", "--mask", "masks"], "holds 1 pictures for 3 frames"),
        ("inpaint", ["--mask", "0,0,9,9"], "give either --image"),
        ("inpaint", ["--image", "a.png", "--video", "b.mp4", "--mask", "0,0,9,9"], "give either --image"),
        ("inpaint", ["--image", "picture.png", "--frames", "2", "--mask", "0,0,9,9"], "is one frame"),
        ("stylize", ["--image", "picture.png", "--strength", "0"], "strength 0.0 is not in (0, 1]"),
        ("stylize", ["--image", "picture.png", "--strength", "nan"], "strength nan is not"),
        ("action", ["--image", "picture.png", "--speed", "nan"], "action 0 is"),
        ("action", ["--image", "picture.png", "--speed", "120"], "from 0 to 20 m/s"),
        ("action", ["--image", "picture.png", "--steps", "0"], "--steps 0 must"),
        ("action", ["--image", "picture.png", "--actions", "bad.csv"], "write two numbers"),
        (
            "action",
            ["--image", "picture.png", "--actions", "drive.csv", "--steps", "3"],
            "leave out steering",
        ),
        ("text", ["--tokenizer", "vqgan"], "video.safetensors holds its own tokenizer"),
        ("text", ["--t5", "google-t5/t5-base"], "reads prompts without a T5"),
        ("action", ["--image", "picture.png", "--t5", "google-t5/t5-base"], "leave out --tokenizer and --t5"),
        ("action", [], "give either --image"),
        ("action", ["--scene", "scene-2OO1"], "scene-2001"),
        ("action", ["--scene", "scene-2001", "--image", "picture.png"], "leave out --image"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(run, tmp_path, task, arguments, expected):
    (tmp_path / "out").mkdir()
    assert expected in refused(run, tmp_path / "out" / "a.mp4", task, *arguments, *weights_of(task))


@pytest.mark.parametrize(
    ("task", "weights", "expected"),
    [
        ("text", "drive.safetensors", ("a world-model, which drives and reads no text", "general-tiny")),
        ("text", "drive-tiny", ("drive-tiny holds a world-model", "drivesim generate action")),
        ("action", "video.safetensors", ("without action tokens, which reads no actions", "drive-tiny")),
        ("text", "tokenizer.safetensors", ("holds a tokenizer, but a video-model is needed",)),
        ("action", "tokenizer.safetensors", ("holds a tokenizer, but a world-model is needed",)),
        ("text", "generel-tiny", ("no weights named 'generel-tiny'", "drive-tiny")),
        ("text", "picture.png", ("not a readable safetensors file",)),
    ],
)
def test_weights_that_do_not_fit_are_named_with_what_to_do(run, tmp_path, task, weights, expected):
    (tmp_path / "out").mkdir()
    sentence = refused(run, tmp_path / "out" / "a.mp4", task, *TASKS[task], "--weights", weights)
    assert all(part in sentence for part in expected)


@pytest.mark.parametrize("name", ["a.avi", "a", "bad.csv/a.mp4", "masks"])
def test_where_nothing_can_be_written_nothing_is_computed(run, monkeypatch, name):
    monkeypatch.setattr(
        "drivesim.cli_generate.record.resolve_weights", lambda _: pytest.fail("weights were read")
    )
    code, _, err = run("generate", "text", *weights_of("text"), "--out", name)
    assert code == 2
    assert f"cannot write {name}" in err
    assert err.count("\n") == 1


def test_a_full_disk_is_one_sentence_and_leaves_nothing(run, tmp_path, monkeypatch):
    from drivesim.cli_generate import files

    numbers = iter(range(9))

    def fills_up(path, *arguments):
        if next(numbers) == 1:
            raise OSError(28, "No space left on device", str(path))
        write_video(path, *arguments)

    monkeypatch.setattr(files, "write_video", fills_up)
    (tmp_path / "out").mkdir()
    arguments = [*weights_of("text"), "--samples", "3", "--frames", "1"]
    assert "No space left on device" in refused(run, tmp_path / "out" / "a.mp4", "text", *arguments)


def test_what_was_there_survives_a_failure(run, tmp_path):
    out = tmp_path / "a.mp4"
    generate(run, "text", out, "--frames", "1")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert run("generate", "stylize", "--image", "cut.png", *weights_of("stylize"), "--out", out)[0] == 2
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_debug_shows_the_traceback(run, tmp_path):
    code, _, err = run("generate", "text", "--frames", "0", "--out", tmp_path / "a.mp4", "--debug")
    assert code == 2
    assert "Traceback" in err
