"""The commands of docs/your-own-data.md run one after another, as they stand but for the size of everything."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from drivesim import cli

TUTORIAL = (Path(__file__).parents[1] / "docs" / "your-own-data.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", TUTORIAL, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
SMALLER = {
    "data film": ["--seconds", "24", "--drive-seconds", "12"],
    "train world-model": [
        *("training.num_train_steps=1", "fine_tuning.num_windows=2", "fine_tuning.num_checked_windows=1"),
        *("fine_tuning.motion_field.batch_size=1", "fine_tuning.imagination.batch_size=1"),
    ],
    "rollout": ["--steps", "3"],
}


def smaller(line: str) -> list[str]:
    """Return the words of a command for a test that has no time; of options given twice the last one counts."""
    words = shlex.split(line)
    assert words.pop(0) == "drivesim", line
    extra = next((more for start, more in SMALLER.items() if " ".join(words).startswith(start)), [])
    return [*words, *extra]


def test_the_tutorial_runs_from_a_video_to_a_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in COMMANDS:
        with pytest.raises(SystemExit) as caught:
            cli.main(smaller(line))
        assert not caught.value.code, f"{line}: {capsys.readouterr().err}"
    assert len(list((tmp_path / "my-drives").glob("*/drive.csv"))) == 2
    figures = json.loads((tmp_path / "runs" / "my-world" / "fidelity.json").read_text())
    assert figures["num_windows"] == 2
    for name in ("futures.png", "world-model.safetensors"):
        assert (tmp_path / "runs" / "my-world" / name).stat().st_size > 10_000
    assert (tmp_path / "out" / "my-world" / "rollout.mp4").stat().st_size > 1000


def test_every_step_has_its_command() -> None:
    verbs = [" ".join(shlex.split(line)[1:3]) for line in COMMANDS]
    assert [verb.split(" --")[0] for verb in verbs] == [
        *("data film", "data import", "data check", "scenes", "train world-model", "rollout"),
    ]
    assert all(len(line) < 200 for line in COMMANDS)


@pytest.mark.slow
def test_a_minute_of_training_brings_a_gain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in COMMANDS:
        if "data check" in line or "rollout" in line:
            continue
        more = {
            "data film": ["--seconds", "60"],
            "train": ["training.max_minutes=2", "fine_tuning.num_windows=24"],
        }
        extra = next((words for verb, words in more.items() if verb in line), [])
        with pytest.raises(SystemExit) as caught:
            cli.main([*shlex.split(line)[1:], *extra])
        assert not caught.value.code, line
    figures = json.loads((tmp_path / "runs" / "my-world" / "fidelity.json").read_text())
    assert figures["after"]["gain_db_at_6"] > figures["before"]["gain_db_at_6"] + 0.2
