"""Every policy, scene and seed driven twice, once in each world, and the two results put side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.closed_loop_episodes import DriveSettings, EpisodeJob, EpisodeResult, World, run_episodes
from benchmarks.closed_loop_folder import RunFolder, opened
from benchmarks.drive_contents import CONTENTS, contents_of_models, contents_of_policies
from benchmarks.report import Sheet
from benchmarks.trust_pairs import MEASURES, Comparison, EpisodePair, WorldEpisode, short_name
from drivesim import console
from drivesim.run_lock import locked
from drivesim.shared_models import hazard_head_name

REWARDS = "rewards/"
STRIP_FRAMES = 7
WORLDS = (World.REFERENCE, World.WORLDDREAMER)


@dataclass(kw_only=True, slots=True)
class BothWorlds:
    """The compared pairs, and the results they were made from, for pictures."""

    comparison: Comparison
    results: dict[World, dict[str, EpisodeResult]] = field(default_factory=dict)  # by the id of their job

    def strips(self, pair: EpisodePair, *, count: int = STRIP_FRAMES) -> Sheet:
        """Return a row of frames per world, of the same times; a row stops where its episode does."""
        job = job_of(pair)
        found = [self.results[world][job.id] for world in WORLDS]
        last = max(result.num_steps for result in found)
        steps = sorted({round(step) for step in np.linspace(0, last, count)})
        rows = []
        for name, result in zip(("reference", "imagined"), found, strict=True):
            frames = result.frames()
            shown = [step for step in steps if step <= result.num_steps]
            if shown[-1] != result.num_steps:
                shown.append(result.num_steps)  # where it ended
            rows.append([(f"{name} {step / result.rate_hz:.1f} s", frames[step]) for step in shown])
        return rows


def jobs_for(policies: Sequence[str], scenes: Sequence[str], num_seeds: int) -> list[EpisodeJob]:
    """Return every policy in every scene with every seed; neighbours share a scene, which is then recorded once."""
    return [
        EpisodeJob(policy=policy, scene=scene, seed=seed)
        for scene in scenes
        for seed in range(num_seeds)
        for policy in policies
    ]


def job_of(pair: EpisodePair) -> EpisodeJob:
    """Return the job that both episodes of a pair did."""
    return EpisodeJob(policy=pair.policy, scene=pair.scene, seed=pair.seed)


def drive_both(
    jobs: Sequence[EpisodeJob],
    settings: DriveSettings,
    *,
    batch_size: int,
    processes: int,
    ray_address: str | None = None,
    folder: Path | None = None,
) -> BothWorlds:
    """Drive the jobs in the reference world, then in the imagined one.

    Args:
        jobs: what to drive.
        settings: what is common to them; the world is put in.
        batch_size: episodes that are driven side by side.
        processes: that share the work; 0 works in this one.
        ray_address: of a Ray cluster to share it instead.
        folder: keeps every episode, and lends those that it has; no other run may write into it meanwhile.

    Raises:
        InputError: a policy, scene or weights do not exist or do not fit, or the folder holds other drives.
    """
    results: dict[World, dict[str, EpisodeResult]] = {}
    drive = partial(run_episodes, batch_size=batch_size, processes=processes, ray_address=ray_address)
    with nullcontext() if folder is None else locked(folder, flag="--episodes"):
        for world in WORLDS:
            here = replace(settings, world=world)
            with _kept(folder, here, [job.policy for job in jobs]) as kept:
                found = _driven(jobs, here, drive, kept)
            results[world] = {result.job.id: result for result in found}
    pairs = [
        EpisodePair(
            policy=job.policy,
            scene=job.scene,
            seed=job.seed,
            reference=as_episode(results[World.REFERENCE][job.id]),
            imagined=as_episode(results[World.WORLDDREAMER][job.id]),
        )
        for job in jobs
    ]
    return BothWorlds(comparison=Comparison(pairs=pairs), results=results)


def _driven(
    jobs: Sequence[EpisodeJob],
    settings: DriveSettings,
    drive: Callable[..., list[EpisodeResult]],
    kept: RunFolder | None,
) -> list[EpisodeResult]:
    """Return the episodes of one world; those that are kept already are not driven again."""
    old = [kept.load(job) for job in jobs if kept is not None and kept.has(job)]
    known = {result.job.id for result in old}
    missing = [job for job in jobs if job.id not in known]
    with console.progress_bar(f"episodes in {settings.world.env_id}", len(jobs), done=len(old)) as bar:

        def take(result: EpisodeResult) -> None:
            if kept is not None:
                kept.save(result)
            bar.advance(note=f"{short_name(result.job.policy)} on {result.job.scene}: {result.end_reason}")

        return old + drive(missing, settings, on_result=take)


@contextmanager
def _kept(
    folder: Path | None, settings: DriveSettings, policies: Sequence[str]
) -> Iterator[RunFolder | None]:
    """Open the part of a folder that holds one world's episodes, alone; without a folder nothing is kept.

    Policies and scenes may be others than before: an episode depends on its own only, and on what is in its policy's
    file, which is noted with it.
    """
    if folder is None:
        yield None
        return
    episode, is_learned = settings.episode, settings.world is World.WORLDDREAMER
    configuration = {
        "env": settings.world.value,
        "steps": episode.horizon,
        "weights": episode.weights if is_learned else None,
        "hazard_head": hazard_head_name(episode) if is_learned else None,
        "min_confidence": episode.min_confidence if is_learned else None,
        "device": episode.device,
        "threads": settings.num_threads,
        "time_limit_s": settings.time_limit_s,
        CONTENTS: contents_of_models(episode) if is_learned else {},
    }
    with opened(
        folder / settings.world.value,
        configuration,
        resumes=True,
        policy_contents=contents_of_policies(list(dict.fromkeys(policies))),
        flag="--episodes",
    ) as kept:
        yield kept


def as_episode(result: EpisodeResult) -> WorldEpisode:
    """Return what is compared of an episode."""
    failure = result.failure or ("it has no step" if result.num_steps == 0 else "")
    if failure:
        return WorldEpisode(
            scores={}, rewards={}, path_m=np.zeros((0, 2)), end_reason=result.end_reason, failure=failure
        )
    scores = result.scores.results()
    measured = {name: scores[name].value for name in MEASURES if scores[name].is_valid}
    return WorldEpisode(
        scores={name: value for name, value in measured.items() if math.isfinite(value)},
        rewards={
            name.removeprefix(REWARDS): values.astype(np.float64)
            for name, values in result.arrays.items()
            if name.startswith(REWARDS)
        },
        path_m=np.stack([result.arrays["ego/x_m"], result.arrays["ego/y_m"]], axis=-1),
        end_reason=result.end_reason,
        score_parts=result.scores.pdms_parts,
    )
