"""Diffusion in the tokenizer's latent space: 30 evaluations of the network turn noise into a frame.

The denoiser has the layers of the frame-causal STPT; it reads and writes latents instead of tokens and is told the
noise level by one more prompt token. Its past is cached as ours is, so that an evaluation costs one frame and not
the window. The path is the straight one of flow matching, the solver Euler's.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.decoders.frame_decoder import FrameDecoder, randomize_zeros
from drivesim.tokenizer.vqgan import VQGAN
from drivesim.world_model.conditioning import ActionEncoder
from drivesim.world_model.stpt import STPT, FrameMemory, STPTLayer, next_moment
from drivesim.world_model.world_model import WorldModelConfig

NUM_EVALUATIONS = 30
NUM_LEVEL_WAVES = 16


class Denoiser(nn.Module):
    """The velocity of a frame's latents at a noise level, given the frames before it."""

    def __init__(self, config: WorldModelConfig, tokenizer: VQGAN) -> None:
        """Build it with the layers that the STPT of ``config`` has."""
        super().__init__()
        stpt = replace(config.stpt, is_frame_causal=True, guide_dim=0)
        num_latents = tokenizer.quantizer.code_dim
        source = STPT(stpt, tokenizer.quantizer, tokenizer.config.grid)
        self.empty_memory = source.empty_memory
        self.layers = source.layers
        self.read = nn.Linear(num_latents, stpt.dim)
        self.place_SC = nn.Parameter(torch.randn(tokenizer.num_tokens, stpt.dim) * 0.02)
        self.level = nn.Sequential(
            nn.Linear(2 * NUM_LEVEL_WAVES, stpt.dim), nn.SiLU(), nn.Linear(stpt.dim, stpt.dim)
        )
        self.action_encoder = ActionEncoder(stpt.dim, num_tokens=config.num_action_tokens)
        self.write = nn.Sequential(nn.LayerNorm(stpt.dim), nn.Linear(stpt.dim, num_latents))
        randomize_zeros(self)

    def forward(
        self,
        latents_BSQ: Tensor,
        level: float,
        prompt_BLC: Tensor,
        memory: list[FrameMemory],
    ) -> tuple[Tensor, list[FrameMemory]]:
        """Return the velocity (B, S, Q), and the memory with this frame appended."""
        x_BSC = self.read(latents_BSQ.to(self.place_SC.dtype)) + self.place_SC
        prompt_BLC = torch.cat([prompt_BLC, self._level_token(level).expand(len(x_BSC), 1, -1)], dim=1)
        appended = []
        moment = next_moment(self.layers, memory, 1)
        for layer, past in zip(self.layers, memory, strict=True):
            assert isinstance(layer, STPTLayer)
            x_BSC, new = layer.frame(x_BSC, past, prompt_BLC, None, moment)
            appended.append(new)
        return self.write(x_BSC).float(), appended

    def _level_token(self, level: float) -> Tensor:
        """Return one prompt token (C,) that tells the noise level."""
        waves = level * torch.pi * torch.arange(1, NUM_LEVEL_WAVES + 1)
        token: Tensor = self.level(torch.cat([waves.sin(), waves.cos()]).to(self.place_SC.dtype))
        return token


class DiffusionDecoder(FrameDecoder):
    """From noise to the latents of a frame in a fixed number of evaluations."""

    transformer: Denoiser

    def __init__(
        self, config: WorldModelConfig, tokenizer: VQGAN, *, num_evaluations: int = NUM_EVALUATIONS
    ) -> None:
        """Build the denoiser with random weights."""
        super().__init__(tokenizer)
        self.num_evaluations = num_evaluations
        self.transformer = Denoiser(config, tokenizer)
        self.layers = self.transformer.layers
        self._memory: list[FrameMemory] = []
        self._generator = torch.Generator()

    @torch.inference_mode()
    def observe(self, token_ids_BTS: Tensor, twist_BTA: Tensor) -> None:
        """Write the frames into the memory."""
        self._generator.manual_seed(0)
        prompt_BTLC = self.transformer.action_encoder(twist_BTA)
        self._memory = self.transformer.empty_memory(
            len(token_ids_BTS), token_ids_BTS.device, self.precision.dtype
        )
        for t in range(token_ids_BTS.shape[1]):
            self._remember(token_ids_BTS[:, t], prompt_BTLC[:, t])

    @torch.inference_mode()
    def next_tokens(self, twist_BA: Tensor) -> Tensor:
        """Integrate from noise to a frame, take the nearest codes and remember them."""
        model, quantizer = self.transformer, self.tokenizer.quantizer
        prompt_BLC = model.action_encoder(twist_BA.unsqueeze(1)).squeeze(1)
        shape = (len(twist_BA), self.tokenizer.num_tokens, quantizer.code_dim)
        latents_BSQ = torch.randn(shape, generator=self._generator)
        for i in range(self.num_evaluations):
            level = 1 - i / self.num_evaluations
            velocity_BSQ, _ = model(latents_BSQ, level, prompt_BLC, self._memory)
            latents_BSQ = latents_BSQ - velocity_BSQ / self.num_evaluations
        token_ids_BS = quantizer.nearest(latents_BSQ.clamp(-1, 1) if quantizer.levels else latents_BSQ)
        self._remember(token_ids_BS, prompt_BLC)
        return token_ids_BS

    def _remember(self, token_ids_BS: Tensor, prompt_BLC: Tensor) -> None:
        """Write a finished frame into the memory: a pass without noise, not counted among the evaluations."""
        model, codes_BSQ = self.transformer, self.tokenizer.quantizer.codes(token_ids_BS)
        _, self._memory = model(codes_BSQ, 0.0, prompt_BLC, self._memory)
