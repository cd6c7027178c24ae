"""Iterative parallel decoding (MaskGIT; WorldDreamer section 3.4): knows schedules, not layers.

Letters: `B` batch, `S` tokens to fill, `K` codebook size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor
from torch.nn import functional

from drivesim.world_model.masking import num_masked_after

_LEAST_CONFIDENCE = 1e-6

Generators = torch.Generator | Sequence[torch.Generator] | None
"""Where chance comes from: one generator for a batch, or one for each row, so that rows are independent."""


class UnmaskOrder(Enum):
    """Which hidden tokens a round fixes first."""

    CONFIDENCE = "confidence"  # the paper: the most probable ones
    RANDOM = "random"  # less prone to copying the previous frame


@dataclass(kw_only=True, slots=True)
class SamplerConfig:
    """How hidden tokens are filled in."""

    num_decode_steps: int = 1  # more gain nothing for drive-tiny; the paper takes about ten
    temperature: float = 0.0  # 0 takes the most probable token
    temperature_rise: int = 0  # imagined frames over which the temperature rises from 0 to its value
    order: UnmaskOrder = UnmaskOrder.CONFIDENCE
    noise_memory: float = 0.0  # from frame to frame, of what tokens are drawn by: see ``carried_noise``
    choice_temperature: float = 0.0  # noise on which tokens are fixed by confidence, falling to 0 (MaskGIT)
    # Rounds after the decoding steps, each of which hides some of the tokens again and draws them anew: what was
    # drawn before the rest was known is put right (remasking, ReMDM, arXiv 2503.00307).
    num_revisions: int = 0
    revised_share: float = 0.5  # of the tokens that were hidden, in the first revision
    last_revised_share: float | None = (
        None  # in the last one, evenly from one to the other; None: as in the first
    )
    revises_unlikely: bool = (
        False  # a token is hidden again in proportion to 1 / its confidence, not as any other
    )

    def __post_init__(self) -> None:
        """Refuse values without a meaning."""
        if self.num_decode_steps < 1:
            raise ValueError(f"sampler.num_decode_steps must be at least 1, got {self.num_decode_steps}")
        if self.num_revisions < 0 or not 0 < self.revised_share <= 1:
            raise ValueError(
                "sampler.num_revisions must be >= 0 and sampler.revised_share lie in (0, 1], got "
                f"{self.num_revisions} and {self.revised_share}"
            )
        if self.last_revised_share is not None and not 0 < self.last_revised_share <= 1:
            raise ValueError(
                f"sampler.last_revised_share must lie in (0, 1] or be null, got {self.last_revised_share}"
            )
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"sampler.temperature must be >= 0 and finite, got {self.temperature}")
        if not 0 <= self.choice_temperature < math.inf:
            raise ValueError(
                f"sampler.choice_temperature must be >= 0 and finite, got {self.choice_temperature}"
            )
        if not 0 <= self.noise_memory < 1:
            raise ValueError(f"sampler.noise_memory must lie in [0, 1), got {self.noise_memory}")
        if self.temperature_rise < 0:
            raise ValueError(f"sampler.temperature_rise must be >= 0, got {self.temperature_rise}")

    @property
    def num_rounds(self) -> int:
        """Return how often the model is asked at most, to fill in and to revise."""
        return self.num_decode_steps + self.num_revisions

    def share_revised(self, revision: int) -> float:
        """Return the share of the hidden tokens that is drawn anew in a revision, the first being 0."""
        if self.last_revised_share is None or self.num_revisions < 2:
            return self.revised_share
        done = revision / (self.num_revisions - 1)
        return self.revised_share + done * (self.last_revised_share - self.revised_share)

    def at(self, num_imagined: int) -> SamplerConfig:
        """Return the settings for the frame that follows ``num_imagined`` imagined ones.

        What comes next can be predicted; what comes after seconds can only be drawn, and is fog if it is averaged.
        """
        if self.temperature_rise == 0:
            return self
        share = min(num_imagined / self.temperature_rise, 1.0)
        return replace(self, temperature=share * self.temperature, temperature_rise=0)

    def temperatures(self, num_imagined_B: Tensor) -> Tensor:
        """Return the temperature (B,) of each row, of which so many frames (B,) were imagined."""
        return torch.tensor([self.at(count).temperature for count in num_imagined_B.tolist()])


@dataclass(kw_only=True, slots=True)
class Sampled:
    """Tokens with every mask filled in."""

    token_ids_BS: Tensor
    confidence_BS: Tensor  # probability of each drawn token at temperature 1; 1 where the token was given


def draw_tokens(
    logits_BSK: Tensor,
    temperature: float | Tensor,
    generator: Generators,
    *,
    uniform_BS: Tensor | None = None,
) -> Tensor:
    """Draw ids (B, S) from softmax(logits / temperature); temperature 0 is the argmax.

    Args:
        logits_BSK: (B, S, K).
        temperature: of all rows, or (B,) of each. Rows at 0 take no number from a generator of their own.
        generator: for all rows, or one for every row.
        uniform_BS: (B, S) numbers in [0, 1) to draw by, instead of new ones.
    """
    temperatures = torch.as_tensor(temperature, dtype=torch.float32).expand(len(logits_BSK))
    is_drawn_B = temperatures > 0
    if not bool(is_drawn_B.any()):
        return logits_BSK.argmax(-1)
    if uniform_BS is None:
        uniform_BS = draws(torch.rand, logits_BSK.shape[:2], generator, is_drawn_B)
    divisor_B11 = torch.where(is_drawn_B, temperatures, 1.0).to(logits_BSK.device).view(-1, 1, 1)
    drawn_BS = _looked_up(logits_BSK, divisor_B11, uniform_BS.to(logits_BSK.device))
    if bool(is_drawn_B.all()):
        return drawn_BS
    return torch.where(is_drawn_B.to(drawn_BS.device).unsqueeze(-1), drawn_BS, logits_BSK.argmax(-1))


def _in_parts(*tensors_B: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield tensors row by row on a CPU, whose caches do not hold the codes of all rows at once; elsewhere whole."""
    size = 1 if tensors_B[0].device.type == "cpu" else len(tensors_B[0])
    return zip(*(tensor_B.split(size) for tensor_B in tensors_B), strict=True)


