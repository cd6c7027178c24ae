"""Boxes of other road users in a nuScenes data set: read when they are asked for, between the annotated instants too.

nuScenes annotates twice a second. At an instant between, agents are where they were at the last annotation, moved on at
the speed since the one before: what is annotated later is not looked at, but for the speed of an agent that is
annotated for the first time, which is that towards its next annotation. The table of annotations is large: one pass,
at the first question, notes where the rows of every instant are.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.scene.geometry import FloatArray, yaw_from_quaternion
from drivesim.scene.table_rows import ADVICE, numbers_of, read_table, rotation_of, row_name, text_of, whole_of
from drivesim.scene.table_scan import TableScan
from drivesim.scene.token_keys import token_keys
from drivesim.scene.types import Agents

TABLES = ("sample_annotation", "instance", "category", "sample")
KINDS = ("vehicle.", "movable_object.barrier")  # how categories begin that stand on roads as boxes
LONGEST_GAP_S = 1.5  # between two annotations from which a speed is taken, as the devkit has it
LONGEST_HOLD_S = 0.6  # from the last annotated instant on
EARLY_S = 0.1  # a camera may have taken the picture of an annotated instant so much before it


@dataclass(kw_only=True, slots=True)
class _Track:
    """One agent at K annotated instants, by time."""

    times_s: FloatArray  # (K,) since the scene's first sample
    xy_m: FloatArray  # (K, 2)
    yaw_rad: FloatArray  # (K,)
    size_m: FloatArray  # (3,) length, width, height

    def at(self, time_s: float, newest_s: float) -> tuple[float, ...] | None:
        """Return x, y, yaw, speed, length, width and height at an instant; None if it was not annotated then.

        Args:
            time_s: the instant.
            newest_s: the scene's last annotated instant before it, at which the agent must have been seen.
        """
        index = int(np.searchsorted(self.times_s, newest_s - 1e-6))
        if index == len(self.times_s) or self.times_s[index] > newest_s + 1e-6:
            return None
        yaw_rad, speed_mps = float(self.yaw_rad[index]), self._speed_mps(index)
        gone_m = speed_mps * (time_s - float(self.times_s[index]))
        x_m, y_m = self.xy_m[index] + gone_m * np.array([np.cos(yaw_rad), np.sin(yaw_rad)])
        return (float(x_m), float(y_m), yaw_rad, speed_mps, *self.size_m.tolist())

    def _speed_mps(self, index: int) -> float:
        """Return the speed along the heading since the annotation before; 0 where there is no other one near."""
        first, last = (index - 1, index) if index else (0, min(1, len(self.times_s) - 1))
        gap_s = float(self.times_s[last] - self.times_s[first])
        if not 0 < gap_s <= LONGEST_GAP_S:
            return 0.0
        heading = np.array([np.cos(self.yaw_rad[index]), np.sin(self.yaw_rad[index])])
        return float((self.xy_m[last] - self.xy_m[first]) @ heading) / gap_s


@dataclass(kw_only=True, slots=True)
class _AnnotatedScene:
    times_s: FloatArray  # (K,) of the scene's samples
    start_us: int
    tracks: list[_Track]


class AnnotationTable:
    """The annotations of a data set, by scene."""

    def __init__(self, folder: Path) -> None:
        """Read nothing yet from a table folder."""
        self.folder = folder
        self._rows: tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int32]] | None = None
        self._scenes: dict[str, _AnnotatedScene] = {}
        self._wanted: set[str] | None = None
        self._samples: dict[str, dict[str, int]] | None = None

    def __reduce__(self) -> tuple[type[AnnotationTable], tuple[Path]]:
        """Leave what was read behind: other processes read for themselves."""
        return AnnotationTable, (self.folder,)

    @property
    def is_there(self) -> bool:
        """Tell whether the data set has all tables that are needed."""
        return all((self.folder / f"{name}.json").is_file() for name in TABLES)

    def scene(self, scene_token: str) -> _AnnotatedScene:
        """Return the agents of a scene.

        Raises:
            InputError: a table cannot be read or does not fit to another.
        """
        if scene_token not in self._scenes:
            try:
                self._scenes[scene_token] = self._read(scene_token)
            except InputError as error:
                raise InputError(f"{error}; episodes do without it: episode.uses_agents=false") from error
        return self._scenes[scene_token]

    def _read(self, scene_token: str) -> _AnnotatedScene:
        times_us = self._times_us().get(scene_token, {})
        start_us = min(times_us.values(), default=0)
        wanted = self._wanted_instances()
        found: dict[str, list[tuple[float, FloatArray, float, FloatArray]]] = defaultdict(list)
        path = self.folder / "sample_annotation.json"
        for record in self._records(path, list(times_us)):
            where = f"{path} annotation {record.get('token')!r}"
            sample, instance = (
                text_of(record, "sample_token", where),
                text_of(record, "instance_token", where),
            )
            if sample not in times_us or instance not in wanted:
                continue
            width_m, length_m, height_m = numbers_of(record, "size", where, (3,))
            found[instance].append(
                (
                    (times_us[sample] - start_us) * 1e-6,
                    numbers_of(record, "translation", where, (3,))[:2],
                    yaw_from_quaternion(rotation_of(record, "rotation", where)),
                    np.array([length_m, width_m, height_m]),
                )
            )
        return _AnnotatedScene(
            times_s=np.sort((np.array(list(times_us.values())) - start_us) * 1e-6),
            start_us=start_us,
            tracks=[_track(sorted(seen, key=lambda row: row[0])) for seen in found.values()],
        )

    def _times_us(self) -> dict[str, dict[str, int]]:
        """Return for each scene its samples and when they were."""
        if self._samples is None:
            samples: dict[str, dict[str, int]] = defaultdict(dict)
            path = self.folder / "sample.json"
            for number, row in enumerate(read_table(path, texts=("token", "scene_token")), start=1):
                time_us = whole_of(row, "timestamp", row_name(path, number))
                samples[row["scene_token"]][row["token"]] = time_us
            self._samples = samples
        return self._samples

    def _wanted_instances(self) -> set[str]:
        """Return the tokens of what is a vehicle or stands in the way."""
        if self._wanted is None:
            categories = {
                row["token"]
                for row in read_table(self.folder / "category.json", texts=("token", "name"))
                if row["name"].startswith(KINDS)
            }
            instances = read_table(self.folder / "instance.json", texts=("token", "category_token"))
            self._wanted = {row["token"] for row in instances if row["category_token"] in categories}
        return self._wanted

    def _records(self, path: Path, samples: Sequence[str]) -> list[dict[str, object]]:
        """Return the rows of some samples."""
        keys, offsets, lengths = self._where(path)
        wanted = token_keys([sample.encode() for sample in samples])[:, 0]
        spans = zip(np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, side="right"), strict=True)
        rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(first, end) for first, end in spans)])
        records = []
        with path.open("rb") as file:
            for row in rows[np.argsort(offsets[rows])]:
                file.seek(int(offsets[row]))
                try:
                    records.append(json.loads(file.read(int(lengths[row]))))
                except ValueError as error:
                    raise InputError(f"table {path} has changed meanwhile; {ADVICE}") from error
        return records

    def _where(self, path: Path) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int32]]:
        """Return where the rows are: half of the key of each one's sample, ascending, its offset and its length."""
        if self._rows is None:
            keys, offsets, lengths = (
                [np.zeros(0, np.uint64)],
                [np.zeros(0, np.int64)],
                [np.zeros(0, np.int32)],
            )
            for batch in TableScan(path, texts=("sample_token",), is_hashed=False):
                keys.append(token_keys(batch.columns["sample_token"])[:, 0])
                offsets.append(batch.offsets)
                lengths.append(batch.lengths)
            known = np.concatenate(keys)
            order = np.argsort(known, kind="stable")
            self._rows = known[order], np.concatenate(offsets)[order], np.concatenate(lengths)[order]
        return self._rows


