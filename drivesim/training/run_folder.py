"""A run's folder: may a run start there, and does the run that lies there go on with these settings?"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from drivesim.errors import InputError
from drivesim.training.checkpoints import CHECKPOINT_NAME, load_checkpoint
from drivesim.training.settings import TrainingConfig

FIXED_SETTINGS = ("seed", "optimizer")
"""Settings that no run may change: its batches and its optimizer's state depend on them."""
SHARES = ("devices", "num_nodes", "batch_size", "grad_accumulation")
"""Settings of which no run may change the product, the samples of a step."""


def check_folder(out: Path, *, resume: bool) -> None:
    """Refuse to start where a run lies, and to resume where none does.

    Raises:
        InputError: ``out`` holds a run and ``resume`` is False, or there is no ``out`` to resume.
    """
    if resume and not out.is_dir():
        raise InputError(f"there is no run in {out} to resume; check --out or leave --resume out")
    if not resume and (out / CHECKPOINT_NAME).exists():
        raise InputError(f"{out} already holds a run; add --resume to go on with it or choose another --out")


def check_resumable(out: Path, *, task_name: str, model: nn.Module, config: TrainingConfig) -> None:
    """Refuse to go on from ``out/last.ckpt`` with what it does not fit; no checkpoint fits everything.

    Raises:
        InputError: the checkpoint is damaged, of another task, of other model sizes, or was made with other
            :data:`FIXED_SETTINGS` or another number of samples to a step.
    """
    path = out / CHECKPOINT_NAME
    if not path.exists():
        return
    saved = load_checkpoint(path, is_mapped=True)
    if saved.task != task_name:
        raise InputError(f"{path} is of the model {saved.task}, not {task_name}; choose another --out")
    now = config.as_plain()
    for name in FIXED_SETTINGS:
        if name in saved.config and saved.config[name] != now[name]:
            raise InputError(
                f"{path} was made with training.{name}={saved.config[name]}, not {now[name]}; "
                "leave that setting out or choose another --out"
            )
    _check_samples(path, saved.config, now)
    if _shapes(saved.model) != _shapes(model.state_dict()):
        raise InputError(f"{path} is of a model of other sizes; resume with the settings it was started with")


def _check_samples(path: Path, saved: dict[str, Any], now: dict[str, Any]) -> None:
    before, after = (prod(config.get(name, 1) for name in SHARES) for config in (saved, now))
    if before != after:
        product = " x ".join(f"training.{name}={now[name]}" for name in SHARES)
        raise InputError(
            f"{path} was made with {before} samples to a step, but {product} is {after}; choose them so that it is "
            f"{before}, or choose another --out"
        )


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}
