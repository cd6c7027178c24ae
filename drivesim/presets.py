"""The models there are, by name: sizes counted without building a weight, and which weights come with the package."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from drivesim.checkpoint import WEIGHTS_FOLDER, config_of, read_checkpoint
from drivesim.config import load_config
from drivesim.config_json import ConfigT
from drivesim.world_model.prompts import PromptKind
from drivesim.world_model.video_model import VideoModel, VideoModelConfig
from drivesim.world_model.world_model import WorldModel, WorldModelConfig

PAPER_EXPERIMENT = "paper_stage2"


@dataclass(kw_only=True, slots=True)
class ModelSummary:
    """One preset."""

    name: str
    frames: str  # how many, of which size, at which rate
    tokens_per_frame: int
    codes: int
    attention: str
    prompts: str
    num_tokenizer_parameters: int
    num_parameters: int  # of all else
    weights_mb: float | None  # of the file in the package


def model_summaries() -> list[ModelSummary]:
    """Return the presets: drive-tiny, general-tiny and the paper's."""
    paper = load_config("train", [f"experiment={PAPER_EXPERIMENT}"]).video_model.model
    return [
        _of_drive(_shipped("drive-tiny", WorldModelConfig)),
        _of_video("general-tiny", _shipped("general-tiny", VideoModelConfig)),
        _of_video("paper", paper),
    ]


def _shipped(name: str, kind: type[ConfigT]) -> ConfigT:
    """Return the configuration of weights in the package; the default where there are none."""
    path = WEIGHTS_FOLDER / f"{name}.safetensors"
    return config_of(read_checkpoint(path), kind) if path.is_file() else kind()


def _of_drive(config: WorldModelConfig) -> ModelSummary:
    with torch.device("meta"):
        model = WorldModel(config)
    return ModelSummary(
        name="drive-tiny",
        frames=f"window of {config.stpt.window}, {_size(config)}",
        tokens_per_frame=model.tokenizer.num_tokens,
        codes=model.tokenizer.codebook_size,
        attention="frame-causal",
        prompts="speed and yaw rate",
        weights_mb=_weights_mb("drive-tiny"),
        **_counts(model, model.tokenizer),
    )


def _of_video(name: str, config: VideoModelConfig) -> ModelSummary:
    with torch.device("meta"):
        model = VideoModel(config)
    prompts = "text (bytes)" if config.prompt is PromptKind.BYTES else f"text ({config.t5})"
    return ModelSummary(
        name=name,
        frames=f"window of {config.stpt.window}, {_size(config)}"
        if model.is_frame_causal
        else f"{config.num_frames}, {_size(config)}",
        tokens_per_frame=model.tokenizer.num_tokens,
        codes=model.tokenizer.codebook_size,
        attention="frame-causal" if model.is_frame_causal else "both ways in time",
        prompts=prompts + (", actions" if config.num_action_tokens else ""),
        weights_mb=_weights_mb(name),
        **_counts(model, model.tokenizer),
    )


def _counts(model: nn.Module, tokenizer: nn.Module) -> dict[str, int]:
    own = sum(parameter.numel() for parameter in tokenizer.parameters())
    return {
        "num_tokenizer_parameters": own,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()) - own,
    }


def _size(config: WorldModelConfig | VideoModelConfig) -> str:
    return f"{config.vqgan.height_px}x{config.vqgan.width_px} at {config.rate_hz:g} Hz"


def _weights_mb(name: str) -> float | None:
    path = WEIGHTS_FOLDER / f"{name}.safetensors"
    return path.stat().st_size / 1e6 if path.is_file() else None