def _track(seen: list[tuple[float, FloatArray, float, FloatArray]]) -> _Track:
    times_s, xy_m, yaw_rad, size_m = zip(*seen, strict=True)
    return _Track(times_s=np.array(times_s), xy_m=np.stack(xy_m), yaw_rad=np.array(yaw_rad), size_m=size_m[0])


class AnnotatedAgents(Sequence[Agents | None]):
    """The agents at each frame of a scene; read when first indexed."""

    def __init__(self, table: AnnotationTable, scene_token: str, instants_us: FloatArray) -> None:
        """Read nothing yet.

        Args:
            table: of the data set.
            scene_token: of the scene.
            instants_us: (T,) of the frames.
        """
        self._table, self._token, self._instants_us = table, scene_token, np.asarray(instants_us)

    def __len__(self) -> int:
        """Return T."""
        return len(self._instants_us)

    @overload
    def __getitem__(self, index: int) -> Agents | None: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Agents | None]: ...

    def __getitem__(self, index: int | slice) -> Agents | Sequence[Agents | None] | None:
        """Return the agents at a frame; None if nothing in the scene, or nothing about then, was annotated.

        Raises:
            InputError: a table cannot be read or does not fit to another.
        """
        if isinstance(index, slice):
            return AnnotatedAgents(self._table, self._token, self._instants_us[index])
        scene = self._table.scene(self._token)
        if not scene.tracks:
            return None
        time_s = (int(self._instants_us[index]) - scene.start_us) * 1e-6
        newest = int(np.searchsorted(scene.times_s, time_s + EARLY_S)) - 1
        if newest < 0 or time_s - scene.times_s[newest] > LONGEST_HOLD_S:
            return None
        found = [track.at(time_s, float(scene.times_s[newest])) for track in scene.tracks]
        values = np.array([row for row in found if row is not None]).reshape(-1, 7)
        return Agents(xy_m=values[:, :2], yaw_rad=values[:, 2], speed_mps=values[:, 3], size_m=values[:, 4:])
