"""How well does a policy drive? `python -m benchmarks.closed_loop --policies A,B --out DIR` lets it, and scores it.

Policies x scenes x seeds, one episode each, in the learned world or in the reference world. DIR gets `episodes.parquet`
(one row per episode), `summary.json`, `report.html`, and each episode's arrays and film; a run that was killed goes on
with `--resume`. Exit code 1: a policy failed in some episode (the others count); 2: bad input.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.closed_loop_episodes import DriveSettings, EpisodeJob, EpisodeResult, World, run_episodes
from benchmarks.closed_loop_figures import figures_of, report_of, show
from benchmarks.closed_loop_folder import (
    PAGE,
    SUMMARY,
    TABLE,
    RunFolder,
    opened,
    require_parquet,
    write_table,
)
from benchmarks.closed_loop_leads import SCORES, leads_over, show_leads
from benchmarks.closed_loop_page import write_page
from benchmarks.drive_contents import CONTENTS, contents_of_models, contents_of_policies
from benchmarks.driving_scenes import checked_scene_names, road_names
from benchmarks.guarded_policy import GuardedPolicy, Limits, PolicyFailure
from benchmarks.hazard_choice import add_hazard_head_option, warn_without_head
from benchmarks.held_out import add_seed_option, check_seeds
from benchmarks.report import going_on_in, member_named, parsed, run_command, run_facts
from drivesim import console
from drivesim.checkpoint import usable_device
from drivesim.config import versions
from drivesim.errors import InputError
from drivesim.policy_naming import SETTINGS_HELP, split_policies
from drivesim.rollout import EpisodeConfig
from drivesim.shared_models import hazard_head_name

STEPS, QUICK_STEPS = 60, 24
NUM_SCENES, QUICK_NUM_SCENES = 8, 3
MOST_PROCESSES = 8  # unless asked for


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, drive what is missing, score, print, write; exit with 1 if an episode failed."""
    options = parse(arguments)
    require_parquet()
    settings, jobs = settings_of(options), jobs_of(options)
    check_policies(options.policies)
    configuration = configuration_of(options)
    if settings.world is World.WORLDDREAMER:
        warn_without_head(settings.episode, also_reference=False)
    of_policies = contents_of_policies(options.policies)
    with opened(options.out, configuration, resumes=options.resume, policy_contents=of_policies) as folder:
        if folder.is_finished:
            console.say(f"{options.out} holds this run, finished; here is its table")
        else:
            with going_on_in(options.out, by="the same command with --resume"):
                _drive(folder, jobs, settings, options)
        results = [folder.load(job) for job in jobs]
        _report(folder, results, options, configuration)
    if any(result.is_failed for result in results):
        raise SystemExit(1)


def _drive(
    folder: RunFolder, jobs: Sequence[EpisodeJob], settings: DriveSettings, options: argparse.Namespace
) -> None:
    missing = [job for job in jobs if not folder.has(job)]
    began_s = time.monotonic()
    with console.progress_bar("episodes", len(jobs), done=len(jobs) - len(missing)) as bar:

        def take(batch: Sequence[EpisodeResult]) -> None:
            for result in batch:
                folder.save(result)
            bar.advance(len(batch), note=f"last {batch[-1].job.policy} on {batch[-1].job.scene}")

        run_episodes(
            missing,
            settings,
            batch_size=options.batch,
            processes=options.processes,
            ray_address=options.ray,
            on_batch=take,
        )
    console.say(f"drove {len(missing)} episodes in {time.monotonic() - began_s:.0f} s")


def _report(
    folder: RunFolder,
    results: Sequence[EpisodeResult],
    options: argparse.Namespace,
    configuration: dict[str, Any],
) -> None:
    """Print the table and, unless they are there, write the files that end a run."""
    settings, figures = settings_of(options), figures_of(results)
    limit = settings.episode.off_road_limit
    world = "learned world" if settings.world is World.WORLDDREAMER else "reference world"
    title = f"closed loop in the {world}, {settings.episode.horizon} steps"
    show(results, figures, title=title, off_road_limit=limit)
    baseline = results[0].job.policy  # named first
    leads = {score: leads_over(baseline, results, score) for score in SCORES}
    for score, lead in leads.items():
        show_leads(baseline, lead, score)
    if folder.is_finished:
        return
    write_table(folder.path / TABLE, results, configuration)
    facts = run_facts(options, num_threads=settings.num_threads) | versions()
    write_page(
        folder.path / PAGE,
        results,
        figures,
        title=f"drivesim: {title}",
        horizon=settings.episode.horizon,
        off_road_limit=limit,
        facts={
            "Configuration": configuration,
            "Versions": facts,
            "Seconds per action": {one.policy: f"{one.policy_s:.4f}" for one in figures},
        },
    )
    report = report_of(results, figures, facts | {"configuration": configuration, "lead_over": baseline})
    for score, by_policy in leads.items():
        for policy, estimate in by_policy.items():
            report.add_estimate(f"{score}_lead", estimate, key=policy, note=f"above {baseline}, paired")
    report.write(folder.path / SUMMARY)
    console.say(f"wrote {folder.path / TABLE} and {folder.path / PAGE}")


