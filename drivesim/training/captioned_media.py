"""Captioned sets of one's own videos and pictures: read once, cut to clips of one size and rate."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from drivesim import console
from drivesim.config_json import config_to_json
from drivesim.errors import InputError
from drivesim.files import remove_abandoned
from drivesim.scene.captioned import CaptionedMedia, CaptionedSource
from drivesim.scene.captioned_clips import CaptionedClips
from drivesim.scene.captioned_source import CaptionedSourceConfig, open_filter, open_source
from drivesim.training.captioned_makers import GeneralDataConfig
from drivesim.training.captioned_set import CaptionedItem, CaptionedSet, write_set


class _Part:
    """Some items of a source."""

    def __init__(self, source: CaptionedSource, indices: list[int]) -> None:
        self.source, self.indices, self.num_missing = source, indices, 0

    def __len__(self) -> int:
        return len(self.indices)

    def item(self, index: int) -> CaptionedMedia:
        return self.source.item(self.indices[index])


def open_or_read(
    captions: CaptionedSourceConfig, config: GeneralDataConfig, *, rate_hz: float
) -> tuple[CaptionedSet, CaptionedSet]:
    """Return (training set, validation set) of captioned files, reading what is not there yet.

    A video gives as many clips as it takes to fill the set, each from a random place; a picture is read once. The items
    to validate on are chosen by their keys, at most a tenth of them.

    Args:
        captions: which files.
        config: numbers, size and folder of the sets; those of the project's own worlds do not apply.
        rate_hz: frames per second of the clips.

    Raises:
        InputError: no such files, no video among them, or the folder holds a set of something else.
    """
    source = open_source(captions)
    items = _readable(source)
    order = sorted(items, key=lambda i: hashlib.sha256(items[i].key.encode()).digest())
    videos = [i for i in order if not items[i].is_image]
    images = [i for i in order if items[i].is_image]
    if len(videos) < 2:
        raise InputError(
            f"{captions.path} holds {len(videos)} videos: one to train on and one to validate on are needed"
        )
    facts: dict[str, object] = {
        "captions": config_to_json(replace(captions, cache="")),
        "items": _digest(items),
        "first_seed": config.first_seed,
        "rate_hz": rate_hz,
    }
    sets = []
    for name, num_clips, num_images in (
        ("validation", config.num_validation_clips, config.num_validation_images),
        ("train", config.num_clips, config.num_images),
    ):
        parts = [_split(part, name) for part in (videos, images)]
        counts = (num_clips, min(num_images, len(parts[1])))
        sets.append(_set_of(Path(config.path) / name, source, parts, counts, captions, config, facts))
    return sets[1], sets[0]


def _digest(items: dict[int, CaptionedMedia]) -> str:
    """Return a hash of names, captions, sizes and times of the files, by which a changed source is noticed."""
    digest = hashlib.sha256()
    for item in items.values():
        digest.update(f"{item.key} {item.caption} {item.media.stamp()}\n".encode("utf-8", "replace"))
    return digest.hexdigest()


def _readable(source: CaptionedSource) -> dict[int, CaptionedMedia]:
    """Return the items by index but for those whose caption cannot be read, which are named in a warning."""
    items, errors = {}, []
    for index in range(len(source)):
        try:
            items[index] = source.item(index)
        except InputError as error:
            errors.append(str(error))
    if errors:
        console.warn(
            f"{len(errors)} captions cannot be read and their media are left out, first: {errors[0]}"
        )
    return items


def _split(order: list[int], name: str) -> list[int]:
    first = max(1, len(order) // 10) if len(order) > 1 else 0
    return order[:first] if name == "validation" else order[first:]


def _set_of(
    path: Path,
    source: CaptionedSource,
    parts: list[list[int]],
    counts: tuple[int, int],
    captions: CaptionedSourceConfig,
    config: GeneralDataConfig,
    facts: dict[str, object],
) -> CaptionedSet:
    size = (config.height_px, config.width_px)
    made_of = facts | {"counts": list(counts), "frames_per_clip": config.frames_per_clip, "size": list(size)}
    remove_abandoned(path)
    if path.exists():
        return CaptionedSet.open(path, made_of=made_of)
    streams = [
        CaptionedClips(
            _Part(source, indices),
            num_frames=config.frames_per_clip,
            rate_hz=float(str(facts["rate_hz"])),
            size=size,
            seed=config.first_seed,
            clip_filter=open_filter(captions),
        )
        for indices in parts
    ]
    with console.progress_bar(f"reading {path.name} clips and pictures", sum(counts)) as bar:
        return write_set(
            path,
            _items(streams, counts),
            num_clips=counts[0],
            num_images=counts[1],
            clip_shape=(config.frames_per_clip, *size),
            facts=made_of,
            on_progress=bar.update,
        )


def _items(streams: list[CaptionedClips], counts: tuple[int, int]) -> Iterator[CaptionedItem]:
    for stream, count in zip(streams, counts, strict=True):
        for clip in islice(iter(stream), count) if count else ():
            wordings = [clip.caption] if clip.caption else []
            yield CaptionedItem(frames=clip.frames, captions=wordings, frame_captions=wordings)
