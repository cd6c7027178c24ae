"""The command line of generating: parse, call, print. Everything heavy is imported inside what needs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from drivesim import console
from drivesim.cli_generate.flags import (
    ActionFlags,
    DrawFlags,
    ImageFlags,
    InpaintFlags,
    PredictFlags,
    PromptFlags,
    StylizeFlags,
    TextFlags,
    with_flags,
)
from drivesim.errors import InputError

if TYPE_CHECKING:
    from drivesim.cli_generate.record import WeightsFacts
    from drivesim.generate import GenerateConfig, Generated
    from drivesim.scene.geometry import FloatArray
    from drivesim.world_model.drives import DriveStart
    from drivesim.world_model.long_clips import Clip
    from drivesim.world_model.video_model import VideoModel, VideoModelConfig
    from drivesim.world_model.world_model import WorldModel, WorldModelConfig

DEFAULT_SPEED_MPS, DEFAULT_STEPS = 8.0, 24

app = typer.Typer(
    help="Make clips and pictures with a general world model, or drive on from a picture with a driving one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
@with_flags
def text(flags: TextFlags) -> None:
    """Draw a clip, or with --frames 1 a picture, from a text alone."""
    from drivesim.generate import num_rounds, text_to_video

    model, run = _video_run("text", flags)
    length = flags.frames or model.config.num_frames
    run.draw(
        lambda config: text_to_video(model, flags.prompt, config),
        num_rounds(model, run.config, num_given=0, num_frames=length),
    )


@app.command()
@with_flags
def image(flags: ImageFlags) -> None:
    """Go on from a picture, as a text says."""
    model, run = _video_run("image", flags)
    _predict(model, run, _frames(model.config, image=flags.image))


@app.command()
@with_flags
def predict(flags: PredictFlags) -> None:
    """Go on from a video, as a text says."""
    model, run = _video_run("predict", flags)
    _predict(model, run, _frames(model.config, video=flags.video, count=flags.given))


@app.command()
@with_flags
def inpaint(flags: InpaintFlags) -> None:
    """Draw a part of a picture or video anew, as a text says."""
    from drivesim import generate
    from drivesim.cli_generate.files import read_mask

    model, run = _video_run("inpaint", flags)
    frames = _frames(model.config, image=flags.image, video=flags.video, count=flags.frames)
    mask = read_mask(flags.mask, frames.shape[:3])
    run.config.both_ways = generate.goes_both_ways(model, frames, mask, run.config)
    run.draw(
        lambda config: generate.inpaint(model, frames, mask, flags.prompt, config),
        generate.num_inpainting_rounds(model, frames, mask, run.config),
    )


@app.command()
@with_flags
def stylize(flags: StylizeFlags) -> None:
    """Draw a share of a picture or video anew, in the style that a text names."""
    from drivesim import generate

    model, run = _video_run("stylize", flags)
    frames = _frames(model.config, image=flags.image, video=flags.video, count=flags.frames)
    run.draw(
        lambda config: generate.stylize(model, frames, flags.prompt, strength=flags.strength, config=config),
        generate.num_rounds(model, run.config, num_given=0, num_frames=len(frames)),
    )


@app.command()
@with_flags
def action(flags: ActionFlags) -> None:
    """Drive on from a scene, picture or video with weights that read actions."""
    from drivesim.cli_generate.record import check_ranges, config_of, open_action_weights
    from drivesim.generate import action_to_video, num_drive_rounds

    started_s = _checked(flags)
    actions = _actions_of(flags)
    check_ranges({"steps": len(actions)})
    model, weights = open_action_weights(asdict(flags))
    start = _start_of(flags, model.config)
    num_given = len(start.frames)
    if flags.actions is None:
        actions = actions.repeat(flags.steps or _default_steps(model, num_given=num_given), axis=0)
        steering, speed = actions[0].tolist()
        # So that the record holds what was left out.
        flags = replace(flags, steering=steering, speed=speed, steps=len(actions))
    config = config_of(asdict(flags), model)
    run = _Run(task="action", flags=flags, weights=weights, config=config, started_s=started_s)
    run.draw(
        lambda config: action_to_video(
            model,
            start.frames,
            actions,
            twist=start.twist,
            camera=start.camera,
            places=start.places,
            config=config,
        ),
        num_drive_rounds(model, config, num_given=num_given, num_actions=len(actions)),
    )


# ------------------------------------------------------------------------------------------ what they share


@dataclass(kw_only=True, slots=True)
class _Run:
    """A command that may begin to draw."""

    task: str
    flags: DrawFlags
    weights: WeightsFacts
    config: GenerateConfig
    started_s: float

    def draw(self, draw: Callable[[GenerateConfig], Generated], num_rounds: int) -> None:
        """Draw under a progress bar, write the files, and say where they are."""
        from drivesim.cli_generate.files import write_generated
        from drivesim.cli_generate.record import record_of

        with console.progress_bar("drawing", num_rounds) as bar:
            result = draw(replace(self.config, on_round=bar.update))
        seconds = time.monotonic() - self.started_s
        record = record_of(self.task, asdict(self.flags), self.config, self.weights, seconds=seconds)
        files = write_generated(result, self.flags.out, record)
        console.say(f"{', '.join(map(str, files))}: drawn in {seconds:.1f} s")


def _checked(flags: DrawFlags) -> float:
    """Refuse what can be refused before anything is read; return the time."""
    from drivesim.cli_generate.files import check_inputs_stay, check_out
    from drivesim.cli_generate.record import check_ranges

    started_s = time.monotonic()
    check_ranges(asdict(flags))
    check_out(flags.out)
    check_inputs_stay(flags.out, asdict(flags))
    return started_s


def _video_run(task: str, flags: PromptFlags) -> tuple[VideoModel, _Run]:
    from drivesim.cli_generate.record import config_of, open_video_weights

    started_s = _checked(flags)
    model, weights = open_video_weights(asdict(flags))
    config = config_of(asdict(flags), model)
    model.prompt_encoder.prepared([flags.prompt, flags.negative_prompt])  # refuses what it cannot read
    return model, _Run(task=task, flags=flags, weights=weights, config=config, started_s=started_s)


def _predict(model: VideoModel, run: _Run, frames: Clip) -> None:
    from drivesim import generate

    assert isinstance(run.flags, PromptFlags)
    prompt, given = run.flags.prompt, len(frames)
    length = generate.predicted_length(model, run.config, num_given=given)
    run.draw(
        lambda config: generate.predict(model, frames, prompt, config),
        generate.num_rounds(model, run.config, num_given=given, num_frames=length),
    )


def _actions_of(flags: ActionFlags) -> FloatArray:
    """Return the actions (N, 2) of a file, or the one (1, 2) that is held."""
    from drivesim.cli_generate.files import read_actions
    from drivesim.dynamics import checked_actions

    if flags.actions is None:
        return checked_actions(
            [(flags.steering or 0.0, DEFAULT_SPEED_MPS if flags.speed is None else flags.speed)]
        )
    if any(value is not None for value in (flags.steering, flags.speed, flags.steps)):
        raise InputError(
            f"actions {flags.actions} say how to drive, so leave out steering, speed and steps, or the file"
        )
    return read_actions(flags.actions)


def _default_steps(model: VideoModel | WorldModel, *, num_given: int) -> int:
    from drivesim.world_model.video_model import VideoModel

    return max(1, model.config.num_frames - num_given) if isinstance(model, VideoModel) else DEFAULT_STEPS


def _start_of(flags: ActionFlags, weights: VideoModelConfig | WorldModelConfig) -> DriveStart:
    """Return the frames that a drive begins with, and what else is known of them."""
    from drivesim.cli_generate.files import read_scene
    from drivesim.world_model.drives import DriveStart
    from drivesim.world_model.world_model import WorldModelConfig

    if flags.scene is None:
        frames = _frames(weights, image=flags.image, video=flags.video, count=flags.given)
        return DriveStart(frames=frames)
    if flags.image is not None or flags.video is not None or flags.given is not None:
        raise InputError(
            f"--scene {flags.scene} says where the drive begins; leave out --image, --video and --given"
        )
    return read_scene(
        flags.scene,
        (weights.vqgan.height_px, weights.vqgan.width_px),
        rate_hz=weights.rate_hz,
        num_frames=weights.num_context_frames if isinstance(weights, WorldModelConfig) else 1,
    )


def _frames(
    weights: VideoModelConfig | WorldModelConfig,
    *,
    image: Path | None = None,
    video: Path | None = None,
    count: int | None = None,
) -> Clip:
    from drivesim.cli_generate.files import read_clip
    from drivesim.scene.media import MediaFile, read_picture

    size = weights.vqgan.height_px, weights.vqgan.width_px
    if image is not None and video is None and (count or 1) == 1:
        return read_picture(MediaFile(path=image), size)[None]
    if video is None or image is not None:
        raise InputError("give either --image, which is one frame, or --video")
    return read_clip(video, size, rate_hz=weights.rate_hz, num_frames=count)
