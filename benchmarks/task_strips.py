"""What the sheet of tasks shows: clips of every task of the general model, and drives of a driving one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.generation_cases import Mask, flip_cases, inpainting_cases, prompt_cases
from benchmarks.generation_inpainting import filled_with_mean
from drivesim import console
from drivesim.general_world.captions import SETTING_WORDS
from drivesim.general_world.content import Image, SceneSpec, Setting
from drivesim.general_world.renderer import render
from drivesim.general_world.sampling import Split
from drivesim.generate import (
    GenerateConfig,
    action_to_video,
    image_to_video,
    inpaint,
    predict,
    stylize,
    text_to_video,
)
from drivesim.scene.nuscenes import embedded_dataset
from drivesim.scene.types import Scene
from drivesim.world_model.drives import scene_start
from drivesim.world_model.video_model import VideoModel
from drivesim.world_model.world_model import WorldModel

NUM_SEEDS = 6  # that all tasks take
GIVEN_SHARE = 0.25  # of the frames of a clip, before a prediction
STRENGTH = 0.97  # of stylisation: with more of the clip kept, the time of day stays as it was
STEERING_RAD, SPEED_MPS, DRIVE_FRAMES = 0.04, 8.0, 16
OUTLINE_PX, WHITE = 2, 255


@dataclass(kw_only=True, slots=True)
class Strip:
    """A clip under a line of text."""

    label: str
    frames: Image  # (T, H, W, 3)
    num_given: int = 0  # frames that were not generated; they are marked


Task = Callable[[VideoModel, int], list[Strip]]
"""From a model and a first seed to strips."""


# ------------------------------------------------------------------------------------------ general model


def task_strips(model: VideoModel, first_seed: int) -> list[Strip]:
    """Return strips of all tasks but the driving one."""
    tasks: dict[str, tuple[Task, int]] = {
        "text to video": (text_strips, first_seed),
        "image to video": (image_strips, first_seed + 2),
        "prediction": (prediction_strips, first_seed + 3),
        "inpainting": (inpainting_strips, first_seed + 4),
        "stylisation": (stylisation_strips, first_seed + 5),
    }
    strips = []
    with console.progress_bar("tasks", len(tasks)) as bar:
        for name, (task, seed) in tasks.items():
            for strip in task(model, seed):
                strip.label = f"{name}: {strip.label}"
                strips.append(strip)
            bar.advance()
    return strips


def text_strips(model: VideoModel, first_seed: int) -> list[Strip]:
    """Return a clip of a combination that training has seen, and one of a held-out one."""
    strips = []
    for offset, split in enumerate(Split):
        [case] = prompt_cases(split, 1, first_seed=first_seed + offset)
        prompt = in_setting(case.prompt, case.scene.setting)
        result = text_to_video(model, prompt, GenerateConfig(seed=case.seed))
        note = "" if split is Split.SEEN else " (not seen together in training)"
        strips.append(Strip(label=f'"{prompt}"{note}', frames=result.frames[0]))
    return strips


def image_strips(model: VideoModel, first_seed: int) -> list[Strip]:
    """Return what becomes of one image under two opposite prompts."""
    [case] = flip_cases(1, first_seed=first_seed)
    image = true_clip(model, case.scene)[0]
    strips = []
    for motion in case.motions:
        prompt = case.prompt_of(motion)
        result = image_to_video(model, image, prompt, GenerateConfig(seed=case.seed))
        strips.append(Strip(label=f'"{prompt}"', frames=result.frames[0], num_given=1))
    return strips


def prediction_strips(model: VideoModel, first_seed: int) -> list[Strip]:
    """Return how a clip goes on after its first frames, without a text."""
    [case] = prompt_cases(Split.SEEN, 1, first_seed=first_seed)
    num_given = max(1, round(GIVEN_SHARE * model.config.num_frames))
    given = true_clip(model, case.scene)[:num_given]
    result = predict(model, given, config=GenerateConfig(seed=case.seed, num_frames=model.config.num_frames))
    label = f"{num_given} of {model.config.num_frames} frames given, no text"
    return [Strip(label=label, frames=result.frames[0], num_given=num_given)]


def inpainting_strips(model: VideoModel, first_seed: int) -> list[Strip]:
    """Return a clip with a hidden rectangle, and what is filled in."""
    size = model.config.vqgan
    [case] = inpainting_cases(1, first_seed=first_seed, height_px=size.height_px, width_px=size.width_px)
    given = filled_with_mean(true_clip(model, case.scene), case.mask)
    result = inpaint(model, given, case.mask, case.prompt, GenerateConfig(seed=case.seed))
    return [
        Strip(label="given, with a rectangle hidden", frames=outlined(given, case.mask)),
        Strip(label=f'filled in as "{case.prompt}"', frames=result.frames[0]),
    ]


def stylisation_strips(model: VideoModel, first_seed: int) -> list[Strip]:
    """Return a clip, and the same in another place."""
    [case] = prompt_cases(Split.SEEN, 1, first_seed=first_seed)
    given = true_clip(model, case.scene)
    setting = Setting.SUNSET if case.scene.setting is Setting.NIGHT else Setting.NIGHT
    prompt = in_setting(case.prompt, setting)
    result = stylize(model, given, prompt, strength=STRENGTH, config=GenerateConfig(seed=case.seed))
    return [
        Strip(label=f'given, "{in_setting(case.prompt, case.scene.setting)}"', frames=given),
        Strip(label=f'{STRENGTH:.0%} redrawn as "{prompt}"', frames=result.frames[0]),
    ]


def in_setting(prompt: str, setting: Setting) -> str:
    """Return a plain sentence with the place where it happens."""
    return f"{prompt} {SETTING_WORDS[setting][0]}"


def true_clip(model: VideoModel, scene: SceneSpec) -> Image:
    """Render a scene with the frames of a model."""
    size = model.config.vqgan
    return render(scene, model.config.num_frames, size.height_px, size.width_px)


# ------------------------------------------------------------------------------------------ driving model


def load_scene(name: str, model: WorldModel) -> Scene:
    """Load an embedded scene at the rate and size of a driving model."""
    size = model.config.vqgan
    return embedded_dataset().load(
        name, rate_hz=model.rate_hz, width_px=size.width_px, height_px=size.height_px
    )


def action_strips(model: WorldModel, scene: Scene) -> list[Strip]:
    """Return drives from the beginning of a scene, to the left and to the right; of what is given, the last frame."""
    start = scene_start(scene, model.num_context_frames)
    strips = []
    for side, steering_rad in {"left": STEERING_RAD, "right": -STEERING_RAD}.items():
        actions = np.tile([steering_rad, SPEED_MPS], (DRIVE_FRAMES - 1, 1))
        result = action_to_video(
            model, start.frames, actions, twist=start.twist, camera=start.camera, places=start.places
        )
        label = f"action to video: steering {STEERING_RAD:g} rad to the {side} at {SPEED_MPS:g} m/s"
        frames = np.concatenate([start.frames[-1:], result.frames[0]])
        strips.append(Strip(label=label, frames=frames, num_given=1))
    return strips


def outlined(frames: Image, mask: Mask) -> Image:
    """Return a copy with a white line along the inside of a rectangle."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    is_inner = np.zeros_like(mask)
    is_inner[rows[OUTLINE_PX:-OUTLINE_PX, None], columns[OUTLINE_PX:-OUTLINE_PX]] = True
    shown = frames.copy()
    shown[:, mask & ~is_inner] = WHITE
    return shown
