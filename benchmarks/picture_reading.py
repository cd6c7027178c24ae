"""How well policies read pictures whose truth is known: `python -m benchmarks.picture_reading`.

On roads that nothing was trained on, the middle of the lane and the free way ahead are read from true pictures and
from those that the world model imagines of the same drives, and compared with what the reference world knows. A car
that the model forgot is counted as not seen: whether it vanished or was overlooked, nobody brakes for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import HeldOutScene, Start, check_seeds
from benchmarks.open_loop import OpenLoop
from benchmarks.report import run_command
from drivesim import console
from drivesim.dynamics import VehicleConfig
from drivesim.reference.behavior import Recording, record
from drivesim.reference.simulator import draw_spec
from drivesim.reference.vehicles import VehicleBox
from drivesim.scene.geometry import FloatArray, global_from_ego, transform_points
from drivesim.scene.route import Route, route_of
from drivesim.scene.types import Image
from drivesim.world_model.pretrained import load_world_model
from policies.lane_vision import LaneTracker
from policies.road_vision import free_way

ROUTE_AHEAD_M = np.arange(1, 21) * 2.0
READ_AT_M = (8.0, 14.0)
HALF_WIDTH_M = 0.95
NEAR_M = 30.0
NUM_FRAMES = 24
FIRST_FRAME = 3
NUM_IMAGINED = 12
ON_LANE_M = 1.0  # a car further from its lane is not keeping it


@dataclass(kw_only=True, slots=True)
class Reading:
    """One picture: errors of the lane, and the car ahead as it is and as it was read."""

    lane_error_m: list[float]  # at READ_AT_M
    is_on_lane: bool
    car_m: float | None
    read_m: float | None


def car_ahead_m(way_m: FloatArray, boxes: Sequence[VehicleBox], ego_from_global: FloatArray) -> float | None:
    """Return how far along a way (N, 2) the first vehicle stands in it, from the rear axle; None without one."""
    steps_m = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(way_m, axis=0), axis=1))])
    along_m = np.arange(VehicleConfig().length_m, steps_m[-1], 0.25)
    middle_m = np.stack([np.interp(along_m, steps_m, way_m[:, axis]) for axis in (0, 1)], axis=-1)
    nearest = [
        along_m[gap.argmin(axis=1)][gap.min(axis=1) < HALF_WIDTH_M]
        for gap in (
            np.linalg.norm(_points(box, ego_from_global)[:, None] - middle_m, axis=-1) for box in boxes
        )
    ]
    touched = np.concatenate([np.zeros(0), *nearest])
    return float(touched.min()) if len(touched) else None


def _points(box: VehicleBox, ego_from_global: FloatArray) -> FloatArray:
    """Return (63, 2) points spread over a vehicle."""
    along, across = np.linspace(-0.5, 0.5, 9) * box.length_m, np.linspace(-0.5, 0.5, 7) * box.width_m
    points = np.stack(np.meshgrid(along, across, indexing="ij"), axis=-1).reshape(-1, 2)
    return transform_points(ego_from_global @ global_from_ego((box.x_m, box.y_m), box.yaw_rad), points)


def readings(recording: Recording, pictures: Sequence[Image], first: int) -> Iterator[Reading]:
    """Read pictures of a recording from frame ``first`` on, one after another as a policy does."""
    scene, tracker, near_m = recording.scene, LaneTracker(), None
    route: Route = route_of(scene)
    for index, picture in enumerate(pictures, start=first):
        ego = scene.ego_state(index)
        position = route.project((ego.x_m, ego.y_m), ego.yaw_rad, near_m=near_m)
        near_m = position.distance_m
        ego_from_global = np.linalg.inv(global_from_ego((ego.x_m, ego.y_m), ego.yaw_rad))
        way_m = transform_points(ego_from_global, route.points_at(near_m + ROUTE_AHEAD_M))
        dt_s = 1.0 / scene.rate_hz
        lane = tracker.update(
            picture, distance_m=float(scene.speed_mps[index]) * dt_s, turned_rad=ego.yaw_rate_radps * dt_s
        )
        read_y_m = lane.points(np.array(READ_AT_M))[:, 1]
        way = free_way(picture, way_m)
        car_m = car_ahead_m(
            np.concatenate([np.zeros((1, 2)), way_m]), recording.traffic[index], ego_from_global
        )
        yield Reading(
            lane_error_m=np.abs(read_y_m - np.interp(READ_AT_M, way_m[:, 0], way_m[:, 1])).tolist(),
            is_on_lane=abs(position.lateral_m) < ON_LANE_M,
            car_m=car_m if car_m is None or car_m < way.reach_m else None,
            read_m=way.distance_m if way.is_blocked else None,
        )


def row_of(name: str, read: Sequence[Reading]) -> tuple[object, ...]:
    """Return a line of the table."""
    lane_m = np.array([reading.lane_error_m for reading in read if reading.is_on_lane])
    near = [reading for reading in read if reading.car_m is not None and reading.car_m < NEAR_M]
    errors_m = [reading.read_m - (reading.car_m or 0.0) for reading in near if reading.read_m is not None]
    free = [reading for reading in read if reading.car_m is None]
    false = [reading for reading in free if reading.read_m is not None and reading.read_m < NEAR_M]
    return (
        name,
        len(read),
        *np.median(lane_m, axis=0),
        float((lane_m[:, 0] < 0.5).mean()),
        len(near),
        len(errors_m) / max(len(near), 1),
        float(np.median(np.abs(errors_m))) if errors_m else float("nan"),
        len(false) / max(len(free), 1),
    )


COLUMNS = (
    "pictures", "number", "lane 8 m (m)", "lane 14 m (m)", "within 0.5 m", "cars < 30 m", "seen", "error (m)",
    "false",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, record, imagine, read, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picture_reading", description=__doc__)
    parser.add_argument("--seed", type=int, default=890100, help="of the first road")
    parser.add_argument("--num-scenes", type=int, default=20, help="roads")
    parser.add_argument("--driver", default="good", help="who drives them")
    parser.add_argument(
        "--weights", default="drive-tiny", help="of the world model; '' reads true pictures only"
    )
    options = parser.parse_args(arguments)
    purpose = check_seeds(options.seed, options.num_scenes)
    recordings = []
    with console.progress_bar("recording roads", options.num_scenes) as bar:
        for seed in range(options.seed, options.seed + options.num_scenes):
            recordings.append(
                record(draw_spec(seed), driver=options.driver, num_frames=NUM_FRAMES, driver_seed=seed)
            )
            bar.advance()
    groups: dict[str, list[Reading]] = {"true": []}
    for recording in recordings:
        frames = [recording.scene.frames[index] for index in range(FIRST_FRAME, NUM_FRAMES)]
        read = list(readings(recording, frames, FIRST_FRAME))
        for name in ("true", *(f"true, {word}" for word in recording.scene.caption.split(",")[0].split())):
            groups.setdefault(name, []).extend(read)
    if options.weights:
        pictures = imagined(options.weights, recordings)
        groups["imagined"] = [
            reading
            for recording, frames in zip(recordings, pictures, strict=True)
            for reading in readings(recording, frames, FIRST_FRAME + 1)
        ]
    rows = [row_of(name, read) for name, read in groups.items() if any(one.is_on_lane for one in read)]
    console.print_table("what is read from pictures", COLUMNS, rows, caption=f"{purpose}; medians of errors")


def imagined(weights: str, recordings: Sequence[Recording]) -> NDArray[np.uint8]:
    """Return the pictures (B, T, H, W, 3) that a world model imagines of the same drives."""
    scenes = [
        HeldOutScene(
            scene=recording.scene, is_off_road=recording.is_off_road, is_collision=recording.is_collision
        )
        for recording in recordings
    ]
    starts = [Start(scene_index=index, frame_index=FIRST_FRAME) for index in range(len(scenes))]
    twists = np.stack([scene.twist(FIRST_FRAME + 1, NUM_IMAGINED) for scene in scenes])
    loop = OpenLoop(model=load_world_model(weights), camera=recordings[0].scene.camera)
    return loop.imagine(scenes, starts, twists, label="imagining")


if __name__ == "__main__":
    run_command(main)
