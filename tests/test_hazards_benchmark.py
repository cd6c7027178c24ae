"""The hazards benchmark: figures of arrays made by hand, and the command from arguments to files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hazard_samples import SMALL, samples

from benchmarks import hazards
from benchmarks.hazard_figures import Judged, add_rows, bootstrap_auc
from benchmarks.report import Report
from drivesim.checkpoint import weights_hash
from drivesim.errors import InputError
from drivesim.hazard import HazardHead, save_hazard_head


def judged(probability: np.ndarray | None = None) -> Judged:
    made = samples(80)
    comes = made.event[:, 0] >= 0
    said = (
        np.stack([np.where(comes, 0.9, 0.1), np.full(80, 0.02)], axis=1)
        if probability is None
        else probability
    )
    return Judged(
        samples=made,
        probability=said,
        probability_without_map=said,
        contact=said[:, 0] / 2,
        num_steps=6,
        is_short=made.rollout < 100,
    )


def test_a_head_that_knows_gets_full_marks_and_what_never_happens_is_left_out() -> None:
    report = Report(title="test")
    add_rows(report, judged())
    figures = report.as_dict()
    assert figures["collision_auc_true"] == figures["collision_auc_imagined"] == 1.0
    assert figures["collision_ece_true"] == pytest.approx(0.1)
    assert figures["off_road_ece_imagined"] == pytest.approx(0.02)
    assert "off_road_auc_true" not in figures
    curve = figures["collision_reliability_true_curve"]
    assert curve["step"] == [10, 90]
    assert curve["value"] == [0.0, 100.0]


def test_the_interval_comes_from_whole_roads() -> None:
    rng = np.random.default_rng(0)
    roads = np.repeat(np.arange(20), 10)
    is_event = rng.random(200) < 0.3
    said = np.clip(0.5 * is_event + rng.random(200), 0, 1)
    estimate = bootstrap_auc(said, is_event, roads)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.count == 200
    one = bootstrap_auc(said, is_event, np.zeros(200, int))
    assert one.low == one.value == one.high


@pytest.fixture
def head(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "head.safetensors"
    save_hazard_head(HazardHead(replace(SMALL, contact_threshold=0.2)), path)
    return path


def test_the_command_writes_figures_and_a_page(
    head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def made(path: Path, config: object, *_: object, **settings: object):
        asked.update(settings, path=path, config=config)
        return samples(80)

    monkeypatch.setattr(hazards, "open_or_make_samples", made)
    out = tmp_path / "figures.json"
    hazards.main(["--quick", "--head", str(head), "--out", str(out), "--threads", "1"])
    figures = json.loads(out.read_text())
    for name in (
        "collision_auc_true",
        "collision_auc_imagined",
        "collision_ece_true",
        "contact_recall_imagined",
    ):
        assert 0 <= figures[name] <= 1, name
    assert figures["contact_threshold"] == 0.2
    assert figures["roads"] == "held-out roads"
    hashes = {"weights_sha256": weights_hash("drive-tiny"), "head_sha256": weights_hash(head)}
    assert {name: figures[name] for name in hashes} == hashes
    assert figures["command"].startswith("python -m benchmarks.hazards --quick --head ")
    assert figures["extent"].startswith("quick")
    assert asked["path"] == tmp_path / "figures-samples"
    assert (asked["first_seed"], asked["num_workers"]) == (900_000, 1)
    page = out.with_suffix(".html").read_text()
    assert page.count("data:image/png") == 2
    assert "collision_auc_imagined" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", "5"], "not held out"),
        (["--num-scenes", "0"], "--num-scenes must be at least 1"),
        (["--head", "nothing"], "no weights named"),
        (["--out", "figures.txt"], r"must name a .json file"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        hazards.main(["--out", str(tmp_path / "f.json"), *arguments])
