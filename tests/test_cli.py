"""The command line: its frozen flags, and errors that are one sentence with exit code 2."""

import json
import re

import pytest
import typer.main

from drivesim import cli

DRAW_FLAGS = {
    "--out",
    "--samples",
    "--seed",
    "--rounds",
    "--revisions",
    "--order",
    "--temperature",
    "--weights",
    "--device",
    "--debug",
}
MODEL_FLAGS = {"--tokenizer", "--t5"}
PROMPT_FLAGS = (
    DRAW_FLAGS | MODEL_FLAGS | {"--prompt", "--negative-prompt", "--guidance", "--guidance-schedule"}
)
IMPORT_FLAGS = {
    *("--out", "--dry-run", "--rate", "--width", "--height", "--fit", "--max-gap", "--min-length"),
    *("--lag", "--flip-steering", "--no-flip-steering", "--flip-yaw-rate", "--no-flip-yaw-rate", "--fix"),
    *("--speed-unit", "--steering-unit", "--time-unit", "--steering-ratio", "--max-steering", "--max-speed"),
    *("--right-positive", "--left-positive", "--wheelbase", "--time-offset", "--recorded-rate"),
    *(
        "--time-column",
        "--steering-column",
        "--speed-column",
        "--yaw-rate-column",
        "--file-column",
        "--camera-key",
    ),
    *("--field-of-view", "--camera-height", "--camera-forward", "--camera-pitch", "--debug"),
}
FROZEN_FLAGS = {
    "rollout": {
        "--scene",
        "--dataroot",
        "--version",
        "--camera",
        "--policy",
        "--steps",
        "--seed",
        "--out",
        "--debug",
    },
    "scenes": {"--dataroot", "--version", "--split", "--debug"},
    "models": {"--debug"},
    "tokenize": {
        *("--out", "--dataroot", "--version", "--scenes", "--weights", "--frames-per-clip", "--stride"),
        *("--clips-per-shard", "--imagined-share", "--seed", "--workers", "--ray", "--device", "--verify"),
        "--debug",
    },
    "data film": {"--out", "--seconds", "--drive-seconds", "--seed", "--debug"},
    "data synth": {"--out", "--scenes", "--seed", "--debug"},
    "data import": IMPORT_FLAGS,
    "data export": {
        *("--dataroot", "--out", "--version", "--scenes", "--rate", "--width", "--height", "--debug"),
    },
    "data check": {"--dataroot", "--version", "--camera", "--decode", "--json", "--cache", "--debug"},
    "train": {"--out", "--resume", "--debug"},
    "generate text": PROMPT_FLAGS | {"--frames"},
    "generate image": PROMPT_FLAGS | {"--image", "--frames"},
    "generate predict": PROMPT_FLAGS | {"--video", "--given", "--frames"},
    "generate inpaint": PROMPT_FLAGS
    | {"--image", "--video", "--frames", "--mask", "--both-ways", "--one-way"},
    "generate stylize": PROMPT_FLAGS | {"--image", "--video", "--frames", "--strength"},
    "generate action": DRAW_FLAGS
    | MODEL_FLAGS
    | {"--scene", "--image", "--video", "--given", "--steering", "--speed", "--steps", "--actions"},
}
NO_HELP = {"--help"}


