"""Spatial Temporal Patchwise Transformer (WorldDreamer section 3.2): tokens and prompts to logits of the hidden tokens.

A layer is: 3D convolution, self-attention inside spatial patches over the frames, cross-attention of each frame to its
own prompt, MLP. Two modes share the weights' layout:

* full: convolution and attention see frames on both sides (the paper);
* frame-causal: they see the frame itself and earlier frames. Training then runs two streams: the frames with hidden
  tokens attend to their own visible tokens and to the CLEAN tokens of earlier frames, which is what an env step does
  with its cache.

Letters: see ``drivesim/world_model/__init__.py``; `R` channels of the convolution's bottleneck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from drivesim.tokenizer.convolution import Convolution
from drivesim.tokenizer.quantizer import Quantizer
from drivesim.world_model.attention import ImageAttention, PatchAttention, PromptAttention
from drivesim.world_model.token_embedding import TokenEmbedding, TokenHead

NUM_CONV_PAST = 2  # earlier frames that the frame-causal 3D convolution sees


@dataclass(kw_only=True, slots=True)
class STPTConfig:
    """Sizes of the transformer."""

    dim: int = 192
    num_layers: int = 5
    num_heads: int = 4
    mlp_ratio: float = 3.0
    conv_dim: int = 48
    patch_stride: int = 2
    window: int = 6  # frames that attention sees in frame-causal mode, the newest included
    is_frame_causal: bool = True
    has_frame_attention: bool = (
        False  # attention within each frame as well, across its patches; the paper has none
    )
    has_frame_places: bool = (
        False  # that attention turns queries and keys by their places: what is near is told
    )
    image_attention: ImageAttention = ImageAttention.BLOCK_DIAGONAL
    guide_dim: int = 0  # numbers per token that tell what motion compensation expects; set by the world model

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        if self.window < 2 or self.num_layers < 1:
            raise ValueError(
                f"stpt needs window >= 2 and num_layers >= 1, got {self.window} and {self.num_layers}"
            )
        if self.has_frame_places and not self.has_frame_attention:
            raise ValueError(
                "stpt.has_frame_places is of attention within frames: set stpt.has_frame_attention=true"
            )
        if self.is_frame_causal and self.image_attention is ImageAttention.IDENTITY:
            raise ValueError(
                "stpt.image_attention=IDENTITY is of models that see all frames at once, not causal ones"
            )
        if self.dim % self.num_heads:
            raise ValueError(f"stpt.dim {self.dim} must divide by stpt.num_heads {self.num_heads}")


@dataclass(kw_only=True, slots=True)
class FrameMemory:
    """What one layer keeps of earlier frames: inputs of the convolution, and keys and values; oldest first."""

    low_FWRS: Tensor  # (F, 2, R, S)
    keys: Tensor  # (F, P, N, W - 1, J, D), rotated to the times of their frames
    values: Tensor
    num_frames_F: Tensor  # int64: seen so far, those that dropped out too; the time of the next frame

    def window(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (F, P, N, W, J, D) of the remembered frames and of one more."""
        return (
            torch.cat([self.keys, keys.unsqueeze(3)], dim=3),
            torch.cat([self.values, values.unsqueeze(3)], dim=3),
        )

    def tracks(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (F, P, N, W + 1, J, D) of the remembered frames and of two more.

        Args:
            keys: (2 * F, P, N, J, D), those of the later frame after those of the earlier.
            values: likewise.
        """
        return (
            torch.cat([self.keys, *keys.unsqueeze(3).chunk(2)], dim=3),
            torch.cat([self.values, *values.unsqueeze(3).chunk(2)], dim=3),
        )

    def after(self, lows_F3RS: Tensor, keys: Tensor, values: Tensor) -> FrameMemory:
        """Return the memory one frame later from the full window; the oldest frame drops out, nothing is copied."""
        return FrameMemory(
            low_FWRS=lows_F3RS[:, 1:],
            keys=keys[:, :, :, 1:],
            values=values[:, :, :, 1:],
            num_frames_F=self.num_frames_F + 1,
        )

    def rows(self, indices: Tensor) -> FrameMemory:
        """Return the memory of some rows, in their order; a row may be taken more than once."""
        return FrameMemory(
            low_FWRS=self.low_FWRS[indices],
            keys=self.keys[indices],
            values=self.values[indices],
            num_frames_F=self.num_frames_F[indices],
        )

    @classmethod
    def joined(cls, parts: Sequence[FrameMemory]) -> FrameMemory:
        """Return the memory of all rows of several."""
        names = ("low_FWRS", "keys", "values", "num_frames_F")
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def detached(self) -> FrameMemory:
        """Return the same memory without its gradient."""
        return FrameMemory(
            low_FWRS=self.low_FWRS.detach(),
            keys=self.keys.detach(),
            values=self.values.detach(),
            num_frames_F=self.num_frames_F,
        )


@dataclass(kw_only=True, slots=True)
class Moment:
    """What every layer needs to know of the times of the frames in one pass, worked out once."""

    turn: tuple[Tensor, Tensor]  # see ``attention.turned``
    attn_mask: Tensor | None  # (F, 1, 1, 1, V), see ``PatchAttention.window_mask``; None: all frames exist


class STPTLayer(nn.Module):
    """One layer; the methods are the parts that full, two-stream and cached forward passes put together."""

    def __init__(self, config: STPTConfig, grid: tuple[int, int]) -> None:
        """Build the four parts; every one of them starts as zero."""
        super().__init__()
        dim, self.grid = config.dim, grid
        self.conv_norm = nn.LayerNorm(dim)
        self.conv_low = nn.Linear(dim, config.conv_dim, bias=False)
        conv = Convolution((NUM_CONV_PAST + 1) * config.conv_dim, dim, 3, padding=1)
        self.conv = conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.attention = PatchAttention(dim, config.num_heads, grid=grid, stride=config.patch_stride)
        self.image_attention = config.image_attention
        self.frame_attention: PatchAttention | None = None
        if config.has_frame_attention:
            self.frame_attention = PatchAttention(
                dim, config.num_heads, grid=grid, stride=1, has_places=config.has_frame_places
            )
        self.prompt_attention = PromptAttention(dim, config.num_heads)
        hidden = int(dim * config.mlp_ratio)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, dim)
        )
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(last.weight)

    def low(self, x_FSC: Tensor) -> Tensor:
        """Return the convolution's bottleneck features (F, R, S)."""
        low_FRS: Tensor = self.conv_low(self.conv_norm(x_FSC)).transpose(1, 2)
        return low_FRS

    def convolved(self, low_FWRS: Tensor) -> Tensor:
        """Return the update (F, S, C) from the features of three frames (F, 3, R, S).

        A 3x3x3 convolution at the middle or last of three frames is a 3x3 convolution over their stacked channels.
        """
        x_FRHW = low_FWRS.flatten(1, 2).unflatten(-1, self.grid)
        update_FCHW: Tensor = self.conv(x_FRHW.contiguous(memory_format=torch.channels_last))
        return update_FCHW.flatten(2).transpose(1, 2)

    def finished(self, x_FSC: Tensor, prompt_FLC: Tensor, is_given_FL: Tensor | None) -> Tensor:
        """Apply attention within the frame, where there is one, cross-attention to the prompt and the MLP."""
        if self.frame_attention is not None:
            x_FSC = x_FSC + self.frame_attention.within_frames(x_FSC)
        x_FSC = x_FSC + self.prompt_attention(x_FSC, prompt_FLC, is_given_FL)
        result: Tensor = x_FSC + self.mlp(x_FSC)
        return result

    def full(self, x_BTSC: Tensor, prompt_FLC: Tensor, is_given_FL: Tensor | None) -> Tensor:
        """Both directions in time, over a clip (B, T, S, C); clips never mix, and an image is a clip of one frame."""
        batch, frames = x_BTSC.shape[:2]
        low = rearrange(self.low(rearrange(x_BTSC, "b t s c -> (b t) s c")), "(b t) r s -> b t r s", b=batch)
        padded = functional.pad(low, (0, 0, 0, 0, 1, 1))
        stacked = torch.stack([padded[:, k : k + frames] for k in range(3)], dim=2)
        conv = self.convolved(rearrange(stacked, "b t k r s -> (b t) k r s"))
        x_BTSC = x_BTSC + rearrange(conv, "(b t) s c -> b t s c", b=batch)
        x_BTSC = x_BTSC + self.attention.over_clip(x_BTSC, images=self.image_attention)
        x_FSC = self.finished(rearrange(x_BTSC, "b t s c -> (b t) s c"), prompt_FLC, is_given_FL)
        return rearrange(x_FSC, "(b t) s c -> b t s c", b=batch)

    def frame(
        self,
        x_FSC: Tensor,
        memory: FrameMemory,
        prompt_FLC: Tensor,
        is_given_FL: Tensor | None,
        moment: Moment,
    ) -> tuple[Tensor, FrameMemory]:
        """One frame against the memory of earlier ones; also returns the memory with this frame appended."""
        lows_F3RS = torch.cat([memory.low_FWRS, self.low(x_FSC).unsqueeze(1)], dim=1)
        x_FSC = x_FSC + self.convolved(lows_F3RS)
        q, k, v = self.attention.project_at(x_FSC, moment.turn)
        keys, values = memory.window(k, v)
        x_FSC = x_FSC + self.attention.over_window(q, keys, values, moment.attn_mask)
        return self.finished(x_FSC, prompt_FLC, is_given_FL), memory.after(lows_F3RS, keys, values)

    def next_to(
        self,
        x_FSC: Tensor,
        memory: FrameMemory,
        prompt_FLC: Tensor,
        moment: Moment,
        *,
        is_last: bool = False,
    ) -> tuple[Tensor, FrameMemory]:
        """Two frames at once: F / 2 newest frames, then as many hidden ones that follow them.

        Equals two calls of :meth:`frame`, the second with the memory that the first returns, in half the passes.
        Returns both frames' features and that memory. The ``is_last`` of the layers is spared what only a layer after
        it would read of the newest frame, and returns the features of the hidden ones alone.
        """
        count = len(x_FSC) // 2
        low_FRS = self.low(x_FSC)
        lows_F3RS = torch.cat([memory.low_FWRS, low_FRS[:count].unsqueeze(1)], dim=1)
        hidden_F3RS = torch.cat([lows_F3RS[:, 1:], low_FRS[count:].unsqueeze(1)], dim=1)
        x_FSC = x_FSC + self.convolved(torch.cat([lows_F3RS, hidden_F3RS]))
        q, k, v = self.attention.project_at(x_FSC, moment.turn)
        keys, values = ((track[:, :, :, :-1], track[:, :, :, 1:]) for track in memory.tracks(k, v))
        after = memory.after(lows_F3RS, keys[0], values[0])
        if is_last:
            x_FSC, q, prompt_FLC = x_FSC[count:], q[count:], prompt_FLC[count:]
            attn_mask = None if moment.attn_mask is None else moment.attn_mask[count:]
            mixed = self.attention.over_window(q, keys[1], values[1], attn_mask)
        else:
            mixed = self.attention.over_windows(q, keys, values, moment.attn_mask)
        return self.finished(x_FSC + mixed, prompt_FLC, None), after

    def two_stream(
        self,
        clean_BTSC: Tensor,
        hidden_BTSC: Tensor,
        prompt_FLC: Tensor,
        is_given_FL: Tensor | None,
        window: int,
    ) -> tuple[Tensor, Tensor]:
        """Clean and hidden streams of a clip at once; both read the clean stream's past."""
        batch, frames = clean_BTSC.shape[:2]
        x_FSC = rearrange(torch.stack([clean_BTSC, hidden_BTSC]), "two b t s c -> (two b t) s c")
        low_FRS = self.low(x_FSC)
        clean_low = _past_windows(_clean_half(low_FRS, batch, frames), NUM_CONV_PAST)
        x_FSC = x_FSC + self.convolved(torch.cat([clean_low.repeat(2, 1, 1, 1), low_FRS.unsqueeze(1)], dim=1))
        turn = self.attention.turn(torch.arange(frames, device=x_FSC.device).repeat(2 * batch))
        q, k, v = self.attention.project_at(x_FSC, turn)
        keys, values = (_with_past(t, batch, frames, window - 1) for t in (k, v))
        is_valid_FW = functional.pad(_valid_past(batch, frames, window - 1, q.device), (0, 1), value=True)
        attn_mask = self.attention.window_mask(is_valid_FW.repeat(2, 1))
        x_FSC = x_FSC + self.attention.over_window(q, keys, values, attn_mask)
        given = None if is_given_FL is None else is_given_FL.repeat(2, 1)
        x_FSC = self.finished(x_FSC, prompt_FLC.repeat(2, 1, 1), given)
        clean, hidden = rearrange(x_FSC, "(two b t) s c -> two b t s c", two=2, b=batch)
        return clean, hidden


def next_moment(layers: nn.ModuleList, memory: Sequence[FrameMemory], num_frames: int) -> Moment:
    """Return the moment of the frames that follow ``memory``, ``num_frames`` of each row one after the other.

    All layers have seen the same frames, and so the first of them stands for all.
    """
    layer, first = layers[0], memory[0]
    assert isinstance(layer, STPTLayer)
    seen_F = torch.cat([first.num_frames_F + k for k in range(num_frames)])
    num_past, attn_mask = first.keys.shape[3], None
    # Only on a CPU is it cheaper to ask for the age of rows than to mask nothing.
    can_ask = seen_F.device.type == "cpu" and not torch.compiler.is_compiling()
    if not (can_ask and bool((seen_F >= num_past).all())):
        slots = torch.arange(num_past + 1, device=seen_F.device)
        attn_mask = layer.attention.window_mask(slots >= num_past - seen_F.unsqueeze(-1))
    return Moment(turn=layer.attention.turn(seen_F), attn_mask=attn_mask)


def _clean_half(x: Tensor, batch: int, frames: int) -> Tensor:
    return x[: batch * frames].unflatten(0, (batch, frames))


def _past_windows(x_BT: Tensor, count: int) -> Tensor:
    """Return for every frame of (B, T, ...) the ``count`` frames before it, (B * T, count, ...); zeros are none."""
    frames = x_BT.shape[1]
    padded = torch.cat([x_BT.new_zeros(x_BT.shape[0], count, *x_BT.shape[2:]), x_BT], dim=1)
    windows = torch.stack([padded[:, k : k + frames] for k in range(count)], dim=2)
    return windows.flatten(0, 1)


def _with_past(x_FPNJD: Tensor, batch: int, frames: int, count: int) -> Tensor:
    """Return each frame's window (2 * B * T, P, N, W, J, D), with a clean past, for both streams of keys or values."""
    clean, hidden = x_FPNJD.unflatten(0, (2, batch, frames)).unbind(0)
    padded = torch.cat([clean.new_zeros(batch, count, *clean.shape[2:]), clean], dim=1)
    past = [padded[:, k : k + frames] for k in range(count)]
    windows = [torch.stack([*past, own], dim=4) for own in (clean, hidden)]
    return torch.stack(windows).flatten(0, 2)


def _valid_past(batch: int, frames: int, count: int, device: torch.device) -> Tensor:
    """Return (B * T, count): whether the frame ``count - k`` steps back exists."""
    t = torch.arange(frames, device=device).unsqueeze(-1)
    back = torch.arange(count, 0, -1, device=device)
    return repeat(t >= back, "t k -> (b t) k", b=batch)


class STPT(nn.Module):
    """Masked-token transformer over frames of tokens; see the module's docstring."""

    def __init__(self, config: STPTConfig, quantizer: Quantizer, grid: tuple[int, int]) -> None:
        """Build embedding, layers and head for the codebook of ``quantizer``."""
        super().__init__()
        self.config, self.grid = config, grid
        self.embedding = TokenEmbedding(
            config.dim, quantizer, num_tokens=grid[0] * grid[1], guide_dim=config.guide_dim
        )
        self.layers = nn.ModuleList(STPTLayer(config, grid) for _ in range(config.num_layers))
        self.head = TokenHead(config.dim, quantizer, guide_dim=config.guide_dim)

    def forward(
        self,
        token_ids_BTS: Tensor,
        is_masked_BTS: Tensor,
        prompt_BTLC: Tensor,
        *,
        guide_BTSG: Tensor | None = None,
        is_given_BTL: Tensor | None = None,
    ) -> Tensor:
        """Full mode: return logits (B, T, S, K); the ids of masked tokens are not read."""
        self._expect(is_causal=False)
        x_BTSC = self.embedding(token_ids_BTS, is_masked_BTS, guide_BTSG)
        if torch.is_autocast_enabled(x_BTSC.device.type):
            x_BTSC = x_BTSC.to(torch.get_autocast_dtype(x_BTSC.device.type))  # a fifth faster than float32
        prompt_FLC = prompt_BTLC.flatten(0, 1)
        is_given_FL = None if is_given_BTL is None else is_given_BTL.flatten(0, 1)
        for layer in self.layers:
            x_BTSC = layer.full(x_BTSC, prompt_FLC, is_given_FL)  # type: ignore[operator]
        logits: Tensor = self.head(x_BTSC, guide_BTSG)
        return logits

    def hidden_stream(
        self,
        clean_ids_BTS: Tensor,
        token_ids_BTS: Tensor,
        is_masked_BTS: Tensor,
        prompt_BTLC: Tensor,
        *,
        guide_BTSG: Tensor | None = None,
        is_given_BTL: Tensor | None = None,
    ) -> Tensor:
        """Frame-causal training: return the features (B, T, S, C) of the hidden stream, for :attr:`head`.

        Args:
            clean_ids_BTS: what earlier frames look like to later ones (the truth, or an imagined past).
            token_ids_BTS: the frames to complete; the ids of masked tokens are not read.
            is_masked_BTS: which tokens are hidden.
            prompt_BTLC: each frame's prompt.
            guide_BTSG: motion compensation's guess, one row per token.
            is_given_BTL: which prompt tokens are present.
        """
        self._expect(is_causal=True)
        if token_ids_BTS.shape[1] == 1:
            return self._alone(token_ids_BTS, is_masked_BTS, prompt_BTLC, guide_BTSG, is_given_BTL)
        clean_BTSC = self.embedding(clean_ids_BTS, torch.zeros_like(is_masked_BTS), guide_BTSG)
        hidden_BTSC = self.embedding(token_ids_BTS, is_masked_BTS, guide_BTSG)
        prompt_FLC = prompt_BTLC.flatten(0, 1)
        is_given_FL = None if is_given_BTL is None else is_given_BTL.flatten(0, 1)
        for layer in self.layers:
            clean_BTSC, hidden_BTSC = layer.two_stream(  # type: ignore[operator]
                clean_BTSC, hidden_BTSC, prompt_FLC, is_given_FL, self.config.window
            )
        return hidden_BTSC

    def _alone(
        self,
        token_ids_B1S: Tensor,
        is_masked_B1S: Tensor,
        prompt_B1LC: Tensor,
        guide_B1SG: Tensor | None,
        is_given_B1L: Tensor | None,
    ) -> Tensor:
        """Return the features (B, 1, S, C) of clips of one frame, to whose past no time goes."""
        x_BSC, _ = self.frame(
            token_ids_B1S.squeeze(1),
            is_masked_B1S.squeeze(1),
            prompt_B1LC.squeeze(1),
            self.empty_memory(len(token_ids_B1S), token_ids_B1S.device, self.memory_dtype, num_past=0),
            guide_BSG=None if guide_B1SG is None else guide_B1SG.squeeze(1),
            is_given_BL=None if is_given_B1L is None else is_given_B1L.squeeze(1),
        )
        return x_BSC.unsqueeze(1)

    @property
    def reach(self) -> int:
        """Return how many earlier frames can change a frame: each layer's convolution, then its attention, go back."""
        return self.config.num_layers * (NUM_CONV_PAST + self.config.window - 1)

    @property
    def memory_dtype(self) -> torch.dtype:
        """Return the type that layers write into a memory now: under autocast, that of its matrix products."""
        device_type = self.embedding.place_SC.device.type
        if torch.is_autocast_enabled(device_type):
            return torch.get_autocast_dtype(device_type)
        return self.embedding.place_SC.dtype

    def empty_memory(
        self, batch: int, device: torch.device, dtype: torch.dtype, *, num_past: int | None = None
    ) -> list[FrameMemory]:
        """Return one empty memory per layer, with room for the past of the window or for ``num_past`` frames."""
        config = self.config
        patches, tokens = config.patch_stride**2, self.grid[0] * self.grid[1]
        shape = (
            batch,
            patches,
            config.num_heads,
            config.window - 1 if num_past is None else num_past,
            tokens // patches,
            config.dim // config.num_heads,
        )
        zeros = torch.zeros(shape, device=device, dtype=dtype)
        low = torch.zeros(batch, NUM_CONV_PAST, config.conv_dim, tokens, device=device, dtype=dtype)
        none = torch.zeros(batch, dtype=torch.int64, device=device)
        return [FrameMemory(low_FWRS=low, keys=zeros, values=zeros, num_frames_F=none) for _ in self.layers]

    def frame(
        self,
        token_ids_BS: Tensor,
        is_masked_BS: Tensor,
        prompt_BLC: Tensor,
        memory: list[FrameMemory],
        *,
        guide_BSG: Tensor | None = None,
        is_given_BL: Tensor | None = None,
    ) -> tuple[Tensor, list[FrameMemory]]:
        """Frame-causal inference: features (B, S, C) of one frame, and the memory with this frame appended.

        Keep the returned memory only for a finished frame; during decoding rounds it is thrown away.
        """
        self._expect(is_causal=True)
        guide_BTSG = None if guide_BSG is None else guide_BSG.unsqueeze(1)
        x_BSC = self.embedding(token_ids_BS.unsqueeze(1), is_masked_BS.unsqueeze(1), guide_BTSG).squeeze(1)
        appended = []
        moment = next_moment(self.layers, memory, 1)
        for layer, past in zip(self.layers, memory, strict=True):
            x_BSC, new = layer.frame(x_BSC, past, prompt_BLC, is_given_BL, moment)  # type: ignore[operator]
            appended.append(new)
        return x_BSC, appended

    def hidden_frame(
        self,
        newest_ids_BS: Tensor,
        prompt_2BLC: Tensor,
        guide_2BSG: Tensor,
        memory: list[FrameMemory],
    ) -> tuple[Tensor, list[FrameMemory]]:
        """Frame-causal inference in one pass: write the newest frame into the memory and look at the next, all hidden.

        Args:
            newest_ids_BS: the finished frame that ``memory`` does not hold yet.
            prompt_2BLC: prompts of the newest frame and of the next.
            guide_2BSG: their guides.
            memory: of all frames before the newest.

        Returns:
            features (B, S, C) of the next frame, and the memory with the newest frame appended.
        """
        self._expect(is_causal=True)
        ids_2BS = torch.stack([newest_ids_BS, newest_ids_BS])
        is_masked_2BS = torch.zeros_like(ids_2BS, dtype=torch.bool)
        is_masked_2BS[1] = True
        x_FSC = self.embedding(ids_2BS, is_masked_2BS, guide_2BSG).flatten(0, 1)
        prompt_FLC = prompt_2BLC.flatten(0, 1)
        appended = []
        moment = next_moment(self.layers, memory, 2)
        last = len(self.layers) - 1
        for index, (layer, past) in enumerate(zip(self.layers, memory, strict=True)):
            x_FSC, new = layer.next_to(  # type: ignore[operator]
                x_FSC, past, prompt_FLC, moment, is_last=index == last
            )
            appended.append(new)
        return x_FSC, appended

    def _expect(self, *, is_causal: bool) -> None:
        if self.config.is_frame_causal is not is_causal:
            wanted = "frame-causal" if is_causal else "full"
            raise ValueError(
                f"this pass needs a {wanted} model; set stpt.is_frame_causal={str(is_causal).lower()}"
            )
