"""Checkpoints: safetensors files that carry their own configuration and hash; never pickle.

The header of a file holds ``kind`` (what it is), ``config`` (JSON of the dataclass the module is built from),
``sha256`` (of the tensors) and free ``facts``. Weights are stored in float16 unless asked otherwise; in int8, matrices
and kernels are stored with one scale per row (output channel) beside them, and all else in float16.
"""

from __future__ import annotations

import hashlib
import json
import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from drivesim.errors import InputError, with_article
from drivesim.files import atomic_path
from drivesim.hub import HUB_PREFIX, fetched, hub_place, weights_in

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
ConfigT = TypeVar("ConfigT")
SCALE_SUFFIX = "@scale"  # of the tensor that holds the scales of an int8 tensor's rows
MIN_INT8_NUMBERS = 4096


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """A checkpoint as read: tensors by name, and what the header says."""

    path: Path
    kind: str
    config: dict[str, Any]
    facts: dict[str, Any]
    tensors: dict[str, Tensor]


def shipped_weights() -> list[str]:
    """Return the names of the weights in the package."""
    return sorted(path.stem for path in WEIGHTS_FOLDER.glob("*.safetensors"))


def resolve_weights(name_or_path: str | Path) -> Path:
    """Return the file of weights.

    Args:
        name_or_path: shipped weights by name, a file, a folder that ``save_pretrained`` wrote, or ``hf://USER/REPO`` or
            ``hf://USER/REPO@REVISION`` on the Hub.

    Raises:
        InputError: it is none of them, or the Hub does not have it.
    """
    if str(name_or_path).startswith(HUB_PREFIX):
        return fetched(hub_place(str(name_or_path)))
    shipped = WEIGHTS_FOLDER / f"{name_or_path}.safetensors"
    if shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if path.is_dir():
        return weights_in(path)
    if not path.is_file():
        names = ", ".join(shipped_weights()) or "none"
        raise InputError(
            f"no weights named {str(name_or_path)!r}; give a .safetensors file, hf://USER/REPO, or one of: {names}"
        )
    return path


def save_module(
    module: nn.Module,
    path: Path,
    *,
    kind: str,
    config: Any,
    facts: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float16,
    left_out: str | None = None,
) -> None:
    """Write a module's state under ``path``, atomically.

    Args:
        module: whose state.
        path: the file.
        kind: what it is, such as "world-model".
        config: the dataclass that the module is built from.
        facts: anything in plain JSON.
        dtype: of the stored floating point tensors.
        left_out: start of the names of tensors that are not stored, as they have a file of their own.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        if left_out is None or not name.startswith(left_out):
            tensors |= _stored(name, value.detach().cpu(), dtype)
    header = {
        "kind": kind,
        "config": json.dumps(config_to_json(config)),
        "facts": json.dumps(facts or {}),
        "sha256": tensor_hash(tensors),
    }
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=header))


def _stored(name: str, value: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a tensor as it is stored: one entry, or two where its rows have scales."""
    if not value.is_floating_point():
        return {name: value.contiguous()}
    if not bool(value.isfinite().all()):
        raise InputError(f"{name} holds numbers that are not finite; weights that diverged are not written")
    if dtype is not torch.int8:
        return {name: value.to(dtype).contiguous()}
    if value.ndim < 2 or value.numel() < MIN_INT8_NUMBERS:
        return {name: value.half().contiguous()}
    rows = value.float().flatten(1)
    scale = (rows.abs().amax(1, keepdim=True) / 127).clamp_min(1e-12)
    whole = (rows / scale).round().clamp(-127, 127).to(torch.int8).reshape(value.shape)
    return {name: whole.contiguous(), f"{name}{SCALE_SUFFIX}": scale.squeeze(1)}


