"""The parts of the data benchmark: what is compared reads the same pictures, and the verdicts are on the report."""

import json
from dataclasses import replace

import numpy as np
import pytest
from recordings import make_scene, write_dataset
from test_token_manifest import MANIFEST_OF_THREE, SHARDS

from benchmarks import data_speed
from benchmarks.report import Report
from benchmarks.timing import Timing
from drivesim.metrics.image import psnr
from drivesim.scene.clip_loader import clip_loader
from drivesim.scene.nuscenes import open_dataset
from drivesim.training.token_manifest import read_manifest, shard_path


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = write_dataset(tmp_path_factory.mktemp("speed") / "set", make_scene(25), make_scene(13))
    dataset = open_dataset(root)
    return [dataset.load(name) for name in dataset.scene_names()]


def test_both_ways_read_the_same_pictures(scenes):
    clips = data_speed.clips_of(scenes)
    assert [len(clip) for clip in clips] == [12, 12, 12]
    loader = clip_loader(scenes, num_frames=12, stride=12, batch_size=8, shuffle=False)
    [batch] = loader
    for frames, clip in zip(batch.frames_BTHWC.numpy(), clips, strict=True):
        assert psnr(frames, data_speed.pil_clip(clip)).min() > 40
    assert data_speed.passes(loader, 2) == 6


def test_enlarged_pictures_are_of_nuscenes_size_and_look_the_same(scenes, tmp_path):
    short = replace(scenes[1], frames=list(scenes[1].frames)[:3], timestamps_s=scenes[1].timestamps_s[:3])
    [large] = data_speed.enlarged([short], tmp_path)
    assert data_speed.read_image(large.frames.paths[2]).shape == (900, 1600, 3)
    assert psnr(large.frames[2][None], np.asarray(short.frames[2])[None])[0] > 30
    assert 50_000 < large.frames.paths[0].stat().st_size < 400_000


def test_shards_are_copied_until_there_are_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(data_speed, "MIN_TOKEN_CLIPS", 7)
    full = replace(SHARDS[0], num_clips=2, skipped=[])
    made = replace(MANIFEST_OF_THREE, shards=[full, replace(full, num_clips=1)])
    for number in range(2):
        shard_path(tmp_path, number).write_bytes(b"0123456789")
    tokens = data_speed.enough_tokens(made, tmp_path, tmp_path / "more")
    assert len(tokens) == 8
    assert len(read_manifest(tmp_path / "more").shards) == 4


def test_the_report_says_what_was_reached(tmp_path, monkeypatch, capsys):
    def measured(_folder, *, num_scenes, num_rounds, weights):
        assert (num_scenes, num_rounds, weights) == (3, 3, "drive-tiny")
        report = Report(title="data speed", targets=data_speed.TARGETS)
        timings = {name: Timing(samples_s=[1.0, 2.0, 4.0]) for name in ("loader", "pil", "tokens")}
        speeds = {"loader": 40.0, "pil": 20.0, "tokens": 1600.0}
        data_speed._add(report, data_speed.LARGE_KEY, speeds, timings)
        return report

    monkeypatch.setattr(data_speed, "measure", measured)
    data_speed.main(["--quick", "--out", str(tmp_path / "a.json")])
    result = json.loads((tmp_path / "a.json").read_text())
    assert result["loader_vs_pil"] == {"1600x900": 2.0}
    assert result["tokens_vs_loader_spread"] == {"1600x900": 4.0}
    assert result["targets"]["loader_vs_pil [1600x900]"]["is_reached"]
    assert not result["targets"]["tokens_vs_loader [1600x900]"]["is_reached"]
    assert "page_cache" in result
    assert "missed" in capsys.readouterr().out
