"""A log -> scenes at a steady rate: cut where it is broken, fitted to one size, with the motion into each frame."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.imports.drive_log import DriveLog
from drivesim.imports.fitted_frames import FittedFrames, fitted_camera
from drivesim.imports.motion import (
    MAX_SPEED_DISAGREEMENT_MPS,
    STEERED,
    Sources,
    beyond_grip,
    corrected,
    motion_at,
    picture_interval_s,
    sources_of,
    speed_disagreement_mps,
)
from drivesim.imports.options import ImportConfig
from drivesim.imports.remarks import Check
from drivesim.imports.stretches import LeftOut, Stretches, stretches_of
from drivesim.imports.survey import Survey, camera_of, is_camera_off, survey_of
from drivesim.scene.frame_files import SteadyFrames, steady_frames
from drivesim.scene.surroundings import route_from_path
from drivesim.scene.types import Camera, Scene

_MAX_SLIDING_SHARE = 0.01  # of the pictures; more are no slips but a wrong unit or ratio
UNKNOWN_PLACE = "unknown"
_MAX_OFF_SHARE = 0.1  # of the time between frames, from which on a picture is shown clearly off its instant


@dataclass(kw_only=True, slots=True)
class ImportedScenes:
    """What a log became."""

    scenes: list[Scene]
    left_out: LeftOut
    sources: Sources
    problems: list[str] = field(default_factory=list)  # of the whole log


def scenes_of(log: DriveLog, config: ImportConfig, *, survey: Survey | None = None) -> ImportedScenes:
    """Make scenes of a log.

    Args:
        log: the recording as its reader left it.
        config: rate, size, camera, corrections.
        survey: of the log, if it was made before.

    Raises:
        InputError: the log contradicts itself, tells no speed or no turns, or is in a unit that no car has.
    """
    sources = checked_sources(log)
    survey = survey or survey_of(log, config)
    log = corrected(log, config)
    problems = list(log.problems)
    if (gap := speed_disagreement_mps(log)) > MAX_SPEED_DISAGREEMENT_MPS:
        problems.append(Check(f"speed is off the positions by {gap:.1f} m/s; it is taken from the positions"))
        log, sources = replace(log, speed_mps=None), replace(sources, speed="track")
    if sources.yaw_rate == STEERED:
        problems += _grip_problems(log, config)
    stretches = stretches_of(log, survey.is_readable, config)
    problems += _picture_problems(log, survey, config)
    camera = fitted_camera(
        camera_of(log, survey.common_size, config),
        width_px=config.width_px,
        height_px=config.height_px,
        how=config.fit,
    )
    scenes = [
        _scene(log, part, _name(log, number, stretches), camera, config)
        for number, part in enumerate(stretches.parts, start=1)
    ]
    for scene in scenes:
        scene.problems[:0] = problems
    return ImportedScenes(scenes=scenes, left_out=stretches.left_out, sources=sources, problems=problems)


def checked_sources(log: DriveLog) -> Sources:
    """Say where the motion of a log comes from.

    Raises:
        InputError: the log contradicts itself, holds less than two pictures, or tells no speed or no turns.
    """
    log.check()
    if len(log.frames) < 2:
        raise InputError(
            f"{log.name} holds {len(log.frames)} picture; a scene needs 2 or more, so record longer"
        )
    return sources_of(log)


def _name(log: DriveLog, number: int, stretches: Stretches) -> str:
    return log.name if len(stretches.parts) == 1 else f"{log.name}-{number}"


def _grip_problems(log: DriveLog, config: ImportConfig) -> list[str]:
    count, total = beyond_grip(log, config)
    if count <= _MAX_SLIDING_SHARE * total:
        return []
    return [
        Check(
            f"in {count} of {total} pictures steering and speed together ask for more than a tyre's grip, and the turn "
            "is cut to what tyres hold; check --speed-unit, --steering-unit and --steering-ratio"
        )
    ]


def _picture_problems(log: DriveLog, survey: Survey, config: ImportConfig) -> list[str]:
    problems = []
    if len(survey.sizes) > 1:
        width, height = survey.common_size
        problems.append(
            f"pictures are of {len(survey.sizes)} sizes; the camera is that of the commonest, {width}x{height}"
        )
    if is_camera_off(log, survey):
        problems.append("the calibration is of pictures of another shape; it was stretched to these")
    interval_s = picture_interval_s(log)
    ratio = 1.0 / (interval_s * config.rate_hz) if interval_s > 0 else 1.0
    if ratio < 3.5 and abs(ratio - round(ratio)) > _MAX_OFF_SHARE * ratio:
        problems.append(
            f"pictures at {1 / interval_s:.3g} Hz are shown up to {500 * interval_s:.0f} ms off their instants at "
            f"{config.rate_hz:g} Hz; --rate {1 / interval_s / max(round(ratio), 1):.3g} shows them on time"
        )
    return problems


def _scene(log: DriveLog, part: NDArray[np.int64], name: str, camera: Camera, config: ImportConfig) -> Scene:
    times_s = log.frame_times_s[part]
    steady = steady_frames(np.round((times_s - times_s[0]) * 1e6).astype(np.int64), config.rate_hz)
    motion = motion_at(log, times_s[0] + steady.instants_us * 1e-6, config)
    scene = Scene(
        name=name,
        place=log.place or UNKNOWN_PLACE,
        caption=log.caption,
        log_name=log.name,
        rate_hz=config.rate_hz,
        timestamps_s=np.arange(len(steady.indices)) / config.rate_hz,
        frames=FittedFrames(
            log.frames, part[steady.indices].tolist(), config.width_px, config.height_px, config.fit
        ),
        camera=camera,
        xy_m=motion.xy_m,
        yaw_rad=motion.yaw_rad,
        speed_mps=motion.speed_mps,
        yaw_rate_radps=motion.yaw_rate_radps,
        steering_rad=motion.steering_rad,
        motion_source="log",
        route_xy_m=route_from_path(motion.xy_m, motion.yaw_rad),
        problems=_repeats(steady),
    )
    scene.validate()
    return scene


def _repeats(steady: SteadyFrames) -> list[str]:
    if not steady.num_repeated:
        return []
    return [f"{steady.num_repeated} of {len(steady.indices)} instants lack a picture of their own"]


def check_any(imported: list[ImportedScenes], source: object) -> None:
    """Raise InputError where nothing is left of all recordings, with what became of them."""
    if any(each.scenes for each in imported):
        return
    reasons = [line for each in imported for line in each.left_out.lines]
    raise InputError(f"nothing of {source} can be used: {'; '.join(reasons) or 'it holds no recordings'}")