def jobs_of(options: argparse.Namespace) -> list[EpisodeJob]:
    """Return every policy on every scene with every seed, a policy's episodes together."""
    return [
        EpisodeJob(policy=policy, scene=scene, seed=seed)
        for policy in options.policies
        for seed in range(options.seeds_per_scene)
        for scene in options.scenes
    ]


def settings_of(options: argparse.Namespace) -> DriveSettings:
    """Return what the command line says of all episodes."""
    usable_device(options.device)
    episode = EpisodeConfig(
        horizon=options.steps,
        weights=options.weights,
        hazard_head=options.hazard_head,
        device=options.device,
    )
    return DriveSettings(
        world=options.env,
        episode=episode,
        time_limit_s=options.time_limit,
        num_threads=options.threads,
        has_videos=not options.no_videos,
    )


def configuration_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return everything that the results depend on; batches, processes and machines are not among it."""
    roads = [name for name in options.scenes if name.startswith("road-")]
    is_learned = options.env is World.WORLDDREAMER
    episode = settings_of(options).episode
    of_models = contents_of_models(episode) if is_learned else {}
    return {
        "policies": options.policies,
        "scenes": options.scenes,
        "roads": check_seeds(int(roads[0].removeprefix("road-")), 1) if roads else "embedded scenes",
        "seeds_per_scene": options.seeds_per_scene,
        "env": options.env.value,
        "steps": options.steps,
        "weights": options.weights if is_learned else None,
        "hazard_head": hazard_head_name(episode) if is_learned else None,
        "device": options.device,
        "threads": options.threads,
        "time_limit_s": options.time_limit,
        "videos": not options.no_videos,
        CONTENTS: contents_of_policies(options.policies) | of_models,
    }


def check_policies(names: Sequence[str]) -> None:
    """Refuse names that are no policies; one that fails otherwise will do so in its episodes.

    Raises:
        InputError: unknown name, or it cannot be made.
    """
    for name in names:
        try:
            GuardedPolicy(name, seed=0, limits=Limits())
        except PolicyFailure as failure:
            console.warn(f"policy {name}: {failure}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line, names checked and ``--quick`` filled in."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.closed_loop", description=__doc__)
    parser.add_argument(
        "--policies",
        nargs="+",
        required=True,
        help=f"names, module:Class or files, also separated by commas; {SETTINGS_HELP}",
    )
    scenes = parser.add_mutually_exclusive_group()
    scenes.add_argument("--scenes", nargs="+", help="embedded scenes or roads (road-900000) by name, or all")
    add_seed_option(scenes)
    parser.add_argument("--num-scenes", type=int, help=f"held-out roads ({NUM_SCENES})")
    parser.add_argument("--seeds-per-scene", type=int, default=1, help="episodes per policy and scene (1)")
    parser.add_argument(
        "--env",
        default=World.WORLDDREAMER.value,
        help="worlddreamer, the learned one (default), or reference",
    )
    parser.add_argument("--steps", type=int, help=f"steps per episode ({STEPS})")
    parser.add_argument("--weights", default="drive-tiny", help="shipped name or .safetensors file")
    add_hazard_head_option(parser)
    parser.add_argument("--device", default="cpu", help="where the world model runs (cpu)")
    parser.add_argument("--quick", action="store_true", help="fewer scenes and steps: a first look")
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds that an action may take (10)")
    parser.add_argument("--no-videos", action="store_true", help="keep no films")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--resume", action="store_true", help="go on with an unfinished run in --out; failed episodes stay so"
    )
    add_speed_options(parser)
    return _completed(parsed(parser, arguments))


def add_speed_options(parser: argparse.ArgumentParser) -> None:
    """Add what changes nothing but the time a run takes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--batch", type=int, default=8, help="episodes side by side (8)")
    parser.add_argument(
        "--processes",
        type=int,
        default=min(cores, MOST_PROCESSES),
        help="that share the batches (one per core)",
    )
    parser.add_argument("--threads", type=int, default=1, help="processor threads of each process (1)")
    parser.add_argument("--ray", metavar="ADDRESS", help="share the batches over a Ray cluster instead")


def _completed(options: argparse.Namespace) -> argparse.Namespace:
    """Fill in what depends on others, and refuse what has no meaning."""
    if options.steps is None:
        options.steps = QUICK_STEPS if options.quick else STEPS
    for name in ("seeds_per_scene", "steps", "batch", "threads", "processes"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    options.env = member_named(World, options.env, what="world", flag="--env")
    options.policies = split_names(options.policies)
    if options.scenes:
        if options.num_scenes is not None:
            raise InputError("--num-scenes counts held-out roads; leave it out where --scenes names them")
        options.scenes = checked_scene_names(split_names(options.scenes))
    else:
        usual = QUICK_NUM_SCENES if options.quick else NUM_SCENES
        count = usual if options.num_scenes is None else options.num_scenes
        if count < 1:
            raise InputError(f"--num-scenes must be at least 1, got {count}")
        options.scenes = road_names(options.seed, count)
    return options


def split_names(values: Sequence[str]) -> list[str]:
    """Return the names of a list that blanks or commas separate, each once; a policy's settings stay with it."""
    names = [name for value in values for name in split_policies(value)]
    if not names:
        raise InputError("--policies and --scenes need at least one name")
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    run_command(main)
