"""Recordings of the reference world -> a nuScenes data set on disk, with the traffic annotated as boxes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from drivesim.reference.annotations import CATEGORIES, AnnotationTables
from drivesim.scene.nuscenes_writer import ExportConfig, NuScenesWriter, writing_nuscenes
from drivesim.scene.table_files import token_of

if TYPE_CHECKING:
    from drivesim.reference.behavior import Recording

_ATTRIBUTES = {"vehicle.moving": "Vehicle is moving.", "vehicle.stopped": "Vehicle stands but may go on."}


def export_nuscenes(recordings: Iterable[Recording], out: Path, *, config: ExportConfig | None = None) -> int:
    """Write recordings as a nuScenes data set into the new folder ``out``, which appears only when complete.

    Recordings are taken one at a time, so an iterator keeps only one in memory.

    Returns:
        The number of scenes written; they are named ``scene-2001`` onwards, in order.

    Raises:
        InputError: ``out`` exists and is not empty, there are no recordings, or too many to number.
    """
    with writing_nuscenes(out, config=config) as writer:
        for name, words in CATEGORIES.items():
            writer.tables.add("category", token=token_of("category", name), name=name, description=words)
        for name, words in _ATTRIBUTES.items():
            writer.tables.add("attribute", token=token_of("attribute", name), name=name, description=words)
        for recording in recordings:
            _add_recording(writer, recording)
    return writer.num_scenes


def _add_recording(writer: NuScenesWriter, recording: Recording) -> None:
    written = writer.add_scene(recording.scene)
    if written is None:
        return
    boxes = AnnotationTables(written.token)
    for index, sample in written.samples.items():
        boxes.add(sample, recording.traffic[index], xy_m=recording.scene.xy_m[index])
    for record in boxes.instances():
        writer.tables.add("instance", **record)
    for record in boxes.annotations():
        writer.tables.add("sample_annotation", **record)
