"""Is this folder a nuScenes data set? Every way in which it may not be has one sentence here."""

from __future__ import annotations

import os
from pathlib import Path

from drivesim.errors import InputError
from drivesim.scene.table_rows import file_of, read_table, row_name

TABLES = (
    "attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample",
    "sample_annotation", "sample_data", "scene", "sensor", "visibility",
)  # fmt: skip
NEEDED_TABLES = ("calibrated_sensor", "ego_pose", "sample", "sample_data", "scene", "sensor")
"""Without ``log`` and ``map`` a scene has no place; the others tell of other cars, see ``annotations``; v1.0-test
lacks them too."""
_ADVICE = "download one from nuscenes.org or make one with `drivesim data synth --out DIR`"


def check_dataroot(dataroot: Path, version: str) -> None:
    """Raise InputError unless ``dataroot`` holds the tables of ``version``, their map masks and samples/."""
    if not dataroot.is_dir():
        state = "is not a folder" if os.path.lexists(dataroot) else "does not exist"
        raise InputError(f"dataroot {dataroot} {state}; name the folder that holds samples/ and {version}/")
    _check_version(dataroot, version)
    missing = [name for name in NEEDED_TABLES if not (dataroot / version / f"{name}.json").is_file()]
    if missing:
        names = ", ".join(f"{name}.json" for name in missing)
        raise InputError(
            f"{dataroot / version} is incomplete: {names} missing; unpack the metadata archive again"
        )
    if not (dataroot / "samples").is_dir():
        raise InputError(
            f"dataroot {dataroot} has tables but no samples/ folder; unpack the sensor archives into it"
        )
    _check_maps(dataroot, version)


def _check_version(dataroot: Path, version: str) -> None:
    if version not in ("", ".", "..") and Path(version).name == version and (dataroot / version).is_dir():
        return
    versions = sorted(path.parent.name for path in dataroot.glob("*/scene.json"))
    if versions:
        raise InputError(f"dataroot {dataroot} has no version {version!r}; it has {', '.join(versions)}")
    if (dataroot / "scene.json").is_file():
        raise InputError(f"{dataroot} is a table folder; name its parent {dataroot.parent} as dataroot")
    raise InputError(f"{dataroot} is not a nuScenes data set (no tables in {version}/); {_ADVICE}")


def _check_maps(dataroot: Path, version: str) -> None:
    """A table of maps whose files were not unpacked is a download that is not complete."""
    path = dataroot / version / "map.json"
    if not path.is_file():
        return
    names = [
        file_of(record, "filename", row_name(path, number))
        for number, record in enumerate(read_table(path, texts=("filename",)), start=1)
    ]
    missing = [name for name in names if not (dataroot / name).is_file()]
    if missing:
        raise InputError(
            f"dataroot {dataroot} lacks {len(missing)} of {len(names)} map masks (first: {missing[0]}); "
            "unpack the maps of the metadata archive into it"
        )
