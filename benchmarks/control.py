"""Does the picture answer wheel and pedal? Measured on imagined frames, and on true ones as a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import Report
from benchmarks.statistics import (
    bootstrap_correlation,
    bootstrap_mean,
    bootstrap_ratio,
    bootstrap_steps,
    wilson_share,
)
from drivesim.inverse_dynamics import InverseDynamics
from drivesim.metrics.motion import RoadMotion, turning_px
from drivesim.scene.types import Camera

Images = NDArray[np.uint8]
FloatArray = NDArray[np.float64]
PAIRS_AT_ONCE = 32


@dataclass(kw_only=True, slots=True)
class ManeuverFrames:
    """The four manoeuvres, (B, 1 + T, H, W, 3) each; the first is the start's recorded frame."""

    left: Images
    right: Images
    slow: Images
    fast: Images


@dataclass(kw_only=True, slots=True)
class Reading:
    """What an inverse dynamics model reads from clips."""

    twist: FloatArray  # (B, T, 2) speed in m/s and yaw rate in rad/s between neighbouring frames
    is_readable: NDArray[np.bool_]  # (B, T) the error that it expects of itself is within its limits


@dataclass(kw_only=True, slots=True)
class MotionReader:
    """The instruments: image motion without weights and, where given, an inverse dynamics model."""

    camera: Camera
    rate_hz: float
    inverse_dynamics: InverseDynamics | None = None

    def turning_px(self, frames: Images) -> FloatArray:
        """Return (B,) sideways motion of the view per frame, left turns positive, of (B, T, H, W, 3)."""
        return np.array([turning_px(clip, camera=self.camera) for clip in frames])

    def road_speed_mps(self, frames: Images) -> FloatArray:
        """Return (B,) the speed that the ground's motion shows."""
        road = RoadMotion(self.camera, rate_hz=self.rate_hz)
        return np.array([road.speed_mps(clip) for clip in frames])

    def idm_speed_mps(self, frames: Images) -> FloatArray:
        """Return (B,) the inverse dynamics model's mean speed."""
        return np.asarray(self.read(frames).twist[..., 0].mean(axis=1))

    def read(self, frames: Images) -> Reading:
        """Return what the inverse dynamics model reads between the frames of clips (B, 1 + T, H, W, 3)."""
        assert self.inverse_dynamics is not None
        shape = (frames.shape[0], frames.shape[1] - 1)
        clips, steps = (index.ravel() for index in np.indices(shape))
        twists, flags = [], []
        for first in range(0, len(clips), PAIRS_AT_ONCE):
            clip, step = clips[first : first + PAIRS_AT_ONCE], steps[first : first + PAIRS_AT_ONCE]
            previous, current = (torch.from_numpy(frames[clip, at]) for at in (step, step + 1))
            estimate = self.inverse_dynamics.estimate(previous, current)
            twists.append(estimate.twist_BA.double().cpu().numpy())
            flags.append(estimate.is_readable_B.cpu().numpy())
        return Reading(
            twist=np.concatenate(twists).reshape(*shape, 2), is_readable=np.concatenate(flags).reshape(shape)
        )


def add_control_rows(
    report: Report, frames: ManeuverFrames, reader: MotionReader, *, suffix: str = ""
) -> None:
    """Add the shares of starts at which steering and speed act as they must.

    Args:
        report: Where the rows go.
        frames: Of one world.
        reader: The instruments.
        suffix: "" for the model, "_true_frames" for the reference world under the same manoeuvres.
    """
    left_px, right_px = reader.turning_px(frames.left), reader.turning_px(frames.right)
    is_right = (left_px > 0) & (right_px < 0)
    note = "view moves right on hard left and left on hard right"
    report.add_estimate(f"steering_sign_accuracy{suffix}", wilson_share(is_right), note=note)
    report.add(f"steering_left_px{suffix}", float(left_px.mean()), note="mean motion of the view per frame")
    report.add(f"steering_right_px{suffix}", float(right_px.mean()))
    slow_mps, fast_mps = reader.road_speed_mps(frames.slow), reader.road_speed_mps(frames.fast)
    name, note = "speed_order_accuracy", "12 m/s reads above 4 m/s by the ground's motion"
    if reader.inverse_dynamics is not None:
        report.add_estimate(f"{name}_road_motion{suffix}", wilson_share(fast_mps > slow_mps), note=note)
        slow_mps, fast_mps = reader.idm_speed_mps(frames.slow), reader.idm_speed_mps(frames.fast)
        note = "12 m/s reads above 4 m/s by the inverse dynamics model"
    report.add_estimate(f"{name}{suffix}", wilson_share(fast_mps > slow_mps), note=note)
    report.add(f"speed_slow_mps{suffix}", float(slow_mps.mean()), note="4 is right")
    report.add(f"speed_fast_mps{suffix}", float(fast_mps.mean()), note="12 is right")


