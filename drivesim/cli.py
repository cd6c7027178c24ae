"""The command line: parse, call, print. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from enum import Enum
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Annotated

import typer

from drivesim import console
from drivesim.cli_data.commands import app as data_app
from drivesim.cli_data.tokenize import tokenize
from drivesim.cli_generate.commands import app as generate_app
from drivesim.errors import InputError
from drivesim.policy_loading import POLICY_HELP

app = typer.Typer(
    help="A learned driving world: load a scene, steer, watch it answer.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.add_typer(generate_app, name="generate")
app.command()(tokenize)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Configuration overrides.")]
DataRoot = Annotated[Path | None, typer.Option(help="A nuScenes data set; the embedded scenes if left out.")]
Version = Annotated[str | None, typer.Option(help="Version folder of the data set; v1.0-mini if left out.")]
EXIT_INPUT = 2


class Trainable(Enum):
    """What `drivesim train` can train."""

    TOKENIZER = "tokenizer"
    MOTION_FIELD = "motion-field"
    WORLD_MODEL = "world-model"
    IMAGINATION = "imagination"
    VIDEO_MODEL = "video-model"
    INVERSE_DYNAMICS = "inverse-dynamics"
    HAZARD_HEAD = "hazard-head"
    POLICY = "policy"


@app.command()
def rollout(  # noqa: PLR0913 one parameter per flag
    overrides: Overrides = None,
    scene: Annotated[str | None, typer.Option(help="Scene name; see `drivesim scenes`.")] = None,
    dataroot: DataRoot = None,
    version: Version = None,
    camera: Annotated[str | None, typer.Option(help="Camera of the scene; CAM_FRONT if left out.")] = None,
    policy: Annotated[str | None, typer.Option(help=f"One of {POLICY_HELP}")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to drive.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the rollout.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for video, record and configuration.")] = Path(
        "out/rollout"
    ),
    debug: Debug = False,
) -> None:
    """Drive a scene; write a video and a record."""
    del debug  # read by main()
    from drivesim.config import load_config, override, save_run_files
    from drivesim.rollout import make_env, make_policy
    from drivesim.rollout import rollout as drive
    from drivesim.rollout_files import TABLE_COLUMNS, summary_words, table_rows, write_rollout

    flags = {
        "episode.scene": scene,
        "episode.dataroot": None if dataroot is None else str(dataroot),
        "episode.version": version,
        "episode.camera": camera,
        "policy.target": policy,
        "num_steps": steps,
        "seed": seed,
    }
    chosen = [override(key, value) for key, value in flags.items() if value is not None]
    config = load_config("rollout", [*(overrides or []), *chosen])
    _check_version(version, config.episode.dataroot)
    driver = make_policy(config.policy.target, **{"seed": config.seed, **config.policy.kwargs})
    out.mkdir(parents=True, exist_ok=True)
    with (
        contextlib.closing(make_env(config.episode)) as env,
        console.progress_bar("driving", config.most_steps) as bar,
    ):
        result = drive(env, driver, config.seed, config.num_steps, on_step=bar.update)
    files = write_rollout(result, out, rate_hz=config.episode.rate_hz)
    save_run_files(config, out)
    title = f"{result.policy} in {result.env_id}, scene {result.scene}"
    rows = table_rows(result, rate_hz=config.episode.rate_hz)
    console.print_table(title, TABLE_COLUMNS, rows, caption=summary_words(result))
    console.say(f"video: {files.video}\nrecord: {files.record}")


@app.command()
def scenes(
    dataroot: DataRoot = None,
    version: Version = None,
    split: Annotated[str | None, typer.Option(help="Official split, such as val or mini_train.")] = None,
    debug: Debug = False,
) -> None:
    """List the scenes there are."""
    del debug
    from drivesim.scene.nuscenes import EMBEDDED_VERSION, embedded_dataset, open_dataset
    from drivesim.scene.scene_list import scene_rows

    _check_version(version, dataroot)
    dataset = embedded_dataset() if dataroot is None else open_dataset(dataroot, version or EMBEDDED_VERSION)
    rows = scene_rows(dataset, dataset.scene_names(split))
    where = "embedded" if dataroot is None else str(dataroot)
    console.print_table(
        f"{console.counted(len(rows), 'scene')} ({where})", ["name", "length", "place", "caption"], rows
    )


@app.command()
def models(debug: Debug = False) -> None:
    """List the models there are and how large they are."""
    del debug
    from drivesim.presets import model_summaries

    found = model_summaries()
    rows = [
        ("frames", *(f"{model.frames}, {model.attention}" for model in found)),
        ("tokens of a frame", *(f"{model.tokens_per_frame} of {model.codes}" for model in found)),
        ("prompts", *(model.prompts for model in found)),
        ("parameters", *(f"{model.num_parameters / 1e6:,.1f} M" for model in found)),
        ("its tokenizer's", *(f"{model.num_tokenizer_parameters / 1e6:.1f} M" for model in found)),
        (
            "weights",
            *("to be trained" if m.weights_mb is None else f"{m.weights_mb:.1f} MB" for m in found),
        ),
    ]
    console.print_table("models", ["", *(model.name for model in found)], rows)


@app.command()
def train(
    what: Annotated[Trainable, typer.Argument(help="What to train.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/WHAT if left out.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder, with its own settings.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train a model on recordings of the reference world; with data=FOLDER init=NAME fit weights to your own."""
    del debug
    from drivesim.config import load_config, save_run_files
    from drivesim.training import commands
    from drivesim.training.processes import take_turns
    from drivesim.training.run_folder import check_folder

    folder = out or Path("runs") / what.value
    saved = folder / "config.yaml"
    is_continued = resume and saved.is_file()
    config = load_config("train", overrides or [], saved=saved if is_continued else None)
    if config.fine_tuning.data and what is not Trainable.WORLD_MODEL:
        raise InputError(
            f"data=FOLDER fine-tunes a whole world model: `drivesim train world-model`; for {what.value} use "
            "data.source=scenes scenes.dataroot=FOLDER"
        )
    run = {
        Trainable.TOKENIZER: commands.train_tokenizer,
        Trainable.MOTION_FIELD: commands.train_motion_field,
        Trainable.WORLD_MODEL: commands.train_world_model,
        Trainable.IMAGINATION: commands.train_imagination,
        Trainable.VIDEO_MODEL: commands.train_video_model,
        Trainable.INVERSE_DYNAMICS: commands.train_inverse_dynamics,
        Trainable.HAZARD_HEAD: commands.train_hazard_head,
        Trainable.POLICY: commands.train_policy,
    }[what]
    take_turns(config.training)
    check_folder(folder, resume=resume)
    result = run(config, folder, resume=resume, on_start=lambda: save_run_files(config, folder))
    console.print_table(
        f"{what.value}: {result.step} steps", ["figure", "value"], list(result.metrics.items())
    )
    console.say(f"weights: {result.weights}\ncheckpoint: {result.checkpoint}")


def _check_version(version: str | None, dataroot: str | Path | None) -> None:
    if version is not None and dataroot is None:
        raise InputError(f"--version {version} is of no data set; name one with --dataroot or leave it out")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input ends with one sentence on standard error and exit code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=given, prog_name="drivesim")
    except (InputError, OSError, ImportError) as error:
        if isinstance(error, ImportError) and not _is_shadowed(error):
            raise
        if "--debug" in given:
            console.print_exception()
        console.fail(_sentence(error))
        sys.exit(EXIT_INPUT)


def _sentence(error: Exception) -> str:
    if isinstance(error, ImportError):
        package = str(error.name).split(".")[0]
        owners = ", ".join(packages_distributions().get(package, ["a folder on the Python path"]))
        return f"cannot import {error.name}: {package!r} comes from {owners}, not drivesim; rename it"
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}; check the path, the permissions and the space left on the disk"
    return str(error)


def _is_shadowed(error: ImportError) -> bool:
    """Tell whether another `envs` or `policies` stands before ours on the Python path."""
    return str(error.name).split(".")[0] in ("envs", "policies")


if __name__ == "__main__":
    main()
