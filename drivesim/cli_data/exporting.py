"""`drivesim data export`: the scenes of a nuScenes-schema data set -> a LeRobot data set, or a plain nuScenes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drivesim import console
from drivesim.errors import InputError, nearest

if TYPE_CHECKING:
    from drivesim.scene.nuscenes import NuScenesDataset
    from drivesim.scene.types import Scene


class ExportKind(Enum):
    """A layout that scenes are written in."""

    LEROBOT = "lerobot"  # v3.0
    NUSCENES = "nuscenes"


def export_data(  # noqa: PLR0913 one parameter per flag
    kind: Annotated[ExportKind, typer.Argument(help="Layout of the new data set.")],
    dataroot: Annotated[Path, typer.Option(help="Data set in the nuScenes schema.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    version: Annotated[str, typer.Option(help="Its table folder.")] = "v1.0-mini",
    scenes: Annotated[str, typer.Option(help="Names of the scenes, with commas between; else all.")] = "",
    rate: Annotated[float, typer.Option(help="Frames per second, Hz.")] = 6.0,
    width: Annotated[int, typer.Option(help="Width of the pictures, pixels.")] = 224,
    height: Annotated[int, typer.Option(help="Height of the pictures, pixels.")] = 128,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Write scenes as a LeRobot data set v3.0, or anew in the nuScenes schema (front camera and motion alone)."""
    del debug  # read by main()
    from drivesim.imports.importing import check_free
    from drivesim.scene.nuscenes import open_dataset

    check_free(out)
    dataset = open_dataset(dataroot, version)
    names = _chosen(dataset, scenes)
    left_out: list[str] = []
    with console.progress_bar("writing scenes", len(names)) as bar:

        def loaded() -> Iterator[Scene]:
            for done, name in enumerate(names):
                bar.update(done)
                try:
                    yield dataset.load(name, rate_hz=rate, width_px=width, height_px=height)
                except InputError as error:
                    left_out.append(f"scene {name} was left out: {error}")
            bar.update(len(names))

        try:
            count = _write(kind, loaded(), out, left_out.append)
        except InputError as error:
            is_nothing_left = len(left_out) >= len(names) > 0
            raise InputError(left_out[0]) if is_nothing_left else error from error
    for line in left_out:
        console.warn(line)
    console.say(f"{console.counted(count, 'episode' if kind is ExportKind.LEROBOT else 'scene')} in {out}")


def _write(kind: ExportKind, scenes: Iterable[Scene], out: Path, on_left_out: Callable[[str], None]) -> int:
    if kind is ExportKind.LEROBOT:
        from drivesim.imports.lerobot_writer import write_lerobot

        return write_lerobot(scenes, out, on_left_out=on_left_out)
    from drivesim.scene.nuscenes_writer import write_nuscenes

    return write_nuscenes(scenes, out, on_left_out=on_left_out)


def _chosen(dataset: NuScenesDataset, scenes: str) -> list[str]:
    names = dataset.scene_names()
    if not scenes:
        return names
    chosen = [name.strip() for name in scenes.split(",") if name.strip()]
    for name in chosen:
        if name not in names:
            raise InputError(
                f"no scene {name!r} in {dataset.dataroot} ({dataset.version}); {nearest(name, names)}"
            )
    return chosen
