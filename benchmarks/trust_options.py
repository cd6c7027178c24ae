"""The command line of the trust benchmark: what is driven unless it says otherwise, and what has no meaning."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.closed_loop import add_speed_options, check_policies, split_names
from benchmarks.driving_scenes import checked_scene_names
from benchmarks.hazard_choice import add_hazard_head_option
from benchmarks.held_out import add_seed_option
from benchmarks.report import parsed
from drivesim.errors import InputError
from drivesim.policy_naming import SETTINGS_HELP

DEFAULT_POLICIES = (
    "pure-pursuit",
    "replay",
    "idm",
    "lane-keeping",
    "benchmarks.looking_policies:LateLaneKeeping",
    "benchmarks.looking_policies:HastyLaneKeeping",
    "benchmarks.looking_policies:LateIdm",
    "benchmarks.looking_policies:TailgatingIdm",
    "constant",
    "timid",
    "reckless",
    "late-steering",
    "oscillating",
    "left-drifting",
    "blind",
    "random",
)


@dataclass(kw_only=True, slots=True, frozen=True)
class Extent:
    """How much is driven unless the command line says otherwise."""

    num_scenes: int
    steps: int


FULL = Extent(num_scenes=24, steps=60)
QUICK = Extent(num_scenes=3, steps=24)


def parse(arguments: Sequence[str] | None, *, description: str | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=description)
    parser.add_argument(
        "--policies",
        nargs="+",
        default=list(DEFAULT_POLICIES),
        help=f"names, module:Class or files, also separated by commas ({','.join(DEFAULT_POLICIES)}); {SETTINGS_HELP}",
    )
    add_seed_option(parser)
    parser.add_argument("--num-scenes", type=int, help=f"roads to drive ({FULL.num_scenes})")
    parser.add_argument(
        "--scenes", nargs="+", help="embedded scenes or roads by name, or all, instead of roads"
    )
    parser.add_argument(
        "--seeds-per-scene", type=int, default=1, help="drives of each policy on each road (1)"
    )
    parser.add_argument("--steps", type=int, help=f"steps of a drive ({FULL.steps})")
    parser.add_argument(
        "--weights", default="drive-tiny", help="world model: shipped name or .safetensors file"
    )
    parser.add_argument(
        "--no-confidence-limit",
        action="store_true",
        help="let the imagined world go on where the model no longer knows, as the ground truth does",
    )
    add_hazard_head_option(parser)
    parser.add_argument("--device", default="cpu", help="where the world model runs (cpu)")
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds that an action may take (10)")
    parser.add_argument("--quick", action="store_true", help="fewer roads, shorter drives: a first look")
    parser.add_argument(
        "--episodes",
        type=Path,
        metavar="DIR",
        help="keep every episode there, where no other run may write meanwhile; what it has is not driven again, so "
        "a run that was killed goes on (OUT-episodes beside --out; remove it to drive anew)",
    )
    parser.add_argument("--out", type=Path, required=True, help="json file; a page lies beside it")
    add_speed_options(parser)
    return _completed(parsed(parser, arguments))


def _completed(options: argparse.Namespace) -> argparse.Namespace:
    """Fill in what depends on ``--quick`` and refuse what has no meaning."""
    extent = QUICK if options.quick else FULL
    for name in ("num_scenes", "steps"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(extent, name))
    for name in ("num_scenes", "steps", "seeds_per_scene", "batch", "threads", "processes"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    options.policies = split_names(options.policies)
    if len(options.policies) < 2:
        raise InputError(
            f"a ranking needs at least two policies, got {options.policies}; name more (--policies)"
        )
    if options.scenes:
        options.scenes = checked_scene_names(split_names(options.scenes))
    check_policies(options.policies)
    if options.episodes is None:
        options.episodes = options.out.with_name(f"{options.out.stem}-episodes")
    return options
