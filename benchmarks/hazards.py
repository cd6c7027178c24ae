"""Does the hazard head see what is coming? `python -m benchmarks.hazards --out F.json` measures it on held-out roads.

Drivers from good to reckless drive in the reference world, which knows when they touch another car and when they leave
the road. The head is asked about true frames, and about frames that the world model imagines under the same motion:
does it rank what is about to happen above what is not (area under the ROC curve, AUC), does a probability mean what it
says (reliability, expected calibration error, ECE), are contacts seen, and are any made up? Drives that end in an event
are looked for, so events are more frequent here than in everyday driving.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.hazard_figures import PLOTS, TARGETS, Judged, add_contacts, add_rows, judge
from benchmarks.held_out import add_seed_option, check_seeds
from benchmarks.page import write_page
from benchmarks.report import Report, check_out, parsed, run_command, run_facts, weights_facts
from drivesim import console
from drivesim.errors import InputError
from drivesim.hazard import HazardHead, load_hazard_head
from drivesim.training.hazard_samples import HazardSamples, HazardSetConfig
from drivesim.training.hazard_set import open_or_make_samples


@dataclass(kw_only=True, slots=True, frozen=True)
class Extent:
    """How many drives are made unless the command line says otherwise."""

    num_scenes: int
    num_long: int


FULL = Extent(num_scenes=64, num_long=40)
QUICK = Extent(num_scenes=16, num_long=8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, drive, imagine, judge, print, write."""
    options = parse(arguments)
    check_out(options.out)
    config = HazardSetConfig(
        weights=options.weights, num_drives=options.num_scenes, num_long_drives=options.num_long
    )
    roads = check_seeds(options.seed, config.num_seeds)
    torch.set_num_threads(options.threads)
    head = load_hazard_head(options.head)
    hashes = weights_facts(weights=options.weights, head=options.head)
    samples = _samples(options, config, head)
    judged = judge(head, samples, num_short=config.num_drives)
    report = Report(title="hazards", targets=TARGETS)
    add_rows(report, judged)
    add_contacts(report, head, judged)
    report.facts = hashes | _facts(options, judged, roads)
    report.show()
    report.write(options.out)
    write_page(options.out.with_suffix(".html"), report, plots=PLOTS, pictures=[])


def _samples(options: argparse.Namespace, config: HazardSetConfig, head: HazardHead) -> HazardSamples:
    """Return the samples, which are kept beside the figures, so that a run that was killed goes on."""
    folder = options.samples or options.out.with_name(f"{options.out.stem}-samples")
    with console.progress_bar("driving into hazards on held-out roads", config.num_all_drives) as bar:
        return open_or_make_samples(
            folder,
            config,
            head.config,
            first_seed=options.seed,
            num_workers=options.threads,
            on_progress=bar.update,
        )


def _facts(options: argparse.Namespace, judged: Judged, roads: str) -> dict[str, Any]:
    samples = judged.samples
    chosen = Extent(num_scenes=options.num_scenes, num_long=options.num_long)
    named = {FULL: "full", QUICK: "quick: fewer drives than published"}
    return {
        "weights": options.weights,
        "head": options.head,
        "roads": roads,
        "scenes": f"{options.num_scenes} and {options.num_long} long ones (seeds from {options.seed})",
        "extent": named.get(chosen, "chosen on the command line"),
        "true_frames": int((samples.depth == 0).sum()),
        "imagined_frames": int((samples.depth > 0).sum()),
        "horizon_s": 1.0,
        **run_facts(options, num_threads=options.threads),
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hazards", description=__doc__)
    parser.add_argument(
        "--weights", default="drive-tiny", help="world model: shipped name or .safetensors file"
    )
    parser.add_argument(
        "--head", default="hazard-tiny", help="hazard head: shipped name or .safetensors file"
    )
    add_seed_option(parser)
    parser.add_argument("--num-scenes", type=int, help=f"drives, true and imagined ({FULL.num_scenes})")
    parser.add_argument("--num-long", type=int, help=f"drives imagined for ten seconds ({FULL.num_long})")
    parser.add_argument(
        "--samples", type=Path, help="folder where the drives are kept; beside --out if left out"
    )
    parser.add_argument("--quick", action="store_true", help="fewer drives: a first look")
    parser.add_argument(
        "--threads", type=int, default=2, help="processes that drive, and processor threads (2)"
    )
    parser.add_argument("--out", type=Path, required=True, help="json file; a page lies beside it")
    return _completed(parsed(parser, arguments))


def _completed(options: argparse.Namespace) -> argparse.Namespace:
    """Fill in what depends on ``--quick`` and refuse what has no meaning."""
    extent = QUICK if options.quick else FULL
    for name in ("num_scenes", "num_long"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(extent, name))
    for name in ("num_scenes", "num_long", "threads"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    return options


if __name__ == "__main__":
    run_command(main)
