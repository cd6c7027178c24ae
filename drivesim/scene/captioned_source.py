"""Opens captioned media of any layout: the settings, and which layout a path has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from drivesim.console import warn
from drivesim.errors import InputError
from drivesim.scene.captioned import CaptionedSource
from drivesim.scene.captioned_files import FolderSource, WebVidSource
from drivesim.scene.captioned_shards import ShardSource
from drivesim.scene.file_facts import FileFacts
from drivesim.scene.file_patterns import find_files
from drivesim.scene.shots import ClipFilter


class SourceKind(Enum):
    """How captioned media lie on disk."""

    AUTO = "auto"  # shards if the path names or holds .tar files, else WebVid's layout if there is a table
    FOLDER = "folder"  # media files in folders, captions in .txt files beside them
    WEBVID = "webvid"  # media files in folders, captions in CSV files
    SHARDS = "shards"  # WebDataset's tar files


@dataclass(kw_only=True, slots=True)
class CaptionedSourceConfig:
    """Where captioned videos and pictures are, and which parts of the videos are used."""

    kind: SourceKind = SourceKind.AUTO
    path: str = ""  # a folder; for shards also a file, a glob or a pattern such as shard-{000..099}.tar
    csv: str = ""  # table, or a pattern of several; empty: those in the folder
    detect_cuts: bool = False  # no clip straddles a cut; needs drivesim[general]
    cut_threshold: float = 27.0  # mean change (0-255) that makes a cut; lower finds more
    min_motion: float = (
        0.0  # mean optical flow of a clip, frame widths per second; 0.01 drops what hardly moves
    )
    cache: str = "out/data/captioned"  # folder for what is found out about the files; empty: memory only

    def __post_init__(self) -> None:
        """Refuse thresholds without meaning, and a table for a layout that has none."""
        if not 0 < self.cut_threshold < 255 or not 0 <= self.min_motion < float("inf"):
            raise ValueError(
                "captioned media need cut_threshold inside (0, 255) and min_motion >= 0, "
                f"got {self.cut_threshold} and {self.min_motion}"
            )
        if self.csv and self.kind not in (SourceKind.AUTO, SourceKind.WEBVID):
            raise ValueError(f"csv={self.csv} is for kind=webvid, got kind={self.kind.value}; leave one out")


def open_source(config: CaptionedSourceConfig) -> CaptionedSource:
    """Open what ``config`` names and say how much of it is missing.

    Raises:
        InputError: there is nothing there, or it has another layout.
    """
    if not config.path:
        raise InputError("captioned media need a path: a folder or WebDataset shards")
    kind = _detected(config) if config.kind is SourceKind.AUTO else config.kind
    if kind is SourceKind.FOLDER:
        source: CaptionedSource = FolderSource(Path(config.path))
    elif kind is SourceKind.WEBVID:
        source = WebVidSource(Path(config.path), find_files(config.csv or config.path, ".csv").paths)
    else:
        found = find_files(config.path, ".tar")
        source = ShardSource(found.paths, FileFacts(_cache(config, "shards")), num_missing=found.num_missing)
    if source.num_missing:
        what = "shards" if kind is SourceKind.SHARDS else "files"
        warn(f"{source.num_missing} {what} of {config.path} are not there; {len(source)} items are used")
    return source


def open_filter(config: CaptionedSourceConfig) -> ClipFilter:
    """Return the filter that ``config`` asks for.

    Raises:
        InputError: it needs a library that is not installed.
    """
    return ClipFilter(
        detect_cuts=config.detect_cuts,
        cut_threshold=config.cut_threshold,
        min_motion=config.min_motion,
        cache=_cache(config, "videos"),
    )


def _detected(config: CaptionedSourceConfig) -> SourceKind:
    folder = Path(config.path)
    if config.csv:
        return SourceKind.WEBVID
    if not folder.is_dir():
        if folder.suffix != ".tar":
            raise InputError(f"there is no folder {folder}; check the path, or name .tar files")
        return SourceKind.SHARDS
    suffixes = {path.suffix for path in folder.iterdir() if not path.name.startswith(".")}
    if {".tar", ".csv"} <= suffixes:
        raise InputError(
            f"{folder} holds .tar and .csv files; say which to use with kind=shards or kind=webvid"
        )
    if ".tar" in suffixes:
        return SourceKind.SHARDS
    return SourceKind.WEBVID if ".csv" in suffixes else SourceKind.FOLDER


def _cache(config: CaptionedSourceConfig, name: str) -> Path | None:
    return Path(config.cache) / name if config.cache else None
