"""The learning-curve benchmark finds a law that it was given, and says what it cannot."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.learning_curve import Curve, draw, fit_power_law, hindcast_error, main, read_curve
from benchmarks.report import run_command
from drivesim.errors import InputError


def write_log(run: Path, *, noise: float = 0.01, num_steps: int = 4000) -> None:
    rng = np.random.default_rng(0)
    run.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, object]] = [{"step": 0, "kind": "start", "device": "cpu"}]
    for step in range(10, num_steps + 1, 10):
        loss = 2.0 + 5.0 * step**-0.4 + noise * rng.normal()
        lines.append({"step": step, "kind": "train", "loss": loss, "learning_rate": 1e-3})
        if step % 500 == 0:
            lines.append({"step": step, "kind": "evaluation", "gain_db": 6.0 - 20.0 * step**-0.3})
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9')


def test_law_is_found_again() -> None:
    steps = np.arange(10.0, 4000.0, 10.0)
    law = fit_power_law(Curve(name="loss", steps=steps, values=2.0 + 5.0 * steps**-0.4))
    assert law.c == pytest.approx(0.4, abs=0.01)
    assert law.a == pytest.approx(2.0, abs=0.05)
    assert law.residual < 0.01
    assert law.at(40_000.0) == pytest.approx(2.0 + 5.0 * 40_000.0**-0.4, abs=0.02)
    assert not law.is_at_limit


def test_hindcast_says_how_far_off_the_first_half_is() -> None:
    steps = np.arange(10.0, 4000.0, 10.0)
    lawful = 2.0 + 5.0 * steps**-0.4
    assert hindcast_error(Curve(name="loss", steps=steps, values=lawful)) == pytest.approx(0.0, abs=0.02)
    stuck = np.where(steps < 2000.0, lawful, 3.0)
    assert hindcast_error(Curve(name="loss", steps=steps, values=stuck)) < -0.5
    assert hindcast_error(Curve(name="loss", steps=steps[:10], values=lawful[:10])) is None


def test_command_writes_figures_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path / "run")
    main([str(tmp_path / "run"), "--out", str(tmp_path / "curve.png")])
    figures = json.loads((tmp_path / "curve.json").read_text())
    assert figures["steps"] == 4000
    truth = [2.0 + 5.0 * (factor * 4000.0) ** -0.4 for factor in (1, 2, 4, 10)]
    assert list(figures["fitted"].values()) == pytest.approx(truth, abs=0.05)
    assert list(figures["fitted"]) == ["1x", "2x", "4x", "10x"]
    assert figures["residual"] < 0.02
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size[0] > 600
    assert "extrapolated" in capsys.readouterr().out


def test_rising_figures_are_fitted_too(tmp_path: Path) -> None:
    write_log(tmp_path / "run")
    main([str(tmp_path / "run"), "--figure", "gain_db", "--skip", "0", "--out", str(tmp_path / "gain.png")])
    figures = json.loads((tmp_path / "gain.json").read_text())
    assert figures["b"] < 0
    assert figures["fitted"]["1x"] < figures["fitted"]["10x"] < 6.5


def test_lines_that_came_again_count_once(tmp_path: Path) -> None:
    rows = [{"step": 5, "kind": "train", "loss": 9.0}, {"step": 5, "kind": "train", "loss": 3.0}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_curve(tmp_path, "loss").values.tolist() == [3.0]


def test_figures_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    rows = [
        {"step": 4, "kind": "train", "error": 9.0},
        {"step": 5, "kind": "train", "error": 8.0},
        {"step": 5, "kind": "evaluation", "error": 1.0},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_curve(tmp_path, "error").values.tolist() == [9.0, 8.0]
    assert read_curve(tmp_path, "error", kind="evaluation").values.tolist() == [1.0]
    with pytest.raises(InputError, match=r"has no figure 'loss'"):
        read_curve(tmp_path, "loss", kind="evaluation")


def test_missing_matplotlib_is_said_and_skips_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    write_log(tmp_path)
    curve = read_curve(tmp_path, "loss")
    assert not draw(curve, fit_power_law(curve), tmp_path / "curve.png")
    assert "pip install matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "curve.png").exists()


def test_what_cannot_be_fitted_is_said(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "curve.png")]
    with pytest.raises(InputError, match=r"no log\.jsonl in"):
        main([str(tmp_path / "nowhere"), *out])
    write_log(tmp_path / "run")
    with pytest.raises(InputError, match="no figure 'los'; did you mean loss"):
        main([str(tmp_path / "run"), "--figure", "los", *out])
    with pytest.raises(InputError, match=r"must end in \.png"):
        main([str(tmp_path / "run"), "--out", str(tmp_path / "curve.txt")])
    with pytest.raises(InputError, match="--skip"):
        main([str(tmp_path / "run"), "--skip", "1", *out])
    write_log(tmp_path / "short", num_steps=50)
    with pytest.raises(InputError, match="5 points to fit, and 8 are needed"):
        main([str(tmp_path / "short"), *out])
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: main([str(tmp_path / "nowhere"), *out]))
    assert caught.value.code == 2
