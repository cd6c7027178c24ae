"""Token by token with a key/value cache, as IRIS and GPT-like world models decode.

A frame is a block of the sequence: the last token of the frame before, the action's prompt tokens, and all tokens
but the last, so that every position predicts what follows. A step costs one pass per token; the cache slides by whole
blocks. A GPT layer has no place for the convolution (it would see tokens that are not drawn yet) and for
cross-attention (the prompt stands in the sequence). There are two ways to spend their parameters at the width of the
STPT: more layers of the usual shape, or as many layers as the STPT with a wider MLP, which is the cheapest.

Letters: see ``drivesim/world_model/__init__.py``; `U` new positions of a pass, `V` positions that it may attend to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.decoders.frame_decoder import FrameDecoder, num_parameters
from drivesim.tokenizer.vqgan import VQGAN
from drivesim.world_model.attention import rotary_angles
from drivesim.world_model.conditioning import ActionEncoder
from drivesim.world_model.stpt import STPTConfig, STPTLayer
from drivesim.world_model.world_model import WorldModelConfig

USUAL_MLP_RATIO = 4


@dataclass(kw_only=True, slots=True)
class KeyValueCache:
    """Keys (rotated to their times) and values of one layer, written in place."""

    keys_BNVD: Tensor
    values_BNVD: Tensor
    length: int = 0

    def append(self, keys_BNUD: Tensor, values_BNUD: Tensor) -> tuple[Tensor, Tensor]:
        """Write new positions and return all that are filled."""
        end = self.length + keys_BNUD.shape[2]
        self.keys_BNVD[:, :, self.length : end] = keys_BNUD
        self.values_BNVD[:, :, self.length : end] = values_BNUD
        self.length = end
        return self.keys_BNVD[:, :, :end], self.values_BNVD[:, :, :end]

    def make_room(self, count: int) -> None:
        """Drop the oldest ``count`` positions if fewer than that are free."""
        if self.length + count > self.keys_BNVD.shape[2]:
            for buffer in (self.keys_BNVD, self.values_BNVD):
                buffer[:, :, :-count] = buffer[:, :, count:].clone()
            self.length -= count


@dataclass(kw_only=True, slots=True)
class Rotation:
    """Cosines and sines that turn queries and keys to the time of their frame, (..., D / 2)."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, times_U: Tensor, head_dim: int, dtype: torch.dtype) -> Rotation:
        """Return the rotation (U, 1, D / 2) to the times of positions; one time serves all."""
        angles = rotary_angles(times_U, head_dim).unsqueeze(-2)
        return cls(cos=angles.cos().to(dtype), sin=angles.sin().to(dtype))

    def of(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, U, N, D) rotated."""
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * self.cos - second * self.sin, first * self.sin + second * self.cos], dim=-1)


class CausalLayer(nn.Module):
    """Self-attention and MLP of a GPT."""

    def __init__(self, config: STPTConfig, mlp_dim: int) -> None:
        """Build the two parts."""
        super().__init__()
        dim, self.num_heads = config.dim, config.num_heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, mlp_dim), nn.GELU(approximate="tanh"), nn.Linear(mlp_dim, dim)
        )

    def forward(
        self, x_BUC: Tensor, rotation: Rotation, cache: KeyValueCache | None, attn_mask: Tensor | None
    ) -> Tensor:
        """Return (B, U, C); positions attend to the cache and to each other as far as the mask (U, V) says."""
        qkv = rearrange(self.qkv(self.norm(x_BUC)), "b u (n d) -> b u n d", n=3 * self.num_heads)
        turned = rotation.of(qkv[:, :, : 2 * self.num_heads]).transpose(1, 2)
        q, keys = turned[:, : self.num_heads], turned[:, self.num_heads :]
        values = qkv[:, :, 2 * self.num_heads :].transpose(1, 2)
        if cache is not None:
            keys, values = cache.append(keys, values)
        mixed = functional.scaled_dot_product_attention(q, keys, values, attn_mask=attn_mask)
        x_BUC = x_BUC + self.out(rearrange(mixed, "b n u d -> b u (n d)"))
        updated: Tensor = x_BUC + self.mlp(x_BUC)
        return updated


def mlp_dim_for(config: STPTConfig, budget: int) -> int:
    """Return the MLP width that gives one :class:`CausalLayer` ``budget`` parameters."""
    thinnest, per_unit = num_parameters(CausalLayer(config, 1)), 2 * config.dim + 1
    if budget < thinnest:
        raise ValueError(f"{budget} parameters are too few for a layer of width {config.dim}")
    return 1 + (budget - thinnest) // per_unit


def usual_depth(config: STPTConfig, budget: int) -> int:
    """Return the number of layers for which ``budget`` parameters give an MLP about 4 times as wide as the model."""
    return max(1, round(budget / num_parameters(CausalLayer(config, USUAL_MLP_RATIO * config.dim))))


class CausalTransformer(nn.Module):
    """A GPT over blocks of prompt and frame tokens; embedding and head are plain tables, the fastest form."""

    def __init__(self, config: WorldModelConfig, tokenizer: VQGAN, *, is_same_depth: bool) -> None:
        """Build layers with the parameters of the STPT of ``config``; ``is_same_depth``: and as many."""
        super().__init__()
        stpt, grid = config.stpt, tokenizer.config.grid
        self.num_tokens, self.num_prompt_tokens = tokenizer.num_tokens, config.num_action_tokens
        self.head_dim, self.window = stpt.dim // stpt.num_heads, stpt.window
        self.token = nn.Embedding(
            tokenizer.codebook_size + 1, stpt.dim
        )  # the last one: before the first frame
        self.place_UC = nn.Parameter(torch.randn(self.block, stpt.dim) * 0.02)
        self.action_encoder = ActionEncoder(stpt.dim, num_tokens=config.num_action_tokens)
        budget = stpt.num_layers * num_parameters(STPTLayer(stpt, grid))
        num_layers = stpt.num_layers if is_same_depth else usual_depth(stpt, budget)
        mlp_dim = mlp_dim_for(stpt, budget // num_layers)
        self.layers = nn.ModuleList(CausalLayer(stpt, mlp_dim) for _ in range(num_layers))
        self.head = nn.Sequential(nn.LayerNorm(stpt.dim), nn.Linear(stpt.dim, tokenizer.codebook_size))

    @property
    def block(self) -> int:
        """Return the positions of a frame in the sequence."""
        return self.num_tokens + self.num_prompt_tokens

    @property
    def dtype(self) -> torch.dtype:
        """Return the type that activations have."""
        return self.place_UC.dtype

    def empty_caches(self, batch: int) -> list[KeyValueCache]:
        """Return room for a window of blocks in every layer."""
        dim, room = self.place_UC.shape[1], self.window * self.block
        shape = (batch, dim // self.head_dim, room, self.head_dim)
        return [
            KeyValueCache(
                keys_BNVD=torch.zeros(shape, dtype=self.dtype),
                values_BNVD=torch.zeros(shape, dtype=self.dtype),
            )
            for _ in self.layers
        ]

    def embedded(self, last_B: Tensor, twist_BA: Tensor, token_ids_BU: Tensor) -> Tensor:
        """Return the inputs of a block: the token before it, the prompt, and the first U tokens of the frame."""
        prompt_BLC = self.action_encoder(twist_BA.unsqueeze(1)).squeeze(1)
        parts = [self.token(last_B).unsqueeze(1), prompt_BLC, self.token(token_ids_BU)]
        x_BUC = torch.cat(parts, dim=1)
        return x_BUC + self.place_UC[: x_BUC.shape[1]]

    def forward(
        self,
        x_BUC: Tensor,
        rotation: Rotation,
        caches: list[KeyValueCache] | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        """Return features (B, U, C)."""
        for i, layer in enumerate(self.layers):
            x_BUC = layer(x_BUC, rotation, None if caches is None else caches[i], attn_mask)
        return x_BUC

    def rotation(self, times_U: Tensor) -> Rotation:
        """Return the rotation to the times of positions."""
        return Rotation.at(times_U, self.head_dim, self.dtype)

    def uncached_logits(self, token_ids_BTS: Tensor, twist_BTA: Tensor) -> Tensor:
        """Return the logits (B, T, S, K) of all tokens in one pass over the sequence, as in training."""
        batch, frames, _ = token_ids_BTS.shape
        start_B = torch.full((batch,), self.token.num_embeddings - 1)
        lasts = [start_B, *token_ids_BTS[:, :-1, -1].unbind(1)]
        blocks = [self.embedded(lasts[t], twist_BTA[:, t], token_ids_BTS[:, t, :-1]) for t in range(frames)]
        times_U = torch.arange(frames).repeat_interleave(self.block)
        attn_mask = causal_mask(times_U, self.window)
        features = self(torch.cat(blocks, dim=1), self.rotation(times_U), None, attn_mask)
        features_BTUC = rearrange(features, "b (t u) c -> b t u c", t=frames)
        logits: Tensor = self.head(features_BTUC[:, :, self.num_prompt_tokens :])
        return logits


def causal_mask(times_U: Tensor, window: int) -> Tensor:
    """Return (U, U): earlier positions of the same and the ``window - 1`` blocks before.

    Two positions per block and a window of two blocks (x = may attend)::

        x
        x x
        x x x
        x x x x
            x x x
            x x x x
    """
    is_earlier = torch.ones(len(times_U), len(times_U), dtype=torch.bool).tril()
    return is_earlier & (times_U.unsqueeze(1) - times_U < window)


class AutoregressiveDecoder(FrameDecoder):
    """One pass per token, each attending to the cached positions of the window."""

    transformer: CausalTransformer

    def __init__(self, config: WorldModelConfig, tokenizer: VQGAN, *, is_same_depth: bool = False) -> None:
        """Build the transformer with random weights."""
        super().__init__(tokenizer)
        self.transformer = CausalTransformer(config, tokenizer, is_same_depth=is_same_depth)
        self.layers = self.transformer.layers
        self._caches: list[KeyValueCache] = []
        self._last_B = torch.zeros(0, dtype=torch.int64)
        self._time = 0

    @torch.inference_mode()
    def observe(self, token_ids_BTS: Tensor, twist_BTA: Tensor) -> None:
        """Fill the cache, a block per pass."""
        model = self.transformer
        batch, frames, _ = token_ids_BTS.shape
        self._caches, self._time = model.empty_caches(batch), 0
        self._last_B = torch.full((batch,), model.token.num_embeddings - 1)
        for t in range(frames):
            x_BUC = model.embedded(self._last_B, twist_BTA[:, t], token_ids_BTS[:, t, :-1])
            self._pass(x_BUC, self._new_block())
            self._last_B, self._time = token_ids_BTS[:, t, -1], self._time + 1

    def next_tokens(self, twist_BA: Tensor) -> Tensor:
        """Draw the most probable token of every place, one after another."""
        return self.next_logits(twist_BA).argmax(-1)

    @torch.inference_mode()
    def next_logits(self, twist_BA: Tensor) -> Tensor:
        """Return the logits (B, S, K) that the tokens of the next frame are the maxima of."""
        model, rotation = self.transformer, self._new_block()
        x_BUC = model.embedded(self._last_B, twist_BA, self._last_B.new_zeros(len(twist_BA), 0))
        logits = []
        for place in range(x_BUC.shape[1], model.block + 1):
            logits.append(model.head(self._pass(x_BUC, rotation)[:, -1]))
            self._last_B = logits[-1].argmax(-1)
            if place < model.block:
                x_BUC = (model.token(self._last_B) + model.place_UC[place]).unsqueeze(1)
        self._time += 1
        return torch.stack(logits, dim=1)

    def _new_block(self) -> Rotation:
        for cache in self._caches:
            cache.make_room(self.transformer.block)
        return self.transformer.rotation(torch.tensor([self._time]))

    def _pass(self, x_BUC: Tensor, rotation: Rotation) -> Tensor:
        """Run new positions; of several, each sees those before it and the cache."""
        num_new, num_cached = x_BUC.shape[1], self._caches[0].length
        attn_mask = None
        if num_new > 1:
            attn_mask = torch.ones(num_new, num_cached + num_new, dtype=torch.bool).tril(num_cached)
        features: Tensor = self.transformer(x_BUC, rotation, self._caches, attn_mask)
        return features
