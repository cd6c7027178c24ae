"""Does the video show what the text says? `python -m benchmarks.generation --out F.json` asks a video model.

Sentences of the general world become clips, and image analysis reads colour, shape and direction back from them, for
combinations that training has seen and for held-out ones; beside it, the same readings of true clips, as rendered and
after the tokenizer. Then: one image carried on under opposite prompts, rectangles filled in, the time of a clip against
other ways of decoding, and what rounds and guidance are worth. Every case has a seed that training never uses.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.clip_speed import add_speed_rows, measure_clip_speed
from benchmarks.generation_measure import FULL, QUICK, Extent, GenerationResults, measure, only_prompts
from benchmarks.generation_pipeline import GenerationPipeline, VideoModelGenerator
from benchmarks.generation_sheets import (
    PLOTS,
    flip_sheet,
    inpainting_sheet,
    moving_pictures,
    prompt_sheet,
    sweep_sheet,
)
from benchmarks.held_out import check_seeds
from benchmarks.page import Picture, write_page
from benchmarks.report import Report, check_out, parsed, run_command, run_facts, weights_facts, write_sheet
from drivesim import console
from drivesim.errors import InputError
from drivesim.general_world.sampling import Split
from drivesim.generate import GenerateConfig
from drivesim.reference.seeds import FIRST_HELD_OUT_SEED
from drivesim.video import write_video
from drivesim.world_model.pretrained_video import load_video_model
from drivesim.world_model.video_model import VideoModel

COUNTS = (
    ("num_prompts", "sentences, half of held-out combinations"),
    ("num_flips", "clips from images, two per image"),
    ("num_inpaintings", "clips with a rectangle to fill in"),
    ("num_camera_prompts", "sentences in which the camera moves"),
    ("num_rounds_prompts", "sentences of the table of rounds, at most as many as there are"),
    ("num_guidance_prompts", "sentences of the table of guidance, at most as many as there are"),
)
SWEEP_TITLES = {
    "rounds": "right readings and seconds per clip by rounds, without revisions",
    "guidance": "right readings and seconds per clip by guidance",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, generate, read, print, write."""
    options = parse(arguments)
    check_out(options.out)
    extent = extent_of(options)
    check_seeds(options.seed, extent.num_seeds)
    torch.set_num_threads(options.threads)
    model = load_video_model(options.weights)
    pipeline = pipeline_of(model, rounds=options.rounds, guidance=options.guidance, weights=options.weights)
    hashes = weights_facts(weights=options.weights)
    started_s = time.perf_counter()
    results = measure(pipeline, extent, first_seed=options.seed)
    if extent.speed is not None:
        speed = measure_clip_speed(model, pipeline.config, extent.speed)
        add_speed_rows(results.report, speed, extent.speed)
    took_s = round(time.perf_counter() - started_s)
    facts = hashes | facts_of(options, extent, pipeline, model)
    results.report.facts = facts | results.report.facts | {"took_s": took_s}
    show(results.report)
    write(options.out, results, rate_hz=model.config.rate_hz)


def pipeline_of(
    model: VideoModel, *, rounds: int | None, guidance: float | None, weights: str
) -> GenerationPipeline:
    """Return a model with its own settings, or those named.

    Raises:
        InputError: settings without a meaning, or a model of single frames.
    """
    config = model.config
    if config.num_frames < 2:
        raise InputError(
            f"the weights {weights} make single pictures, in which nothing moves; name a video model"
        )
    try:
        sampler = config.sampler if rounds is None else replace(config.sampler, num_decode_steps=rounds)
        chosen = config.guidance if guidance is None else replace(config.guidance, scale=guidance)
    except ValueError as error:
        raise InputError(f"--rounds and --guidance: {error}") from error
    return GenerationPipeline(
        generator=VideoModelGenerator(model),
        config=GenerateConfig(sampler=sampler, guidance=chosen, num_frames=config.num_frames),
        num_frames=config.num_frames,
        height_px=config.vqgan.height_px,
        width_px=config.vqgan.width_px,
    )


def show(report: Report) -> None:
    """Print the figures, then one table per setting that was varied."""
    replace(report, rows=[row for row in report.rows if row.key is None]).show()
    result = report.as_dict()
    columns = ("accuracy", "color_accuracy", "shape_accuracy", "direction_accuracy", "seconds")
    for name, title in SWEEP_TITLES.items():
        if f"accuracy_by_{name}" in result:
            cells = [result[f"{column}_by_{name}"] for column in columns]
            rows = [(key, *[column[key] for column in cells]) for key in cells[0]]
            console.print_table(title, [name, "all", "colour", "shape", "direction", "s"], rows)
    if "clip_seconds" in result:
        methods = {"ours": "as the figures above", **result["clip_seconds_method"]}
        rows = [(name, seconds, methods[name]) for name, seconds in result["clip_seconds"].items()]
        console.print_table("seconds per clip by way of decoding", ["decoder", "s", "how"], rows)


