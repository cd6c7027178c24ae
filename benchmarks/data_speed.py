"""How fast data reach a training run: `python -m benchmarks.data_speed --out F.json`.

Three ways to get a clip of 12 frames at 128x224, taken in turns: the image loader with two processes, a plain loop that
decodes the same JPEGs with PIL, and windows of a token set. The JPEGs are recordings of the reference world, once as
they are and once enlarged to nuScenes' 1600x900 with grain, so that they weigh what camera pictures weigh. No two clips
share a picture and nothing decoded is kept, so that both ways decode every picture. All files are read once before, so
the page cache holds them: what is measured is the processor, not the disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.report import Report, Target, check_out, parsed, run_command, run_facts
from benchmarks.timing import Timing, take_turns
from drivesim import console
from drivesim.metrics.image import psnr
from drivesim.reference.synth import synthesize
from drivesim.scene.clip_loader import ClipLoader, clip_loader
from drivesim.scene.frame_files import FrameFiles
from drivesim.scene.nuscenes import NuScenesDataset, open_dataset
from drivesim.scene.types import Scene
from drivesim.training.token_clips import stack
from drivesim.training.token_making import tokenize_scenes
from drivesim.training.token_manifest import Manifest, shard_path, write_manifest
from drivesim.training.token_plan import TokenizeConfig
from drivesim.training.token_shards import ShardedTokens
from drivesim.video import read_image, resize, write_image

WIDTH_PX, HEIGHT_PX = 224, 128
LARGE = (1600, 900)
LARGE_KEY, SMALL_KEY = "1600x900", "224x128"
GRAIN = 6.0  # grey levels, standard deviation
JPEG_QUALITY = 80
NUM_FRAMES, BATCH_SIZE, NUM_WORKERS = 12, 16, 2
TOKEN_BATCHES = 100  # in a measurement
MIN_TOKEN_CLIPS = 1000  # shards are copied up to here: more than a processor's cache holds
TARGETS = (
    Target(name="loader_vs_pil", key=LARGE_KEY, limit=1.5),
    Target(name="loader_vs_pil", key=SMALL_KEY, limit=1.5),
    Target(name="tokens_vs_loader", key=LARGE_KEY, limit=50),
    Target(name="tokens_vs_loader", key=SMALL_KEY, limit=50),
)
Call = Callable[[], object]


def pil_clip(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """Return the pictures of a clip, decoded as a loop of three lines would."""
    size = (WIDTH_PX, HEIGHT_PX)
    return np.stack([np.asarray(Image.open(path).convert("RGB").resize(size)) for path in paths])


def enlarged(scenes: Sequence[Scene], folder: Path) -> list[Scene]:
    """Return the scenes with pictures of nuScenes' size, written into a folder."""
    rng = np.random.default_rng(0)
    grain = rng.normal(0.0, GRAIN, (2 * LARGE[1], LARGE[0], 3)).astype(np.int16)
    results = []
    with console.progress_bar("enlarging pictures", sum(map(len, scenes))) as bar:
        for scene in scenes:
            paths: list[Path] = []
            for picture in scene.frames:
                offset = int(rng.integers(LARGE[1]))
                large = resize(picture, *LARGE) + grain[offset : offset + LARGE[1]]
                paths.append(folder / scene.name / f"{len(paths):04}.jpg")
                write_image(paths[-1], np.clip(large, 0, 255).astype(np.uint8), quality=JPEG_QUALITY)
                bar.advance()
            results.append(replace(scene, frames=FrameFiles(paths, WIDTH_PX, HEIGHT_PX)))
    return results


def clips_of(scenes: Sequence[Scene]) -> list[list[Path]]:
    """Return the files of all clips that share no picture."""
    clips = []
    for scene in scenes:
        assert isinstance(scene.frames, FrameFiles)
        paths = scene.frames.paths
        clips += [
            paths[start : start + NUM_FRAMES] for start in range(0, len(paths) - NUM_FRAMES + 1, NUM_FRAMES)
        ]
    return clips


def loader_of(scenes: Sequence[Scene], *, stride: int = NUM_FRAMES, num_kept_frames: int = 0) -> ClipLoader:
    """Return the image loader that is measured."""
    return clip_loader(
        scenes,
        num_frames=NUM_FRAMES,
        stride=stride,
        batch_size=BATCH_SIZE,
        num_workers=NUM_WORKERS,
        shuffle=num_kept_frames == 0,
        num_kept_frames=num_kept_frames,
    )


def passes(loader: ClipLoader, count: int) -> int:
    """Read everything ``count`` times; return the clips."""
    return sum(len(batch) for _ in range(count) for batch in loader)


