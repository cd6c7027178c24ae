"""Prompts and guides: what the transformer is told besides tokens.

Actions are physical numbers, normalised here and nowhere else. Letters: see ``drivesim/world_model/__init__.py``; `U`
numbers of a look.
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from drivesim.scene.road_map import PACKED_DIM
from drivesim.tokenizer.vqgan import VQGAN
from drivesim.world_model.motion import Compensated, token_motion
from drivesim.world_model.places import road_dim, token_road
from drivesim.world_model.token_embedding import soft_digits

SPEED_SCALE_MPS = 10.0
YAW_RATE_SCALE_RADPS = 0.5
NUM_FREQUENCIES = 5
LOOK_BANDS = 3  # of rows: sky, what stands at the horizon, ground
LOOK_DIM = 6 * LOOK_BANDS + 1


class ActionEncoder(nn.Module):
    """The MLP of WorldDreamer section 3.2: a frame's (speed, yaw rate) becomes a few prompt tokens."""

    def __init__(self, dim: int, *, num_tokens: int) -> None:
        """Build the MLP; the paper has one token, more let image regions attend to different parts of the motion."""
        super().__init__()
        self.num_tokens = num_tokens
        first = nn.Linear(2 * (1 + 2 * NUM_FREQUENCIES), dim)
        self.mlp = nn.Sequential(first, nn.SiLU(), nn.Linear(dim, num_tokens * dim))

    def forward(self, twist_BTA: Tensor) -> Tensor:
        """Return the prompt (B, T, L, C) of twists (B, T, 2) in m/s and rad/s."""
        scale = twist_BTA.new_tensor([SPEED_SCALE_MPS, YAW_RATE_SCALE_RADPS])
        x = twist_BTA.float() / scale
        octaves = 2.0 ** torch.arange(NUM_FREQUENCIES, device=x.device)
        waves = rearrange(x.unsqueeze(-1) * octaves, "b t a f -> b t (a f)")
        features = torch.cat([x, waves.sin(), waves.cos()], dim=-1).to(next(self.parameters()).dtype)
        return rearrange(self.mlp(features), "b t (l c) -> b t l c", l=self.num_tokens)


def guide_dim(tokenizer: VQGAN) -> int:
    """Return G, the numbers per token of :func:`guide_features`."""
    levels, code_dim = tokenizer.quantizer.levels, tokenizer.quantizer.code_dim
    return (sum(levels) if levels else code_dim) + 4 + road_dim(tokenizer.config.stride) + LOOK_DIM


def agents_dim(tokenizer: VQGAN) -> int:
    """Return how many numbers per token, the last ones of the guide, tell of agents."""
    return road_dim(tokenizer.config.stride) // PACKED_DIM


def picture_look(frames_BCHW: Tensor) -> Tensor:
    """Return the look (B, U) of pictures in [-1, 1]: mean and spread of each colour in bands of rows, and a 1.

    What is imagined for long forgets which weather and which time of day it began with; this reminds it. Zeros say that
    the look is not known.
    """
    parts = [part.flatten(2) for part in frames_BCHW.float().tensor_split(LOOK_BANDS, dim=2)]
    numbers = [value for part in parts for value in (part.mean(-1), part.std(-1))]
    return torch.cat([*numbers, torch.ones_like(numbers[0][:, :1])], dim=-1)


def guide_features(
    tokenizer: VQGAN, expected_BSQ: Tensor, motion_BS3: Tensor, road_BVHW: Tensor, look_BU: Tensor
) -> Tensor:
    """Return the guide (B, S, G): soft digits or code, seen share and motion, presence, road, look, agents.

    Args:
        tokenizer: whose latents and tokens these are.
        expected_BSQ: bounded latents of the motion-compensated frame.
        motion_BS3: see ``token_motion``.
        road_BVHW: what is known of what is seen, see ``road_view``.
        look_BU: of the first picture, see :func:`picture_look`; zeros where it is not known.
    """
    levels = tokenizer.quantizer.levels
    content = soft_digits(expected_BSQ.float(), levels) if levels else expected_BSQ.float()
    road_BSM, agents_BSM = token_road(road_BVHW.float(), tokenizer.config.stride).split(
        [road_dim(tokenizer.config.stride) - agents_dim(tokenizer), agents_dim(tokenizer)], dim=-1
    )
    look_BSU = repeat(look_BU.float(), "b u -> b s u", s=content.shape[1])
    presence = torch.ones_like(motion_BS3[..., :1])
    return torch.cat([content, motion_BS3.float(), presence, road_BSM, look_BSU, agents_BSM], dim=-1)


def expected_latents(tokenizer: VQGAN, compensated: Compensated) -> tuple[Tensor, Tensor]:
    """Encode what motion compensation expects of the next frames.

    Returns:
        bounded latents (B, S, Q) of the warped frames, and the motion of each token (B, S, 3), see ``token_motion``.
    """
    expected_BSQ = tokenizer.quantizer.bounded(tokenizer.latents(compensated.frames_BCHW))
    return expected_BSQ, token_motion(compensated, tokenizer.config.stride)
