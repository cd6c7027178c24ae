"""Drift: a hundred seconds of lane following in the imagined world, and what is left of the picture.

Nobody recorded what the model should have imagined so long after its context, so the drive itself comes from the
reference world: a car keeps its lane there, lap after lap on a held-out road, and its twists drive the model. Every
pair of imagined frames is read by the inverse dynamics model, beside the true frames of the same drive. What it all
comes to is `drift_figures.py`.
Letters: `R` roads, `T` steps, `K` every tenth step, `H W` pixels, `A` = 2 (speed in m/s, yaw rate in rad/s).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from benchmarks.control import Images, MotionReader
from benchmarks.lane_drives import DriftConfig, find_drives, twist_of
from benchmarks.open_loop import OpenLoop
from benchmarks.pictures import tokenized
from drivesim import console
from drivesim.reference.drive import Drive

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

KEEP_EVERY = 10  # frames compared as pictures
GRAY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(kw_only=True, slots=True)
class Footage:
    """What was noted of a world while it was driven on R roads at once."""

    twist: FloatArray  # (R, T, 2) read by the inverse dynamics model
    is_trusted: BoolArray  # (R, T) the model trusts its reading
    sharpness: FloatArray  # (R, T) mean step of grey levels between neighbouring pixels
    contrast: FloatArray  # (R, T) standard deviation of the grey levels
    kept: Images  # (R, K, H, W, 3) every tenth frame


def sharpness_of(frames: Images) -> FloatArray:
    """Return the mean difference of neighbouring grey levels per frame, (..., H, W, 3) -> (...)."""
    gray = frames @ GRAY
    across, down = np.abs(np.diff(gray, axis=-1)), np.abs(np.diff(gray, axis=-2))
    return np.asarray(across.mean(axis=(-2, -1)) + down.mean(axis=(-2, -1)), dtype=np.float64)


def contrast_of(frames: Images) -> FloatArray:
    """Return the standard deviation of the grey levels per frame, (..., H, W, 3) -> (...)."""
    return np.asarray((frames @ GRAY).std(axis=(-2, -1)), dtype=np.float64)


def watch(frames: Iterable[Images], reader: MotionReader) -> Footage:
    """Note what is needed of a stream of frames, so that ten minutes of pictures need not be held.

    Args:
        frames: The start's own frames (R, H, W, 3), then those of each step.
        reader: The instruments.
    """
    stretches: list[Footage] = []
    pending: list[Images] = []
    for index, step_frames in enumerate(frames):
        pending.append(step_frames)
        if index and index % KEEP_EVERY == 0:
            stretches.append(_noted(pending, reader, keeps_last=True))
            pending = pending[-1:]
    if len(pending) > 1:
        stretches.append(_noted(pending, reader, keeps_last=False))
    return _joined(stretches, axis=1)


def _noted(pending: Sequence[Images], reader: MotionReader, *, keeps_last: bool) -> Footage:
    shown = np.stack(pending, axis=1)
    reading = reader.read(shown)
    return Footage(
        twist=reading.twist,
        is_trusted=reading.is_readable,
        sharpness=sharpness_of(shown[:, 1:]),
        contrast=contrast_of(shown[:, 1:]),
        kept=shown[:, -1:] if keeps_last else shown[:, :0],
    )


def _joined(parts: Sequence[Footage], *, axis: int) -> Footage:
    return Footage(
        twist=np.concatenate([part.twist for part in parts], axis=axis),
        is_trusted=np.concatenate([part.is_trusted for part in parts], axis=axis),
        sharpness=np.concatenate([part.sharpness for part in parts], axis=axis),
        contrast=np.concatenate([part.contrast for part in parts], axis=axis),
        kept=np.concatenate([part.kept for part in parts], axis=axis),
    )


@dataclass(kw_only=True, slots=True)
class Drift:
    """Two worlds under the same R drives of T steps."""

    twist: FloatArray  # (R, T, 2) commanded
    start: Images  # (R, H, W, 3): the last frames of the context
    imagined: Footage
    true: Footage
    tokenized: Images  # (R, K, H, W, 3): every tenth true frame, as the tokenizer gives it back
    names: list[str]  # of the roads
    rate_hz: float

    @property
    def groups(self) -> list[int]:
        """Return the roads, over which intervals are drawn."""
        return list(range(len(self.twist)))

    @property
    def compared_worlds(self) -> dict[str, Images]:
        """Return every tenth frame of the model and its two reference lines, by prefix as for short clips."""
        repeated = np.broadcast_to(self.start[:, None], self.true.kept.shape)
        return {"": self.imagined.kept, "repeat_": repeated, "ceiling_": self.tokenized}


def measure_drift(open_loop: OpenLoop, reader: MotionReader, config: DriftConfig) -> Drift:
    """Let a world model and the reference world drive the same lanes for many steps."""
    num_context = open_loop.num_context_frames
    drives = find_drives(config, num_frames=num_context + config.num_steps)
    twist_RTA = np.stack([twist_of(driven) for driven in drives])
    contexts = np.stack([[driven.picture(i) for i in range(num_context)] for driven in drives])
    context_twist, steps_twist = twist_RTA[:, :num_context], twist_RTA[:, num_context:]
    true = []
    with console.progress_bar("true frames of the drives", len(drives)) as bar:
        for driven in drives:
            true.append(watch(_shown(driven, first=num_context - 1), reader))
            bar.advance()
    with console.progress_bar(f"imagined: {len(drives)} drives at once", config.num_steps) as bar:
        places = open_loop.places(
            [driven.world.drivable for driven in drives],
            [driven.states[num_context - 1] for driven in drives],
            [driven.agents_at(num_context - 1) for driven in drives],
        )
        imagined = chain([contexts[:, -1]], open_loop.stream(contexts, context_twist, steps_twist, places))
        footage = watch(_counted(imagined, bar), reader)
    true_footage = _joined(true, axis=0)
    return Drift(
        twist=steps_twist.astype(np.float64),
        start=contexts[:, -1],
        imagined=footage,
        true=true_footage,
        tokenized=_tokenized(open_loop, true_footage.kept),
        names=[driven.world.spec.log_name for driven in drives],
        rate_hz=reader.rate_hz,
    )


def _tokenized(open_loop: OpenLoop, kept: Images) -> Images:
    """Return kept frames after the tokenizer; a drift of a few steps keeps none."""
    if kept.shape[1] == 0:
        return kept
    return tokenized(open_loop.model.tokenizer, kept).frames


def _shown(driven: Drive, *, first: int) -> Iterator[Images]:
    for index in range(first, len(driven)):
        yield driven.picture(index)[None]


def _counted(frames: Iterable[Images], bar: console.ProgressBar) -> Iterator[Images]:
    for index, step_frames in enumerate(frames):
        bar.update(index)
        yield step_frames
