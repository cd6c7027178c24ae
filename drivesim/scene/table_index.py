"""Where in the large tables the pictures of every scene and camera are, and with them their ego poses.

``sample_data.json`` and ``ego_pose.json`` are passed over once; what is kept of a camera's row is a few numbers. A row
itself is read when its scene is.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from hashlib import blake2b
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.scene.table_rows import ADVICE, read_table, row_name
from drivesim.scene.table_scan import RowBatch, TableScan

PARALLEL_FROM_BYTES = 1 << 26  # smaller tables are read before another process has started
_HEX = b"0123456789abcdef"
_TOKEN_BYTES = 16
_NO_CAMERA = _NO_SCENE = -1
_UNKNOWN = -2

ROW = np.dtype(
    [
        ("time_us", "<i8"),
        ("offset", "<i8"),  # of the row in sample_data.json
        ("length", "<i4"),
        ("row", "<i4"),
        ("pose_offset", "<i8"),  # of the row in ego_pose.json; -1 if there is none
        ("pose_length", "<i4"),
        ("pose_row", "<i4"),
    ]
)


@dataclass(kw_only=True, slots=True)
class PictureIndex:
    """The pictures of a data set, by scene, camera and time."""

    channels: list[str]  # cameras
    rows: NDArray[np.void]  # (N,) of ROW
    spans: NDArray[np.int64]  # (scenes * cameras + 1,) where each scene's camera begins in ``rows``

    def pictures(self, scene: int, channel: str) -> NDArray[np.void]:
        """Return the rows of a camera in a scene, by time; none if it has no such camera."""
        if channel not in self.channels:
            return self.rows[:0]
        place = scene * len(self.channels) + self.channels.index(channel)
        return self.rows[self.spans[place] : self.spans[place + 1]]

    def channels_of(self, scene: int) -> list[str]:
        """Return the cameras that have pictures of a scene."""
        return [channel for channel in self.channels if len(self.pictures(scene, channel))]


@dataclass(kw_only=True, slots=True)
class Poses:
    """Where the rows of ``ego_pose.json`` are."""

    keys: NDArray[np.uint64]  # (M, 2) of their tokens
    order: NDArray[np.int64]  # (M,) that sorts the first halves of the keys
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int32]


@dataclass(kw_only=True, slots=True)
class BuiltIndex:
    """A new index, and the hashes of the two large tables it was made from."""

    index: PictureIndex
    hashes: dict[str, str]  # by table


def build_index(folder: Path) -> BuiltIndex:
    """Read the tables in a version folder.

    Raises:
        InputError: a table is missing, is not JSON, or does not fit to another.
    """
    is_large = (folder / "ego_pose.json").stat().st_size >= PARALLEL_FROM_BYTES
    with ThreadPoolExecutor(1) as pool:
        helped = (
            pool.submit(_poses_of_another_process, folder) if is_large and (os.cpu_count() or 1) > 1 else None
        )
        cameras = _Cameras(folder)
        cameras.scan(is_hashed=helped is None)
        found = None if helped is None else helped.result()
    poses, hashes = found or scan_poses(folder)
    return BuiltIndex(index=cameras.joined(poses), hashes=hashes | cameras.hashes)


def scan_poses(folder: Path) -> tuple[Poses, dict[str, str]]:
    """Pass over ``ego_pose.json``; return where its rows are, and its hash by its name."""
    scan = TableScan(folder / "ego_pose.json", texts=("token",))
    keys, offsets, lengths = [token_keys([])], [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    for batch in scan:
        keys.append(token_keys(batch.columns["token"]))
        offsets.append(batch.offsets)
        lengths.append(batch.lengths)
    known = np.concatenate(keys)
    poses = Poses(
        keys=known,
        order=np.argsort(known[:, 0], kind="stable"),
        offsets=np.concatenate(offsets),
        lengths=np.concatenate(lengths),
    )
    return poses, {"ego_pose": scan.sha256}


def write_poses(folder: str, out: str) -> None:
    """Pass over ``ego_pose.json`` and hash ``sample_data.json``, for the process that waits for the result."""
    poses, hashes = scan_poses(Path(folder))
    with (Path(folder) / "sample_data.json").open("rb") as file:
        hashes["sample_data"] = hashlib.file_digest(file, "sha256").hexdigest()
    arrays = {field.name: getattr(poses, field.name) for field in fields(Poses)}
    np.savez(out, hashes=np.array(json.dumps(hashes)), **arrays)


def token_keys(tokens: Sequence[bytes]) -> NDArray[np.uint64]:
    """Return (N, 2) numbers for tokens: their value where they are 32 hexadecimal digits, else a hash."""
    joined = b"".join(tokens)
    if set(map(len, tokens)) <= {2 * _TOKEN_BYTES} and not joined.translate(None, _HEX):
        raw = bytes.fromhex(joined.decode())
    else:
        raw = b"".join(
            bytes.fromhex(token.decode())
            if len(token) == 2 * _TOKEN_BYTES and not token.translate(None, _HEX)
            else blake2b(token, digest_size=_TOKEN_BYTES).digest()
            for token in tokens
        )
    return np.frombuffer(raw, dtype="<u8").reshape(-1, 2)


def find_keys(wanted: NDArray[np.uint64], poses: Poses) -> NDArray[np.int64]:
    """Return (N,) rows of the poses with the keys ``wanted`` (N, 2), the last one of several; -1 for none."""
    known, order = poses.keys, poses.order
    if len(known) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    place = np.searchsorted(known[order, 0], wanted[:, 0], side="right") - 1
    found = order[np.maximum(place, 0)]
    is_found = (known[found] == wanted).all(axis=1)
    if (~is_found & (known[found, 0] == wanted[:, 0])).any():  # halves that meet by chance, or by intent
        rows = {key.tobytes(): row for row, key in enumerate(known)}
        return np.array([rows.get(key.tobytes(), -1) for key in wanted], dtype=np.int64)
    return np.where(is_found, found, -1)


class _Cameras:
    """The rows of cameras in ``sample_data.json``, as they are collected."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "sample_data.json"
        self.hashes: dict[str, str] = {}
        self._num_scenes, self._scene_of_sample = _samples(folder)
        self.channels, self._channel_of = _calibrations(folder)
        self._parts: list[NDArray[np.void]] = []
        self._groups: list[NDArray[np.int64]] = []
        self._pose_keys = [token_keys([])]

    def scan(self, *, is_hashed: bool) -> None:
        """Collect them."""
        texts = ("sample_token", "calibrated_sensor_token", "ego_pose_token")
        scan = TableScan(self.path, texts=texts, wholes=("timestamp",), is_hashed=is_hashed)
        for batch in scan:
            self._add(batch)
        if is_hashed:
            self.hashes["sample_data"] = scan.sha256

    def _add(self, batch: RowBatch) -> None:
        columns = batch.columns
        channels = _places(self._channel_of, columns["calibrated_sensor_token"])
        scenes = _places(self._scene_of_sample, columns["sample_token"])
        is_camera = channels != _NO_CAMERA
        lost = np.flatnonzero(is_camera & ((channels == _UNKNOWN) | (scenes == _UNKNOWN)))
        if len(lost):
            first = int(lost[0])
            is_sample = bool(scenes[first] == _UNKNOWN)
            raise self._stranger(batch.first_row + first, is_sample, columns["sample_token"][first])
        kept = np.flatnonzero(is_camera & (scenes != _NO_SCENE))
        part = np.zeros(len(kept), dtype=ROW)
        part["time_us"] = [int(columns["timestamp"][index]) for index in kept.tolist()]
        part["offset"], part["length"] = batch.offsets[kept], batch.lengths[kept]
        part["row"] = batch.first_row + kept
        self._parts.append(part)
        self._groups.append(scenes[kept] * len(self.channels) + channels[kept])
        self._pose_keys.append(token_keys([columns["ego_pose_token"][index] for index in kept.tolist()]))

    def joined(self, poses: Poses) -> PictureIndex:
        """Return the index, with the place of every picture's pose."""
        rows = np.concatenate([np.zeros(0, dtype=ROW), *self._parts])
        groups = np.concatenate([np.zeros(0, dtype=np.int64), *self._groups])
        found = find_keys(np.concatenate(self._pose_keys), poses)
        rows["pose_row"] = found
        is_found = found >= 0
        rows["pose_offset"] = -1
        rows["pose_offset"][is_found] = poses.offsets[found[is_found]]
        rows["pose_length"][is_found] = poses.lengths[found[is_found]]
        order = np.lexsort((rows["time_us"], groups))
        counts = np.bincount(groups, minlength=self._num_scenes * len(self.channels))
        spans = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return PictureIndex(channels=self.channels, rows=rows[order], spans=spans)

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


def _poses_of_another_process(folder: Path) -> tuple[Poses, dict[str, str]] | None:
    """Let another process do :func:`write_poses` meanwhile; None if that does not work out, whatever the reason."""
    code = "import sys; from drivesim.scene.table_index import write_poses; write_poses(*sys.argv[1:])"
    package_root = str(Path(__file__).resolve().parents[2])
    with TemporaryDirectory() as temporary:
        out = str(Path(temporary) / "poses.npz")
        try:
            subprocess.run(
                [sys.executable, "-P", "-c", code, str(folder.absolute()), out],
                env=os.environ | {"PYTHONPATH": package_root},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            with np.load(out) as found:
                poses = Poses(**{field.name: found[field.name] for field in fields(Poses)})
                return poses, json.loads(str(found["hashes"]))
        except (OSError, ValueError, subprocess.SubprocessError):
            return None  # then it is done here, which also finds what is wrong with the table
