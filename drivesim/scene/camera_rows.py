"""Where the rows of cameras in ``sample_data.json`` are, and to which scene and camera they belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.scene.table_rows import ADVICE, read_table, row_name
from drivesim.scene.table_scan import RowBatch, TableScan

_NO_CAMERA = _NO_SCENE = -1
_UNKNOWN = -2

ROW = np.dtype(
    [
        ("time_us", "<i8"),
        ("offset", "<i8"),  # of the row in sample_data.json
        ("length", "<i4"),
        ("row", "<i4"),
    ]
)


@dataclass(kw_only=True, slots=True)
class CameraPart:
    """The rows of cameras in a part of the table."""

    rows: NDArray[np.void]  # (N,) of ROW
    groups: NDArray[np.int64]  # (N,) scene times the number of cameras, and the camera


class CameraRows:
    """The rows of cameras, as they are collected."""

    def __init__(self, folder: Path) -> None:
        """Read the small tables that tell what is a camera's and of which scene."""
        self.path = folder / "sample_data.json"
        self.sha256 = ""
        self.num_rows = 0  # passed over
        self.num_scenes, self._scene_of_sample = _samples(folder)
        self.channels, self._channel_of = _calibrations(folder)
        self._parts: list[CameraPart] = []

    def scan(self, *, begin: int = 0, end: int | None = None, is_hashed: bool = True) -> bool:
        """Pass over the table, or a part of it.

        Args:
            begin: byte of the row to begin with; 0 is the whole table.
            end: byte where to stop if a row begins there, and not at all if none does.
            is_hashed: False leaves ``sha256`` empty.

        Returns:
            Whether a row began at ``end``.
        """
        texts = ("sample_token", "calibrated_sensor_token")
        scan = TableScan(self.path, texts=texts, wholes=("timestamp",), begin=begin, is_hashed=is_hashed)
        for batch in scan:
            count = len(batch.offsets)
            if end is not None and batch.offsets[-1] >= end:
                count = int(np.searchsorted(batch.offsets, end))
                if batch.offsets[count] == end:
                    self._add(batch, count)
                    self.num_rows = batch.first_row + count
                    return True
                count, end = len(batch.offsets), None
            self._add(batch, count)
        self.num_rows, self.sha256 = scan.num_rows, scan.sha256
        return False

    def _add(self, batch: RowBatch, count: int) -> None:
        """Add the first ``count`` rows of a batch."""
        columns = {name: values[:count] for name, values in batch.columns.items()}
        channels = _places(self._channel_of, columns["calibrated_sensor_token"])
        scenes = _places(self._scene_of_sample, columns["sample_token"])
        is_camera = channels != _NO_CAMERA
        lost = np.flatnonzero(is_camera & ((channels == _UNKNOWN) | (scenes == _UNKNOWN)))
        if len(lost):
            first = int(lost[0])
            is_sample = bool(scenes[first] == _UNKNOWN)
            raise self._stranger(batch.first_row + first, is_sample, columns["sample_token"][first])
        kept = np.flatnonzero(is_camera & (scenes != _NO_SCENE))
        rows = np.zeros(len(kept), dtype=ROW)
        rows["time_us"] = [int(columns["timestamp"][index]) for index in kept.tolist()]
        rows["offset"], rows["length"] = batch.offsets[kept], batch.lengths[kept]
        rows["row"] = batch.first_row + kept
        groups = scenes[kept] * len(self.channels) + channels[kept]
        self._parts.append(CameraPart(rows=rows, groups=groups))

    def add_part(self, part: CameraPart, *, num_rows: int) -> None:
        """Add what another pass collected from the next ``num_rows`` rows of the table."""
        part.rows["row"] += self.num_rows
        self.num_rows += num_rows
        self._parts.append(part)

    def collected(self) -> CameraPart:
        """Return everything."""
        return CameraPart(
            rows=np.concatenate([np.zeros(0, dtype=ROW), *(part.rows for part in self._parts)]),
            groups=np.concatenate([np.zeros(0, dtype=np.int64), *(part.groups for part in self._parts)]),
        )

    def _stranger(self, row: int, is_sample: bool, sample: bytes) -> InputError:
        table, what = (
            ("sample", f"sample {sample.decode(errors='replace')!r}")
            if is_sample
            else ("calibrated_sensor", "a calibrated sensor")
        )
        return InputError(
            f"the tables in {self.path.parent} do not fit together: row {row + 1} of sample_data.json names {what} "
            f"that {table}.json has no row of; {ADVICE}"
        )


def _places(known: Mapping[bytes, int], tokens: Sequence[bytes]) -> NDArray[np.int64]:
    return np.fromiter(map(known.get, tokens, repeat(_UNKNOWN)), dtype=np.int64, count=len(tokens))


def _samples(folder: Path) -> tuple[int, dict[bytes, int]]:
    """Return the number of scenes, and the scene of each sample; ``_NO_SCENE`` for one that is not there."""
    scenes = read_table(folder / "scene.json")
    places = {row["token"]: place for place, row in enumerate(scenes)}
    samples = read_table(folder / "sample.json", texts=("token", "scene_token"))
    return len(scenes), {_key(row["token"]): places.get(row["scene_token"], _NO_SCENE) for row in samples}


def _calibrations(folder: Path) -> tuple[list[str], dict[bytes, int]]:
    """Return the cameras, and which one each calibrated sensor is; ``_NO_CAMERA`` for others."""
    sensors = {
        row["token"]: row
        for row in read_table(folder / "sensor.json", texts=("token", "channel", "modality"))
    }
    names = [row["channel"] for row in sensors.values() if row["modality"] == "camera"]
    cameras = list(dict.fromkeys(names))
    path, channels = folder / "calibrated_sensor.json", {}
    for number, row in enumerate(read_table(path, texts=("token", "sensor_token")), start=1):
        sensor = sensors.get(row["sensor_token"])
        if sensor is None:
            where, token = row_name(path, number), row["sensor_token"]
            raise InputError(f"{where} names sensor {token!r}, of which sensor.json has no row; {ADVICE}")
        is_camera = sensor["modality"] == "camera"
        channels[_key(row["token"])] = cameras.index(sensor["channel"]) if is_camera else _NO_CAMERA
    return cameras, channels


def _key(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")
