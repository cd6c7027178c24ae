"""What ``meta/info.json`` of a LeRobot data set says: its version, its features, where its files are.

Templates of paths are filled in here without Python's ``format``, which would let a file reach into the program.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drivesim.errors import InputError, nearest
from drivesim.imports.foreign_files import number, path_inside, read_json, short, whole_number

INFO_PATH = "meta/info.json"
V2_DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V3_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
V3_VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_FIELD = re.compile(r"\{(\w+)(?::0(\d)d)?\}")
_VERSION = re.compile(r"v?(\d+)\.(\d+)")
_MAX_WIDTH = 1000  # of a feature


@dataclass(kw_only=True, slots=True)
class Feature:
    """A column: one number per name and row, or a video."""

    key: str
    dtype: str
    names: list[str]  # one per number
    facts: dict[str, Any] = field(default_factory=dict)  # of a video

    @property
    def is_video(self) -> bool:
        """Tell whether it is a video of light, not of depth."""
        is_depth = any(self.facts.get(key) is True for key in ("is_depth_map", "video.is_depth_map"))
        return self.dtype == "video" and not is_depth

    @property
    def is_numeric(self) -> bool:
        """Tell whether it holds numbers."""
        return re.fullmatch(r"(float|u?int)\d+", self.dtype) is not None


@dataclass(kw_only=True, slots=True)
class Info:
    """A LeRobot data set."""

    root: Path
    major: int  # 2 or 3
    fps: float
    robot_type: str
    features: dict[str, Feature]
    data_path: str
    video_path: str
    chunks_size: int

    def path(self, template: str, **fields: int | str) -> Path:
        """Return the path of a file.

        Raises:
            InputError: the template asks for a field that is not known, or leads out of the data set.
        """

        def value(match: re.Match[str]) -> str:
            name, width = match.groups()
            if name not in fields:
                raise InputError(
                    f"{self.root / INFO_PATH}: path {short(template)!r} has an unknown field {name!r}"
                )
            return str(fields[name]).rjust(int(width or 0), "0")

        path = path_inside(self.root, _FIELD.sub(value, template))
        if path is None or "{" in str(path.relative_to(self.root)):
            raise InputError(
                f"{self.root / INFO_PATH}: path {short(template)!r} leads out of the data set; mend it"
            )
        return path

    def video_key(self, wanted: str | None) -> str:
        """Return the feature that holds the pictures: the one asked for, the only one, or the only front camera.

        Raises:
            InputError: there is no such, or several to choose from.
        """
        keys = [key for key, feature in self.features.items() if feature.is_video]
        if wanted is not None:
            if wanted not in keys:
                raise InputError(f"{self.root} has no video {wanted!r}; {nearest(wanted, keys)}")
            return wanted
        if not keys:
            raise InputError(f"{self.root / INFO_PATH} lists no video; pictures inside tables cannot be read")
        fronts = [key for key in keys if "front" in key.lower()]
        if len(keys) == 1 or len(fronts) == 1:
            return keys[0] if len(keys) == 1 else fronts[0]
        raise InputError(
            f"{self.root} has {len(keys)} cameras; choose one with --camera-key: {', '.join(keys)}"
        )


def read_info(root: Path) -> Info:
    """Read ``meta/info.json``.

    Raises:
        InputError: it is missing, broken, or of a version that is not 2.x or 3.x.
    """
    path = root / INFO_PATH
    facts = read_json(path)
    version = _VERSION.fullmatch(str(facts.get("codebase_version", "")))
    if version is None or version[1] not in ("2", "3"):
        raise InputError(
            f"{path} is of version {short(facts.get('codebase_version'))!r}; convert the data set to v3.0 with LeRobot"
        )
    fps = number(facts.get("fps"))
    if fps is None or not 0 < fps <= 1000:
        raise InputError(f"{path}: fps is {short(facts.get('fps'))!r}, expected frames per second; mend it")
    features = facts.get("features")
    if not isinstance(features, dict):
        raise InputError(f"{path} lists no features; fetch it again")
    is_v3 = version[1] == "3"
    templates = (facts.get("data_path"), facts.get("video_path"))
    defaults = (V3_DATA_PATH, V3_VIDEO_PATH) if is_v3 else (V2_DATA_PATH, V2_VIDEO_PATH)
    data_path, video_path = (
        template if isinstance(template, str) else default
        for template, default in zip(templates, defaults, strict=True)
    )
    return Info(
        root=root,
        major=int(version[1]),
        fps=fps,
        robot_type=str(facts.get("robot_type", "")),
        features={key: _feature(key, value) for key, value in features.items() if isinstance(value, dict)},
        data_path=data_path,
        video_path=video_path,
        chunks_size=max(whole_number(facts.get("chunks_size")) or 1000, 1),
    )


def _feature(key: str, facts: dict[str, Any]) -> Feature:
    shape = facts.get("shape")
    width = whole_number(shape[0], most=_MAX_WIDTH) if isinstance(shape, list) and len(shape) == 1 else None
    names = _flat(facts.get("names"))
    if not names or (width is not None and len(names) != width):
        names = [key] if width == 1 else [str(index + 1) for index in range(width or 0)]
    details = facts.get("info") or facts.get("video_info")
    return Feature(
        key=key,
        dtype=str(facts.get("dtype", "")),
        names=names,
        facts=details if isinstance(details, dict) else {},
    )


def _flat(names: object, depth: int = 0) -> list[str]:
    """Return the names of numbers, which come as a list, in lists, or by the kind of thing that they are."""
    if isinstance(names, str):
        return [names]
    if depth > 3:
        return []
    parts = names.values() if isinstance(names, dict) else names if isinstance(names, list) else []
    return [name for part in parts for name in _flat(part, depth + 1)][:_MAX_WIDTH]
