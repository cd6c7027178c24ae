"""The tasks of a general world model: text and images to video, prediction, inpainting, stylisation, actions to video.

All but the last are one model and one sampler; they differ in what is hidden and which prompts are given (WorldDreamer
section 4.3). Pictures are uint8 RGB (H, W, 3) of the weights' own size. Letters: see
``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from drivesim.errors import InputError
from drivesim.generate_actions import checked_actions, twists
from drivesim.scene.types import Camera, front_camera
from drivesim.world_model.long_clips import (
    Clip,
    check_frames,
    clip_pictures,
    clip_tokens,
    fill_windows,
    windows,
)
from drivesim.world_model.sampler import SamplerConfig
from drivesim.world_model.video_model import GuidanceConfig, VideoModel
from drivesim.world_model.world_model import WorldModel, WorldState


@dataclass(kw_only=True, slots=True)
class GenerateConfig:
    """How a task is carried out; what is None is taken from the weights."""

    seed: int = 0  # of the first sample; each further one has the next number as its seed
    num_samples: int = 1
    num_frames: int | None = None  # of the result; inpainting and stylisation keep those of the clip
    negative_prompt: str = ""
    sampler: SamplerConfig | None = None
    guidance: GuidanceConfig | None = None
    on_round: Callable[[int], None] | None = field(default=None, repr=False)  # told the rounds that are over

    def __post_init__(self) -> None:
        """Refuse what is no number of samples or frames, and seeds that generators do not take."""
        if self.num_samples < 1 or (self.num_frames is not None and self.num_frames < 1):
            raise ValueError(
                f"num_samples and num_frames must be at least 1, got {self.num_samples} and {self.num_frames}"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be a whole number from 0 on, got {self.seed}")


@dataclass(kw_only=True, slots=True)
class Generated:
    """Clips made for one request."""

    frames: Clip  # (N, T, H, W, 3), N samples
    token_ids: NDArray[np.int64]  # (N, T, S)
    is_given: NDArray[np.bool_]  # (T, S): tokens that were not hidden
    rate_hz: float


def text_to_video(model: VideoModel, prompt: str, config: GenerateConfig | None = None) -> Generated:
    """Draw clips from a text alone; one frame is an image."""
    config = config or GenerateConfig()
    length = config.num_frames or model.config.num_frames
    token_ids_TS = torch.zeros(length, model.tokenizer.num_tokens, dtype=torch.int64)
    return _filled(model, token_ids_TS, torch.ones_like(token_ids_TS, dtype=torch.bool), prompt, config)


def image_to_video(
    model: VideoModel, image: Clip, prompt: str = "", config: GenerateConfig | None = None
) -> Generated:
    """Go on from one picture (H, W, 3), with or without a text."""
    return predict(model, image[None], prompt, config)


def predict(
    model: VideoModel, frames: Clip, prompt: str = "", config: GenerateConfig | None = None
) -> Generated:
    """Go on from the given frames (T, H, W, 3), any number of them.

    Raises:
        InputError: no frames, or as many as the result is to have, or more.
    """
    config = config or GenerateConfig()
    given_TS = clip_tokens(model, frames)
    length = predicted_length(model, config, num_given=len(frames))
    if len(frames) >= length:
        raise InputError(
            f"{len(frames)} frames are given and the result is to have {length}: nothing is left to predict; give "
            "fewer frames or ask for more"
        )
    token_ids_TS = functional.pad(given_TS, (0, 0, 0, length - len(frames)))
    is_masked_TS = torch.zeros_like(token_ids_TS, dtype=torch.bool)
    is_masked_TS[len(frames) :] = True
    return _filled(model, token_ids_TS, is_masked_TS, prompt, config)


def predicted_length(model: VideoModel, config: GenerateConfig, *, num_given: int) -> int:
    """Return the frames of a prediction, the given ones included."""
    return config.num_frames or max(model.config.num_frames, num_given + model.config.num_frames // 2)


def inpaint(
    model: VideoModel,
    frames: Clip,
    mask: NDArray[np.bool_],
    prompt: str = "",
    config: GenerateConfig | None = None,
) -> Generated:
    """Draw what is under a mask anew; all other pixels of the result are those of ``frames``.

    Args:
        model: the model.
        frames: (T, H, W, 3); T = 1 is an image.
        mask: True is drawn anew: (H, W) for all frames, or (T, H, W).
        prompt: what the whole clip shows.
        config: how.

    Raises:
        InputError: the mask is of another size, or covers nothing.
    """
    config = config or GenerateConfig()
    mask_THW = _mask_of(mask, frames)
    is_masked_TS = torch.from_numpy(_covered(mask_THW, model.tokenizer.grid))
    result = _filled(model, clip_tokens(model, frames), is_masked_TS, prompt, config)
    result.frames = np.where(mask_THW[None, ..., None], result.frames, frames[None])
    return result


def stylize(
    model: VideoModel,
    frames: Clip,
    prompt: str,
    *,
    strength: float = 0.6,
    config: GenerateConfig | None = None,
) -> Generated:
    """Draw a random share of the tokens anew under a style prompt (WorldDreamer section 4.3).

    Args:
        model: the model.
        frames: (T, H, W, 3); T = 1 is an image.
        prompt: the style.
        strength: share of the tokens that is hidden, in (0, 1]: the same ones in all frames.
        config: how.

    Raises:
        InputError: ``strength`` out of range.
    """
    config = config or GenerateConfig()
    if not 0 < strength <= 1:
        raise InputError(
            f"strength {strength} is not in (0, 1]: it is the share of the picture that is redrawn"
        )
    generator = torch.Generator().manual_seed(config.seed)
    order_S = torch.rand(model.tokenizer.num_tokens, generator=generator).argsort().argsort()
    is_hidden_S = order_S < max(1, round(strength * model.tokenizer.num_tokens))
    is_masked_TS = repeat(is_hidden_S, "s -> t s", t=len(frames)).contiguous()
    return _filled(model, clip_tokens(model, frames), is_masked_TS, prompt, config)


def action_to_video(
    model: WorldModel,
    frames: Clip,
    actions: NDArray[np.float64],
    *,
    camera: Camera | None = None,
    config: GenerateConfig | None = None,
) -> Generated:
    """Drive on from a picture, or a few, with driving weights.

    Args:
        model: a driving world model.
        frames: (T, H, W, 3), the last of them is where the drive begins; the car is taken to have driven straight on at
            the first action's speed.
        actions: (N, 2) road-wheel steering in rad, left positive, and speed in m/s, one per frame to come.
        camera: of the frames; the front camera of the reference world if left out.
        config: how; guidance, negative prompt and frames do not apply.

    Returns:
        the drive after the given frames; its tokens are all imagined.

    Raises:
        InputError: no frames, frames of another size, or actions that no car can follow.
    """
    config, size = config or GenerateConfig(), model.config.vqgan
    check_frames(frames, (size.height_px, size.width_px))
    actions = checked_actions(actions)
    twist_NA = torch.from_numpy(twists(actions, 1.0 / model.rate_hz))
    before_1TA = torch.zeros(1, len(frames), 2)
    before_1TA[..., 0] = float(actions[0, 1])
    camera = camera or front_camera().resized(width_px=size.width_px, height_px=size.height_px)
    state = model.observe(torch.from_numpy(np.ascontiguousarray(frames)[None]), before_1TA, camera)
    on_round = _counted(config.on_round)
    drives = [
        _drive(model, state, twist_NA, config.seed + index, config.sampler, on_round)
        for index in range(config.num_samples)
    ]
    token_ids = np.stack([ids for _, ids in drives])
    return Generated(
        frames=np.stack([drawn for drawn, _ in drives]),
        token_ids=token_ids,
        is_given=np.zeros(token_ids.shape[1:], dtype=bool),
        rate_hz=model.rate_hz,
    )


def num_rounds(model: VideoModel, config: GenerateConfig, *, num_given: int, num_frames: int) -> int:
    """Return how many decoding rounds a request takes, for progress bars; a long clip is drawn in several windows."""
    rounds = (config.sampler or model.config.sampler).num_decode_steps
    return rounds * len(windows(num_frames, model.config.num_frames, num_given)) * config.num_samples


# ------------------------------------------------------------------------------------------------ the one path


def _filled(
    model: VideoModel, token_ids_TS: Tensor, is_masked_TS: Tensor, prompt: str, config: GenerateConfig
) -> Generated:
    """Fill in the hidden tokens of every sample."""
    on_round = _counted(config.on_round)
    ids_TS, is_hidden_TS = token_ids_TS.to(model.device), is_masked_TS.to(model.device)
    samples = []
    for index in range(config.num_samples):
        complete = partial(
            model.complete,
            prompts=[prompt],
            negative_prompt=config.negative_prompt,
            sampler=config.sampler,
            guidance=config.guidance,
            generator=torch.Generator().manual_seed(config.seed + index),
            on_round=on_round,
        )
        samples.append(fill_windows(ids_TS, is_hidden_TS, model.config.num_frames, complete))
    return Generated(
        frames=np.stack([clip_pictures(model, filled_TS) for filled_TS in samples]),
        token_ids=torch.stack(samples).cpu().numpy(),
        is_given=~is_masked_TS.numpy(),
        rate_hz=model.config.rate_hz,
    )


def _drive(
    model: WorldModel,
    state: WorldState,
    twist_NA: Tensor,
    seed: int,
    sampler: SamplerConfig | None,
    on_round: Callable[[int], None] | None,
) -> tuple[Clip, NDArray[np.int64]]:
    """Return the frames (N, H, W, 3) and tokens (N, S) of one imagined drive."""
    generator = torch.Generator().manual_seed(seed)
    drawn, token_ids = [], []
    for twist_A in twist_NA:
        imagined = model.imagine(state, twist_A.unsqueeze(0), generator=generator, sampler=sampler)
        state = imagined.state
        drawn.append(imagined.frames_BHWC.squeeze(0).numpy())
        token_ids.append(imagined.token_ids_BS.squeeze(0).cpu().numpy())
        if on_round is not None:
            on_round(len(drawn))
    return np.stack(drawn), np.stack(token_ids)


def _counted(on_round: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """Return a function that passes on how often it was called, whatever it is told."""
    if on_round is None:
        return None
    told, calls = on_round, count(1)
    return lambda _: told(next(calls))


def _mask_of(mask: NDArray[np.bool_], frames: Clip) -> NDArray[np.bool_]:
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


def _covered(mask_THW: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Return (T, S): tokens of which a pixel is under the mask."""
    cells = rearrange(mask_THW, "t (h p) (w q) -> t (h w) (p q)", h=grid[0], w=grid[1])
    return cells.any(-1)
