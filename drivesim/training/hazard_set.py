"""What the hazard head learns from: small arrays read off true and imagined world states, made once and kept.

A set is a folder of shards, one per job, which appear only when they are complete: a run that was killed goes on where
it was. Each shard holds what :func:`drivesim.hazard_inputs.read_state` reads, and when the events come.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from drivesim.checkpoint import tensor_hash
from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.hazard_inputs import HazardConfig
from drivesim.training.hazard_samples import HazardSamples, HazardSetConfig, read_shards
from drivesim.training.hazard_states import Job, make_shard, world_model_of
from drivesim.training.worker_pool import worked

DRIVES_PER_JOB = 4


def open_or_make_samples(
    path: Path,
    config: HazardSetConfig,
    head: HazardConfig,
    *,
    first_seed: int,
    num_workers: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> HazardSamples:
    """Return the samples in a folder, making those that are not there yet.

    Args:
        path: the folder.
        config: what to make.
        head: of which sizes the head is.
        first_seed: of the roads.
        num_workers: processes; 1 works in this one.
        on_progress: called with the number of drives done.

    Raises:
        InputError: the folder holds a set that was made otherwise.
    """
    _check_facts(path, config, head, first_seed)
    jobs = _jobs(path, config, head, first_seed)
    missing = [job for job in jobs if not job.path.exists()]
    num_done = sum(len(job.numbers) for job in jobs) - sum(len(job.numbers) for job in missing)
    made = worked(
        make_shard,
        missing,
        num_workers=num_workers,
        doing="hazard",
        setting="data.num_workers",
        jobs_per_call=1,
    )
    for job, _ in zip(missing, made, strict=True):
        num_done += len(job.numbers)
        if on_progress is not None:
            on_progress(num_done)
    return read_shards([job.path for job in jobs])


def _check_facts(path: Path, config: HazardSetConfig, head: HazardConfig, first_seed: int) -> None:
    model = world_model_of(config.weights)
    facts = {
        "set": {name: getattr(config, name) for name in config.__slots__},
        "first_seed": first_seed,
        "model": tensor_hash(model.state_dict()),
        "reads": [head.height_px, head.width_px, head.num_steps, head.num_facts],
    }
    file = path / "set.json"
    if not file.exists():
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(facts, indent=1))
        return
    if json.loads(file.read_text()) != facts:
        raise InputError(
            f"{path} holds hazard samples made with other settings or weights; remove it or name another "
            "hazard_head.path"
        )


def _jobs(path: Path, config: HazardSetConfig, head: HazardConfig, first_seed: int) -> list[Job]:
    jobs = []
    spans = ((0, config.num_drives, False), (config.num_drives, config.num_long_drives, True))
    for first, count, is_long in spans:
        for start in range(first, first + count, DRIVES_PER_JOB):
            numbers = tuple(range(start, min(start + DRIVES_PER_JOB, first + count)))
            file = path / f"{start:06d}.npz"
            jobs.append(
                Job(
                    path=file,
                    numbers=numbers,
                    is_long=is_long,
                    first_seed=first_seed,
                    config=config,
                    head=head,
                )
            )
    return jobs
