"""`drivesim data check`: is a nuScenes data set whole, and what does each of its scenes hold?"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drivesim import console
from drivesim.errors import InputError
from drivesim.files import atomic_path

if TYPE_CHECKING:
    from drivesim.scene.health import Health, SceneHealth

MOST_SHOWN = 30  # scenes in the table; those with faults come first
COLUMNS = ("scene", "frames", "s", "Hz", "gap s", "lost", "bad", "motion", "ratio")
EXIT_FAULTS = 1

DataRoot = Annotated[Path | None, typer.Option(help="A nuScenes data set; the embedded one if left out.")]
Version = Annotated[str | None, typer.Option(help="Version folder; v1.0-mini if left out.")]
Camera = Annotated[str, typer.Option(help="Whose pictures are looked at.")]
Decode = Annotated[str, typer.Option(metavar="N|all", help="Pictures to decode; all are looked at briefly.")]
JsonOut = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE|-", help="Write the report as JSON too; - prints only it."),
]
Cache = Annotated[
    Path | None, typer.Option(help="Folder for the index of the tables; the user's cache if left out.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def check(
    dataroot: DataRoot = None,
    version: Version = None,
    camera: Camera = "CAM_FRONT",
    decode: Decode = "200",
    json_out: JsonOut = None,
    cache: Cache = None,
    debug: Debug = False,
) -> None:
    """Check a nuScenes data set; exit with 1 if something is wrong with it."""
    del debug  # read by main()
    from drivesim.scene.health import check_dataset
    from drivesim.scene.nuscenes import EMBEDDED_ROOT, EMBEDDED_VERSION, open_dataset

    if version is not None and dataroot is None:
        raise InputError(f"--version {version} is of no data set; name one with --dataroot or leave it out")
    num_decoded = _num_decoded(decode)
    dataset = open_dataset(dataroot or EMBEDDED_ROOT, version or EMBEDDED_VERSION, cache=cache)
    is_quiet = json_out == "-"
    names = dataset.scene_names()
    bar = nullcontext() if is_quiet else console.progress_bar("checking scenes", len(names))
    with bar as progress:
        on_progress: Callable[[int], None] | None = None if progress is None else progress.update
        health = check_dataset(dataset, camera=camera, num_decoded=num_decoded, on_progress=on_progress)
    if json_out is not None:
        _write(health, json_out)
    if not is_quiet:
        _show(health)
    if health.num_faults:
        raise typer.Exit(EXIT_FAULTS)


def _num_decoded(words: str) -> int | None:
    if words == "all":
        return None
    if not (words.isascii() and words.isdigit() and len(words) < 10):
        raise InputError(f"--decode takes a number of pictures or all, got {words!r}")
    return int(words)


def _write(health: Health, out: str) -> None:
    words = json.dumps(health.as_dict(), indent=1) + "\n"
    if out == "-":
        sys.stdout.write(words)
        return
    with atomic_path(Path(out)) as temporary:
        temporary.write_text(words, encoding="utf-8")


def _show(health: Health) -> None:
    report = health.as_dict()
    ordered = sorted(health.scenes, key=lambda scene: not scene.faults)
    left = len(ordered) - MOST_SHOWN
    console.print_table(
        f"{console.counted(len(ordered), 'scene')} of {health.dataroot} ({health.version}, {health.camera})",
        COLUMNS,
        [_cells(scene) for scene in ordered[:MOST_SHOWN]],
        caption=f"and {left} more without fault" if left > 0 else "",
    )
    console.say(
        "s: length, Hz: of pictures, gap s: longest, lost: files that are missing, bad: that cannot be read"
    )
    console.say(
        f"{report['num_pictures']} pictures: {report['num_missing']} missing, {report['num_unreadable']} unreadable, "
        f"{report['num_decoded']} decoded; {report['num_gaps']} gaps"
    )
    console.say(f"motion from: {_counts(health.sources)}; cameras: {_counts(health.cameras)}")
    console.say(f"official splits: {_counts(health.splits) or 'none'}")
    for note in (*health.notes, *_common_notes(health)):
        console.say(f"note: {note}")
    for fault in health.faults:
        console.warn(fault)
    for scene in health.scenes:
        for fault in scene.faults:
            console.warn(f"{scene.name}: {fault}")
    console.say(console.counted(health.num_faults, "fault") if health.num_faults else "nothing is wrong")


def _cells(scene: SceneHealth) -> tuple[object, ...]:
    ratio = "" if scene.steering_ratio is None else f"{scene.steering_ratio:.1f}"
    return (
        scene.name,
        scene.num_pictures,
        f"{scene.length_s:.1f}",
        f"{scene.rate_hz:.1f}",
        f"{scene.longest_gap_s:.2f}",
        scene.num_missing,
        scene.num_unreadable,
        scene.motion_source or "-",
        ratio,
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _common_notes(health: Health) -> list[str]:
    """Return what is said of scenes, each sentence once, with how many it is said of."""
    counts: dict[str, int] = {}
    for scene in health.scenes:
        for note in scene.notes:
            counts[note] = counts.get(note, 0) + 1
    return [
        f"{console.counted(count, 'scene')}: {note}"
        for note, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
