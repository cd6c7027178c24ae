"""Would the ground truth rank policies as the imagined world does? `python -m benchmarks.trust --out F.json` tells.

The same policies drive the same scenes with the same seeds in both worlds. The report says how well the two rankings
agree (Pearson, Spearman, Kendall, MMRV, with intervals), which parts of the score and of the reward differ, when and
why episodes end, and whom the imagined world flatters or wrongs. A policy that does not look at the pictures drives
the same way in both worlds, so what is said of policies that do look stands in rows of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.closed_loop_episodes import DriveSettings
from benchmarks.drive_contents import CONTENTS, contents_of_models, contents_of_policies
from benchmarks.driving_scenes import road_names
from benchmarks.hazard_choice import warn_without_head
from benchmarks.held_out import check_seeds
from benchmarks.page import Picture, write_page
from benchmarks.report import Report, check_out, going_on_in, run_command, run_facts, weights_facts
from benchmarks.trust_episodes import BothWorlds, drive_both, jobs_for
from benchmarks.trust_figures import Trust, measure_trust
from benchmarks.trust_options import DEFAULT_POLICIES, FULL, QUICK, Extent, parse
from benchmarks.trust_page import (
    MEASURE_COLUMNS,
    OFF_ROAD_LIMIT,
    PART_COLUMNS,
    PLOTS,
    POLICY_COLUMNS,
    TARGETS,
    measure_cells,
    part_cells,
    policy_cells,
    sections,
)
from benchmarks.trust_pairs import SCORE, Comparison, EpisodePair, short_name
from drivesim import console
from drivesim.files import atomic_path
from drivesim.metrics.scores import formula_lines
from drivesim.rollout import EpisodeConfig
from drivesim.shared_models import hazard_head_name

FEWEST_SCENES = 6  # that intervals can be believed from
STRIPS = 3  # of policies that are flattered, and as many of those that are wronged


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, drive in both worlds, measure, print, write."""
    options = parse(arguments, description=__doc__)
    with going_on_in(options.episodes):
        run(options)


