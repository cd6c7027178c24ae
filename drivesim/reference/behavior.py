"""Recordings of the reference world: a world driven by one of the drivers, as a Scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.reference.drive import Drive, drive
from drivesim.reference.drivers import Driver, draw_driver, named_driver
from drivesim.reference.simulator import ReferenceWorld, WorldSpec
from drivesim.reference.vehicles import VehicleBox, agents_of
from drivesim.scene.types import Camera, Image, Scene

__all__ = ["Driver", "Recording", "draw_driver", "named_driver", "record"]


@dataclass(kw_only=True, slots=True)
class Recording:
    """A driven scene and what happened in it."""

    scene: Scene
    is_collision: NDArray[np.bool_]  # (T,)
    is_off_road: NDArray[np.bool_]  # (T,)
    driver: str
    traffic: list[list[VehicleBox]]  # T lists of what else is on the road


def record(
    spec: WorldSpec,
    *,
    driver: str | None = None,
    num_frames: int,
    driver_seed: int,
    rate_hz: float = 6.0,
    camera: Camera | None = None,
) -> Recording:
    """Drive a world and record it, also after the car left the road; after a crash it stands.

    Args:
        spec: the world.
        driver: kind of driver; None draws one.
        num_frames: length of the recording.
        driver_seed: seed of all the driver does.
        rate_hz: frames per second.
        camera: how to look; the front camera if left out.

    Raises:
        InputError: for an unknown driver or fewer than two frames.
    """
    if num_frames < 2:
        raise InputError(f"a recording needs at least 2 frames, got {num_frames}")
    rng = np.random.default_rng([driver_seed, 2])
    person = draw_driver(rng) if driver is None else named_driver(driver, rng)
    world = ReferenceWorld(spec, camera=camera, rate_hz=rate_hz)
    driven = drive(world, person, num_frames=num_frames)
    return Recording(
        scene=_scene_of(driven, [driven.picture(index) for index in range(num_frames)]),
        is_collision=driven.is_collision,
        is_off_road=np.array([driven.is_off_road(index) for index in range(num_frames)]),
        driver=person.name,
        traffic=driven.traffic,
    )


def _scene_of(driven: Drive, frames: list[Image]) -> Scene:
    world = driven.world
    scene = Scene(
        name=world.spec.log_name,
        place=world.place,
        caption=f"{world.caption}, {driven.driver.words}",
        log_name=world.spec.log_name,
        rate_hz=world.rate_hz,
        timestamps_s=np.arange(len(frames)) / world.rate_hz,
        frames=frames,
        camera=world.camera,
        xy_m=driven.xy_m,
        yaw_rad=driven.yaw_rad,
        speed_mps=driven.speed_mps,
        yaw_rate_radps=driven.yaw_rate_radps,
        steering_rad=np.array([state.steering_rad for state in driven.states]),
        motion_source="can",
        route_xy_m=world.route_xy_m,
        drivable=world.drivable,
        agents=[agents_of(boxes) for boxes in driven.traffic],
    )
    scene.validate()
    return scene
