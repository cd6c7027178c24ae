"""Trained models from checkpoints: a world model with its tokenizer, or the tokenizer alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from drivesim.checkpoint import (
    Checkpoint,
    config_of,
    load_state,
    module_of,
    read_checkpoint,
    resolve_weights,
    usable_device,
)
from drivesim.errors import InputError, with_article
from drivesim.scene.road_map import PACKED_DIM, VIEW_DIM
from drivesim.tokenizer.vqgan import VQGAN, VQGANConfig
from drivesim.world_model.compiled import compiled, require_compiler
from drivesim.world_model.conditioning import LOOK_DIM, agents_dim
from drivesim.world_model.world_model import WorldModel, WorldModelConfig

TOKENIZER_PREFIX = "tokenizer."


def load_world_model(
    name_or_path: str | Path = "drive-tiny",
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    is_compiled: bool = False,
) -> WorldModel:
    """Load a world model for imagining.

    Args:
        name_or_path: shipped weights by name, a file or folder, or ``hf://USER/REPO`` on the Hub.
        device: where it runs.
        dtype: of the weights; by default bfloat16 where the device multiplies it fast, else float32.
        is_compiled: whether its transformer runs through ``torch.compile``, see :func:`compiled`.

    Raises:
        InputError: unknown weights, damaged, of another kind, or of shapes that do not fit their configuration; or
            what compiling needs is not there.
    """
    usable_device(device)
    if is_compiled:
        require_compiler(torch.device(device).type)
    checkpoint = read_checkpoint(resolve_weights(name_or_path), kind=WorldModel.kind)
    model = module_of(checkpoint, WorldModel, config_of(checkpoint, WorldModelConfig))
    load_state(model, _widened(checkpoint, model))
    model.facts = checkpoint.facts
    model = model.to(device=device, dtype=dtype or fast_dtype(device)).eval().requires_grad_(False)
    return compiled(model) if is_compiled else model


def new_inputs(model: WorldModel) -> list[dict[str, int]]:
    """Return how many of the last inputs of which tensors older weights have not.

    The first entry is for weights that know nothing of agents, the second for those that know no markings and no looks
    either.
    """
    per_layer, per_view = agents_dim(model.tokenizer), VIEW_DIM // PACKED_DIM
    guide, stem = "stpt.embedding.guide.weight", "causal_decoder.stem.weight"
    return [
        {guide: per_layer, stem: per_view},
        {guide: 2 * per_layer + LOOK_DIM, stem: 2 * per_view},
    ]


def _widened(checkpoint: Checkpoint, model: WorldModel) -> Checkpoint:
    """Let weights that were made before there were agents, markings and looks read nothing of them."""
    tensors = dict(checkpoint.tensors)
    for name, num_new in (item for inputs in new_inputs(model) for item in inputs.items()):
        old, wanted = tensors.get(name), model.get_parameter(name)
        if old is not None and old.shape[1] == wanted.shape[1] - num_new:
            tensors[name] = torch.cat([old, old.new_zeros(len(old), num_new, *old.shape[2:])], dim=1)
    return replace(checkpoint, tensors=tensors)


def trainable_world_model(name_or_path: str | Path, config: WorldModelConfig) -> WorldModel:
    """Return a world model in float32 to train on: the weights of a world model, or a new one around a tokenizer.

    Args:
        name_or_path: shipped weights by name, or a file, of a world model or a tokenizer.
        config: sizes of a new model; a world model's own must be the same, or ``config`` the default.

    Raises:
        InputError: as :func:`load_world_model`, or the weights are of other sizes.
    """
    checkpoint = read_checkpoint(resolve_weights(name_or_path))
    if checkpoint.kind == "tokenizer":
        tokenizer = load_tokenizer(name_or_path)
        return WorldModel(replace(config, vqgan=tokenizer.config), tokenizer=tokenizer)
    model = load_world_model(name_or_path, dtype=torch.float32)
    asked = replace(config, vqgan=model.config.vqgan, sampler=model.config.sampler)
    if config != WorldModelConfig() and asked != model.config:
        raise InputError(
            f"{checkpoint.path} holds a world model of other sizes than were asked for; leave world_model.model "
            "out to go on with it, or begin with a tokenizer"
        )
    return model


def load_tokenizer(name_or_path: str | Path = "drive-tiny", *, device: str = "cpu") -> VQGAN:
    """Load a tokenizer, in float32, from a tokenizer's, a world model's or a video model's checkpoint.

    Raises:
        InputError: as :func:`load_world_model`.
    """
    usable_device(device)
    checkpoint = read_checkpoint(resolve_weights(name_or_path))
    if checkpoint.kind in ("world-model", "video-model"):
        checkpoint = _tokenizer_of(checkpoint)
    elif checkpoint.kind != "tokenizer":
        raise InputError(
            f"{checkpoint.path} holds {with_article(checkpoint.kind)}, but a tokenizer or world-model is needed"
        )
    tokenizer = module_of(checkpoint, VQGAN, config_of(checkpoint, VQGANConfig))
    load_state(tokenizer, checkpoint)
    return tokenizer.to(device).eval().requires_grad_(False)


def _tokenizer_of(checkpoint: Checkpoint) -> Checkpoint:
    vqgan: Any = checkpoint.config.get("vqgan")  # none is refused with all else that is no configuration
    tensors = {
        name.removeprefix(TOKENIZER_PREFIX): value
        for name, value in checkpoint.tensors.items()
        if name.startswith(TOKENIZER_PREFIX)
    }
    return replace(checkpoint, kind="tokenizer", config=vqgan, tensors=tensors)


def fast_dtype(device: str) -> torch.dtype:
    """Return bfloat16 where matrix products gain from it, else float32.

    They gain on accelerators, and on CPUs with AMX or with AMD's AVX-512 BF16. Intel's AVX-512 BF16 alone is half as
    fast as its float32. The answer depends on the processor's name only, so that a seed means the same on every start.
    """
    if not device.startswith("cpu"):
        return torch.bfloat16
    # Older releases of PyTorch cannot tell.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    is_amd = "AMD" in str(capabilities.get("cpu_name", ""))
    has_fast_bf16 = capabilities.get("amx_bf16", False) or (capabilities.get("avx512_bf16", False) and is_amd)
    return torch.bfloat16 if has_fast_bf16 else torch.float32
