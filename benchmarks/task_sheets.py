"""Every task of the general model on one sheet: `python -m benchmarks.task_sheets --out docs/tasks.jpg`.

Each row is a clip at even intervals. What is shown comes from seeds that training never uses, the first ones from
``--seed`` on, not chosen ones; all settings are the weights' own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.generation_cases import PromptCase, prompt_cases
from benchmarks.held_out import check_seeds
from benchmarks.report import check_out, run_command
from benchmarks.task_strips import NUM_SEEDS, Strip, action_strips, load_scene, task_strips
from drivesim import console
from drivesim.errors import InputError
from drivesim.general_world.content import Image
from drivesim.general_world.sampling import Split
from drivesim.generate import GenerateConfig, text_to_video
from drivesim.reference.seeds import FIRST_HELD_OUT_SEED
from drivesim.video import contact_sheet, resize, with_label, write_image, write_video
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.pretrained_video import load_video_model
from drivesim.world_model.video_model import VideoModel

SCENE = "scene-2001"
NUM_MOVING, MOVING_COLUMNS = 6, 3  # clips of the gif
SHEET_WIDTH_PX, CAPTION_PX, GAP_PX = 1000, 20, 2
SHOWN_FRAMES = 6
JPEG_QUALITIES = (90, 80, 70, 60, 50)  # the best that stays below the size
MAX_SHEET_BYTES, MAX_GIF_BYTES = 400_000, 1_500_000  # of pictures in a README


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, generate, write."""
    options = parse(arguments)
    check_out(options.out, suffixes=(".jpg",))
    if options.gif is not None:
        check_out(options.gif, suffixes=(".gif",), flag="--gif")
    check_seeds(options.seed, NUM_SEEDS + NUM_MOVING)
    if options.threads < 1:
        raise InputError(f"--threads must be at least 1, got {options.threads}")
    torch.set_num_threads(options.threads)
    model, driving_model = open_video_model(options.weights), load_world_model(options.drive_weights)
    scene = load_scene(options.scene, driving_model)
    strips = [*task_strips(model, options.seed), *action_strips(driving_model, scene)]
    write_within(options.out, draw_strips(strips), MAX_SHEET_BYTES)
    say_written(options.out, MAX_SHEET_BYTES)
    if options.gif is not None:
        cases = moving_cases(first_seed=options.seed + NUM_SEEDS)
        write_video(options.gif, moving_pictures(model, cases), model.config.rate_hz)
        say_written(options.gif, MAX_GIF_BYTES)


def open_video_model(weights: str) -> VideoModel:
    """Load a model of clips.

    Raises:
        InputError: no such weights, of another kind, or of single pictures.
    """
    model = load_video_model(weights)
    if model.config.num_frames < 2:
        raise InputError(f"the weights {weights} make single pictures; name a video model")
    return model


def write_within(path: Path, picture: Image, max_bytes: int) -> None:
    """Write a picture in the best quality with which the file stays below a size, or else in the lowest."""
    for quality in JPEG_QUALITIES:
        write_image(path, picture, quality=quality)
        if path.stat().st_size <= max_bytes:
            return


def say_written(path: Path, max_bytes: int) -> None:
    """Say how large a file has become, and whether that is too large."""
    num_bytes = path.stat().st_size
    console.say(f"wrote {path}, {num_bytes / 1000:.0f} kB")
    if num_bytes > max_bytes:
        console.warn(f"{path} is larger than the {max_bytes / 1000:.0f} kB that it should have at most")


# --------------------------------------------------------------------------------------------- pictures


def draw_strips(strips: Sequence[Strip]) -> Image:
    """Return strips one below the other."""
    return np.concatenate([draw_strip(strip) for strip in strips])


def draw_strip(strip: Strip) -> Image:
    """Return a line of text above frames at even intervals, the first and the last among them."""
    num_frames, height_px, width_px = strip.frames.shape[:3]
    cell_px = (SHEET_WIDTH_PX + GAP_PX) // SHOWN_FRAMES - GAP_PX
    cells = []
    for index in np.linspace(0, num_frames - 1, SHOWN_FRAMES).round().astype(int):
        frame = resize(strip.frames[index], cell_px, round(cell_px * height_px / width_px))
        cells.append(with_label(frame, "given") if index < strip.num_given else frame)
    row = contact_sheet(cells, SHOWN_FRAMES, gap_px=GAP_PX)
    caption = np.zeros((CAPTION_PX, row.shape[1], 3), dtype=np.uint8)
    return np.concatenate([with_label(caption, strip.label), row])


def moving_cases(*, first_seed: int) -> list[PromptCase]:
    """Return prompts for the gif, half of held-out combinations."""
    half = NUM_MOVING // 2
    return [
        *prompt_cases(Split.SEEN, half, first_seed=first_seed),
        *prompt_cases(Split.HELD_OUT, NUM_MOVING - half, first_seed=first_seed + half),
    ]


def moving_pictures(model: VideoModel, cases: Sequence[PromptCase]) -> Iterator[Image]:
    """Yield frames that show clips side by side, each under its sentence; held-out combinations are below."""
    clips = [text_to_video(model, case.prompt, GenerateConfig(seed=case.seed)).frames[0] for case in cases]
    for frames in zip(*clips, strict=True):
        labelled = [with_label(frame, case.prompt) for frame, case in zip(frames, cases, strict=True)]
        yield contact_sheet(labelled, MOVING_COLUMNS, gap_px=GAP_PX)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.task_sheets", description=__doc__)
    parser.add_argument("--weights", default="general-tiny", help="shipped name or .safetensors file")
    parser.add_argument("--drive-weights", default="drive-tiny", help="of the row that is steered")
    parser.add_argument("--scene", default=SCENE, help=f"embedded scene where the drive begins ({SCENE})")
    parser.add_argument("--seed", type=int, default=FIRST_HELD_OUT_SEED, help="of the first clip")
    parser.add_argument("--threads", type=int, default=2, help="processor threads (2)")
    parser.add_argument("--out", type=Path, required=True, help="the sheet, a .jpg file")
    parser.add_argument("--gif", type=Path, help="text to video, moving")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
