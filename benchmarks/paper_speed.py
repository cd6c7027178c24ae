"""Seconds of a clip of the paper's preset: `python -m benchmarks.paper_speed --device cuda --out F.json`.

The preset ``paper`` is built as it stands, some billion parameters with random weights, and generates its 24 frames of
192x320 in one call: all rounds, both passes of guidance, and the pictures. Time does not depend on what weights and
prompts say, so that neither training nor a T5 is needed; reading a sentence with one takes milliseconds more. The paper
(WorldDreamer) says 3 s on one A800. On a processor a whole clip takes a quarter of an hour and more:
``--layers`` makes it shallow.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.decoders.frame_decoder import num_parameters
from benchmarks.report import Report, check_out, parsed, run_command, run_facts
from benchmarks.timing import seconds_of, take_turns
from drivesim import console
from drivesim.checkpoint import usable_device
from drivesim.config import load_config
from drivesim.errors import InputError
from drivesim.generate import GenerateConfig, text_to_video
from drivesim.presets import PAPER_EXPERIMENT
from drivesim.world_model.pretrained import fast_dtype
from drivesim.world_model.prompts import PreparedPrompts
from drivesim.world_model.t5_prompts import T5Encoder
from drivesim.world_model.video_model import VideoModel, VideoModelConfig

PAPER_SECONDS = 3.0
NUM_PROMPT_TOKENS = 16  # of a sentence of a dozen words


class RandomPrompts(T5Encoder):
    """A T5 that says something at random; no T5 is opened."""

    def prepared(self, texts: Sequence[str], *, is_cut: bool = False) -> PreparedPrompts:
        """Return ``tokens`` (B, K, D) and which are given, all of them, (B, K)."""
        size = (len(texts), NUM_PROMPT_TOKENS)
        tokens_BKD = torch.randn(*size, self.embedding_dim, generator=torch.Generator().manual_seed(0))
        return {"tokens": tokens_BKD, "is_given": torch.ones(size, dtype=torch.bool)}


def paper_config(*, num_layers: int | None, num_frames: int | None) -> VideoModelConfig:
    """Return the preset's configuration, or a shallower or shorter one.

    Raises:
        InputError: numbers below 1.
    """
    config: VideoModelConfig = load_config("train", [f"experiment={PAPER_EXPERIMENT}"]).video_model.model
    for flag, value in (("--layers", num_layers), ("--frames", num_frames)):
        if value is not None and value < 1:
            raise InputError(f"{flag} must be at least 1, got {value}")
    layers, frames = num_layers or config.stpt.num_layers, num_frames or config.num_frames
    return replace(config, num_frames=frames, stpt=replace(config.stpt, num_layers=layers))


def built(config: VideoModelConfig, device: str, dtype: torch.dtype) -> VideoModel:
    """Build the model with random weights and random prompts where it runs."""
    torch.manual_seed(0)
    with torch.device(device):
        model = VideoModel(config)
    model.prompt_encoder = RandomPrompts(
        "", embedding_dim=config.t5_dim, max_tokens=config.t5_max_tokens, dim=config.stpt.dim
    )
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False)


def measure(model: VideoModel, *, num_repeats: int) -> Report:
    """Time whole clips, one warm-up before them."""
    device = model.device

    def clip() -> None:
        text_to_video(model, "a car drives on", GenerateConfig(num_frames=model.config.num_frames))
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # what building took is over
    timing = take_turns("clips of the preset", {"clip": clip}, num_rounds=num_repeats)["clip"]
    report = Report(title="paper preset")
    report.add("seconds_per_clip", timing.median_s, note=f"random weights, median of {num_repeats}")
    report.add("seconds_per_clip_min", timing.min_s)
    report.add("seconds_per_clip_max", timing.max_s)
    report.add("paper_seconds_per_clip", PAPER_SECONDS, note="the paper, 24 frames on one A800")
    report.add("num_parameters", num_parameters(model), note="tokenizer included")
    if device.type == "cuda":
        report.add("memory_gib", torch.cuda.max_memory_allocated(device) / 2**30, note="at most")
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, build, time, print, write."""
    options = parse(arguments)
    check_out(options.out)
    device = str(usable_device(options.device))
    if options.repeats < 1 or options.threads < 1:
        raise InputError(
            f"--repeats and --threads must be at least 1, got {options.repeats}, {options.threads}"
        )
    torch.set_num_threads(options.threads)
    config, dtype = paper_config(num_layers=options.layers, num_frames=options.frames), fast_dtype(device)
    if device.startswith("cpu") and options.layers is None:
        console.warn(
            "a clip of the whole preset takes a quarter of an hour and more on a processor; --layers 1 makes it shallow"
        )
    took: list[VideoModel] = []
    build_s = seconds_of(lambda: took.append(built(config, device, dtype)))
    report = measure(took[0], num_repeats=options.repeats)
    rows, columns = config.vqgan.height_px, config.vqgan.width_px
    report.facts = {
        "clip": f"{config.num_frames} frames of {rows}x{columns} at {config.rate_hz:g} Hz",
        "layers": config.stpt.num_layers,
        "rounds": config.sampler.num_decode_steps,
        "guidance": config.guidance.scale,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "dtype": str(dtype).removeprefix("torch."),
        "build_s": round(build_s, 1),
        **run_facts(options, num_threads=options.threads),
    }
    report.show()
    report.write(options.out)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper_speed", description=__doc__)
    parser.add_argument("--device", default="cpu", help="where it runs (cpu)")
    parser.add_argument("--layers", type=int, help="of the transformer; the preset's own if left out")
    parser.add_argument("--frames", type=int, help="of the clip; the preset's own if left out")
    parser.add_argument("--repeats", type=int, default=3, help="clips that are timed (3)")
    parser.add_argument("--threads", type=int, default=2, help="processor threads (2)")
    parser.add_argument("--out", type=Path, required=True, help="json file")
    return parsed(parser, arguments)


if __name__ == "__main__":
    run_command(main)
