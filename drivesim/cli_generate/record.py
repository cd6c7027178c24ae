"""What the flags of a command come to: weights and settings, and a record of both that makes the clip again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from drivesim.checkpoint import read_header, resolve_weights
from drivesim.cli_generate.files import MAX_FRAMES, fingerprint
from drivesim.config_json import config_to_json
from drivesim.errors import InputError, nearest
from drivesim.generate import GenerateConfig
from drivesim.world_model.clip_completion import GuidanceSchedule
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.pretrained_video import KIND as VIDEO_KIND
from drivesim.world_model.pretrained_video import load_video_model
from drivesim.world_model.sampler import UnmaskOrder
from drivesim.world_model.video_model import VideoModel
from drivesim.world_model.world_model import WorldModel

Flags = Mapping[str, Any]
"""Flags by their Python names; those left out are None or not there."""

EnumT = TypeVar("EnumT", bound=Enum)
DRIVE_KIND = "world-model"
RANGES: dict[str, tuple[float, float]] = {
    "samples": (1, 64),
    "seed": (0, 2**63 - 1),
    "rounds": (1, 1000),
    "revisions": (0, 1000),
    "temperature": (0, 100),
    "guidance": (0, 100),
    "frames": (1, MAX_FRAMES),
    "given": (1, MAX_FRAMES),
    "steps": (1, MAX_FRAMES),
}
_SWITCHES = {"both_ways": ("--both-ways", "--one-way")}
_INPUTS = ("image", "video", "mask", "actions")


# ----------------------------------------------------------------------------------------------- weights


@dataclass(kw_only=True, slots=True)
class WeightsFacts:
    """Which weights they are, and in what numbers they run."""

    name: str
    kind: str
    sha256: str  # of the tensors
    device: str
    dtype: str


def open_video_weights(flags: Flags) -> tuple[VideoModel, WeightsFacts]:
    """Load the general world model that the flags name.

    Raises:
        InputError: unknown, damaged or driving weights, a tokenizer or T5 that they do not take, or no such device.
    """
    name = flags["weights"]
    kind, sha256 = _header(resolve_weights(name))
    if kind == DRIVE_KIND:
        raise InputError(
            f"{name} holds a {kind}, which drives and reads no text: take a {VIDEO_KIND} such as general-tiny, or "
            "drive with `drivesim generate action`"
        )
    model = load_video_model(
        name, device=flags["device"], public_tokenizer=flags["tokenizer"], t5=flags["t5"]
    )
    if flags["tokenizer"] is not None and not model.config.public_tokenizer:
        raise InputError(f"{name} holds its own tokenizer; leave out --tokenizer {flags['tokenizer']}")
    return model, _facts(name, kind, sha256, model)


def open_action_weights(flags: Flags) -> tuple[WorldModel | VideoModel, WeightsFacts]:
    """Load the driving world model that the flags name, or the general one if it reads actions.

    Raises:
        InputError: unknown or damaged weights, those of a general world model that reads none, or no such device.
    """
    name = flags["weights"]
    kind, sha256 = _header(resolve_weights(name))
    if kind == VIDEO_KIND:
        video_model, facts = open_video_weights(flags)
        if video_model.action_encoder is None:
            raise InputError(
                f"{name} holds a {kind} without action tokens, which reads no actions; take a {DRIVE_KIND} such as "
                "drive-tiny, or go on from a picture with `drivesim generate image`"
            )
        return video_model, facts
    if kind == DRIVE_KIND and (flags["tokenizer"] is not None or flags["t5"] is not None):
        raise InputError(
            f"{name} holds a {kind}, which has its own tokenizer and reads no text; leave out --tokenizer and --t5"
        )
    model = load_world_model(name, device=flags["device"])
    return model, _facts(name, kind, sha256, model)


def _header(path: Path) -> tuple[str, str]:
    """Return kind and hash; empty where the file does not say, which loading it will find out."""
    header = read_header(path)
    return header.get("kind", ""), header.get("sha256", "")


def _facts(name: str, kind: str, sha256: str, model: VideoModel | WorldModel) -> WeightsFacts:
    weight = next(model.parameters())
    dtype = str(weight.dtype).removeprefix("torch.")
    return WeightsFacts(name=name, kind=kind, sha256=sha256, device=str(weight.device), dtype=dtype)


# ---------------------------------------------------------------------------------------------- settings


def check_ranges(flags: Flags) -> None:
    """Refuse numbers without meaning.

    Raises:
        InputError: one is out of its range, or not a number.
    """
    for name, (least, most) in RANGES.items():
        value = flags.get(name)
        if value is not None and not least <= value <= most:
            raise InputError(f"--{name} {value} must be a number from {least} to {most}")


def config_of(flags: Flags, model: VideoModel | WorldModel) -> GenerateConfig:
    """Return the settings that the flags ask for over those of the weights.

    Raises:
        InputError: a flag names an order or schedule that there is not.
    """
    guidance = None
    if isinstance(model, VideoModel):
        schedule = _member(GuidanceSchedule, "guidance_schedule", flags)
        guidance = replace(model.config.guidance, **_given(scale=flags.get("guidance"), schedule=schedule))
    return GenerateConfig(
        seed=flags["seed"],
        num_samples=flags["samples"],
        num_frames=flags.get("frames"),
        negative_prompt=flags.get("negative_prompt") or "",
        both_ways=flags.get("both_ways"),
        sampler=replace(
            model.config.sampler,
            **_given(
                num_decode_steps=flags.get("rounds"),
                num_revisions=flags.get("revisions"),
                temperature=flags.get("temperature"),
                order=_member(UnmaskOrder, "order", flags),
            ),
        ),
        guidance=guidance,
    )


def record_of(
    task: str, flags: Flags, config: GenerateConfig, weights: WeightsFacts, *, seconds: float
) -> dict[str, Any]:
    """Return how a clip was made: the command that makes it again, and all that it depends on.

    Args:
        task: the command.
        flags: its flags.
        config: what they and the weights came to.
        weights: which they were.
        seconds: how long it took.
    """
    flags = _resolved(flags, config)
    words = [word for name, value in flags.items() for word in _words(name, value)]
    files = {name: Path(str(flags[name])) for name in _INPUTS if name in flags}
    return {
        "task": task,
        "command": shlex.join(["drivesim", "generate", task, *words]),
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in flags.items()},
        "sampler": config_to_json(config.sampler),
        "guidance": config_to_json(config.guidance),
        "inputs_sha256": {name: fingerprint(path) for name, path in files.items() if path.exists()},
        "weights": asdict(weights),
        "drivesim": version("drivesim"),
        "torch": str(torch.__version__),
        "seconds": round(seconds, 2),
    }


def _words(name: str, value: Any) -> list[str]:
    """Return the words of a command line that set a flag; those that are on or off stand in ``_SWITCHES``."""
    if isinstance(value, bool):
        return [_SWITCHES[name][0 if value else 1]]
    return [f"--{name.replace('_', '-')}", str(value)]


def _resolved(flags: Flags, config: GenerateConfig) -> dict[str, Any]:
    """Return all flags of the command that have a value, those of the weights too."""
    assert config.sampler is not None
    of_weights: dict[str, Any] = {
        "rounds": config.sampler.num_decode_steps,
        "revisions": config.sampler.num_revisions,
        "order": config.sampler.order.value,
        "temperature": config.sampler.temperature,
    }
    if config.guidance is not None:
        of_weights |= {"guidance": config.guidance.scale, "guidance_schedule": config.guidance.schedule.value}
    if config.both_ways is not None:
        of_weights["both_ways"] = config.both_ways
    known = {name: of_weights.get(name, value) for name, value in flags.items()}
    return {name: value for name, value in known.items() if value is not None and name != "debug"}


def _member(kind: type[EnumT], flag: str, flags: Flags) -> EnumT | None:
    value = flags.get(flag)
    names = [member.value for member in kind]
    if value is not None and value not in names:
        raise InputError(f"--{flag.replace('_', '-')} {value!r} is unknown; {nearest(value, names)}")
    return None if value is None else kind(value)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
