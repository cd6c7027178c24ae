"""Pictures of roads drawn by hand on flat ground, for what reads pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivesim.scene.types import Camera, Image, front_camera

GRASS, ASPHALT, LINE, SKY = (
    (96.0, 118.0, 62.0),
    (92.0, 92.0, 95.0),
    (232.0, 232.0, 226.0),
    (150.0, 180.0, 220.0),
)
BODY, SHADE, LAMP = (150.0, 40.0, 40.0), (12.0, 12.0, 14.0), (230.0, 60.0, 40.0)


@dataclass(kw_only=True)
class DrawnRoad:
    """One lane with lines on both sides and a margin of asphalt; the ego car looks along x."""

    offset_m: float = 0.0
    heading_rad: float = 0.0
    curvature_1pm: float = 0.0
    width_m: float = 3.6
    has_lines: bool = True
    car_m: float | None = None  # from the rear axle to the tail of a car on the lane
    patch_m: tuple[float, float] | None = None  # a stretch of darker, repaired asphalt
    light: float = 1.0
    haze_per_m: float = 0.0

    def middle_m(self, x_m: np.ndarray) -> np.ndarray:
        return self.offset_m + self.heading_rad * x_m + 0.5 * self.curvature_1pm * x_m**2

    def way_m(self) -> np.ndarray:
        """Return the (20, 2) points of the middle, as an environment's route ahead."""
        x_m = np.arange(1, 21) * 2.0
        return np.stack([x_m, self.middle_m(x_m)], axis=-1)

    def picture(self) -> Image:
        camera = front_camera()
        fine = 2  # samples per pixel and side
        rgb = self._samples(camera, fine)
        blocks = rgb.reshape(camera.height_px, fine, camera.width_px, fine, 3).mean(axis=(1, 3))
        return np.asarray(np.clip(blocks * self.light, 0, 255), dtype=np.uint8)

    def _samples(self, camera: Camera, fine: int) -> np.ndarray:
        v, u = np.mgrid[0 : camera.height_px * fine, 0 : camera.width_px * fine]
        u, v = (u + 0.5) / fine, (v + 0.5) / fine
        below = np.maximum(v - camera.cy_px, 1e-3)
        forward = camera.fy_px * camera.ego_from_cam[2, 3] / below
        x_m = forward + camera.ego_from_cam[0, 3]
        across_m = (camera.cx_px - u) / camera.fx_px * forward - self.middle_m(x_m)
        rgb = self._ground(x_m, across_m)
        share = np.exp(-self.haze_per_m * forward)[..., None]
        rgb = np.where((v > camera.cy_px)[..., None], rgb * share + np.array(SKY) * (1 - share), SKY)
        if self.car_m is not None:
            self._draw_car(rgb, camera, u, v)
        return rgb

    def _ground(self, x_m: np.ndarray, across_m: np.ndarray) -> np.ndarray:
        border_m = 0.5 * self.width_m
        rgb = np.where((np.abs(across_m) < border_m + 0.5)[..., None], ASPHALT, GRASS)
        if self.patch_m is not None:
            is_patch = (np.abs(across_m) < border_m) & (x_m > self.patch_m[0]) & (x_m < self.patch_m[1])
            rgb = np.where(is_patch[..., None], np.array(ASPHALT) * 0.75, rgb)
        if self.has_lines:
            rgb = np.where((np.abs(np.abs(across_m) - border_m) < 0.1)[..., None], LINE, rgb)
        return np.asarray(rgb, dtype=np.float64)

    def _draw_car(self, rgb: np.ndarray, camera: Camera, u: np.ndarray, v: np.ndarray) -> None:
        """Draw the tail of a car: shade below, a body, lamps."""
        assert self.car_m is not None
        forward = self.car_m - camera.ego_from_cam[0, 3]
        middle_m = float(self.middle_m(np.array(self.car_m)))
        left_m = (camera.cx_px - u) / camera.fx_px * forward - middle_m
        up_m = camera.ego_from_cam[2, 3] - (v - camera.cy_px) / camera.fy_px * forward
        is_car = (np.abs(left_m) < 0.95) & (up_m > 0) & (up_m < 1.5)
        rgb[is_car] = BODY
        rgb[is_car & (up_m < 0.3)] = SHADE
        rgb[is_car & (np.abs(np.abs(left_m) - 0.75) < 0.15) & (np.abs(up_m - 0.7) < 0.12)] = LAMP
