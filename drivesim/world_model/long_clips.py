"""Clips of any length through a video model: tokens, codes, pictures, masks, and hidden tokens window by window.

A frame-causal model takes a clip of any length as one window.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from drivesim.errors import InputError
from drivesim.tokenizer.vqgan import normalized, to_uint8
from drivesim.world_model.sampler import Sampled
from drivesim.world_model.video_model import VideoModel

Clip = NDArray[np.uint8]
FRAMES_AT_ONCE = 32  # through the tokenizer


def clip_tokens(model: VideoModel, frames: Clip) -> Tensor:
    """Return the tokens (T, S) of frames (T, H, W, 3), on the CPU.

    Raises:
        InputError: no frames, or frames of another size than the model's.
    """
    check_frames(frames, (model.config.vqgan.height_px, model.config.vqgan.width_px))
    parts = []
    for part in torch.from_numpy(np.ascontiguousarray(frames)).split(FRAMES_AT_ONCE):
        parts.append(model.encode(normalized(part.to(model.device)).unsqueeze(0)).squeeze(0).cpu())
    return torch.cat(parts)


def clip_codes(
    model: VideoModel,
    token_ids_TS: Tensor,
    is_drawn_TS: Tensor,
    prompt: str,
    *,
    twist_BTA: Tensor | None = None,
    is_backward: bool = False,
) -> Tensor:
    """Return codebook vectors (T, S, Q) to show; see :meth:`VideoModel.expected_codes` for tokens that were drawn."""
    parts = []
    for start in range(0, len(token_ids_TS), FRAMES_AT_ONCE):
        end = start + FRAMES_AT_ONCE
        if not (model.config.expected_code_passes and is_drawn_TS[start:end].any()):
            parts.append(model.tokenizer.quantizer.codes(token_ids_TS[start:end]))
            continue
        first = max(0, start - model.stpt.reach)  # frames that change those from the start on
        codes_BTSQ = model.expected_codes(
            token_ids_TS[None, first:end],
            is_drawn_TS[None, first:end],
            [prompt],
            twist_BTA=None if twist_BTA is None else twist_BTA[:, first:end],
            is_backward=is_backward,
        )
        parts.append(codes_BTSQ.squeeze(0)[start - first :])
    return torch.cat(parts)


def clip_pictures(model: VideoModel, codes_TSQ: Tensor) -> Clip:
    """Return the frames (T, H, W, 3) of codebook vectors."""
    parts = [
        to_uint8(model.decode_codes(part_TSQ.unsqueeze(0)).squeeze(0)).cpu()
        for part_TSQ in codes_TSQ.split(FRAMES_AT_ONCE)
    ]
    return torch.cat(parts).numpy()


def nearest_tokens(model: VideoModel, codes_TSQ: Tensor) -> Tensor:
    """Return the tokens (T, S) nearest to codebook vectors."""
    nearest = model.tokenizer.quantizer.nearest
    return torch.cat([nearest(part_TSQ) for part_TSQ in codes_TSQ.split(FRAMES_AT_ONCE)])


def forward_share(is_masked_TS: Tensor) -> Tensor:
    """Return what the way forwards in time counts (T, S) in what is filled in both ways; the rest is for the other way.

    A way counts in inverse proportion to the number of frames since it last saw that token given. A way that never did
    counts nothing, and if neither did, both count half.
    """
    since_TS, until_TS = _frames_since_given(is_masked_TS), _frames_since_given(is_masked_TS.flip(0)).flip(0)
    share_TS = 1 / (1 + since_TS / until_TS)  # 0 / 0 and inf / inf: given, or hidden in all frames
    return share_TS.nan_to_num(nan=0.5)


def _frames_since_given(is_masked_TS: Tensor) -> Tensor:
    number_T1 = torch.arange(len(is_masked_TS), device=is_masked_TS.device, dtype=torch.float32).unsqueeze(-1)
    given_TS = number_T1.expand(is_masked_TS.shape).masked_fill(is_masked_TS, -torch.inf)
    return number_T1 - given_TS.cummax(0).values


def continued(given_TS: Tensor, num_hidden: int) -> tuple[Tensor, Tensor]:
    """Return the tokens (T, S) of given frames and of hidden ones after them, and which are hidden."""
    token_ids_TS = functional.pad(given_TS, (0, 0, 0, num_hidden))
    is_masked_TS = torch.zeros_like(token_ids_TS, dtype=torch.bool)
    is_masked_TS[len(given_TS) :] = True
    return token_ids_TS, is_masked_TS


def fill_windows(
    token_ids_TS: Tensor,
    is_masked_TS: Tensor,
    window: int,
    complete: Callable[[Tensor, Tensor], Sampled],
) -> Tensor:
    """Return the tokens (T, S) with the hidden ones filled in; the caller's tensors are not written.

    Args:
        token_ids_TS: given tokens; hidden entries are not read.
        is_masked_TS: which are hidden.
        window: frames that the model sees at once.
        complete: fills in a part of the clip, as ``VideoModel.complete`` does, with a batch of one.
    """
    ids_TS, is_left_TS = token_ids_TS.clone(), is_masked_TS.clone()
    for part in windows(len(ids_TS), window, num_whole(is_masked_TS)):
        sampled = complete(ids_TS[part].unsqueeze(0), is_left_TS[part].unsqueeze(0))
        ids_TS[part] = rearrange(sampled.token_ids_BS, "1 (t s) -> t s", s=ids_TS.shape[1])
        is_left_TS[part] = False
    return ids_TS


def windows(length: int, window: int, num_given: int) -> list[slice]:
    """Return the parts that are drawn one after another; each sees half a window of finished frames, or more.

    Args:
        length: frames of the clip.
        window: frames that the model sees at once.
        num_given: frames at the start of which nothing is hidden.
    """
    if length <= window:
        return [slice(0, length)]
    start = min(max(0, num_given - window // 2), length - window)
    parts = [slice(start, start + window)]
    while parts[-1].stop < length:
        stop = min(parts[-1].stop + (window + 1) // 2, length)
        parts.append(slice(stop - window, stop))
    return parts


def num_whole(is_masked_TS: Tensor) -> int:
    """Return how many frames at the start hide nothing."""
    return int((is_masked_TS.any(-1).cumsum(0) == 0).sum())


def mask_of_frames(mask: NDArray[np.bool_], frames: Clip) -> NDArray[np.bool_]:
    """Return the mask (T, H, W) of a clip from one for all frames, (H, W), or one for each.

    Raises:
        InputError: it is of another size, or covers nothing.
    """
    mask_THW = np.asarray(mask, dtype=bool)
    if mask_THW.shape == frames.shape[1:3]:
        mask_THW = np.broadcast_to(mask_THW, frames.shape[:3])
    if mask_THW.shape != frames.shape[:3]:
        raise InputError(
            f"the mask is {mask_THW.shape}, the clip {frames.shape[:3]} (frames, rows, columns); give one mask of its "
            "size, or one per frame"
        )
    if not mask_THW.any():
        raise InputError("the mask covers nothing, so there is nothing to draw; white is what is drawn anew")
    return mask_THW


def mask_of_tokens(mask_THW: NDArray[np.bool_], grid: tuple[int, int]) -> Tensor:
    """Return which tokens (T, S) are drawn anew: those of whose pixels the mask covers more than half.

    The others show what surrounds the mask, a small second hole too. Of a frame in which it covers more than half of
    none, all that it touches are drawn.
    """
    cells = rearrange(mask_THW, "t (h p) (w q) -> t (h w) (p q)", h=grid[0], w=grid[1])
    is_mostly_TS = cells.mean(-1) > 0.5
    is_hidden_TS = np.where(is_mostly_TS.any(-1, keepdims=True), is_mostly_TS, cells.any(-1))
    return torch.from_numpy(is_hidden_TS)


def check_frames(frames: Clip, size: tuple[int, int]) -> None:
    """Refuse what are no frames of that height and width.

    Raises:
        InputError: they are not.
    """
    if frames.ndim != 4 or frames.shape[1:] != (*size, 3) or frames.dtype != np.uint8 or len(frames) == 0:
        raise InputError(
            f"frames must be uint8 (T, {size[0]}, {size[1]}, 3), T >= 1, got {frames.dtype} {frames.shape}; resize them"
        )
