"""Every model's training: killed and resumed to the same losses and weights, bit for bit; stopped where it diverges."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_models import small_world_model
from toy_task import assert_same_run, equal, wait_for_step

from drivesim import cli
from drivesim.checkpoint import read_checkpoint, save_module
from drivesim.training.checkpoints import load_checkpoint
from drivesim.training.data import record_clips

pytestmark = pytest.mark.slow

NUM_STEPS, KILLED_AT = 9, 4
NUM_FRAMES = 16
SHARED = [
    *(f"training.num_train_steps={NUM_STEPS}", "training.batch_size=2", "training.accelerator=cpu"),
    *("training.num_threads=1", "training.log_every=1", "training.evaluate_every=5", "data.num_clips=3"),
    *("data.num_validation_clips=1", f"data.frames_per_clip={NUM_FRAMES}", "data.num_workers=1"),
    *("training.learning_rate=1e-3", "training.warmup_steps=2", "training.ema_decay=0.9"),
]
MUON = "training.optimizer=muon"  # as the experiments of these models
PARTS = {
    "tokenizer": [
        *("tokenizer.vqgan.channels=[8,8,8]", "tokenizer.vqgan.num_res_blocks=[1,1,1]"),
        "tokenizer.num_validation_frames=2",
    ],
    "motion-field": [],
    "world-model": [MUON, f"world_model.frames_per_clip={NUM_FRAMES}", "world_model.frames_per_window=4"],
    # rollouts of up to six training steps, so that some are on their way at the kill
    "imagination": [
        *(MUON, "imagination.horizon=2", "imagination.rollouts.longest=12"),
        *("imagination.rollouts.shortest=8", "imagination.rollouts.num_groups=2"),
    ],
    "inverse-dynamics": [
        *("inverse_dynamics.num_validation_pairs=4", "inverse_dynamics.num_reconstructed_pairs=4"),
        "inverse_dynamics.spoiling.reconstructed_share=0.5",
    ],
    "policy": [
        *("behavior_cloning.lessons.num_lessons=3", "behavior_cloning.lessons.num_validation_lessons=1"),
        *("behavior_cloning.lessons.frames_per_lesson=16", "behavior_cloning.lessons.num_workers=1"),
    ],
    "hazard-head": [
        *("hazard_head.samples.num_drives=2", "hazard_head.samples.num_long_drives=0"),
        *("hazard_head.num_validation_drives=2", "hazard_head.num_validation_long_drives=1"),
    ],
    "video-model": [
        *(
            MUON,
            "general.num_clips=2",
            "general.num_images=2",
            "general.num_drives=1",
            "general.num_workers=1",
        ),
        *("general.num_validation_clips=2", "general.num_validation_images=2", "general.frames_per_clip=4"),
        *("video_model.model.num_frames=4", "video_model.frames_per_window=3"),
        *("video_model.model.stpt.dim=32", "video_model.model.stpt.num_layers=1"),
        *("video_model.model.stpt.num_heads=2", "video_model.model.bytes_encoder.dim=32"),
    ],
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    sizes = {"train": (3, 0), "validation": (1, 890_000)}
    for name, (num_clips, seed) in sizes.items():
        record_clips(
            folder / name, num_clips=num_clips, frames_per_clip=NUM_FRAMES, first_seed=seed, num_workers=1
        )
    model = small_world_model()
    save_module(model, folder / "model.safetensors", kind="world-model", config=model.config)
    save_module(
        model.tokenizer, folder / "tokenizer.safetensors", kind="tokenizer", config=model.tokenizer.config
    )
    inits = [
        f"{part}.init={folder / 'model.safetensors'}"
        for part in ("motion_field", "world_model", "imagination")
    ]
    return [
        *(*SHARED, *inits, f"inverse_dynamics.tokenizer={folder / 'tokenizer.safetensors'}"),
        *(f"data.path={folder}", f"behavior_cloning.lessons.path={folder / 'lessons'}"),
        *(
            f"hazard_head.path={folder / 'hazard'}",
            f"hazard_head.samples.weights={folder / 'model.safetensors'}",
        ),
        *(f"general.path={folder / 'general'}", f"video_model.init={folder / 'tokenizer.safetensors'}"),
    ]


def train(out: Path, name: str, *settings: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", name, "--out", str(out), *settings])
    assert (caught.value.code or 0) == code


def kill(out: Path, name: str, *settings: str) -> None:
    """Train in a process of its own that is killed after a step, its checkpoint a step or two behind."""
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "drivesim.cli", "train", name, "--out", str(out), *settings]
    process = subprocess.Popen(command, env=environment, cwd=root, stdout=subprocess.DEVNULL)
    wait_for_step(out, KILLED_AT, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 1 <= load_checkpoint(out / "last.ckpt").step < NUM_STEPS


@pytest.mark.parametrize("name", PARTS)
def test_a_killed_training_resumes_to_the_same_losses_and_weights(
    name: str, settings: list[str], tmp_path: Path
) -> None:
    own = [*settings, *PARTS[name]]
    train(tmp_path / "whole", name, *own)
    kill(tmp_path / "killed", name, *own, "training.checkpoint_every_s=0")
    train(tmp_path / "killed", name, "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    weights = [read_checkpoint(tmp_path / run / f"{name}.safetensors").tensors for run in ("whole", "killed")]
    assert equal(*weights)
    assert all(torch.isfinite(tensor).all() for tensor in weights[0].values() if tensor.is_floating_point())


@pytest.mark.parametrize("name", PARTS)
def test_a_training_that_diverges_stops_with_step_seed_and_a_report(
    name: str, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["training.learning_rate=1e30", "training.evaluate_every=0"]
    train(tmp_path / "run", name, *settings, *PARTS[name], *wild, code=2)
    (path,) = (tmp_path / "run").glob("diverged-step-*.json")
    report = json.loads(path.read_text())
    (batch,) = report["batches"]
    assert not math.isfinite(batch["losses"]["loss"]) or not math.isfinite(report["grad_norm"])
    assert (path.parent / report["tensors"]).stat().st_size > 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"for {name} at step {report['step']}, batch seed {batch['seed']};" in said
