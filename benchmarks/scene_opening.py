"""Opening one scene of tables as large as v1.0-trainval's: `python -m benchmarks.scene_opening --out F.json`.

Every figure comes from a process of its own. Cold: there is no index of the tables; once with the tables read from the
disk and once with them in the page cache. Warm: the index is in the cache folder. The memory is the sum of the peaks
of the process and of the one that helps it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.report import Report, Target, check_out, parsed, run_command, run_facts
from benchmarks.scene_tables import VERSION, TableSet, TableSize, write_tables
from drivesim import console
from drivesim.errors import InputError

COLD, COLD_DISK, WARM = "cold", "cold, tables on disk", "warm"
TARGETS = (
    Target(name="open_s", limit=10.0, key=COLD, is_minimum=False),
    Target(name="open_s", limit=10.0, key=COLD_DISK, is_minimum=False),
    Target(name="open_s", limit=1.0, key=WARM, is_minimum=False),
    *(Target(name="peak_gb", limit=1.5, key=key, is_minimum=False) for key in (COLD, COLD_DISK, WARM)),
)

_OURS = """
from drivesim.scene.nuscenes import open_dataset
dataset = open_dataset(dataroot, version, cache=cache)
scene = dataset.load(name)
facts = {"frames": len(scene), "problems": scene.problems, "is_from_cache": dataset.is_index_from_cache}
"""
_DEVKIT = """
from nuscenes.nuscenes import NuScenes
tables = NuScenes(version=version, dataroot=dataroot, verbose=False)
facts = {"frames": sum(record["name"] == name for record in tables.scene), "problems": [], "is_from_cache": False}
"""
_MEASURED = """
import json, resource, sys, time
started = time.perf_counter()
dataroot, version, name, cache = sys.argv[1:]
{code}
seconds = time.perf_counter() - started
own = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")]
others = resource.getrusage(resource.RUSAGE_CHILDREN)
peak_gb = (own[0] + others.ru_maxrss) * 1024 / 1e9
cpu_s = time.process_time() + others.ru_utime + others.ru_stime
print(json.dumps(facts | {{"seconds": seconds, "cpu_s": cpu_s, "peak_gb": peak_gb}}))
"""


@dataclass(kw_only=True, slots=True)
class Opening:
    """What one process took to open a scene."""

    seconds: float  # from the first import to the scene
    process_s: float  # with the interpreter's start and end
    cpu_s: float  # of processors, which other work on the machine does not lengthen as much
    peak_gb: float
    num_frames: int
    is_from_cache: bool


def open_in_process(tables: TableSet, cache: Path, code: str = _OURS) -> Opening:
    """Open the scene in a new process.

    Raises:
        InputError: it failed there, or the scene came with problems.
    """
    command = [sys.executable, "-c", _MEASURED.format(code=code)]
    arguments = [str(tables.dataroot), VERSION, tables.scene, str(cache)]
    started_s = time.perf_counter()
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    process_s = time.perf_counter() - started_s
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise InputError(f"opening {tables.scene} failed: {last}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if facts["problems"]:
        raise InputError(f"{tables.scene} was opened with problems: {'; '.join(facts['problems'])}")
    return Opening(
        seconds=facts["seconds"],
        process_s=process_s,
        cpu_s=facts["cpu_s"],
        peak_gb=facts["peak_gb"],
        num_frames=facts["frames"],
        is_from_cache=facts["is_from_cache"],
    )


def measure(tables: TableSet, work: Path, *, num_warm: int, with_devkit: bool) -> Report:
    """Open the scene cold and warm, and perhaps with the devkit's own loader."""
    report = Report(title="scene opening", targets=TARGETS)
    cache = work / "cache"
    forget(tables.dataroot)
    openings = {COLD_DISK: open_in_process(tables, cache)}
    shutil.rmtree(cache)
    openings[COLD] = open_in_process(tables, cache)
    warm = [open_in_process(tables, cache) for _ in range(num_warm)]
    if not all(opening.is_from_cache for opening in warm):
        raise InputError(f"the index was not kept in {cache}; see whether the disk has room")
    openings[WARM] = sorted(warm, key=lambda opening: opening.seconds)[num_warm // 2]
    if with_devkit:
        console.say("loading all tables with the devkit, which needs more than 10 GB")
        openings["devkit, no annotations"] = open_in_process(tables, cache, _DEVKIT)
    for key, opening in openings.items():
        report.add("open_s", opening.seconds, key=key, note="imports, tables and one scene")
        report.add("process_s", opening.process_s, key=key, note="the same with the interpreter's start")
        report.add("cpu_s", opening.cpu_s, key=key, note="processor time of all processes")
        report.add("peak_gb", opening.peak_gb, key=key, note="resident memory, all processes together")
    report.add("index_mb", sum(path.stat().st_size for path in cache.rglob("*.npz")) / 1e6)
    report.add("tables_gb", tables.num_bytes / 1e9)
    return report


def forget(folder: Path) -> None:
    """Drop the files of a folder from the page cache, where the system lets us."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file() and hasattr(os, "posix_fadvise"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print, write."""
    options = parse(arguments)
    check_out(options.out)
    if options.rounds < 1 or options.share <= 0:
        raise InputError(f"--rounds and --share must be positive, got {options.rounds} and {options.share}")
    full = TableSize()
    size = TableSize(
        scenes=max(1, round(options.share * full.scenes)),
        samples=max(1, round(options.share * full.samples)),
        sample_data=max(1, round(options.share * full.sample_data)),
        mask_px=full.mask_px if options.share >= 1 else (2600, 10_200),
        has_ordered_poses=not options.poses_elsewhere,
    )
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=options.work, prefix="scene-opening-") as folder:
        work = Path(folder)
        tables = write_tables(work / "set", size=size)
        report = measure(tables, work, num_warm=options.rounds, with_devkit=options.devkit)
    report.facts = {
        "scenes": size.scenes,
        "sample_data_rows": size.sample_data,
        "poses_in_order": size.has_ordered_poses,
        "processors": os.cpu_count(),
        **run_facts(options),
    }
    report.show()
    report.write(options.out)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scene_opening", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="json file")
    parser.add_argument("--work", type=Path, help="folder for 2.5 GB of tables; removed in the end")
    parser.add_argument("--rounds", type=int, default=5, help="warm openings; their median counts")
    parser.add_argument(
        "--devkit", action="store_true", help="also load the tables with the devkit (over 10 GB of memory)"
    )
    parser.add_argument(
        "--poses-elsewhere",
        action="store_true",
        help="poses in another order than the pictures, unlike nuScenes: the dearest case",
    )
    parser.add_argument("--share", type=float, default=1.0, help="of trainval's size; below 1 for a trial")
    return parsed(parser, arguments)


if __name__ == "__main__":
    run_command(main)
