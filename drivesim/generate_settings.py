"""From the flags of a command to settings over those of the weights, and from settings to a record of what was done."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from drivesim.checkpoint import config_to_json
from drivesim.errors import InputError, nearest
from drivesim.generate import GenerateConfig
from drivesim.generate_files import MAX_FRAMES, fingerprint
from drivesim.generate_weights import WeightsFacts
from drivesim.world_model.sampler import SamplerConfig, UnmaskOrder
from drivesim.world_model.video_model import GuidanceConfig, GuidanceSchedule

Flags = Mapping[str, Any]
"""Flags by their Python names; those left out are None or not there."""

EnumT = TypeVar("EnumT", bound=Enum)
RANGES: dict[str, tuple[float, float]] = {
    "samples": (1, 64),
    "seed": (0, 2**63 - 1),
    "rounds": (1, 1000),
    "temperature": (0, 100),
    "guidance": (0, 100),
    "frames": (1, MAX_FRAMES),
    "given": (1, MAX_FRAMES),
    "steps": (1, MAX_FRAMES),
}
_INPUTS = ("image", "video", "mask", "actions")


def check_ranges(flags: Flags) -> None:
    """Refuse numbers without meaning.

    Raises:
        InputError: one is out of its range, or not a number.
    """
    for name, (least, most) in RANGES.items():
        value = flags.get(name)
        if value is not None and not least <= value <= most:
            raise InputError(f"--{name} {value} must be a number from {least} to {most}")


def config_of(flags: Flags, sampler: SamplerConfig, guidance: GuidanceConfig | None = None) -> GenerateConfig:
    """Return the settings that the flags ask for.

    Args:
        flags: of the command.
        sampler: of the weights.
        guidance: of the weights; None where there is none.

    Raises:
        InputError: a flag names an order or schedule that there is not.
    """
    if guidance is not None:
        schedule = _member(GuidanceSchedule, "guidance_schedule", flags)
        guidance = replace(guidance, **_given(scale=flags.get("guidance"), schedule=schedule))
    return GenerateConfig(
        seed=flags["seed"],
        num_samples=flags["samples"],
        num_frames=flags.get("frames"),
        negative_prompt=flags.get("negative") or "",
        sampler=replace(
            sampler,
            **_given(
                num_decode_steps=flags.get("rounds"),
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
    words = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    files = {name: Path(str(flags[name])) for name in _INPUTS if name in flags}
    return {
        "task": task,
        "command": shlex.join(["drivesim", "generate", task, *words]),
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in flags.items()},
        "sampler": config_to_json(config.sampler),
        "guidance": config_to_json(config.guidance),
        "inputs_sha256": {name: fingerprint(path) for name, path in files.items() if path.exists()},
        "weights": weights.to_json(),
        "drivesim": version("drivesim"),
        "torch": str(torch.__version__),
        "seconds": round(seconds, 2),
    }


def _resolved(flags: Flags, config: GenerateConfig) -> dict[str, Any]:
    """Return all flags that have a value, those of the weights too."""
    assert config.sampler is not None
    of_weights: dict[str, Any] = {
        "rounds": config.sampler.num_decode_steps,
        "order": config.sampler.order.value,
        "temperature": config.sampler.temperature,
    }
    if config.guidance is not None:
        of_weights |= {"guidance": config.guidance.scale, "guidance_schedule": config.guidance.schedule.value}
    return {k: v for k, v in {**flags, **of_weights}.items() if v is not None and k != "debug"}


def _member(kind: type[EnumT], flag: str, flags: Flags) -> EnumT | None:
    value = flags.get(flag)
    names = [member.value for member in kind]
    if value is not None and value not in names:
        raise InputError(f"--{flag.replace('_', '-')} {value!r} is unknown; {nearest(value, names)}")
    return None if value is None else kind(value)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
