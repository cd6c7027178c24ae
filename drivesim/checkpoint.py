"""Checkpoints: safetensors files that carry their own configuration and hash; never pickle.

The header of a file holds ``kind`` (what it is), ``config`` (JSON of the dataclass the module is built from),
``sha256`` (of the tensors), ``config_sha256`` (of kind and configuration; older files have none) and free ``facts``.
Weights are stored in float16 unless asked otherwise; in int8, matrices and kernels are stored with one scale per row
(output channel) beside them, and all else in float16.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from drivesim.config_json import UNBUILDABLE, ConfigT, config_from_json, config_to_json, reason_of
from drivesim.errors import InputError, with_article
from drivesim.files import atomic_path
from drivesim.hub import HUB_PREFIX, fetched, hub_place, weights_in

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
ModuleT = TypeVar("ModuleT", bound=nn.Module)
CONFIG_HASH = "config_sha256"
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
    header = header_of(tensors, kind=kind, config=config_to_json(config), facts=facts)
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=header))


def header_of(
    tensors: dict[str, Tensor], *, kind: str, config: dict[str, Any], facts: dict[str, Any] | None = None
) -> dict[str, str]:
    """Return what :func:`read_checkpoint` needs to find in the header of a file with these tensors."""
    return {
        "kind": kind,
        "config": json.dumps(config),
        "facts": json.dumps(facts or {}),
        "sha256": tensor_hash(tensors),
        CONFIG_HASH: config_hash(kind, config),
    }


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
    header, tensors = _contents(path)
    if not {"kind", "config", "sha256"} <= header.keys():
        raise InputError(
            f"{path} was not written by drivesim (its header lacks kind, config or sha256); name other weights"
        )
    if tensor_hash(tensors) != header["sha256"]:
        raise InputError(
            f"{path} is damaged: its tensors do not match the hash in its header; fetch or train it again"
        )
    config, facts = _json_object(path, header["config"]), _json_object(path, header.get("facts", "{}"))
    if CONFIG_HASH in header and config_hash(header["kind"], config) != header[CONFIG_HASH]:
        raise InputError(
            f"{path} is damaged: its kind and configuration do not match their hash in its header; "
            "fetch or train it again"
        )
    if kind is not None and header["kind"] != kind:
        raise InputError(
            f"{path} holds {with_article(header['kind'])}, but {with_article(kind)} is needed; name other weights"
        )
    return Checkpoint(path=path, kind=header["kind"], config=config, facts=facts, tensors=_restored(tensors))


def _contents(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); fetch or train the weights again"
        ) from error


def _json_object(path: Path, text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} has an unreadable header ({error}); fetch or train the weights again"
        ) from error
    if not isinstance(values, dict):
        raise InputError(
            f"{path} has an unreadable header (no fields, but {text[:40]}); fetch or train the weights again"
        )
    return values


def config_of(checkpoint: Checkpoint, cls: type[ConfigT]) -> ConfigT:
    """Return the configuration of a checkpoint.

    Raises:
        InputError: it has other fields than ``cls``, values of other types, or values that cannot be.
    """
    try:
        return config_from_json(cls, checkpoint.config)
    except InputError as error:
        raise InputError(f"{checkpoint.path} does not load: {error}") from error


def module_of(checkpoint: Checkpoint, build_fn: Callable[[ConfigT], ModuleT], config: ConfigT) -> ModuleT:
    """Build the module that a checkpoint holds, not yet with its weights.

    Args:
        checkpoint: named in errors.
        build_fn: makes a module of its configuration.
        config: :func:`config_of` the checkpoint.

    Raises:
        InputError: no module has such sizes.
    """
    try:
        return build_fn(config)
    except InputError:
        raise
    except UNBUILDABLE as error:
        raise InputError(
            f"{checkpoint.path} does not load: its configuration cannot be built ({reason_of(error)}); "
            "fetch or train the weights again"
        ) from error


def load_module(
    name_or_path: str | Path,
    kind: str,
    config_class: type[ConfigT],
    build_fn: Callable[[ConfigT], ModuleT],
    *,
    device: str,
) -> ModuleT:
    """Load a module to use and not to train, in float32.

    Args:
        name_or_path: shipped weights by name, a file or folder, or a place on the Hub.
        kind: that they must be of.
        config_class: of their configuration.
        build_fn: makes a module of it.
        device: where it runs.

    Raises:
        InputError: unknown weights, damaged, of another kind, or of shapes that do not fit their configuration.
    """
    usable_device(device)
    checkpoint = read_checkpoint(resolve_weights(name_or_path), kind=kind)
    module = module_of(checkpoint, build_fn, config_of(checkpoint, config_class))
    load_state(module, checkpoint)
    return module.to(device).eval().requires_grad_(False)


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


def config_hash(kind: str, config: dict[str, Any]) -> str:
    """Return the SHA-256 over kind and configuration, whatever the order of its fields."""
    text = json.dumps({"kind": kind, "config": config}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def usable_device(name: str) -> torch.device:
    """Return the device of that name, after it has held a tensor.

    Raises:
        InputError: PyTorch knows no such device, or has none here.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InputError(
            f"device {name!r} cannot be used ({reason_of(error)}); name another, such as cpu"
        ) from error
