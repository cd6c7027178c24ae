"""The tasks of a general world model: text and images to video, prediction, inpainting, stylisation, actions to video.

They are one model and one sampler and differ in what is hidden and which prompts are given (WorldDreamer section 4.3);
actions drive a world model of their own too, frame by frame. Pictures are uint8 RGB (H, W, 3) of the weights' own size.
Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

import numpy as np
import torch
from einops import repeat
from numpy.typing import NDArray
from torch import Tensor

from drivesim.dynamics import checked_actions, twists
from drivesim.errors import InputError
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera
from drivesim.seamless import joined, reconciled
from drivesim.video import drawn_across
from drivesim.world_model.clip_completion import GuidanceConfig
from drivesim.world_model.drives import drive_on, observed
from drivesim.world_model.long_clips import (
    Clip,
    check_frames,
    clip_codes,
    clip_pictures,
    clip_tokens,
    continued,
    fill_windows,
    forward_share,
    mask_of_frames,
    mask_of_tokens,
    nearest_tokens,
    num_whole,
    windows,
)
from drivesim.world_model.places import Places
from drivesim.world_model.sampler import SamplerConfig
from drivesim.world_model.video_model import VideoModel
from drivesim.world_model.world_model import WorldModel

MAX_SHARE_BOTH_WAYS = 0.5  # of the tokens of a frame: of more, the two ways seldom agree on what is hidden


@dataclass(kw_only=True, slots=True)
class GenerateConfig:
    """How a task is carried out; what is None is taken from the weights.

    Raises:
        ValueError: numbers of samples or frames below 1, or a seed that generators do not take.
    """

    seed: int = 0  # of the first sample; each further one has the next number as its seed
    num_samples: int = 1
    num_frames: int | None = None  # of the result; inpainting and stylisation keep those of the clip
    negative_prompt: str = ""
    both_ways: bool | None = None  # inpainting: forwards and backwards; None leaves it to weights and mask
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
    token_ids: NDArray[np.int64]  # (N, T, S); filled in both ways: the nearest to the mean of their codes
    is_given: NDArray[np.bool_]  # (T, S): tokens that were not hidden
    rate_hz: float


def text_to_video(model: VideoModel, prompt: str, config: GenerateConfig | None = None) -> Generated:
    """Draw clips from a text alone; one frame is an image.

    Raises:
        InputError: a text that the weights cannot read.
    """
    config = config or GenerateConfig()
    length = config.num_frames or model.config.num_frames
    token_ids_TS = torch.zeros(length, model.tokenizer.num_tokens, dtype=torch.int64)
    return _filled(model, token_ids_TS, torch.ones_like(token_ids_TS, dtype=torch.bool), prompt, config)


def image_to_video(
    model: VideoModel, image: Clip, prompt: str = "", config: GenerateConfig | None = None
) -> Generated:
    """Go on from one picture (H, W, 3), with or without a text.

    Raises:
        InputError: a picture of another size, a result of one frame, or a text that the weights cannot read.
    """
    return predict(model, image[None], prompt, config)


def predict(
    model: VideoModel, frames: Clip, prompt: str = "", config: GenerateConfig | None = None
) -> Generated:
    """Go on from the given frames (T, H, W, 3), any number of them.

    Raises:
        InputError: no frames, frames of another size, as many as the result is to have or more, or a text that the
            weights cannot read.
    """
    config = config or GenerateConfig()
    given_TS = clip_tokens(model, frames)
    length = predicted_length(model, config, num_given=len(frames))
    if len(frames) >= length:
        raise InputError(
            f"{len(frames)} frames are given and the result is to have {length}: nothing is left to predict; give "
            "fewer frames or ask for more"
        )
    return _filled(model, *continued(given_TS, length - len(frames)), prompt, config)


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

    A frame-causal model sees the frame itself and those before it, not those after it. Weights trained for it (their
    configuration says ``fills_both_ways``) therefore fill in the clip a second time, played backwards. What
    is shown lies between the two drawings in each place, mostly at the one that the picture of the mean of both ways'
    codes is nearer to: see :func:`forward_share` for the mean and :func:`drivesim.seamless.reconciled` for the choice.
    That takes about twice the time. If both ways would count in more than half of a frame's tokens, they seldom agree,
    and unless ``config.both_ways`` is true there is only the one.

    What is under the mask is not read: what surrounds it is drawn on across it first, because each token depends on
    pixels around its own too. Tokens of which the mask covers half or less stay as that makes them, unless it covers no
    more of any: see :func:`mask_of_tokens`. What was drawn takes on the shades of what surrounds it, see
    :func:`drivesim.seamless.joined`.

    Args:
        model: the model.
        frames: (T, H, W, 3); T = 1 is an image.
        mask: True is drawn anew: (H, W) for all frames, or (T, H, W).
        prompt: what the whole clip shows.
        config: how.

    Raises:
        InputError: frames or mask of another size, a mask that covers nothing, a text that the weights cannot read, or
            both ways asked for of weights that go one.
    """
    config = config or GenerateConfig()
    check_frames(frames, (model.config.vqgan.height_px, model.config.vqgan.width_px))
    mask_THW = mask_of_frames(mask, frames)
    is_masked_TS = mask_of_tokens(mask_THW, model.tokenizer.grid)
    both_ways = _goes_both_ways(model, is_masked_TS, config)
    given = clip_tokens(model, drawn_across(frames, mask_THW))
    result = _filled(model, given, is_masked_TS, prompt, config, both_ways=both_ways)
    result.frames = np.stack([joined(frames, drawn, mask_THW) for drawn in result.frames])
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
        InputError: ``strength`` out of range, frames of another size, or a text that the weights cannot read.
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
    model: WorldModel | VideoModel,
    frames: Clip,
    actions: FloatArray,
    *,
    twist: FloatArray | None = None,
    camera: Camera | None = None,
    places: Places | None = None,
    config: GenerateConfig | None = None,
) -> Generated:
    """Drive on from a picture, or a few.

    Args:
        model: a driving world model, or a general one that reads actions.
        frames: (T, H, W, 3), the last of them is where the drive begins.
        actions: (N, 2) road-wheel steering in rad, left positive, and speed in m/s, one per frame to come.
        twist: (T, 2) speed in m/s and yaw rate in rad/s that led into each given frame; left out, the car is taken to
            have driven straight on at the first action's speed.
        camera: of the frames, for a driving world model; the front camera of the reference world if left out.
        places: one row: where the car and others are on its map at the last frame, see
            :func:`drivesim.world_model.places.place_in`; a driving world model that is not told imagines the road too,
            and that for seconds only.
        config: how; its number of frames does not apply, and to a driving world model neither do guidance and negative
            prompt.

    Returns:
        the drive after the given frames; its tokens are all imagined.

    Raises:
        InputError: no frames, frames of another size, twists of another number or that are not finite, actions that no
            car can follow or that the weights do not read, or more frames than a general world model sees that draws
            all of them at once.
    """
    config, actions = config or GenerateConfig(), checked_actions(actions)
    num_given = len(frames)
    if twist is not None:
        _check_twist(twist, num_given)
    twist_NA = twists(actions, 1.0 / model.config.rate_hz, num_before=num_given, before=twist)
    twist_TA = torch.from_numpy(twist_NA).float()
    if isinstance(model, VideoModel):
        return _drive_as_clip(model, frames, twist_TA, config)
    state = observed(model, frames, twist_TA[:num_given], camera, places)
    drive = partial(drive_on, model, state, twist_TA[num_given:], sampler=config.sampler)
    on_frame = _counted(config.on_round)
    drives = [drive(seed=config.seed + index, on_frame=on_frame) for index in range(config.num_samples)]
    token_ids = np.stack([ids for _, ids in drives])
    return Generated(
        frames=np.stack([drawn for drawn, _ in drives]),
        token_ids=token_ids,
        is_given=np.zeros(token_ids.shape[1:], dtype=bool),
        rate_hz=model.rate_hz,
    )


