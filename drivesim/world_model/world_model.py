"""WorldModel: observe a history of frames and actions, imagine the next frame.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drivesim.checkpoint import save_module
from drivesim.hub_model import HubModel
from drivesim.scene.types import Camera
from drivesim.tokenizer.quantizer import Quantizer
from drivesim.tokenizer.vqgan import VQGAN, VQGANConfig, normalized, to_uint8
from drivesim.world_model.carried_noise import next_noise, no_noise, uniform_of
from drivesim.world_model.causal_decoder import CausalDecoder, CausalDecoderConfig
from drivesim.world_model.conditioning import (
    ActionEncoder,
    expected_latents,
    guide_dim,
    guide_features,
    picture_look,
)
from drivesim.world_model.motion import Rays, camera_rays
from drivesim.world_model.motion_field import Expected, MotionField, MotionFieldConfig
from drivesim.world_model.places import Places, no_view
from drivesim.world_model.sampler import Generators, Sampled, SamplerConfig, fill_in
from drivesim.world_model.stpt import STPT, FrameMemory, STPTConfig
from drivesim.world_model.world_state import WorldState


@dataclass(kw_only=True, slots=True)
class WorldModelConfig:
    """A driving world model: tokenizer, transformer, motion field and causal decoder, and how they are joined."""

    vqgan: VQGANConfig = field(default_factory=VQGANConfig)
    stpt: STPTConfig = field(default_factory=STPTConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    motion_field: MotionFieldConfig = field(default_factory=MotionFieldConfig)
    causal_decoder: CausalDecoderConfig = field(default_factory=CausalDecoderConfig)
    num_action_tokens: int = 4
    num_context_frames: int = 4
    rate_hz: float = 6.0

    def __post_init__(self) -> None:
        """Refuse an empty context and rates that are not positive."""
        if self.num_context_frames < 1 or self.num_action_tokens < 1 or not self.rate_hz > 0:
            raise ValueError("num_context_frames and num_action_tokens must be >= 1 and rate_hz > 0")


@dataclass(kw_only=True, slots=True)
class Outlook:
    """What is known of the next frame before a token of it is drawn."""

    twist_BA: Tensor
    prompt_BLC: Tensor
    expected: Expected
    expected_BSQ: Tensor  # bounded latents of the expected picture
    motion_BS3: Tensor  # see ``token_motion``
    road_BVHW: Tensor  # see ``road_view``
    guide_BSG: Tensor
    places: Places | None


@dataclass(kw_only=True, slots=True)
class Imagined:
    """One imagined step."""

    state: WorldState
    frames_BHWC: Tensor  # uint8
    token_ids_BS: Tensor  # int64
    confidence_B: Tensor  # mean probability of the drawn tokens, in (0, 1]


class WorldModel(HubModel):
    """A frame-causal driving world model over the tokens of a VQGAN.

    The life of a frame: the motion field says what to expect of it (:meth:`outlook`), the transformer fills in its
    tokens (:meth:`complete`), the causal decoder draws it from both (:meth:`draw`).
    """

    kind = "world-model"
    what = "what a front camera sees next, given speed and yaw rate"

    def __init__(self, config: WorldModelConfig, *, tokenizer: VQGAN | None = None) -> None:
        """Build the model; give a trained ``tokenizer`` to keep it."""
        super().__init__()
        self.config = config
        self.facts = {}
        self.tokenizer = VQGAN(config.vqgan) if tokenizer is None else tokenizer
        stpt = replace(config.stpt, guide_dim=guide_dim(self.tokenizer))
        quantizer: Quantizer = self.tokenizer.quantizer
        self.stpt = STPT(stpt, quantizer, self.tokenizer.config.grid)
        self.action_encoder = ActionEncoder(stpt.dim, num_tokens=config.num_action_tokens)
        self.motion_field = MotionField(config.motion_field)
        self.causal_decoder = CausalDecoder(
            config.causal_decoder, feature_channels=self.motion_field.feature_channels
        )

    @classmethod
    def _read(cls, path: Path, *, device: str, dtype: torch.dtype, **settings: Any) -> WorldModel:
        from drivesim.world_model.pretrained import load_world_model  # which needs this class

        return load_world_model(path, device=device, dtype=dtype, **settings)

    def _write(self, path: Path) -> None:
        save_module(self, path, kind=self.kind, config=self.config, facts=self.facts)

    @property
    def rate_hz(self) -> float:
        """Return the frames per second the model was trained at."""
        return self.config.rate_hz

    @property
    def num_context_frames(self) -> int:
        """Return how many frames :meth:`observe` should be given."""
        return self.config.num_context_frames

    @property
    def is_best_row_by_row(self) -> bool:
        """Tell whether a row may only be imagined alone if it shall not depend on its neighbours, to the last bit.

        On a CPU products of float32 matrices are rounded by how many rows they have; those of bfloat16 are not.
        """
        weight = next(self.action_encoder.parameters())
        return weight.device.type == "cpu" and weight.dtype == torch.float32

    @torch.no_grad()
    def observe(
        self,
        frames_BTHWC: Tensor,
        twist_BTA: Tensor,
        camera: Camera,
        *,
        places: Places | None = None,
    ) -> WorldState:
        """Read a history.

        Args:
            frames_BTHWC: uint8 frames (B, T, H, W, 3) at ``rate_hz``, T >= 1.
            twist_BTA: speed in m/s and yaw rate in rad/s that led into each frame (B, T, 2).
            camera: the camera of these frames.
            places: where the cars are on their maps at the LAST of these frames; without it the model imagines
                the road too.

        Raises:
            ValueError: shapes that do not fit the model.
        """
        self._check_history(frames_BTHWC, twist_BTA)
        if places is not None and len(places.maps) != len(frames_BTHWC):
            raise ValueError(
                f"{len(frames_BTHWC)} rows of frames need as many places, got {len(places.maps)}"
            )
        device = next(self.action_encoder.parameters()).device
        twist_BTA = twist_BTA.to(device)
        state = self.begin(frames_BTHWC[:, 0], twist_BTA[:, 0], camera_rays(camera).to(device))
        num_frames = frames_BTHWC.shape[1]
        tracks = _tracks(places, twist_BTA, 1.0 / self.rate_hz)
        for t in range(1, num_frames):
            state.places = tracks[t - 1]
            state = self.shown(state, frames_BTHWC[:, t], self.outlook(state, twist_BTA[:, t]))
        state.places = places
        return state

    @torch.no_grad()
    def begin(self, frames_BHWC: Tensor, twist_BA: Tensor, rays: Rays) -> WorldState:
        """Return the state after one frame (B, H, W, 3), before which no picture is known."""
        weight = next(self.action_encoder.parameters())
        batch, device = len(frames_BHWC), weight.device
        pictures_BCHW = normalized(frames_BHWC.to(device))
        grid_tokens = self.tokenizer.num_tokens
        return WorldState(
            memory=self.stpt.empty_memory(batch, device, weight.dtype),
            token_ids_BS=self.tokenizer.encode(pictures_BCHW),
            frames_BCHW=pictures_BCHW,
            earlier_BCHW=pictures_BCHW,
            twist_BA=torch.zeros_like(twist_BA),
            prompt_BLC=self.action_encoder(twist_BA.unsqueeze(1)).squeeze(1),
            guide_BSG=torch.zeros(batch, grid_tokens, guide_dim(self.tokenizer), device=device),
            noise_BHW=no_noise(batch, self.tokenizer.config.grid, device),
            look_BU=picture_look(pictures_BCHW),
            rays=rays,
            num_frames_B=torch.ones(batch, dtype=torch.int64, device=device),
            num_imagined_B=torch.zeros(batch, dtype=torch.int64),
        )

    @torch.no_grad()
    def outlook(self, state: WorldState, twist_BA: Tensor, *, road_BVHW: Tensor | None = None) -> Outlook:
        """Return what is known of the frame that the twists (B, 2) lead to.

        Args:
            state: what was seen so far.
            twist_BA: the twists.
            road_BVHW: what a map says will be seen; left out, the maps of ``state`` are asked.
        """
        places = None
        if state.places is not None:
            places = state.places.after(twist_BA.double().cpu().numpy(), 1.0 / self.rate_hz)
        if road_BVHW is None and places is not None:
            road_BVHW = places.view().to(state.frames_BCHW.device)
        elif road_BVHW is None:
            height_px, width_px = state.frames_BCHW.shape[-2:]
            road_BVHW = no_view(len(twist_BA), (height_px, width_px), state.frames_BCHW.device)
        expected = self.motion_field(
            state.frames_BCHW,
            state.earlier_BCHW,
            state.rays,
            twist_BA,
            state.twist_BA,
            1.0 / self.rate_hz,
        )
        expected_BSQ, motion_BS3 = expected_latents(self.tokenizer, expected.compensated)
        return Outlook(
            twist_BA=twist_BA,
            prompt_BLC=self.action_encoder(twist_BA.unsqueeze(1)).squeeze(1),
            expected=expected,
            expected_BSQ=expected_BSQ,
            motion_BS3=motion_BS3,
            road_BVHW=road_BVHW,
            guide_BSG=guide_features(self.tokenizer, expected_BSQ, motion_BS3, road_BVHW, state.look_BU),
            places=places,
        )

    @torch.no_grad()
    def complete(
        self,
        state: WorldState,
        outlook: Outlook,
        *,
        sampler: SamplerConfig | None = None,
        generator: Generators = None,
    ) -> tuple[Sampled, list[FrameMemory], Tensor]:
        """Draw the tokens of the next frame; also returns the memory with the frame before it, and the noise.

        The first decoding round and the writing share one pass.
        """
        hidden_BS = torch.ones_like(state.token_ids_BS, dtype=torch.bool)
        memory: list[FrameMemory] = []

        def logits_fn(token_ids_BS: Tensor, is_masked_BS: Tensor) -> Tensor:
            nonlocal memory
            if memory:
                features_BSC, _ = self.stpt.frame(
                    token_ids_BS, is_masked_BS, outlook.prompt_BLC, memory, guide_BSG=outlook.guide_BSG
                )
            else:
                logits_BSK, memory = self.first_look(state, outlook)
                return logits_BSK
            logits_BSK = self.stpt.head(features_BSC, outlook.guide_BSG)
            return logits_BSK

        settings = sampler or self.config.sampler
        temperature_B = settings.temperatures(state.num_imagined_B)
        noise_BHW, uniform_BS = _chance(state, outlook, settings.noise_memory, temperature_B > 0, generator)
        sampled = fill_in(
            logits_fn,
            state.token_ids_BS,
            hidden_BS,
            settings,
            generator,
            temperature_B=temperature_B,
            uniform_BS=uniform_BS,
        )
        return sampled, memory, noise_BHW

    def first_look(self, state: WorldState, outlook: Outlook) -> tuple[Tensor, list[FrameMemory]]:
        """Return the logits (B, S, K) of the next frame, all hidden, and the memory with the frame before it.

        The gradient is kept.
        """
        features_BSC, memory = self.stpt.hidden_frame(
            state.token_ids_BS,
            torch.stack([state.prompt_BLC.to(outlook.prompt_BLC.dtype), outlook.prompt_BLC]),
            torch.stack([state.guide_BSG, outlook.guide_BSG]),
            state.memory,
        )
        logits_BSK: Tensor = self.stpt.head(features_BSC, outlook.guide_BSG)
        return logits_BSK, memory

    @torch.no_grad()
    def draw(self, token_ids_BS: Tensor, outlook: Outlook) -> Tensor:
        """Return the picture (B, 3, H, W) in [-1, 1] of a frame's tokens (B, S)."""
        drawn_BCHW = self.tokenizer.decode(token_ids_BS)
        pictures_BCHW: Tensor = self.causal_decoder(drawn_BCHW, outlook.expected, outlook.road_BVHW)
        return pictures_BCHW.clamp(-1, 1)

    def shown(self, state: WorldState, frames_BHWC: Tensor, outlook: Outlook) -> WorldState:
        """Return the state after a recorded frame (B, H, W, 3) instead of an imagined one."""
        pictures_BCHW = normalized(frames_BHWC.to(state.frames_BCHW.device))
        token_ids_BS = self.tokenizer.encode(pictures_BCHW)
        after = advanced(state, outlook, self.remembered(state), token_ids_BS, pictures_BCHW)
        return replace(after, num_imagined_B=torch.zeros_like(after.num_imagined_B))

    @torch.no_grad()
    def imagine(
        self,
        state: WorldState,
        twist_BA: Tensor,
        *,
        generator: Generators = None,
        sampler: SamplerConfig | None = None,
    ) -> Imagined:
        """Imagine the frame that the twists lead to.

        Args:
            state: what was observed or imagined so far; it is not changed.
            twist_BA: speed in m/s and yaw rate in rad/s held for one step (B, 2).
            generator: source of randomness, used when the sampler draws: one for all rows, or one for each, so that a
                row's future does not depend on its neighbours.
            sampler: decoding settings; the model's own by default.
        """
        if twist_BA.shape != (len(state.token_ids_BS), 2) or not bool(torch.isfinite(twist_BA).all()):
            raise ValueError(
                f"twist must be finite and ({len(state.token_ids_BS)}, 2), got {twist_BA.tolist()}"
            )
        outlook = self.outlook(state, twist_BA.to(state.token_ids_BS.device))
        return self.imagined(state, outlook, generator=generator, sampler=sampler)

    @torch.no_grad()
    def imagined(
        self,
        state: WorldState,
        outlook: Outlook,
        *,
        generator: Generators = None,
        sampler: SamplerConfig | None = None,
    ) -> Imagined:
        """Imagine the frame of an outlook; the other arguments as in :meth:`imagine`."""
        sampled, memory, noise_BHW = self.complete(state, outlook, sampler=sampler, generator=generator)
        pictures_BCHW = self.draw(sampled.token_ids_BS, outlook)
        return Imagined(
            state=advanced(state, outlook, memory, sampled.token_ids_BS, pictures_BCHW, noise_BHW),
            frames_BHWC=to_uint8(pictures_BCHW).cpu(),
            token_ids_BS=sampled.token_ids_BS,
            confidence_B=sampled.confidence_BS.mean(-1).cpu(),
        )

    @torch.no_grad()
    def remembered(self, state: WorldState) -> list[FrameMemory]:
        """Return the memory with the newest frame written into it."""
        visible_BS = torch.zeros_like(state.token_ids_BS, dtype=torch.bool)
        _, memory = self.stpt.frame(
            state.token_ids_BS, visible_BS, state.prompt_BLC, state.memory, guide_BSG=state.guide_BSG
        )
        return memory

    def _check_history(self, frames_BTHWC: Tensor, twist_BTA: Tensor) -> None:
        size = (self.config.vqgan.height_px, self.config.vqgan.width_px, 3)
        if frames_BTHWC.ndim != 5 or frames_BTHWC.shape[2:] != size or frames_BTHWC.dtype != torch.uint8:
            shape = tuple(frames_BTHWC.shape)
            raise ValueError(
                f"frames must be uint8 (B, T, {size[0]}, {size[1]}, 3), got {frames_BTHWC.dtype} {shape}"
            )
        if twist_BTA.shape != (*frames_BTHWC.shape[:2], 2) or not bool(torch.isfinite(twist_BTA).all()):
            raise ValueError(
                f"twist must be finite and {(*frames_BTHWC.shape[:2], 2)}, got {tuple(twist_BTA.shape)}"
            )


