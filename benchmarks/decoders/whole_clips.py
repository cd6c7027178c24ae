"""What other ways of decoding would cost a video model's layers: a whole clip by diffusion, or token by token.

Both have random weights where the video model has none of the kind; only their time means anything. With guidance
every pass runs twice the clips, as ours does.

Letters: see ``drivesim/world_model/__init__.py``; `Q` numbers of a latent, `U` new positions of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median

import torch
from einops import rearrange
from torch import Tensor, nn

from benchmarks.decoders.autoregressive import CausalLayer, KeyValueCache, Rotation, mlp_dim_for, usual_depth
from benchmarks.decoders.diffusion import NUM_EVALUATIONS, NUM_LEVEL_WAVES
from benchmarks.decoders.frame_decoder import num_parameters, randomize_zeros
from benchmarks.timing import seconds_of
from drivesim.tokenizer.vqgan import to_uint8
from drivesim.world_model.clip_completion import guided
from drivesim.world_model.stpt import STPTLayer
from drivesim.world_model.video_model import VideoModel


class ClipDiffusion(nn.Module):
    """The video model's own layers as a denoiser of the latents of a clip, all frames at once whatever they learned."""

    def __init__(self, model: VideoModel) -> None:
        """Share the layers, the prompts and the tokenizer of a model."""
        super().__init__()
        self.model = model
        dim, num_latents = model.config.stpt.dim, model.tokenizer.quantizer.code_dim
        self.read = nn.Linear(num_latents, dim)
        self.level = nn.Sequential(nn.Linear(2 * NUM_LEVEL_WAVES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.write = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, num_latents))
        self.place_SC = model.stpt.embedding.place_SC
        self.to(self.place_SC.dtype).eval()

    def velocity(self, latents_BTSQ: Tensor, level: float, prompt_BTKC: Tensor) -> Tensor:
        """Return the velocity (B, T, S, Q) of latents at a noise level."""
        x_BTSC = self.read(latents_BTSQ.to(self.place_SC.dtype)) + self.place_SC
        token = self._level_token(level).expand(*prompt_BTKC.shape[:2], 1, -1)
        prompt_FKC = torch.cat([prompt_BTKC, token], dim=2).flatten(0, 1)
        for layer in self.model.stpt.layers:
            assert isinstance(layer, STPTLayer)
            x_BTSC = layer.full(x_BTSC, prompt_FKC, None)
        velocity_BTSQ: Tensor = self.write(x_BTSC).float()
        return velocity_BTSQ

    @torch.inference_mode()
    def clip(self, prompt: str, *, scale: float, num_steps: int = NUM_EVALUATIONS) -> Tensor:
        """Return a clip (T, H, W, 3) after the first ``num_steps`` of 30 steps from noise; ``scale`` is guidance."""
        model, quantizer = self.model, self.model.tokenizer.quantizer
        num_frames = model.config.num_frames
        prepared = model.prompt_encoder.prepared([prompt, ""] if scale > 0 else [prompt])
        prompt_BTKC, _ = model.frame_prompts(prepared, num_frames)
        latents = torch.randn(1, num_frames, model.tokenizer.num_tokens, quantizer.code_dim)
        for step in range(num_steps):
            level = 1 - step / NUM_EVALUATIONS
            velocity = self.velocity(latents.expand(len(prompt_BTKC), -1, -1, -1), level, prompt_BTKC)
            if scale > 0:
                velocity = guided(velocity[:1], velocity[1:], scale)
            latents = latents - velocity / NUM_EVALUATIONS
        latents_BSQ = rearrange(latents, "1 t s q -> t s q")
        token_ids_BS = quantizer.nearest(latents_BSQ.clamp(-1, 1) if quantizer.levels else latents_BSQ)
        return to_uint8(model.tokenizer.decode(token_ids_BS))

    def _level_token(self, level: float) -> Tensor:
        waves = level * torch.pi * torch.arange(1, NUM_LEVEL_WAVES + 1)
        token: Tensor = self.level(torch.cat([waves.sin(), waves.cos()]).to(self.place_SC.dtype))
        return token


class TokenByToken(nn.Module):
    """A GPT with the parameters of a video model's layers: the prompt first, then every token of the clip in turn."""

    def __init__(self, model: VideoModel, *, num_prompt_tokens: int) -> None:
        """Build layers of the usual shape, as many as the budget gives."""
        super().__init__()
        stpt = model.config.stpt
        self.num_prompt_tokens = num_prompt_tokens
        self.num_tokens = model.config.num_frames * model.tokenizer.num_tokens
        self.head_dim = stpt.dim // stpt.num_heads
        budget = num_parameters(model.stpt.layers)
        depth = usual_depth(stpt, budget)
        self.token = nn.Embedding(model.tokenizer.codebook_size, stpt.dim)
        self.place_UC = nn.Parameter(torch.randn(num_prompt_tokens + self.num_tokens, stpt.dim) * 0.02)
        self.layers = nn.ModuleList(
            CausalLayer(stpt, mlp_dim_for(stpt, budget // depth)) for _ in range(depth)
        )
        self.head = nn.Sequential(nn.LayerNorm(stpt.dim), nn.Linear(stpt.dim, model.tokenizer.codebook_size))
        randomize_zeros(self)

    def empty_caches(self, batch: int) -> list[KeyValueCache]:
        """Return room for the prompt and the clip in every layer."""
        dim, length, dtype = self.place_UC.shape[1], len(self.place_UC), self.place_UC.dtype
        shape = (batch, dim // self.head_dim, length, self.head_dim)
        return [
            KeyValueCache(
                keys_BNVD=torch.zeros(shape, dtype=dtype), values_BNVD=torch.zeros(shape, dtype=dtype)
            )
            for _ in self.layers
        ]

    @torch.inference_mode()
    def next_token(self, last_B: Tensor, caches: Sequence[KeyValueCache], *, scale: float) -> Tensor:
        """Return the token (B,) after ``last_B``; with guidance the second half of the batch has no prompt."""
        place = caches[0].length
        x_BUC = (self.token(last_B) + self.place_UC[place]).unsqueeze(1)
        rotation = Rotation.at(torch.tensor([place]), self.head_dim, x_BUC.dtype)
        for layer, cache in zip(self.layers, caches, strict=True):
            x_BUC = layer(x_BUC, rotation, cache, None)
        logits_BK: Tensor = self.head(x_BUC[:, -1]).float()
        if scale > 0:
            conditional_BK, unconditional_BK = logits_BK.chunk(2)
            logits_BK = guided(conditional_BK, unconditional_BK, scale).repeat(2, 1)
        return logits_BK.argmax(-1)

    def seconds_per_token(self, num_cached: int, *, scale: float, count: int) -> float:
        """Return the median seconds of ``count`` tokens that see ``num_cached`` positions, or a few more."""
        caches = self.empty_caches(2 if scale > 0 else 1)
        for cache in caches:
            cache.length = min(num_cached, len(self.place_UC) - count - 1)
        token_B = torch.zeros(len(caches[0].keys_BNVD), dtype=torch.int64)
        next_token = partial(self.next_token, caches=caches, scale=scale)
        next_token(token_B)  # the first touches memory that no later one does
        return median(seconds_of(lambda: next_token(token_B)) for _ in range(count))
