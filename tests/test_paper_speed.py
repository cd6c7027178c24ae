"""The command that times the paper's preset, on a small model in its place."""

import json

import pytest
import torch
from small_models import small_video_config

from benchmarks import paper_speed
from benchmarks.paper_speed import PAPER_SECONDS, built, measure, paper_config
from benchmarks.report import run_command
from drivesim.errors import InputError
from drivesim.world_model.prompts import PromptKind


def small():
    return small_video_config(prompt=PromptKind.T5, t5_dim=16)


def test_what_is_timed_is_the_preset_as_it_stands():
    config = paper_config(num_layers=None, num_frames=None)
    assert (config.num_frames, config.stpt.num_layers, config.sampler.num_decode_steps) == (24, 26, 10)
    assert config.guidance.scale > 0
    shallow = paper_config(num_layers=1, num_frames=2)
    assert (shallow.num_frames, shallow.stpt.num_layers, shallow.stpt.dim) == (2, 1, config.stpt.dim)
    with pytest.raises(InputError, match="--layers must be at least 1, got 0"):
        paper_config(num_layers=0, num_frames=None)


def test_a_clip_is_a_whole_call_with_all_rounds_and_both_passes():
    model = built(small(), "cpu", torch.float32)
    rows = []
    handle = model.stpt.register_forward_hook(lambda module, given, output: rows.append(len(given[0])))
    report = measure(model, num_repeats=2).as_dict()
    handle.remove()
    assert rows == [2] * small().sampler.num_decode_steps * 3  # one call is a warm-up
    assert 0 < report["seconds_per_clip_min"] <= report["seconds_per_clip"] <= report["seconds_per_clip_max"]
    assert report["paper_seconds_per_clip"] == PAPER_SECONDS
    assert report["num_parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_the_command_says_what_it_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(paper_speed, "paper_config", lambda **_: small())
    out = tmp_path / "paper.json"
    paper_speed.main(["--repeats", "1", "--threads", "1", "--out", str(out)])
    result = json.loads(out.read_text())
    assert result["clip"] == "4 frames of 64x96 at 8 Hz"
    assert (result["device"], result["rounds"]) == ("cpu", 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "0"], "--layers"),
        (["--repeats", "0"], "--repeats"),
        (["--device", "warp"], "warp"),
        (["--frames", "-1"], "--frames"),
    ],
)
def test_bad_options_end_in_one_sentence(tmp_path, capsys, arguments, message):
    out = tmp_path / "paper.json"
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: paper_speed.main([*arguments, "--out", str(out)]))
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
