"""Captioned media in WebDataset shards: tar files of ``key.mp4`` or ``key.jpg`` beside ``key.txt`` or ``key.json``.

A shard is read by index, through Python's tarfile, where the ``webdataset`` library reads from front to back: training
draws items in any order, and a clip needs a few megabytes in the middle of a gigabyte.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivesim.console import warn
from drivesim.errors import InputError
from drivesim.scene.captioned import CaptionedMedia, one_line
from drivesim.scene.file_facts import FileFacts
from drivesim.scene.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, MediaFile

_KEY_AND_SUFFIX = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")  # WebDataset: a key ends at its first dot
_MEDIA = tuple(suffix[1:] for suffix in VIDEO_SUFFIXES + IMAGE_SUFFIXES)  # best first
_CAPTIONS = ("txt", "json")
_JSON_CAPTIONS = ("caption", "text")


@dataclass(slots=True, frozen=True)
class _Member:
    name: str
    offset: int
    num_bytes: int


@dataclass(slots=True, frozen=True)
class _Sample:
    shard: Path
    key: str
    media: _Member
    caption: _Member | None


class ShardSource:
    """The samples of tar files; those without a video or picture are left out, and what a cut shard has lost."""

    def __init__(self, shards: Sequence[Path], facts: FileFacts, *, num_missing: int = 0) -> None:
        """Index the shards; a damaged one is left out with a warning.

        Args:
            shards: Uncompressed tar files.
            facts: Keeps their indices.
            num_missing: Shards that were named and are not there.

        Raises:
            InputError: none of them holds a sample.
        """
        self.num_missing = num_missing
        self._samples: list[_Sample] = []
        first_error: InputError | None = None
        for shard in shards:
            try:
                self._samples += _samples_of(shard, facts)
            except InputError as error:
                warn(f"{error}; the shard is left out")
                first_error = first_error or error
        if not self._samples:
            reason = f"{first_error}" if first_error else f"{shards[0]} has no {', '.join(_MEDIA)}"
            raise InputError(f"none of {len(shards)} shards holds a video or picture: {reason}")

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._samples)

    def item(self, index: int) -> CaptionedMedia:
        """Return the sample at ``index``; its caption is read now.

        Raises:
            InputError: the caption is no JSON object with a caption in it.
        """
        sample = self._samples[index]
        caption = "" if sample.caption is None else _caption_of(_file(sample.shard, sample.caption))
        media = _file(sample.shard, sample.media)
        return CaptionedMedia(key=f"{sample.shard.name}:{sample.key}", caption=caption, media=media)


def _samples_of(shard: Path, facts: FileFacts) -> Iterator[_Sample]:
    members = facts.get(MediaFile(path=shard), "tar members", lambda: _member_table(shard))
    groups: dict[str, dict[str, _Member]] = {}
    for key, suffix, *where in members:
        groups.setdefault(key, {})[suffix] = _Member(*where)
    for key, files in groups.items():
        media = next((files[suffix] for suffix in _MEDIA if suffix in files), None)
        if media is not None:
            caption = next((files[suffix] for suffix in _CAPTIONS if suffix in files), None)
            yield _Sample(shard, key, media, caption)


def _member_table(shard: Path) -> list[tuple[str, str, str, int, int]]:
    """Return (key, suffix, name, offset, bytes) of the members that count, up to where the file ends."""
    table = []
    num_bytes = shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in _whole_members(tar, shard, num_bytes):
                match = _KEY_AND_SUFFIX.fullmatch(member.name)
                if match is None or member.name.rpartition("/")[2].startswith("__"):
                    continue
                suffix = match[2].lower().rpartition(".")[2]
                if suffix in _MEDIA + _CAPTIONS:
                    table.append((match[1], suffix, member.name, member.offset_data, member.size))
    except (OSError, tarfile.TarError) as error:
        raise InputError(
            f"cannot read shard {shard} ({error}); it must be a tar that is not compressed"
        ) from error
    return table


def _whole_members(tar: tarfile.TarFile, shard: Path, num_bytes: int) -> Iterator[tarfile.TarInfo]:
    try:
        for member in tar:
            if member.offset_data + member.size > num_bytes:
                raise tarfile.ReadError(f"{member.name} is cut off")
            if member.isreg() and not member.issparse():
                yield member
    except tarfile.ReadError as error:
        warn(f"shard {shard} is truncated ({error}); what comes before is used")


def _file(shard: Path, member: _Member) -> MediaFile:
    return MediaFile(path=shard, member=member.name, offset=member.offset, num_bytes=member.num_bytes)


def _caption_of(file: MediaFile) -> str:
    try:
        with file.open() as opened:
            text = opened.read().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read {file.name} ({error.strerror}); check the path") from error
    return one_line(_json_caption(text, file.name) if file.member.lower().endswith(".json") else text)


def _json_caption(text: str, name: str) -> str:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{name} is no JSON ({error}); write the shard again") from error
    if isinstance(content, str):
        return content
    fields = content if isinstance(content, dict) else {}
    caption = next((fields[field] for field in _JSON_CAPTIONS if field in fields), None)
    if caption is None and not any(field in fields for field in _JSON_CAPTIONS):
        raise InputError(f"{name} has no {' or '.join(_JSON_CAPTIONS)}, but {', '.join(fields) or 'nothing'}")
    return str(caption or "")
