"""The world model beside the reference decoders: same budget, same tokenizer, in turns, each in its fastest precision.

`ours` is the model with everything it does for a frame, tried in fp32 and bf16; the others are tried in int8 too, and
are spared motion field and causal decoder.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.decoders.autoregressive import AutoregressiveDecoder
from benchmarks.decoders.diffusion import DiffusionDecoder
from benchmarks.decoders.frame_decoder import FrameDecoder, Precision, num_parameters
from benchmarks.decoders.uncached import UncachedDecoder
from benchmarks.imagined_step import TWIST, imagined_step
from benchmarks.report import Report
from benchmarks.timing import Timing, add_timings, take_turns
from drivesim import console
from drivesim.scene.types import Camera
from drivesim.world_model.world_model import WorldModel

OURS, AUTOREGRESSIVE, UNCACHED, DIFFUSION = "ours", "autoregressive", "uncached", "diffusion30"
PAPER_ROUNDS = 10  # of UNCACHED: what WorldDreamer decodes with
AUTOREGRESSIVE_SAME_DEPTH = "autoregressive_same_depth"  # as few layers as ours, the cheapest form
UNCACHED_SAME_ROUNDS = "uncached_same_rounds"  # as few rounds as ours
PRECISION_ROUNDS = 3
FRAMES_IN_A_ROW = 3  # of one decoder before the next has its turn, as they come in a drive
Steps = dict[str, Callable[[], object]]  # by name of a decoder or precision
NOTES = {
    AUTOREGRESSIVE: "token by token, key/value cache, GPT layers of the usual shape",
    AUTOREGRESSIVE_SAME_DEPTH: "the same with as few layers as ours and wider MLPs",
    UNCACHED: f"whole-clip masked decoding without a cache in the paper's {PAPER_ROUNDS} rounds",
    UNCACHED_SAME_ROUNDS: "the same in as few rounds as ours",
    DIFFUSION: "30 evaluations of a denoiser over latents, the past cached",
}


@dataclass(kw_only=True, slots=True)
class History:
    """What every decoder starts from."""

    token_ids_BTS: Tensor
    twist_BTA: Tensor

    @classmethod
    def drawn(cls, model: WorldModel, *, batch_size: int) -> History:
        """Return random frames that fill the window, and a gentle curve."""
        num_frames = model.config.stpt.window
        generator = torch.Generator().manual_seed(0)
        shape = (batch_size, num_frames, model.tokenizer.num_tokens)
        return cls(
            token_ids_BTS=torch.randint(model.tokenizer.codebook_size, shape, generator=generator),
            twist_BTA=torch.tensor(TWIST).expand(batch_size, num_frames, 2),
        )


@dataclass(kw_only=True, slots=True)
class Comparison:
    """What one frame costs each of them, timed in turns."""

    batch_size: int
    timings: dict[str, Timing]
    precisions: dict[str, str]  # the fastest of each
    precision_timings: dict[str, Timing]  # by name and precision: how the fastest was found

    def speedup(self, name: str) -> float:
        """Return how many times as long as ours a reference decoder takes, by the medians."""
        return self.timings[name].median_s / self.timings[OURS].median_s

    def speedups(self, name: str) -> list[float]:
        """Return the same for every round by itself."""
        pairs = zip(self.timings[name].samples_s, self.timings[OURS].samples_s, strict=True)
        return [theirs_s / ours_s for theirs_s, ours_s in pairs]


def reference_decoders(model: WorldModel) -> dict[str, FrameDecoder]:
    """Return the reference decoders at the budget of a model's transformer, with random weights, in float32.

    Two come as they are usually built and in the cheapest form that the budget allows.
    """
    config, tokenizer = model.config, model.tokenizer
    num_rounds = config.sampler.num_rounds
    return {
        AUTOREGRESSIVE: AutoregressiveDecoder(config, tokenizer),
        AUTOREGRESSIVE_SAME_DEPTH: AutoregressiveDecoder(config, tokenizer, is_same_depth=True),
        UNCACHED: UncachedDecoder(config, tokenizer, num_rounds=PAPER_ROUNDS),
        UNCACHED_SAME_ROUNDS: UncachedDecoder(config, tokenizer, num_rounds=num_rounds),
        DIFFUSION: DiffusionDecoder(config, tokenizer),
    }


def parameters(model: WorldModel, decoders: dict[str, FrameDecoder]) -> dict[str, tuple[int, int]]:
    """Return by name the parameters of the layers, which are the budget, and of all but the tokenizer."""
    ours = num_parameters(model) - num_parameters(model.tokenizer)
    counts = {OURS: (num_parameters(model.stpt.layers), ours)}
    for name, decoder in decoders.items():
        counts[name] = (num_parameters(decoder.layers), num_parameters(decoder.transformer))
    return counts


def compare(
    model: WorldModel,
    camera: Camera,
    decoders: dict[str, FrameDecoder],
    *,
    batch_size: int,
    num_rounds: int,
) -> Comparison:
    """Time a frame of the model and of the reference decoders; all find their fastest precision first."""
    history = History.drawn(model, batch_size=batch_size)
    candidates = {OURS: own_steps(model, camera, batch_size=batch_size)}
    candidates |= {name: steps_of(name, decoder, history) for name, decoder in decoders.items()}
    steps: Steps = {}
    precisions, precision_timings = {}, {}
    for name, by_precision in candidates.items():
        chosen, timings = fastest(name, by_precision, num_rounds=PRECISION_ROUNDS if batch_size == 1 else 1)
        precisions[name], steps[name] = chosen, by_precision[chosen]
        precision_timings.update({f"{name} {key}": timing for key, timing in timings.items()})
    num_calls = FRAMES_IN_A_ROW if batch_size == 1 else 1
    timings = take_turns(f"decoders, batch {batch_size}", steps, num_rounds=num_rounds, num_calls=num_calls)
    return Comparison(
        batch_size=batch_size,
        timings=timings,
        precisions=precisions,
        precision_timings=precision_timings,
    )


def own_steps(model: WorldModel, camera: Camera, *, batch_size: int) -> Steps:
    """Return the steps of the world model by precision."""
    precisions = (Precision.FP32, Precision.BF16)
    copies = {precision.value: copy.deepcopy(model).to(precision.dtype) for precision in precisions}
    return {key: imagined_step(other, camera, batch_size=batch_size) for key, other in copies.items()}


def steps_of(name: str, decoder: FrameDecoder, history: History) -> Steps:
    """Return the steps of a reference decoder by precision; those that this PyTorch lacks are left out."""
    steps: Steps = {}
    for precision in Precision:
        try:
            steps[precision.value] = started(decoder.in_precision(precision), history)
        except NotImplementedError as error:
            console.warn(f"{name}: no {precision.value} here ({error})")
    return steps


def fastest(name: str, steps: Steps, *, num_rounds: int) -> tuple[str, dict[str, Timing]]:
    """Return the precision whose step is the fastest, and the times of all."""
    timings = take_turns(f"precisions of {name}", steps, num_rounds=num_rounds)
    return min(timings, key=lambda key: timings[key].median_s), timings


def started(decoder: FrameDecoder, history: History) -> Callable[[], Tensor]:
    """Let a decoder read the history and return its step."""
    decoder.observe(history.token_ids_BTS, history.twist_BTA)
    twist_BA = history.twist_BTA[:, -1]
    return lambda: decoder.step(twist_BA)


def add_comparison(report: Report, comparison: Comparison) -> None:
    """Add milliseconds and ratios; those of a batch other than 1 carry it in their names."""
    is_single = comparison.batch_size == 1
    suffix = "" if is_single else f"_batch{comparison.batch_size}"
    note = "one frame from action to picture, per car" if is_single else ""
    add_timings(report, f"decoder_ms{suffix}", comparison.timings, per=comparison.batch_size, note=note)
    for name in comparison.timings:
        if name != OURS:
            ratios = comparison.speedups(name)
            report.add(f"speedup_vs_{name}{suffix}", comparison.speedup(name), note=NOTES[name])
            report.add(f"speedup_vs_{name}{suffix}_min", min(ratios))
            report.add(f"speedup_vs_{name}{suffix}_max", max(ratios))
    for key, timing in comparison.precision_timings.items():
        milliseconds = 1e3 * timing.median_s / comparison.batch_size
        report.add(f"decoder_precision_ms{suffix}", milliseconds, key=key)
