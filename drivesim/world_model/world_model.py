"""WorldModel: observe a history of frames and actions, imagine the next frame.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from drivesim.scene.types import Camera
from drivesim.tokenizer.quantizer import Quantizer
from drivesim.tokenizer.vqgan import VQGAN, VQGANConfig, normalized, to_uint8
from drivesim.world_model.conditioning import ActionEncoder, guide_dim, motion_guide
from drivesim.world_model.motion import Rays, camera_rays
from drivesim.world_model.sampler import SamplerConfig, fill_in
from drivesim.world_model.stpt import STPT, FrameMemory, STPTConfig


@dataclass(kw_only=True, slots=True)
class WorldModelConfig:
    """A driving world model: tokenizer, transformer and how they are joined."""

    vqgan: VQGANConfig = field(default_factory=VQGANConfig)
    stpt: STPTConfig = field(default_factory=STPTConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    num_action_tokens: int = 4
    num_context_frames: int = 4
    rate_hz: float = 6.0

    def __post_init__(self) -> None:
        """Refuse an empty context and rates that are not positive."""
        if self.num_context_frames < 1 or self.num_action_tokens < 1 or not self.rate_hz > 0:
            raise ValueError("num_context_frames and num_action_tokens must be >= 1 and rate_hz > 0")


@dataclass(kw_only=True, slots=True)
class WorldState:
    """Everything the model remembers after a frame; a value: imagining returns a new one."""

    memory: list[FrameMemory]  # of all frames but the newest
    token_ids_BS: Tensor  # the newest frame
    frames_BCHW: Tensor  # the newest frame as the tokenizer shows it, in [-1, 1]
    prompt_BLC: Tensor  # of the newest frame
    guide_BSG: Tensor  # of the newest frame
    rays: Rays
    num_frames: int


@dataclass(kw_only=True, slots=True)
class Imagined:
    """One imagined step."""

    state: WorldState
    frames_BHWC: Tensor  # uint8
    token_ids_BS: Tensor  # int64
    confidence_B: Tensor  # mean probability of the drawn tokens, in (0, 1]


class WorldModel(nn.Module):
    """A frame-causal driving world model over the tokens of a VQGAN."""

    def __init__(self, config: WorldModelConfig, *, tokenizer: VQGAN | None = None) -> None:
        """Build the model; give a trained ``tokenizer`` to keep it."""
        super().__init__()
        self.config = config
        self.tokenizer = VQGAN(config.vqgan) if tokenizer is None else tokenizer
        stpt = replace(config.stpt, guide_dim=guide_dim(self.tokenizer))
        quantizer: Quantizer = self.tokenizer.quantizer
        self.stpt = STPT(stpt, quantizer, self.tokenizer.config.grid)
        self.action_encoder = ActionEncoder(stpt.dim, num_tokens=config.num_action_tokens)

    @property
    def rate_hz(self) -> float:
        """Return the frames per second the model was trained at."""
        return self.config.rate_hz

    @property
    def num_context_frames(self) -> int:
        """Return how many frames :meth:`observe` should be given."""
        return self.config.num_context_frames

    @torch.no_grad()
    def observe(self, frames_BTHWC: Tensor, twist_BTA: Tensor, camera: Camera) -> WorldState:
        """Read a history.

        Args:
            frames_BTHWC: uint8 frames (B, T, H, W, 3) at ``rate_hz``, T >= 1.
            twist_BTA: speed in m/s and yaw rate in rad/s that led into each frame (B, T, 2).
            camera: the camera of these frames.

        Raises:
            ValueError: shapes that do not fit the model.
        """
        self._check_history(frames_BTHWC, twist_BTA)
        weight = next(self.action_encoder.parameters())
        twist_BTA = twist_BTA.to(weight.device)
        prompt_BTLC = self.action_encoder(twist_BTA)
        batch, num_frames = frames_BTHWC.shape[:2]
        grid_tokens = self.tokenizer.num_tokens
        state = WorldState(
            memory=self.stpt.empty_memory(batch, weight.device, weight.dtype),
            token_ids_BS=torch.zeros(batch, grid_tokens, dtype=torch.int64, device=weight.device),
            frames_BCHW=torch.zeros(0),
            prompt_BLC=prompt_BTLC[:, 0],
            guide_BSG=torch.zeros(batch, grid_tokens, guide_dim(self.tokenizer), device=weight.device),
            rays=camera_rays(camera).to(weight.device),
            num_frames=0,
        )
        for t in range(num_frames):
            token_ids_BS = self.tokenizer.encode(normalized(frames_BTHWC[:, t].to(weight.device)))
            guide_BSG, memory = state.guide_BSG, state.memory
            if t > 0:
                guide_BSG = self._guide(state, twist_BTA[:, t])
                memory = self._remembered(state)
            state = WorldState(
                memory=memory,
                token_ids_BS=token_ids_BS,
                frames_BCHW=self.tokenizer.decode(token_ids_BS),
                prompt_BLC=prompt_BTLC[:, t],
                guide_BSG=guide_BSG,
                rays=state.rays,
                num_frames=t + 1,
            )
        return state

    @torch.no_grad()
    def imagine(
        self,
        state: WorldState,
        twist_BA: Tensor,
        *,
        generator: torch.Generator | None = None,
        sampler: SamplerConfig | None = None,
    ) -> Imagined:
        """Imagine the frame that the twists lead to.

        Args:
            state: what was observed or imagined so far; it is not changed.
            twist_BA: speed in m/s and yaw rate in rad/s held for one step (B, 2).
            generator: source of randomness, used when the sampler draws.
            sampler: decoding settings; the model's own by default.
        """
        if twist_BA.shape != (len(state.token_ids_BS), 2) or not bool(torch.isfinite(twist_BA).all()):
            raise ValueError(
                f"twist must be finite and ({len(state.token_ids_BS)}, 2), got {twist_BA.tolist()}"
            )
        twist_BA = twist_BA.to(state.token_ids_BS.device)
        memory = self._remembered(state)
        guide_BSG = self._guide(state, twist_BA)
        prompt_BLC = self.action_encoder(twist_BA.unsqueeze(1)).squeeze(1)

        def logits_fn(token_ids_BS: Tensor, is_masked_BS: Tensor) -> Tensor:
            features_BSC, _ = self.stpt.frame(
                token_ids_BS, is_masked_BS, prompt_BLC, memory, guide_BSG=guide_BSG
            )
            logits_BSK: Tensor = self.stpt.head(features_BSC, guide_BSG)
            return logits_BSK

        hidden_BS = torch.ones_like(state.token_ids_BS, dtype=torch.bool)
        sampled = fill_in(logits_fn, state.token_ids_BS, hidden_BS, sampler or self.config.sampler, generator)
        frames_BCHW = self.tokenizer.decode(sampled.token_ids_BS)
        new_state = WorldState(
            memory=memory,
            token_ids_BS=sampled.token_ids_BS,
            frames_BCHW=frames_BCHW,
            prompt_BLC=prompt_BLC,
            guide_BSG=guide_BSG,
            rays=state.rays,
            num_frames=state.num_frames + 1,
        )
        return Imagined(
            state=new_state,
            frames_BHWC=to_uint8(frames_BCHW).cpu(),
            token_ids_BS=sampled.token_ids_BS,
            confidence_B=sampled.confidence_BS.mean(-1).cpu(),
        )

    def _remembered(self, state: WorldState) -> list[FrameMemory]:
        """Return the memory with the newest frame written into it."""
        visible_BS = torch.zeros_like(state.token_ids_BS, dtype=torch.bool)
        _, memory = self.stpt.frame(
            state.token_ids_BS, visible_BS, state.prompt_BLC, state.memory, guide_BSG=state.guide_BSG
        )
        return memory

    def _guide(self, state: WorldState, twist_BA: Tensor) -> Tensor:
        return motion_guide(self.tokenizer, state.frames_BCHW, state.rays, twist_BA, 1.0 / self.rate_hz)

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
