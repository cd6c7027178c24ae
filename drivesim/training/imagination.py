"""Training of a world model on what it imagines itself, for as long as a rollout goes on.

A world model that only ever saw the truth does not know its own mistakes, and they pile up. Here rollouts go on from
one training step to the next. At first the recording says what every frame should have looked like. Later it says
less and less, since what has come into view by then could not be known: a picture that is right on average over all
that might have come is fog. What is left of it is light and colours, and a discriminator that says whether this looks
like a road. Half of the rollouts begin with spoiled frames, so that the model learns to mend what has faded while the
recording can still say how. Gradients stay within a frame; the tokenizer does not learn.

Letters: see ``drivesim/world_model/__init__.py``; here `H W` also count the cells of a road view.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from drivesim.scene.types import Camera
from drivesim.tokenizer.losses import PatchDiscriminator
from drivesim.tokenizer.vqgan import normalized
from drivesim.training.data import ClipSource, RecordedClips
from drivesim.training.motion_field import warp_loss
from drivesim.training.open_loop import OpenLoopCheck
from drivesim.training.realism import adversarial_terms, discriminator_on_roads, spoiled
from drivesim.training.rollout_store import RolloutStore
from drivesim.training.running_rollouts import RolloutConfig, rollout_batches
from drivesim.training.task import Evaluation
from drivesim.world_model.motion import camera_rays
from drivesim.world_model.road_view import unpacked_view
from drivesim.world_model.sampler import draw_tokens
from drivesim.world_model.stpt import FrameMemory
from drivesim.world_model.world_model import Outlook, WorldModel, WorldState, advanced

ABSOLUTE_WEIGHT = 0.5
COARSE_PX = 16  # light and colours: averages over so many pixels
LEAST_TOKEN_SHARE = 0.2  # of the tokens' weight, late in a rollout


@dataclass(kw_only=True, slots=True)
class ImaginationTrainingConfig:
    """What training on imagined frames needs besides the loop's own settings."""

    init: str = "drive-tiny"  # the world model that goes on learning: a shipped name or a file
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    spoiled_share: float = 0.5  # of the rollouts, which begin with frames that must be mended
    full_depth: int = 12  # imagined frames of which the recording says every detail; of twice as many, none
    token_weight: float = 0.02
    warp_weight: float = 0.3
    early_realism: float = 0.1  # size of the discriminator's gradient over the recording's, at the start
    late_realism: float = 0.7  # the same from twice the full depth on; 0 for both: no discriminator
    discriminator_channels: int = 32
    horizon: int = 24  # steps of the open-loop check during training

    def __post_init__(self) -> None:
        """Refuse negative weights."""
        weights = (self.token_weight, self.warp_weight, self.early_realism, self.late_realism)
        if min(weights) < 0 or min(self.horizon, self.full_depth) < 1:
            raise ValueError(
                f"imagination needs weights >= 0, horizon and full_depth >= 1, got weights {weights}, "
                f"horizon {self.horizon} and full_depth {self.full_depth}"
            )
        if not 0 <= self.spoiled_share <= 1:
            raise ValueError(f"imagination.spoiled_share must lie in [0, 1], got {self.spoiled_share}")

    def detail_weight(self, depth: int) -> float:
        """Return what the details of the recording count for after ``depth`` imagined frames, in [0, 1]."""
        return 1.0 - min(max(depth - self.full_depth, 0) / self.full_depth, 1.0)

    def realism_weight(self, depth: int) -> float:
        """Return the size of the discriminator's gradient over that of the recording in every detail."""
        late = min(depth / (2 * self.full_depth), 1.0)
        return self.early_realism + late * (self.late_realism - self.early_realism)