def advanced(
    state: WorldState,
    outlook: Outlook,
    memory: list[FrameMemory],
    token_ids_BS: Tensor,
    pictures_BCHW: Tensor,
    noise_BHW: Tensor | None = None,
) -> WorldState:
    """Return the state one frame later, given its tokens and picture and the memory of all frames before.

    ``noise_BHW`` is what its tokens were drawn by; left out where they were not drawn, or by numbers of no memory.
    """
    return WorldState(
        memory=memory,
        token_ids_BS=token_ids_BS,
        frames_BCHW=pictures_BCHW,
        earlier_BCHW=state.frames_BCHW,
        twist_BA=outlook.twist_BA,
        prompt_BLC=outlook.prompt_BLC,
        guide_BSG=outlook.guide_BSG,
        noise_BHW=torch.zeros_like(state.noise_BHW) if noise_BHW is None else noise_BHW,
        look_BU=state.look_BU,
        rays=state.rays,
        num_frames_B=state.num_frames_B + 1,
        num_imagined_B=state.num_imagined_B + 1,
        places=outlook.places,
    )


def _tracks(places: Places | None, twist_BTA: Tensor, dt_s: float) -> list[Places | None]:
    """Return the places at each of T frames, the last of them given, by driving the twists backwards."""
    tracks = [places]
    for twist_BA in reversed(twist_BTA[:, 1:].double().cpu().numpy().swapaxes(0, 1)):
        first = tracks[0]
        tracks.insert(0, None if first is None else first.before(twist_BA, dt_s))
    return tracks


def _chance(
    state: WorldState, outlook: Outlook, noise_memory: float, is_drawn_B: Tensor, generator: Generators
) -> tuple[Tensor, Tensor | None]:
    """Return the noise (B, h, w) of the next frame, and the numbers (B, S) to draw by; None: new ones are drawn."""
    if noise_memory == 0 or not bool(is_drawn_B.any()):
        return torch.zeros_like(state.noise_BHW), None
    noise_BHW = next_noise(state.noise_BHW, outlook.expected.compensated, noise_memory, generator, is_drawn_B)
    return noise_BHW, uniform_of(noise_BHW)
