"""What is painted on the roads of a map: nuScenes' map expansion, read and written.

Of its layers ``lane_divider`` and ``road_divider`` are read, with the kind of each of their segments. They do not tell
where the stripes of a dashed line begin, so such a line counts as painted in part; in maps that drivesim writes every
stripe is a divider of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from drivesim.errors import InputError
from drivesim.scene.faults import Fault
from drivesim.scene.geometry import FloatArray
from drivesim.scene.table_files import token_of
from drivesim.scene.types import DrivableArea, PaintedLine

EXPANSION_FOLDER = "maps/expansion"
LINE_WIDTH_M = 0.15  # the expansion has no widths
TOLERANCE_M = 0.02  # to which written lines are simplified
DASHED_SHARE = 0.4  # painted part of a dashed line
MAX_BYTES = 512 << 20  # those of nuScenes have some tens of millions
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
_BARE, _SOLID = "NIL", "SINGLE_SOLID_WHITE"
_LAYERS = (  # in the order of the original files
    "polygon",
    "line",
    "node",
    "drivable_area",
    "road_segment",
    "road_block",
    "lane",
    "ped_crossing",
    "walkway",
    "stop_line",
    "carpark_area",
    "road_divider",
    "lane_divider",
    "traffic_light",
    "lane_connector",
)


class MapExpansions:
    """The map expansions of a data root, each read when it is first asked for."""

    def __init__(self, dataroot: Path) -> None:
        """Prepare to read."""
        self._folder = dataroot / EXPANSION_FOLDER
        self._read: dict[Path, list[PaintedLine] | Fault] = {}

    def add_to(self, drivable: DrivableArea, *, names: list[str]) -> list[Fault]:
        """Let an area know what is painted on it, from the first map of these names; return what is wrong with that."""
        paths = [self._folder / f"{Path(name).name}.json" for name in names]
        path = next((path for path in paths if _is_there(path)), None)
        if path is None:
            return []
        if path not in self._read:
            self._read[path] = _read_or_fault(path)
        lines = self._read[path]
        if isinstance(lines, Fault):
            return [lines]
        low = drivable.origin_xy_m
        high = low + np.array(drivable.mask.shape[::-1]) * drivable.resolution_m
        drivable.lines = tuple(
            line
            for line in lines
            if (line.xy_m.max(axis=0) >= low).all() and (line.xy_m.min(axis=0) <= high).all()
        )
        return []


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # places have names of any length
        return False


def _read_or_fault(path: Path) -> list[PaintedLine] | Fault:
    try:
        return read_map_lines(path)
    except InputError as error:
        return Fault(f"{error}; what is painted on the road is not known")


def read_map_lines(path: Path) -> list[PaintedLine]:
    """Read the dividers of a map expansion.

    Raises:
        InputError: the file cannot be read or is no map expansion.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MB")
        tables = json.loads(path.read_text(encoding="utf-8"))
        nodes = {row["token"]: (float(row["x"]), float(row["y"])) for row in tables["node"]}
        by_token = {row["token"]: row["node_tokens"] for row in tables["line"]}
        lines = [
            PaintedLine(xy_m=xy_m, width_m=LINE_WIDTH_M, share=share)
            for tokens, kinds in _dividers(tables, by_token)
            for xy_m, share in _painted_parts(np.array([nodes[token] for token in tokens]), kinds)
        ]
    except _DAMAGE as error:
        raise InputError(
            f"map expansion {path} cannot be read ({type(error).__name__}: {str(error).splitlines()[0][:200]}); unpack "
            "it again or remove it"
        ) from error
    return lines


def _dividers(
    tables: dict[str, Any], line_nodes: dict[str, list[str]]
) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the nodes of each divider, and the kind of paint from each of them to the next."""
    for row in tables["lane_divider"]:
        segments = row.get("lane_divider_segments") or []
        if len(segments) > 1:
            yield [part["node_token"] for part in segments], [part["segment_type"] for part in segments]
        else:
            nodes = line_nodes[row["line_token"]]
            yield nodes, [segments[0]["segment_type"] if segments else "DASHED"] * len(nodes)
    for row in tables["road_divider"]:
        nodes = line_nodes[row["line_token"]]
        yield nodes, [_SOLID] * len(nodes)


def _painted_parts(xy_m: FloatArray, kinds: list[str]) -> Iterator[tuple[FloatArray, float]]:
    """Yield the stretches (N, 2) of one share of paint, bare ones left out."""
    shares = [0.0 if kind == _BARE else DASHED_SHARE if "DASHED" in kind else 1.0 for kind in kinds[:-1]]
    begin = 0
    for index in range(1, len(shares) + 1):
        if index == len(shares) or shares[index] != shares[begin]:
            if shares[begin] > 0:
                yield xy_m[begin : index + 1], shares[begin]
            begin = index


def expansion_of(lines: Iterable[PaintedLine], *, seed: str) -> dict[str, Any]:
    """Return lines as a map expansion of version 1.3; every stripe is a divider of its own.

    Args:
        lines: what is painted.
        seed: from which tokens are made.
    """
    tables: dict[str, Any] = {"version": "1.3"} | {layer: [] for layer in _LAYERS}
    for number, line in enumerate(lines):
        token, line_token = (token_of(kind, seed, number) for kind in ("lane_divider", "line"))
        xy_m = _simplified(line.xy_m)
        nodes = [token_of("node", seed, number, place)[:16] for place in range(len(xy_m))]
        kind = _SOLID if line.share >= 1 else "DOUBLE_DASHED_WHITE"
        tables["node"] += [
            {"token": node, "x": round(x, 2), "y": round(y, 2)}
            for node, (x, y) in zip(nodes, xy_m.tolist(), strict=True)
        ]
        tables["line"].append({"token": line_token, "node_tokens": nodes})
        segments = [{"node_token": node, "segment_type": kind} for node in nodes]
        tables["lane_divider"].append(
            {"token": token, "line_token": line_token, "lane_divider_segments": segments}
        )
    places = [(node["x"], node["y"]) for node in tables["node"]]
    tables["canvas_edge"] = np.max(places, axis=0).tolist() if places else [0.0, 0.0]
    return tables | {"connectivity": {}, "arcline_path_3": {}}


def _simplified(xy_m: FloatArray) -> FloatArray:
    """Leave out points (N, 2) that lie within ``TOLERANCE_M`` of the line through the others."""
    kept, begin = [0], 0
    while begin < len(xy_m) - 1:
        end = begin + 1
        while end < len(xy_m) - 1 and _is_straight(xy_m[begin : end + 2]):
            end += 1
        kept.append(end)
        begin = end
    return xy_m[kept]


def _is_straight(xy_m: FloatArray) -> bool:
    across = xy_m[-1] - xy_m[0]
    offset = xy_m[1:-1] - xy_m[0]
    area = np.abs(across[0] * offset[:, 1] - across[1] * offset[:, 0])
    goes_on = (np.diff(xy_m, axis=0) @ across > 0).all()
    return bool(goes_on and (area <= TOLERANCE_M * np.hypot(*across)).all())