def commands(group, prefix=""):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def run(capsys, *arguments):
    """Return (exit code, standard output, standard error) of a command."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return caught.value.code or 0, captured.out, captured.err


def assert_one_sentence(code, err):
    assert code == 2
    assert "Traceback" not in err
    assert err.count("\n") == 1, err


def test_the_flags_are_the_listed_ones():
    found = {
        name: {
            flag
            for parameter in command.params
            for flag in [*parameter.opts, *parameter.secondary_opts]
            if flag.startswith("--")
        }
        - NO_HELP
        for name, command in commands(typer.main.get_command(cli.app))
    }
    assert found == FROZEN_FLAGS


def test_help_names_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(name in out for name in ("rollout", "scenes", "data", "train", "generate"))


def test_an_unknown_flag_exits_with_2(capsys):
    code, _, err = run(capsys, "rollout", "--speed", "3")
    assert code == 2
    assert "--speed" in err
    assert "Traceback" not in err


def test_scenes_lists_the_embedded_scenes(capsys):
    code, out, _ = run(capsys, "scenes")
    assert code == 0
    assert re.search(r"scene-\d{4}", out)


def test_an_unknown_scene_names_the_nearest(capsys, tmp_path):
    code, _, err = run(capsys, "rollout", "--scene", "scene-2OO1", "--out", tmp_path / "out")
    assert_one_sentence(code, err)
    assert "scene-2001" in err
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["rollout", "episode.horizn=3"], "episode.horizon"),
        (["rollout", "--steps", "0"], "num_steps must be at least 1"),
        (["rollout", "--policy", "pure-pursuitt"], "pure-pursuit"),
        (["rollout", "--policy", "no_such_module:Driver"], "no_such_module"),
        (["rollout", "policy.kwargs.no_such=1"], "no_such"),
        (["rollout", "--policy", "random@hold_s=0,seed=3"], "hold_s must be positive, got 0"),
        (["rollout", "--policy", "random@hold=1"], "did you mean hold_s?"),
        (["rollout", "episode.weights=no-such-weights"], "no-such-weights"),
        (["scenes", "--dataroot", "/no/such/folder"], "/no/such/folder"),
        (["scenes", "--version", "v1.0-trainval"], "name one with --dataroot"),
        (["rollout", "--version", "v1.0-trainval"], "name one with --dataroot"),
        (["train", "world-model", "world_model.model.vqgan.fsq_levels=[4]"], "model.vqgan cannot be set"),
        (["train", "world-model", "world_model.model.stpt.guide_dim=3"], "guide_dim cannot be set"),
        (["train", "tokenizer", "training.batch_sise=1"], "training.batch_size"),
    ],
)
def test_bad_input_is_one_sentence(capsys, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *arguments)
    assert_one_sentence(code, err)
    assert expected in err


def test_training_neither_resumes_nothing_nor_overwrites_a_run(capsys, tmp_path):
    code, _, err = run(capsys, "train", "tokenizer", "--resume", "--out", tmp_path / "none")
    assert_one_sentence(code, err)
    assert not (tmp_path / "none").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.ckpt").touch()
    code, _, err = run(capsys, "train", "tokenizer", "--out", tmp_path / "run")
    assert_one_sentence(code, err)
    assert "--resume" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["last.ckpt"]


def test_debug_shows_the_traceback(capsys):
    code, _, err = run(capsys, "scenes", "--dataroot", "/no/such/folder", "--debug")
    assert code == 2
    assert "Traceback" in err


def test_a_full_disk_is_one_sentence_and_leaves_no_file(capsys, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device", str(tmp_path / "rollout.mp4"))

    monkeypatch.setattr("drivesim.rollout_files.write_video", full)
    out = tmp_path / "out"
    code, _, err = run(capsys, "rollout", "--steps", "1", "--out", out, "episode.env_id=Reference-Drive-v0")
    assert_one_sentence(code, err)
    assert "No space left on device" in err
    assert not list(out.glob("*"))


def test_rollout_writes_a_video_and_a_record(capsys, tmp_path):
    from drivesim.video import read_video

    out = tmp_path / "out"
    cli_arguments = [
        "rollout",
        "--steps",
        "3",
        "--out",
        out,
        "--policy",
        "replay",
        "episode.env_id=Reference-Drive-v0",
    ]
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in cli_arguments])
    assert not caught.value.code
    assert "confidence" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        "rollout.mp4",
        "rollout.json",
        "config.yaml",
        "versions.json",
    }
    record = json.loads((out / "rollout.json").read_text())
    assert {"action", "ego", "speed_mps", "rewards", "confidence"} <= record["steps"][0].keys()
    assert len(record["steps"]) == 3
    video = read_video(out / "rollout.mp4")
    assert len(video.frames) == 4
    assert video.frames.shape[2] > 2 * video.frames.shape[1]  # two pictures beside each other


def test_a_foreign_envs_package_is_named(monkeypatch, capsys):
    def shadowed(*_args, **_kwargs):
        raise ModuleNotFoundError(
            "No module named 'envs.world_dreamer_drive'", name="envs.world_dreamer_drive"
        )

    monkeypatch.setattr(cli, "app", shadowed)
    code, _, err = run(capsys, "scenes")
    assert_one_sentence(code, err)
    assert "'envs' comes from" in err
