"""Training of the causal decoder on what the world model itself imagines.

A window of recorded frames is imagined after a few true ones, tokens and pictures, as a rollout would; the pictures
are compared with the recorded ones. Imagined frames that only set the scene may come first; how many is drawn for each
batch. Each judged frame has a gradient of its own; none goes back in time.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from drivesim.scene.types import Camera
from drivesim.tokenizer.vqgan import normalized
from drivesim.training.data import ClipSource, RecordedClips
from drivesim.training.frame_windows import frame_windows
from drivesim.training.open_loop import OpenLoopCheck
from drivesim.training.task import Evaluation
from drivesim.world_model.motion import camera_rays
from drivesim.world_model.world_model import Outlook, WorldModel, WorldState, advanced

ABSOLUTE_WEIGHT = 0.5


@dataclass(kw_only=True, slots=True)
class CausalDecoderTrainingConfig:
    """What causal-decoder training needs besides the loop's own settings."""

    init: str = "drive-tiny"  # the world model whose decoder is trained: a shipped name or a file
    num_true_frames: int = 3
    max_unjudged: int = 0  # imagined frames before the judged ones: drawn from 0 to this
    num_judged: int = 20
    true_token_share: float = 0.2  # of the judged frames, which are drawn from their true tokens
    horizon: int = 24  # steps of the open-loop check during training

    def __post_init__(self) -> None:
        """Refuse windows without anything to judge."""
        if min(self.num_true_frames, self.num_judged, self.horizon, self.max_unjudged + 1) < 1:
            raise ValueError(
                "causal_decoder needs num_true_frames, num_judged, horizon >= 1 and max_unjudged >= 0"
            )
        if not 0 <= self.true_token_share <= 1:
            raise ValueError(
                f"causal_decoder.true_token_share must lie in [0, 1], got {self.true_token_share}"
            )

    @property
    def frames_per_window(self) -> int:
        """Return the frames that a batch holds at most."""
        return self.num_true_frames + self.max_unjudged + self.num_judged


class CausalDecoderModule(nn.Module):
    """The world model with the loss of its causal decoder; nothing else of it learns."""

    def __init__(self, model: WorldModel, config: CausalDecoderTrainingConfig, camera: Camera) -> None:
        """Freeze all but the causal decoder."""
        super().__init__()
        self.config = config
        self.world_model = model.requires_grad_(False)
        model.causal_decoder.requires_grad_(True)
        self.rays = camera_rays(camera)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss``, the mean difference of drawn and recorded pictures over the judged frames."""
        config, model, twist_BTA = self.config, self.world_model, batch["twist"]
        frames_BTHWC = batch["frames"]
        first_judged = frames_BTHWC.shape[1] - config.num_judged
        state = model.begin(frames_BTHWC[:, 0], twist_BTA[:, 0], self.rays.to(twist_BTA.device))
        terms = []
        for t in range(1, frames_BTHWC.shape[1]):
            outlook = model.outlook(state, twist_BTA[:, t])
            if t < config.num_true_frames:
                state = model.shown(state, frames_BTHWC[:, t], outlook)
            elif t < first_judged:
                state = self._imagined(state, outlook)
            else:
                state, difference = self._judged(state, outlook, frames_BTHWC[:, t], batch["is_given"][:, t])
                terms.append(difference)
        return {"loss": torch.stack(terms).mean()}

    @torch.no_grad()
    def _imagined(self, state: WorldState, outlook: Outlook) -> WorldState:
        sampled, memory = self.world_model.complete(state, outlook)
        pictures_BCHW = self.world_model.draw(sampled.token_ids_BS, outlook)
        return advanced(state, outlook, memory, sampled.token_ids_BS, pictures_BCHW)

    def _judged(
        self, state: WorldState, outlook: Outlook, frames_BHWC: Tensor, is_given_B: Tensor
    ) -> tuple[WorldState, Tensor]:
        """Return the next state and the difference, with its gradient, of the picture in it."""
        model, target_BCHW = self.world_model, normalized(frames_BHWC)
        with torch.no_grad():
            sampled, memory = model.complete(state, outlook)
            true_ids_BS = model.tokenizer.encode(target_BCHW)
            token_ids_BS = torch.where(is_given_B.unsqueeze(-1), true_ids_BS, sampled.token_ids_BS)
            tokenized_BCHW = model.tokenizer.decode(token_ids_BS)
        drawn_BCHW = model.causal_decoder(tokenized_BCHW, outlook.expected)
        difference = drawn_BCHW - target_BCHW
        loss = (ABSOLUTE_WEIGHT * difference.abs() + difference.square()).mean()
        pictures_BCHW = drawn_BCHW.detach().clamp(-1, 1)
        return advanced(state, outlook, memory, token_ids_BS, pictures_BCHW), loss


class CausalDecoderTask:
    """Random windows of recorded clips, imagined from their third frame on."""

    name = "causal-decoder"

    def __init__(
        self,
        config: CausalDecoderTrainingConfig,
        train: ClipSource,
        validation: RecordedClips,
        world_model: WorldModel,
        camera: Camera,
    ) -> None:
        """Train the causal decoder of ``world_model``, in float32."""
        self.config, self.train = config, train
        self.model: nn.Module = CausalDecoderModule(world_model, config, camera)
        self.check = OpenLoopCheck(
            validation, camera, num_context_frames=world_model.num_context_frames, horizon=config.horizon
        )

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[dict[str, Tensor]]:
        """Yield windows of a drawn length; batch ``i`` depends on seed and step alone."""
        config = self.config
        windows = frame_windows(
            self.train,
            config.frames_per_window,
            start_step=start_step,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        for step, batch in enumerate(windows, start=start_step):
            rng = np.random.default_rng([seed, step, rank, world_size, 1])
            num_frames = config.frames_per_window - int(rng.integers(config.max_unjudged + 1))
            batch = {name: value[:, :num_frames] for name, value in batch.items()}
            is_given = rng.random((batch_size, num_frames)) < config.true_token_share
            batch["is_given"] = torch.from_numpy(is_given)
            yield batch

    def losses(
        self, model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the named loss terms of one batch."""
        del generator  # what is drawn comes with the batch
        terms: dict[str, Tensor] = model(batch)
        return terms

    def num_frames(self, batch: dict[str, Tensor]) -> int:
        """Return the frames in a batch."""
        return batch["frames"].shape[0] * batch["frames"].shape[1]

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        """Imagine the validation clips open loop."""
        assert isinstance(model, CausalDecoderModule)
        return self.check.evaluate(model.world_model)