def write(out: Path, results: GenerationResults, *, rate_hz: float) -> None:
    """Write numbers, the page, the sheet of prompts and a moving picture."""
    cases, clips = results.cases, results.clips
    seen = prompt_sheet(cases, clips, Split.SEEN)
    held_out = prompt_sheet(cases, clips, Split.HELD_OUT)
    pictures = [
        Picture(title="Text to video: combinations seen in training", rows=seen),
        Picture(title="Text to video: held-out combinations", rows=held_out),
    ]
    if results.flips:
        pictures.append(Picture(title="One image, opposite prompts", rows=flip_sheet(results.flips)))
    if results.inpaintings:
        rows = inpainting_sheet(results.inpaintings)
        pictures.append(Picture(title="Inpainting: true, given, generated", rows=rows))
    pictures += [Picture(title=f"By {one.name}", rows=sweep_sheet(one)) for one in results.sweeps]
    results.report.write(out)
    write_page(out.with_suffix(".html"), results.report, plots=PLOTS, pictures=pictures)
    write_sheet(out.with_suffix(".png"), [*seen[:4], *held_out[:4]])
    write_video(out.with_suffix(".gif"), moving_pictures(cases, clips), rate_hz)


def facts_of(
    options: argparse.Namespace, extent: Extent, pipeline: GenerationPipeline, model: VideoModel
) -> dict[str, Any]:
    """Return without what the figures mean nothing."""
    sampler, guidance = pipeline.config.sampler, pipeline.config.guidance
    assert sampler is not None
    assert guidance is not None
    size = f"{pipeline.height_px}x{pipeline.width_px}"
    is_published = options.seed >= FIRST_HELD_OUT_SEED
    return {
        "weights": options.weights,
        "scenes": "held out" if is_published else "for validation, not published figures",
        "first_seed": options.seed,
        "extent": "full" if extent == FULL else "quick" if extent == QUICK else "chosen on the command line",
        "num_prompts": extent.num_prompts,
        "clip": f"{pipeline.num_frames} frames of {size} at {model.config.rate_hz:g} Hz",
        "rounds": sampler.num_decode_steps,
        "revisions": sampler.num_revisions,
        "temperature": sampler.temperature,
        "choice_temperature": sampler.choice_temperature,
        "unmask_order": sampler.order.value,
        "guidance": guidance.scale,
        "guidance_schedule": guidance.schedule.value,
        "dtype": str(model.stpt.embedding.place_SC.dtype).removeprefix("torch."),
        **run_facts(options, num_threads=options.threads),
    }


def extent_of(options: argparse.Namespace) -> Extent:
    """Return the extent of the mode with what the options name.

    Raises:
        InputError: numbers without a meaning.
    """
    if options.threads < 1:
        raise InputError(f"--threads must be at least 1, got {options.threads}")
    named = {name: getattr(options, name) for name, _ in COUNTS if getattr(options, name) is not None}
    extent = QUICK if options.quick else FULL
    return replace(only_prompts(extent) if options.only_prompts else extent, **named)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument("--weights", default="general-tiny", help="shipped name or .safetensors file")
    for name, what in COUNTS:
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(
            flag, type=int, help=f"{what} ({getattr(FULL, name)}, quick {getattr(QUICK, name)})"
        )
    parser.add_argument(
        "--seed",
        type=int,
        default=FIRST_HELD_OUT_SEED,
        help=f"of the first case: {FIRST_HELD_OUT_SEED} or above, below it for validation",
    )
    parser.add_argument("--quick", action="store_true", help="few clips: a first look in under 2 minutes")
    parser.add_argument("--only-prompts", action="store_true", help="text to video alone")
    parser.add_argument("--rounds", type=int, help="decoding rounds; the weights' own if left out")
    parser.add_argument("--guidance", type=float, help="scale of guidance; the weights' own if left out")
    parser.add_argument("--threads", type=int, default=2, help="processor threads (2)")
    parser.add_argument(
        "--out", type=Path, required=True, help="json file; a page, a sheet and a gif lie beside it"
    )
    return parsed(parser, arguments)


if __name__ == "__main__":
    run_command(main)
