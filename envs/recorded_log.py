"""The recorded drive as this project's car would repeat it: states and actions per log frame."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from drivesim import dynamics
from drivesim.dynamics import VehicleConfig
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import EgoState, Scene

SMOOTHNESS = 0.1


class RecordedLog:
    """States and actions of a scene's recording.

    The bicycle holds a constant acceleration over a step, so it needs the speed AT each frame, while poses
    give the mean speed BETWEEN frames; ``speeds_mps`` are the frame speeds whose means repeat the track.
    """

    def __init__(self, scene: Scene, vehicle: VehicleConfig) -> None:
        """Turn the scene's track into actions by inverse dynamics."""
        self._scene = scene
        mean_speed, steering = dynamics.inverse(scene.xy_m, scene.yaw_rad, 1.0 / scene.rate_hz, vehicle)
        self.speeds_mps = np.clip(frame_speeds(mean_speed), 0.0, vehicle.max_speed_mps)  # (T,)
        self._steering_rad = np.clip(
            steering, -vehicle.max_steering_rad, vehicle.max_steering_rad
        )  # (T - 1,)

    def __len__(self) -> int:
        """Return the number of recorded frames."""
        return len(self._scene)

    def ego_state(self, index: int) -> EgoState:
        """Return the recorded state at a frame, with the speed at that instant."""
        return dataclasses.replace(self._scene.ego_state(index), speed_mps=float(self.speeds_mps[index]))

    def has_action(self, index: int) -> bool:
        """Tell whether the recording goes on after frame ``index``."""
        return 0 <= index < len(self) - 1

    def action(self, index: int) -> NDArray[np.float32]:
        """Return the (2,) action that leads from frame ``index`` to the next; zeros once the log is over."""
        if not self.has_action(index):
            return np.zeros(2, dtype=np.float32)
        return np.array([self._steering_rad[index], self.speeds_mps[index + 1]], dtype=np.float32)

    def xy_m(self, index: int) -> FloatArray | None:
        """Return the recorded (2,) position at a frame, None once the log is over."""
        return np.array(self._scene.xy_m[index]) if 0 <= index < len(self) else None


def frame_speeds(mean_speed_mps: FloatArray) -> FloatArray:
    """Return (T,) speeds at frames whose pairwise means are the (T-1,) mean speeds between frames.

    One such series is as good as any plus an alternating one; of these the smoothest is wanted. It is
    found by least squares on the means and, with a small weight, on the changes of acceleration.
    """
    num_frames = len(mean_speed_mps) + 1
    identity = np.eye(num_frames)
    means = 0.5 * (identity[:-1] + identity[1:])
    bends = SMOOTHNESS * (identity[2:] - 2.0 * identity[1:-1] + identity[:-2])
    target = np.concatenate([mean_speed_mps, np.zeros(len(bends))])
    return np.asarray(np.linalg.lstsq(np.concatenate([means, bends]), target, rcond=None)[0])
