"""Optimizers: AdamW for everything, or Muon for the hidden matrices and AdamW for the rest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import nn

from drivesim.errors import InputError
from drivesim.training.sharding import divided_like, whole

_MIN_MUON_WIDTH = 16
_EDGE_NAME = re.compile(r"(^|[._])(head|logits|to_logits|embed\w*|codebook)([._]|$)")


class OptimizerKind(Enum):
    """Which optimizer a run uses."""

    adamw = "adamw"
    muon = "muon"


@dataclass(kw_only=True, slots=True)
class ParameterGroups:
    """A module's trainable parameters, each in exactly one group."""

    muon: list[nn.Parameter]
    decayed: list[nn.Parameter]
    plain: list[nn.Parameter]


def split_parameters(module: nn.Module, *, kind: OptimizerKind) -> ParameterGroups:
    """Sort a module's trainable parameters.

    Muon takes the weights of `nn.Linear` that are hidden matrices: at least 16 wide both ways, not shared
    with an embedding, and in no part of the model named ``head``, ``logits``, ``embed...`` or ``codebook``.
    Of the others, those with two dimensions or more decay; biases, gains and scalars do not.
    """
    hidden = _hidden_matrix_ids(module) if kind is OptimizerKind.muon else set()
    groups = ParameterGroups(muon=[], decayed=[], plain=[])
    for parameter in module.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in hidden:
            groups.muon.append(parameter)
        elif parameter.ndim >= 2:
            groups.decayed.append(parameter)
        else:
            groups.plain.append(parameter)
    return groups


def build_optimizers(
    module: nn.Module,
    *,
    kind: OptimizerKind,
    learning_rate: float,
    weight_decay: float,
    betas: Sequence[float],
) -> list[torch.optim.Optimizer]:
    """Make the optimizers of a run, AdamW first; the same learning rate suits both of them.

    Raises:
        InputError: Muon is asked for and this PyTorch has none, or nothing in the module can be trained.
    """
    groups = split_parameters(module, kind=kind)
    optimizers: list[torch.optim.Optimizer] = []
    adamw_groups = [
        {"params": groups.decayed, "weight_decay": weight_decay},
        {"params": groups.plain, "weight_decay": 0.0},
    ]
    filled = [group for group in adamw_groups if group["params"]]
    if filled:
        optimizers.append(torch.optim.AdamW(filled, lr=learning_rate, betas=(betas[0], betas[1]), fused=True))
    if groups.muon:
        optimizers.append(_muon(groups.muon, learning_rate=learning_rate, weight_decay=weight_decay))
    if not optimizers:
        raise InputError(
            "nothing to train: no parameter of the model requires a gradient; unfreeze some part of it"
        )
    return optimizers


def _muon(
    parameters: list[nn.Parameter], *, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    if not hasattr(torch.optim, "Muon"):
        raise InputError(
            f"training.optimizer=muon needs PyTorch 2.9 or newer and this is {torch.__version__}; "
            "upgrade torch or choose training.optimizer=adamw"
        )
    # match_rms_adamw scales the update to AdamW's size, so one learning rate and one decay serve both.
    return torch.optim.Muon(
        parameters, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
    )


def _hidden_matrix_ids(module: nn.Module) -> set[int]:
    embedded = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    hidden = set()
    for name, part in module.named_modules():
        if not isinstance(part, nn.Linear) or _EDGE_NAME.search(name) or id(part.weight) in embedded:
            continue
        if min(part.weight.shape) >= _MIN_MUON_WIDTH:
            hidden.add(id(part.weight))
    return hidden


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return ``optimizer.state_dict()`` with whole moments, also where they are divided among processes."""
    state = optimizer.state_dict()
    moments = {
        number: {name: whole(value) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return {"state": moments, "param_groups": state["param_groups"]}


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take over the moments that :func:`optimizer_state` gave; rates and decays stay as they are set now.

    Raises:
        InputError: The saved state is of other parameters.
    """
    present = optimizer.state_dict()
    if [len(g["params"]) for g in saved["param_groups"]] != [
        len(g["params"]) for g in present["param_groups"]
    ]:
        raise InputError(
            "the checkpoint is of another model or optimizer; resume with the settings it was started with"
        )
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        number: {name: _placed(value, parameters[number]) for name, value in values.items()}
        for number, values in saved["state"].items()
    }
    optimizer.load_state_dict({"state": moments, "param_groups": present["param_groups"]})


def _placed(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Divide a moment among processes as its parameter is."""
    return divided_like(value, parameter) if value.shape == parameter.shape else value
