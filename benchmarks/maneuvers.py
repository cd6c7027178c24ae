"""Manoeuvres that a world must answer visibly: hard left against hard right, fast against slow.

Each is a list of ego states, so the reference world can drive it too and show what the right answer is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import HeldOutScene, Start
from drivesim import console
from drivesim.dynamics import (
    VehicleConfig,
    control_from_action,
    curvature_from_steering,
    planar_motion,
    step,
)
from drivesim.reference.simulator import ReferenceWorld, WorldSpec
from drivesim.scene.geometry import wrap_angle
from drivesim.scene.types import EgoState

MIN_STEERING_SPEED_MPS = 4.0
SLOW_MPS, FAST_MPS = 4.0, 12.0
NUM_STEPS = 6

Images = NDArray[np.uint8]
Twists = NDArray[np.float32]


@dataclass(kw_only=True, slots=True)
class Maneuver:
    """What the car does after a start."""

    states: list[EgoState]  # one per step

    @property
    def twist(self) -> Twists:
        """Return the (T, 2) motion into each step's frame."""
        return np.array([(s.speed_mps, s.yaw_rate_radps) for s in self.states], dtype=np.float32)


ManeuverFn = Callable[[EgoState, float], Maneuver]
"""From the ego state at the start and the interval in s to what follows."""


def steer_hard(ego: EgoState, dt_s: float, *, side: int, vehicle: VehicleConfig | None = None) -> Maneuver:
    """Hold the wheel at its stop at the present speed, at least 4 m/s, through the car's own dynamics.

    Args:
        ego: State at the start.
        dt_s: Length of a step.
        side: +1 left, -1 right.
        vehicle: The car; its grip limits the curve.
    """
    vehicle = vehicle or VehicleConfig()
    state = replace(ego, speed_mps=max(ego.speed_mps, MIN_STEERING_SPEED_MPS))
    states = []
    for _ in range(NUM_STEPS):
        control = control_from_action(side * vehicle.max_steering_rad, state.speed_mps, state, vehicle, dt_s)
        state = step(state, control, vehicle, dt_s)
        states.append(state)
    return Maneuver(states=states)


def hold_speed(
    ego: EgoState, dt_s: float, *, speed_mps: float, vehicle: VehicleConfig | None = None
) -> Maneuver:
    """Follow the curve driven at the start at one speed from the first step on: set, not reached.

    The curvature is limited by the grip at the faster of the two speeds, so both drive the same path.
    """
    vehicle = vehicle or VehicleConfig()
    wanted = ego.yaw_rate_radps / max(ego.speed_mps, 1.0)
    steering_rad = float(np.arctan(wanted * vehicle.wheelbase_m))
    yaw_rate_radps = speed_mps * curvature_from_steering(steering_rad, FAST_MPS, vehicle)
    state, states = ego, []
    for _ in range(NUM_STEPS):
        state = _moved(state, speed_mps, yaw_rate_radps, dt_s)
        states.append(state)
    return Maneuver(states=states)


def _moved(state: EgoState, speed_mps: float, yaw_rate_radps: float, dt_s: float) -> EgoState:
    dx_m, dy_m, dyaw_rad = planar_motion(speed_mps, yaw_rate_radps, dt_s)
    cos, sin = np.cos(state.yaw_rad), np.sin(state.yaw_rad)
    return replace(
        state,
        x_m=float(state.x_m + cos * dx_m - sin * dy_m),
        y_m=float(state.y_m + sin * dx_m + cos * dy_m),
        yaw_rad=float(wrap_angle(state.yaw_rad + dyaw_rad)),
        speed_mps=speed_mps,
        yaw_rate_radps=yaw_rate_radps,
        accel_mps2=0.0,
    )


def random_twist(scene: HeldOutScene, frame_index: int, horizon: int, *, seed: int) -> Twists:
    """Return the (T, 2) motion under actions drawn evenly from the whole action space at every step."""
    rng, vehicle, dt_s = np.random.default_rng(seed), VehicleConfig(), 1.0 / scene.scene.rate_hz
    state = scene.scene.ego_state(frame_index)
    rows = []
    for _ in range(horizon):
        steering_rad = rng.uniform(-vehicle.max_steering_rad, vehicle.max_steering_rad)
        target_speed_mps = rng.uniform(0.0, vehicle.max_speed_mps)
        control = control_from_action(steering_rad, target_speed_mps, state, vehicle, dt_s)
        before_mps = state.speed_mps
        state = step(state, control, vehicle, dt_s)
        rows.append((0.5 * (before_mps + state.speed_mps), state.yaw_rate_radps))
    return np.array(rows, dtype=np.float32)


def plan(scenes: Sequence[HeldOutScene], starts: Sequence[Start], maneuver_fn: ManeuverFn) -> list[Maneuver]:
    """Return the manoeuvre from each start."""
    plans = []
    for start in starts:
        scene = scenes[start.scene_index].scene
        plans.append(maneuver_fn(scene.ego_state(start.frame_index), 1.0 / scene.rate_hz))
    return plans


def plan_all(scenes: Sequence[HeldOutScene], starts: Sequence[Start]) -> dict[str, list[Maneuver]]:
    """Return by name each of the four manoeuvres from each start."""
    functions = {
        "left": partial(steer_hard, side=1),
        "right": partial(steer_hard, side=-1),
        "slow": partial(hold_speed, speed_mps=SLOW_MPS),
        "fast": partial(hold_speed, speed_mps=FAST_MPS),
    }
    return {name: plan(scenes, starts, function) for name, function in functions.items()}


TrueFrames = Callable[[HeldOutScene, int, Sequence[Maneuver]], list[Images]]
"""Shows, (T, H, W, 3) each, what the ground truth looks like after frame ``index`` of a scene under manoeuvres."""


def drive_reference(scene: HeldOutScene, frame_index: int, plans: Sequence[Maneuver]) -> list[Images]:
    """Replay a recording in the reference world up to a frame, drive a manoeuvre and show it; for each of them."""
    recorded = scene.scene
    spec = WorldSpec.from_log_name(recorded.log_name)
    world = ReferenceWorld(spec, camera=recorded.camera, rate_hz=recorded.rate_hz)
    shown = []
    for maneuver in plans:
        world.reset()
        for index in range(1, frame_index + 1):
            world.advance(recorded.ego_state(index))
        frames = []
        for state in maneuver.states:
            world.advance(state)
            frames.append(world.render())
        shown.append(np.stack(frames))
    return shown


def true_frames(
    scenes: Sequence[HeldOutScene],
    starts: Sequence[Start],
    plans: dict[str, list[Maneuver]],
    *,
    true_frames_fn: TrueFrames = drive_reference,
) -> dict[str, Images]:
    """Return by name the (B, T, H, W, 3) frames that the ground truth shows for each start's manoeuvres."""
    shown: dict[str, list[Images]] = {name: [] for name in plans}
    with console.progress_bar("reference world under the same manoeuvres", len(starts)) as bar:
        for index, start in enumerate(starts):
            chosen = [maneuvers[index] for maneuvers in plans.values()]
            clips = true_frames_fn(scenes[start.scene_index], start.frame_index, chosen)
            for name, clip in zip(plans, clips, strict=True):
                shown[name].append(clip)
            bar.advance()
    return {name: np.stack(clips) for name, clips in shown.items()}
