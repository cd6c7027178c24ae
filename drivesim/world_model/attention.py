"""Attention inside spatial patches over frames, and from a frame to its prompt (WorldDreamer equations 3 and 4).

Letters: see ``drivesim/world_model/__init__.py``; `P` patches per frame, `J` tokens of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional


class ImageAttention(Enum):
    """What attention over frames does to an image, a clip of one frame."""

    BLOCK_DIAGONAL = "block_diagonal"  # its tokens attend to each other inside their patch
    IDENTITY = (
        "identity"  # the paper, section 3.2, to the letter: each token attends to itself only (W.A.L.T)
    )


def to_patches(x: Tensor, grid: tuple[int, int], stride: int) -> Tensor:
    """Cut frames (F, S, C) into ``stride x stride`` contiguous patches: (F, P, J, C) with P = stride ** 2."""
    h, w = grid
    if h % stride or w % stride:
        raise ValueError(
            f"a {h}x{w} token grid cannot be cut into {stride}x{stride} patches; pad it or change patch_stride"
        )
    x = x.unflatten(1, (stride, h // stride, stride, w // stride))  # f ph h pw w c
    return x.transpose(2, 3).reshape(x.shape[0], stride**2, -1, x.shape[-1])


def from_patches(x: Tensor, grid: tuple[int, int], stride: int) -> Tensor:
    """Undo :func:`to_patches`."""
    h, w = grid
    x = x.reshape(x.shape[0], stride, stride, h // stride, w // stride, x.shape[-1])  # f ph pw h w c
    return x.transpose(2, 3).flatten(1, 4)


def rotary_angles(positions_T: Tensor, head_dim: int) -> Tensor:
    """Return angles (T, D / 2) of rotary time positions (RoFormer); waves of 2 pi to 2,000 frames."""
    dtype = torch.float32 if positions_T.device.type == "mps" else torch.float64  # times grow without end
    exponents = torch.arange(head_dim // 2, device=positions_T.device, dtype=dtype) / (head_dim // 2)
    return positions_T.to(dtype).unsqueeze(-1) * 300.0**-exponents


def place_angles(grid: tuple[int, int], head_dim: int) -> Tensor:
    """Return angles (S, D / 2) of rotary places: half of the waves go down the rows, half along the columns.

    The shortest wave is five tokens long, the longest one forty: what lies beside a token is told from what lies across
    the frame, wherever in the frame that is.
    """
    num_waves = head_dim // 4
    rows, columns = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    # Some libraries keep linspace on the CPU whatever device is the default.
    waves = 2 * math.pi / 5 * 8.0 ** -torch.linspace(0, 1, num_waves, device=rows.device)
    return torch.cat([place.flatten().unsqueeze(-1) * waves for place in (rows, columns)], dim=-1)


def rotate(x: Tensor, angles: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rotate channel pairs of ``x`` (..., D) by ``angles`` that broadcast to (..., D / 2), computed in ``dtype``."""
    return turned(x, (angles.cos().to(dtype), angles.sin().to(dtype)))


def turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate channel pairs of ``x`` (..., D) by angles given as cosine and sine, computed in their type."""
    cos, sin = turn
    first, second = x.to(cos.dtype).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).to(x.dtype)


def attention(q: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention of (..., U, D) to (..., V, D); ``attn_mask`` True = may attend.

    On a CPU it is written out: for the few hundred keys of a patch that is 1.4 times as fast as the fused kernel, and
    twice as fast in the backward pass.
    """
    if q.device.type != "cpu":
        return functional.scaled_dot_product_attention(q, keys, values, attn_mask=attn_mask)
    scores = torch.matmul(q * q.shape[-1] ** -0.5, keys.transpose(-1, -2))
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    return torch.matmul(scores.softmax(-1), values)


