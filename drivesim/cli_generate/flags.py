"""The flags of `drivesim generate`: a dataclass for each command, so that what they share stands here once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer


@dataclass(kw_only=True, slots=True)
class DrawFlags:
    """Flags of every command; what is None is taken from the weights."""

    out: Annotated[
        Path,
        typer.Option(
            help=".mp4 or .gif, samples numbered; .png is a sheet, a row for each. How goes to OUT.json."
        ),
    ] = Path("out/generated.mp4")
    samples: Annotated[int, typer.Option(help="How many to draw.")] = 1
    seed: Annotated[int, typer.Option(help="Of the first sample; the next has the next number.")] = 0
    rounds: Annotated[int | None, typer.Option(help="Decoding rounds.")] = None
    revisions: Annotated[
        int | None, typer.Option(help="Rounds after those that draw some of the tokens again.")
    ] = None
    order: Annotated[
        str | None, typer.Option(help="Which tokens a round fixes first: confidence or random.")
    ] = None
    temperature: Annotated[
        float | None, typer.Option(help="Of drawing tokens; 0 takes the most probable.")
    ] = None
    weights: Annotated[str, typer.Option(help="Shipped weights by name, or a file.")] = "drive-tiny"
    device: Annotated[str, typer.Option(help="Where the model runs, such as cuda.")] = "cpu"
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False


TokenizerFolder = Annotated[
    Path | None,
    typer.Option(help="Folder of the public VQGAN, for weights that were trained around one."),
]
T5Name = Annotated[
    str | None,
    typer.Option(
        "--t5", help="Name or folder of the T5, for weights that read prompts by one; theirs if left out."
    ),
]


@dataclass(kw_only=True, slots=True)
class PromptFlags(DrawFlags):
    """Flags of what a text guides."""

    prompt: Annotated[str, typer.Option(help="What the clip shows.")] = ""
    negative_prompt: Annotated[str, typer.Option(help="What guidance leads away from.")] = ""
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Classifier-free guidance b: logits = (1 + b) conditional - b unconditional; 0 is none."
        ),
    ] = None
    guidance_schedule: Annotated[
        str | None, typer.Option(help="Over the rounds: constant, or linear from 0 on.")
    ] = None
    weights: Annotated[str, typer.Option(help="Shipped weights by name, or a file.")] = "general-tiny"
    tokenizer: TokenizerFolder = None
    t5: T5Name = None


NumFrames = Annotated[int | None, typer.Option(help="Of the result.")]
FramesRead = Annotated[
    int | None, typer.Option(help="How many of the video, from its start; all if left out.")
]
ImageFile = Annotated[Path | None, typer.Option(help="A picture, in place of --video.")]
VideoFile = Annotated[Path | None, typer.Option(help="A video of any rate, in place of --image.")]


@dataclass(kw_only=True, slots=True)
class TextFlags(PromptFlags):
    """Flags of text to video."""

    frames: NumFrames = None


@dataclass(kw_only=True, slots=True)
class ImageFlags(PromptFlags):
    """Flags of image to video."""

    image: Annotated[Path, typer.Option(help="The first frame: any picture, scaled and cropped evenly.")]
    frames: NumFrames = None


@dataclass(kw_only=True, slots=True)
class PredictFlags(PromptFlags):
    """Flags of prediction."""

    video: Annotated[Path, typer.Option(help="What comes before: any video, scaled and cropped evenly.")]
    given: FramesRead = None
    frames: NumFrames = None


@dataclass(kw_only=True, slots=True)
class InpaintFlags(PromptFlags):
    """Flags of inpainting."""

    image: ImageFile = None
    video: VideoFile = None
    frames: FramesRead = None
    mask: Annotated[
        str,
        typer.Option(
            help="White is drawn anew: a picture, a folder with one for each frame, or x,y,width,height in pixels of "
            "the weights' frame."
        ),
    ]
    both_ways: Annotated[
        bool | None,
        typer.Option(
            "--both-ways/--one-way",
            help="Fill in a clip forwards and backwards, or forwards only. Both ways take twice as long and help where "
            "later frames show what is hidden. If left out: both for holes of up to half of a frame's tokens, with "
            "weights that can. Pictures go one way.",
        ),
    ] = None


@dataclass(kw_only=True, slots=True)
class StylizeFlags(PromptFlags):
    """Flags of stylisation."""

    image: ImageFile = None
    video: VideoFile = None
    frames: FramesRead = None
    strength: Annotated[float, typer.Option(help="Share that is drawn anew, up to 1.")] = 0.6


@dataclass(kw_only=True, slots=True)
class ActionFlags(DrawFlags):
    """Flags of a drive."""

    scene: Annotated[
        str | None,
        typer.Option(help="Drive on from the first pictures of an embedded scene; see `drivesim scenes`."),
    ] = None
    image: ImageFile = None
    video: VideoFile = None
    given: FramesRead = None
    steering: Annotated[
        float | None, typer.Option(help="Road-wheel angle in rad, left positive; 0 if left out.")
    ] = None
    speed: Annotated[float | None, typer.Option(help="In m/s; 8 if left out.")] = None
    steps: Annotated[
        int | None,
        typer.Option(
            help="Frames to drive; if left out 24, or the rest of a clip of general weights after those given."
        ),
    ] = None
    actions: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns steering_rad,speed_mps, in place of these three."),
    ] = None
    tokenizer: TokenizerFolder = None
    t5: T5Name = None


def with_flags(command: Callable[[Any], None]) -> Callable[..., None]:
    """Let a function of a flags dataclass be called with its fields, each of them a flag of the command line."""
    (flags_type,) = (hint for name, hint in get_type_hints(command).items() if name != "return")
    hints = get_type_hints(flags_type, include_extras=True)
    own_first = sorted(fields(flags_type), key=lambda field: field.name in DrawFlags.__slots__)

    @functools.wraps(command)
    def called(**given: Any) -> None:
        command(flags_type(**given))

    called.__annotations__ = {field.name: hints[field.name] for field in own_first}
    called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=hints[field.name],
            )
            for field in own_first
        ]
    )
    return called