def enough_tokens(made: Manifest, folder: Path, larger: Path) -> ShardedTokens:
    """Return a token set of copied shards, as many as hold a thousand clips or more."""
    full = [n for n in range(len(made.shards)) if len(made.planned(n)) == made.settings.clips_per_shard]
    numbers = [full[i % len(full)] for i in range(-(-MIN_TOKEN_CLIPS // made.settings.clips_per_shard))]
    larger.mkdir()
    for copy, number in enumerate(numbers):
        shutil.copyfile(shard_path(folder, number), shard_path(larger, copy))
    plan = [clip for number in numbers for clip in made.planned(number)]
    write_manifest(larger, replace(made, clips=plan, shards=[made.shards[number] for number in numbers]))
    return ShardedTokens.open(larger)


def read_windows(tokens: ShardedTokens, rng: np.random.Generator, num_batches: int) -> None:
    """Draw batches of random windows, as training does."""
    for _ in range(num_batches):
        clips = rng.integers(len(tokens), size=BATCH_SIZE)
        starts = rng.integers(tokens.frames_per_clip - NUM_FRAMES + 1, size=BATCH_SIZE)
        stack([tokens.window(int(i), int(t), NUM_FRAMES) for i, t in zip(clips, starts, strict=True)])


def reduced_psnr_db(scenes: Sequence[Scene], *, count: int = 24) -> float:
    """Return the lowest PSNR of pictures decoded at a part of their size against full decoding and shrinking."""
    lowest = np.inf
    for clip in clips_of(scenes)[:count]:
        fast = FrameFiles(clip[:1], WIDTH_PX, HEIGHT_PX)[0]
        full = resize(read_image(clip[0]), WIDTH_PX, HEIGHT_PX)
        lowest = min(lowest, float(psnr(fast[None], full[None])[0]))
    return lowest


def measure(folder: Path, *, num_scenes: int, num_rounds: int, weights: str) -> Report:
    """Make the data in an empty folder, then measure."""
    synthesize(folder / "set", num_scenes=num_scenes, seed=0)
    dataset = open_dataset(folder / "set")
    scenes = [dataset.load(name) for name in dataset.scene_names()]
    tokens = _tokens(dataset, folder, weights)
    report = Report(title="data speed", targets=TARGETS)
    sources = {LARGE_KEY: (enlarged(scenes, folder / "large"), 1), SMALL_KEY: (scenes, 8)}
    for key, (source, num_passes) in sources.items():
        _measure_source(report, key, source, tokens, num_passes=num_passes, num_rounds=num_rounds)
    report.add("tokens_mb", sum(path.stat().st_size for path in tokens.path.glob("*.safetensors")) / 1e6)
    report.add(
        "reduced_decoding_psnr_db",
        reduced_psnr_db(sources[LARGE_KEY][0]),
        note="lowest of a sample: JPEGs decoded at a quarter against full decoding, both shrunk by area",
    )
    return report


def _tokens(dataset: NuScenesDataset, folder: Path, weights: str) -> ShardedTokens:
    """Return tokens whose pasts are the truth: which they are makes no difference to reading, and this is quicker."""
    config = TokenizeConfig(
        clips_per_shard=4, imagined_share=0.0, num_validation_clips=1, num_workers=NUM_WORKERS
    )
    made = tokenize_scenes(dataset, weights, folder / "tokens", config)
    return enough_tokens(made, folder / "tokens", folder / "more-tokens")


def _measure_source(
    report: Report,
    key: str,
    scenes: Sequence[Scene],
    tokens: ShardedTokens,
    *,
    num_passes: int,
    num_rounds: int,
) -> None:
    clips, loader = clips_of(scenes), loader_of(scenes)
    overlapping = loader_of(scenes, stride=3, num_kept_frames=4 * NUM_FRAMES)
    rng = np.random.default_rng(0)
    counts = {
        "loader": num_passes * len(clips),
        "pil": num_passes * len(clips),
        "tokens": TOKEN_BATCHES * BATCH_SIZE,
        "loader_overlapping": passes(overlapping, 1),
    }
    contenders: dict[str, Call] = {
        "loader": lambda: passes(loader, num_passes),
        "pil": lambda: [pil_clip(clip) for _ in range(num_passes) for clip in clips],
        "tokens": lambda: read_windows(tokens, rng, TOKEN_BATCHES),
        "loader_overlapping": lambda: passes(overlapping, 1),
    }
    timings = take_turns(f"reading {key}", contenders, num_rounds=num_rounds)
    _add(report, key, {name: counts[name] / timing.median_s for name, timing in timings.items()}, timings)


def _add(report: Report, key: str, clips_per_s: dict[str, float], timings: dict[str, Timing]) -> None:
    """Add clips per second and the ratios, at the middle of the samples and between their ends."""
    for name, value in clips_per_s.items():
        report.add(f"clips_per_s_{name}", value, key=key)
    for name, (one, other) in {
        "loader_vs_pil": ("loader", "pil"),
        "tokens_vs_loader": ("tokens", "loader"),
    }.items():
        report.add(name, clips_per_s[one] / clips_per_s[other], key=key)
        spread = [timings[part].max_s / timings[part].min_s for part in (one, other)]
        report.add(
            f"{name}_spread", max(spread), key=key, note="slowest over fastest round of the less steady one"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print, write."""
    options = parse(arguments)
    check_out(options.out)
    with tempfile.TemporaryDirectory(prefix="drivesim-data-speed-") as folder:
        report = measure(
            Path(folder),
            num_scenes=3 if options.quick else options.scenes,
            num_rounds=3 if options.quick else options.rounds,
            weights=options.weights,
        )
    report.facts = {
        "clip": f"{NUM_FRAMES} frames of {WIDTH_PX}x{HEIGHT_PX}",
        "processes": NUM_WORKERS,
        "processors": os.cpu_count(),
        "page_cache": "warm: every file was read before",
        **run_facts(options),
    }
    report.show()
    report.write(options.out)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_speed", description=__doc__)
    parser.add_argument("--scenes", type=int, default=6, help="scenes of 91 pictures to read (6)")
    parser.add_argument("--rounds", type=int, default=7, help="turns that each way gets (7)")
    parser.add_argument("--quick", action="store_true", help="3 scenes, 3 rounds")
    parser.add_argument("--weights", default="drive-tiny", help="world model that makes the tokens")
    parser.add_argument("--out", type=Path, required=True, help="json file")
    return parsed(parser, arguments)


if __name__ == "__main__":
    run_command(main)
