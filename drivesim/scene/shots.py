"""Which stretches of a video a clip may come from: shots without a cut inside, and not in slow motion."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from drivesim.errors import InputError
from drivesim.scene.file_facts import FileFacts
from drivesim.scene.geometry import FloatArray
from drivesim.scene.media import CLOCK_SLACK_S, MediaFile, Span, read_span, timed_frames
from drivesim.scene.optical_flow import Motion, measure_motion

_CUT_WIDTH_PX = 256  # PySceneDetect scales to this too
_DIGITS = 5  # kept of times and motion
_NUM_TRIES = 64  # starts drawn before a video counts as slow
_END_MARGIN_S = 2 * CLOCK_SLACK_S  # the frame after a clip's end must never be taken for its last


class SkipReason(Enum):
    """Why there is no clip of an item."""

    BROKEN = "unreadable"
    SHORT = "too short"
    SLOW = "too slow"


class NoClipError(InputError):
    """A good video has no clip as it was asked for."""

    reason: ClassVar[SkipReason]


class TooShortError(NoClipError):
    """No shot is as long as a clip."""

    reason = SkipReason.SHORT


class TooSlowError(NoClipError):
    """Too little moves."""

    reason = SkipReason.SLOW


@dataclass(kw_only=True, slots=True, frozen=True)
class MotionCurve:
    """How much moves over the length of a video."""

    times_s: FloatArray  # (N + 1,) where one piece ends and the next begins
    widths_per_s: FloatArray  # (N,) mean optical flow of the pieces, frame widths per second

    def mean(self, clip: Span, shot: Span) -> float:
        """Return the motion during a clip of a shot; what seems to move across the shot's ends does not count."""
        start_s, end_s = self.times_s[:-1], self.times_s[1:]
        is_in_clip = (end_s > clip.start_s) & (start_s <= clip.end_s)
        is_in_shot = (start_s >= shot.start_s) & (end_s < shot.end_s)
        speeds = self.widths_per_s[is_in_clip & is_in_shot]
        return float(speeds.mean()) if speeds.size else 0.0


class ClipFilter:
    """Finds the shots of videos and how much moves in them, and draws from there where a clip starts.

    What is found out about a file is kept until it changes.

    Args:
        detect_cuts: Split videos at cuts; otherwise each is one shot.
        cut_threshold: PySceneDetect's: mean change of hue, saturation and brightness (0-255) that makes a cut.
        min_motion: Mean optical flow below which a clip counts as slow motion, in frame widths per second; 0 lets
            all pass.
        cache: Folder for what is found out; None keeps it in memory.

    Raises:
        InputError: cuts are asked for and PySceneDetect is not installed.
    """

    def __init__(
        self,
        *,
        detect_cuts: bool = False,
        cut_threshold: float = 27.0,
        min_motion: float = 0.0,
        cache: Path | None = None,
    ) -> None:
        self._cut_threshold = cut_threshold if detect_cuts else None
        self._min_motion = min_motion
        self._facts = FileFacts(cache)
        if detect_cuts:
            _content_detector(cut_threshold)

    def shots(self, media: MediaFile) -> list[Span]:
        """Return the shots of a video in order.

        Raises:
            InputError: the file is missing or broken.
        """
        start_s, end_s = self._facts.get(media, "span", lambda: _span_facts(media))
        threshold = self._cut_threshold
        if threshold is None:
            return [Span(start_s=start_s, end_s=end_s)]
        cuts_s = self._facts.get(media, f"cuts {threshold:g}", lambda: detect_cuts(media, threshold))
        inner_s = [cut_s for cut_s in cuts_s if start_s < cut_s < end_s]
        return [Span(start_s=a, end_s=b) for a, b in pairwise([start_s, *inner_s, end_s])]

    def motion(self, media: MediaFile) -> MotionCurve:
        """Return how much moves in a video.

        Raises:
            InputError: the file is missing or broken.
        """
        times_s, widths_per_s = self._facts.get(media, "motion", lambda: _motion_facts(measure_motion(media)))
        return MotionCurve(times_s=np.array(times_s), widths_per_s=np.array(widths_per_s))

    def draw_start(self, media: MediaFile, length_s: float, rng: np.random.Generator) -> float:
        """Draw when a clip of a video starts, all times alike where it may.

        Args:
            media: The video.
            length_s: From the first frame of the clip to the last.
            rng: Draws.

        Raises:
            InputError: the file is missing or broken.
            NoClipError: no shot is long enough, or too little moves in all.
        """
        shots = _long_enough(self.shots(media), length_s + _END_MARGIN_S, media.name)
        room_s = np.array([shot.length_s - length_s - _END_MARGIN_S for shot in shots])
        weights = room_s + 1e-6
        curve = self.motion(media) if self._min_motion > 0 else None
        for chosen in rng.choice(len(shots), size=_NUM_TRIES, p=weights / weights.sum()):
            start_s = shots[chosen].start_s + float(rng.random() * room_s[chosen])
            clip = Span(start_s=start_s, end_s=start_s + length_s)
            if curve is None or curve.mean(clip, shots[chosen]) >= self._min_motion:
                return start_s
        raise TooSlowError(f"too little moves in {media.name}; lower min_motion to use it")


def detect_cuts(media: MediaFile, threshold: float) -> list[float]:
    """Return the times of the first frames after a cut (PySceneDetect's content detector).

    Raises:
        InputError: the file is missing or broken, or PySceneDetect is not installed.
    """
    detector, timecode = _content_detector(threshold)
    cuts_s: list[float] = []
    size: tuple[int, int] | None = None
    for number, (time_s, frame) in enumerate(timed_frames(media)):
        if size is None:  # of the first frame for all, should the stream change its size within
            width = min(_CUT_WIDTH_PX, frame.width)
            size = (width, max(round(width * frame.height / frame.width), 8))
        small = frame.reformat(width=size[0], height=size[1], format="bgr24", interpolation="AREA")
        if detector.process_frame(timecode(number), small.to_ndarray()):
            cuts_s.append(round(time_s, _DIGITS))
    return cuts_s


def _content_detector(threshold: float) -> tuple[Any, Any]:
    """Return a detector that reports a cut at the frame after it, and what makes its frame numbers."""
    try:
        from scenedetect import ContentDetector, FrameTimecode
    except ImportError as error:
        raise InputError(
            f"detect_cuts needs PySceneDetect ({error}); pip install drivesim[general] or set detect_cuts=false"
        ) from error
    # No shortest shot: the detector would merge cuts that follow each other fast, and clips would straddle them.
    return ContentDetector(threshold=threshold, min_scene_len=0), lambda number: FrameTimecode(number, 25.0)


def _long_enough(shots: list[Span], length_s: float, name: str) -> list[Span]:
    longest_s = max(shot.length_s for shot in shots)
    if longest_s < length_s:
        raise TooShortError(
            f"no shot of {name} has the {length_s:.2f} s of a clip (the longest has {longest_s:.2f} s); "
            "choose fewer frames or a higher rate"
        )
    return [shot for shot in shots if shot.length_s >= length_s]


def _span_facts(media: MediaFile) -> list[float]:
    span = read_span(media)
    return [round(span.start_s, _DIGITS), round(span.end_s, _DIGITS)]


def _motion_facts(motions: list[Motion]) -> list[list[float]]:
    times_s = [motion.during.start_s for motion in motions[:1]] + [motion.during.end_s for motion in motions]
    speeds = [motion.widths_per_s for motion in motions]
    return [[round(value, _DIGITS) for value in values] for values in (times_s, speeds)]
