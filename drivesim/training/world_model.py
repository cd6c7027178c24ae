"""Training of the driving world model on cached tokens.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from drivesim.scene.road_map import UNKNOWN
from drivesim.scene.types import Camera
from drivesim.tokenizer.vqgan import VQGAN
from drivesim.training.data import RecordedClips
from drivesim.training.open_loop import OpenLoopCheck
from drivesim.training.row_draws import RowDraws, rows_of
from drivesim.training.task import WEIGHT, Evaluation
from drivesim.training.token_clips import TokenSource, stack
from drivesim.world_model.conditioning import guide_features
from drivesim.world_model.masking import MaskKind, draw_mask
from drivesim.world_model.places import unpacked_view
from drivesim.world_model.world_model import WorldModel, WorldModelConfig

UNJUDGED = -100  # target of tokens that are not part of the loss


@dataclass(kw_only=True, slots=True)
class WorldModelTrainingConfig:
    """What world-model training needs besides the loop's own settings."""

    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    init: str = (
        "drive-tiny"  # weights to begin with: a tokenizer, or a world model to go on with (name or file)
    )
    mask: MaskKind = MaskKind.NEXT_FRAME
    frames_per_clip: int = 36  # of each recorded clip, how many are tokenized
    frames_per_window: int = 12
    no_map_share: float = 0.15  # of the windows, in which nothing is known of the road
    no_markings_share: float = 0.15  # of the windows, in which nothing is known of what is painted on it
    no_agents_share: float = 0.15  # of the windows, in which nothing is known of other cars
    context_noise: float = 0.1  # tokens of the past replaced at random: the rate is uniform in [0, this]
    horizon: int = 6  # steps of the open-loop check during training

    def __post_init__(self) -> None:
        """Refuse windows without a past."""
        if self.frames_per_window < 2 or not 0 <= self.context_noise < 1 or self.horizon < 1:
            raise ValueError("frames_per_window must be >= 2, context_noise in [0, 1) and horizon >= 1")
        for name in ("no_map_share", "no_markings_share", "no_agents_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"world_model.{name} must lie in [0, 1], got {getattr(self, name)}")
        if not self.model.stpt.is_frame_causal:
            raise ValueError(
                "driving worlds are trained frame by frame: leave model.stpt.is_frame_causal=true"
            )
        if self.frames_per_window > self.frames_per_clip:
            raise ValueError(
                f"frames_per_window={self.frames_per_window} exceeds frames_per_clip={self.frames_per_clip}"
            )


class WorldModelModule(nn.Module):
    """The world model with its training loss: a batch of token windows in, loss terms out.

    The transformer and the action encoder learn; tokenizer, motion field and causal decoder are frozen.
    """

    def __init__(self, model: WorldModel) -> None:
        """Freeze all of ``model`` but what learns here."""
        super().__init__()
        self.world_model = model.requires_grad_(False)
        for part in (model.stpt, model.action_encoder):
            part.requires_grad_(True)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` (cross-entropy of the hidden tokens, nats), ``accuracy`` and how many tokens are judged."""
        model = self.world_model
        guide_BTSG = batch_guide(
            model.tokenizer, batch["expected"], batch["motion"], batch["road"], batch["look"]
        )
        prompt_BTLC = model.action_encoder(batch["twist"])
        is_masked_BTS, target_BTS = batch["is_masked"], batch["token_ids"].long()
        features_BTSC = model.stpt.hidden_stream(
            batch["context_ids"].long(), target_BTS, is_masked_BTS, prompt_BTLC, guide_BTSG=guide_BTSG
        )
        # The first frame has no past to be predicted from. Shapes stay fixed: every new one costs a CPU kernel.
        logits_BTSK = model.stpt.head(features_BTSC[:, 1:], guide_BTSG[:, 1:]).float()
        targets_BTS = target_BTS[:, 1:].masked_fill(~is_masked_BTS[:, 1:], UNJUDGED)
        loss = functional.cross_entropy(
            logits_BTSK.flatten(0, 2), targets_BTS.flatten(), ignore_index=UNJUDGED
        )
        is_judged_BTS = targets_BTS != UNJUDGED
        is_right_BTS = (logits_BTSK.detach().argmax(-1) == targets_BTS)[is_judged_BTS]
        return {"loss": loss, "accuracy": is_right_BTS.float().mean(), WEIGHT: is_judged_BTS.sum()}


def batch_guide(
    tokenizer: VQGAN,
    expected_BTSQ: Tensor,
    motion_BTS3: Tensor,
    packed_road_BTEHW: Tensor,
    look_BTU: Tensor,
) -> Tensor:
    """Return the guide (B, T, S, G) of a window; its first frame has none, as in :meth:`WorldModel.observe`."""
    batch = expected_BTSQ.shape[0]
    flat = guide_features(
        tokenizer,
        rearrange(expected_BTSQ.float(), "b t s q -> (b t) s q"),
        rearrange(motion_BTS3.float(), "b t s m -> (b t) s m"),
        unpacked_view(rearrange(packed_road_BTEHW, "b t e h w -> (b t) e h w")),
        look_BTU.float().flatten(0, 1),
    )
    guide_BTSG = rearrange(flat, "(b t) s g -> b t s g", b=batch).clone()
    guide_BTSG[:, 0] = 0
    return guide_BTSG


class WorldModelTask:
    """Random windows of cached clips; every frame of a window is predicted from its past at once."""

    name = "world-model"

    def __init__(
        self,
        config: WorldModelTrainingConfig,
        tokens: TokenSource,
        validation: RecordedClips,
        world_model: WorldModel,
        camera: Camera,
    ) -> None:
        """Train the transformer of ``world_model``, in float32."""
        self.config, self.tokens = config, tokens
        self.codebook_size = world_model.tokenizer.codebook_size
        self.model: nn.Module = WorldModelModule(world_model)
        self.check = OpenLoopCheck(
            validation, camera, num_context_frames=world_model.num_context_frames, horizon=config.horizon
        )

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[dict[str, Tensor]]:
        """Yield token windows (B, T, ...); a row depends on the seed and its number alone."""
        config = self.config
        held = self.tokens.per_step(start_step=start_step, seed=seed, rank=rank, world_size=world_size)
        for step, cache in enumerate(held, start=start_step):
            draws = RowDraws(seed, rows_of(step, batch_size, rank=rank, world_size=world_size))
            clips = draws.whole(len(cache)).tolist()
            starts = draws.whole(cache.frames_per_clip - config.frames_per_window + 1).tolist()
            windows = zip(clips, starts, strict=True)
            batch = stack([cache.window(i, t, config.frames_per_window) for i, t in windows])
            shape = batch["token_ids"].shape
            batch["is_masked"] = draw_mask(config.mask, shape[0], shape[1], shape[2], draws.uniform)
            rate = draws.uniform((batch_size, 1, 1)) * config.context_noise
            is_noise = draws.uniform(shape) < rate
            noise = draws.whole(self.codebook_size, shape, dtype=torch.int32)
            batch["context_ids"] = torch.where(is_noise, noise, batch["context_ids"])
            has_no_map = draws.uniform((batch_size, 1, 1, 1)) < config.no_map_share
            has_no_markings = draws.uniform((batch_size, 1, 1, 1)) < config.no_markings_share
            has_no_agents = draws.uniform((batch_size, 1, 1, 1)) < config.no_agents_share
            unknown = (has_no_map, has_no_map | has_no_markings, has_no_agents)
            layers = zip(batch["road"].unbind(2), unknown, strict=True)
            batch["road"] = torch.stack([layer.masked_fill(gone, UNKNOWN) for layer, gone in layers], dim=2)
            yield batch

    def losses(self, model: nn.Module, batch: dict[str, Tensor], draws: RowDraws) -> dict[str, Tensor]:
        """Return the named loss terms of one batch."""
        del draws  # the masks come with the batch
        terms: dict[str, Tensor] = model(batch)
        return terms

    def num_frames(self, batch: dict[str, Tensor]) -> int:
        """Return the frames in a batch."""
        return batch["token_ids"].shape[0] * batch["token_ids"].shape[1]

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        """Imagine the validation clips open loop."""
        assert isinstance(model, WorldModelModule)
        return self.check.evaluate(model.world_model)
