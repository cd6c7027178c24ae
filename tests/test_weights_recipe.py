"""`make weights`, from nothing to all weights: it counts steps, not minutes, and its parts fit together."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from drivesim.checkpoint import read_checkpoint
from drivesim.config import configs_folder, load_config
from drivesim.world_model.pretrained_video import load_video_model

ROOT = Path(__file__).parents[1]
CARDS = ("drive-tiny", "inverse-dynamics", "driver-tiny", "hazard-tiny", "general-tiny")
NUM_STEPS = 2
REHEARSAL = [
    *(f"training.num_train_steps={NUM_STEPS}", "training.batch_size=2", "training.num_threads=1"),
    *("training.accelerator=cpu", "data.num_clips=2", "data.num_validation_clips=1", "data.num_workers=1"),
    *("tokenizer.vqgan.channels=[8,8,8]", "tokenizer.vqgan.num_res_blocks=[1,1,1]"),
    *("tokenizer.num_validation_frames=2", "world_model.horizon=1"),
    *("world_model.model.stpt.dim=32", "world_model.model.stpt.num_layers=1"),
    *("world_model.model.stpt.num_heads=2", "imagination.horizon=1"),
    *("inverse_dynamics.num_reconstructed_pairs=4", "inverse_dynamics.num_validation_pairs=4"),
    *("hazard_head.samples.num_drives=4", "hazard_head.samples.num_long_drives=0"),
    *("hazard_head.num_validation_drives=4", "hazard_head.num_validation_long_drives=2"),
    *("behavior_cloning.lessons.num_lessons=2", "behavior_cloning.lessons.num_validation_lessons=1"),
    "behavior_cloning.lessons.num_workers=1",
]
PARTS = {
    "tokenizer": "tokenizer",
    "motion-field": "motion-field",
    "first": "world-model",
    "imagination": "imagination",
    "inverse-dynamics": "inverse-dynamics",
    "hazard-head": "hazard-head",
    "driver": "policy",
}


def recipe(target: str) -> str:
    makefile = (ROOT / "Makefile").read_text()
    return makefile.split(f"\n{target}: ")[1].split("\n\n")[0]


def test_the_experiment_of_the_general_weights_builds_models_that_draw_as_they_do() -> None:
    built = load_config("train", ["experiment=general_tiny"]).video_model.model
    assert built == load_video_model("general-tiny").config


def test_shipped_weights_count_steps_and_their_cards_say_how_many() -> None:
    cards = " ".join((ROOT / f"drivesim/weights/{name}.md").read_text() for name in CARDS)
    recipes = recipe("weights") + recipe("general-weights")
    experiments = {path.stem for path in (configs_folder() / "experiment").glob("*_tiny*.yaml")}
    assert experiments == set(re.findall(r"experiment=(\w+)", recipes))
    configs = [load_config("train", [f"experiment={name}"]).training for name in experiments]
    assert all(config.max_minutes is None for config in configs)
    steps = [config.num_train_steps for config in configs]
    steps += [int(count) for count in re.findall(r"num_train_steps=(\d+)", recipes)]
    assert len(steps) == len(re.findall(r"call TRAIN,", recipes))
    missing = [count for count in steps if f"{count:,} steps" not in cards]
    assert not missing, f"no card speaks of {missing} steps"


@pytest.mark.slow
def test_weights_are_trained_from_nothing_part_after_part(tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    if shutil.which("make") is None or not (programs / "drivesim").exists():
        pytest.skip("needs make, and drivesim installed beside this Python")
    command = [
        *("make", "-C", str(ROOT), "-o", ".venv/.installed", f"BIN={programs}", "weights"),
        *(f"WEIGHTS_HOME={tmp_path}", f"WEIGHTS_FLAGS={' '.join(REHEARSAL)}"),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for _ in range(2):  # a finished part goes on with nothing left to do
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for folder, name in PARTS.items():
        out = tmp_path / "out/weights" / folder
        assert read_checkpoint(out / f"{name}.safetensors").facts["step"] == NUM_STEPS, folder
        log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert {line["step"] for line in log if line["kind"] != "start"} <= {1, NUM_STEPS}, folder
    first = read_checkpoint(tmp_path / "out/weights/tokenizer/tokenizer.safetensors").tensors
    last = read_checkpoint(tmp_path / "out/weights/imagination/imagination.safetensors").tensors
    shared = {name: last[f"tokenizer.{name}"] for name in first}
    assert all((shared[name] == first[name]).all() for name in first)
