"""How often the readers are right about clips whose truth is known: `python -m benchmarks.reading_accuracy`.

Colour, shape and direction are those of one object before a still camera; camera work is read from scenes with
at most one object, as many of each kind. The clips are read as drawn and after they were shrunk and enlarged again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from benchmarks.readers import read_camera, read_clip
from benchmarks.report import run_command
from drivesim import console
from drivesim.general_world.content import CameraMotion, Image, SceneSpec
from drivesim.general_world.renderer import render
from drivesim.general_world.sampling import Split, draw_prompt_scene, draw_scene
from drivesim.video import resize

_SHRINKAGES = (1, 2, 3)


def prompt_accuracy(split: Split, num_clips: int, shrinkage: int, seed: int) -> list[float]:
    """Return the shares of clips whose colour, shape and direction are read as they are."""
    rng = np.random.default_rng(seed)
    is_right = []
    for _ in range(num_clips):
        scene = draw_prompt_scene(rng, split)
        truth, reading = scene.objects[0], read_clip(softened(render(scene), shrinkage))
        is_right.append(
            [
                reading.color is truth.color,
                reading.shape is truth.shape,
                reading.direction is truth.motion,
            ]
        )
    return [float(share) for share in np.mean(is_right, axis=0)]


def camera_accuracy(num_clips: int, shrinkage: int, seed: int) -> float:
    """Return the share of clips whose camera work is read as it is, over as many clips of each kind."""
    rng = np.random.default_rng(seed)
    cameras = list(CameraMotion)
    is_right = []
    for index in range(num_clips):
        camera = cameras[index % len(cameras)]
        scene = _draw_with(camera, rng)
        is_right.append(read_camera(softened(render(scene), shrinkage)) is camera)
    return float(np.mean(is_right))


def softened(frames: Image, shrinkage: int) -> Image:
    """Return frames that went through a picture so many times narrower and lower."""
    height_px, width_px = frames.shape[1:3]
    small = [resize(frame, width_px // shrinkage, height_px // shrinkage) for frame in frames]
    return np.stack([resize(frame, width_px, height_px) for frame in small])


def _draw_with(camera: CameraMotion, rng: np.random.Generator) -> SceneSpec:
    while True:
        scene = draw_scene(rng, Split.SEEN)
        if scene.camera is camera and len(scene.objects) < 2:
            return scene


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading_accuracy", description=__doc__)
    parser.add_argument("--clips", type=int, default=200, help="clips per line of the table")
    parser.add_argument("--seed", type=int, default=0, help="of the clips")
    options = parser.parse_args(arguments)
    rows = []
    for shrinkage in _SHRINKAGES:
        camera = camera_accuracy(options.clips, shrinkage, options.seed)
        for split in Split:
            shares = prompt_accuracy(split, options.clips, shrinkage, options.seed)
            rows.append((split.value, f"1/{shrinkage}", *shares, camera))
    columns = ("combinations", "resolution", "colour", "shape", "direction", "camera")
    console.print_table("share of clips read rightly", columns, rows, caption=f"{options.clips} clips each")


if __name__ == "__main__":
    run_command(main)
