"""Captioned clips and images of one size as memory-mapped arrays, made once and read by training.

A set is a folder: ``clips.npy`` (N, T, H, W, 3), ``images.npy`` (M, H, W, 3), ``twist.npy`` (N, T, 2) with NaN where
a clip has no actions, ``clip_boxes.npy`` (N, T, 2, 4) and ``image_boxes.npy`` (M, 2, 4) with NaN where it is not known
where things are, and ``set.json`` with facts and captions. Where its content comes from: see
``captioned_makers.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.files import atomic_folder, reserve_space
from drivesim.general_world.trajectory import MAX_OBJECTS

Captions = list[list[str]]
"""For every item the wordings there are of its caption."""


@dataclass(kw_only=True, slots=True)
class CaptionedItem:
    """One clip or image with its captions."""

    frames: NDArray[np.uint8]  # (T, H, W, 3); an image has T = 1
    captions: list[str]
    frame_captions: list[str]  # of a single frame of a clip: what can be said of it without its motion
    twist: NDArray[np.float32] | None = None  # (T, 2) speed (m/s) and yaw rate (rad/s) into each frame
    boxes: NDArray[np.float32] | None = (
        None  # (T, 2, 4) left, top, right, bottom of things, shares of the frame
    )


@dataclass(kw_only=True, slots=True)
class CaptionedSet:
    """Captioned clips and images; the arrays are memory-mapped and must not be written."""

    clips: NDArray[np.uint8]  # (N, T, H, W, 3)
    images: NDArray[np.uint8]  # (M, H, W, 3)
    twist: NDArray[np.float32]  # (N, T, 2) speed (m/s) and yaw rate (rad/s); NaN without actions
    clip_boxes: NDArray[np.float32]  # (N, T, 2, 4) left, top, right, bottom of up to two things; NaN for none
    image_boxes: NDArray[np.float32]  # (M, 2, 4)
    clip_captions: Captions
    frame_captions: Captions
    image_captions: Captions
    facts: dict[str, Any]
    set_id: str  # drawn anew whenever a set is made, so that what was derived from another one is noticed
    path: Path

    @classmethod
    def open(cls, path: Path, *, made_of: Mapping[str, object] | None = None) -> CaptionedSet:
        """Open a set written by :func:`write_set`.

        Args:
            path: its folder.
            made_of: the facts that it must have; any are right if left out.

        Raises:
            InputError: the folder is missing, is not such a set, or was made of something else.
        """
        try:
            content = json.loads((path / "set.json").read_text(encoding="utf-8"))
            clips, images = (mapped_array(path / f"{name}.npy") for name in ("clips", "images"))
            found = cls(
                clips=clips,
                images=images,
                twist=np.load(path / "twist.npy"),
                clip_boxes=_boxes(path / "clip_boxes.npy", clips.shape[:2]),
                image_boxes=_boxes(path / "image_boxes.npy", images.shape[:1]),
                clip_captions=content["clip_captions"],
                frame_captions=content["frame_captions"],
                image_captions=content["image_captions"],
                facts=content["facts"],
                set_id=content["set_id"],
                path=path,
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path} holds no captioned clips ({error}); remove it so that it is made anew"
            ) from error
        if made_of is not None and found.facts != made_of:
            raise InputError(
                f"{path} holds {found.facts}, but the run asks for {made_of}; name another general.path or remove it"
            )
        return found

    @property
    def frames(self) -> NDArray[np.uint8]:
        """Return the clips, as the tokenizer's training wants them."""
        return self.clips

    @property
    def frames_per_clip(self) -> int:
        """Return the frames of each clip."""
        return int(self.clips.shape[1])

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def per_step(self, *, start_step: int, seed: int, rank: int, world_size: int) -> Iterator[CaptionedSet]:
        """Yield this set for every step."""
        del start_step, seed, rank, world_size
        return repeat(self)


def write_set(
    path: Path,
    items: Iterator[CaptionedItem],
    *,
    num_clips: int,
    num_images: int,
    clip_shape: tuple[int, int, int],
    facts: dict[str, Any],
    on_progress: Callable[[int], None] | None = None,
) -> CaptionedSet:
    """Write items into the new folder ``path``, which appears under its name only when all are in it.

    Args:
        path: new folder.
        items: as many clips and images as are announced, in any order.
        num_clips: N.
        num_images: M.
        clip_shape: T, H, W.
        facts: what the set is made of; compared when it is opened again.
        on_progress: called with the number of finished items.

    Raises:
        OSError: the disk has no room.
    """
    with atomic_folder(path) as folder:
        clips = _new_array(folder / "clips.npy", (num_clips, *clip_shape, 3))
        images = _new_array(folder / "images.npy", (num_images, *clip_shape[1:], 3))
        twist = _unknown(num_clips, clip_shape[0], 2)
        clip_boxes = _unknown(num_clips, clip_shape[0], MAX_OBJECTS, 4)
        image_boxes = _unknown(num_images, MAX_OBJECTS, 4)
        captions: dict[str, Captions] = {"clip_captions": [], "frame_captions": [], "image_captions": []}
        for done, item in enumerate(items, start=1):
            if len(item.frames) == 1:
                row = len(captions["image_captions"])
                images[row] = item.frames[0]
                if item.boxes is not None:
                    image_boxes[row] = item.boxes[0]
                captions["image_captions"].append(item.captions)
            else:
                row = len(captions["clip_captions"])
                clips[row] = item.frames
                if item.twist is not None:
                    twist[row] = item.twist
                if item.boxes is not None:
                    clip_boxes[row] = item.boxes
                captions["clip_captions"].append(item.captions)
                captions["frame_captions"].append(item.frame_captions)
            if on_progress is not None:
                on_progress(done)
        counts = (len(captions["clip_captions"]), len(captions["image_captions"]))
        assert counts == (num_clips, num_images), counts
        for array in (clips, images):
            if isinstance(array, np.memmap):
                array.flush()
        for name, known in (("twist", twist), ("clip_boxes", clip_boxes), ("image_boxes", image_boxes)):
            np.save(folder / f"{name}.npy", known)
        (folder / "set.json").write_text(
            json.dumps(captions | {"facts": facts, "set_id": uuid4().hex}), encoding="utf-8"
        )
    return CaptionedSet.open(path)


def mapped_array(path: Path) -> NDArray[Any]:
    """Return a file's array, memory-mapped unless it is empty."""
    try:
        return np.load(path, mmap_mode="r")
    except ValueError:
        return np.load(path)


def _boxes(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a file's boxes (..., 2, 4); sets that were made before there were any do not know where things are."""
    if not path.exists():
        return _unknown(*shape, MAX_OBJECTS, 4)
    boxes: NDArray[np.float32] = np.load(path)
    if boxes.shape != (*shape, MAX_OBJECTS, 4):
        raise ValueError(f"{path.name} holds boxes {boxes.shape} for {shape}")
    return boxes


def _unknown(*shape: int) -> NDArray[np.float32]:
    return np.full(shape, np.nan, dtype=np.float32)


def _new_array(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if 0 in shape:
        np.save(path, np.empty(shape, dtype=np.uint8))
        return np.empty(shape, dtype=np.uint8)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    array.flush()
    reserve_space(path)
    return array
