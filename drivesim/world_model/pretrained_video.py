"""Trained video models from checkpoints, and new ones around a tokenizer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from drivesim.checkpoint import (
    Checkpoint,
    config_of,
    load_state,
    module_of,
    read_checkpoint,
    resolve_weights,
    save_module,
    tensor_hash,
    usable_device,
)
from drivesim.errors import InputError
from drivesim.tokenizer.vqgan import VQGAN
from drivesim.world_model.pretrained import fast_dtype, load_tokenizer
from drivesim.world_model.prompts import PromptKind
from drivesim.world_model.stpt import STPTLayer
from drivesim.world_model.video_model import VideoModel, VideoModelConfig

if TYPE_CHECKING:
    from drivesim.tokenizer.public_vqgan import PublicVQGAN

KIND = VideoModel.kind
TOKENIZER_PREFIX = "tokenizer."


def load_video_model(
    name_or_path: str | Path = "general-tiny",
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    public_tokenizer: str | Path | None = None,
    t5: str | Path | None = None,
) -> VideoModel:
    """Load a general world model for generating.

    Args:
        name_or_path: shipped weights by name, a file or folder, or ``hf://USER/REPO`` on the Hub.
        device: where it runs.
        dtype: of the weights; by default bfloat16 where the device multiplies it fast, else float32.
        public_tokenizer: folder of the public VQGAN for weights that were trained on the tokens of one.
        t5: name or folder of the T5 for weights whose prompts are read by one; the one of the training if left out.

    Raises:
        InputError: unknown weights, damaged, of another kind, of shapes that do not fit their configuration, or trained
            on another tokenizer.
    """
    usable_device(device)
    checkpoint = read_checkpoint(resolve_weights(name_or_path), kind=KIND)
    model = _model_of(checkpoint, public_tokenizer, t5=t5)
    model.facts = checkpoint.facts
    return model.to(device=device, dtype=dtype or fast_dtype(device)).eval().requires_grad_(False)


def trainable_video_model(
    name_or_path: str | Path,
    config: VideoModelConfig,
    *,
    public_tokenizer: str | Path | None = None,
    is_turned: bool = False,
) -> VideoModel:
    """Return a video model in float32 to train on: its own weights, or a new one around a tokenizer.

    Args:
        name_or_path: shipped weights by name, or a file, of a video model or of a model with a tokenizer; "" for a new
            one around a public tokenizer.
        config: sizes of a new model, whose tokenizer keeps all but its frames' size; a video model's own must be the
            same, or ``config`` the default.
        public_tokenizer: folder of a public VQGAN.
        is_turned: begin a frame-causal model of ``config`` with the weights of one that sees all frames at once.

    Raises:
        InputError: as :func:`load_video_model`, or the weights are of other sizes.
    """
    if public_tokenizer is not None and not str(name_or_path):
        tokenizer = _public(public_tokenizer, config)
        return VideoModel(replace(config, public_tokenizer=_hash_of(tokenizer)), tokenizer=tokenizer)
    if not str(name_or_path):
        raise InputError(
            "the run does not say what it begins with: name a tokenizer or a video model in video_model.init, or a "
            "public VQGAN's folder in video_model.public_tokenizer"
        )
    checkpoint = read_checkpoint(resolve_weights(name_or_path))
    if checkpoint.kind == KIND:
        model = _model_of(checkpoint, public_tokenizer)
        kept = model.config
        asked = replace(
            config,
            vqgan=kept.vqgan,
            sampler=kept.sampler,
            guidance=kept.guidance,
            next_temperature_ratio=kept.next_temperature_ratio,
            next_rounds_ratio=kept.next_rounds_ratio,
            next_revisions_ratio=kept.next_revisions_ratio,
            expected_code_passes=kept.expected_code_passes if config.stpt.is_frame_causal else 0,
            fills_both_ways=kept.fills_both_ways and config.stpt.is_frame_causal,
        )
        if is_turned:
            return _frame_by_frame(checkpoint, model, asked)
        if config != VideoModelConfig() and asked != kept:
            raise InputError(
                f"{checkpoint.path} holds a video model of other sizes than were asked for; leave video_model.model "
                "out to go on with it, or begin with a tokenizer"
            )
        return model
    own = load_tokenizer(name_or_path)
    vqgan = replace(own.config, height_px=config.vqgan.height_px, width_px=config.vqgan.width_px)
    resized = VQGAN(vqgan)  # its convolutions take frames of any size
    resized.load_state_dict(own.state_dict())
    resized.eval().requires_grad_(False)
    return VideoModel(replace(config, vqgan=vqgan), tokenizer=resized)


def _frame_by_frame(checkpoint: Checkpoint, model: VideoModel, config: VideoModelConfig) -> VideoModel:
    """Return a frame-causal model that begins with the weights of one that sees all frames at once.

    Of three frames the one saw the middle, the other sees the last: kernels of the convolution move one frame back, and
    what looked into the future is gone.
    """
    causal = VideoModel(config, tokenizer=model.tokenizer)
    if model.is_frame_causal or not causal.is_frame_causal:
        raise InputError(
            "video_model.is_turned makes a frame-causal model of one that sees all frames at once: name such weights "
            "in video_model.init and set video_model.model.stpt.is_frame_causal=true"
        )
    load_state(causal, replace(checkpoint, tensors=model.state_dict()))
    for layer in causal.stpt.layers:
        assert isinstance(layer, STPTLayer)
        weight = layer.conv.weight
        past, own, future = weight.detach().chunk(3, dim=1)
        weight.data.copy_(torch.cat([torch.zeros_like(future), past, own], dim=1))
    return causal


def save_video_model(model: nn.Module, path: Path, *, facts: dict[str, Any] | None = None) -> None:
    """Write the video model that a training module holds, with matrices as int8; a public tokenizer is not written."""
    write_video_model(model.video_model, path, facts=facts)  # type: ignore[arg-type]


def write_video_model(model: VideoModel, path: Path, *, facts: dict[str, Any] | None = None) -> None:
    """Write a video model likewise."""
    save_module(
        model,
        path,
        kind=KIND,
        config=model.config,
        facts=facts,
        dtype=torch.int8,
        left_out=TOKENIZER_PREFIX if model.config.public_tokenizer else None,
    )


def _model_of(
    checkpoint: Checkpoint, public_tokenizer: str | Path | None, *, t5: str | Path | None = None
) -> VideoModel:
    config = config_of(checkpoint, VideoModelConfig)
    if t5 is not None:
        if config.prompt is not PromptKind.T5:
            raise InputError(f"{checkpoint.path} reads prompts without a T5; leave it out")
        config = replace(config, t5=str(t5))
    if not config.public_tokenizer:
        model = module_of(checkpoint, VideoModel, config)
        load_state(model, checkpoint)
        return model
    if public_tokenizer is None:
        raise InputError(
            f"{checkpoint.path} was trained on the tokens of a public VQGAN; name its folder (--tokenizer)"
        )
    tokenizer = _public(public_tokenizer, config)
    if _hash_of(tokenizer) != config.public_tokenizer:
        raise InputError(
            f"{public_tokenizer} is not the VQGAN that {checkpoint.path} was trained with; name that one"
        )
    model = module_of(checkpoint, partial(VideoModel, tokenizer=tokenizer), config)
    own = {f"{TOKENIZER_PREFIX}{name}": value for name, value in tokenizer.state_dict().items()}
    load_state(model, replace(checkpoint, tensors=checkpoint.tensors | own))
    return model


def _public(folder: str | Path, config: VideoModelConfig) -> PublicVQGAN:
    from drivesim.tokenizer.public_vqgan import PublicVQGAN  # diffusers is optional

    height_px, width_px = config.vqgan.height_px, config.vqgan.width_px
    return PublicVQGAN.load(
        Path(folder), height_px=height_px, width_px=width_px, pixel_range=config.public_pixel_range
    )


def _hash_of(tokenizer: PublicVQGAN) -> str:
    return tensor_hash({name: value.cpu() for name, value in tokenizer.state_dict().items()})
