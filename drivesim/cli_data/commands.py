"""`drivesim data`: the commands by name. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from drivesim import console
from drivesim.cli_data.check import check
from drivesim.cli_data.exporting import export_data
from drivesim.cli_data.film import film
from drivesim.cli_data.importing import import_data

app = typer.Typer(
    help="Make, check, import and export data sets.", no_args_is_help=True, rich_markup_mode=None
)
app.command("check")(check)
app.command("import")(import_data)
app.command("export")(export_data)
app.command("film")(film)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def synth(
    out: Annotated[Path, typer.Option(help="New folder for the data set.")],
    scenes: Annotated[int, typer.Option(min=1, help="Scenes to record.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first road; below 890000 for training.")] = 0,
    debug: Debug = False,
) -> None:
    """Record the reference world as a data set in the nuScenes schema."""
    del debug  # read by main()
    from drivesim.reference.synth import synthesize

    with console.progress_bar("recording scenes", scenes) as bar:
        synthesize(out, num_scenes=scenes, seed=seed, on_progress=bar.update)
    console.say(
        f"{console.counted(scenes, 'scene')} in {out}; list them with: "
        f"drivesim scenes --dataroot {shlex.quote(str(out))}"
    )