class PatchAttention(nn.Module):
    """Self-attention inside each spatial patch, over the frames of the window.

    Rotary time positions are relative, so a cache can slide: its keys are stored rotated to the
    times of their frames.
    """

    place_turn_2SD: Tensor | None

    def __init__(
        self, dim: int, num_heads: int, *, grid: tuple[int, int], stride: int, has_places: bool = False
    ) -> None:
        """Refuse widths that the heads do not divide; ``has_places`` is for :meth:`within_frames` of one patch."""
        super().__init__()
        if dim % num_heads or (dim // num_heads) % 2:
            raise ValueError(f"dim {dim} must divide into {num_heads} heads of even width")
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.grid, self.stride = grid, stride
        turn_2SD = None
        if has_places:
            if stride != 1 or self.head_dim % 4:
                raise ValueError(
                    f"rotary places need one patch and heads of a multiple of 4 channels, got {self.head_dim}"
                )
            angles_SD = place_angles(grid, self.head_dim)
            turn_2SD = torch.stack([angles_SD.cos(), angles_SD.sin()])
        self.register_buffer("place_turn_2SD", turn_2SD, persistent=False)
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.query_scale_D = nn.Parameter(torch.ones(self.head_dim))
        self.key_scale_D = nn.Parameter(torch.ones(self.head_dim))
        nn.init.zeros_(self.out.weight)

    def project(self, x_FSC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return normalised queries and keys and values, each (F, P, N, J, D)."""
        q, k, v = self._queries_keys_values(x_FSC)
        q = functional.rms_norm(q, (self.head_dim,), self.query_scale_D.to(q.dtype))
        k = functional.rms_norm(k, (self.head_dim,), self.key_scale_D.to(k.dtype))
        return q.to(v.dtype), k.to(v.dtype), v

    def project_at(self, x_FSC: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what :meth:`project` does with queries and keys rotated by :meth:`turn`, all in float32 at one go."""
        qkv = self._queries_keys_values(x_FSC)
        qk = qkv[:2].float()
        size = qk.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps
        scale_2D = torch.stack([self.query_scale_D, self.key_scale_D]).float()
        qk = turned(qk * size.rsqrt() * scale_2D.view(2, 1, 1, 1, 1, -1), turn)
        q, k = qk.to(qkv.dtype)
        return q, k, qkv[2]

    def _queries_keys_values(self, x_FSC: Tensor) -> Tensor:
        """Return queries, keys and values as they come, (3, F, P, N, J, D)."""
        qkv = to_patches(self.qkv(self.norm(x_FSC)), self.grid, self.stride)
        return qkv.unflatten(-1, (3, self.num_heads, self.head_dim)).permute(3, 0, 1, 4, 2, 5)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None) -> Tensor:
        """Attend from queries (F, P, N, U, D) to keys and values (F, P, N, V, D); returns (F, S, C)."""
        return self._output(attention(q, keys, values, attn_mask))

    def _output(self, mixed_FPNJD: Tensor) -> Tensor:
        """Project attended patches back to frames (F, S, C)."""
        mixed_FPJC = mixed_FPNJD.transpose(2, 3).flatten(3)
        projected: Tensor = self.out(from_patches(mixed_FPJC, self.grid, self.stride))
        return projected

    def over_window(self, q: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Let each frame attend to the frames of its window; returns (F, S, C).

        Args:
            q: queries (F, P, N, J, D) of the frame, rotated to its time.
            keys: rotated likewise, of the past frames of its window and of itself (F, P, N, W, J, D), oldest first.
            values: (F, P, N, W, J, D).
            attn_mask: of :meth:`window_mask`, where some of these frames do not exist.
        """
        return self.attend(q, keys.flatten(3, 4), values.flatten(3, 4), attn_mask)

    def over_windows(
        self,
        q: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        """Return :meth:`over_window` of frames whose windows are parts that need not lie together in memory.

        Args:
            q: queries (F, P, N, J, D) of the frames of all parts.
            keys: for each part those of its frames (F / number of parts, P, N, W, J, D).
            values: likewise.
            attn_mask: of :meth:`window_mask`, for the frames of all parts.
        """
        masks = [None] * len(keys) if attn_mask is None else attn_mask.chunk(len(keys))
        parts = zip(q.chunk(len(keys)), keys, values, masks, strict=True)
        mixed = [attention(q, k.flatten(3, 4), v.flatten(3, 4), mask) for q, k, v, mask in parts]
        return self._output(torch.cat(mixed))

    def window_mask(self, is_valid_FW: Tensor) -> Tensor:
        """Return the mask (F, 1, 1, 1, V) that hides the frames of a window that do not exist.

        That of one frame with a window of four, before which only two frames exist (x = may attend)::

            past:  -  x  x   own: x
        """
        num_tokens = self.grid[0] * self.grid[1] // self.stride**2
        return rearrange(is_valid_FW.repeat_interleave(num_tokens, dim=1), "f v -> f 1 1 1 v")

    def turn(self, times_F: Tensor) -> tuple[Tensor, Tensor]:
        """Return what :func:`turned` rotates queries or keys (F, P, N, J, D) by, to the times (F,) of their frames."""
        angles = rearrange(rotary_angles(times_F, self.head_dim), "f d -> f 1 1 1 d")
        return angles.cos().float(), angles.sin().float()

    def within_frames(self, x_FSC: Tensor) -> Tensor:
        """Let every token attend to its own frame inside its patch, wherever in time that is; returns (F, S, C)."""
        if self.place_turn_2SD is None:
            return self.attend(*self.project(x_FSC), None)
        cos, sin = self.place_turn_2SD.float()
        return self.attend(*self.project_at(x_FSC, (cos, sin)), None)

    def over_clip(self, x_BTSC: Tensor, *, images: ImageAttention = ImageAttention.BLOCK_DIAGONAL) -> Tensor:
        """Let every token attend to all frames of the clip inside its patch; returns (B, T, S, C)."""
        num_frames = x_BTSC.shape[1]
        if num_frames == 1 and images is ImageAttention.IDENTITY:
            _, _, values = self.project(x_BTSC.squeeze(1))
            return self._output(values).unsqueeze(1)
        q, k, v = self.project(rearrange(x_BTSC, "b t s c -> (b t) s c"))
        times_F = torch.arange(num_frames, device=x_BTSC.device).repeat(x_BTSC.shape[0])
        angles = rearrange(rotary_angles(times_F, self.head_dim), "f d -> f 1 1 1 d")
        q, k = rotate(q, angles, dtype=q.dtype), rotate(k, angles, dtype=k.dtype)
        q, k, v = (rearrange(t, "(b t) p n j d -> b p n (t j) d", t=num_frames) for t in (q, k, v))
        mixed = rearrange(attention(q, k, v, None), "b p n (t j) d -> (b t) p n j d", t=num_frames)
        return rearrange(self._output(mixed), "(b t) s c -> b t s c", t=num_frames)


class PromptAttention(nn.Module):
    """Cross-attention of a frame's tokens to that frame's own prompt (WorldDreamer equation 4)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        """Build projections; the output starts at zero."""
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x_FSC: Tensor, prompt_FLC: Tensor, is_given_FL: Tensor | None = None) -> Tensor:
        """Return the update (F, S, C); ``is_given_FL`` tells which prompt tokens are present."""
        q = self.query(self.norm(x_FSC)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.key_value(prompt_FLC).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attn_mask = None if is_given_FL is None else rearrange(is_given_FL, "f l -> f 1 1 l")
        mixed = attention(q, k, v, attn_mask)
        update: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return update