def num_rounds(model: VideoModel, config: GenerateConfig, *, num_given: int, num_frames: int) -> int:
    """Return how many decoding rounds a request takes, for progress bars.

    They are those of every frame that is not given, or of every window of a long clip where frames are drawn at once.
    """
    sampler = config.sampler or model.config.sampler
    rounds = sampler.num_rounds
    if model.is_frame_causal:
        next_rounds = model.config.next_sampler(sampler).num_rounds
        first = rounds - next_rounds if num_given == 0 else 0
        return (first + next_rounds * max(0, num_frames - num_given)) * config.num_samples
    return rounds * len(windows(num_frames, model.config.num_frames, num_given)) * config.num_samples


def goes_both_ways(model: VideoModel, frames: Clip, mask: NDArray[np.bool_], config: GenerateConfig) -> bool:
    """Tell whether :func:`inpaint` goes both ways.

    It does if the weights can, the other way counts for anything, and it was not ruled out: by ``config.both_ways``, or
    where that says nothing by the size of the mask.

    Raises:
        InputError: as there.
    """
    return _goes_both_ways(model, mask_of_tokens(mask_of_frames(mask, frames), model.tokenizer.grid), config)


def num_inpainting_rounds(
    model: VideoModel, frames: Clip, mask: NDArray[np.bool_], config: GenerateConfig
) -> int:
    """Return how many decoding rounds :func:`inpaint` takes, for progress bars.

    Raises:
        InputError: as there.
    """
    forward_TS = mask_of_tokens(mask_of_frames(mask, frames), model.tokenizer.grid)
    ways = [forward_TS, forward_TS.flip(0)] if _goes_both_ways(model, forward_TS, config) else [forward_TS]
    return sum(
        num_rounds(model, config, num_given=num_whole(way_TS), num_frames=len(way_TS)) for way_TS in ways
    )


