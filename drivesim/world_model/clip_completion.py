"""How a video model fills in a clip: all frames at once (the paper), or each frame after the one before it is finished.

Letters: see ``drivesim/world_model/__init__.py``; `R` rows of a pass: the clips of a batch and, with guidance, the same
clips under the negative prompt, which may be empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

import torch
from einops import rearrange
from torch import Tensor

from drivesim.world_model.sampler import Sampled, SamplerConfig, fill_in, rounds_for
from drivesim.world_model.stpt import STPT, FrameMemory

LogitsFn = Callable[[Tensor, Tensor], Tensor]
"""Token ids and is_masked (R, S) to logits (R, S, K)."""


class GuidanceSchedule(Enum):
    """How guidance goes over the rounds."""

    CONSTANT = "constant"
    LINEAR = (
        "linear"  # from 0 in the first decoding step to its scale in the last (Muse); revisions have that too
    )


@dataclass(kw_only=True, slots=True)
class GuidanceConfig:
    """Classifier-free guidance (WorldDreamer section 3.3): logits = (1 + scale) conditional - scale unconditional."""

    scale: float = 2.0  # the paper's beta; 0 is no guidance, and costs half
    schedule: GuidanceSchedule = GuidanceSchedule.LINEAR

    def __post_init__(self) -> None:
        """Refuse what is no scale."""
        if not 0 <= self.scale < 1000:
            raise ValueError(f"guidance.scale must be a number from 0 on, got {self.scale}")

    def at(self, round_index: int, num_rounds: int) -> float:
        """Return the scale in a round, the first being 0."""
        if self.schedule is GuidanceSchedule.CONSTANT or num_rounds == 1:
            return self.scale
        return self.scale * round_index / (num_rounds - 1)


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return g = (1 + b) c - b u (WorldDreamer section 3.3)."""
    return (1 + scale) * conditional - scale * unconditional


@dataclass(kw_only=True, slots=True)
class Completion:
    """One request to a transformer: under which prompts and how the hidden tokens of clips are filled in."""

    stpt: STPT
    prompt_RTKC: Tensor
    is_given_RTK: Tensor
    is_guided: bool  # then the second half of the rows are those under the negative prompt
    code_bias_K: Tensor  # taken off the logits
    guidance: GuidanceConfig
    generator: torch.Generator | None = None
    on_round: Callable[[int], None] | None = field(default=None, repr=False)

    def at_once(self, token_ids_BTS: Tensor, is_masked_BTS: Tensor, sampler: SamplerConfig) -> Sampled:
        """Fill in all frames together, over the same rounds."""
        num_frames = token_ids_BTS.shape[1]

        def logits_fn(ids_RS: Tensor, is_masked_RS: Tensor) -> Tensor:
            ids_RTS, is_masked_RTS = (x.unflatten(1, (num_frames, -1)) for x in (ids_RS, is_masked_RS))
            logits = self.stpt(ids_RTS, is_masked_RTS, self.prompt_RTKC, is_given_BTL=self.is_given_RTK)
            return rearrange(logits, "r t s k -> r (t s) k")

        return self._filled(logits_fn, token_ids_BTS.flatten(1), is_masked_BTS.flatten(1), sampler)

    def frame_by_frame(
        self,
        token_ids_BTS: Tensor,
        is_masked_BTS: Tensor,
        sampler: SamplerConfig,
        *,
        next_sampler: SamplerConfig,
    ) -> Sampled:
        """Finish each frame before the next one is begun; every frame has all rounds of its sampler.

        Args:
            token_ids_BTS: given tokens; hidden entries are not read.
            is_masked_BTS: which are hidden, as many in a frame of every clip.
            sampler: of a first frame.
            next_sampler: of a frame that follows another.
        """
        counts_BT = is_masked_BTS.sum(-1)
        _check_counts(counts_BT)
        token_ids_BTS = token_ids_BTS.clone()
        confidence_BTS = torch.ones(token_ids_BTS.shape, device=token_ids_BTS.device)
        device, passes = self.stpt.embedding.place_SC.device, len(self.prompt_RTKC) // len(token_ids_BTS)
        memory = self.stpt.empty_memory(len(self.prompt_RTKC), device, self.stpt.memory_dtype)
        hidden = counts_BT[0].nonzero().flatten().tolist()
        first, last = (hidden[0], hidden[-1]) if hidden else (len(counts_BT[0]), -1)
        # Frames out of reach change nothing, nor do those after the last hidden one.
        for t in range(max(0, first - self.stpt.reach), last + 1):
            look = partial(
                self.stpt.frame,
                prompt_BLC=self.prompt_RTKC[:, t],
                memory=memory,
                is_given_BL=self.is_given_RTK[:, t],
            )
            if t >= first:
                frame = self._filled(
                    partial(self._frame_logits, look),
                    token_ids_BTS[:, t],
                    is_masked_BTS[:, t],
                    next_sampler if t else sampler,
                )
                token_ids_BTS[:, t], confidence_BTS[:, t] = frame.token_ids_BS, frame.confidence_BS
            if t < last:
                finished_RS = token_ids_BTS[:, t].repeat(passes, 1)
                _, memory = look(finished_RS, torch.zeros_like(finished_RS, dtype=torch.bool))
        for _ in range(max(last, first - 1) + 1, len(counts_BT[0])):
            self._tell(0, next_sampler)
        return Sampled(token_ids_BS=token_ids_BTS.flatten(1), confidence_BS=confidence_BTS.flatten(1))

    def _frame_logits(
        self,
        look: Callable[[Tensor, Tensor], tuple[Tensor, list[FrameMemory]]],
        ids_RS: Tensor,
        is_masked_RS: Tensor,
    ) -> Tensor:
        logits: Tensor = self.stpt.head(look(ids_RS, is_masked_RS)[0], None)
        return logits

    def _filled(
        self, logits_fn: LogitsFn, ids_BS: Tensor, is_masked_BS: Tensor, sampler: SamplerConfig
    ) -> Sampled:
        """Fill in hidden tokens over the rounds of ``sampler``, guided if there are rows to lead away from."""
        num_first, num_rounds = rounds_for(int(is_masked_BS[0].sum()), sampler)
        rising = [self.guidance.at(index, num_first) for index in range(num_first)]
        scales = iter(rising + [self.guidance.scale] * (num_rounds - num_first))

        def logits_of(ids_BS: Tensor, is_masked_BS: Tensor) -> Tensor:
            if not self.is_guided:
                return logits_fn(ids_BS, is_masked_BS).float() - self.code_bias_K
            logits = logits_fn(ids_BS.repeat(2, 1), is_masked_BS.repeat(2, 1)).float() - self.code_bias_K
            conditional, unconditional = logits.chunk(2)
            return guided(conditional, unconditional, next(scales))

        sampled = fill_in(logits_of, ids_BS, is_masked_BS, sampler, self.generator, on_round=self.on_round)
        self._tell(num_rounds, sampler)
        return sampled

    def _tell(self, num_rounds: int, sampler: SamplerConfig) -> None:
        """Say that the rounds that were not needed are over as well."""
        if self.on_round is not None:
            for index in range(num_rounds, sampler.num_rounds):
                self.on_round(index + 1)


def _check_counts(counts_BT: Tensor) -> None:
    """Refuse clips of which a frame hides more in one than in another."""
    for t, counts_B in enumerate(counts_BT.unbind(1)):
        if (counts_B != counts_B[0]).any():
            raise ValueError(
                f"frame by frame every clip must hide as many tokens of a frame, got {counts_B.tolist()} in frame {t}"
            )
