"""Recordings of the reference world: a world driven by one of the drivers, as a Scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.dynamics import control_from_action, step
from drivesim.errors import InputError
from drivesim.reference.drivers import Driver, draw_driver, named_driver
from drivesim.reference.simulator import ReferenceWorld, WorldSpec
from drivesim.reference.vehicles import VehicleBox
from drivesim.scene.types import Camera, Control, EgoState, Image, Scene

__all__ = ["Driver", "Recording", "draw_driver", "named_driver", "record"]

_CRASH_DECEL_MPS2 = 60.0


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
    frames: list[Image] = []
    states: list[EgoState] = []
    is_collision: list[bool] = []
    is_off_road: list[bool] = []
    traffic: list[list[VehicleBox]] = []
    for index in range(num_frames):
        if index:
            _drive_one_step(world, person, has_crashed=any(is_collision))
        frames.append(world.render())
        states.append(world.ego)
        is_collision.append(world.is_collision)
        is_off_road.append(world.is_off_road)
        traffic.append(world.traffic)
    return Recording(
        scene=_scene_of(world, person, states, frames),
        is_collision=np.array(is_collision),
        is_off_road=np.array(is_off_road),
        driver=person.name,
        traffic=traffic,
    )


def _drive_one_step(world: ReferenceWorld, driver: Driver, *, has_crashed: bool) -> None:
    dt_s, ego = 1.0 / world.rate_hz, world.ego
    if has_crashed:
        control = Control(steering_rad=0.0, accel_mps2=-_CRASH_DECEL_MPS2)
    else:
        control = control_from_action(*driver.act(world), ego, world.vehicle, dt_s)
    world.advance(step(ego, control, world.vehicle, dt_s))


def _scene_of(world: ReferenceWorld, driver: Driver, states: list[EgoState], frames: list[Image]) -> Scene:
    speed = np.array([state.speed_mps for state in states])
    # The mean over the step that leads into a frame.
    mean_speed = np.concatenate([speed[:1], 0.5 * (speed[1:] + speed[:-1])])
    scene = Scene(
        name=world.spec.log_name,
        place=world.place,
        caption=f"{world.caption}, {driver.words}",
        log_name=world.spec.log_name,
        rate_hz=world.rate_hz,
        timestamps_s=np.arange(len(states)) / world.rate_hz,
        frames=frames,
        camera=world.camera,
        xy_m=np.array([[state.x_m, state.y_m] for state in states]),
        yaw_rad=np.array([state.yaw_rad for state in states]),
        speed_mps=mean_speed,
        yaw_rate_radps=np.array([state.yaw_rate_radps for state in states]),
        steering_rad=np.array([state.steering_rad for state in states]),
        motion_source="can",
        route_xy_m=world.route_xy_m,
        drivable=world.drivable,
    )
    scene.validate()
    return scene
