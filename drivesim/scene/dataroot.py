"""Is this folder a nuScenes data set? Every way in which it may not be has one sentence here."""

from __future__ import annotations

import json
from pathlib import Path

from drivesim.errors import InputError

TABLES = (
    "attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample",
    "sample_annotation", "sample_data", "scene", "sensor", "visibility",
)  # fmt: skip
_ADVICE = "download one from nuscenes.org or make one with `drivesim data synth --out DIR`"


def check_dataroot(dataroot: Path, version: str) -> None:
    """Raise InputError unless ``dataroot`` holds the tables of ``version``, their map masks and samples/."""
    if not dataroot.is_dir():
        state = "is not a folder" if dataroot.exists() else "does not exist"
        raise InputError(f"dataroot {dataroot} {state}; name the folder that holds samples/ and {version}/")
    _check_version(dataroot, version)
    missing = [name for name in TABLES if not (dataroot / version / f"{name}.json").is_file()]
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


def check_tables(dataroot: Path, version: str) -> None:
    """Raise InputError that names the first table of ``version`` which is not a list of records."""
    for name in TABLES:
        path = dataroot / version / f"{name}.json"
        try:
            is_table = isinstance(json.loads(path.read_bytes()), list)
        except ValueError:
            is_table = False
        if not is_table:
            raise InputError(f"table {path} is truncated or not JSON; unpack the metadata archive again")


def _check_version(dataroot: Path, version: str) -> None:
    if (dataroot / version).is_dir():
        return
    versions = sorted(path.parent.name for path in dataroot.glob("*/scene.json"))
    if versions:
        raise InputError(f"dataroot {dataroot} has no version {version!r}; it has {', '.join(versions)}")
    if (dataroot / "scene.json").is_file():
        raise InputError(f"{dataroot} is a table folder; name its parent {dataroot.parent} as dataroot")
    raise InputError(f"{dataroot} is not a nuScenes data set (no tables in {version}/); {_ADVICE}")


def _check_maps(dataroot: Path, version: str) -> None:
    """The devkit refuses to open a data set whose map files are not all there."""
    path = dataroot / version / "map.json"
    try:
        names = [record["filename"] for record in json.loads(path.read_bytes())]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"table {path} is truncated or not a map table; unpack the metadata archive again"
        ) from error
    missing = [name for name in names if not (dataroot / name).is_file()]
    if missing:
        raise InputError(
            f"dataroot {dataroot} lacks {len(missing)} of {len(names)} map masks (first: {missing[0]}); "
            "unpack the maps of the metadata archive into it"
        )
