"""Training of a world model on what it imagines itself, for as long as a rollout goes on.

A world model that only ever saw the truth does not know its own mistakes, and they pile up. Here rollouts go on from
one training step to the next, and their tokens are drawn as they will be, not taken for granted. At first the recording
says what every frame should have been. Later what has come into view could not be known, and a picture that is right on
average over all that might have come is fog. So the transformer is then asked no more, but for the road, whose shape
and markings the map tells, for other cars, whose places are told too, and for the look of the frame as a whole
(``training.token_look``). The causal decoder is then judged by the picture that it makes of the TRUE tokens: it learns
to believe its tokens where the past does not fit them; and by whether the picture of its own tokens is as sharp as they
are. Some rollouts begin with faded frames, so that the model learns to mend them while the recording can still say how.
Gradients stay within a frame; motion field and encoder do not learn, the tokenizer's decoder only where asked for.

Letters: see ``drivesim/world_model/__init__.py``; here `H W` also count the cells of a road view.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from drivesim.errors import InputError
from drivesim.scene.types import Camera
from drivesim.tokenizer.vqgan import normalized
from drivesim.training.data import ClipSource, RecordedClips
from drivesim.training.fading import faded
from drivesim.training.open_loop import OpenLoopCheck
from drivesim.training.picture_loss import edge_distance, picture_distance
from drivesim.training.rollout_store import RolloutStore
from drivesim.training.row_draws import RowDraws
from drivesim.training.running_rollouts import RolloutConfig, rollout_batches
from drivesim.training.task import Evaluation
from drivesim.training.token_look import CodeLooks, token_look
from drivesim.world_model.conditioning import picture_look
from drivesim.world_model.motion import camera_rays
from drivesim.world_model.places import shows_agents, shows_road, unpacked_view
from drivesim.world_model.sampler import draw_tokens
from drivesim.world_model.stpt import FrameMemory
from drivesim.world_model.world_model import Outlook, WorldModel, advanced
from drivesim.world_model.world_state import WorldState


@dataclass(kw_only=True, slots=True)
class ImaginationTrainingConfig:
    """What training on imagined frames needs besides the loop's own settings."""

    init: str = "drive-tiny"  # the world model that goes on learning: a shipped name or a file
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    training_temperature: float = 0.8  # at which tokens are drawn here, by new noise in each frame
    temperature: float = 0.6  # of the weights in use: chosen on validation roads, as are the next two
    temperature_rise: int = 24  # frames over which they reach it
    noise_memory: float = 0.99  # of the noise that they draw by; training on such noise made it worse
    full_depth: int = 12  # imagined frames that the recording can judge; after twice as many it cannot
    road_trust: float = (
        1.0  # of the recording at any depth where road or agents are shown: what is there is known
    )
    faded_share: float = 0.3  # of the rollouts, which begin with frames that must be mended
    true_token_share: float = 0.2  # of the frames that can be judged, drawn from true tokens; later all are
    token_weight: float = 0.02
    agent_factor: float = 10.0  # of the tokens that show agents, who are a few in a hundred
    look_weight: float = 0.05  # of the frame's look as a whole, which the recording can judge at any depth
    edge_weight: float = 0.5  # of late pictures that are softer or harsher than the tokens drawn for them
    has_tokenizer_decoder: bool = False  # let the tokenizer's decoder learn too; its codes stay what they are
    horizon: int = 24  # steps of the open-loop check during training

    def __post_init__(self) -> None:
        """Refuse negative weights and what is no share."""
        least = dict.fromkeys(
            (
                "token_weight",
                "agent_factor",
                "look_weight",
                "edge_weight",
                "temperature",
                "training_temperature",
            ),
            0.0,
        )
        least |= {"horizon": 1, "full_depth": 1}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise ValueError(f"imagination.{name} must be at least {value}, got {getattr(self, name)}")
        shares = {name: getattr(self, name) for name in ("faded_share", "true_token_share", "road_trust")}
        if not all(0 <= share <= 1 for share in shares.values()):
            raise ValueError(f"shares of imagination must lie in [0, 1], got {shares}")

    def trust(self, depth: int) -> float:
        """Return how far the recording can judge what is imagined after ``depth`` frames, in [0, 1]."""
        return 1.0 - min(max(depth - self.full_depth, 0) / self.full_depth, 1.0)


