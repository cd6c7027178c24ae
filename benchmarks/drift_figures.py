"""What a drift comes to: readable frames, look, pictures and tracks, each over the whole drive and in windows of it.

Letters: `R` roads, `T` steps, `K` every tenth step, `N` instants of a drive, `A` = 2 (speed in m/s, yaw
rate in rad/s).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from benchmarks.control import Driven, trajectory_errors_m
from benchmarks.drift import KEEP_EVERY, BoolArray, Drift, FloatArray, Footage
from benchmarks.lane_drives import WINDOW_STEPS, DriftConfig
from benchmarks.pictures import Images, frame_metrics, over_steps
from benchmarks.report import Curve, Report
from benchmarks.statistics import bootstrap_correlation, bootstrap_mean, bootstrap_ratio
from drivesim.metrics.image import Extractor, FeatureNetwork

ALLOWED_SHARE = 0.25
ALLOWED_SPEED_MPS, ALLOWED_YAW_RATE_RADPS = 1.0, 0.05
LOOK_FACTOR = 2.0


@dataclass(kw_only=True, slots=True)
class _Series:
    """What was measured at some instants of the drives."""

    values: FloatArray  # (R, N)
    steps: NDArray[np.int64]  # (N,)

    def means(self, ends: Sequence[int]) -> dict[int, FloatArray]:
        """Return each road's mean (R,) in each window, by its last step; windows without an instant are left out."""
        means = {}
        for a, b in _windows(ends):
            is_inside = (self.steps > a) & (self.steps <= b)
            if is_inside.any():
                means[b] = np.asarray(self.values[:, is_inside].mean(axis=1))
        return means


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


def add_drift_rows(
    report: Report,
    drift: Drift,
    config: DriftConfig,
    networks: Mapping[Extractor, FeatureNetwork] | None = None,
) -> None:
    """Add what is left after the drift, and curves over it, for the model and for the true frames.

    Args:
        report: Where the rows go.
        drift: What was measured.
        config: Its windows.
        networks: For LPIPS, where one was named.
    """
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
    _add_trajectory_rows(report, drift, ends)
    _add_picture_rows(report, drift, ends, networks or {})


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


def _add_picture_rows(
    report: Report,
    drift: Drift,
    ends: Sequence[int],
    networks: Mapping[Extractor, FeatureNetwork],
) -> None:
    """Compare every tenth frame with the true drive, beside repeat-last and the tokenizer's ceiling.

    After some seconds the model shows a road of its own, and this says so.
    """
    target = drift.true.kept
    if target.shape[1] == 0:
        return
    steps = KEEP_EVERY * np.arange(1, target.shape[1] + 1)
    for name, metric in frame_metrics(networks).items():
        values = {
            prefix: over_steps(metric, shown, target) for prefix, shown in drift.compared_worlds.items()
        }
        named = {f"drift_{prefix}{name}": values_RK for prefix, values_RK in values.items()}
        if name == "psnr_db":
            named["drift_psnr_gain_over_repeat_db"] = values[""] - values["repeat_"]
        for full_name, values_RK in named.items():
            note = "against the true drive, every tenth frame" if full_name == f"drift_{name}" else ""
            _add_means(report, full_name, _Series(values=values_RK, steps=steps), drift, ends, note=note)


def stretch_errors_m(
    read_twist: FloatArray, true_twist: FloatArray, *, num_steps: int, rate_hz: float
) -> FloatArray:
    """Return how far apart two tracks are at the end of each stretch of ``num_steps`` that they begin together.

    Args:
        read_twist: (R, T, A), integrated from the beginning of each stretch.
        true_twist: The same shape.
        num_steps: Of a stretch; one ends with each step from this one on.
        rate_hz: Steps per second.

    Returns:
        (R, T - num_steps + 1) distances in m.
    """
    read, true = (
        rearrange(sliding_window_view(twist, num_steps, axis=1), "R N A T -> (R N) T A")
        for twist in (read_twist, true_twist)
    )
    return trajectory_errors_m(read, true, rate_hz=rate_hz)[:, -1].reshape(len(read_twist), -1)


def _add_trajectory_rows(report: Report, drift: Drift, ends: Sequence[int]) -> None:
    """Add the trajectory error over the last two seconds, its floor on true frames and their ratio."""
    driven = Driven(twist=drift.twist, groups=drift.groups, rate_hz=drift.rate_hz)
    num_steps, last = driven.steps_at_2s, driven.twist.shape[1]
    if last < num_steps:
        return
    imagined, true = (
        _Series(
            values=stretch_errors_m(twist, driven.twist, num_steps=num_steps, rate_hz=driven.rate_hz),
            steps=np.arange(num_steps, last + 1),
        )
        for twist in (drift.imagined.twist, drift.true.twist)
    )
    name, note = "drift_trajectory_error_m_at_2s", "the IDM's track of two seconds against the commanded one"
    _add_means(report, name, imagined, drift, ends, note=note)
    _add_means(report, f"{name}_true_frames", true, drift, ends)
    name, note = "drift_trajectory_error_over_floor_at_2s", "ratio of the two means"
    pairs = zip(imagined.means(ends).items(), true.means(ends).values(), strict=True)
    ratios = {end: bootstrap_ratio(above, below, drift.groups) for (end, above), below in pairs}
    whole = bootstrap_ratio(imagined.values.mean(axis=1), true.values.mean(axis=1), drift.groups)
    report.add_estimate(name, whole, note=note)
    report.curves[name] = Curve(steps=list(ratios), estimates=list(ratios.values()))


def _add_means(
    report: Report, name: str, series: _Series, drift: Drift, ends: Sequence[int], *, note: str = ""
) -> None:
    """Add the mean over the whole drift, and as a curve those of its windows."""
    whole = bootstrap_mean(series.values.mean(axis=1), drift.groups)
    report.add_estimate(name, whole, note=note)
    means = series.means(ends)
    estimates = [bootstrap_mean(means_R, drift.groups) for means_R in means.values()]
    report.curves[name] = Curve(steps=list(means), estimates=estimates)


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