def _goes_both_ways(model: VideoModel, is_masked_TS: Tensor, config: GenerateConfig) -> bool:
    if config.both_ways and not model.config.fills_both_ways:
        raise InputError(
            "these weights were last trained without clips played backwards (video_model.backward_share) and fill in "
            "forwards only: leave out both_ways (--both-ways), or take weights such as general-tiny"
            if model.is_frame_causal
            else "these weights see all frames at once and need no second way: leave out both_ways (--both-ways)"
        )
    share_TS = forward_share(is_masked_TS)
    other_way_counts = bool((is_masked_TS & (share_TS < 1)).any())
    if len(is_masked_TS) == 1 or not other_way_counts or not model.config.fills_both_ways:
        return False
    if config.both_ways is not None:
        return config.both_ways
    is_mixed_TS = is_masked_TS & (share_TS > 0) & (share_TS < 1)
    return bool(is_mixed_TS.float().mean(-1).max() <= MAX_SHARE_BOTH_WAYS)


def num_drive_rounds(
    model: WorldModel | VideoModel, config: GenerateConfig, *, num_given: int, num_actions: int
) -> int:
    """Return how often :func:`action_to_video` says that it is farther, for progress bars."""
    if isinstance(model, VideoModel):
        return num_rounds(model, config, num_given=num_given, num_frames=num_given + num_actions)
    return num_actions * config.num_samples


# ------------------------------------------------------------------------------------------------ the one path


