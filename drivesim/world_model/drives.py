"""Drives through a driving world model: from a few frames on, one imagined frame for each motion of the car.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera, Scene, front_camera
from drivesim.world_model.long_clips import Clip, check_frames
from drivesim.world_model.places import Places, place_in
from drivesim.world_model.sampler import SamplerConfig
from drivesim.world_model.world_model import WorldModel
from drivesim.world_model.world_state import WorldState


@dataclass(kw_only=True, slots=True)
class DriveStart:
    """Where a drive begins: the frames before it, and what else is known of them."""

    frames: Clip  # (T, H, W, 3); the drive goes on from the last
    twist: FloatArray | None = None  # (T, 2) speed in m/s and yaw rate in rad/s that led into each frame
    camera: Camera | None = None
    places: Places | None = None  # at the last frame


def scene_start(scene: Scene, num_frames: int) -> DriveStart:
    """Return a drive that goes on from the first ``num_frames`` frames of a scene, which may have fewer."""
    count = min(num_frames, len(scene.frames))
    return DriveStart(
        frames=np.stack([scene.frames[t] for t in range(count)]),
        twist=np.stack([scene.speed_mps[:count], scene.yaw_rate_radps[:count]], axis=-1),
        camera=scene.camera,
        places=place_in(scene, count - 1),
    )


def observed(
    model: WorldModel,
    frames: Clip,
    twist_TA: Tensor,
    camera: Camera | None,
    places: Places | None = None,
) -> WorldState:
    """Return what the model knows after frames (T, H, W, 3).

    Args:
        model: the model.
        frames: of the model's size.
        twist_TA: speed in m/s and yaw rate in rad/s that lead into each of them.
        camera: of the frames; the front camera of the reference world if None.
        places: one row: where the car is at the last frame; None where that is not known.

    Raises:
        InputError: no frames, or frames of another size.
    """
    size = model.config.vqgan
    check_frames(frames, (size.height_px, size.width_px))
    camera = camera or front_camera().resized(width_px=size.width_px, height_px=size.height_px)
    frames_1THWC = torch.from_numpy(np.ascontiguousarray(frames)[None])
    return model.observe(frames_1THWC, twist_TA.unsqueeze(0), camera, places=places)


def drive_on(
    model: WorldModel,
    state: WorldState,
    twist_NA: Tensor,
    *,
    seed: int,
    sampler: SamplerConfig | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> tuple[Clip, NDArray[np.int64]]:
    """Return the frames (N, H, W, 3) and tokens (N, S) of one imagined drive.

    Args:
        model: the model.
        state: where the drive begins.
        twist_NA: the motion into each frame.
        seed: of all randomness, drawn where the model is.
        sampler: how tokens are drawn; as the weights say if left out.
        on_frame: told the number of frames so far.
    """
    generator = torch.Generator(state.token_ids_BS.device).manual_seed(seed)
    drawn, token_ids = [], []
    for twist_A in twist_NA:
        imagined = model.imagine(state, twist_A.unsqueeze(0), generator=generator, sampler=sampler)
        state = imagined.state
        drawn.append(imagined.frames_BHWC.squeeze(0).numpy())
        token_ids.append(imagined.token_ids_BS.squeeze(0).cpu().numpy())
        if on_frame is not None:
            on_frame(len(drawn))
    return np.stack(drawn), np.stack(token_ids)
