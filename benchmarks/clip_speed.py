"""Seconds of a whole clip: ours beside diffusion with the same layers, and beside a GPT of the same budget.

The GPT draws some 1,800 tokens one after another. Only some of them are drawn, at even places along the clip; the
time of all is extrapolated from these, and the report says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.decoders.diffusion import NUM_EVALUATIONS
from benchmarks.decoders.frame_decoder import Precision, converted, num_parameters
from benchmarks.decoders.whole_clips import ClipDiffusion, TokenByToken
from benchmarks.report import Report
from benchmarks.statistics import FloatArray
from benchmarks.timing import Timing, seconds_of, take_turns
from drivesim import console
from drivesim.generate import GenerateConfig, text_to_video
from drivesim.world_model.video_model import VideoModel

OURS, DIFFUSION, AUTOREGRESSIVE = "ours", f"diffusion{NUM_EVALUATIONS}", "token_by_token"
PROMPT = "a red star slides left"


@dataclass(kw_only=True, slots=True)
class ClipSpeedConfig:
    """How much is timed."""

    num_rounds: int = 3  # samples, in turns
    diffusion_steps: int = NUM_EVALUATIONS  # those timed; the rest is extrapolated
    num_places: int = 9  # along the clip, at which tokens are drawn one by one
    tokens_per_place: int = 12


@dataclass(kw_only=True, slots=True)
class ClipSpeed:
    """Seconds of one clip, generation and decoding."""

    seconds: dict[str, float]  # by decoder, medians
    ours: Timing
    parameters: dict[str, int]  # of the layers
    precision: str  # of the GPT: the fastest
    num_tokens: int  # of a clip


def measure_clip_speed(model: VideoModel, request: GenerateConfig, config: ClipSpeedConfig) -> ClipSpeed:
    """Time a clip of the model's own length, as ``request`` says."""
    assert request.guidance is not None
    scale, diffusion = request.guidance.scale, ClipDiffusion(model)
    timings = take_turns(
        "seconds per clip",
        {
            OURS: lambda: text_to_video(model, PROMPT, request),
            DIFFUSION: lambda: diffusion.clip(PROMPT, scale=scale, num_steps=config.diffusion_steps),
        },
        num_rounds=config.num_rounds,
    )
    gpt = TokenByToken(model, num_prompt_tokens=_num_prompt_tokens(model))
    by_precision = _token_seconds(gpt, scale, config)
    precision = min(by_precision, key=lambda name: by_precision[name])
    share = config.diffusion_steps / NUM_EVALUATIONS
    return ClipSpeed(
        seconds={
            OURS: timings[OURS].median_s,
            DIFFUSION: timings[DIFFUSION].median_s / share,
            AUTOREGRESSIVE: gpt.num_tokens * by_precision[precision] + _decoding_s(model),
        },
        ours=timings[OURS],
        parameters={
            OURS: num_parameters(model.stpt.layers),
            DIFFUSION: num_parameters(model.stpt.layers),
            AUTOREGRESSIVE: num_parameters(gpt.layers),
        },
        precision=precision,
        num_tokens=gpt.num_tokens,
    )


def _token_seconds(gpt: TokenByToken, scale: float, config: ClipSpeedConfig) -> dict[str, float]:
    """Return the seconds of a token, mean over the whole clip, by precision."""
    first, last = gpt.num_prompt_tokens, gpt.num_prompt_tokens + gpt.num_tokens
    places = np.linspace(first, last, config.num_places).astype(int)
    seconds = {}
    for precision in Precision:
        try:
            decoder = converted(gpt, precision)
        except NotImplementedError as error:
            console.warn(f"{AUTOREGRESSIVE}: no {precision.value} here ({error})")
            continue
        assert isinstance(decoder, TokenByToken)
        decoder.seconds_per_token(first, scale=scale, count=config.tokens_per_place)  # warm-up
        measured = [
            decoder.seconds_per_token(place, scale=scale, count=config.tokens_per_place) for place in places
        ]
        seconds[precision.value] = mean_over(places, np.array(measured))
    return seconds


def mean_over(places: NDArray[np.int64], seconds: FloatArray) -> float:
    """Return the mean of what was measured at some places, straight lines drawn between them."""
    between = (seconds[1:] + seconds[:-1]) / 2
    return float(np.diff(places) @ between / (places[-1] - places[0]))


def _num_prompt_tokens(model: VideoModel) -> int:
    tokens_BTKC, _ = model.frame_prompts(model.prompt_encoder.prepared([PROMPT]), 1)
    return tokens_BTKC.shape[2]


def _decoding_s(model: VideoModel) -> float:
    token_ids_BTS = torch.zeros(1, model.config.num_frames, model.tokenizer.num_tokens, dtype=torch.int64)
    return seconds_of(lambda: model.decode(token_ids_BTS))


def add_speed_rows(report: Report, speed: ClipSpeed, config: ClipSpeedConfig) -> None:
    """Add the seconds of a clip, those of the other ways of decoding, and how these were found."""
    note = "one clip from a text, generated and decoded"
    report.add("seconds_per_clip", speed.ours.median_s, note=f"{note}, median of {config.num_rounds}")
    report.add("seconds_per_clip_min", speed.ours.min_s)
    report.add("seconds_per_clip_max", speed.ours.max_s)
    for name, seconds in speed.seconds.items():
        report.add("clip_seconds", seconds, key=name, note=note)
    for name, count in speed.parameters.items():
        report.add("decoder_parameters", count, key=name, note="of the layers: the budget")
    for name, method in methods(speed, config).items():
        report.add(f"speedup_vs_{name}", speed.seconds[name] / speed.seconds[OURS], note=method)
    report.facts["clip_seconds_method"] = methods(speed, config)


def methods(speed: ClipSpeed, config: ClipSpeedConfig) -> dict[str, str]:
    """Say of every other decoder what was timed."""
    timed = config.diffusion_steps
    diffusion = f"{NUM_EVALUATIONS} guided passes of the same layers over the whole clip at once"
    if timed < NUM_EVALUATIONS:
        diffusion += f", extrapolated from {timed} passes"
    tokens = config.num_places * config.tokens_per_place
    return {
        DIFFUSION: diffusion,
        AUTOREGRESSIVE: (
            f"a GPT of the same budget with a cache, {speed.precision}, extrapolated from {tokens} tokens measured at "
            f"{config.num_places} places to the {speed.num_tokens} of a clip"
        ),
    }
