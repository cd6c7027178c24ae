"""Training of the motion field: the warped frame must look like the frame that came.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from drivesim.metrics.image import psnr
from drivesim.scene.types import Camera
from drivesim.tokenizer.vqgan import normalized, to_uint8
from drivesim.training.data import ClipSource, RecordedClips
from drivesim.training.frame_windows import frame_windows
from drivesim.training.picture_loss import picture_distance
from drivesim.training.row_draws import RowDraws, rows_of
from drivesim.training.task import Evaluation
from drivesim.world_model.motion import camera_rays
from drivesim.world_model.motion_field import DISPLACEMENT_SCALE_PX, Expected
from drivesim.world_model.pretrained import fast_dtype
from drivesim.world_model.world_model import WorldModel

NUM_FRAMES = 3  # two that are seen, and the one to come
DISPLACEMENT_WEIGHT = 2e-4


@dataclass(kw_only=True, slots=True)
class MotionFieldTrainingConfig:
    """What motion-field training needs besides the loop's own settings."""

    init: str = (
        "drive-tiny"  # weights to begin with: a tokenizer, or a world model to go on with (name or file)
    )
    tokenized_share: float = 0.5  # of the samples, whose seen frames went through the tokenizer

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if not 0 <= self.tokenized_share <= 1:
            raise ValueError(f"motion_field.tokenized_share must lie in [0, 1], got {self.tokenized_share}")


class MotionFieldModule(nn.Module):
    """The world model with the loss of its motion field; nothing else of it learns."""

    def __init__(self, model: WorldModel, camera: Camera) -> None:
        """Freeze all but the motion field."""
        super().__init__()
        self.world_model = model.requires_grad_(False)
        model.motion_field.requires_grad_(True)
        self.rays = camera_rays(camera)

    def expected(self, frames_BTCHW: Tensor, twist_BTA: Tensor) -> Expected:
        """Return what is expected of the last of three frames (B, 3, 3, H, W) in [-1, 1]."""
        model = self.world_model
        expected: Expected = model.motion_field(
            frames_BTCHW[:, 1],
            frames_BTCHW[:, 0],
            self.rays.to(frames_BTCHW.device),
            twist_BTA[:, 2],
            twist_BTA[:, 1],
            1.0 / model.rate_hz,
        )
        return expected

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss terms: difference of the pictures where something was seen, and displacement."""
        frames_BTCHW = torch.stack([normalized(frame) for frame in batch["frames"].unbind(1)], dim=1)
        target_BCHW = frames_BTCHW[:, 2]
        with torch.no_grad():
            seen = torch.stack(
                [self.world_model.tokenizer.reconstruct(frames_BTCHW[:, k]) for k in (0, 1)], dim=1
            )
        is_tokenized = batch["is_tokenized"].view(-1, 1, 1, 1, 1)
        frames_BTCHW = torch.cat(
            [torch.where(is_tokenized, seen.float(), frames_BTCHW[:, :2]), frames_BTCHW[:, 2:]], dim=1
        )
        expected = self.expected(frames_BTCHW, batch["twist"])
        compensated = expected.compensated
        distance_BHW = picture_distance(compensated.frames_BCHW, target_BCHW)
        picture = (distance_BHW * compensated.is_seen_BHW).mean()
        displacement = (expected.displacement_B2HW / DISPLACEMENT_SCALE_PX).square().mean()
        loss = picture + DISPLACEMENT_WEIGHT * DISPLACEMENT_SCALE_PX**2 * displacement
        return {"loss": loss, "picture": picture.detach(), "displacement": displacement.detach()}


class MotionFieldTask:
    """Random triples of neighbouring frames."""

    name = "motion-field"

    def __init__(
        self,
        config: MotionFieldTrainingConfig,
        train: ClipSource,
        validation: RecordedClips,
        world_model: WorldModel,
        camera: Camera,
    ) -> None:
        """Train the motion field of ``world_model``, in float32."""
        self.config, self.train = config, train
        self.model: nn.Module = MotionFieldModule(world_model, camera)
        middle = validation.frames_per_clip // 2
        window = slice(middle - 2, middle + 1)
        self.validation_BTHWC = torch.from_numpy(np.array(validation.frames[:, window]))
        self.validation_twist_BTA = torch.from_numpy(validation.twist[:, window])

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[dict[str, Tensor]]:
        """Yield triples of frames; a row depends on the seed and its number alone."""
        windows = frame_windows(
            self.train,
            NUM_FRAMES,
            start_step=start_step,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        for step, batch in enumerate(windows, start=start_step):
            rows = rows_of(step, batch_size, rank=rank, world_size=world_size)
            draws = RowDraws(seed, rows, purpose="tokenized")
            batch["is_tokenized"] = draws.chance(self.config.tokenized_share)
            yield batch

    def losses(self, model: nn.Module, batch: dict[str, Tensor], draws: RowDraws) -> dict[str, Tensor]:
        """Return the named loss terms of one batch."""
        del draws  # what is drawn comes with the batch
        terms: dict[str, Tensor] = model(batch)
        return terms

    def num_frames(self, batch: dict[str, Tensor]) -> int:
        """Return the frames in a batch that are predicted."""
        return batch["frames"].shape[0]

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        """Return the PSNR gain of the expected frame over the last, from true frames, and a picture."""
        assert isinstance(model, MotionFieldModule)
        device = next(model.parameters()).device
        frames_BTCHW = torch.stack([normalized(f) for f in self.validation_BTHWC.unbind(1)], dim=1)
        dtype = fast_dtype(device.type)
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            expected = model.expected(frames_BTCHW.to(device), self.validation_twist_BTA.to(device))
        shown_BHWC = to_uint8(expected.compensated.frames_BCHW).cpu()
        last_BHWC, true_BHWC = self.validation_BTHWC[:, 1], self.validation_BTHWC[:, 2]
        is_moving_B = self.validation_twist_BTA[:, 2, 0].numpy() > 1.0
        gain_B = psnr(shown_BHWC.numpy(), true_BHWC.numpy()) - psnr(last_BHWC.numpy(), true_BHWC.numpy())
        gain_db = float(gain_B[is_moving_B].mean()) if is_moving_B.any() else 0.0
        rows = [torch.cat(list(frames[:6]), dim=1) for frames in (last_BHWC, true_BHWC, shown_BHWC)]
        return Evaluation(metrics={"gain_db_at_1": gain_db}, picture=torch.cat(rows).numpy())
