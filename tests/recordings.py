"""Small recordings made by hand, for tests that need a data set but no reference world."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from drivesim.dynamics import planar_motion
from drivesim.errors import InputError
from drivesim.reference.export import export_nuscenes
from drivesim.reference.vehicles import VehicleBox
from drivesim.scene.geometry import FloatArray
from drivesim.scene.nuscenes_writer import ExportConfig
from drivesim.scene.types import DrivableArea, Image, Scene, front_camera

NUM_FRAMES = 25
RATE_HZ = 6.0
CAN = ExportConfig(jpeg_quality=95)


def pictures(num_frames: int = NUM_FRAMES) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Smooth pictures whose mean grey tells their index."""
    rows, columns = np.mgrid[0:128, 0:224]
    base = 20 + 0.2 * rows + 0.1 * columns
    return [np.stack([base + 5 * index, base, base], axis=-1).astype(np.uint8) for index in range(num_frames)]


def make_scene(
    num_frames: int = NUM_FRAMES, *, name: str = "recorded", log_name: str = "reference-winding-1"
) -> Scene:
    """A car that speeds up along a bend to the left, then to the right."""
    time = np.arange(num_frames) / RATE_HZ
    speed = 6.0 + 0.5 * time
    yaw_rate = 0.25 * np.sin(time)
    xy, yaw = [np.array([60.0, 55.0])], [0.3]
    for index in range(1, num_frames):
        forward, left, turn = planar_motion(speed[index], yaw_rate[index], 1 / RATE_HZ)
        cos, sin = np.cos(yaw[-1]), np.sin(yaw[-1])
        xy.append(xy[-1] + [cos * forward - sin * left, sin * forward + cos * left])
        yaw.append(yaw[-1] + turn)
    speed[0], yaw_rate[0] = speed[min(1, num_frames - 1)], yaw_rate[min(1, num_frames - 1)]
    return Scene(
        name=name,
        place="reference-winding",
        caption="overcast, two-lane road bending left",
        log_name=log_name,
        rate_hz=RATE_HZ,
        timestamps_s=time,
        frames=pictures(num_frames),
        camera=front_camera(),
        xy_m=np.array(xy),
        yaw_rad=np.array(yaw),
        speed_mps=speed,
        yaw_rate_radps=yaw_rate,
        steering_rad=np.arctan(2.8 * yaw_rate / speed),
        motion_source="can",
        route_xy_m=np.stack([np.arange(40.0, 180.0), 55 + 0.3 * np.arange(140.0)], axis=-1),
        drivable=make_drivable(),
    )


def make_drivable() -> DrivableArea:
    """Drivable west of x = 140, at 0.25 m, with its corner off the origin."""
    mask = np.zeros((400, 700), dtype=bool)
    mask[:, :520] = True
    return DrivableArea(mask=mask, resolution_m=0.25, origin_xy_m=np.array([10.0, 5.0]))


def make_traffic(num_frames: int) -> list[list[VehicleBox]]:
    """A car that drives ahead, a truck that hides behind it, and a barrier far away."""
    return [
        [
            VehicleBox(x_m=75.0 + index, y_m=60.0, yaw_rad=0.1, length_m=4.2, width_m=1.8, height_m=1.5),
            VehicleBox(x_m=85.0 + index, y_m=63.0, yaw_rad=0.1, length_m=8.0, width_m=2.4, height_m=3.2),
            VehicleBox(x_m=300.0, y_m=60.0, yaw_rad=0.0, length_m=2.0, width_m=2.0, height_m=1.1),
        ]
        for index in range(num_frames)
    ]


def recording_of(scene: Scene) -> Any:
    """Return what the export reads of a recording."""
    length = len(scene)
    return SimpleNamespace(
        scene=scene,
        is_collision=np.zeros(length, bool),
        is_off_road=np.zeros(length, bool),
        driver="good",
        traffic=make_traffic(length),
    )


def write_dataset(out: Path, *scenes: Scene) -> Path:
    """Export scenes; return the data root."""
    export_nuscenes([recording_of(scene) for scene in scenes or (make_scene(),)], out, config=CAN)
    return out


def rms(first: FloatArray, second: FloatArray) -> float:
    """Return the root mean square of a difference."""
    return float(np.sqrt(np.mean((np.asarray(first, float) - np.asarray(second, float)) ** 2)))


def edit_table(
    dataroot: Path, table: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    """Rewrite a table of a data set."""
    path = dataroot / "v1.0-mini" / f"{table}.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


class BrokenPictures(list[Image]):
    """Pictures of which some cannot be read."""

    def __init__(self, pictures: list[Image], bad: set[int]) -> None:
        super().__init__(pictures)
        self.bad = bad

    def __getitem__(self, index: Any) -> Any:
        if index in self.bad:
            raise InputError(f"image {index}.jpg is truncated; fetch it again")
        return super().__getitem__(index)
