"""The command line of the fidelity benchmark: what is measured unless it says otherwise, and what has no meaning."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import lane_drives
from benchmarks.fidelity_figures import HORIZON, NUM_STARTS
from benchmarks.held_out import add_seed_option
from benchmarks.report import member_named, parsed
from drivesim.errors import InputError
from drivesim.metrics.image import Extractor
from drivesim.world_model.sampler import UnmaskOrder


@dataclass(kw_only=True, slots=True, frozen=True)
class Extent:
    """How much is measured unless the command line says otherwise."""

    num_scenes: int
    starts: int
    drift_roads: int
    drift_steps: int


FULL = Extent(
    num_scenes=64, starts=NUM_STARTS, drift_roads=lane_drives.NUM_ROADS, drift_steps=lane_drives.NUM_STEPS
)
QUICK = Extent(num_scenes=10, starts=10, drift_roads=2, drift_steps=100)
FRAMES = 48  # of a road
# What a run may differ in and still be the full or the quick one: figures do not depend on it, or only come on top.
FREE = ("command", "out", "threads", "quick", "takes_fewer", *(kind.value for kind in Extractor))


def parse(arguments: Sequence[str] | None, *, description: str | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=description)
    parser.add_argument("--weights", default="drive-tiny", help="shipped name or .safetensors file")
    parser.add_argument("--idm", default="inverse-dynamics", help="inverse dynamics weights, or none")
    parser.add_argument("--scenes", nargs="+", help="embedded scenes by name, or all, instead of new roads")
    add_seed_option(parser)
    parser.add_argument("--num-scenes", type=int, help=f"roads to record ({FULL.num_scenes})")
    parser.add_argument("--frames", type=int, help=f"frames per road ({FRAMES})")
    parser.add_argument("--horizon", type=int, default=HORIZON, help=f"steps to imagine ({HORIZON})")
    parser.add_argument("--starts", type=int, help=f"instants at which the model takes over ({FULL.starts})")
    parser.add_argument("--drift-roads", type=int, help=f"roads of the drift ({FULL.drift_roads})")
    parser.add_argument("--drift-steps", type=int, help=f"its steps, 0 for none ({FULL.drift_steps})")
    parser.add_argument("--no-map", action="store_true", help="do not show the model where the road is")
    parser.add_argument(
        "--no-markings", action="store_true", help="do not show it what is painted on the road"
    )
    parser.add_argument(
        "--no-agents", action="store_true", help="do not show it where other cars were at the start"
    )
    parser.add_argument("--quick", action="store_true", help="fewer starts, a shorter drift: a first look")
    parser.add_argument("--batch", type=int, default=8, help="starts imagined at once (8)")
    parser.add_argument("--threads", type=int, default=2, help="processor threads (2)")
    for kind in Extractor:
        parser.add_argument(f"--{kind.value}", type=Path, help=f"TorchScript network for {kind.name}")
    _add_rounds_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="json file; a page and sheets lie beside it")
    return _completed(parsed(parser, arguments))


def _completed(options: argparse.Namespace) -> argparse.Namespace:
    """Fill in what depends on ``--quick`` and refuse what has no meaning."""
    _refuse_sizes_of_roads(options)
    options.takes_fewer = options.starts is None
    extent = QUICK if options.quick else FULL
    for name in ("num_scenes", "starts", "drift_roads", "drift_steps"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(extent, name))
    options.frames = FRAMES if options.frames is None else options.frames
    for name in ("num_scenes", "frames", "threads"):
        if getattr(options, name) < 1:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be at least 1, got {getattr(options, name)}")
    options.orders = [
        member_named(UnmaskOrder, name, what="order", flag="--orders") for name in options.orders
    ]
    return options


def _refuse_sizes_of_roads(options: argparse.Namespace) -> None:
    for name in ("num_scenes", "frames"):
        if options.scenes and getattr(options, name) is not None:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} is for roads to record; leave it out where --scenes names scenes")


def _add_rounds_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=int, nargs="+", help="compare these numbers of decoding rounds, and nothing else"
    )
    parser.add_argument(
        "--orders",
        nargs="+",
        default=[order.value for order in UnmaskOrder],
        help="orders of unmasking to compare: confidence, random (both)",
    )
    parser.add_argument(
        "--temperatures", type=float, nargs="+", default=[0.0], help="temperatures to compare (0)"
    )


def extent_of(options: argparse.Namespace) -> str:
    """Say whether exactly what is published was measured, exactly what ``--quick`` measures, or something else."""
    names = {"full": [], "quick: fewer starts and a shorter drift than published": ["--quick"]}
    for name, flags in names.items():
        usual = vars(parse([*flags, "--out", str(options.out)]))
        if all(getattr(options, key) == usual[key] for key in usual.keys() - set(FREE)):
            return name
    return "other: chosen on the command line"
