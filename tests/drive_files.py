"""A drive of the reference world as the files that other recorders leave."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.reference.drive import Drive, drive
from drivesim.reference.drivers import named_driver
from drivesim.reference.simulator import ReferenceWorld, WorldSpec
from drivesim.scene.types import front_camera
from drivesim.video import write_image, write_video

RATE_HZ = 12.0
NUM_FRAMES = 96


@dataclass(frozen=True)
class Driven:
    """Pictures of a drive, and what the car did at each."""

    frames: NDArray[np.uint8]
    times_s: NDArray[np.float64]
    speed_mps: NDArray[np.float64]
    steering_rad: NDArray[np.float64]
    yaw_rad: NDArray[np.float64]

    def part(self, start: int, stop: int) -> Driven:
        return Driven(*(getattr(self, name)[start:stop] for name in self.__dataclass_fields__))


@functools.cache
def driven(num_frames: int = NUM_FRAMES) -> Driven:
    """A swerving drive at 12 Hz; steering is that at the moment of each picture."""
    camera = front_camera(width_px=160, height_px=96, focal_px=114.0, horizon_row_px=40.0)
    world = ReferenceWorld(WorldSpec(family="winding", seed=890_300), camera=camera, rate_hz=2 * RATE_HZ)
    fine: Drive = drive(world, named_driver("swerving", np.random.default_rng(3)), num_frames=2 * num_frames)
    states = fine.states[::2]
    after = [*fine.states[1::2], fine.states[-1]]
    return Driven(
        frames=np.stack([fine.picture(index) for index in range(0, 2 * num_frames, 2)]),
        times_s=np.arange(num_frames) / RATE_HZ,
        speed_mps=np.array([state.speed_mps for state in states]),
        steering_rad=np.array(
            [0.5 * (a.steering_rad + b.steering_rad) for a, b in zip(states, after, strict=False)]
        ),
        yaw_rad=np.array([state.yaw_rad for state in states]),
    )


def lagged(values: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """Return what a recorder writes whose readings come ``lag`` pictures too early."""
    return values[np.clip(np.arange(len(values)) + lag, 0, len(values) - 1)]


def table_text(
    drive_: Driven,
    *,
    lag: int = 0,
    sign: float = 1.0,
    start_s: float = 0.0,
    delimiter: str = ",",
    names: list[str] | None = None,
) -> str:
    rows = [delimiter.join(["time_s", "steering_rad", "speed_mps"] + (["file"] if names else []))]
    columns = [
        drive_.times_s + start_s,
        sign * lagged(drive_.steering_rad, lag),
        lagged(drive_.speed_mps, lag),
    ]
    for index, numbers in enumerate(zip(*columns, strict=True)):
        rows.append(
            delimiter.join([f"{number:.6f}" for number in numbers] + ([names[index]] if names else []))
        )
    return "\n".join(rows) + "\n"


def write_video_drive(folder: Path, drive_: Driven | None = None, *, lag: int = 0, sign: float = 1.0) -> Path:
    """Write ``drive.mp4`` and ``drive.csv``."""
    drive_ = drive_ or driven()
    folder.mkdir(parents=True, exist_ok=True)
    write_video(folder / "drive.mp4", drive_.frames, RATE_HZ)
    (folder / "drive.csv").write_text(table_text(drive_, lag=lag, sign=sign))
    return folder


def write_picture_drive(
    folder: Path, drive_: Driven | None = None, *, lag: int = 0, sign: float = 1.0
) -> Path:
    """Write ``images/`` and a table that names its picture in each row."""
    drive_ = drive_ or driven()
    names = [f"images/{index}.jpg" for index in range(len(drive_.frames))]
    for name, frame in zip(names, drive_.frames, strict=True):
        write_image(folder / name, frame)
    (folder / "log.csv").write_text(table_text(drive_, lag=lag, sign=sign, names=names))
    return folder


def write_udacity_drive(folder: Path, drive_: Driven | None = None, *, header: bool = True) -> Path:
    """Write ``driving_log.csv`` and ``IMG/`` as a Windows machine does."""
    drive_ = drive_ or driven()
    rows = ["center,left,right,steering,throttle,brake,speed"] if header else []
    for index, frame in enumerate(drive_.frames):
        moment = datetime(2016, 12, 1, 13, 30, 48, 287000) + timedelta(seconds=float(drive_.times_s[index]))
        stamp = moment.strftime("%Y_%m_%d_%H_%M_%S_") + f"{moment.microsecond // 1000:03d}"
        write_image(folder / "IMG" / f"center_{stamp}.jpg", frame)
        share = -drive_.steering_rad[index] / np.radians(25.0)
        paths = ", ".join(rf"C:\Users\me\data\IMG\{side}_{stamp}.jpg" for side in ("center", "left", "right"))
        rows.append(f"{paths}, {share:.7f}, 0.5, 0, {drive_.speed_mps[index] / 0.44704:.5f}")
    (folder / "driving_log.csv").write_text("\n".join(rows) + "\n")
    return folder
