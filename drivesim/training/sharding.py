"""A model divided among processes (FSDP): every one holds a part of each matrix, of its gradient and of its moments.

PyTorch's ``fully_shard`` does the work, on accelerators and, with gloo, on CPUs. Files hold whole tensors, so that any
layout reads what another one wrote.
"""

from __future__ import annotations

import inspect
import warnings
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh

from drivesim.errors import InputError
from drivesim.world_model.stpt import STPTLayer

_APART: dict[type[nn.Module], tuple[str, ...]] = {STPTLayer: ("full", "frame", "next_to", "two_stream")}
"""Modules whose matrices are gathered one after the other, and the methods by which they are called."""


def sharded_strategy(ddp_strategy: type[Any]) -> type[Any]:
    """Return a Fabric strategy with the processes of ``ddp_strategy`` that divides the model.

    Fabric's own FSDP strategies refuse CPUs, and start processes in their own way.
    """

    class Sharded(ddp_strategy):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self._backward_sync_control = _SyncControl()

        def setup_module(self, module: nn.Module) -> nn.Module:
            return sharded(module, self.root_device.type)

    return Sharded


class _SyncControl:
    """Fabric's switch for the batches of a step whose gradients are not yet summed over processes."""

    def no_backward_sync(self, module: nn.Module, enabled: bool) -> AbstractContextManager[None]:
        module.set_requires_gradient_sync(not enabled)  # type: ignore[operator]
        return nullcontext()


def sharded(module: nn.Module, device_type: str) -> nn.Module:
    """Divide the trainable parameters of a module in place; all processes go on from the weights of the first.

    Raises:
        InputError: This PyTorch cannot, or a parameter is a single number.
    """
    fsdp: Any = import_module("torch.distributed.fsdp")
    if "ignored_params" not in inspect.signature(getattr(fsdp, "fully_shard", len)).parameters:
        raise InputError(
            f"training.strategy=fsdp needs PyTorch 2.7 or newer and this is {torch.__version__}; upgrade torch or "
            "choose training.strategy=ddp"
        )
    for name, parameter in module.named_parameters():
        parameter.data = parameter.data.contiguous()  # channels-last ones cannot be divided
        if parameter.requires_grad and parameter.ndim == 0:
            raise InputError(
                f"{name} is a single number, which cannot be divided; choose training.strategy=ddp"
            )
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")  # no layer's result is written in place
    for tensor in module.state_dict().values():
        distributed.broadcast(tensor, src=0)
    mesh = init_device_mesh(device_type, (distributed.get_world_size(),))
    frozen = {parameter for parameter in module.parameters() if not parameter.requires_grad}
    for part in module.modules():
        methods = _APART.get(type(part), ())
        if methods and part is not module and not frozen.intersection(part.parameters()):
            fsdp.fully_shard(part, mesh=mesh)
            for method in methods:
                fsdp.register_fsdp_forward_method(part, method)
    fsdp.fully_shard(module, mesh=mesh, ignored_params=frozen)
    return module


def local_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a divided tensor, in the same memory; another tensor itself."""
    part: Tensor = tensor.to_local() if _is_divided(tensor) else tensor  # type: ignore[attr-defined]
    return part


def whole(tensor: Tensor) -> Tensor:
    """Return a divided tensor whole, to all processes, which must all ask; another tensor itself."""
    full: Tensor = tensor.full_tensor() if _is_divided(tensor) else tensor  # type: ignore[attr-defined]
    return full


def divided_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a whole tensor, the same on all processes, divided as ``other`` is, or as it is where that is not."""
    if not _is_divided(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    divided: Tensor = distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)  # type: ignore[attr-defined]
    return divided


def joined_like(part: Tensor, other: Tensor) -> Tensor:
    """Return as a divided tensor what is each process's part of one that is divided as ``other`` is."""
    if not _is_divided(other):
        return part
    from torch.distributed.tensor import DTensor

    mesh, placements = other.device_mesh, other.placements  # type: ignore[attr-defined]
    joined: Tensor = DTensor.from_local(
        part, mesh, placements, run_check=False, shape=other.shape, stride=other.stride()
    )
    return joined


def _is_divided(tensor: Tensor) -> bool:
    return hasattr(tensor, "to_local")
