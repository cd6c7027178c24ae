"""`drivesim data film`: recordings to try an import with, as a phone behind the windscreen would make them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from drivesim import console


def film(
    out: Annotated[Path, typer.Option(help="New folder for the recordings.")],
    seconds: Annotated[float, typer.Option(help="Of all drives together.")] = 180.0,
    drive_seconds: Annotated[float, typer.Option(help="Of each drive.")] = 30.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first road; below 890000 for training.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Film drives of the reference world in other graphics: a video and a CSV table of each."""
    del debug  # read by main()
    from drivesim.reference.film import FilmConfig
    from drivesim.reference.film import film as record

    config = FilmConfig(total_s=seconds, drive_s=drive_seconds, first_seed=seed)
    with console.progress_bar("filming drives", round(seconds)) as bar:
        count = record(config, out, on_progress=bar.update)
    console.say(
        f"{console.counted(count, 'drive')} in {out}; import them with: "
        f"drivesim data import csv {shlex.quote(str(out))} --out FOLDER"
    )
