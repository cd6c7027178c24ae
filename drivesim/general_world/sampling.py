"""Draws scenes; some pairs of colour, shape and motion are held out to test whether a model composes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

import numpy as np

from drivesim.general_world.content import (
    ASPECT,
    CLIP_FRAMES,
    DIRECTIONS,
    CameraMotion,
    Color,
    Motion,
    ObjectSpec,
    SceneSpec,
    Setting,
    Shape,
    Size,
    Texture,
)
from drivesim.general_world.trajectory import camera_pose, pose, progress

_Item = TypeVar("_Item")
_COLORS, _SHAPES, _MOTIONS = list(Color), list(Shape), list(Motion)
_MOTION_SHARES = [0.13 if motion.is_directional else 0.08 for motion in _MOTIONS]
_NUM_OBJECT_SHARES = [0.05, 0.75, 0.20]  # none, one, two
_CAMERA_SHARE = 0.40  # of the scenes with one object that does not travel
_EMPTY_CAMERA_SHARE = 0.7
_EXTENTS = {Size.SMALL: (0.24, 0.29), Size.MEDIUM: (0.33, 0.42), Size.LARGE: (0.47, 0.58)}
_SIZE_SHARES = [0.25, 0.45, 0.30]
EXTENT_MARGIN = 0.47  # of the extent stays inside the frame on either side of the middle
_NUM_TRIES = 30


class Split(Enum):
    """Which combinations a scene may show."""

    SEEN = "seen"
    HELD_OUT = "held out"


@dataclass(kw_only=True, slots=True, frozen=True)
class Combination:
    """What a model has to compose: one object and what it does."""

    color: Color
    shape: Shape
    motion: Motion


def is_held_out(color: Color, shape: Shape, motion: Motion) -> bool:
    """Tell whether any two of the three belong to the pairs that training never sees together."""
    c, s, m = _COLORS.index(color), _SHAPES.index(shape), _MOTIONS.index(motion)
    return (c + 3 * s) % 8 == 0 or (c + 3 * m) % 8 == 6 or (3 * s + 5 * m) % 8 == 1


def combinations(split: Split, motions: list[Motion] | None = None) -> list[Combination]:
    """Return all combinations of a split, by default those with a directional motion."""
    triples = itertools.product(_COLORS, _SHAPES, motions or list(DIRECTIONS))
    wanted = split is Split.HELD_OUT
    return [Combination(color=c, shape=s, motion=m) for c, s, m in triples if is_held_out(c, s, m) == wanted]


# ------------------------------------------------------------------------------------------------ scenes


def draw_scene(rng: np.random.Generator, split: Split) -> SceneSpec:
    """Draw a scene; in the held-out split the main object shows at least one held-out pair."""
    num_objects = int(rng.choice(3, p=_NUM_OBJECT_SHARES))
    scene = SceneSpec(setting=_one_of(list(Setting), rng), seed=int(rng.integers(2**31)))
    if num_objects == 0 and split is Split.SEEN:
        if rng.random() < _EMPTY_CAMERA_SHARE:
            scene.camera = _one_of(
                [camera for camera in CameraMotion if camera is not CameraMotion.STILL], rng
            )
        return scene
    main = _draw_combination(rng, split)
    if num_objects != 2 and rng.random() < _CAMERA_SHARE:
        scene.camera = _draw_camera(main.motion, rng)
    scene.objects.append(_draw_object(main, scene.camera, rng))
    if num_objects == 2:
        _add_second(scene, rng)
    return scene


def draw_prompt_scene(
    rng: np.random.Generator, split: Split, combination: Combination | None = None
) -> SceneSpec:
    """Draw a scene with one object that travels before a still camera, of a given combination or any."""
    if combination is None:
        combination = _one_of(combinations(split), rng)
    thing = _draw_object(combination, CameraMotion.STILL, rng)
    setting = _one_of(list(Setting), rng)
    return SceneSpec(setting=setting, objects=[thing], seed=int(rng.integers(2**31)))


def _one_of(items: list[_Item], rng: np.random.Generator) -> _Item:
    return items[int(rng.integers(len(items)))]


def _draw_combination(
    rng: np.random.Generator, split: Split, motions: list[Motion] | None = None
) -> Combination:
    while True:
        drawn = Combination(
            color=_one_of(_COLORS, rng),
            shape=_one_of(_SHAPES, rng),
            motion=_one_of(motions, rng) if motions else _MOTIONS[int(rng.choice(10, p=_MOTION_SHARES))],
        )
        if is_held_out(drawn.color, drawn.shape, drawn.motion) == (split is Split.HELD_OUT):
            return drawn


def _draw_camera(motion: Motion, rng: np.random.Generator) -> CameraMotion:
    """A travelling object leaves the camera still; one that changes its size leaves the zoom alone."""
    pans = [CameraMotion.PAN_LEFT, CameraMotion.PAN_RIGHT]
    if motion.is_directional:
        return CameraMotion.STILL
    if motion in (Motion.GROWS, Motion.SHRINKS):
        return _one_of(pans, rng)
    return _one_of([*pans, CameraMotion.ZOOM_IN, CameraMotion.ZOOM_OUT], rng)


# ----------------------------------------------------------------------------------------------- objects


def _draw_object(what: Combination, camera: CameraMotion, rng: np.random.Generator) -> ObjectSpec:
    sizes = list(Size) if camera is CameraMotion.STILL else [Size.SMALL, Size.MEDIUM]
    shares = np.array(_SIZE_SHARES[: len(sizes)])
    size = sizes[int(rng.choice(len(sizes), p=shares / shares.sum()))]
    textures = [Texture.PLAIN, Texture.STRIPED, Texture.DOTTED]
    if what.motion is Motion.ROTATES and what.shape in (Shape.CIRCLE, Shape.RING):
        texture = Texture.STRIPED  # the turning of a plain one cannot be seen
    else:
        texture = textures[int(rng.choice(3, p=[0.6, 0.2, 0.2]))]
    thing = ObjectSpec(
        color=what.color,
        shape=what.shape,
        motion=what.motion,
        texture=texture,
        extent=float(rng.uniform(*_EXTENTS[size])),
        angle_rad=float(rng.uniform(-0.15, 0.15)),
    )
    _draw_amount(thing, rng)
    thing.size = _size_of(thing.extent)
    _place(thing, camera, rng)
    return thing


def _size_of(extent: float) -> Size:
    return Size.SMALL if extent < 0.31 else Size.MEDIUM if extent < 0.445 else Size.LARGE


def _draw_amount(thing: ObjectSpec, rng: np.random.Generator) -> None:
    across = 2.0 * EXTENT_MARGIN * thing.extent
    match thing.motion:
        case Motion.LEFT | Motion.RIGHT:
            thing.amount = min(float(rng.uniform(0.32, 0.65)), 0.98 - across / ASPECT)
        case Motion.UP | Motion.DOWN:
            thing.amount = min(float(rng.uniform(0.32, 0.6)), 0.98 - across)
        case Motion.ROTATES:
            thing.amount = float(rng.uniform(0.45, 0.75))
        case Motion.GROWS:
            thing.amount = float(rng.uniform(1.7, 2.2))
            thing.extent = float(rng.uniform(0.24, 0.32))
        case Motion.SHRINKS:
            thing.amount = 1.0 / float(rng.uniform(1.7, 2.2))
            thing.extent = float(rng.uniform(0.24, 0.32)) / thing.amount
        case Motion.BOUNCES:
            thing.amount = min(float(rng.uniform(0.18, 0.32)), 0.9 - across)
        case Motion.ORBITS:
            thing.amount = min(float(rng.uniform(0.13, 0.2)), 0.45 - across / 2.0)
        case Motion.STILL:
            thing.amount = 0.0


def _place(thing: ObjectSpec, camera: CameraMotion, rng: np.random.Generator) -> None:
    """Put an object where all of its path, as the camera sees it, is inside the frame."""
    lows, highs = [], []
    origin = replace(thing, x=0.0, y=0.0)
    for frame in range(CLIP_FRAMES):
        at, view = pose(origin, progress(frame)), camera_pose(camera, progress(frame))
        margin = EXTENT_MARGIN * at.extent * np.array([1.0 / ASPECT, 1.0])
        offset = np.array([at.x + view.shift, at.y])
        half = 0.5 / view.zoom - margin
        lows.append(0.5 - half - offset)
        highs.append(0.5 + half - offset)
    low, high = np.max(lows, axis=0), np.min(highs, axis=0)
    middle, spread = (low + high) / 2.0, np.maximum(high - low, 0.0) / 2.0
    thing.x, thing.y = (middle + spread * rng.uniform(-1.0, 1.0, 2)).tolist()


def _add_second(scene: SceneSpec, rng: np.random.Generator) -> None:
    """Add an object that stays where it is, across the way of the main one or clear of it."""
    main = scene.objects[0]
    is_met = bool(rng.random() < 0.5)
    for _ in range(_NUM_TRIES):
        what = _draw_combination(rng, Split.SEEN, [Motion.STILL])
        second = _draw_object(what, CameraMotion.STILL, rng)
        if not _are_distinct(main, second) or second.size is Size.LARGE:
            continue
        gap = closest_gap(main, second)
        if (-0.75 < gap < -0.3) if is_met else gap > 0.1:
            scene.objects.append(second)
            scene.is_main_behind = bool(is_met and rng.random() < 0.5)
            return


def _are_distinct(one: ObjectSpec, other: ObjectSpec) -> bool:
    """Tell whether two objects differ in shape and are far apart in the order of hues."""
    steps = abs(_COLORS.index(one.color) - _COLORS.index(other.color))
    return one.shape is not other.shape and min(steps, len(_COLORS) - steps) >= 2


def closest_gap(one: ObjectSpec, other: ObjectSpec) -> float:
    """Return the least gap between two objects over a clip, as a share of their mean extent."""
    gaps = []
    for frame in range(CLIP_FRAMES):
        a, b = pose(one, progress(frame)), pose(other, progress(frame))
        across = (a.extent + b.extent) / 2.0
        gaps.append(float(np.hypot((a.x - b.x) * ASPECT, a.y - b.y)) / across - 1.0)
    return min(gaps)