def _looked_up(logits_BSK: Tensor, temperature_B11: Tensor, uniform_BS: Tensor) -> Tensor:
    """Return the ids (B, S) at which the summed probabilities reach the share ``uniform_BS``.

    One number per token is a third of the work of Gumbel noise for every code.
    """
    places = []
    for logits, temperature, uniform in _in_parts(logits_BSK, temperature_B11, uniform_BS):
        summed = (logits.float() / temperature).softmax(-1).cumsum(-1)
        place = uniform.unsqueeze(-1) * summed[..., -1:]
        places.append(torch.searchsorted(summed, place, right=True).squeeze(-1))
    return torch.cat(places).clamp_max(logits_BSK.shape[-1] - 1)


def draws(
    source: Callable[..., Tensor], shape: Sequence[int], generator: Generators, is_drawn_B: Tensor
) -> Tensor:
    """Return numbers (B, ...) of ``torch.rand`` or its like: one draw for the batch, or one of each drawn row's own."""
    if not isinstance(generator, Sequence):
        return source(tuple(shape), generator=generator, device=generator.device if generator else None)
    if len(generator) != shape[0]:
        raise ValueError(f"{shape[0]} rows need as many generators, got {len(generator)}")
    rows = [
        source(tuple(shape[1:]), generator=own, device=own.device)
        if is_drawn
        else torch.zeros(tuple(shape[1:]))
        for own, is_drawn in zip(generator, is_drawn_B.tolist(), strict=True)
    ]
    return torch.stack([row.to(rows[0].device) for row in rows])


