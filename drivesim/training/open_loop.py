"""The open-loop check of a world model in training: imagined validation clips beside the recorded ones.

Letters: `B` clips, `T` frames, `H W` pixels, `A` = 2 (speed in m/s, yaw rate in rad/s).
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from drivesim.metrics.image import psnr
from drivesim.scene.geometry import FloatArray
from drivesim.scene.road_map import UNKNOWN
from drivesim.scene.types import Camera
from drivesim.training.data import RecordedClips
from drivesim.training.task import Evaluation
from drivesim.world_model.motion import camera_rays
from drivesim.world_model.places import unpacked_view
from drivesim.world_model.pretrained import fast_dtype
from drivesim.world_model.world_model import WorldModel

MIN_SPEED_MPS = 1.0  # repeating the last frame is exact for a standing car
EXACT_PSNR_DB = 100.0  # where a picture was recorded twice


class OpenLoopCheck:
    """Validation clips that a world model goes on from under their recorded motion."""

    def __init__(
        self, clips: RecordedClips, camera: Camera, *, num_context_frames: int, horizon: int
    ) -> None:
        """Keep as many frames of each clip as are needed."""
        self.rays, self.context = camera_rays(camera), num_context_frames
        num_frames = min(num_context_frames + horizon, clips.frames_per_clip)
        self.frames_BTHWC = torch.from_numpy(np.array(clips.frames[:, :num_frames]))
        self.twist_BTA = torch.from_numpy(clips.twist[:, :num_frames])
        self.road_BTEHW = torch.from_numpy(np.array(clips.road[:, :num_frames]))
        self.road_BTEHW[:, :, 2] = UNKNOWN  # recorded views know where agents will be

    def imagined(self, model: WorldModel) -> Tensor:
        """Return the frames (B, T, H, W, 3) after the context."""
        device = next(model.parameters()).device
        twist_BTA, road_BTEHW, frames = self.twist_BTA.to(device), self.road_BTEHW.to(device), []
        dtype = fast_dtype(device.type)
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            state = model.begin(self.frames_BTHWC[:, 0], twist_BTA[:, 0], self.rays.to(device))
            for t in range(1, self.frames_BTHWC.shape[1]):
                outlook = model.outlook(state, twist_BTA[:, t], road_BVHW=unpacked_view(road_BTEHW[:, t]))
                if t < self.context:
                    state = model.shown(state, self.frames_BTHWC[:, t], outlook)
                    continue
                step = model.imagined(state, outlook)
                state = step.state
                frames.append(step.frames_BHWC)
        return torch.stack(frames, dim=1)

    @property
    def is_moving_B(self) -> NDArray[np.bool_]:
        """Tell in which clips the car moves where the recording ends."""
        return np.asarray(self.twist_BTA[:, self.context, 0].numpy() > MIN_SPEED_MPS)

    def gain_db(self, imagined_BTHWC: Tensor) -> FloatArray:
        """Return the PSNR gain (B, T) of imagined frames over repeating the last frame of the context."""
        true_BTHWC = self.frames_BTHWC[:, self.context :]
        last_BTHWC = self.frames_BTHWC[:, self.context - 1 : self.context].expand_as(true_BTHWC)
        imagined_BT, last_BT = (
            np.minimum(psnr(frames.numpy(), true_BTHWC.numpy()), EXACT_PSNR_DB)
            for frames in (imagined_BTHWC, last_BTHWC)
        )
        gain_BT: FloatArray = imagined_BT - last_BT
        return gain_BT

    def evaluate(self, model: WorldModel) -> Evaluation:
        """Return the PSNR gain over repeating the last frame, per step, and recorded frames above imagined ones."""
        imagined_BTHWC = self.imagined(model)
        true_BTHWC = self.frames_BTHWC[:, self.context :]
        gain_BT, is_moving_B = self.gain_db(imagined_BTHWC), self.is_moving_B
        gain_T = gain_BT[is_moving_B].mean(axis=0) if is_moving_B.any() else np.zeros(gain_BT.shape[1])
        metrics = {f"gain_db_at_{t + 1}": float(gain_T[t]) for t in range(len(gain_T))}
        last = [
            frames[:, -1].float().mean(-1).diff(dim=-1).abs().mean()
            for frames in (imagined_BTHWC, true_BTHWC)
        ]
        metrics["sharpness_ratio_at_end"] = float(last[0] / last[1])
        shown = torch.cat([true_BTHWC[:4], imagined_BTHWC[:4]], dim=1)
        picture = rearrange(shown, "b (k t) h w c -> (b k h) (t w) c", k=2).numpy()
        return Evaluation(metrics=metrics, picture=picture)
