"""A flat textured ground and a far skyline, seen by the front camera: motion is known exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivesim.dynamics import planar_motion
from drivesim.scene.types import Camera, front_camera

FloatArray = NDArray[np.float64]


def drive(
    speed_mps: float, yaw_rate_radps: float, *, num_frames: int = 2, rate_hz: float = 6.0, seed: int = 0
) -> NDArray[np.uint8]:
    """Return (T, 128, 224, 3) frames of a car that holds one twist from the origin."""
    x_m, y_m, yaw_rad = 0.0, 0.0, 0.3
    frames = []
    for _ in range(num_frames):
        frames.append(view(x_m, y_m, yaw_rad, seed=seed))
        dx, dy, dyaw = planar_motion(speed_mps, yaw_rate_radps, 1 / rate_hz)
        x_m += np.cos(yaw_rad) * dx - np.sin(yaw_rad) * dy
        y_m += np.sin(yaw_rad) * dx + np.cos(yaw_rad) * dy
        yaw_rad += dyaw
    return np.stack(frames)


def view(
    x_m: float, y_m: float, yaw_rad: float, *, camera: Camera | None = None, seed: int = 0
) -> NDArray[np.uint8]:
    """Return the (H, W, 3) picture from a rear-axle pose."""
    camera = camera or front_camera()
    rows = np.arange(camera.height_px)[:, None] + 0.5 - camera.cy_px
    columns = (np.arange(camera.width_px)[None, :] + 0.5 - camera.cx_px) / camera.fx_px
    azimuth = yaw_rad - np.arctan(columns)
    above = 0.5 + 0.4 * _waves(azimuth * 40, np.zeros_like(azimuth), seed + 1) + 0 * rows
    depth = camera.fy_px * camera.ego_from_cam[2, 3] / np.maximum(rows, 0.5)
    forward, left = depth + camera.ego_from_cam[0, 3], -columns * depth
    ground_x = x_m + np.cos(yaw_rad) * forward - np.sin(yaw_rad) * left
    ground_y = y_m + np.sin(yaw_rad) * forward + np.cos(yaw_rad) * left
    fade = np.exp(-depth / 25)
    ground = 0.45 + 0.35 * fade * _waves(ground_x * 2.5, ground_y * 2.5, seed)
    gray = np.where(rows > 0.5, ground, above)
    color = np.stack([gray, gray * 0.95, gray * 0.9], axis=-1)
    return np.asarray(np.clip(color * 255, 0, 255), dtype=np.uint8)


def _waves(x: FloatArray, y: FloatArray, seed: int) -> FloatArray:
    rng = np.random.default_rng(seed)
    total = np.zeros(np.broadcast(x, y).shape)
    for _ in range(12):
        angle, scale, phase = rng.uniform(0, np.pi), rng.uniform(0.3, 1.2), rng.uniform(0, 2 * np.pi)
        total = total + np.sin(scale * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    return total / 5
