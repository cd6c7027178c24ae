"""Weights of an earlier run, or shipped ones, as the start of a new run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from drivesim.checkpoint import read_checkpoint, resolve_weights
from drivesim.errors import InputError, nearest
from drivesim.training.checkpoints import WEIGHTS_NAME

STORED_STEPS = 240.0  # int8 rounds to a 254th of a row's largest weight


def initialize_from(model: nn.Module, weights: str | Path, *, new_modules: Sequence[str] = ()) -> None:
    """Copy weights into a model that is about to be trained.

    Args:
        model: What is trained: the model itself, or a module that holds it as a part.
        weights: Shipped weights by name, a .safetensors file, or the folder of a run (its averaged weights).
        new_modules: Parts of the model that keep the values they have, by name (``stpt.head``); the weights
            may lack them or have them in other sizes.

    Raises:
        InputError: The file is not readable, or something does not fit and is not named in ``new_modules``;
            a frozen part counts as not fitting when it holds other values, as what is trained on top of it
            would mean nothing.
    """
    path = _weights_file(weights)
    tensors, config = _read(path)
    state, prefix = _matching_part(model, tensors)
    _check_mode(path, model.get_submodule(prefix.removesuffix(".")), config)
    _check_new_modules(new_modules, state.keys() | tensors.keys())
    wanted = {name: tensor for name, tensor in state.items() if not _is_within(name, new_modules)}
    _check_names(path, wanted, {name for name in tensors if not _is_within(name, new_modules)})
    _check_shapes(path, wanted, tensors)
    _check_frozen(path, _frozen_names(model, prefix), wanted, tensors)
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(tensors[name])


def _weights_file(weights: str | Path) -> Path:
    path = Path(weights)
    if path.is_dir():
        path = path / WEIGHTS_NAME
        if not path.is_file():
            raise InputError(f"{path.parent} holds no {WEIGHTS_NAME}; name a run that was evaluated once")
        return path
    return resolve_weights(weights)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and configuration of a trained model, its hash checked; a run's averaged weights have neither."""
    try:
        with safe_open(path, framework="pt") as file:
            if not {"sha256", "kind"} & (file.metadata() or {}).keys():
                return {name: file.get_tensor(name) for name in file.keys()}, {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); name other weights"
        ) from error
    checkpoint = read_checkpoint(path)
    return checkpoint.tensors, checkpoint.config


def _check_mode(path: Path, part: nn.Module, config: dict[str, Any]) -> None:
    """Refuse weights of a transformer that sees the future for one that does not: their tensors look alike."""
    stpt = config.get("stpt")
    is_causal = stpt.get("is_frame_causal") if isinstance(stpt, dict) else None
    own = getattr(getattr(part, "config", None), "stpt", None)
    if own is not None and is_causal not in (None, own.is_frame_causal):
        sees = "earlier frames only" if is_causal else "all frames at once"
        raise InputError(
            f"{path} holds a transformer that sees {sees}, and this run trains another kind; set "
            f"stpt.is_frame_causal={str(is_causal).lower()}, or begin with video_model.is_turned"
        )


def _matching_part(model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return the state of the part that shares the most names with the weights, and its prefix in ``model``."""
    parts = {"": model.state_dict()}
    parts |= {f"{name}.": part.state_dict() for name, part in model.named_children()}
    prefix = max(parts, key=lambda prefix: len(parts[prefix].keys() & tensors.keys()))
    return parts[prefix], prefix


def _is_within(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _check_new_modules(new_modules: Sequence[str], names: Collection[str]) -> None:
    for module in new_modules:
        if not any(_is_within(name, [module]) for name in names):
            parts = sorted({name.partition(".")[0] for name in names})
            raise InputError(
                f"training.new_modules names {module!r}, which is no part of the model; {nearest(module, parts)}"
            )


def _check_names(path: Path, wanted: Mapping[str, Tensor], given: set[str]) -> None:
    missing, foreign = sorted(wanted.keys() - given), sorted(given - wanted.keys())
    if missing or foreign:
        what = f"lacks {missing[0]}" if missing else f"holds {foreign[0]}, which this model has not"
        raise InputError(
            f"{path} {what} ({len(missing)} tensors missing, {len(foreign)} foreign); name the parts that may "
            "differ in training.new_modules, or use the settings that the weights were trained with"
        )


def _check_shapes(path: Path, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    wrong = [name for name in wanted if wanted[name].shape != tensors[name].shape]
    if wrong:
        name = wrong[0]
        raise InputError(
            f"{path} is of other sizes: {name} is {_size(tensors[name])} there and {_size(wanted[name])} here "
            f"({len(wrong)} tensors in all); name their parts in training.new_modules, or use the settings "
            "that the weights were trained with"
        )


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _frozen_names(model: nn.Module, prefix: str) -> set[str]:
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name.removeprefix(prefix) for name in frozen if name.startswith(prefix)}


def _is_same(kept: Tensor, stored: Tensor) -> bool:
    """Tell whether weights are equal up to how coarsely files store them: as halves or, by rows, as int8."""
    largest = kept.abs().flatten(1).amax(1) if kept.ndim > 1 else kept.abs()
    error = (kept - stored).abs()
    return bool(((error.flatten(1).amax(1) if kept.ndim > 1 else error) <= largest / STORED_STEPS).all())


def _check_frozen(
    path: Path, frozen: set[str], wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    for name in sorted(frozen & wanted.keys()):
        if not _is_same(wanted[name].float().cpu(), tensors[name].float()):
            raise InputError(
                f"{path} was trained on another {name.partition('.')[0]} than this run ({name} differs); "
                "use the one that it was trained with"
            )