class ImaginationModule(nn.Module):
    """The world model with its running rollouts, the discriminator, and the loss of a few more frames."""

    def __init__(
        self, model: WorldModel, config: ImaginationTrainingConfig, camera: Camera, *, batch_size: int
    ) -> None:
        """Freeze the tokenizer; all other parts learn."""
        super().__init__()
        self.config = config
        self.world_model = model.requires_grad_(True)
        model.tokenizer.requires_grad_(False)
        self.rollouts = RolloutStore(model, num_groups=config.rollouts.num_groups, batch_size=batch_size)
        self.discriminator: PatchDiscriminator | None = None
        if max(config.early_realism, config.late_realism) > 0:
            self.discriminator = discriminator_on_roads(config.discriminator_channels)
        self.rays = camera_rays(camera)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take one group's rollouts further and return the terms of the loss, means over the new frames."""
        config, frames_BTHWC, twist_BTA = self.config.rollouts, batch["frames"], batch["twist"]
        group, depth, road_BTHW = int(batch["group"]), int(batch["depth"]), batch["road"]
        first = config.num_true_frames if depth == 0 else 0
        if depth == 0:
            state = self._begun(frames_BTHWC[:, :first], twist_BTA, road_BTHW)
        else:
            rays = self.rays.to(twist_BTA.device)
            state = self.rollouts.read(group, rays, num_frames=config.num_true_frames + depth)
        steps = []
        for t in range(first, frames_BTHWC.shape[1]):
            now = depth + t - first
            outlook = self._outlook(state, twist_BTA[:, t], road_BTHW[:, t], now)
            state, terms = self._imagined(state, outlook, normalized(frames_BTHWC[:, t]), now)
            steps.append(terms)
        self.rollouts.write(group, state)
        return {name: torch.stack([terms[name] for terms in steps]).mean() for name in steps[0]}

    @torch.no_grad()
    def _begun(self, frames_BTHWC: Tensor, twist_BTA: Tensor, road_BTHW: Tensor) -> WorldState:
        model = self.world_model
        frames_BTHWC = spoiled(frames_BTHWC, self.config.spoiled_share)
        state = model.begin(frames_BTHWC[:, 0], twist_BTA[:, 0], self.rays.to(twist_BTA.device))
        for t in range(1, frames_BTHWC.shape[1]):
            outlook = model.outlook(state, twist_BTA[:, t], road_B2HW=unpacked_view(road_BTHW[:, t]))
            state = model.shown(state, frames_BTHWC[:, t], outlook)
        return state

    def _outlook(self, state: WorldState, twist_BA: Tensor, road_BHW: Tensor, depth: int) -> Outlook:
        """Return the outlook; the motion field learns while the recording says every detail."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.detail_weight(depth) == 1):
            expected = self.world_model.expect(state, twist_BA)
        road_B2HW = unpacked_view(road_BHW)
        return self.world_model.outlook(state, twist_BA, road_B2HW=road_B2HW, expected=expected)

    def _imagined(
        self, state: WorldState, outlook: Outlook, target_BCHW: Tensor, depth: int
    ) -> tuple[WorldState, dict[str, Tensor]]:
        """Return the state after one more frame, and its terms with their gradients."""
        model, config = self.world_model, self.config
        logits_BSK, memory = self._logits(state, outlook)
        with torch.no_grad():
            true_ids_BS = model.tokenizer.encode(target_BCHW)
            token_ids_BS = draw_tokens(logits_BSK.detach(), model.config.sampler.temperature, None)
            tokenized_BCHW = model.tokenizer.decode(token_ids_BS)
        drawn_BCHW = model.causal_decoder(tokenized_BCHW, outlook.expected, outlook.road_B2HW)
        terms = {
            "tokens": functional.cross_entropy(logits_BSK.flatten(0, 1), true_ids_BS.flatten()),
            "details": _distance(drawn_BCHW, target_BCHW),
            "colors": _distance(
                functional.avg_pool2d(drawn_BCHW, COARSE_PX), functional.avg_pool2d(target_BCHW, COARSE_PX)
            ),
        }
        detail = config.detail_weight(depth)
        token_weight = max(detail, LEAST_TOKEN_SHARE) * config.token_weight
        loss = detail * terms["details"] + terms["colors"] + token_weight * terms["tokens"]
        if detail == 1:
            loss = loss + config.warp_weight * warp_loss(outlook.expected, target_BCHW)
        if self.discriminator is not None:
            norm = config.realism_weight(depth) * _gradient_norm(drawn_BCHW.detach() - target_BCHW)
            terms["discriminator"], realism = adversarial_terms(
                self.discriminator, target_BCHW, drawn_BCHW, outlook.road_B2HW, norm
            )
            loss = loss + terms["discriminator"] + realism
        pictures_BCHW = drawn_BCHW.detach().clamp(-1, 1)
        terms = {"loss": loss} | {name: value.detach() for name, value in terms.items()}
        return advanced(state, outlook, memory, token_ids_BS, pictures_BCHW), terms

    def _logits(self, state: WorldState, outlook: Outlook) -> tuple[Tensor, list[FrameMemory]]:
        """Return the logits of the next frame, all hidden, and the memory, of which no gradient is kept."""
        model = self.world_model
        prompt_BLC = model.action_encoder(outlook.twist_BA.unsqueeze(1)).squeeze(1)
        features_BSC, memory = model.stpt.hidden_frame(
            state.token_ids_BS,
            torch.stack([state.prompt_BLC.to(prompt_BLC.dtype), prompt_BLC]),
            torch.stack([state.guide_BSG, outlook.guide_BSG]),
            state.memory,
        )
        detached = [
            replace(
                layer,
                low_FWRS=layer.low_FWRS.detach(),
                keys=layer.keys.detach(),
                values=layer.values.detach(),
            )
            for layer in memory
        ]
        return model.stpt.head(features_BSC, outlook.guide_BSG).float(), detached


def _distance(pictures_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    difference_BCHW = pictures_BCHW - target_BCHW
    return (ABSOLUTE_WEIGHT * difference_BCHW.abs() + difference_BCHW.square()).mean()


def _gradient_norm(difference_BCHW: Tensor) -> Tensor:
    """Return the norm of the gradient of :func:`_distance` with respect to the pictures."""
    gradient_BCHW = ABSOLUTE_WEIGHT * difference_BCHW.sign() + 2 * difference_BCHW
    return gradient_BCHW.norm() / difference_BCHW.numel()


class ImaginationTask:
    """Rollouts that go on from one training step to the next."""

    name = "imagination"

    def __init__(
        self,
        config: ImaginationTrainingConfig,
        train: ClipSource,
        validation: RecordedClips,
        world_model: WorldModel,
        camera: Camera,
        *,
        batch_size: int,
    ) -> None:
        """Train all of ``world_model`` but its tokenizer, in float32."""
        self.config, self.train = config, train
        self.model: nn.Module = ImaginationModule(world_model, config, camera, batch_size=batch_size)
        self.check = OpenLoopCheck(
            validation, camera, num_context_frames=world_model.num_context_frames, horizon=config.horizon
        )

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[dict[str, Tensor]]:
        """Yield the frames that a group of rollouts is about to imagine; they depend on seed and step alone."""
        return rollout_batches(
            self.train,
            self.config.rollouts,
            start_step=start_step,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )

    def losses(
        self, model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the named loss terms of one batch."""
        del generator  # tokens are drawn with torch's own, which is seeded for the batch
        terms: dict[str, Tensor] = model(batch)
        return terms

    def num_frames(self, batch: dict[str, Tensor]) -> int:
        """Return the frames in a batch."""
        return batch["frames"].shape[0] * batch["frames"].shape[1]

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        """Imagine the validation clips open loop."""
        assert isinstance(model, ImaginationModule)
        return self.check.evaluate(model.world_model)
