"""Drift: a hundred seconds of lane following in the imagined world, and what is left of the picture.

Nobody recorded what the model should have imagined so long after its context, so the drive itself comes from the
reference world: a car keeps its lane there, lap after lap on a held-out road, and its twists drive the model. Every
pair of imagined frames is read by the inverse dynamics model, beside the true frames of the same drive.
Letters: `R` roads, `T` steps, `K` every tenth step, `H W` pixels, `A` = 2 (speed in m/s, yaw rate in rad/s).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from benchmarks.control import Images, MotionReader
from benchmarks.lane_drives import WINDOW_STEPS, DriftConfig, find_drives, twist_of
from benchmarks.open_loop import OpenLoop
from benchmarks.pictures import finite_psnr
from benchmarks.report import Curve, Report
from benchmarks.statistics import Estimate, bootstrap_correlation, bootstrap_mean, bootstrap_ratio
from drivesim import console
from drivesim.reference.drive import Drive

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

KEEP_EVERY = 10  # frames compared by PSNR

ALLOWED_SHARE = 0.25
ALLOWED_SPEED_MPS, ALLOWED_YAW_RATE_RADPS = 1.0, 0.05
LOOK_FACTOR = 2.0
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
    names: list[str]  # of the roads
    rate_hz: float

    @property
    def groups(self) -> list[int]:
        """Return the roads, over which intervals are drawn."""
        return list(range(len(self.twist)))


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
    return Drift(
        twist=steps_twist.astype(np.float64),
        start=contexts[:, -1],
        imagined=footage,
        true=_joined(true, axis=0),
        names=[driven.world.spec.log_name for driven in drives],
        rate_hz=reader.rate_hz,
    )


def _shown(driven: Drive, *, first: int) -> Iterator[Images]:
    for index in range(first, len(driven)):
        yield driven.picture(index)[None]


def _counted(frames: Iterable[Images], bar: console.ProgressBar) -> Iterator[Images]:
    for index, step_frames in enumerate(frames):
        bar.update(index)
        yield step_frames


# ------------------------------------------------------------------------------------------ figures


def is_followed(footage: Footage, commanded: FloatArray, *, rate_hz: float) -> BoolArray:
    """Tell for each (R, T) frame whether it can be read, and shows the motion that was commanded.

    The inverse dynamics model must trust its reading, and its mean over the second that ends with the frame must lie
    within 1 m/s + 25 % of the commanded speed and 0.05 rad/s + 25 % of the commanded yaw rate. A frozen picture
    reads 0 m/s and fails at every speed above 1.33 m/s.
    """
    num_steps = max(round(rate_hz), 1)
    read, wanted = (_trailing_mean(twist, num_steps) for twist in (footage.twist, commanded))
    allowed = np.array([ALLOWED_SPEED_MPS, ALLOWED_YAW_RATE_RADPS]) + ALLOWED_SHARE * np.abs(wanted)
    return np.asarray(footage.is_trusted & (np.abs(read - wanted) <= allowed).all(axis=-1))


def _trailing_mean(series: FloatArray, count: int) -> FloatArray:
    """Return the mean over the last ``count`` steps, (R, T, A) -> the same; fewer at the beginning."""
    total = np.cumsum(series, axis=1)
    total[:, count:] = total[:, count:] - total[:, :-count].copy()
    counts = np.minimum(np.arange(1, series.shape[1] + 1), count)
    return np.asarray(total / counts[:, None])


def is_look_kept(footage: Footage, true: Footage) -> BoolArray:
    """Tell for each (R, T) frame whether sharpness and contrast are within a factor of 2 of the road's true mean."""
    kept = np.ones(footage.sharpness.shape, dtype=bool)
    for shown, recorded in ((footage.sharpness, true.sharpness), (footage.contrast, true.contrast)):
        ratio = shown / np.maximum(recorded.mean(axis=1, keepdims=True), 1e-6)
        kept &= (ratio >= 1 / LOOK_FACTOR) & (ratio <= LOOK_FACTOR)
    return kept


