"""Masked decoding of the whole clip without a cache, as the paper and MaskGIT-like video models decode.

The layers are those of the STPT, in full mode: convolution and attention see frames on both sides, so that nothing of
the past can be kept, and every round runs all frames of the window again. The head reads the hidden frame only.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.decoders.frame_decoder import FrameDecoder, randomize_zeros
from drivesim.tokenizer.vqgan import VQGAN
from drivesim.world_model.conditioning import ActionEncoder
from drivesim.world_model.sampler import SamplerConfig, fill_in
from drivesim.world_model.stpt import STPT
from drivesim.world_model.world_model import WorldModelConfig


class ClipTransformer(nn.Module):
    """An STPT in full mode and its action prompts."""

    def __init__(self, config: WorldModelConfig, tokenizer: VQGAN) -> None:
        """Build it with the sizes of ``config``; there is no motion guide, which spares it that cost."""
        super().__init__()
        stpt = replace(config.stpt, is_frame_causal=False, guide_dim=0)
        self.stpt = STPT(stpt, tokenizer.quantizer, tokenizer.config.grid)
        self.action_encoder = ActionEncoder(stpt.dim, num_tokens=config.num_action_tokens)
        randomize_zeros(self)

    @property
    def layers(self) -> nn.ModuleList:
        """Return the layers of the STPT."""
        return self.stpt.layers

    def newest_logits(self, token_ids_BTS: Tensor, is_masked_BTS: Tensor, prompt_BTLC: Tensor) -> Tensor:
        """Return the logits (B, S, K) of the last frame of the clip."""
        x_BTSC = self.stpt.embedding(token_ids_BTS, is_masked_BTS, None)
        prompt_FLC = prompt_BTLC.flatten(0, 1)
        for layer in self.stpt.layers:
            x_BTSC = layer.full(x_BTSC, prompt_FLC, None)  # type: ignore[operator]
        logits: Tensor = self.stpt.head(x_BTSC[:, -1], None)
        return logits


class UncachedDecoder(FrameDecoder):
    """A few rounds, each over the whole window."""

    transformer: ClipTransformer

    def __init__(self, config: WorldModelConfig, tokenizer: VQGAN, *, num_rounds: int) -> None:
        """Build the transformer with random weights."""
        super().__init__(tokenizer)
        self.num_rounds, self.window = num_rounds, config.stpt.window
        self.transformer = ClipTransformer(config, tokenizer)
        self.layers = self.transformer.layers
        self._token_ids_BTS = torch.zeros(0, dtype=torch.int64)
        self._twist_BTA = torch.zeros(0)

    def observe(self, token_ids_BTS: Tensor, twist_BTA: Tensor) -> None:
        """Remember the frames and twists that fit into the window beside the next one."""
        past = slice(-(self.window - 1), None)
        self._token_ids_BTS, self._twist_BTA = token_ids_BTS[:, past], twist_BTA[:, past]

    @torch.inference_mode()
    def next_tokens(self, twist_BA: Tensor) -> Tensor:
        """Fill in the last frame of the window."""
        past_BTS = self._token_ids_BTS
        twist_BTA = torch.cat([self._twist_BTA, twist_BA.unsqueeze(1)], dim=1)
        prompt_BTLC = self.transformer.action_encoder(twist_BTA)
        is_visible_BTS = torch.zeros_like(past_BTS, dtype=torch.bool)

        def logits_fn(token_ids_BS: Tensor, is_masked_BS: Tensor) -> Tensor:
            clip_BTS = torch.cat([past_BTS, token_ids_BS.unsqueeze(1)], dim=1)
            is_masked_BTS = torch.cat([is_visible_BTS, is_masked_BS.unsqueeze(1)], dim=1)
            return self.transformer.newest_logits(clip_BTS, is_masked_BTS, prompt_BTLC)

        newest_BS = past_BTS[:, -1]
        hidden_BS = torch.ones_like(newest_BS, dtype=torch.bool)
        settings = SamplerConfig(num_decode_steps=self.num_rounds)
        token_ids_BS = fill_in(logits_fn, newest_BS, hidden_BS, settings).token_ids_BS
        self.observe(torch.cat([past_BTS, token_ids_BS.unsqueeze(1)], dim=1), twist_BTA)
        return token_ids_BS
