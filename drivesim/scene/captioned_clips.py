"""Clips of captioned media: one read from a source, and an endless shuffled stream of them for training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from drivesim.console import warn
from drivesim.errors import InputError
from drivesim.scene.captioned import CaptionedSource
from drivesim.scene.media import frames_at, read_picture
from drivesim.scene.shots import ClipFilter, NoClipError, SkipReason
from drivesim.scene.types import Image


@dataclass(kw_only=True, slots=True)
class CaptionedClip:
    """Consecutive frames and what they show; T is 1 for a picture."""

    frames: Image  # (T, H, W, 3)
    caption: str


def read_clip(
    source: CaptionedSource,
    index: int,
    *,
    num_frames: int,
    rate_hz: float,
    size: tuple[int, int],
    rng: np.random.Generator,
    clip_filter: ClipFilter | None = None,
) -> CaptionedClip:
    """Read a clip from a random place of a video, or a picture.

    Args:
        source: where from.
        index: which item.
        num_frames: frames of a video's clip.
        rate_hz: frames per second of the clip, whatever the video's own rate.
        size: height and width; the frames are scaled to cover it and cut to it evenly.
        rng: draws the place.
        clip_filter: which places may be drawn; None allows all.

    Raises:
        InputError: the item cannot be read.
        NoClipError: it has no stretch that is long enough, or none in which enough moves.
    """
    if num_frames < 1 or not rate_hz > 0 or min(size) < 1:
        raise ValueError(
            f"a clip needs num_frames >= 1, rate_hz > 0 and a size of pixels, got {num_frames}, {rate_hz} and {size}"
        )
    item = source.item(index)
    if item.is_image:
        return CaptionedClip(frames=read_picture(item.media, size)[None], caption=item.caption)
    length_s = (num_frames - 1) / rate_hz
    start_s = (clip_filter or ClipFilter()).draw_start(item.media, length_s, rng)
    times_s = [start_s + step / rate_hz for step in range(num_frames)]
    return CaptionedClip(frames=frames_at(item.media, times_s, size), caption=item.caption)


class CaptionedClips:
    """An endless stream of clips: every pass visits all items once, in a new order.

    Items without a clip are skipped and counted in ``num_skipped``; the first of each reason is named in a warning.
    Workers that load in parallel each take a stream with a seed of their own.
    """

    def __init__(
        self,
        source: CaptionedSource,
        *,
        num_frames: int,
        rate_hz: float,
        size: tuple[int, int],
        seed: int,
        clip_filter: ClipFilter | None = None,
    ) -> None:
        self.num_skipped: Counter[SkipReason] = Counter()
        self._source, self._size = source, size
        self._num_frames, self._rate_hz = num_frames, rate_hz
        self._rng = np.random.default_rng(seed)
        self._filter = clip_filter or ClipFilter()

    def __iter__(self) -> Iterator[CaptionedClip]:
        """Yield clips without end.

        Raises:
            InputError: a whole pass gave no clip.
        """
        while True:
            num_clips = 0
            skipped: Counter[SkipReason] = Counter()
            reason = "the source is empty"
            for index in self._rng.permutation(len(self._source)):
                try:
                    clip = self._read(int(index))
                except InputError as error:
                    skipped[self._skip(error)] += 1
                    reason = str(error)
                    continue
                num_clips += 1
                yield clip
            if num_clips == 0:
                counts = ", ".join(f"{count} {why.value}" for why, count in skipped.items())
                raise InputError(
                    f"none of {len(self._source)} items has a clip ({counts}), the last because: {reason}"
                )

    def _read(self, index: int) -> CaptionedClip:
        return read_clip(
            self._source,
            index,
            num_frames=self._num_frames,
            rate_hz=self._rate_hz,
            size=self._size,
            rng=self._rng,
            clip_filter=self._filter,
        )

    def _skip(self, error: InputError) -> SkipReason:
        reason = error.reason if isinstance(error, NoClipError) else SkipReason.BROKEN
        if not self.num_skipped[reason]:
            warn(f"skipped: {error}; others that are {reason.value} are only counted")
        self.num_skipped[reason] += 1
        return reason