class ImaginationModule(nn.Module):
    """The world model with its running rollouts, and the loss of a few more frames."""

    def __init__(
        self, model: WorldModel, config: ImaginationTrainingConfig, camera: Camera, *, batch_size: int
    ) -> None:
        """Freeze tokenizer and motion field, the tokenizer's decoder only if asked for."""
        super().__init__()
        self.config = config
        self.world_model = model.requires_grad_(False)
        for part in (model.stpt, model.action_encoder, model.causal_decoder):
            part.requires_grad_(True)
        if config.has_tokenizer_decoder:
            model.tokenizer.decoder.requires_grad_(True)
        sampler = replace(
            model.config.sampler,
            temperature=config.temperature,
            temperature_rise=config.temperature_rise,
            noise_memory=config.noise_memory,
        )
        model.config = replace(model.config, sampler=sampler)
        self.rollouts = RolloutStore(model, num_groups=config.rollouts.num_groups, batch_size=batch_size)
        self.code_looks = CodeLooks(model.tokenizer.quantizer.codebook_size)
        self.rays = camera_rays(camera)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take one group's rollouts further and return the terms of the loss, means over the new frames."""
        model, config = self.world_model, self.config.rollouts
        frames_BTHWC, twist_BTA = batch["frames"], batch["twist"]
        group, depth, road_BTEHW = int(batch["group"]), int(batch["depth"]), batch["road"]
        first = config.num_true_frames if depth == 0 else 0
        if depth == 0:
            state = self._begun(frames_BTHWC[:, :first], twist_BTA, road_BTEHW)
        else:
            state = self.rollouts.read(group, self.rays.to(twist_BTA.device))
            if (length := int(state.num_frames_B[0])) != config.num_true_frames + depth:
                raise InputError(
                    f"the rollouts of this run are {length} frames long where its settings say "
                    f"{config.num_true_frames + depth}; resume with the imagination.rollouts it began with"
                )
        steps = []
        for t in range(first, frames_BTHWC.shape[1]):
            trust = self.config.trust(depth + t - first)
            outlook = model.outlook(state, twist_BTA[:, t], road_BVHW=unpacked_view(road_BTEHW[:, t]))
            state, terms = self._imagined(state, outlook, normalized(frames_BTHWC[:, t]), trust)
            steps.append(terms)
        self.rollouts.write(group, state)
        return {name: torch.stack([terms[name] for terms in steps]).mean() for name in steps[0]}

    @torch.no_grad()
    def _begun(self, frames_BTHWC: Tensor, twist_BTA: Tensor, road_BTEHW: Tensor) -> WorldState:
        model = self.world_model
        look_BU = picture_look(normalized(frames_BTHWC[:, 0]))
        frames_BTHWC = faded(frames_BTHWC, self.config.faded_share)
        state = model.begin(frames_BTHWC[:, 0], twist_BTA[:, 0], self.rays.to(twist_BTA.device))
        state = replace(state, look_BU=look_BU)
        for t in range(1, frames_BTHWC.shape[1]):
            outlook = model.outlook(state, twist_BTA[:, t], road_BVHW=unpacked_view(road_BTEHW[:, t]))
            state = model.shown(state, frames_BTHWC[:, t], outlook)
        return state

    def _imagined(
        self, state: WorldState, outlook: Outlook, target_BCHW: Tensor, trust: float
    ) -> tuple[WorldState, dict[str, Tensor]]:
        """Return the state after one more frame, and its terms with their gradients."""
        model, config = self.world_model, self.config
        logits_BSK, memory = self._logits(state, outlook)
        with torch.no_grad():
            true_ids_BS = model.tokenizer.encode(target_BCHW)
            token_ids_BS = draw_tokens(logits_BSK, config.training_temperature, None)
            imagined_BCHW = model.tokenizer.decode(token_ids_BS)
            true_share = 1.0 + trust * (config.true_token_share - 1.0)
            is_given_B1 = torch.rand(len(true_ids_BS), 1, device=true_ids_BS.device) < true_share
            judged_ids_BS = torch.where(is_given_B1, true_ids_BS, token_ids_BS)
        edge_weight = config.edge_weight * (1.0 - trust)
        with torch.set_grad_enabled(edge_weight > 0):
            pictures_BCHW = model.causal_decoder(imagined_BCHW, outlook.expected, outlook.road_BVHW).clamp(
                -1, 1
            )
            edges = edge_distance(pictures_BCHW, imagined_BCHW)
        tokenized_BCHW = model.tokenizer.decode(judged_ids_BS)
        drawn_BCHW = model.causal_decoder(tokenized_BCHW, outlook.expected, outlook.road_BVHW)
        tokens_BS = functional.cross_entropy(logits_BSK.mT, true_ids_BS, reduction="none")
        stride = model.tokenizer.config.stride
        is_agent_BS = shows_agents(outlook.road_BVHW, stride)
        is_known_BS = shows_road(outlook.road_BVHW, stride) | is_agent_BS
        weight_BS = torch.where(is_known_BS, max(trust, config.road_trust), trust)
        weight_BS = torch.where(is_agent_BS, config.agent_factor * weight_BS, weight_BS)
        pictures = picture_distance(drawn_BCHW, target_BCHW).mean()
        look = self._look_distance(logits_BSK, true_ids_BS, target_BCHW)
        loss = pictures + config.token_weight * (weight_BS * tokens_BS).mean()
        if config.look_weight > 0:
            loss = loss + config.look_weight * look
        if edge_weight > 0:
            loss = loss + edge_weight * edges
        terms = {
            "loss": loss,
            "pictures": pictures.detach(),
            "tokens": tokens_BS.detach().mean(),
            "look": look.detach(),
            "edges": edges.detach(),
        }
        return advanced(state, outlook, memory, token_ids_BS, pictures_BCHW.detach()), terms

    def _look_distance(self, logits_BSK: Tensor, true_ids_BS: Tensor, target_BCHW: Tensor) -> Tensor:
        """Return how far the look of what is drawn lies from the recorded one, at the temperature of drawing."""
        tokenizer, temperature = self.world_model.tokenizer.config, self.config.training_temperature
        self.code_looks.see(true_ids_BS, token_look(target_BCHW, tokenizer.stride))
        with torch.set_grad_enabled(self.config.look_weight > 0):
            logits_BSK = logits_BSK / max(temperature, 1e-2)
            return self.code_looks.distance(logits_BSK, true_ids_BS, tokenizer.grid)

    def _logits(self, state: WorldState, outlook: Outlook) -> tuple[Tensor, list[FrameMemory]]:
        """Return the logits of the next frame, all hidden, and the memory, of which no gradient is kept."""
        prompt_BLC = self.world_model.action_encoder(outlook.twist_BA.unsqueeze(1)).squeeze(1)
        logits_BSK, memory = self.world_model.first_look(state, replace(outlook, prompt_BLC=prompt_BLC))
        return logits_BSK.float(), [layer.detached() for layer in memory]


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
        """Train transformer, action encoder and causal decoder of ``world_model``, in float32."""
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

    def losses(self, model: nn.Module, batch: dict[str, Tensor], draws: RowDraws) -> dict[str, Tensor]:
        """Return the named loss terms of one batch."""
        del draws  # tokens are drawn with torch's own, which is seeded for the batch
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
