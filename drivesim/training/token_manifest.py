"""The manifest of a token set: what the tokens were made of, which clips there are, and which shards hold them.

A token set is a folder: ``manifest.json``, ``shard-00000.safetensors`` and so on, and ``validation/`` with the recorded
clips of the open-loop check. What is read from a manifest is checked value by value, and it names no files: those
follow from the numbers of the shards.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from drivesim.errors import InputError
from drivesim.files import atomic_path

MANIFEST, VALIDATION, FORMAT = "manifest.json", "validation", "drivesim-tokens-3"
MAX_MANIFEST_BYTES = 1 << 30
_MAX_NUMBER = 1 << 48
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HASH_CHUNK = 1 << 20
RecordT = TypeVar("RecordT", "TokenSettings", "ShardRecord")


@dataclass(kw_only=True, slots=True)
class TokenSettings:
    """Everything that tokens depend on; a set is made with one of these."""

    weights: str  # hash of the world model that imagined the pasts
    vision: str  # hash of its tokenizer and motion field; see ``token_shards.vision_hash``
    dtype: str  # of the weights while it did
    device: str  # the kind that it ran on
    version: str  # of the data set
    tables: str  # fingerprint of its tables
    rate_hz: float
    width_px: int
    height_px: int
    frames_per_clip: int
    stride: int
    clips_per_shard: int
    imagined_share: float  # of the clips, whose past is imagined
    validation_share: float  # of the scenes
    num_validation_clips: int
    seed: int


@dataclass(kw_only=True, slots=True)
class ShardRecord:
    """A finished shard, without the clips that have bad pictures: ``skipped`` holds their rows in the plan, and why."""

    num_clips: int
    num_bytes: int
    sha256: str
    skipped: list[tuple[int, str]]


@dataclass(kw_only=True, slots=True)
class Manifest:
    """The plan of a token set, and how far it has come."""

    settings: TokenSettings
    dataroot: str  # where the data set lay; tokens do not depend on it
    clips: list[tuple[str, int]]  # scene and first frame, ``clips_per_shard`` of them to a shard
    shards: list[ShardRecord | None]  # None: not made yet

    @property
    def num_clips(self) -> int:
        """Return the clips in the shards that are made."""
        return sum(record.num_clips for record in self.shards if record is not None)

    @property
    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not made yet."""
        return [number for number, record in enumerate(self.shards) if record is None]

    def planned(self, number: int) -> list[tuple[str, int]]:
        """Return scene and first frame of the clips of a shard, those with bad pictures among them."""
        size = self.settings.clips_per_shard
        return self.clips[number * size : (number + 1) * size]

    def scene_names(self) -> list[str]:
        """Return the scenes that have clips."""
        return list(dict.fromkeys(name for name, _ in self.clips))


def shard_path(folder: Path, number: int) -> Path:
    """Return the file of a shard."""
    return folder / f"shard-{number:05d}.safetensors"


def num_shards(num_clips: int, clips_per_shard: int) -> int:
    """Return how many shards a plan has."""
    return -(-num_clips // clips_per_shard)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, atomically."""
    text = json.dumps({"format": FORMAT, **asdict(manifest)}, separators=(",", ":"))
    with atomic_path(folder / MANIFEST) as path:
        path.write_text(text.replace('"clips":', '\n"clips":').replace('"shards":', '\n"shards":') + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json``.

    Raises:
        InputError: it is missing or is not such a manifest.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise InputError(
                f"{path} is larger than {MAX_MANIFEST_BYTES >> 20} MB; it is no manifest of tokens"
            )
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{folder} holds no tokens ({error.strerror}: {MANIFEST}); make them with `drivesim tokenize`"
        ) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is not JSON that can be read ({_first_line(error)}); make the tokens anew"
        ) from error
    try:
        return _manifest(values)
    except _Unfit as error:
        raise InputError(f"{path} is no manifest of tokens: {error}; make the tokens anew") from error


class _Unfit(Exception):
    """A value in a manifest is not what it must be; the message says which."""


def _manifest(values: object) -> Manifest:
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise _Unfit(f"its format is not {FORMAT!r}")
    settings = _record(TokenSettings, values.get("settings"), "settings")
    if min(settings.frames_per_clip, settings.stride, settings.clips_per_shard) < 1:
        raise _Unfit("frames_per_clip, stride and clips_per_shard must be positive")
    clips = [_pair(clip, (str, int), f"clip {row}") for row, clip in enumerate(_items(values, "clips"))]
    records = _items(values, "shards")
    wanted = num_shards(len(clips), settings.clips_per_shard)
    if len(records) != wanted:
        raise _Unfit(f"it has {len(records)} shards where its {len(clips)} clips need {wanted}")
    shards = [
        None if record is None else _record(ShardRecord, record, f"shard {number}")
        for number, record in enumerate(records)
    ]
    manifest = Manifest(settings=settings, dataroot=str(values.get("dataroot")), clips=clips, shards=shards)
    for number, shard in enumerate(shards):
        _check_shard(number, shard, len(manifest.planned(number)))
    return manifest


def _check_shard(number: int, shard: ShardRecord | None, num_planned: int) -> None:
    if shard is None:
        return
    rows = [row for row, _ in shard.skipped]
    if len(set(rows)) != len(rows) or any(row >= num_planned for row in rows):
        raise _Unfit(f"the rows that shard {number} skipped are not among its {num_planned}")
    if shard.num_clips != num_planned - len(rows):
        raise _Unfit(f"shard {number} has {shard.num_clips} clips and {len(rows)} skipped of {num_planned}")
    if not _SHA256.fullmatch(shard.sha256):
        raise _Unfit(f"shard {number} has no SHA-256")


def _items(values: dict[str, Any], name: str) -> list[Any]:
    items = values.get(name)
    if not isinstance(items, list):
        raise _Unfit(f"{name} is not a list")
    return items


def _record(cls: type[RecordT], values: object, where: str) -> RecordT:
    names = [field.name for field in fields(cls)]
    if not isinstance(values, dict) or sorted(values) != sorted(names):
        raise _Unfit(f"{where} has not the entries {', '.join(names)}")
    kinds = {"str": str, "int": int, "float": float}
    checked: dict[str, Any] = {}
    for field in fields(cls):
        value, label = values[field.name], f"{where} {field.name}"
        if field.name == "skipped":
            if not isinstance(value, list):
                raise _Unfit(f"{label} is not a list")
            checked[field.name] = [_pair(item, (int, str), label) for item in value]
        else:
            checked[field.name] = _value(value, kinds[str(field.type)], label)
    return cls(**checked)


def _pair(values: object, kinds: Sequence[type], where: str) -> Any:
    if not isinstance(values, list) or len(values) != 2:
        raise _Unfit(f"{where} is not a pair")
    return tuple(_value(value, kind, where) for value, kind in zip(values, kinds, strict=True))


def _value(value: object, kind: type, where: str) -> Any:
    """Return a text, a whole number from 0 on or a finite number; nothing else is in a manifest."""
    if kind is str and isinstance(value, str):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (kind is float or isinstance(value, int)):
        assert isinstance(value, int | float)
        if math.isfinite(value) and 0 <= value < _MAX_NUMBER:
            return kind(value)
    raise _Unfit(f"{where} is not a {'text' if kind is str else 'number from 0 on that makes sense'}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
