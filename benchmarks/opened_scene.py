"""What the one scene that is opened has beside its rows in the tables: pictures, a city's map mask, its motion."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from drivesim.scene.types import Scene, front_camera
from drivesim.video import write_image

SCENE_S = 19.5
SPEED_MPS = 8.0
START_XY_M = (100.0, 1000.0)
ROAD_WIDTH_PX = 200  # 10 pixels to the metre
SIZE_PX = (1600, 900)


def write_pictures(out: Path, filenames: Iterable[str]) -> None:
    """Write one grey picture under many names."""
    grey = np.full((SIZE_PX[1], SIZE_PX[0], 3), 120, dtype=np.uint8)
    first: bytes | None = None
    for filename in filenames:
        path = out / filename
        if first is None:
            write_image(path, grey)
            first = path.read_bytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(first)


def write_mask(path: Path, size_px: tuple[int, int]) -> None:
    """Write a map mask, (columns, rows), with the road of the scene and others across it."""
    columns, rows = size_px
    mask = np.zeros((rows, columns), dtype=np.uint8)
    middle = rows - round(10 * START_XY_M[1])
    mask[middle - ROAD_WIDTH_PX // 2 : middle + ROAD_WIDTH_PX // 2] = 255
    for column in range(0, columns, 2000):
        mask[:, column : column + ROAD_WIDTH_PX] = 255
    write_image(path, mask)


def straight_drive(name: str) -> Scene:
    """Return the motion of the scene, straight along the road."""
    times = np.arange(0.0, SCENE_S, 0.05)
    still = np.zeros(len(times))
    xy_m = np.stack([START_XY_M[0] + SPEED_MPS * times, still + START_XY_M[1]], axis=-1)
    return Scene(
        name=name,
        place="",
        caption="",
        log_name="",
        rate_hz=20.0,
        timestamps_s=times,
        frames=[],
        camera=front_camera(),
        xy_m=xy_m,
        yaw_rad=still,
        speed_mps=still + SPEED_MPS,
        yaw_rate_radps=still,
        steering_rad=still,
        motion_source="log",
        route_xy_m=xy_m[::20],
    )
