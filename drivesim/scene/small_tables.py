"""The small nuScenes tables: scenes, their logs and maps, and how the cameras are mounted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from drivesim.errors import InputError
from drivesim.scene.table_rows import (
    ADVICE,
    Record,
    file_of,
    numbers_of,
    read_table,
    rotation_of,
    row_name,
    text_of,
)

UNKNOWN_PLACE = "unknown"


@dataclass(kw_only=True, slots=True, frozen=True)
class SceneRow:
    """A row of ``scene.json``."""

    place: int  # of the row in the table, 0 for the first
    name: str
    description: str
    log_token: str
    token: str


@dataclass(kw_only=True, slots=True, frozen=True)
class LogRow:
    """A row of ``log.json``."""

    logfile: str
    location: str


@dataclass(kw_only=True, slots=True)
class SmallTables:
    """What is known of scenes beside their pictures."""

    folder: Path
    scenes: dict[str, SceneRow]  # by name
    logs: dict[str, LogRow]  # by token; empty if the table is not there
    maps: dict[str, str]  # file of the mask by token of the log
    sensors: dict[str, tuple[int, Record]]  # calibrated sensors and their place by token
    notes: list[str] = field(default_factory=list)

    def log_of(self, scene: SceneRow) -> LogRow:
        """Return the log of a scene; where there are no logs, one of its own.

        Raises:
            InputError: there are logs, but not this one.
        """
        if not self.logs:
            return LogRow(logfile=scene.name, location=UNKNOWN_PLACE)
        if scene.log_token not in self.logs:
            raise self._lost("log", scene.log_token)
        return self.logs[scene.log_token]

    def map_of(self, scene: SceneRow) -> str | None:
        """Return the file of the map mask of a scene."""
        return self.maps.get(scene.log_token)

    def calibrated_sensor(self, token: str) -> Record:
        """Return how a camera is mounted and what it sees, all numbers checked.

        Raises:
            InputError: there is no such row, or it cannot be used.
        """
        if token not in self.sensors:
            raise self._lost("calibrated_sensor", token)
        place, row = self.sensors[token]
        where = row_name(self.folder / "calibrated_sensor.json", place + 1)
        intrinsic = numbers_of(row, "camera_intrinsic", where, (3, 3))
        if not (intrinsic[0, 0] > 0 and intrinsic[1, 1] > 0):
            raise InputError(f"{where}: camera_intrinsic has no positive focal lengths; {ADVICE}")
        return {
            "camera_intrinsic": intrinsic,
            "translation": numbers_of(row, "translation", where, (3,)),
            "rotation": rotation_of(row, "rotation", where),
        }

    def _lost(self, table: str, token: str) -> InputError:
        return InputError(
            f"{self.folder / table}.json has no row {token!r}, which other tables name; {ADVICE}"
        )


def read_small_tables(folder: Path) -> SmallTables:
    """Read them from a version folder; ``log.json`` and ``map.json`` may be missing or empty.

    Raises:
        InputError: a table cannot be read, or two scenes have one name.
    """
    notes: list[str] = []
    logs = {
        row["token"]: LogRow(logfile=row["logfile"], location=row["location"])
        for row in _optional(folder / "log.json", ("token", "logfile", "location"), notes)
    }
    sensors = read_table(folder / "calibrated_sensor.json")
    return SmallTables(
        folder=folder,
        scenes=_scenes(folder / "scene.json"),
        logs=logs,
        maps=_maps(folder / "map.json", notes),
        sensors={row["token"]: (place, row) for place, row in enumerate(sensors)},
        notes=notes,
    )


def _scenes(path: Path) -> dict[str, SceneRow]:
    scenes: dict[str, SceneRow] = {}
    for place, row in enumerate(read_table(path, texts=("token", "name", "log_token"))):
        where = row_name(path, place + 1)
        if (name := row["name"]) in scenes:
            raise InputError(f"{where} and row {scenes[name].place + 1} are both named {name!r}; {ADVICE}")
        description = text_of(row, "description", where) if "description" in row else ""
        scenes[name] = SceneRow(
            place=place, name=name, description=description, log_token=row["log_token"], token=row["token"]
        )
    return scenes


def _maps(path: Path, notes: list[str]) -> dict[str, str]:
    maps = {}
    for number, row in enumerate(_optional(path, ("filename",), notes), start=1):
        where = row_name(path, number)
        tokens = row.get("log_tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise InputError(f"{where}: log_tokens must be a list of tokens; {ADVICE}")
        maps.update(dict.fromkeys(tokens, file_of(row, "filename", where)))
    return maps


def _optional(path: Path, texts: tuple[str, ...], notes: list[str]) -> list[Record]:
    rows = read_table(path, texts=texts) if path.is_file() else []
    if not rows:
        notes.append(f"{path.name} is missing or empty; places are not known from it")
    return rows
