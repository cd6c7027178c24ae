"""What the generation benchmark asks for: prompts, images with opposite prompts, masks, all drawn from seeds.

A case knows the true scene too, so that the instruments can be tried on it. Nothing here knows a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drivesim.general_world.captions import CAMERA_WORDS, canonical_caption
from drivesim.general_world.content import (
    ASPECT,
    DIRECTIONS,
    CameraMotion,
    Color,
    Motion,
    ObjectSpec,
    SceneSpec,
    Setting,
    Shape,
    Size,
)
from drivesim.general_world.sampling import (
    EXTENT_MARGIN,
    Combination,
    Split,
    combinations,
    draw_prompt_scene,
    is_held_out,
)
from drivesim.general_world.trajectory import pose

Mask = NDArray[np.bool_]
"""(H, W); True is generated anew."""

OPPOSITES = ((Motion.LEFT, Motion.RIGHT), (Motion.UP, Motion.DOWN))
FLIP_EXTENT = 0.29  # of the frame's height at most: from the middle there is room on both sides
MASK_HEIGHTS, MASK_WIDTHS = (0.35, 0.55), (0.25, 0.4)  # shares of the frame


@dataclass(kw_only=True, slots=True)
class PromptCase:
    """A sentence to make a clip of, and one scene that it is true of."""

    seed: int
    split: Split
    combination: Combination
    scene: SceneSpec

    @property
    def prompt(self) -> str:
        """Return the plain sentence."""
        return canonical_caption(self.combination.color, self.combination.shape, self.combination.motion)


@dataclass(kw_only=True, slots=True)
class FlipCase:
    """A first image that does not tell which way its object will go, and the two ways that are asked for."""

    seed: int
    scene: SceneSpec
    motions: tuple[Motion, Motion]

    def scene_of(self, motion: Motion) -> SceneSpec:
        """Return the scene with the object going one way; its first frame is the same for both."""
        return replace(self.scene, objects=[replace(self.scene.objects[0], motion=motion)])

    def prompt_of(self, motion: Motion) -> str:
        """Return the plain sentence for one way."""
        thing = self.scene.objects[0]
        return canonical_caption(thing.color, thing.shape, motion)


@dataclass(kw_only=True, slots=True)
class CameraCase:
    """An object that stays where it is before a camera that moves."""

    seed: int
    scene: SceneSpec

    @property
    def prompt(self) -> str:
        """Return the plain sentence with the camera's work."""
        thing = self.scene.objects[0]
        still = canonical_caption(thing.color, thing.shape, Motion.STILL)
        return f"{still}, {CAMERA_WORDS[self.scene.camera][0]}"


@dataclass(kw_only=True, slots=True)
class InpaintingCase:
    """A scene of which a rectangle is hidden in all frames, where its object passes in the middle of the clip."""

    seed: int
    scene: SceneSpec
    mask: Mask

    @property
    def prompt(self) -> str:
        """Return the plain sentence of the whole clip."""
        thing = self.scene.objects[0]
        return canonical_caption(thing.color, thing.shape, thing.motion)


def prompt_cases(split: Split, count: int, *, first_seed: int) -> list[PromptCase]:
    """Return cases spread evenly over the combinations of a split with a directional motion, in random order."""
    drawn = _in_turn(combinations(split), count, first_seed)
    return [
        PromptCase(
            seed=first_seed + index,
            split=split,
            combination=combination,
            scene=draw_prompt_scene(np.random.default_rng(first_seed + index), split, combination),
        )
        for index, combination in enumerate(drawn)
    ]


def flip_cases(count: int, *, first_seed: int) -> list[FlipCase]:
    """Return images of combinations that training has seen going both ways; left and right, up and down in turn."""
    queues = [_in_turn(_seen_both_ways(motions), count, first_seed) for motions in OPPOSITES]
    cases = []
    for index in range(count):
        motions, seed = OPPOSITES[index % 2], first_seed + index
        what = queues[index % 2][index // 2]
        scene = draw_prompt_scene(np.random.default_rng(seed), Split.SEEN, what)
        scene.objects = [_in_the_middle(scene.objects[0])]
        cases.append(FlipCase(seed=seed, scene=scene, motions=motions))
    return cases


def camera_cases(count: int, *, first_seed: int) -> list[CameraCase]:
    """Return cases of the four ways in which a camera moves, in turn."""
    moving = [camera for camera in CameraMotion if camera is not CameraMotion.STILL]
    drawn = _in_turn(combinations(Split.SEEN, [Motion.STILL]), count, first_seed)
    cases = []
    for index, what in enumerate(drawn):
        rng = np.random.default_rng(first_seed + index)
        thing = ObjectSpec(color=what.color, shape=what.shape, motion=Motion.STILL, amount=0.0)
        scene = SceneSpec(
            setting=list(Setting)[int(rng.integers(len(Setting)))],
            objects=[thing],
            camera=moving[index % len(moving)],
            seed=int(rng.integers(2**31)),
        )
        cases.append(CameraCase(seed=first_seed + index, scene=scene))
    return cases


def inpainting_cases(count: int, *, first_seed: int, height_px: int, width_px: int) -> list[InpaintingCase]:
    """Return clips with a rectangle to fill in."""
    cases = []
    for index, what in enumerate(_in_turn(combinations(Split.SEEN), count, first_seed)):
        rng = np.random.default_rng(first_seed + index)
        scene = draw_prompt_scene(rng, Split.SEEN, what)
        mask = draw_mask(scene.objects[0], height_px, width_px, rng)
        cases.append(InpaintingCase(seed=first_seed + index, scene=scene, mask=mask))
    return cases


def draw_mask(thing: ObjectSpec, height_px: int, width_px: int, rng: np.random.Generator) -> Mask:
    """Return a rectangle about the place where an object is halfway through the clip."""
    at = pose(thing, 0.5)
    rows, columns = round(rng.uniform(*MASK_HEIGHTS) * height_px), round(rng.uniform(*MASK_WIDTHS) * width_px)
    top = int(np.clip(round(at.y * height_px - rows / 2), 0, height_px - rows))
    left = int(np.clip(round(at.x * width_px - columns / 2), 0, width_px - columns))
    mask = np.zeros((height_px, width_px), dtype=bool)
    mask[top : top + rows, left : left + columns] = True
    return mask


def _in_turn(items: Sequence[Combination], count: int, seed: int) -> list[Combination]:
    """Return ``count`` items in random order, none again before all were taken."""
    order = np.random.default_rng(seed).permutation(len(items))
    return [items[order[index % len(items)]] for index in range(count)]


def _seen_both_ways(motions: tuple[Motion, Motion]) -> list[Combination]:
    return [
        Combination(color=color, shape=shape, motion=motions[0])
        for color in Color
        for shape in Shape
        if not any(is_held_out(color, shape, motion) for motion in motions)
    ]


def _in_the_middle(thing: ObjectSpec) -> ObjectSpec:
    """Put an object in the middle of the axis along which it moves, small enough to go either way."""
    extent = min(thing.extent, FLIP_EXTENT)
    is_sideways = DIRECTIONS[thing.motion][0] != 0
    x, y = (0.5, thing.y) if is_sideways else (thing.x, 0.5)
    room = 0.5 - EXTENT_MARGIN * extent / (ASPECT if is_sideways else 1.0)
    return replace(thing, extent=extent, size=Size.SMALL, amount=min(thing.amount, room), x=x, y=y)