def fill_in(
    logits_fn: Callable[[Tensor, Tensor], Tensor],
    token_ids_BS: Tensor,
    is_masked_BS: Tensor,
    config: SamplerConfig,
    generator: Generators = None,
    *,
    temperature_B: Tensor | None = None,
    uniform_BS: Tensor | None = None,
    on_round: Callable[[int], None] | None = None,
) -> Sampled:
    """Fill in the hidden tokens, then revise them; the caller's tensors are not written.

    Args:
        logits_fn: (token ids (B, S), is_masked (B, S)) to logits (B, S, K).
        token_ids_BS: given tokens; hidden entries are not read.
        is_masked_BS: the same number of hidden tokens in every row.
        config: rounds, revisions, temperature and order.
        generator: source of all randomness, for all rows or one for every row; revisions need it at temperature 0 too.
        temperature_B: of each row (B,), instead of the one of ``config``.
        uniform_BS: numbers (B, S) in [0, 1) by which tokens are drawn in every round and revision, instead of new ones.
        on_round: called with the number of finished rounds.
    """
    token_ids_BS, is_masked_BS, was_hidden_BS = token_ids_BS.clone(), is_masked_BS.clone(), is_masked_BS
    counts = is_masked_BS.sum(-1)
    num_hidden = int(counts.max())
    if int(counts.min()) != num_hidden:
        raise ValueError(f"every row must hide the same number of tokens, got {counts.tolist()}")
    confidence_BS = torch.ones(token_ids_BS.shape, device=token_ids_BS.device)
    temperature = config.temperature if temperature_B is None else temperature_B
    num_first, num_rounds = rounds_for(num_hidden, config)
    for round_index in range(num_rounds):
        is_revision = round_index >= num_first
        if is_revision:
            score_BS = _revision_scores(confidence_BS, config, generator)
            share = config.share_revised(round_index - num_first)
            is_masked_BS = _hidden_again(score_BS, was_hidden_BS, share)
        logits_BSK = logits_fn(token_ids_BS, is_masked_BS)
        drawn_BS = draw_tokens(logits_BSK, temperature, generator, uniform_BS=uniform_BS)
        probability_BS = _probability(logits_BSK, drawn_BS)
        is_fixed_BS = is_masked_BS
        if not is_revision:
            score_BS = _scores(
                probability_BS, config, generator, share_left=1 - (round_index + 1) / num_first
            )
            keep = num_masked_after(round_index, num_first, num_hidden)
            is_fixed_BS = _fixed_now(score_BS, is_masked_BS, num_kept_hidden=keep)
        token_ids_BS = torch.where(is_fixed_BS, drawn_BS, token_ids_BS)
        confidence_BS = torch.where(is_fixed_BS, probability_BS, confidence_BS)
        is_masked_BS = is_masked_BS & ~is_fixed_BS
        if on_round is not None:
            on_round(round_index + 1)
    return Sampled(token_ids_BS=token_ids_BS, confidence_BS=confidence_BS)


def rounds_for(num_hidden: int, config: SamplerConfig) -> tuple[int, int]:
    """Return in how many rounds so many hidden tokens are filled in, and how many there are with revisions."""
    num_first = min(config.num_decode_steps, num_hidden)
    return num_first, (num_first + config.num_revisions if num_hidden else 0)


def _revision_scores(confidence_BS: Tensor, config: SamplerConfig, generator: Generators) -> Tensor:
    """Return what decides which tokens are hidden again, (B, S): highest first."""
    is_drawn_B = torch.ones(len(confidence_BS), dtype=torch.bool)
    noise_BS = draws(torch.rand, confidence_BS.shape, generator, is_drawn_B).to(confidence_BS.device)
    if not config.revises_unlikely:
        return noise_BS
    return _gumbel(noise_BS) - confidence_BS.clamp_min(_LEAST_CONFIDENCE).log()


def _hidden_again(score_BS: Tensor, was_hidden_BS: Tensor, share: float) -> Tensor:
    """Return which tokens (B, S) to revise: a ``share`` of those of each row that were hidden, one at least."""
    num_hidden = int(was_hidden_BS[0].sum())
    num_revised = max(1, round(share * num_hidden))
    return _fixed_now(score_BS, was_hidden_BS, num_kept_hidden=num_hidden - num_revised)


def _gumbel(uniform: Tensor) -> Tensor:
    """Return Gumbel noise: the k largest of it plus log weights are k items drawn in proportion to their weights."""
    return -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))


def _probability(logits_BSK: Tensor, ids_BS: Tensor) -> Tensor:
    """Return the probability (B, S) of ids at temperature 1."""
    surprises = [
        functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten(), reduction="none")
        for logits, ids in _in_parts(logits_BSK, ids_BS)
    ]
    return (-torch.cat(surprises)).exp().view(ids_BS.shape)


def _scores(
    probability_BS: Tensor, config: SamplerConfig, generator: Generators, *, share_left: float
) -> Tensor:
    """Return what decides who is fixed first: highest first; ``share_left`` of the rounds are still to come."""
    if config.order is UnmaskOrder.CONFIDENCE and config.choice_temperature == 0:
        return probability_BS
    is_drawn_B = torch.ones(len(probability_BS), dtype=torch.bool)
    noise = draws(torch.rand, probability_BS.shape, generator, is_drawn_B).to(probability_BS.device)
    if config.order is UnmaskOrder.RANDOM:
        return noise
    return probability_BS.clamp_min(1e-20).log() + config.choice_temperature * share_left * _gumbel(noise)


def _fixed_now(score_BS: Tensor, is_masked_BS: Tensor, *, num_kept_hidden: int) -> Tensor:
    """Return which hidden tokens this round fixes: all but the ``num_kept_hidden`` of lowest score."""
    if num_kept_hidden == 0:
        return is_masked_BS
    score_BS = score_BS.masked_fill(~is_masked_BS, float("inf"))
    rank_BS = score_BS.argsort(dim=-1, stable=True).argsort(dim=-1)
    return is_masked_BS & (rank_BS >= num_kept_hidden)
