"""Where in the large tables the pictures of every scene and camera are, and with them their ego poses.

``sample_data.json`` and ``ego_pose.json`` are passed over once; what is kept of a camera's row is a few numbers. A row
itself is read when its scene is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.scene.table_rows import ADVICE, read_table, row_name
from drivesim.scene.table_scan import TableScan

PARALLEL_FROM_BYTES = 1 << 26  # smaller tables are read before another process has started
_HEX = b"0123456789abcdef"
_TOKEN_BYTES = 16

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
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int32]
    sha256: str


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
    path = folder / "ego_pose.json"
    is_large = path.stat().st_size >= PARALLEL_FROM_BYTES and (os.cpu_count() or 1) > 1
    with ThreadPoolExecutor(1) as pool:
        poses = pool.submit(_poses_of_another_process, path) if is_large else None
        cameras = _Cameras(folder)
        cameras.scan()
        return cameras.joined(_result(poses) or scan_poses(path))


def scan_poses(path: Path) -> Poses:
    """Pass over ``ego_pose.json``."""
    scan = TableScan(path, texts=("token",))
    keys, offsets, lengths = [], [], []
    for batch in scan:
        keys.append(token_keys(batch.columns["token"]))
        offsets.append(batch.offsets)
        lengths.append(batch.lengths)
    empty = np.zeros(0)
    return Poses(
        keys=np.concatenate([token_keys([]), *keys]),
        offsets=np.concatenate([empty, *offsets]).astype(np.int64),
        lengths=np.concatenate([empty, *lengths]).astype(np.int32),
        sha256=scan.sha256,
    )


def write_poses(path: str, out: str) -> None:
    """Pass over ``ego_pose.json`` and leave the result in a file, for the process that waits for it."""
    poses = scan_poses(Path(path))
    np.savez(out, keys=poses.keys, offsets=poses.offsets, lengths=poses.lengths, sha256=poses.sha256)


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


def find_keys(wanted: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return (N,) rows of ``known`` (M, 2) that equal those of ``wanted`` (N, 2), the last of several; -1 for none."""
    if len(known) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(known[:, 0], kind="stable")
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

    def scan(self) -> None:
        """Collect them."""
        texts = ("sample_token", "calibrated_sensor_token", "ego_pose_token")
        scan = TableScan(self.path, texts=texts, wholes=("timestamp",))
        for batch in scan:
            sensors = [self._channel_of.get(token, -2) for token in batch.columns["calibrated_sensor_token"]]
            samples = batch.columns["sample_token"]
            kept, groups = [], []
            for index, channel in enumerate(sensors):
                if channel == -1:  # no camera
                    continue
                scene = self._scene_of_sample.get(samples[index])
                if channel < 0 or scene is None:
                    raise self._stranger(batch.first_row + index, scene is None, samples[index])
                if scene >= 0:
                    kept.append(index)
                    groups.append(scene * len(self.channels) + channel)
            times = batch.columns["timestamp"]
            poses = batch.columns["ego_pose_token"]
            part = np.zeros(len(kept), dtype=ROW)
            part["time_us"] = [int(times[index]) for index in kept]
            chosen = np.array(kept, dtype=np.int64)
            part["offset"], part["length"] = batch.offsets[chosen], batch.lengths[chosen]
            part["row"] = batch.first_row + chosen
            self._parts.append(part)
            self._groups.append(np.array(groups, dtype=np.int64))
            self._pose_keys.append(token_keys([poses[index] for index in kept]))
        self.hashes["sample_data"] = scan.sha256

    def joined(self, poses: Poses) -> BuiltIndex:
        """Return the index, with the place of every picture's pose."""
        rows = np.concatenate([np.zeros(0, dtype=ROW), *self._parts])
        groups = np.concatenate([np.zeros(0, dtype=np.int64), *self._groups])
        found = find_keys(np.concatenate(self._pose_keys), poses.keys)
        rows["pose_row"] = found
        is_found = found >= 0
        rows["pose_offset"] = -1
        rows["pose_offset"][is_found] = poses.offsets[found[is_found]]
        rows["pose_length"][is_found] = poses.lengths[found[is_found]]
        order = np.lexsort((rows["time_us"], groups))
        counts = np.bincount(groups, minlength=self._num_scenes * len(self.channels))
        spans = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        index = PictureIndex(channels=self.channels, rows=rows[order], spans=spans)
        return BuiltIndex(index=index, hashes=self.hashes | {"ego_pose": poses.sha256})

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


def _samples(folder: Path) -> tuple[int, dict[bytes, int]]:
    """Return the number of scenes, and the scene of each sample; -1 for one that is not there."""
    scenes = read_table(folder / "scene.json")
    places = {row["token"]: place for place, row in enumerate(scenes)}
    samples = read_table(folder / "sample.json", texts=("token", "scene_token"))
    return len(scenes), {_key(row["token"]): places.get(row["scene_token"], -1) for row in samples}


def _calibrations(folder: Path) -> tuple[list[str], dict[bytes, int]]:
    """Return the cameras, and which one each calibrated sensor is; -1 for one that is no camera."""
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
        channels[_key(row["token"])] = cameras.index(sensor["channel"]) if is_camera else -1
    return cameras, channels


def _key(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")


def _poses_of_another_process(path: Path) -> Poses | None:
    """Let another process pass over the poses meanwhile; None if that does not work out, whatever the reason."""
    code = "import sys; from drivesim.scene.table_index import write_poses; write_poses(*sys.argv[1:])"
    package_root = str(Path(__file__).resolve().parents[2])
    with TemporaryDirectory() as folder:
        out = str(Path(folder) / "poses.npz")
        try:
            subprocess.run(
                [sys.executable, "-P", "-c", code, str(path.absolute()), out],
                env=os.environ | {"PYTHONPATH": package_root},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            with np.load(out) as found:
                return Poses(
                    keys=found["keys"],
                    offsets=found["offsets"],
                    lengths=found["lengths"],
                    sha256=str(found["sha256"]),
                )
        except (OSError, ValueError, subprocess.SubprocessError):
            return None  # then it is done here, which also finds what is wrong with the table


def _result(poses: Future[Poses | None] | None) -> Poses | None:
    return None if poses is None else poses.result()
