"""Says what a scene shows, in words that vary: lower case, no punctuation but commas, few words."""

from __future__ import annotations

import numpy as np

from drivesim.general_world.content import (
    ASPECT,
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
from drivesim.general_world.sampling import closest_gap

MAX_WORDS = 24

SHAPE_WORDS: dict[Shape, list[str]] = {
    Shape.CIRCLE: ["circle", "ball", "disc"],
    Shape.SQUARE: ["square", "box"],
    Shape.TRIANGLE: ["triangle"],
    Shape.STAR: ["star"],
    Shape.CROSS: ["cross", "plus sign"],
    Shape.RING: ["ring", "hoop"],
}
MOTION_WORDS: dict[Motion, list[str]] = {
    Motion.LEFT: [
        "slides left",
        "slides to the left",
        "moves left",
        "moves to the left",
        "glides to the left",
    ],
    Motion.RIGHT: [
        "slides right",
        "slides to the right",
        "moves right",
        "moves to the right",
        "glides to the right",
    ],
    Motion.UP: ["rises", "moves up", "moves upwards", "floats up", "glides upwards"],
    Motion.DOWN: ["falls", "moves down", "moves downwards", "sinks", "glides downwards"],
    Motion.STILL: ["stays still", "stands still", "does not move", "rests in place"],
    Motion.ROTATES: ["rotates", "spins", "turns around"],
    Motion.GROWS: ["grows", "gets bigger", "becomes larger"],
    Motion.SHRINKS: ["shrinks", "gets smaller", "becomes smaller"],
    Motion.BOUNCES: ["bounces", "bounces up and down", "hops up and down"],
    Motion.ORBITS: ["orbits", "moves in a loop", "flies in small loops"],
}
SETTING_WORDS: dict[Setting, list[str]] = {
    Setting.DAY_SKY: ["in a clear sky", "in front of a cloudy sky", "in the sky by day"],
    Setting.SUNSET: ["at sunset", "in a sunset sky", "in the evening"],
    Setting.NIGHT: ["at night", "in the night sky", "under the night sky"],
    Setting.SEA: ["over the sea", "above the waves", "in front of the sea"],
    Setting.HILLS: ["in front of hills", "over misty hills", "in front of grey hills"],
    Setting.DESERT: ["in the desert", "over sand dunes", "above the desert"],
    Setting.FOREST: ["in front of a forest", "in a misty forest", "over the trees"],
    Setting.CITY: ["in the city", "in front of a skyline", "in front of tall buildings"],
    Setting.SNOW: ["in front of snowy mountains", "over the snow", "in a snowy landscape"],
    Setting.STUDIO: ["in a studio", "in front of a plain wall", "in an empty room"],
}
_PLACE_WORDS: dict[Setting, list[str]] = {
    Setting.DAY_SKY: ["a clear sky", "clouds in the sky by day"],
    Setting.SUNSET: ["a sunset", "the evening sky at sunset"],
    Setting.NIGHT: ["the night sky", "a night full of stars"],
    Setting.SEA: ["the sea", "waves on the sea"],
    Setting.HILLS: ["misty hills", "grey hills"],
    Setting.DESERT: ["a desert", "sand dunes in the desert"],
    Setting.FOREST: ["a forest", "a misty forest"],
    Setting.CITY: ["a city", "a skyline of tall buildings"],
    Setting.SNOW: ["snowy mountains", "a snowy landscape"],
    Setting.STUDIO: ["an empty studio", "a plain wall"],
}
CAMERA_WORDS: dict[CameraMotion, list[str]] = {
    CameraMotion.STILL: ["the camera stays still", "still camera"],
    CameraMotion.PAN_LEFT: ["the camera pans left", "the camera pans to the left", "panning left"],
    CameraMotion.PAN_RIGHT: ["the camera pans right", "the camera pans to the right", "panning right"],
    CameraMotion.ZOOM_IN: ["the camera zooms in", "zooming in"],
    CameraMotion.ZOOM_OUT: ["the camera zooms out", "zooming out"],
}
_TEXTURE_WORDS = {Texture.STRIPED: ["striped"], Texture.DOTTED: ["dotted", "spotted"]}
_SIZE_WORDS = {Size.SMALL: ["small", "little"], Size.LARGE: ["large", "big"]}
_SLOW, _FAST = 0.36, 0.56  # shares of the frame

_ALL_SAID_SHARE = 0.9  # of captions that name colour, shape and motion of the main object


def canonical_caption(color: Color, shape: Shape, motion: Motion) -> str:
    """Return the plain sentence of a combination, as in ``a red star slides left``."""
    return _with_article(f"{color.value} {shape.value} {motion.value}")


def caption_of(scene: SceneSpec, rng: np.random.Generator, *, is_image: bool = False) -> str:
    """Describe a scene, leaving out what people leave out; of an image, its first frame, nothing is said of motion."""
    camera = "" if is_image else _camera_phrase(scene, rng)
    if scene.main is None:
        return _joined(_empty_phrase(scene, rng), camera)
    second = _second_phrase(scene, rng, is_image=is_image) if len(scene.objects) > 1 else ""
    setting = _one_of(SETTING_WORDS[scene.setting], rng) if rng.random() < (0.5 if second else 0.75) else ""
    has_size = is_image or not scene.main.motion.changes_size
    main = _main_phrase(scene.main, rng, is_image=is_image, has_size=has_size)
    if setting and not second and rng.random() < 0.15:
        return _joined(setting, main, camera)
    return _joined(" ".join(filter(None, [main, second, setting])), camera)


def frame_caption_of(scene: SceneSpec, rng: np.random.Generator) -> str:
    """Describe what every single frame of a clip shows: nothing that changes while it goes on."""
    if scene.main is None:
        return _empty_phrase(scene, rng)
    is_zoomed = scene.camera in (CameraMotion.ZOOM_IN, CameraMotion.ZOOM_OUT)
    has_size = not is_zoomed and not scene.main.motion.changes_size
    main = _main_phrase(scene.main, rng, is_image=True, has_size=has_size)
    second = f"and {_named(scene.objects[1], rng, has_size=not is_zoomed)}" if len(scene.objects) > 1 else ""
    setting = _one_of(SETTING_WORDS[scene.setting], rng) if rng.random() < (0.5 if second else 0.75) else ""
    return " ".join(filter(None, [main, second, setting]))


def _main_phrase(thing: ObjectSpec, rng: np.random.Generator, *, is_image: bool, has_size: bool) -> str:
    is_said = [True, True, True]
    if rng.random() > _ALL_SAID_SHARE:
        is_said[int(rng.integers(2 if is_image else 3))] = False
    name = _named(thing, rng, has_color=is_said[0], has_shape=is_said[1], has_size=has_size)
    if is_image or not is_said[2]:
        return name
    return f"{name} {_motion_phrase(thing, rng)}"


def _named(
    thing: ObjectSpec,
    rng: np.random.Generator,
    *,
    has_color: bool = True,
    has_shape: bool = True,
    has_size: bool = True,
) -> str:
    words = []
    if has_size and thing.size in _SIZE_WORDS and rng.random() < 0.6:
        words.append(_one_of(_SIZE_WORDS[thing.size], rng))
    if thing.texture in _TEXTURE_WORDS and rng.random() < 0.7:
        words.append(_one_of(_TEXTURE_WORDS[thing.texture], rng))
    if has_color:
        words.append(thing.color.value)
    usual, *others = SHAPE_WORDS[thing.shape]
    shape = _one_of(others, rng) if others and rng.random() < 0.4 else usual
    words.append(shape if has_shape else "thing")
    return _with_article(" ".join(words))


def _motion_phrase(thing: ObjectSpec, rng: np.random.Generator) -> str:
    usual, *others = MOTION_WORDS[thing.motion]
    phrase = usual if rng.random() < 0.4 else _one_of(others, rng)
    if thing.motion.is_directional and rng.random() < 0.3:
        if thing.amount < _SLOW:
            return f"{phrase} slowly"
        if thing.amount > _FAST:
            return f"{phrase} quickly"
    return phrase


def _second_phrase(scene: SceneSpec, rng: np.random.Generator, *, is_image: bool) -> str:
    main, second = scene.objects[:2]
    name = _named(second, rng)
    gap = closest_gap(main, second)
    if not is_image and gap < 0.0:
        return f"{'behind' if scene.is_main_behind else 'in front of'} {name}"
    if is_image or main.motion is Motion.STILL:
        side = (main.x - second.x) * ASPECT
        if abs(side) > 0.3 and rng.random() < 0.6:
            return f"{'left' if side < 0 else 'right'} of {name}"
    return f"{'near' if gap < 0.8 else 'far from'} {name}"


def _empty_phrase(scene: SceneSpec, rng: np.random.Generator) -> str:
    place = _one_of(_PLACE_WORDS[scene.setting], rng)
    return f"a view of {place}" if rng.random() < 0.4 else place


def _camera_phrase(scene: SceneSpec, rng: np.random.Generator) -> str:
    is_moving = scene.camera is not CameraMotion.STILL
    return _one_of(CAMERA_WORDS[scene.camera], rng) if rng.random() < (0.85 if is_moving else 0.08) else ""


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _joined(*phrases: str) -> str:
    return ", ".join(filter(None, phrases))


def _one_of(words: list[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]