@dataclass(kw_only=True, slots=True)
class Driven:
    """The motion that was commanded, beside what is needed to judge readings of it."""

    twist: FloatArray  # (B, T, 2)
    groups: list[int]  # (B,) scene of each start
    rate_hz: float

    @property
    def steps_at_2s(self) -> int:
        """Return after how many steps two seconds have passed."""
        return round(2.0 * self.rate_hz)


def add_motion_rows(
    report: Report, reading: Reading, driven: Driven, *, horizons: Sequence[int], suffix: str = ""
) -> FloatArray:
    """Add how well the inverse dynamics model reads the driven motion from a world's frames.

    Args:
        report: Where the rows go.
        reading: Of the world's frames.
        driven: What was commanded.
        horizons: At which the trajectory error gets a row of its own.
        suffix: "" for the model, "_true_frames" and the like for floors.

    Returns:
        (B, T) trajectory errors in m.
    """
    for column, name in ((1, "yaw_rate_correlation"), (0, "speed_correlation")):
        read, commanded = reading.twist[..., column], driven.twist[..., column]
        estimate = bootstrap_correlation(read, commanded, driven.groups)
        note = "" if suffix else "commanded and read by the IDM, over all steps"
        report.add_estimate(f"{name}{suffix}", estimate, note=note)
        steps = range(read.shape[1])
        by_step = [bootstrap_correlation(read[:, t], commanded[:, t], driven.groups) for t in steps]
        report.add_series(f"{name}{suffix}", by_step)
    errors_m = trajectory_errors_m(reading.twist, driven.twist, rate_hz=driven.rate_hz)
    estimates = bootstrap_steps(errors_m, driven.groups)
    note = "" if suffix else "the track read by the IDM against the commanded one"
    report.add_series(f"trajectory_error_m{suffix}", estimates, named_steps=horizons, note=note)
    shares = bootstrap_steps(reading.is_readable, driven.groups)
    report.add_series(f"readable_share{suffix}", shares)
    share = bootstrap_mean(reading.is_readable.mean(axis=1), driven.groups)
    note = "" if suffix else "steps at which the IDM trusts its reading"
    report.add_estimate(f"readable_share{suffix}", share, note=note)
    return errors_m


def add_trajectory_rows(report: Report, errors_m: dict[str, FloatArray], driven: Driven) -> None:
    """Add the trajectory error at two seconds, its floor on true frames and their ratio.

    Args:
        report: Where the rows go; it gets none if the horizon ends before two seconds.
        errors_m: (B, T) by suffix, from `add_motion_rows`.
        driven: What was commanded.
    """
    step = driven.steps_at_2s
    if errors_m[""].shape[1] < step:
        return
    names = {
        "": "trajectory_error_m_at_2s",
        "_true_frames": "trajectory_error_floor_m_at_2s",
        "_tokenized_frames": "trajectory_error_m_at_2s_tokenized_frames",
    }
    for suffix, name in names.items():
        estimate = bootstrap_mean(errors_m[suffix][:, step - 1], driven.groups)
        note = "the floor: the IDM on recorded frames" if suffix == "_true_frames" else ""
        report.add_estimate(name, estimate, note=note)
    imagined, floor = errors_m[""][:, step - 1], errors_m["_true_frames"][:, step - 1]
    ratio = bootstrap_ratio(imagined, floor, driven.groups)
    report.add_estimate("trajectory_error_over_floor_at_2s", ratio, note="ratio of the two means")


def trajectory_errors_m(read_twist: FloatArray, true_twist: FloatArray, *, rate_hz: float) -> FloatArray:
    """Integrate (B, T, 2) twists into tracks; return the (B, T) distances between their positions in m."""
    return np.asarray(np.linalg.norm(track(read_twist, rate_hz) - track(true_twist, rate_hz), axis=-1))


def track(twist: FloatArray, rate_hz: float) -> FloatArray:
    """Return the (B, T, 2) positions in m, from the start's own frame, that (B, T, 2) twists lead to."""
    turned = twist[..., 1] / rate_hz
    heading = np.cumsum(turned, axis=1) - 0.5 * turned
    chord = twist[..., 0] / rate_hz * np.sinc(0.5 * turned / np.pi)
    steps = np.stack([chord * np.cos(heading), chord * np.sin(heading)], axis=-1)
    return np.asarray(np.cumsum(steps, axis=1))
