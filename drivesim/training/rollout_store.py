"""States of rollouts between training steps, as buffers, so that a checkpoint holds them and a resumed run goes on.

Letters: see ``drivesim/world_model/__init__.py``; `g` groups of rollouts, `Y` layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from drivesim.world_model.carried_noise import no_noise
from drivesim.world_model.conditioning import LOOK_DIM
from drivesim.world_model.motion import Rays
from drivesim.world_model.stpt import FrameMemory
from drivesim.world_model.world_model import WorldModel
from drivesim.world_model.world_state import WorldState

_PICTURE_DTYPE, _MEMORY_DTYPE = torch.float16, torch.bfloat16  # a little rounding is noise to train against


class RolloutStore(nn.Module):
    """One state for every group; they are in ``state_dict``."""

    def __init__(self, model: WorldModel, *, num_groups: int, batch_size: int) -> None:
        """Make room."""
        super().__init__()
        config = model.tokenizer.config
        picture = torch.zeros(
            num_groups, batch_size, 3, config.height_px, config.width_px, dtype=_PICTURE_DTYPE
        )
        tokens = (num_groups, batch_size, model.tokenizer.num_tokens)
        dim = model.stpt.config.dim
        memory = model.stpt.empty_memory(batch_size, torch.device("cpu"), _MEMORY_DTYPE)
        self.register_buffer("token_ids", torch.zeros(tokens, dtype=torch.int32))
        self.register_buffer("frames", picture)
        self.register_buffer("earlier", picture.clone())
        self.register_buffer("num_frames", torch.zeros(num_groups, dtype=torch.int64))
        self.register_buffer("twist", torch.zeros(num_groups, batch_size, 2))
        self.register_buffer(
            "prompt", torch.zeros(num_groups, batch_size, model.config.num_action_tokens, dim)
        )
        self.register_buffer("guide", torch.zeros(*tokens, model.stpt.config.guide_dim))
        self.register_buffer("look", torch.zeros(num_groups, batch_size, LOOK_DIM))
        noise = no_noise(batch_size, config.grid, torch.device("cpu"))
        self.register_buffer("no_noise", noise, persistent=False)
        for name in ("low_FWRS", "keys", "values"):
            one = torch.stack([getattr(layer, name) for layer in memory])
            self.register_buffer(name, one.expand(num_groups, *one.shape).clone())

    @torch.no_grad()
    def write(self, group: int, state: WorldState) -> None:
        """Keep a group's state."""
        kept: dict[str, Tensor] = {
            "token_ids": state.token_ids_BS,
            "frames": state.frames_BCHW,
            "earlier": state.earlier_BCHW,
            "num_frames": state.num_frames_B[0],
            "twist": state.twist_BA,
            "prompt": state.prompt_BLC,
            "guide": state.guide_BSG,
            "look": state.look_BU,
        } | {
            name: torch.stack([getattr(layer, name) for layer in state.memory])
            for name in ("low_FWRS", "keys", "values")
        }
        for name, value in kept.items():
            self.get_buffer(name)[group].copy_(value)

    def read(self, group: int, rays: Rays) -> WorldState:
        """Return a group's state."""

        def of(name: str) -> Tensor:
            return self.get_buffer(name)[group].clone()

        device_type = self.get_buffer("keys").device.type
        is_mixed = torch.is_autocast_enabled(device_type)
        dtype = torch.get_autocast_dtype(device_type) if is_mixed else torch.float32
        names = ("low_FWRS", "keys", "values")
        counts = of("num_frames").repeat(self.get_buffer("token_ids").shape[1])
        layers = zip(*(of(name).to(dtype).unbind(0) for name in names), strict=True)
        return WorldState(
            memory=[
                FrameMemory(low_FWRS=low, keys=keys, values=values, num_frames_F=counts - 1)
                for low, keys, values in layers
            ],
            token_ids_BS=of("token_ids").long(),
            frames_BCHW=of("frames").float(),
            earlier_BCHW=of("earlier").float(),
            twist_BA=of("twist"),
            prompt_BLC=of("prompt"),
            guide_BSG=of("guide"),
            noise_BHW=self.get_buffer("no_noise"),
            look_BU=of("look"),
            rays=rays,
            num_frames_B=counts,
            num_imagined_B=torch.zeros(len(counts), dtype=torch.int64),
        )
