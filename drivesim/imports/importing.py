"""Recordings of a kind -> scenes and a summary, and both on disk as a data set in the nuScenes schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from drivesim.errors import InputError
from drivesim.files import atomic_folder
from drivesim.imports.drive_log import DriveLog
from drivesim.imports.kinds import RecordingKind, reader_of
from drivesim.imports.lag import Evidence, LagEstimate, estimate, evidence_of
from drivesim.imports.motion import (
    MEASURED,
    STEERED,
    corrected,
    picture_interval_s,
    sources_of,
    yaw_signals,
)
from drivesim.imports.options import ImportConfig
from drivesim.imports.scenes import ImportedScenes, check_any, checked_sources, scenes_of
from drivesim.imports.sheet import SheetRow, import_sheet
from drivesim.imports.summary import ImportSummary, RecordingSummary
from drivesim.imports.survey import Survey, survey_of
from drivesim.scene.nuscenes_writer import write_nuscenes
from drivesim.scene.types import Scene
from drivesim.video import write_image

SUMMARY_FILE, SHEET_FILE = "import.json", "contact-sheet.png"
Progress = Callable[[str, int, int], None]
"""Is told the name of a recording, how many of its pictures are read, and how many there are."""


@dataclass(kw_only=True, slots=True)
class Imported:
    """Scenes, what is to be said of them, and what the contact sheet shows."""

    scenes: list[Scene]
    summary: ImportSummary
    sheet: list[SheetRow]


@dataclass(kw_only=True, slots=True)
class _Looked:
    """A log whose pictures were looked at."""

    log: DriveLog
    survey: Survey
    evidence: dict[str, Evidence]  # by where a yaw rate comes from


@dataclass(kw_only=True, slots=True)
class _Result:
    looked: list[_Looked]
    refused: list[str] = field(default_factory=list)  # recordings that cannot be used, and why


def import_recordings(
    kind: RecordingKind, path: Path, config: ImportConfig, *, on_progress: Progress | None = None
) -> Imported:
    """Read recordings, estimate their lag and sign from the pictures, and make scenes of them.

    Lag and signs are corrected as ``config`` says, by the estimate only with ``config.fix``.

    Raises:
        InputError: nothing of the recordings can be used.
    """
    result = _look(reader_of(kind)(path, config), path, config, on_progress)
    estimates = _pooled([each.evidence for each in result.looked])
    sources = [sources_of(each.log).yaw_rate for each in result.looked]
    chosen = _fixed(config, estimates, sources[0]) if config.fix else config
    made: list[tuple[_Looked, ImportedScenes]] = []
    for each in result.looked:
        try:
            made.append((each, scenes_of(each.log, chosen, survey=each.survey)))
        except InputError as error:
            result.refused.append(str(error))
    _check_used(made, result, path)
    summary = ImportSummary(
        kind=kind.value,
        source=str(path),
        given=config,
        used=chosen,
        estimates=estimates,
        yaw_rate_source=sources[0],
        recordings=[_summary(each, imported, chosen) for each, imported in made],
        refused=result.refused,
    )
    return Imported(
        scenes=[scene for _, imported in made for scene in imported.scenes],
        summary=summary,
        sheet=[
            SheetRow(log=corrected(each.log, chosen), survey=each.survey, scenes=imported.scenes)
            for each, imported in made
        ],
    )


def _look(
    logs: Sequence[DriveLog], path: Path, config: ImportConfig, on_progress: Progress | None
) -> _Result:
    """Survey every log; one that cannot be used is left out if there are others."""
    result = _Result(looked=[])
    as_recorded = replace(config, lag_frames=0, flip_steering=False, flip_yaw_rate=False)
    for log in map(_in_unicode, logs):
        name, count = log.name, len(log.frames)

        def report(done: int, name: str = name, count: int = count) -> None:
            if on_progress is not None:
                on_progress(name, done, count)

        try:
            checked_sources(log)
            clean = corrected(log, as_recorded)
            survey = survey_of(clean, config, on_progress=report)
        except InputError as error:
            if len(logs) == 1:
                raise
            result.refused.append(str(error))
            continue
        evidence = {
            source: evidence_of(survey.seen, signal, interval_s=picture_interval_s(log))
            for source, signal in yaw_signals(clean, config).items()
        }
        result.looked.append(_Looked(log=log, survey=survey, evidence=evidence))
    if not result.looked:
        raise InputError(
            f"nothing of {path} can be used: {'; '.join(result.refused) or 'it holds no recordings'}"
        )
    return result


def _in_unicode(log: DriveLog) -> DriveLog:
    """Return the log with its texts as they can be written: file names may hold bytes that are no characters."""
    name, place, caption = (
        text.encode(errors="replace").decode() for text in (log.name, log.place, log.caption)
    )
    return replace(log, name=name, place=place, caption=caption)


def _pooled(evidence: Sequence[dict[str, Evidence]]) -> dict[str, LagEstimate]:
    """Return one estimate for each source of a yaw rate: recordings of one import come from one recorder."""
    names = dict.fromkeys(name for each in evidence for name in each)
    return {name: estimate([each[name] for each in evidence if name in each]) for name in names}


def _fixed(config: ImportConfig, estimates: dict[str, LagEstimate], source: str) -> ImportConfig:
    """Return the configuration with what the pictures tell; what they do not tell stays."""
    fixed = config
    if source in estimates and (lag := estimates[source].lag_frames) is not None:
        fixed = replace(fixed, lag_frames=lag)
    if STEERED in estimates and (is_opposite := estimates[STEERED].is_opposite) is not None:
        fixed = replace(fixed, flip_steering=is_opposite)
    if MEASURED in estimates and (is_opposite := estimates[MEASURED].is_opposite) is not None:
        fixed = replace(fixed, flip_yaw_rate=is_opposite)
    return fixed


def _check_used(made: Sequence[tuple[_Looked, ImportedScenes]], result: _Result, path: Path) -> None:
    if not made:
        raise InputError(
            result.refused[0]
            if len(result.refused) == 1
            else f"nothing of {path} can be used: {'; '.join(result.refused)}"
        )
    check_any([imported for _, imported in made], path)


def _summary(looked: _Looked, imported: ImportedScenes, config: ImportConfig) -> RecordingSummary:
    log, survey = looked.log, looked.survey
    return RecordingSummary(
        name=log.name,
        num_scenes=len(imported.scenes),
        length_s=sum(float(scene.timestamps_s[-1]) for scene in imported.scenes),
        recorded_s=float(log.frame_times_s[-1] - log.frame_times_s[0]),
        num_pictures=len(log.frames),
        sizes={f"{width}x{height}": count for (width, height), count in survey.sizes.most_common()},
        sources=imported.sources,
        has_calibration=log.camera is not None,
        estimates={name: estimate([evidence]) for name, evidence in looked.evidence.items()},
        left_out=imported.left_out,
        first_unreadable=survey.first_problem,
        problems=imported.problems,
    )


def write_import(imported: Imported, out: Path) -> None:
    """Write scenes, summary and contact sheet into the new folder ``out``, which appears only when complete.

    Raises:
        InputError: ``out`` exists and is not empty.
    """
    check_free(out)
    with atomic_folder(out) as root:
        write_nuscenes(imported.scenes, root, on_left_out=imported.summary.refused.append)
        text = json.dumps(imported.summary.record(), indent=2, ensure_ascii=False, allow_nan=False)
        (root / SUMMARY_FILE).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        write_image(root / SHEET_FILE, import_sheet(imported.sheet))


def check_free(out: Path) -> None:
    """Raise InputError where a data set cannot be written without deleting something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty; name a new folder or remove it first")
