"""Training of the general world model: clips and images together, as the paper does (WorldDreamer section 4.2).

Images are clips of one frame. Batches of clips and batches of as many frames of images alternate in a stated ratio, so
that the two never mix. Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from drivesim import console
from drivesim.errors import InputError
from drivesim.training.captioned_tokens import CaptionedTokens
from drivesim.training.holes import draw_rectangles, holed_rows, seen_around_holes
from drivesim.training.row_draws import RowDraws, rows_of
from drivesim.training.task import WEIGHT, Evaluation
from drivesim.training.video_evaluation import evaluation_of
from drivesim.training.word_weights import WeightedRows, weights_of
from drivesim.world_model.long_clips import mask_of_tokens
from drivesim.world_model.masking import (
    ClipMaskConfig,
    draw_clip_mask,
    draw_frame_masks,
    draw_hole_mask,
    hidden_about,
)
from drivesim.world_model.prompts import played_backwards
from drivesim.world_model.sampler import draw_tokens
from drivesim.world_model.video_model import VideoModel, VideoModelConfig

UNJUDGED = -100
MAX_CODE_WEIGHT = 5.0
HOLE_ABOUT_THING_SHARE = 0.75  # of the holes, where the set says where things are
MAX_WORD_WEIGHT = 1e6
PROMPT_LENGTH_STEP = 8  # prompts of a batch are padded to a multiple: every new shape costs a CPU kernel


@dataclass(kw_only=True, slots=True)
class VideoTrainingConfig:
    """What training of a video model needs besides the loop's own settings."""

    model: VideoModelConfig = field(default_factory=VideoModelConfig)
    init: str = "general-tiny"  # weights to begin with: a tokenizer, or a video model to go on with
    is_turned: bool = (
        False  # init sees all frames at once: its weights begin a model that goes frame by frame
    )
    image_share: float = 0.5  # of the batches
    prompt_drop: float = 0.1  # prompts left out, for guidance (section 3.3)
    label_smoothing: float = 0.0
    code_balance: float = (
        0.0  # codes weigh in the loss as their frequency to minus this: rare ones are things
    )
    masks: ClipMaskConfig = field(default_factory=ClipMaskConfig)
    word_weights: dict[str, float] = field(
        default_factory=dict
    )  # items whose captions have a word are drawn so many times as often; 1 takes a word of an experiment back
    thing_share: float = 0.0  # of the images: what is hidden lies about one of their things
    hole_share: float = (
        0.0  # of clips and images: hidden is a hole, and seen what inpainting sees, see ``holes``
    )
    whole_share: float = 0.0  # of the frames after the first: their mask is full, see ``draw_frame_masks``
    # Of the clips, played backwards and marked so in their captions: above 0, the weights will inpaint both ways.
    backward_share: float = 0.0
    frames_per_window: int = (
        8  # of a clip that a frame-causal model is shown at once: more than its attention sees
    )
    start_share: float = 0.5  # of these windows are the first frames of their clip
    context_noise: float = 0.1  # and tokens of the past replaced at random: the rate is uniform in [0, this]
    drawn_share: float = 0.0  # of these windows: part of their past is drawn by the model
    num_drawings: int = 1  # times that it is: from the second on, after a past that is drawn too
    public_tokenizer: str | None = None  # folder of a public VQGAN that stands in for our own

    def __post_init__(self) -> None:
        """Refuse shares that are no shares."""
        if not 0 <= self.image_share < 1 or not 0 <= self.prompt_drop <= 1:
            raise ValueError(
                f"image_share must lie in [0, 1) and prompt_drop in [0, 1], got {self.image_share} and "
                f"{self.prompt_drop}"
            )
        if self.frames_per_window < 2 or not 0 <= self.context_noise < 1 or not 0 <= self.start_share <= 1:
            raise ValueError(
                "frames_per_window must be >= 2, context_noise lie in [0, 1) and start_share in [0, 1], got "
                f"{self.frames_per_window}, {self.context_noise} and {self.start_share}"
            )
        if self.drawn_share and self.frames_per_window < 3:
            raise ValueError(
                f"drawn_share is of frames between others: frames_per_window must be >= 3, got {self.frames_per_window}"
            )
        if self.num_drawings < 1:
            raise ValueError(f"num_drawings must be >= 1, got {self.num_drawings}")
        for name in ("thing_share", "hole_share", "whole_share", "drawn_share", "backward_share"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {share}")
        are_weights = all(0 < weight <= MAX_WORD_WEIGHT for weight in self.word_weights.values())
        if not are_weights or not all(map(str.strip, self.word_weights)):
            raise ValueError(
                f"word_weights must be words and numbers above 0, {MAX_WORD_WEIGHT:.0f} at most, got "
                f"{dict(self.word_weights)}"
            )
        if not 0 <= self.label_smoothing < 1 or not 0 <= self.code_balance <= 1:
            raise ValueError(
                f"label_smoothing must lie in [0, 1) and code_balance in [0, 1], got {self.label_smoothing} and "
                f"{self.code_balance}"
            )


class VideoModelModule(nn.Module):
    """The video model with its loss; the tokenizer is frozen, and codes weigh what the model's ``code_bias_K`` says."""

    def __init__(self, model: VideoModel, *, label_smoothing: float = 0.0, num_drawings: int = 1) -> None:
        """Freeze the tokenizer; see :class:`VideoTrainingConfig` for the numbers."""
        super().__init__()
        self.video_model = model
        self.label_smoothing, self.num_drawings = label_smoothing, num_drawings
        model.tokenizer.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> VideoModelModule:
        """Train all but the tokenizer, whose codebook would move with what it encodes."""
        super().train(mode)
        self.video_model.tokenizer.eval()
        return self

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``loss`` (cross-entropy of the hidden tokens, nats), ``accuracy`` and what the tokens weigh."""
        if "holed_rows" in batch:
            batch = seen_around_holes(batch, self.video_model.tokenizer)
        target_BTS, is_masked_BTS = batch["token_ids"].long(), batch["is_masked"]
        prepared = {name: value for name, value in batch.items() if name not in _NO_PROMPT}
        past_ids_BTS = batch.get("context_ids")
        if "is_drawn" in batch:
            past_ids_BTS = self._with_own_frames(batch, prepared)
        logits_BTSK = self.video_model(
            target_BTS,
            is_masked_BTS,
            prepared,
            twist_BTA=batch.get("twist"),
            past_ids_BTS=None if past_ids_BTS is None else past_ids_BTS.long(),
        ).float()
        targets_BTS = target_BTS.masked_fill(~is_masked_BTS, UNJUDGED)
        weight_K = self.video_model.code_bias_K.exp()
        loss = functional.cross_entropy(
            logits_BTSK.flatten(0, 2),
            targets_BTS.flatten(),
            weight=weight_K,
            ignore_index=UNJUDGED,
            label_smoothing=self.label_smoothing,
        )
        is_right = (logits_BTSK.detach().argmax(-1) == targets_BTS)[is_masked_BTS]
        weight = weight_K[target_BTS[is_masked_BTS]].sum()
        return {"loss": loss, "accuracy": is_right.float().mean(), WEIGHT: weight}

    @torch.no_grad()
    def _with_own_frames(self, batch: dict[str, Tensor], prepared: dict[str, Tensor]) -> Tensor:
        """Return the past (B, T, S) with the tokens that ``is_drawn`` marks drawn by the model.

        A pass draws them all at a temperature of 1, unguided, each frame after the given ones (parallel scheduled
        sampling, Duckworth et al., 2019, arXiv 1906.04331), the next pass after those of the pass before. Such frames
        are a little off; a model that has seen only true ones takes that for motion, and goes on with it.
        """
        past_BTS, is_drawn_BTS = batch["context_ids"].long().clone(), batch["is_drawn"]
        rows = is_drawn_BTS.flatten(1).any(-1).nonzero().flatten()
        if not len(rows):
            rows = rows.new_zeros(1)  # processes that share a model take every pass together
        is_drawn_BTS, twist_BTA = is_drawn_BTS[rows, :-1], batch.get("twist")
        true_BTS, hides_BTS = batch["token_ids"][rows, :-1].long(), batch["drawing_hides"][rows, :-1]
        drawn_by_BS = batch["drawn_by"][rows, :-1].flatten(1)
        for _ in range(self.num_drawings):
            ids_BTS = past_BTS[rows, :-1]
            logits_BTSK = self.video_model(
                true_BTS,
                hides_BTS,
                {name: value[rows] for name, value in prepared.items()},
                twist_BTA=None if twist_BTA is None else twist_BTA[rows, :-1],
                past_ids_BTS=ids_BTS,
            ).float()
            logits_BSK = (logits_BTSK - self.video_model.code_bias_K).flatten(1, 2)
            drawn_BTS = draw_tokens(logits_BSK, 1.0, None, uniform_BS=drawn_by_BS).view(ids_BTS.shape)
            past_BTS[rows, :-1] = torch.where(is_drawn_BTS, drawn_BTS, ids_BTS)
        torch.clear_autocast_cache()  # weights cast here have no gradient, and would be taken again for the loss
        return past_BTS


@dataclass(kw_only=True, slots=True)
class _Rows:
    """What was drawn from the set for a batch."""

    batch: dict[str, Tensor]  # token_ids (B, T, S), and twist
    captions: list[str]
    frames: list[NDArray[np.uint8]]  # (T, H, W, 3) of each row, not yet read
    boxes_BN4: Tensor  # of its things: of an image, or of a clip at some time; NaN where there are none


_NO_PROMPT = ("token_ids", "context_ids", "is_masked", "twist", "is_drawn", "drawing_hides", "drawn_by")
_FRAME_BY_FRAME = ("whole_share", "drawn_share", "hole_share", "backward_share")


class VideoModelTask:
    """Clips and images with one of their captions each; a share of the captions is left out."""

    name = "video-model"

    def __init__(
        self,
        config: VideoTrainingConfig,
        train: CaptionedTokens,
        validation: CaptionedTokens,
        model: VideoModel,
    ) -> None:
        """Train all of ``model`` but its tokenizer; its configuration then says whether it fills in both ways.

        Raises:
            InputError: ``config.thing_share`` asks for things, and the set does not say where they are; or
                other shares are for models that go frame by frame, and this one draws all at once.
        """
        shares = {name: getattr(config, name) for name in _FRAME_BY_FRAME if getattr(config, name)}
        if shares and not model.is_frame_causal:
            raise InputError(
                f"{', '.join(f'{name} is {share}' for name, share in shares.items())}, but the model draws all frames "
                f"at once: set {', '.join(f'video_model.{name}=0' for name in shares)}"
            )
        self.config, self.train, self.validation = config, train, validation
        boxes = (train.content.image_boxes, train.content.clip_boxes)
        if config.thing_share and not any(np.isfinite(part).any() for part in boxes):
            raise InputError(
                f"thing_share is {config.thing_share}, but {train.content.path} does not say where things are: "
                "only sets of the general world do; set video_model.thing_share=0"
            )
        self.encoder, self.grid = model.prompt_encoder, model.tokenizer.grid
        self.has_actions = model.action_encoder is not None
        self.is_frame_causal = model.is_frame_causal
        self.frames_per_row = config.frames_per_window if self.is_frame_causal else train.clips.shape[1]
        self.codebook_size = model.tokenizer.codebook_size
        clips_N = weights_of(train.content.clip_captions, config.word_weights)
        images_N = weights_of(train.content.image_captions, config.word_weights)
        self._clip_rows, self._image_rows = WeightedRows(clips_N), WeightedRows(np.append(images_N, clips_N))
        weight_K = code_weights(train, model.tokenizer.codebook_size, config.code_balance)
        model.code_bias_K.copy_(weight_K.log())
        if model.config.fills_both_ways and not config.backward_share:
            console.warn(
                "training goes on without clips played backwards, so the weights will inpaint forwards only; set "
                "video_model.backward_share above 0 to keep both ways"
            )
        model.config = replace(model.config, fills_both_ways=config.backward_share > 0)
        self.model: nn.Module = VideoModelModule(
            model, label_smoothing=config.label_smoothing, num_drawings=config.num_drawings
        )

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[dict[str, Tensor]]:
        """Yield batches of ``batch_size`` clips, or of as many frames of images; a row depends on its number alone."""
        step = start_step
        while True:
            is_image = is_image_step(step, self.config.image_share)
            count = batch_size * self.frames_per_row if is_image else batch_size
            rows = rows_of(step, count, rank=rank, world_size=world_size)
            draws = RowDraws(seed, rows, purpose="images" if is_image else "clips")
            is_start = torch.ones(count, dtype=torch.bool)
            if not is_image and self.is_frame_causal:
                is_start = draws.chance(self.config.start_share)
            drawn = self._images(draws) if is_image else self._clips(draws, is_start)
            batch = drawn.batch
            is_dropped = draws.chance(self.config.prompt_drop)
            captions = zip(drawn.captions, is_dropped.tolist(), strict=True)
            texts = ["" if is_left_out else text for text, is_left_out in captions]
            if self.has_actions:
                batch["twist"][is_dropped] = torch.nan
            batch |= self._hidden(batch["token_ids"], is_start, draws)
            if is_image and self.config.thing_share:
                batch["is_masked"] = self._about_things(batch["is_masked"], drawn.boxes_BN4, draws)
            if self.config.hole_share:
                batch |= self._holed(drawn, is_start, draws)
            yield batch | self._prepared(texts)
            step += 1

    def _prepared(self, texts: list[str]) -> dict[str, Tensor]:
        prepared = self.encoder.prepared(texts, is_cut=True)
        return {name: _padded(value) for name, value in prepared.items()}

    def _hidden(self, token_ids_BTS: Tensor, is_start_B: Tensor, draws: RowDraws) -> dict[str, Tensor]:
        """Return what is hidden and, frame by frame, what later frames see of the past."""
        config = self.config
        count, length = token_ids_BTS.shape[:2]
        if not self.is_frame_causal:
            return {"is_masked": draw_clip_mask(config.masks, count, length, self.grid, draws.uniform)}
        is_masked_BTS = draw_frame_masks(
            config.masks, count, length, self.grid, draws.uniform, whole_share=config.whole_share
        )
        # A clip that is entered later shows its first frame: what a text says is where clips begin.
        is_masked_BTS[:, 0] &= is_start_B.unsqueeze(-1)
        if length == 1:
            return {"is_masked": is_masked_BTS}
        shape = tuple(token_ids_BTS.shape)
        is_noise_BTS = draws.uniform(shape) < draws.uniform((count, 1, 1)) * config.context_noise
        noise_BTS = draws.whole(self.codebook_size, shape, dtype=torch.int32)
        context_ids_BTS = torch.where(is_noise_BTS, noise_BTS, token_ids_BTS)
        hidden = {"is_masked": is_masked_BTS, "context_ids": context_ids_BTS}
        if config.drawn_share:
            rate_B11 = draws.uniform((count, 1, 1))
            is_drawn_BTS = draws.chance(config.drawn_share)[:, None, None] & (draws.uniform(shape) < rate_B11)
            is_drawn_BTS[:, [0, -1]] = False  # one round draws no first frame, and nothing follows the last
            everything_BTS = torch.ones_like(is_drawn_BTS)
            hidden |= {
                "is_drawn": is_drawn_BTS,
                "drawing_hides": everything_BTS,
                "drawn_by": draws.uniform(shape),
            }
        return hidden

    def _about_things(self, is_masked_BTS: Tensor, boxes_BN4: Tensor, draws: RowDraws) -> Tensor:
        """Hide of a share of the images what lies about a thing, instead; others stay as they are."""
        about_BS = hidden_about(_one_box_of_each(boxes_BN4, draws), self.grid, draws.uniform)
        is_about_B1 = draws.chance(self.config.thing_share).unsqueeze(-1) & about_BS.any(-1, keepdim=True)
        return torch.where(is_about_B1, about_BS, is_masked_BTS[:, 0]).unsqueeze(1)

    def _holed(self, drawn: _Rows, is_start_B: Tensor, draws: RowDraws) -> dict[str, Tensor]:
        """Give a share of the rows a hole: what is hidden lies in it, and what is seen comes of frames without it."""
        is_masked_BTS = drawn.batch["is_masked"]
        is_holed_B = draws.chance(self.config.hole_share)
        if not is_holed_B.any():
            return {}
        is_about_B1 = draws.chance(HOLE_ABOUT_THING_SHARE).unsqueeze(-1)
        about_B4 = _one_box_of_each(drawn.boxes_BN4, draws).masked_fill(~is_about_B1, torch.nan)
        height_px, width_px = drawn.frames[0].shape[1:3]
        rectangles_BHW = draw_rectangles(about_B4, (height_px, width_px), draws.uniform)
        hole_BS, length = mask_of_tokens(rectangles_BHW, self.grid), is_masked_BTS.shape[1]
        inside_BTS = draw_hole_mask(hole_BS, length, draws.uniform, whole_share=self.config.whole_share)
        inside_BTS[:, 0] &= is_start_B.unsqueeze(-1)  # as of windows without a hole
        is_holed_B11 = is_holed_B[:, None, None]
        changed = {"is_masked": torch.where(is_holed_B11, inside_BTS, is_masked_BTS)}
        if "is_drawn" in drawn.batch:
            hole_BTS = hole_BS.unsqueeze(1).expand_as(is_masked_BTS)
            # All of a hole is drawn, and in half of the windows that of the first frame: roughly, as by one round.
            is_drawn_BTS = hole_BTS & draws.chance(self.config.drawn_share)[:, None, None]
            is_drawn_BTS[:, 0] &= draws.chance(0.5).unsqueeze(-1)
            is_drawn_BTS[:, -1] = False
            for name, inside in (("is_drawn", is_drawn_BTS), ("drawing_hides", hole_BTS)):
                changed[name] = torch.where(is_holed_B11, inside, drawn.batch[name])
        return changed | holed_rows(drawn.frames, rectangles_BHW, hole_BS, is_holed_B)

    def _clips(self, draws: RowDraws, is_start_B: Tensor) -> _Rows:
        """Draw clips, or frame by frame windows of them, from the start or from anywhere."""
        content = self.train.content
        rows = self._clip_rows.draw(draws).numpy()
        first_B = torch.zeros(len(draws), dtype=torch.int64)
        if self.is_frame_causal:
            first_B = draws.whole(self.train.clips.shape[1] - self.frames_per_row + 1)
        first_B = torch.where(is_start_B, 0, first_B)
        times = first_B.unsqueeze(-1).numpy() + np.arange(self.frames_per_row)
        captions = _one_of_each([content.clip_captions[row] for row in rows], draws)
        is_backward_B = np.zeros(len(draws), dtype=bool)
        if self.config.backward_share:
            is_backward_B = draws.chance(self.config.backward_share).numpy()
            times = np.where(is_backward_B[:, None], self.train.clips.shape[1] - 1 - times, times)
            pairs = zip(captions, is_backward_B, strict=True)
            captions = [played_backwards(text) if is_backward else text for text, is_backward in pairs]
        batch = {"token_ids": torch.from_numpy(self.train.clips[rows[:, None], times])}
        if self.has_actions:
            twist_BTA = torch.from_numpy(content.twist[rows[:, None], times])
            twist_BTA[is_backward_B] = torch.nan
            batch["twist"] = twist_BTA
        step_B = np.where(is_backward_B, -1, 1)
        frames = [
            content.clips[row, ::step][first : first + self.frames_per_row]
            for row, first, step in zip(rows, first_B.tolist(), step_B, strict=True)
        ]
        at_some_time = draws.whole(self.train.clips.shape[1]).numpy() if self.config.hole_share else 0
        boxes_BN4 = torch.from_numpy(content.clip_boxes[rows, at_some_time])
        return _Rows(batch=batch, captions=captions, frames=frames, boxes_BN4=boxes_BN4)

    def _images(self, draws: RowDraws) -> _Rows:
        """Draw images of the set and single frames of its clips, as many of the one as there are."""
        train, content = self.train, self.train.content
        num_images = len(train.images)
        rows = self._image_rows.draw(draws).tolist()
        times = draws.whole(train.clips.shape[1]).tolist()
        ids, wordings, boxes, frames = [], [], [], []
        for row, t in zip(rows, times, strict=True):
            is_image = row < num_images
            ids.append(train.images[row] if is_image else train.clips[row - num_images, t])
            boxes.append(content.image_boxes[row] if is_image else content.clip_boxes[row - num_images, t])
            frames.append(content.images[row, None] if is_image else content.clips[row - num_images, t, None])
            captions = content.image_captions if is_image else content.frame_captions
            wordings.append(captions[row if is_image else row - num_images])
        batch = {"token_ids": torch.from_numpy(np.stack(ids)).unsqueeze(1)}
        if self.has_actions:
            batch["twist"] = torch.full((len(draws), 1, 2), torch.nan)
        captions_B, boxes_BN4 = _one_of_each(wordings, draws), torch.from_numpy(np.stack(boxes))
        return _Rows(batch=batch, captions=captions_B, frames=frames, boxes_BN4=boxes_BN4)

    def losses(self, model: nn.Module, batch: dict[str, Tensor], draws: RowDraws) -> dict[str, Tensor]:
        """Return the named loss terms of one batch."""
        del draws  # masks and captions come with the batch
        terms: dict[str, Tensor] = model(batch)
        return terms

    def num_frames(self, batch: dict[str, Tensor]) -> int:
        """Return the frames in a batch."""
        return batch["token_ids"].shape[0] * batch["token_ids"].shape[1]

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Return what :func:`evaluation_of` measures on validation clips."""
        has_backward = self.config.backward_share > 0
        return evaluation_of(model, self.validation, self._prepared, has_backward=has_backward)


def code_weights(train: CaptionedTokens, codebook_size: int, balance: float) -> Tensor:
    """Return what each code weighs in the loss (K,): frequency to the power of ``-balance``, 1 in the mean over tokens.

    Skies are made of few codes, things of many rare ones; as in colourisation (Zhang et al., 2016), a model that is to
    draw things must not mind their share of the picture. A model trained so gives code ``k`` too much by
    ``log weight_k``, which :meth:`VideoModel.complete` takes off (logit adjustment, Menon et al., 2021).
    """
    parts = (train.clips[::7], train.images)
    counts_K = np.ones(codebook_size)
    for part in parts:
        counts_K += np.bincount(part.ravel(), minlength=codebook_size)
    share_K = counts_K / counts_K.sum()
    weight_K = np.minimum(share_K**-balance / (share_K ** (1 - balance)).sum(), MAX_CODE_WEIGHT)
    return torch.from_numpy(weight_K / (weight_K * share_K).sum()).float()


def is_image_step(step: int, image_share: float) -> bool:
    """Tell whether a step takes images: they are spread evenly over the steps."""
    return math.floor((step + 1) * image_share) > math.floor(step * image_share)


def _one_of_each(wordings: list[list[str]], draws: RowDraws) -> list[str]:
    places = draws.uniform((len(draws),)).tolist()
    return [
        some[int(place * len(some))] if some else "" for some, place in zip(wordings, places, strict=True)
    ]


def _one_box_of_each(boxes_BN4: Tensor, draws: RowDraws) -> Tensor:
    """Draw one of the boxes (B, N, 4) of each row that are there; they come first."""
    num_boxes_B = boxes_BN4[..., 0].isfinite().sum(-1)
    place_B = (draws.uniform((len(draws),)) * num_boxes_B).long()
    return boxes_BN4[torch.arange(len(boxes_BN4)), place_B]


def _padded(prompt_BK: Tensor) -> Tensor:
    """Pad the prompts' second axis with zeros to a multiple of a few."""
    missing = -prompt_BK.shape[1] % PROMPT_LENGTH_STEP
    padding = [0, 0] * (prompt_BK.ndim - 2) + [0, missing]
    return functional.pad(prompt_BK, padding)