def add_drift_rows(report: Report, drift: Drift, config: DriftConfig) -> None:
    """Add what is left after the drift, and curves over it, for the model and for the true frames."""
    ends = config.window_ends
    for suffix, footage in (("", drift.imagined), ("_true_frames", drift.true)):
        followed = is_followed(footage, drift.twist, rate_hz=drift.rate_hz)
        kept = is_look_kept(footage, drift.true)
        notes = {"readable": "the IDM trusts its reading and reads what was commanded, over the whole drift"}
        notes["look_kept"] = "sharpness and contrast within a factor of 2 of the true frames"
        for name, is_hit in (("readable", followed), ("look_kept", kept)):
            total = bootstrap_mean(is_hit.mean(axis=1), drift.groups)
            note = "" if suffix else notes[name]
            report.add_estimate(f"drift_{name}_share_at_{config.num_steps}{suffix}", total, note=note)
            curve = _share_curve(is_hit, ends, drift.groups)
            report.curves[f"drift_{name}_share{suffix}"] = curve
            report.add_estimate(f"drift_{name}_share_last_window{suffix}", curve.estimates[-1])
        _add_correlations(report, footage, drift, ends, suffix=suffix)
    _add_look_ratios(report, drift, ends)
    _add_psnr_curves(report, drift, ends)


def _windows(ends: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _share_curve(is_hit: BoolArray, ends: Sequence[int], groups: Sequence[int]) -> Curve:
    estimates = [bootstrap_mean(is_hit[:, a:b].mean(axis=1), groups) for a, b in _windows(ends)]
    return Curve(steps=list(ends), estimates=estimates)


def _add_correlations(
    report: Report, footage: Footage, drift: Drift, ends: Sequence[int], *, suffix: str
) -> None:
    for column, name in ((1, "drift_yaw_rate_correlation"), (0, "drift_speed_correlation")):
        read, wanted = footage.twist[..., column], drift.twist[..., column]
        total = bootstrap_correlation(read, wanted, drift.groups)
        report.add_estimate(f"{name}{suffix}", total, note="" if suffix else "over the whole drift")
        estimates = [
            bootstrap_correlation(read[:, a:b], wanted[:, a:b], drift.groups) for a, b in _windows(ends)
        ]
        report.curves[f"{name}{suffix}"] = Curve(steps=list(ends), estimates=estimates)


def _add_look_ratios(report: Report, drift: Drift, ends: Sequence[int]) -> None:
    pairs = {
        "drift_sharpness_ratio": (drift.imagined.sharpness, drift.true.sharpness),
        "drift_contrast_ratio": (drift.imagined.contrast, drift.true.contrast),
    }
    for name, (imagined, true) in pairs.items():
        estimates = [
            bootstrap_ratio(imagined[:, a:b].mean(axis=1), true[:, a:b].mean(axis=1), drift.groups)
            for a, b in _windows(ends)
        ]
        report.curves[name] = Curve(steps=list(ends), estimates=estimates)
        report.add_estimate(name, estimates[-1], note="imagined over true frames, last window")


def _add_psnr_curves(report: Report, drift: Drift, ends: Sequence[int]) -> None:
    """Add PSNR against the true frames, which says little after some seconds, beside repeat-last."""
    steps = KEEP_EVERY * np.arange(1, drift.true.kept.shape[1] + 1)
    repeated = np.broadcast_to(drift.start[:, None], drift.true.kept.shape)
    for name, shown in (("drift_psnr_db", drift.imagined.kept), ("drift_repeat_psnr_db", repeated)):
        quality = finite_psnr(shown, drift.true.kept)
        used: list[int] = []
        estimates: list[Estimate] = []
        for a, b in _windows(ends):
            is_inside = (steps > a) & (steps <= b)
            if is_inside.any():
                used.append(b)
                estimates.append(bootstrap_mean(quality[:, is_inside].mean(axis=1), drift.groups))
        if used:
            report.curves[name] = Curve(steps=used, estimates=estimates)


def drift_sheet(drift: Drift) -> list[list[tuple[str, Images]]]:
    """Return labelled pictures every 50 steps, two rows per road: true above imagined."""
    stride = WINDOW_STEPS // KEEP_EVERY
    rows = []
    for road in drift.groups:
        for label, footage in (("true", drift.true), ("imagined", drift.imagined)):
            row = [("start", drift.start[road])]
            for index in range(stride - 1, footage.kept.shape[1], stride):
                row.append((f"{label} +{KEEP_EVERY * (index + 1)}", footage.kept[road, index]))
            rows.append(row)
    return rows
