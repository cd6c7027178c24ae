"""VideoModel: clips of tokens under text and action prompts, frame by frame or all frames at once (the paper's mode).

Every task is this one model; tasks differ in what is masked and which prompts are given. Frame by frame, each frame is
filled in after the ones before it are finished, so that a thing keeps its shape, and a clip may be of any length.
Letters: see ``drivesim/world_model/__init__.py``; `K` prompt tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from drivesim.errors import InputError
from drivesim.hub_model import HubModel
from drivesim.tokenizer.interface import Tokenizer
from drivesim.tokenizer.public_vqgan import PixelRange
from drivesim.tokenizer.vqgan import VQGAN, VQGANConfig
from drivesim.world_model.clip_completion import Completion, GuidanceConfig
from drivesim.world_model.conditioning import ActionEncoder
from drivesim.world_model.prompts import (
    BytesEncoder,
    BytesEncoderConfig,
    PreparedPrompts,
    PromptEmbedding,
    PromptEncoder,
    PromptKind,
    played_backwards,
)
from drivesim.world_model.sampler import Sampled, SamplerConfig
from drivesim.world_model.stpt import STPT, STPTConfig


@dataclass(kw_only=True, slots=True)
class VideoModelConfig:
    """A general world model: tokenizer, prompt encoder and transformer."""

    vqgan: VQGANConfig = field(
        default_factory=lambda: VQGANConfig(channels=[32, 64, 128], fsq_levels=[8, 5, 5, 5])
    )
    stpt: STPTConfig = field(
        default_factory=lambda: STPTConfig(
            is_frame_causal=True,
            has_frame_attention=True,
            has_frame_places=True,
            conv_dim=32,
            num_layers=5,
            window=4,
        )
    )
    sampler: SamplerConfig = field(
        default_factory=lambda: SamplerConfig(num_decode_steps=10, temperature=1.0, choice_temperature=2.0)
    )
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    # Frame by frame, what all but the first frame take of the sampler's settings: most of them is known.
    next_temperature_ratio: float = 1.0
    next_rounds_ratio: float = 1.0
    next_revisions_ratio: float = 0.0
    # Frame by frame, pictures show the mean of the codes that fit where a token was drawn, found in so many passes.
    expected_code_passes: int = 0
    # Frame by frame, holes may be filled in forwards and backwards in time; set by training on clips played backwards.
    fills_both_ways: bool = False
    prompt: PromptKind = PromptKind.BYTES
    bytes_encoder: BytesEncoderConfig = field(default_factory=BytesEncoderConfig)
    t5: str = ""  # name or folder of the T5 with prompt=t5; embeddings of t5_dim numbers
    t5_dim: int = 512
    t5_max_tokens: int = 64
    t5_cache: str = "out/t5-prompts"  # folder in which its embeddings are kept; "" keeps none
    num_action_tokens: int = 0  # prompt tokens per frame made of speed and yaw rate; 0 reads no actions
    num_frames: int = 16  # of a clip if no number is asked for; not frame by frame, the most at once
    rate_hz: float = 8.0
    public_tokenizer: str = ""  # hash of a public VQGAN in place of ``vqgan``, whose size is its frames'
    public_pixel_range: PixelRange = PixelRange.ZERO_TO_ONE  # of that VQGAN

    def __post_init__(self) -> None:
        """Refuse models that cannot be built."""
        if self.num_frames < 1 or self.num_action_tokens < 0 or not self.rate_hz > 0:
            raise ValueError("a video model needs num_frames >= 1, num_action_tokens >= 0 and rate_hz > 0")
        if not (0 <= self.next_temperature_ratio < 1000 and 0 < self.next_rounds_ratio <= 1):
            raise ValueError(
                "next_temperature_ratio must be a number from 0 on and next_rounds_ratio lie in (0, 1], got "
                f"{self.next_temperature_ratio} and {self.next_rounds_ratio}"
            )
        if not 0 <= self.next_revisions_ratio <= 1:
            raise ValueError(f"next_revisions_ratio must lie in [0, 1], got {self.next_revisions_ratio}")
        if self.expected_code_passes < 0 or (self.expected_code_passes and not self.stpt.is_frame_causal):
            raise ValueError(
                "expected_code_passes must be a number from 0 on, and 0 with stpt.is_frame_causal=false, got "
                f"{self.expected_code_passes}"
            )
        if self.fills_both_ways and not self.stpt.is_frame_causal:
            raise ValueError(
                "fills_both_ways is for frame-causal models: the others see all frames at once; set it or "
                "stpt.is_frame_causal=false, not both"
            )

    def next_sampler(self, first: SamplerConfig) -> SamplerConfig:
        """Return the settings of a frame that follows another, from those of a first frame."""
        return replace(
            first,
            temperature=self.next_temperature_ratio * first.temperature,
            num_decode_steps=max(1, round(self.next_rounds_ratio * first.num_decode_steps)),
            num_revisions=round(self.next_revisions_ratio * first.num_revisions),
        )


class VideoModel(HubModel):
    """Masked-token model of clips; an image is a clip of one frame.

    With ``config.stpt.is_frame_causal`` a clip may be of any length, else it has ``config.num_frames`` at most.
    """

    kind = "video-model"
    what = "short clips and images of a described scene"
    code_bias_K: Tensor

    def __init__(self, config: VideoModelConfig, *, tokenizer: Tokenizer | None = None) -> None:
        """Build the model; give a trained ``tokenizer`` to keep it."""
        super().__init__()
        self.config = config
        self.facts = {}
        self.tokenizer: Tokenizer = VQGAN(config.vqgan) if tokenizer is None else tokenizer
        dim = config.stpt.dim
        self.stpt = STPT(config.stpt, self.tokenizer.quantizer, self.tokenizer.grid)
        # What training adds to the logits of codes by weighing them in the loss; drawing takes it off again.
        self.register_buffer("code_bias_K", torch.zeros(self.tokenizer.codebook_size))
        self.prompt_encoder: PromptEncoder = _prompt_encoder(config)
        self.action_encoder: ActionEncoder | None = None
        if config.num_action_tokens:
            self.action_encoder = ActionEncoder(dim, num_tokens=config.num_action_tokens)

    @classmethod
    def _read(cls, path: Path, *, device: str, dtype: torch.dtype, **settings: Any) -> VideoModel:
        from drivesim.world_model.pretrained_video import load_video_model  # which needs this class

        return load_video_model(path, device=device, dtype=dtype, **settings)

    def _write(self, path: Path) -> None:
        from drivesim.world_model.pretrained_video import write_video_model

        write_video_model(self, path, facts=self.facts)

    @property
    def is_frame_causal(self) -> bool:
        """Return whether frames are finished one after another, so that a clip may be of any length."""
        return self.config.stpt.is_frame_causal

    @property
    def device(self) -> torch.device:
        """Return where the transformer is."""
        return self.stpt.embedding.place_SC.device

    def frame_prompts(
        self, prepared: PreparedPrompts, num_frames: int, twist_BTA: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return each frame's prompt: tokens (B, T, K, C) and which of them are given (B, T, K).

        Args:
            prepared: texts, as ``prompt_encoder.prepared`` returns them.
            num_frames: T.
            twist_BTA: speed in m/s and yaw rate in rad/s that lead into each frame; NaN where there is no action.

        Raises:
            InputError: actions for a model that reads none.
        """
        text = self.prompt_encoder(prepared).repeated(num_frames)
        tokens_FKC, is_given_FK = text.tokens_BKC, text.is_given_BK
        if self.action_encoder is not None:
            action = self._action_prompt(len(tokens_FKC), twist_BTA)
            tokens_FKC = torch.cat([tokens_FKC, action.tokens_BKC.to(tokens_FKC.dtype)], dim=1)
            is_given_FK = torch.cat([is_given_FK, action.is_given_BK], dim=1)
        elif twist_BTA is not None and not bool(twist_BTA.isnan().all()):
            raise InputError("these weights read no actions; leave them out or take weights that do")
        return (
            rearrange(tokens_FKC, "(b t) k c -> b t k c", t=num_frames),
            rearrange(is_given_FK, "(b t) k -> b t k", t=num_frames),
        )

    def _action_prompt(self, count: int, twist_BTA: Tensor | None) -> PromptEmbedding:
        assert self.action_encoder is not None
        if twist_BTA is None:
            twist_BTA = torch.full((count, 1, 2), torch.nan, device=self.device)
        twist_FA = twist_BTA.flatten(0, 1)
        tokens_FLC = self.action_encoder(twist_FA.nan_to_num().unsqueeze(1)).squeeze(1)
        is_given_F = ~twist_FA.isnan().any(-1)
        return PromptEmbedding(
            tokens_BKC=tokens_FLC, is_given_BK=is_given_F.unsqueeze(-1).expand(-1, tokens_FLC.shape[1])
        )

    def forward(
        self,
        token_ids_BTS: Tensor,
        is_masked_BTS: Tensor,
        prepared: PreparedPrompts,
        *,
        twist_BTA: Tensor | None = None,
        past_ids_BTS: Tensor | None = None,
    ) -> Tensor:
        """Return logits (B, T, S, K) of every token.

        Args:
            token_ids_BTS: ids. Those of masked tokens are not read, but by the later frames of a frame-causal model,
                for which they are the past unless ``past_ids_BTS`` is.
            is_masked_BTS: which are hidden.
            prepared: texts, as ``prompt_encoder.prepared`` returns them.
            twist_BTA: actions, see :meth:`frame_prompts`.
            past_ids_BTS: of a frame-causal model, what each frame is to the frames after it.
        """
        tokens_BTKC, is_given_BTK = self.frame_prompts(prepared, token_ids_BTS.shape[1], twist_BTA)
        logits: Tensor
        if self.is_frame_causal:
            past_ids_BTS = token_ids_BTS if past_ids_BTS is None else past_ids_BTS
            hidden_BTSC = self.stpt.hidden_stream(
                past_ids_BTS, token_ids_BTS, is_masked_BTS, tokens_BTKC, is_given_BTL=is_given_BTK
            )
            logits = self.stpt.head(hidden_BTSC, None)
        else:
            logits = self.stpt(token_ids_BTS, is_masked_BTS, tokens_BTKC, is_given_BTL=is_given_BTK)
        return logits

    @torch.no_grad()
    def complete(  # noqa: PLR0913 one parameter per part of a request
        self,
        token_ids_BTS: Tensor,
        is_masked_BTS: Tensor,
        prompts: Sequence[str],
        *,
        negative_prompt: str = "",
        twist_BTA: Tensor | None = None,
        sampler: SamplerConfig | None = None,
        guidance: GuidanceConfig | None = None,
        generator: torch.Generator | None = None,
        on_round: Callable[[int], None] | None = None,
        is_backward: bool = False,
    ) -> Sampled:
        """Fill in the hidden tokens of clips; given tokens come back as they are.

        Args:
            token_ids_BTS: given tokens; hidden entries are not read.
            is_masked_BTS: which are hidden: as many in every clip, and frame by frame as many in a frame of every clip.
            prompts: one text per clip; empty texts are legal.
            negative_prompt: what guidance leads away from.
            twist_BTA: actions, see :meth:`frame_prompts`.
            sampler: rounds, temperature and order; the weights' own if left out.
            guidance: scale and schedule; the weights' own if left out.
            generator: source of all randomness.
            on_round: called with the number of finished rounds; frame by frame, of each frame from the first hidden
                one on.
            is_backward: the clips are played backwards; the texts say what they show when played forwards, and lose
                their end if they are too long with the mark of that.

        Returns:
            tokens and confidences, (B, T * S) each.
        """
        sampler, guidance = sampler or self.config.sampler, guidance or self.config.guidance
        is_one_prompt = twist_BTA is None and all(text == negative_prompt for text in prompts)
        is_guided = guidance.scale > 0 and not is_one_prompt  # nothing leads away from the same prompt
        prompt_RTKC, is_given_RTK = self._prompts_of(
            prompts,
            negative_prompt if is_guided else None,
            token_ids_BTS.shape[1],
            twist_BTA,
            is_backward=is_backward,
        )
        completion = Completion(
            stpt=self.stpt,
            prompt_RTKC=prompt_RTKC,
            is_given_RTK=is_given_RTK,
            is_guided=is_guided,
            code_bias_K=self.code_bias_K,
            guidance=guidance,
            generator=generator,
            on_round=on_round,
        )
        if not self.is_frame_causal:
            return completion.at_once(token_ids_BTS, is_masked_BTS, sampler)
        return completion.frame_by_frame(
            token_ids_BTS,
            is_masked_BTS,
            sampler,
            next_sampler=self.config.next_sampler(sampler),
        )

    def _prompts_of(
        self,
        prompts: Sequence[str],
        negative_prompt: str | None,
        num_frames: int,
        twist_BTA: Tensor | None,
        *,
        is_backward: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return :meth:`frame_prompts` of texts and actions, and after them of the negative prompt if there is one.

        The mark of a clip played backwards may make a text too long, which then loses its end, as in training.
        """
        texts = [played_backwards(text) for text in prompts] if is_backward else list(prompts)
        if negative_prompt is not None:
            # Guidance must not lead away from the mark: without one on a prompt, there is none on its negative either.
            marked = played_backwards(negative_prompt)
            texts += [marked if is_backward and text.strip() else negative_prompt for text in prompts]
            if twist_BTA is not None:
                twist_BTA = torch.cat([twist_BTA, torch.full_like(twist_BTA, torch.nan)])
        prepared = self.prompt_encoder.prepared(texts, is_cut=is_backward)
        on_device = {name: value.to(self.device) for name, value in prepared.items()}
        return self.frame_prompts(on_device, num_frames, twist_BTA)

    @torch.no_grad()
    def expected_codes(
        self,
        token_ids_BTS: Tensor,
        is_drawn_BTS: Tensor,
        prompts: Sequence[str],
        *,
        twist_BTA: Tensor | None = None,
        is_backward: bool = False,
    ) -> Tensor:
        """Return codebook vectors (B, T, S, Q) to decode: of drawn tokens the mean of all that fit in their place.

        Codes that look alike are close to each other, so that a mean is a picture too, without the speckles of single
        draws. ``config.expected_code_passes`` passes hide as many lattices of the drawn tokens in turn; what fits is
        what the model says, unguided, of a hidden token after the frames before and with the others of its frame.

        Args:
            token_ids_BTS: of finished clips.
            is_drawn_BTS: which were drawn; the others keep the vectors of their codes.
            prompts: one text per clip.
            twist_BTA: actions, see :meth:`frame_prompts`.
            is_backward: see :meth:`complete`.
        """
        prompt_BTKC, is_given_BTK = self._prompts_of(
            prompts, None, token_ids_BTS.shape[1], twist_BTA, is_backward=is_backward
        )
        quantizer, passes = self.tokenizer.quantizer, self.config.expected_code_passes
        table_KQ = quantizer.codes(torch.arange(quantizer.codebook_size, device=self.device)).float()
        codes_BTSQ = quantizer.codes(token_ids_BTS).float()
        rows, columns = self.tokenizer.grid
        place_S = torch.arange(rows * columns, device=self.device)
        lattice_S = (place_S // columns + place_S % columns) % max(passes, 1)
        for index in range(passes):
            is_hidden_BTS = is_drawn_BTS & (lattice_S == index)
            hidden_BTSC = self.stpt.hidden_stream(
                token_ids_BTS, token_ids_BTS, is_hidden_BTS, prompt_BTKC, is_given_BTL=is_given_BTK
            )
            logits_BTSK = self.stpt.head(hidden_BTSC, None).float() - self.code_bias_K
            mean_BTSQ = logits_BTSK.softmax(-1) @ table_KQ
            codes_BTSQ = torch.where(is_hidden_BTS.unsqueeze(-1), mean_BTSQ, codes_BTSQ)
        return codes_BTSQ

    @torch.no_grad()
    def decode_codes(self, codes_BTSQ: Tensor) -> Tensor:
        """Return the frames (B, T, 3, H, W) in [-1, 1] of codebook vectors."""
        flat = self.tokenizer.decode_codes(rearrange(codes_BTSQ, "b t s q -> (b t) s q")).clamp(-1, 1)
        return rearrange(flat, "(b t) c h w -> b t c h w", b=len(codes_BTSQ))

    @torch.no_grad()
    def encode(self, frames_BTCHW: Tensor) -> Tensor:
        """Return the tokens (B, T, S) of clips in [-1, 1]."""
        flat = self.tokenizer.encode(rearrange(frames_BTCHW, "b t c h w -> (b t) c h w"))
        return rearrange(flat, "(b t) s -> b t s", b=len(frames_BTCHW))

    @torch.no_grad()
    def decode(self, token_ids_BTS: Tensor) -> Tensor:
        """Return the frames (B, T, 3, H, W) in [-1, 1] of tokens."""
        flat = self.tokenizer.decode(rearrange(token_ids_BTS, "b t s -> (b t) s"))
        return rearrange(flat, "(b t) c h w -> b t c h w", b=len(token_ids_BTS))


def _prompt_encoder(config: VideoModelConfig) -> PromptEncoder:
    if config.prompt is PromptKind.BYTES:
        return BytesEncoder(config.bytes_encoder, config.stpt.dim)
    from drivesim.world_model.t5_prompts import T5Encoder  # transformers is optional

    return T5Encoder(
        config.t5,
        embedding_dim=config.t5_dim,
        max_tokens=config.t5_max_tokens,
        dim=config.stpt.dim,
        cache=config.t5_cache,
    )
