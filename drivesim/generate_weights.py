"""Weights to generate with: which kind a task takes, what to do with another, and what a record says of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from drivesim.checkpoint import resolve_weights
from drivesim.errors import InputError
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.pretrained_video import KIND as VIDEO_KIND
from drivesim.world_model.pretrained_video import load_video_model
from drivesim.world_model.video_model import VideoModel
from drivesim.world_model.world_model import WorldModel

DRIVE_KIND = "world-model"


@dataclass(kw_only=True, slots=True)
class WeightsFacts:
    """Which weights they are, and in what numbers they run."""

    name: str
    kind: str
    sha256: str  # of the tensors
    device: str
    dtype: str

    def to_json(self) -> dict[str, str]:
        """Return the facts as plain values."""
        return asdict(self)


def open_video_weights(name: str, device: str) -> tuple[VideoModel, WeightsFacts]:
    """Load a general world model.

    Raises:
        InputError: unknown, damaged or driving weights, or no such device.
    """
    kind, sha256 = _header(resolve_weights(name))
    if kind == DRIVE_KIND:
        raise InputError(
            f"{name} holds a {kind}, which drives and reads no text: take a {VIDEO_KIND} such as general-tiny, or "
            "drive with `drivesim generate action`"
        )
    _check_device(device)
    model = load_video_model(name, device=device)
    return model, _facts(name, kind, sha256, model)


def open_drive_weights(name: str, device: str) -> tuple[WorldModel, WeightsFacts]:
    """Load a driving world model.

    Raises:
        InputError: unknown or damaged weights, those of a general world model, or no such device.
    """
    kind, sha256 = _header(resolve_weights(name))
    if kind == VIDEO_KIND:
        raise InputError(
            f"{name} holds a {kind}, which cannot be steered; take a {DRIVE_KIND} such as drive-tiny, or go on from a "
            "picture with `drivesim generate image`"
        )
    _check_device(device)
    model = load_world_model(name, device=device)
    return model, _facts(name, kind, sha256, model)


def _header(path: Path) -> tuple[str, str]:
    """Return kind and hash; empty where the file does not say, which loading it will find out."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError):
        return "", ""
    return header.get("kind", ""), header.get("sha256", "")


def _facts(name: str, kind: str, sha256: str, model: VideoModel | WorldModel) -> WeightsFacts:
    weight = next(model.parameters())
    return WeightsFacts(
        name=name,
        kind=kind,
        sha256=sha256,
        device=str(weight.device),
        dtype=str(weight.dtype).removeprefix("torch."),
    )


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"device {name!r} cannot be used ({reason}); name another, such as cpu") from error
