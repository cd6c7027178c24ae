"""The model's part of an env step, for any batch and any sizes: from the action to the uint8 picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from drivesim.scene.agents import moving
from drivesim.scene.road_map import ground_of, road_map
from drivesim.scene.types import Agents, Camera, DrivableArea, PaintedLine
from drivesim.world_model.places import Places
from drivesim.world_model.sampler import SamplerConfig
from drivesim.world_model.world_model import WorldModel, WorldModelConfig

TWIST = (8.0, 0.05)  # speed in m/s and yaw rate in rad/s that every car drives with


def imagined_step(
    model: WorldModel,
    camera: Camera,
    *,
    batch_size: int,
    sampler: SamplerConfig | None = None,
    inference_mode: bool = True,
) -> Callable[[], None]:
    """Return a call that imagines one step further for a batch of cars.

    The past fills the window: a younger car costs a little more, as frames that are not there must be hidden.
    Operations can be counted one by one only without ``inference_mode``.
    """
    size = (model.config.vqgan.height_px, model.config.vqgan.width_px)
    num_frames = model.config.stpt.window + 1
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (1, num_frames, *size, 3), dtype=torch.uint8, generator=generator)
    twist_BTA = torch.tensor(TWIST).expand(batch_size, num_frames, 2)
    camera = camera.resized(width_px=size[1], height_px=size[0])
    with torch.inference_mode(inference_mode):
        history = frames.expand(batch_size, *frames.shape[1:])
        state = model.observe(history, twist_BTA, camera, places=on_a_plain(batch_size, camera))

    def step() -> None:
        nonlocal state
        with torch.inference_mode(inference_mode):
            state = model.imagine(state, twist_BTA[:, 0], sampler=sampler).state

    return step


def on_a_plain(batch_size: int, camera: Camera) -> Places:
    """Return cars behind three others on a road with a line; a map costs the same whatever it shows."""
    line = PaintedLine(xy_m=np.array([[0.0, 250.0], [500.0, 250.0]]), width_m=0.15)
    area = DrivableArea(
        mask=np.ones((1000, 1000), bool), resolution_m=0.5, origin_xy_m=np.zeros(2), lines=(line,)
    )
    pose = np.tile([250.0, 250.0, 0.0], (batch_size, 1))
    others = Agents(
        xy_m=np.array([[265.0, 250.0], [290.0, 253.5], [300.0, 246.5]]),
        yaw_rad=np.array([0.0, np.pi, 0.0]),
        speed_mps=np.array([8.0, 8.0, 8.0]),
        size_m=np.tile([4.3, 1.8, 1.5], (3, 1)),
    )
    agents = (moving(others, line.xy_m),) * batch_size
    return Places.begin((road_map(area),) * batch_size, ground_of(camera), pose, agents)


def random_model(config: WorldModelConfig, dtype: torch.dtype) -> WorldModel:
    """Return a model of other sizes; what it costs does not depend on its weights."""
    return WorldModel(config).to(dtype).eval().requires_grad_(False)


def with_window(config: WorldModelConfig, window: int) -> WorldModelConfig:
    """Return the configuration with another attention window."""
    return replace(config, stpt=replace(config.stpt, window=window))


def with_size(config: WorldModelConfig, size_px: tuple[int, int]) -> WorldModelConfig:
    """Return the configuration with pictures of another height and width."""
    return replace(config, vqgan=replace(config.vqgan, height_px=size_px[0], width_px=size_px[1]))
