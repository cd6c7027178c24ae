"""Can one learn to drive in imagination? `python -m benchmarks.imagination --out DIR`.

PPO (Stable-Baselines3) learns inside ``WorldDreamer-Drive-v0`` alone, and drives in ``Reference-Drive-v0`` on roads
that neither it nor the world model was trained on. Beside it: the same algorithm with the same steps, roads and seed,
trained in the reference world, the camera driver of behaviour cloning, wheel and pedal at random, and pure pursuit. A
run that was killed goes on when it is started again with the same arguments; trained agents stay in the folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.drive_contents import CONTENTS
from benchmarks.held_out import check_seeds
from benchmarks.imagination_folder import run_folder
from benchmarks.page import Plot, draw_plot, write_page
from benchmarks.report import Report, Target, going_on_in, parsed, run_command, run_facts
from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.reference.seeds import FIRST_HELD_OUT_SEED

SETTINGS = (
    "weights",
    "driver",
    "steps",
    "evaluations",
    "num_roads",
    "first_road",
    "envs",
    "seed",
    "no_image",
    "threads",
)
FIRST_ROAD_SEED = FIRST_HELD_OUT_SEED + 20_000
TARGETS = (Target(name="route_completion_ratio", limit=0.8),)
PLOTS = (
    Plot(
        title="route completion in the reference world",
        unit="share of the route",
        lines={
            "PPO, learned in imagination": "completion_imagination",
            "PPO, learned in the reference world": "completion_reference",
            "behaviour cloning": "completion_behavior_cloning",
            "random": "completion_random",
            "pure pursuit": "completion_pure_pursuit",
        },
        x_label="environment steps learned from",
    ),
    Plot(
        title="drives that left the road",
        unit="share of the drives",
        lines={
            "PPO, learned in imagination": "off_road_imagination",
            "PPO, learned in the reference world": "off_road_reference",
        },
        x_label="environment steps learned from",
    ),
)


@dataclass(kw_only=True, slots=True, frozen=True)
class Extent:
    """How much is learned and driven unless the command line says otherwise."""

    steps: int
    evaluations: int
    num_roads: int


FULL = Extent(steps=16_384, evaluations=4, num_roads=32)
QUICK = Extent(steps=1_024, evaluations=1, num_roads=6)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, train, drive, print, write."""
    options = parse(arguments)
    _require_stable_baselines()
    with going_on_in(options.out):
        run(options)


def run(options: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    from benchmarks.imagination_report import checked_contents, make_report

    torch.set_num_threads(options.threads)
    roads = list(range(options.first_road, options.first_road + options.num_roads))
    purpose = check_seeds(roads[0], len(roads))
    contents = checked_contents(options)
    with run_folder(options.out, {name: getattr(options, name) for name in SETTINGS} | {CONTENTS: contents}):
        report = make_report(options, roads)
    report.facts = {
        "roads": f"{purpose} {roads[0]}..{roads[-1]}",
        **report.facts,
        CONTENTS: contents,
        **run_facts(options, num_threads=options.threads),
    }
    report.targets = TARGETS
    report.show()
    report.write(options.out / "imagination.json")
    _write_plots(options.out, report)
    write_page(options.out / "imagination.html", report, plots=PLOTS, pictures=[])


def _write_plots(out: Path, report: Report) -> None:
    for name, plot in zip(("completion", "off-road"), PLOTS, strict=True):
        drawn = draw_plot(plot, report.curves)
        if drawn is not None:
            with atomic_path(out / f"learning-curve-{name}.png") as temporary:
                temporary.write_bytes(drawn)


def _require_stable_baselines() -> None:
    try:
        import stable_baselines3  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"this benchmark needs Stable-Baselines3 ({error}); install it with: pip install 'drivesim[rl]'"
        ) from error


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line.

    Raises:
        InputError: a count that is not positive.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imagination", description=__doc__)
    parser.add_argument("--weights", default="drive-tiny", help="world model: shipped name or file")
    parser.add_argument("--driver", default="driver-tiny", help="cloned driver, or none")
    parser.add_argument("--steps", type=int, help=f"environment steps to learn from ({FULL.steps})")
    parser.add_argument("--evaluations", type=int, help=f"points of the learning curves ({FULL.evaluations})")
    parser.add_argument("--num-roads", type=int, help=f"roads to drive in the end ({FULL.num_roads})")
    parser.add_argument("--first-road", type=int, default=FIRST_ROAD_SEED, help="seed of the first of them")
    parser.add_argument("--envs", type=int, default=8, help="environments at once (8)")
    parser.add_argument("--seed", type=int, default=0, help="of the learners (0)")
    parser.add_argument("--no-image", action="store_true", help="learn from route and motion alone")
    parser.add_argument("--quick", action="store_true", help="few steps and roads: a first look")
    parser.add_argument("--threads", type=int, default=2, help="processor threads (2)")
    parser.add_argument("--out", type=Path, required=True, help="folder of agents, figures and page")
    options = parsed(parser, arguments)
    extent = QUICK if options.quick else FULL
    for name in ("steps", "evaluations", "num_roads"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(extent, name))
    for name in ("steps", "evaluations", "num_roads", "envs", "threads"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    if options.seed < 0:
        raise InputError(f"--seed must not be negative, got {options.seed}")
    return options


if __name__ == "__main__":
    run_command(main)