def run(options: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    check_out(options.out)
    episode = _settings(options).episode
    contents_of_models(episode)  # refuses weights that do not exist
    hashes = weights_facts(weights=episode.weights, hazard_head=hazard_head_name(episode))
    warn_without_head(episode, also_reference=True)
    scenes = _scene_names(options)
    started_s = time.monotonic()
    driven = drive_both(
        jobs_for(options.policies, scenes, options.seeds_per_scene),
        _settings(options),
        batch_size=options.batch,
        processes=options.processes,
        ray_address=options.ray,
        folder=options.episodes,
    )
    comparison = driven.comparison
    facts = hashes | _facts(options, comparison)
    report = Report(title="trust in the imagined world", facts=facts, targets=TARGETS)
    report.facts["minutes"] = round((time.monotonic() - started_s) / 60, 1)
    trust = measure_trust(comparison, report, num_steps=options.steps)
    show(trust)
    write(options.out, trust, driven)
    _end(comparison)


def show(trust: Trust) -> None:
    """Print the policies in both worlds, the statistics and what they mean."""
    trust.report.show()
    tables: dict[str, tuple[Sequence[str], list[list[object]]]] = {
        "agreement part by part": (PART_COLUMNS, part_cells(trust.parts)),
        "policies in both worlds: PDMS-style score": (POLICY_COLUMNS, [policy_cells(r) for r in trust.table]),
        "policies in both worlds: parts": (MEASURE_COLUMNS, [measure_cells(r) for r in trust.table]),
    }
    for title, (columns, cells) in tables.items():
        console.print_table(title, columns, cells)
    for line in formula_lines(off_road_limit=OFF_ROAD_LIMIT):
        console.say(f"  {line}")
    console.say(trust.verdict)


def write(out: Path, trust: Trust, driven: BothWorlds) -> None:
    """Write the numbers, and the page beside them."""
    result = trust.as_dict(driven.comparison)
    with atomic_path(out) as temporary:
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    console.say(f"wrote {out}")
    write_page(
        out.with_suffix(".html"),
        trust.report,
        plots=PLOTS,
        pictures=pictures(driven),
        sections=sections(driven.comparison, trust),
    )


def pictures(driven: BothWorlds) -> list[Picture]:
    """Return the episodes whose scores differ most, frames of both worlds side by side."""
    found = []
    for is_flattered, heading in ((True, "Flattered"), (False, "Wronged")):
        for pair in driven.comparison.largest_gaps(STRIPS, is_flattered=is_flattered):
            found.append(Picture(title=f"{heading}: {_title(pair)}", rows=driven.strips(pair)))
    return found


def _title(pair: EpisodePair) -> str:
    worlds = {"reference": pair.reference, "imagined": pair.imagined}
    ends = [
        f"{name} {world.score(SCORE):.2f} ({world.end_reason.replace('_', ' ')} after {world.num_steps} steps)"
        for name, world in worlds.items()
    ]
    return f"{short_name(pair.policy)} on {pair.scene}, seed {pair.seed}: {', '.join(ends)}"


def _end(comparison: Comparison) -> None:
    """Say which episodes failed, and end with exit code 1 if any did."""
    failed = [pair for pair in comparison.pairs if pair.failure]
    for pair in failed:
        console.warn(f"{pair.policy} on {pair.scene}, seed {pair.seed}, has no result: {pair.failure}")
    if failed:
        raise SystemExit(1)


def _scene_names(options: argparse.Namespace) -> list[str]:
    if options.scenes:
        return list(options.scenes)
    return road_names(options.seed, options.num_scenes)


def _settings(options: argparse.Namespace) -> DriveSettings:
    episode = EpisodeConfig(
        horizon=options.steps,
        weights=options.weights,
        hazard_head=options.hazard_head,
        device=options.device,
    )
    if options.no_confidence_limit:
        episode = replace(episode, min_confidence=None)
    return DriveSettings(episode=episode, time_limit_s=options.time_limit, num_threads=options.threads)


def _facts(options: argparse.Namespace, comparison: Comparison) -> dict[str, Any]:
    roads = "embedded scenes" if options.scenes else check_seeds(options.seed, options.num_scenes)
    source = ", ".join(options.scenes) if options.scenes else f"seeds from {options.seed}"
    facts: dict[str, Any] = {
        "weights": options.weights,
        "hazard_head": hazard_head_name(_settings(options).episode),
        "roads": roads,
        "scenes": f"{len(comparison.scenes)} ({source})",
        "extent": _extent(options),
        "steps": options.steps,
        CONTENTS: contents_of_policies(options.policies) | contents_of_models(_settings(options).episode),
        "min_confidence": _settings(options).episode.min_confidence,
        "seeds_per_scene": options.seeds_per_scene,
        "episodes_per_world": len(comparison.pairs),
        "failed_episodes": len(comparison.pairs) - len(comparison.whole),
        "reference_score_parts": comparison.score_parts(is_imagined=False),
        "imagined_score_parts": comparison.score_parts(is_imagined=True),
    }
    if len(comparison.scenes) < FEWEST_SCENES:
        facts["caution"] = (
            f"intervals from fewer than {FEWEST_SCENES} scenes are too narrow: scenes not seen stay unseen in resamples"
        )
    if comparison.unscored:
        facts["left_out"] = ", ".join(comparison.unscored)
    return facts | run_facts(options, num_threads=options.threads) | {"processes": options.processes}


def _extent(options: argparse.Namespace) -> str:
    chosen = Extent(num_scenes=options.num_scenes, steps=options.steps)
    is_plain = (
        not options.scenes
        and options.seeds_per_scene == 1
        and not options.no_confidence_limit
        and options.policies == list(DEFAULT_POLICIES)
    )
    if is_plain and chosen in (FULL, QUICK):
        return "full" if chosen == FULL else "quick: fewer roads and shorter drives than published"
    return "chosen on the command line"


if __name__ == "__main__":
    run_command(main)
