"""What a list of scenes shows."""

from __future__ import annotations

from collections.abc import Iterable

from drivesim.errors import InputError
from drivesim.scene.nuscenes import NuScenesDataset


def scene_rows(dataset: NuScenesDataset, names: Iterable[str]) -> list[tuple[str, str, str, str]]:
    """Return name, length, place, and caption of scenes; why a scene cannot be used stands for its caption."""
    rows = []
    for name in names:
        try:
            summary = dataset.summary(name)
        except InputError as error:
            rows.append((name, "-", "-", str(error)))
        else:
            rows.append((name, f"{summary.length_s:.1f} s", summary.place, summary.caption))
    return rows
