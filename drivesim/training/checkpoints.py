"""A run's checkpoint: one file, complete or absent, read back without running any code from it."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from drivesim.errors import InputError
from drivesim.files import atomic_path

CHECKPOINT_NAME = "last.ckpt"
WEIGHTS_NAME = "ema.safetensors"
_FORMAT = 1
_NEWER_FIELDS = {"leg"}  # checkpoints of the same format may lack them


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    No random state is kept: every batch draws from a seed made of the run's seed and the batch's number.
    """

    task: str
    step: int
    elapsed_s: float
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizers: list[dict[str, Any]]
    running_means: dict[str, list[float]]
    config: dict[str, Any]
    leg: dict[str, float] = field(default_factory=dict)  # of the schedule; the whole run if empty


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint``; a kill or a full disk at any moment leaves the file that was there before.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    contents = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save({"format": _FORMAT, **contents}, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        raise InputError(_cannot_write(path, error)) from error


def load_checkpoint(path: Path, *, is_mapped: bool = False) -> Checkpoint:
    """Read a checkpoint into CPU memory.

    Args:
        path: The file.
        is_mapped: Leave the tensors on the disk until they are used; for a look at the rest.

    Raises:
        InputError: There is none, it is damaged, or it has another format.
    """
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    except FileNotFoundError as error:
        raise InputError(
            f"there is no checkpoint at {path}; leave --resume out to start a new run"
        ) from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} is not a readable checkpoint; remove it and start the run again") from error
    names = {field.name for field in fields(Checkpoint)}
    if (
        not isinstance(contents, dict)
        or contents.pop("format", None) != _FORMAT
        or contents.keys() | _NEWER_FIELDS != names
    ):
        raise InputError(f"{path} is not a checkpoint of this version; remove it and start the run again")
    return Checkpoint(**contents)


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write named tensors as safetensors, complete or not at all.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(on_cpu))
    except OSError as error:
        raise InputError(_cannot_write(path, error)) from error


def remove_leftovers(out: Path) -> None:
    """Delete the unfinished files that a killed run left in ``out``."""
    for name in (CHECKPOINT_NAME, WEIGHTS_NAME):
        stem, suffix = name.rsplit(".", 1)
        for path in out.glob(f".{stem}-*.{suffix}"):
            path.unlink(missing_ok=True)


def _cannot_write(path: Path, error: Exception) -> str:
    return f"could not write {path} ({error}); free some disk space, then go on with --resume"
