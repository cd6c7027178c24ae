"""Clips made for the generation benchmark, timed and read: by a video model, or by whatever stands in for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch

from benchmarks.generation_cases import Mask
from benchmarks.readers import Reading, read_clip
from drivesim import console
from drivesim.general_world.content import Image, SceneSpec
from drivesim.general_world.renderer import render
from drivesim.generate import GenerateConfig, image_to_video, inpaint, text_to_video
from drivesim.tokenizer.vqgan import normalized, to_uint8
from drivesim.world_model.video_model import VideoModel

_Item = TypeVar("_Item")


class Maker(Protocol):
    """Whatever makes clips (T, H, W, 3)."""

    def from_text(self, prompt: str, config: GenerateConfig) -> Image:
        """Make a clip of a text."""
        ...

    def from_image(self, image: Image, prompt: str, config: GenerateConfig) -> Image:
        """Go on from a picture (H, W, 3)."""
        ...

    def inpainted(self, frames: Image, mask: Mask, prompt: str, config: GenerateConfig) -> Image:
        """Draw anew what is under a mask."""
        ...

    def tokenized(self, frames: Image) -> Image:
        """Return a clip as the tokenizer gives it back: the best that tokens can show."""
        ...


class ModelMaker:
    """A video model, through the tasks that users call."""

    def __init__(self, model: VideoModel) -> None:
        """Keep the model."""
        self.model = model

    def from_text(self, prompt: str, config: GenerateConfig) -> Image:
        """See :class:`Maker`."""
        return text_to_video(self.model, prompt, config).frames[0]

    def from_image(self, image: Image, prompt: str, config: GenerateConfig) -> Image:
        """See :class:`Maker`."""
        return image_to_video(self.model, image, prompt, config).frames[0]

    def inpainted(self, frames: Image, mask: Mask, prompt: str, config: GenerateConfig) -> Image:
        """See :class:`Maker`."""
        return inpaint(self.model, frames, mask, prompt, config).frames[0]

    def tokenized(self, frames: Image) -> Image:
        """See :class:`Maker`."""
        pictures_TCHW = normalized(torch.from_numpy(np.ascontiguousarray(frames)).to(self.model.device))
        decoded_TCHW = self.model.decode(self.model.encode(pictures_TCHW.unsqueeze(0))).squeeze(0)
        return to_uint8(decoded_TCHW).cpu().numpy()


@dataclass(kw_only=True, slots=True)
class Made:
    """A clip, the seconds that it took, and what the readers see in it."""

    frames: Image
    seconds: float
    reading: Reading


@dataclass(kw_only=True, slots=True)
class Studio:
    """Makes clips of one size in one way."""

    maker: Maker
    config: GenerateConfig  # rounds and guidance; the seed is that of each case
    num_frames: int
    height_px: int
    width_px: int

    def with_rounds(self, num_rounds: int) -> Studio:
        """Return a studio that differs in its decoding rounds."""
        assert self.config.sampler is not None
        sampler = replace(self.config.sampler, num_decode_steps=num_rounds)
        return replace(self, config=replace(self.config, sampler=sampler))

    def with_guidance(self, scale: float) -> Studio:
        """Return a studio that differs in its scale of guidance."""
        assert self.config.guidance is not None
        guidance = replace(self.config.guidance, scale=scale)
        return replace(self, config=replace(self.config, guidance=guidance))

    def true_clip(self, scene: SceneSpec) -> Image:
        """Draw a scene as it is."""
        return render(scene, self.num_frames, self.height_px, self.width_px)

    def from_text(self, prompt: str, seed: int) -> Made:
        """Make a clip of a text."""
        return _made(lambda: self.maker.from_text(prompt, self._seeded(seed)))

    def from_image(self, image: Image, prompt: str, seed: int) -> Made:
        """Go on from a picture."""
        return _made(lambda: self.maker.from_image(image, prompt, self._seeded(seed)))

    def inpainted(self, frames: Image, mask: Mask, prompt: str, seed: int) -> Image:
        """Draw anew what is under a mask."""
        return self.maker.inpainted(frames, mask, prompt, self._seeded(seed))

    def _seeded(self, seed: int) -> GenerateConfig:
        return replace(self.config, seed=seed, num_frames=self.num_frames)


def _made(call: Callable[[], Image]) -> Made:
    started_s = time.perf_counter()
    frames = call()
    seconds = time.perf_counter() - started_s
    return Made(frames=frames, seconds=seconds, reading=read_clip(frames))


def tracked(title: str, items: Sequence[_Item]) -> Iterator[_Item]:
    """Yield items while a progress bar counts those that are finished."""
    with console.progress_bar(title, len(items)) as bar:
        for item in items:
            yield item
            bar.advance()
