"""`drivesim data import`: recordings of other kinds -> a data set in the nuScenes schema."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from drivesim import console
from drivesim.errors import InputError
from drivesim.imports.kinds import RecordingKind
from drivesim.imports.options import Fit, ImportConfig, SpeedUnit, SteeringUnit, TimeUnit

_SAY_EVERY = 1000  # pictures
_EXIT_STOPPED = 130  # as shells have it after Ctrl-C


def import_data(  # noqa: PLR0913 one parameter per flag
    kind: Annotated[RecordingKind, typer.Argument(help="What left the recordings.")],
    src: Annotated[Path, typer.Argument(help="File or folder of the recordings.")],
    out: Annotated[Path | None, typer.Option(help="New folder for the data set.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the summary, write nothing.")] = False,
    rate: Annotated[float, typer.Option(help="Frames per second of the scenes, Hz.")] = 6.0,
    width: Annotated[int, typer.Option(help="Width of their pictures, pixels.")] = 224,
    height: Annotated[int, typer.Option(help="Height of their pictures, pixels.")] = 128,
    fit: Annotated[Fit, typer.Option(help="How pictures of another shape become that size.")] = Fit.CROP,
    max_gap: Annotated[float, typer.Option(help="Longest time between pictures of a scene, s.")] = 0.5,
    min_length: Annotated[float, typer.Option(help="Shortest scene, s.")] = 3.0,
    lag: Annotated[int, typer.Option(help="Pictures by which the recorded controls come too early.")] = 0,
    flip_steering: Annotated[bool, typer.Option(help="The steering's sign is opposite.")] = False,
    flip_yaw_rate: Annotated[bool, typer.Option(help="The recorded yaw rate's sign is opposite.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Correct lag and signs as the pictures tell.")] = False,
    speed_unit: Annotated[SpeedUnit | None, typer.Option(help="Unit of the speeds.")] = None,
    steering_unit: Annotated[SteeringUnit | None, typer.Option(help="Unit of the steering.")] = None,
    time_unit: Annotated[TimeUnit | None, typer.Option(help="Unit of the times.")] = None,
    steering_ratio: Annotated[
        float | None, typer.Option(help="Angle in the file per angle of the road wheels; often 16.")
    ] = None,
    max_steering: Annotated[
        float | None,
        typer.Option(help="Largest angle of the road wheels, degrees, where steering is a share."),
    ] = None,
    max_speed: Annotated[
        float | None, typer.Option(help="Speed at full throttle, m/s, where no speed is recorded.")
    ] = None,
    right_positive: Annotated[
        bool | None,
        typer.Option("--right-positive/--left-positive", help="Sign of the recorded steering."),
    ] = None,
    wheelbase: Annotated[float, typer.Option(help="Between front and rear axle, m.")] = 2.8,
    time_offset: Annotated[
        float, typer.Option(help="Added to the times of readings beside a video, s.")
    ] = 0.0,
    recorded_rate: Annotated[
        float | None, typer.Option(help="Recorded pictures per second, Hz, where no times are.")
    ] = None,
    time_column: Annotated[str | None, typer.Option(help="Heading or number of the times.")] = None,
    steering_column: Annotated[str | None, typer.Option(help="Heading or number of the steering.")] = None,
    speed_column: Annotated[str | None, typer.Option(help="Heading or number of the speeds.")] = None,
    yaw_rate_column: Annotated[str | None, typer.Option(help="Heading or number of the yaw rates.")] = None,
    file_column: Annotated[str | None, typer.Option(help="Heading or number of the pictures' names.")] = None,
    camera_key: Annotated[str | None, typer.Option(help="Feature of a LeRobot data set.")] = None,
    field_of_view: Annotated[
        float | None, typer.Option(help="Width of the recorded view, degrees; else the calibration's, or 70.")
    ] = None,
    camera_height: Annotated[float, typer.Option(help="Above the ground, m.")] = 1.5,
    camera_forward: Annotated[float, typer.Option(help="Ahead of the rear axle, m.")] = 1.7,
    camera_pitch: Annotated[float, typer.Option(help="Of the camera, degrees, down is positive.")] = 0.0,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Make a data set of recordings of another kind; check what was recorded against the pictures."""
    del debug  # read by main()
    from drivesim.imports.importing import SHEET_FILE, check_free, import_recordings, write_import
    from drivesim.imports.summary import TABLE_COLUMNS

    if out is None and not dry_run:
        raise InputError("say where the data set goes with --out FOLDER, or look only with --dry-run")
    config = ImportConfig(
        rate_hz=rate,
        width_px=width,
        height_px=height,
        fit=fit,
        max_gap_s=max_gap,
        min_length_s=min_length,
        speed_unit=speed_unit,
        steering_unit=steering_unit,
        steering_ratio=steering_ratio,
        max_steering_rad=_radians(max_steering),
        max_speed_mps=max_speed,
        is_right_positive=right_positive,
        wheelbase_m=wheelbase,
        lag_frames=lag,
        flip_steering=flip_steering,
        flip_yaw_rate=flip_yaw_rate,
        fix=fix,
        time_unit=time_unit,
        time_offset_s=time_offset,
        recorded_rate_hz=recorded_rate,
        time_column=time_column,
        steering_column=steering_column,
        speed_column=speed_column,
        yaw_rate_column=yaw_rate_column,
        file_column=file_column,
        camera_key=camera_key,
        field_of_view_rad=_radians(field_of_view),
        camera_height_m=camera_height,
        camera_forward_m=camera_forward,
        camera_pitch_rad=_radians(camera_pitch) or 0.0,
    )
    if out is not None and not dry_run:
        check_free(out)
    try:
        imported = import_recordings(kind, src, config, on_progress=_say_progress)
        if out is not None and not dry_run:
            write_import(imported, out)
    except KeyboardInterrupt as error:
        console.fail("stopped; nothing was written")
        raise typer.Exit(_EXIT_STOPPED) from error
    summary = imported.summary
    console.print_table(f"{kind.value}: {src}", TABLE_COLUMNS, summary.rows())
    for warning in summary.warnings:
        console.warn(warning)
    if out is not None and not dry_run:
        console.say(
            f"{console.counted(len(imported.scenes), 'scene')} in {out}; list them with: "
            f"drivesim scenes --dataroot {shlex.quote(str(out))}\n"
            f"look at {out / SHEET_FILE}"
        )


def _radians(degrees: float | None) -> float | None:
    return None if degrees is None else float(np.radians(degrees))


def _say_progress(name: str, done: int, total: int) -> None:
    if done % _SAY_EVERY == 0:
        console.say(f"{name}: {done} of {total} pictures read")