def _filled(
    model: VideoModel,
    token_ids_TS: Tensor,
    is_masked_TS: Tensor,
    prompt: str,
    config: GenerateConfig,
    *,
    twist_BTA: Tensor | None = None,
    both_ways: bool = False,
) -> Generated:
    """Fill in the hidden tokens of every sample."""
    assert twist_BTA is None or not both_ways  # no car drives backwards in time
    counted = replace(config, on_round=_counted(config.on_round))
    ids_TS, is_hidden_TS = token_ids_TS.to(model.device), is_masked_TS.to(model.device)
    token_ids, frames = [], []
    for seed in range(config.seed, config.seed + config.num_samples):
        fill = partial(_filled_once, model, prompt=prompt, config=counted, seed=seed)
        filled_TS, codes_TSQ = fill(ids_TS, is_hidden_TS, twist_BTA=twist_BTA)
        pictures = clip_pictures(model, codes_TSQ)
        if both_ways:
            _, reversed_TSQ = fill(ids_TS.flip(0), is_hidden_TS.flip(0), is_backward=True)
            backward_TSQ, share_TS1 = reversed_TSQ.flip(0), forward_share(is_hidden_TS).unsqueeze(-1)
            mean_TSQ = share_TS1 * codes_TSQ + (1 - share_TS1) * backward_TSQ
            filled_TS = torch.where(is_hidden_TS, nearest_tokens(model, mean_TSQ), ids_TS)
            others = clip_pictures(model, backward_TSQ), clip_pictures(model, mean_TSQ)
            pictures = reconciled(pictures, *others)
        token_ids.append(filled_TS.cpu())
        frames.append(pictures)
    return Generated(
        frames=np.stack(frames),
        token_ids=torch.stack(token_ids).numpy(),
        is_given=~is_masked_TS.numpy(),
        rate_hz=model.config.rate_hz,
    )


def _filled_once(
    model: VideoModel,
    ids_TS: Tensor,
    is_hidden_TS: Tensor,
    *,
    prompt: str,
    config: GenerateConfig,
    seed: int,
    twist_BTA: Tensor | None = None,
    is_backward: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return a sample's tokens (T, S) and the codebook vectors (T, S, Q) to show."""
    complete = partial(
        model.complete,
        prompts=[prompt],
        negative_prompt=config.negative_prompt,
        twist_BTA=twist_BTA,
        sampler=config.sampler,
        guidance=config.guidance,
        generator=torch.Generator(model.device).manual_seed(seed),
        on_round=config.on_round,
        is_backward=is_backward,
    )
    window = len(ids_TS) if model.is_frame_causal else model.config.num_frames
    filled_TS = fill_windows(ids_TS, is_hidden_TS, window, complete)
    codes_TSQ = clip_codes(
        model, filled_TS, is_hidden_TS, prompt, twist_BTA=twist_BTA, is_backward=is_backward
    )
    return filled_TS, codes_TSQ


def _check_twist(twist: FloatArray, num_given: int) -> None:
    expected, shape = (num_given, 2), np.shape(twist)
    if shape != expected or not np.isfinite(twist).all():
        found = shape if shape != expected else np.asarray(twist).tolist()
        raise InputError(f"{num_given} given frames need finite twists {expected}, got {found}")


def _drive_as_clip(model: VideoModel, frames: Clip, twist_TA: Tensor, config: GenerateConfig) -> Generated:
    if model.action_encoder is None:
        raise InputError("a video model without action tokens reads no actions; take other weights")
    given, length = len(frames), len(twist_TA)
    if length > model.config.num_frames and not model.is_frame_causal:
        raise InputError(
            f"{given} frames are given and {length - given} actions follow, {length} frames in all; these weights see "
            f"{model.config.num_frames} at once, so give fewer"
        )
    tokens = continued(clip_tokens(model, frames), length - given)
    result = _filled(model, *tokens, "", config, twist_BTA=twist_TA.to(model.device).unsqueeze(0))
    return Generated(
        frames=result.frames[:, given:],
        token_ids=result.token_ids[:, given:],
        is_given=result.is_given[given:],
        rate_hz=result.rate_hz,
    )


def _counted(on_round: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """Return a function that passes on how often it was called, whatever it is told."""
    if on_round is None:
        return None
    told, calls = on_round, count(1)
    return lambda _: told(next(calls))
