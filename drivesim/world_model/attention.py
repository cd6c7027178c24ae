"""Attention inside spatial patches over frames, and from a frame to its prompt (WorldDreamer equations 3 and 4).

Letters: see ``drivesim/world_model/__init__.py``; `P` patches per frame, `J` tokens of a patch.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional


def to_patches(x: Tensor, grid: tuple[int, int], stride: int) -> Tensor:
    """Cut frames (F, S, C) into ``stride x stride`` contiguous patches: (F, P, J, C) with P = stride ** 2."""
    h, w = grid
    if h % stride or w % stride:
        raise ValueError(f"a {h}x{w} token grid cannot be cut into {stride}x{stride} patches; pad it or change patch_stride")
    return rearrange(
        x, "f (ph h pw w) c -> f (ph pw) (h w) c", ph=stride, pw=stride, h=h // stride, w=w // stride
    )


def from_patches(x: Tensor, grid: tuple[int, int], stride: int) -> Tensor:
    """Undo :func:`to_patches`."""
    h, w = grid
    return rearrange(
        x, "f (ph pw) (h w) c -> f (ph h pw w) c", ph=stride, pw=stride, h=h // stride, w=w // stride
    )


def rotary_angles(positions_T: Tensor, head_dim: int) -> Tensor:
    """Return angles (T, D / 2) of rotary time positions (RoFormer); wave lengths run from 2 pi to about 2,000 frames."""
    exponents = torch.arange(head_dim // 2, device=positions_T.device, dtype=torch.float32) / (head_dim // 2)
    return positions_T.float().unsqueeze(-1) * 300.0**-exponents


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate pairs of channels of ``x`` (..., D) by ``angles`` that broadcast to (..., D / 2)."""
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).to(x.dtype)


class PatchAttention(nn.Module):
    """Self-attention inside each spatial patch, over the frames of the window.

    Keys are stored unrotated, so that a cache can slide: the rotation depends on the age of a frame alone.
    """

    def __init__(self, dim: int, num_heads: int, *, grid: tuple[int, int], stride: int) -> None:
        """Refuse widths that the heads do not divide."""
        super().__init__()
        if dim % num_heads or (dim // num_heads) % 2:
            raise ValueError(f"dim {dim} must divide into {num_heads} heads of even width")
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.grid, self.stride = grid, stride
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.query_scale_D = nn.Parameter(torch.ones(self.head_dim))
        self.key_scale_D = nn.Parameter(torch.ones(self.head_dim))
        nn.init.zeros_(self.out.weight)

    def project(self, x_FSC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return normalised queries and keys and values, each (F, P, J, N, D)."""
        qkv = to_patches(self.qkv(self.norm(x_FSC)), self.grid, self.stride)
        q, k, v = rearrange(qkv, "f p j (three n d) -> three f p j n d", three=3, n=self.num_heads)
        q = functional.rms_norm(q, (self.head_dim,), self.query_scale_D.to(q.dtype))
        k = functional.rms_norm(k, (self.head_dim,), self.key_scale_D.to(k.dtype))
        return q.to(v.dtype), k.to(v.dtype), v

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None) -> Tensor:
        """Attend from queries (F, P, U, N, D) to keys and values (F, P, V, N, D); returns (F, P, U, C)."""
        q, keys, values = (rearrange(t, "f p u n d -> (f p) n u d") for t in (q, keys, values))
        mixed = functional.scaled_dot_product_attention(q, keys, values, attn_mask=attn_mask)
        return rearrange(mixed, "(f p) n u d -> f p u (n d)", p=self.stride**2)

    def output(self, mixed_FPJC: Tensor) -> Tensor:
        """Project attended patches back to frames (F, S, C)."""
        projected: Tensor = self.out(from_patches(mixed_FPJC, self.grid, self.stride))
        return projected

    def over_window(self, q: Tensor, own: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor], is_valid_FW: Tensor) -> Tensor:
        """Let each frame attend to itself and to the past frames of its window; returns (F, S, C).

        Args:
            q: queries (F, P, J, N, D) of the frame.
            own: its keys and values (F, P, J, N, D).
            past: keys and values (F, W - 1, P, J, N, D), oldest first.
            is_valid_FW: which past frames exist, (F, W - 1).

        The mask of one frame with a window of four, before which only two frames exist (x = may attend)::

            past:  -  x  x   own: x
        """
        num_past = past[0].shape[1]
        angles = rotary_angles(torch.arange(-num_past, 1, device=q.device), self.head_dim)
        old_keys = rotate(past[0], rearrange(angles[:-1], "w d -> w 1 1 1 d"))
        keys = torch.cat([rearrange(old_keys, "f w p j n d -> f p (w j) n d"), own[0]], dim=2)
        values = torch.cat([rearrange(past[1], "f w p j n d -> f p (w j) n d"), own[1]], dim=2)
        num_patches, num_own = q.shape[1], q.shape[2]
        is_valid_FW = functional.pad(is_valid_FW, (0, 1), value=True)
        attn_mask = is_valid_FW.repeat_interleave(num_own, dim=1).repeat_interleave(num_patches, dim=0)
        mixed = self.attend(q, keys, values, rearrange(attn_mask, "fp v -> fp 1 1 v"))
        return self.output(mixed)

    def over_clip(self, x_BTSC: Tensor) -> Tensor:
        """Let every token attend to all frames of the clip inside its patch; returns (B, T, S, C)."""
        num_frames = x_BTSC.shape[1]
        q, k, v = self.project(rearrange(x_BTSC, "b t s c -> (b t) s c"))
        angles = rotary_angles(torch.arange(num_frames, device=x_BTSC.device), self.head_dim)
        angles = rearrange(angles.repeat(x_BTSC.shape[0], 1), "f d -> f 1 1 1 d")
        q, k = rotate(q, angles), rotate(k, angles)
        q, k, v = (rearrange(t, "(b t) p j n d -> b p (t j) n d", t=num_frames) for t in (q, k, v))
        mixed = self.attend(q, k, v, None)
        mixed = rearrange(mixed, "b p (t j) c -> (b t) p j c", t=num_frames)
        return rearrange(self.output(mixed), "(b t) s c -> b t s c", t=num_frames)


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
        q = rearrange(self.query(self.norm(x_FSC)), "f s (n d) -> f n s d", n=self.num_heads)
        k, v = rearrange(self.key_value(prompt_FLC), "f l (two n d) -> two f n l d", two=2, n=self.num_heads)
        attn_mask = None if is_given_FL is None else rearrange(is_given_FL, "f l -> f 1 1 l")
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        update: Tensor = self.out(rearrange(mixed, "f n s d -> f s (n d)"))
        return update
