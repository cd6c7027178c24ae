"""Clips of any length through a video model: their tokens, their pictures, and their hidden tokens window by window.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

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


def clip_pictures(model: VideoModel, token_ids_TS: Tensor) -> Clip:
    """Return the frames (T, H, W, 3) of tokens."""
    parts = [model.decode(part.unsqueeze(0)).squeeze(0) for part in token_ids_TS.split(FRAMES_AT_ONCE)]
    return torch.cat([to_uint8(part).cpu() for part in parts]).numpy()


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


def check_frames(frames: Clip, size: tuple[int, int]) -> None:
    """Refuse what are no frames of that height and width.

    Raises:
        InputError: they are not.
    """
    if frames.ndim != 4 or frames.shape[1:] != (*size, 3) or frames.dtype != np.uint8 or len(frames) == 0:
        raise InputError(
            f"frames must be uint8 (T, {size[0]}, {size[1]}, 3), T >= 1, got {frames.dtype} {frames.shape}; resize them"
        )
