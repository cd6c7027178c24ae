"""World models of a few thousand parameters, for tests."""

import torch
from torch import nn

from drivesim.tokenizer.vqgan import VQGANConfig
from drivesim.world_model.stpt import STPTConfig
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
    model = WorldModel(small_config(**stpt)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return model
