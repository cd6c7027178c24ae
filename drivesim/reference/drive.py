"""A drive through a world without pictures: motion, traffic and crashes, and pictures of any part of it afterwards.

Driving costs a fraction of drawing, so one can look for what is wanted before anything is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.dynamics import control_from_action, step
from drivesim.reference.drivers import Driver
from drivesim.reference.simulator import ReferenceWorld
from drivesim.reference.vehicles import VehicleBox, agents_of
from drivesim.scene.agents import MovingAgents, moving_before
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Control, EgoState, Image

_CRASH_DECEL_MPS2 = 60.0


@dataclass(kw_only=True, slots=True)
class Drive:
    """What happened in T instants of a world."""

    world: ReferenceWorld
    driver: Driver
    states: list[EgoState]  # T
    traffic: list[list[VehicleBox]]  # T lists of what else is on the road
    is_collision: NDArray[np.bool_]  # (T,)

    def __len__(self) -> int:
        """Return the number of instants."""
        return len(self.states)

    @property
    def xy_m(self) -> FloatArray:
        """Return the (T, 2) positions."""
        return np.array([[state.x_m, state.y_m] for state in self.states])

    @property
    def yaw_rad(self) -> FloatArray:
        """Return the (T,) headings."""
        return np.array([state.yaw_rad for state in self.states])

    @property
    def speed_mps(self) -> FloatArray:
        """Return the (T,) mean speeds over the step that leads into each instant."""
        speed = np.array([state.speed_mps for state in self.states])
        return np.concatenate([speed[:1], 0.5 * (speed[1:] + speed[:-1])])

    @property
    def yaw_rate_radps(self) -> FloatArray:
        """Return the (T,) yaw rates that lead into each instant."""
        return np.array([state.yaw_rate_radps for state in self.states])

    def picture(self, index: int) -> Image:
        """Return what the camera saw at an instant: (H, W, 3) RGB."""
        return self.world.picture(self.states[index], self.traffic[index])

    def agents_at(self, index: int) -> MovingAgents | None:
        """Return the others before the camera at an instant, going on from there as they went."""
        seen, world = agents_of(self.traffic[index]), self.world
        return moving_before(seen, self.states[index], world.camera, world.route_xy_m)

    def is_off_road(self, index: int) -> bool:
        """Tell whether a corner of the ego car was outside the drivable area."""
        return self.world.is_outside(self.states[index])


def drive(world: ReferenceWorld, driver: Driver, *, num_frames: int) -> Drive:
    """Let a driver drive from the start of a new world, on beside the road too; after a crash the car stands."""
    states: list[EgoState] = []
    is_collision: list[bool] = []
    traffic: list[list[VehicleBox]] = []
    for index in range(num_frames):
        if index:
            _drive_one_step(world, driver, has_crashed=any(is_collision))
        states.append(world.ego)
        is_collision.append(world.is_collision)
        traffic.append(world.traffic)
    return Drive(
        world=world, driver=driver, states=states, traffic=traffic, is_collision=np.array(is_collision)
    )


def _drive_one_step(world: ReferenceWorld, driver: Driver, *, has_crashed: bool) -> None:
    dt_s, ego = 1.0 / world.rate_hz, world.ego
    if has_crashed:
        control = Control(steering_rad=0.0, accel_mps2=-_CRASH_DECEL_MPS2)
    else:
        control = control_from_action(*driver.act(world), ego, world.vehicle, dt_s)
    world.advance(step(ego, control, world.vehicle, dt_s))
