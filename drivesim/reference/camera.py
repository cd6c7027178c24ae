"""The front camera of the reference world: surface, scenery and vehicles -> RGB picture.

A picture is a pure function of world, pose and vehicles: nothing in it is random per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from drivesim.reference.backdrop import Backdrop
from drivesim.reference.look import Look, atmosphere
from drivesim.reference.painter import Painter, View, headlight, paint
from drivesim.reference.scenery import Scenery
from drivesim.reference.solids import scenery_faces
from drivesim.reference.surface import Surface
from drivesim.reference.vehicles import VehicleBox, vehicle_faces
from drivesim.scene.geometry import FloatArray, global_from_ego
from drivesim.scene.types import CAM_FROM_FORWARD, Camera, Image

__all__ = ["FrameRenderer", "VehicleBox"]

_BANDS = (
    (80.0, 16),
    (34.0, 12),
    (17.0, 8),
    (8.6, 4),
    (0.0, 2),
)  # nearest distance in metres, samples per row


@dataclass(kw_only=True, slots=True)
class _Band:
    """Rows of the ground seen at similar distance: one homography, one mip level."""

    rows: slice
    samples: int
    level: int
    ego_from_band: FloatArray  # (3, 3) homography: (column, sample row) to ego ground metres


class FrameRenderer:
    """Draws what a front camera sees of a world."""

    def __init__(self, surface: Surface, scenery: Scenery, look: Look, camera: Camera) -> None:
        """Prepare everything that does not depend on the pose.

        Args:
            surface: the painted ground.
            scenery: what stands on it.
            look: the look that both were made from.
            camera: must look straight ahead with its horizon inside the picture.
        """
        if not np.allclose(camera.ego_from_cam[:3, :3], CAM_FROM_FORWARD, atol=1e-6):
            raise ValueError(
                "the reference world needs a camera that looks straight ahead; use front_camera()"
            )
        if not 1 <= camera.cy_px < camera.height_px - 1:
            raise ValueError(
                f"the horizon must lie inside the picture, got row {camera.cy_px} of {camera.height_px}"
            )
        self._surface, self._scenery, self._look, self._camera = surface, scenery, look, camera
        self._air = atmosphere(look)
        self._painter = Painter(self._air)
        self._backdrop = Backdrop(look, self._air, camera)
        self._faces = scenery_faces(scenery, look)
        self._first_row = round(camera.cy_px)
        self._bands = self._make_bands()
        self._gain, self._bias = self._ground_light()

    def render(self, *, xy_m: FloatArray, yaw_rad: float, vehicles: Sequence[VehicleBox] = ()) -> Image:
        """Return the (H, W, 3) uint8 RGB picture seen from an ego pose.

        Args:
            xy_m: (2,) global position of the ego's rear axle.
            yaw_rad: heading of the ego.
            vehicles: the others; the ego itself is never in its picture.
        """
        forward_m, left_m, above_m = self._camera.ego_from_cam[:3, 3]
        global_from_here = global_from_ego(xy_m, yaw_rad)
        place = global_from_here @ np.array([forward_m, left_m, 1.0])
        view = View(camera=self._camera, xy_m=place[:2], yaw_rad=yaw_rad, height_m=float(above_m))
        picture = np.empty((self._camera.height_px, self._camera.width_px, 3), np.uint8)
        picture[: self._first_row] = self._backdrop.view(yaw_rad)
        self._draw_ground(picture, global_from_here)
        others = vehicle_faces(vehicles, self._look)
        painting = self._painter.plants(self._scenery, view)
        painting += self._painter.solids(self._faces, view) + self._painter.solids(others, view)
        paint(picture, painting)
        return picture

    def _make_bands(self) -> list[_Band]:
        camera, bands = self._camera, []
        forward_m, left_m, above_m = camera.ego_from_cam[:3, 3]
        scale = camera.fy_px * above_m  # rows below the horizon times distance
        first = self._first_row
        for nearest_m, samples in _BANDS:
            last = camera.height_px if nearest_m == 0 else round(camera.cy_px + scale / nearest_m)
            last = int(np.clip(last, first, camera.height_px))
            if last == first:
                continue
            middle_m = scale / (np.sqrt((first - camera.cy_px + 0.5) * (last - camera.cy_px)))
            texel_m = max(middle_m / camera.fx_px, 0.7 * middle_m**2 / scale / samples)
            level = int(
                np.clip(
                    round(np.log2(texel_m / self._surface.resolution_m)), 0, len(self._surface.levels) - 1
                )
            )
            image_from_band = np.array([[1, 0, 0.5], [0, 1 / samples, first + 0.5 / samples], [0, 0, 1]])
            # ground point of pixel (u, v): forward = scale / (v - cy), left = (cx - u) / fx * forward
            ego_from_image = np.array(
                [
                    [0, forward_m, scale - forward_m * camera.cy_px],
                    [
                        -scale / camera.fx_px,
                        left_m,
                        scale * camera.cx_px / camera.fx_px - left_m * camera.cy_px,
                    ],
                    [0, 1, -camera.cy_px],
                ]
            )
            ego_from_band = ego_from_image @ image_from_band
            bands.append(
                _Band(rows=slice(first, last), samples=samples, level=level, ego_from_band=ego_from_band)
            )
            first = last
        return bands

    def _ground_light(self) -> tuple[FloatArray, FloatArray]:
        """Return gain and bias per ground pixel: light, headlights, gleam and haze stay put in it."""
        camera, air = self._camera, self._air
        below = np.arange(self._first_row, camera.height_px) + 0.5 - camera.cy_px
        forward = (camera.fy_px * camera.ego_from_cam[2, 3] / np.maximum(below, 0.25))[:, None]
        left = (camera.cx_px - np.arange(camera.width_px) - 0.5) / camera.fx_px * forward
        forward = np.broadcast_to(forward, left.shape)
        light = air.lit(np.ones(3), np.array([0.0, 0.0, 1.0])) + np.zeros((*left.shape, 3))
        if air.has_headlights:
            light = light + headlight(forward, left)[..., None] * [1.0, 0.97, 0.88]
        gleam = (0.42 * air.wetness * np.clip(forward / 45.0, 0.04, 1.0))[..., None]
        share = air.haze(np.hypot(forward, left))[..., None]
        gain = light * (1.0 - gleam) * (1.0 - share)
        bias = air.horizon_rgb * (gleam * (1.0 - share) + share)
        return gain.astype(np.float32), bias.astype(np.float32)

    def _draw_ground(self, picture: Image, global_from_here: FloatArray) -> None:
        ground = picture[self._first_row :]
        for band in self._bands:
            level_from_band = (
                self._surface.level_from_global(band.level) @ global_from_here @ band.ego_from_band
            )
            rows = band.rows.stop - band.rows.start
            samples = cv2.warpPerspective(
                self._surface.levels[band.level],
                level_from_band,
                (self._camera.width_px, rows * band.samples),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=self._surface.far_rgb.tolist(),
            )
            picture[band.rows] = cv2.resize(
                samples, (self._camera.width_px, rows), interpolation=cv2.INTER_AREA
            )
        ground[:] = np.clip(ground * self._gain + self._bias, 0.0, 255.0)


def draw_in_one_thread() -> None:
    """Keep drawing to one thread in this process; for worker processes that share the cores."""
    cv2.setNumThreads(1)
