"""Does the picture answer wheel and pedal? Measured on imagined frames, and on true ones as a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import Report
from benchmarks.statistics import bootstrap_mean, wilson_share
from drivesim.inverse_dynamics import InverseDynamics
from drivesim.metrics.motion import RoadMotion, turning_px
from drivesim.scene.types import Camera

Images = NDArray[np.uint8]
FloatArray = NDArray[np.float64]


@dataclass(kw_only=True, slots=True)
class ManeuverFrames:
    """The four manoeuvres, (B, 1 + T, H, W, 3) each; the first is the start's recorded frame."""

    left: Images
    right: Images
    slow: Images
    fast: Images


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
        return np.asarray(self.idm_twist(frames)[..., 0].mean(axis=1))

    def idm_twist(self, frames: Images) -> FloatArray:
        """Return (B, T - 1, 2) the inverse dynamics model's speed and yaw rate between frames."""
        return self._estimates(frames)[0]

    def readable(self, frames: Images) -> NDArray[np.bool_]:
        """Return (B, T - 1) which steps the inverse dynamics model can read."""
        return self._estimates(frames)[1]

    def _estimates(self, frames: Images) -> tuple[FloatArray, NDArray[np.bool_]]:
        assert self.inverse_dynamics is not None
        twists, flags = [], []
        for clip in frames:
            pictures = torch.from_numpy(np.array(clip))
            estimate = self.inverse_dynamics.estimate(pictures[:-1], pictures[1:])
            twists.append(estimate.twist_BA.double().numpy())
            flags.append(estimate.is_readable_B.numpy())
        return np.stack(twists), np.stack(flags)


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


def add_motion_rows(
    report: Report,
    shown: Images,
    twist_BTA: NDArray[np.float32],
    reader: MotionReader,
    *,
    groups: Sequence[int],
    suffix: str = "",
) -> None:
    """Add how well the inverse dynamics model reads the driven motion from a world's frames.

    Args:
        report: Where the rows go.
        shown: (B, 1 + T, H, W, 3) frames, the start's own first.
        twist_BTA: (B, T, 2) speed in m/s and yaw rate in rad/s that were driven.
        reader: The instruments, an inverse dynamics model among them.
        groups: (B,) scene of each start.
        suffix: "" for the model, "_true_frames" and the like for floors.
    """
    true_twist, (batch, steps) = twist_BTA.astype(np.float64), twist_BTA.shape[:2]
    read = reader.idm_twist(shown)
    errors = trajectory_errors(read, true_twist, rate_hz=reader.rate_hz)
    floor = " floor" if suffix else ""
    average, final = (bootstrap_mean(e, groups) for e in (errors.average_m, errors.final_m))
    report.add_estimate(f"trajectory_error_m{suffix}", average, note=f"mean over {steps} steps{floor}")
    report.add_estimate(f"final_trajectory_error_m{suffix}", final, note=f"after {steps} steps{floor}")
    report.add(f"yaw_rate_correlation{suffix}", correlation(read[..., 1], true_twist[..., 1]))
    report.add(f"speed_correlation{suffix}", correlation(read[..., 0], true_twist[..., 0]))
    share = float(reader.readable(shown).mean())
    report.add(f"readable_share{suffix}", share, note=f"of {batch * steps} steps")


@dataclass(kw_only=True, slots=True)
class TrajectoryErrors:
    """How far a clip's motion, read by the inverse dynamics model, leads from the driven one."""

    average_m: FloatArray  # (B,) mean over the steps
    final_m: FloatArray  # (B,)


def trajectory_errors(read_twist: FloatArray, true_twist: FloatArray, *, rate_hz: float) -> TrajectoryErrors:
    """Integrate (B, T, 2) twists into tracks and compare them position by position."""
    gap_m = np.linalg.norm(track(read_twist, rate_hz) - track(true_twist, rate_hz), axis=-1)
    return TrajectoryErrors(average_m=gap_m.mean(axis=1), final_m=gap_m[:, -1])


def track(twist: FloatArray, rate_hz: float) -> FloatArray:
    """Return the (B, T, 2) positions in m, from the start's own frame, that (B, T, 2) twists lead to."""
    turned = twist[..., 1] / rate_hz
    heading = np.cumsum(turned, axis=1) - 0.5 * turned
    chord = twist[..., 0] / rate_hz * np.sinc(0.5 * turned / np.pi)
    steps = np.stack([chord * np.cos(heading), chord * np.sin(heading)], axis=-1)
    return np.asarray(np.cumsum(steps, axis=1))


def correlation(a: Sequence[float] | FloatArray, b: Sequence[float] | FloatArray) -> float:
    """Return Pearson's correlation of two series of any shape; 0 where one of them does not vary."""
    a, b = np.ravel(np.asarray(a)), np.ravel(np.asarray(b))
    if a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
