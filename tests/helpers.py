"""Scenes and worlds made by hand, so that tests need no data, no weights and no simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import torch

from drivesim import dynamics
from drivesim.dynamics import VehicleConfig
from drivesim.scene.types import Camera, Control, DrivableArea, EgoState, Scene, front_camera
from drivesim.world_model.places import Places
from drivesim.world_model.sampler import SamplerConfig

RATE_HZ = 6.0
DT_S = 1.0 / RATE_HZ


def driven_states(num_frames: int, *, speed_mps: float = 8.0, steering_rad: float = 0.0) -> list[EgoState]:
    """Drive the bicycle from (50, 50) heading along x: half of it straight, then with the steering."""
    states = [EgoState(x_m=50.0, y_m=50.0, yaw_rad=0.0, speed_mps=speed_mps)]
    for index in range(1, num_frames):
        steering = steering_rad if index >= num_frames // 2 else 0.0
        accel = 0.8 * np.sin(0.3 * index)
        control = Control(steering_rad=steering, accel_mps2=float(accel))
        states.append(dynamics.step(states[-1], control, VehicleConfig(), DT_S))
    return states


def make_scene(
    num_frames: int = 24,
    *,
    steering_rad: float = 0.05,
    speed_mps: float = 8.0,
    half_width_m: float = 5.0,
    camera: Camera | None = None,
) -> Scene:
    """Return a scene of a straight, then bending road; its pictures are random but fixed."""
    camera = camera or front_camera()
    states = driven_states(num_frames, speed_mps=speed_mps, steering_rad=steering_rad)
    xy_m = np.array([(state.x_m, state.y_m) for state in states])
    rng = np.random.default_rng(7)
    speed = np.array([speed_mps] + [0.5 * (a.speed_mps + b.speed_mps) for a, b in pairwise(states)])
    scene = Scene(
        name="made-by-hand",
        place="nowhere",
        caption="a road on paper",
        log_name="paper-1",
        rate_hz=RATE_HZ,
        timestamps_s=np.arange(num_frames) * DT_S,
        frames=list(rng.integers(0, 255, (num_frames, camera.height_px, camera.width_px, 3), dtype=np.uint8)),
        camera=camera,
        xy_m=xy_m,
        yaw_rad=np.array([state.yaw_rad for state in states]),
        speed_mps=speed,
        yaw_rate_radps=np.array([state.yaw_rate_radps for state in states]),
        steering_rad=np.array([state.steering_rad for state in states]),
        motion_source="can",
        route_xy_m=xy_m,
        drivable=drivable_along(xy_m, half_width_m=half_width_m),
    )
    scene.validate()
    return scene


def drivable_along(xy_m: np.ndarray, *, half_width_m: float, resolution_m: float = 0.5) -> DrivableArea:
    """Return the area within ``half_width_m`` of a (T, 2) path."""
    low, high = xy_m.min(axis=0) - 20.0, xy_m.max(axis=0) + 20.0
    columns, rows = np.ceil((high - low) / resolution_m).astype(int)
    x = low[0] + (np.arange(columns) + 0.5) * resolution_m
    y = low[1] + (rows - 1 - np.arange(rows) + 0.5) * resolution_m
    cells = np.stack(np.meshgrid(x, y), axis=-1)
    gap = np.linalg.norm(cells[:, :, None] - xy_m[None, None], axis=-1).min(axis=-1)
    return DrivableArea(mask=gap <= half_width_m, resolution_m=resolution_m, origin_xy_m=low)


@dataclass(frozen=True)
class FakeState:
    """What the fake world model remembers: the last picture and how long it has been imagining."""

    frame_BHWC: torch.Tensor
    num_imagined: int


@dataclass(frozen=True)
class FakeImagined:
    """What the fake world model imagines."""

    state: FakeState
    frames_BHWC: torch.Tensor
    token_ids_BS: torch.Tensor
    confidence_B: torch.Tensor


class FakeWorldModel:
    """A world model by pixel shifting: turning left moves the picture right; one row is drawn at random."""

    def __init__(self, *, rate_hz: float = RATE_HZ, num_context_frames: int = 4) -> None:
        self.rate_hz = rate_hz
        self.num_context_frames = num_context_frames
        self.tokenizer = SimpleNamespace(config=SimpleNamespace(width_px=224, height_px=128))
        self.config = SimpleNamespace(sampler=SamplerConfig(num_decode_steps=3))
        self.samplers: list[object] = []
        self.observed_twist: torch.Tensor | None = None
        self.places: Places | None = None
        self.confidence = 0.5
        self.is_best_row_by_row = False
        self.twists: list[torch.Tensor] = []

    def observe(
        self,
        frames_BTHWC: torch.Tensor,
        twist_BTA: torch.Tensor,
        camera: Camera,
        *,
        places: Places | None = None,
    ) -> FakeState:
        assert frames_BTHWC.dtype == torch.uint8
        assert twist_BTA.dtype == torch.float32
        assert frames_BTHWC.shape[:2] == twist_BTA.shape[:2]
        assert twist_BTA.shape[-1] == 2
        assert frames_BTHWC.shape[2:] == (camera.height_px, camera.width_px, 3)
        self.observed_twist, self.places = twist_BTA, places
        return FakeState(frame_BHWC=frames_BTHWC[:, -1], num_imagined=0)

    def imagine(
        self,
        state: FakeState,
        twist_BA: torch.Tensor,
        *,
        generator: Sequence[torch.Generator],
        sampler: object = None,
    ) -> FakeImagined:
        self.twists.append(twist_BA)
        self.samplers.append(sampler)
        rows = []
        for frame, twist, own in zip(state.frame_BHWC, twist_BA, generator, strict=True):
            moved = torch.roll(frame, round(float(twist[1]) * 20), dims=1)
            moved[0] = torch.randint(0, 255, moved[0].shape, generator=own, dtype=torch.uint8)
            rows.append(moved)
        frames = torch.stack(rows)
        return FakeImagined(
            state=replace(state, frame_BHWC=frames, num_imagined=state.num_imagined + 1),
            frames_BHWC=frames,
            token_ids_BS=torch.zeros(len(frames), 112, dtype=torch.int64),
            confidence_B=torch.full((len(frames),), self.confidence),
        )
