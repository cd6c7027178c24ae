"""World models of a few thousand parameters, for tests."""

import torch
from torch import nn

from drivesim.tokenizer.vqgan import VQGANConfig
from drivesim.world_model.prompts import BytesEncoderConfig
from drivesim.world_model.sampler import SamplerConfig
from drivesim.world_model.stpt import STPTConfig
from drivesim.world_model.video_model import VideoModel, VideoModelConfig
from drivesim.world_model.world_model import WorldModel, WorldModelConfig

GRID = (8, 14)


def small_config(**stpt) -> WorldModelConfig:
    """Return a model for full-size frames that is narrow everywhere."""
    return WorldModelConfig(
        vqgan=VQGANConfig(channels=[8, 8, 16], num_res_blocks=[1, 1, 1], fsq_levels=[4, 4, 3]),
        stpt=STPTConfig(**{"dim": 32, "num_layers": 2, "num_heads": 2, "conv_dim": 8, "window": 4} | stpt),
        num_action_tokens=2,
    )


def small_world_model(**stpt) -> WorldModel:
    """Return such a model, with the weights that start at zero made random so that every part acts."""
    torch.manual_seed(0)
    return _acting(WorldModel(small_config(**stpt)).eval())


CAUSAL = {"is_frame_causal": True, "has_frame_places": True, "window": 3}
"""``stpt`` of a small video model that goes frame by frame."""


def small_video_config(**changes) -> VideoModelConfig:
    """Return a model of short clips of small frames that is narrow everywhere."""
    stpt = {"dim": 32, "num_layers": 2, "num_heads": 2, "conv_dim": 8, **changes.pop("stpt", {})}
    values = {
        "vqgan": VQGANConfig(
            height_px=64, width_px=96, channels=[8, 8, 16], num_res_blocks=[1, 1, 1], fsq_levels=[4, 4, 3]
        ),
        "stpt": STPTConfig(**{"is_frame_causal": False, "has_frame_attention": True} | stpt),
        "sampler": SamplerConfig(num_decode_steps=3, temperature=1.0, choice_temperature=2.0),
        "bytes_encoder": BytesEncoderConfig(dim=32),
        "num_frames": 4,
    }
    return VideoModelConfig(**values | changes)


def small_video_model(**changes) -> VideoModel:
    """Return such a model, with the weights that start at zero made random so that every part acts."""
    torch.manual_seed(0)
    return _acting(VideoModel(small_video_config(**changes)).eval())


def _acting(model: nn.Module):
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return model
