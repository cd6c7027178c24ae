"""Clips generated for the benchmark, timed and read: by a video model, or by whatever stands in for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch

from benchmarks.generation_cases import Mask
from benchmarks.readers import Reading, read_clip
from drivesim import console, generate
from drivesim.general_world.content import Image, SceneSpec
from drivesim.general_world.renderer import render
from drivesim.generate import GenerateConfig
from drivesim.tokenizer.vqgan import normalized, to_uint8
from drivesim.world_model.video_model import VideoModel

_Item = TypeVar("_Item")


class ClipGenerator(Protocol):
    """Whatever generates clips (T, H, W, 3)."""

    def text_to_video(self, prompt: str, config: GenerateConfig) -> Image:
        """Generate a clip from a text."""
        ...

    def image_to_video(self, image: Image, prompt: str, config: GenerateConfig) -> Image:
        """Go on from a picture (H, W, 3)."""
        ...

    def inpaint(self, frames: Image, mask: Mask, prompt: str, config: GenerateConfig) -> Image:
        """Generate anew what is under a mask."""
        ...

    def reconstruct(self, frames: Image) -> Image:
        """Return a clip as the tokenizer gives it back: the best that tokens can show."""
        ...


class VideoModelGenerator:
    """A video model, through the tasks that users call."""

    def __init__(self, model: VideoModel) -> None:
        """Keep the model."""
        self.model = model

    def text_to_video(self, prompt: str, config: GenerateConfig) -> Image:
        """See :class:`ClipGenerator`."""
        return generate.text_to_video(self.model, prompt, config).frames[0]

    def image_to_video(self, image: Image, prompt: str, config: GenerateConfig) -> Image:
        """See :class:`ClipGenerator`."""
        return generate.image_to_video(self.model, image, prompt, config).frames[0]

    def inpaint(self, frames: Image, mask: Mask, prompt: str, config: GenerateConfig) -> Image:
        """See :class:`ClipGenerator`."""
        return generate.inpaint(self.model, frames, mask, prompt, config).frames[0]

    def reconstruct(self, frames: Image) -> Image:
        """See :class:`ClipGenerator`."""
        pictures_TCHW = normalized(torch.from_numpy(np.ascontiguousarray(frames)).to(self.model.device))
        decoded_TCHW = self.model.decode(self.model.encode(pictures_TCHW.unsqueeze(0))).squeeze(0)
        return to_uint8(decoded_TCHW).cpu().numpy()


@dataclass(kw_only=True, slots=True)
class GeneratedClip:
    """A clip, the seconds that it took, and what the readers see in it."""

    frames: Image
    seconds: float
    reading: Reading


@dataclass(kw_only=True, slots=True)
class GenerationPipeline:
    """A generator with its settings: clips of one size, each with a seed of its own."""

    generator: ClipGenerator
    config: GenerateConfig  # rounds and guidance; the seed is that of each case
    num_frames: int
    height_px: int
    width_px: int

    def with_rounds(self, num_rounds: int) -> GenerationPipeline:
        """Return a pipeline of so many decoding rounds, as the paper counts them: nothing is revised after them."""
        assert self.config.sampler is not None
        sampler = replace(self.config.sampler, num_decode_steps=num_rounds, num_revisions=0)
        return replace(self, config=replace(self.config, sampler=sampler))

    def with_guidance(self, scale: float) -> GenerationPipeline:
        """Return a pipeline that differs in its scale of guidance."""
        assert self.config.guidance is not None
        guidance = replace(self.config.guidance, scale=scale)
        return replace(self, config=replace(self.config, guidance=guidance))

    def true_clip(self, scene: SceneSpec) -> Image:
        """Render a scene as it is."""
        return render(scene, self.num_frames, self.height_px, self.width_px)

    def text_to_video(self, prompt: str, seed: int) -> GeneratedClip:
        """Generate a clip from a text."""
        return _timed_and_read(lambda: self.generator.text_to_video(prompt, self._seeded(seed)))

    def image_to_video(self, image: Image, prompt: str, seed: int) -> GeneratedClip:
        """Go on from a picture."""
        return _timed_and_read(lambda: self.generator.image_to_video(image, prompt, self._seeded(seed)))

    def inpaint(self, frames: Image, mask: Mask, prompt: str, seed: int) -> Image:
        """Generate anew what is under a mask."""
        return self.generator.inpaint(frames, mask, prompt, self._seeded(seed))

    def reconstruct(self, frames: Image) -> Image:
        """Return a clip as the tokenizer gives it back."""
        return self.generator.reconstruct(frames)

    def _seeded(self, seed: int) -> GenerateConfig:
        return replace(self.config, seed=seed, num_frames=self.num_frames)


def _timed_and_read(call: Callable[[], Image]) -> GeneratedClip:
    started_s = time.perf_counter()
    frames = call()
    seconds = time.perf_counter() - started_s
    return GeneratedClip(frames=frames, seconds=seconds, reading=read_clip(frames))


def tracked(title: str, items: Sequence[_Item]) -> Iterator[_Item]:
    """Yield items while a progress bar counts those that are finished."""
    with console.progress_bar(title, len(items)) as bar:
        for item in items:
            yield item
            bar.advance()
