"""Training runs of one process or two, for the tests of several processes; as a script it is one process of two.

python tests/two_processes.py PART FOLDER    with MASTER_ADDR, MASTER_PORT, LOCAL_RANK, NODE_RANK in the environment
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from small_models import small_config, small_world_model
from torch import distributed
from toy_task import ToyTask, toy_config

from drivesim.inverse_dynamics import InverseDynamicsConfig
from drivesim.scene.road_map import PACKED_DIM
from drivesim.scene.types import front_camera
from drivesim.tokenizer.vqgan import QuantizerKind, VQGANConfig
from drivesim.training.data import RecordedClips
from drivesim.training.inverse_dynamics import InverseDynamicsTask, InverseDynamicsTrainingConfig
from drivesim.training.loop import TrainTask, fit
from drivesim.training.processes import take_turns
from drivesim.training.token_cache import TokenCache
from drivesim.training.tokenizer import TokenizerTask, TokenizerTrainingConfig
from drivesim.training.world_model import WorldModelTask, WorldModelTrainingConfig
from drivesim.world_model.conditioning import LOOK_DIM

SAMPLES = 8  # of a step
MODELS = {
    "layouts": (("world-model", "ddp"),),
    "models": tuple(
        (name, layout)
        for name in ("world-model", "tokenizer", "vq-tokenizer", "inverse-dynamics")
        for layout in ("ddp", "fsdp")
    ),
}
"""Which small models the parts train; the other runs of "layouts" are the toy's."""
LAYOUTS: dict[str, dict[str, object]] = {
    "one": {"batch_size": SAMPLES},
    "ddp": {"batch_size": SAMPLES // 2, "devices": 2},
    "fsdp": {"batch_size": SAMPLES // 2, "devices": 2, "strategy": "fsdp"},
}


def run_toy(out: Path, layout: str, num_train_steps: int, *, resume: bool = False) -> None:
    """Train the toy at a constant rate, so that it does not matter in how many parts."""
    settings = {"log_every": 1, "evaluate_every": 0, "warmup_steps": 0, "min_learning_rate_ratio": 1.0}
    config = toy_config(num_train_steps=num_train_steps, **settings, **LAYOUTS[layout])
    fit(ToyTask(dropout=0.0), config, out, resume=resume)


def run_model(out: Path, name: str, layout: str) -> None:
    """Train a small model for a few steps."""
    config = toy_config(
        num_train_steps=3, learning_rate=1e-3, log_every=1, evaluate_every=0, **LAYOUTS[layout]
    )
    config.batch_size //= 2
    fit(task_of(name), config, out)


def task_of(name: str) -> TrainTask:
    """Return a task on data made of noise."""
    torch.manual_seed(0)
    clips = noise_clips()
    if name == "world-model":
        settings = WorldModelTrainingConfig(model=small_config(), frames_per_window=3, horizon=1)
        return WorldModelTask(settings, noise_tokens(), clips, small_world_model(), front_camera())
    if name == "inverse-dynamics":
        small = InverseDynamicsConfig(turn_widths=[8, 8], motion_widths=[8, 8], appearance_channels=4)
        idm = InverseDynamicsTrainingConfig(model=small, num_validation_pairs=4)
        return InverseDynamicsTask(idm, clips, clips)
    kind = QuantizerKind.VQ if name == "vq-tokenizer" else QuantizerKind.FSQ
    vqgan = VQGANConfig(channels=[8, 8, 16], num_res_blocks=[1, 1, 1], fsq_levels=[4, 4, 3], quantizer=kind)
    vqgan.codebook_size = 16
    return TokenizerTask(TokenizerTrainingConfig(vqgan=vqgan, num_validation_frames=2), clips, clips)


def noise_clips() -> RecordedClips:
    """Return three clips of five frames."""
    rng, shape = np.random.default_rng(0), (3, 5)
    return RecordedClips(
        frames=rng.integers(0, 255, (*shape, 128, 224, 3), dtype=np.uint8),
        twist=rng.uniform(0, 0.5, (*shape, 2)).astype(np.float32),
        xy_m=np.zeros((*shape, 2)),
        yaw_rad=np.zeros(shape),
        is_collision=np.zeros(shape, bool),
        is_off_road=np.zeros(shape, bool),
        road=np.zeros((*shape, PACKED_DIM, 32, 56), np.int8),
        rate_hz=6.0,
        path=Path("noise"),
    )


def noise_tokens() -> TokenCache:
    """Return the tokens of three clips of five frames."""
    rng, shape = np.random.default_rng(1), (3, 5)
    return TokenCache(
        token_ids=rng.integers(0, 48, (*shape, 112), dtype=np.int32),
        context_ids=rng.integers(0, 48, (*shape, 112), dtype=np.int32),
        expected=rng.uniform(-1, 1, (*shape, 112, 3)).astype(np.float16),
        motion=rng.uniform(-1, 1, (*shape, 112, 3)).astype(np.float16),
        twist=rng.uniform(0, 0.5, (*shape, 2)).astype(np.float32),
        road=np.zeros((*shape, PACKED_DIM, 32, 56), np.int8),
        look=rng.uniform(-1, 1, (*shape, LOOK_DIM)).astype(np.float16),
    )


def run_pair(part: str, folder: Path) -> None:
    """Start two processes of this file, as torchrun would, and wait for their end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    processes = []
    for rank in range(2):
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "LOCAL_RANK": str(rank)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0"}
        command = [sys.executable, __file__, part, str(folder)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    codes = [process.wait(timeout=300) for process in processes]
    assert codes == [0, 0]


def _copied(source: Path, target: Path) -> Path:
    if os.environ["LOCAL_RANK"] == "0":
        shutil.copytree(source, target)
    distributed.barrier()
    return target


def main(part: str, folder: Path) -> None:
    """Be one process of the runs that the tests look at; the second one waits for what the first one prepares."""
    prepared = folder / f"{part}-prepared"
    take_turns(toy_config(**LAYOUTS["ddp"]))
    if os.environ["LOCAL_RANK"] == "0":
        time.sleep(0.5)
        prepared.touch()
    assert prepared.exists()
    for name, layout in MODELS[part]:
        run_model(folder / f"{name}-{layout}", name, layout)
    if part == "layouts":
        _run_layouts(folder)


def _run_layouts(folder: Path) -> None:
    for layout in ("ddp", "fsdp"):
        run_toy(folder / layout, layout, 6)
        run_toy(_copied(folder / "one-half", folder / f"one-{layout}"), layout, 6, resume=True)
        run_toy(folder / f"{layout}-half", layout, 3)
    run_toy(_copied(folder / "ddp-half", folder / "ddp-fsdp"), "fsdp", 6, resume=True)
    run_toy(_copied(folder / "fsdp-half", folder / "fsdp-ddp"), "ddp", 6, resume=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