def _restored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`_stored`: int8 tensors with scales become float32."""
    restored = {name: value for name, value in tensors.items() if not name.endswith(SCALE_SUFFIX)}
    for name, scale in tensors.items():
        if name.endswith(SCALE_SUFFIX):
            whole = tensors[name.removesuffix(SCALE_SUFFIX)]
            rows = whole.flatten(1).float() * scale.unsqueeze(1)
            restored[name.removesuffix(SCALE_SUFFIX)] = rows.reshape(whole.shape)
    return restored


def read_header(path: Path) -> dict[str, str]:
    """Return what the header of a file says, without its tensors; empty where loading will find out why."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def weights_hash(name_or_path: str | Path) -> str:
    """Return the hash of the tensors that the header of weights has; empty where it has none.

    Raises:
        InputError: there are no such weights.
    """
    return read_header(resolve_weights(name_or_path)).get("sha256", "")


def read_checkpoint(path: Path, *, kind: str | None = None) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        InputError: not a safetensors file of this project, damaged, or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); fetch or train the weights again"
        ) from error
    if not {"kind", "config", "sha256"} <= header.keys():
        raise InputError(
            f"{path} was not written by drivesim (its header lacks kind, config or sha256); name other weights"
        )
    if tensor_hash(tensors) != header["sha256"]:
        raise InputError(
            f"{path} is damaged: its tensors do not match the hash in its header; fetch or train it again"
        )
    if kind is not None and header["kind"] != kind:
        raise InputError(
            f"{path} holds {with_article(header['kind'])}, but {with_article(kind)} is needed; name other weights"
        )
    try:
        config, facts = json.loads(header["config"]), json.loads(header.get("facts", "{}"))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} has an unreadable header ({error}); fetch or train the weights again"
        ) from error
    return Checkpoint(path=path, kind=header["kind"], config=config, facts=facts, tensors=_restored(tensors))


def load_state(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the tensors of a checkpoint into a module, converting to its dtypes.

    Raises:
        InputError: names or shapes differ.
    """
    state = module.state_dict()
    missing, unexpected = (
        sorted(state.keys() - checkpoint.tensors.keys()),
        sorted(checkpoint.tensors.keys() - state.keys()),
    )
    wrong = [
        name
        for name in state.keys() & checkpoint.tensors.keys()
        if state[name].shape != checkpoint.tensors[name].shape
    ]
    if missing or unexpected or wrong:
        first = (missing + unexpected + sorted(wrong))[0]
        raise InputError(
            f"{checkpoint.path} does not fit this model: {len(missing)} tensors missing, {len(unexpected)} unexpected, "
            f"{len(wrong)} of another shape (first: {first}); use the configuration that the weights were trained with"
        )
    module.load_state_dict(checkpoint.tensors)


def tensor_hash(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def config_to_json(config: Any) -> Any:
    """Return a dataclass tree as plain JSON values; enums by value."""
    if is_dataclass(config):
        return {field.name: config_to_json(getattr(config, field.name)) for field in fields(config)}
    if isinstance(config, Enum):
        return config.value
    if isinstance(config, list | tuple):
        return [config_to_json(item) for item in config]
    if isinstance(config, dict):
        return {key: config_to_json(value) for key, value in config.items()}
    return config


def config_from_json(cls: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """Build a configuration dataclass from :func:`config_to_json`'s output.

    Raises:
        InputError: a key that the dataclass does not have.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(values.keys() - hints.keys())
    if unknown:
        raise InputError(
            f"{cls.__name__} has no field {unknown[0]!r}; the weights come from another version of drivesim"
        )
    return cls(**{name: _value_from_json(hints[name], value) for name, value in values.items()})


def _value_from_json(hint: Any, value: Any) -> Any:
    if isinstance(hint, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return None if value is None else _value_from_json(kinds[0], value)
    if isinstance(hint, type) and is_dataclass(hint):
        return config_from_json(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        if value not in [member.value for member in hint]:
            raise InputError(
                f"{hint.__name__} has no {value!r}; the weights come from another version of drivesim"
            )
        return hint(value)
    return value


def check_device(name: str) -> None:
    """Refuse a device on which nothing can be computed here.

    Raises:
        InputError: there is no such device, or this PyTorch cannot use it.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"device {name!r} cannot be used ({reason}); name another, such as cpu") from error
