"""What a clip of the general world can hold: colours, shapes, textures, motions, settings, camera work."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""(H, W, 3) or (T, H, W, 3) RGB."""
FloatArray = NDArray[np.floating[Any]]

RATE_HZ = 8.0
CLIP_FRAMES = 16  # all amounts of motion are those of a clip of this length
ASPECT = 1.75  # width by height for which scenes are laid out

MAX_BACKDROP_SATURATION = 0.38  # HSV saturation of everything that is not an object stays below
MIN_OBJECT_SATURATION = 0.65  # and that of the inside of objects above
MIN_OBJECT_VALUE = 0.5


class Color(Enum):
    """Colour of an object."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    CYAN = "cyan"
    BLUE = "blue"
    PURPLE = "purple"
    PINK = "pink"


HUE_DEG: dict[Color, float] = {
    Color.RED: 357.0,
    Color.ORANGE: 27.0,
    Color.YELLOW: 53.0,
    Color.GREEN: 125.0,
    Color.CYAN: 183.0,
    Color.BLUE: 222.0,
    Color.PURPLE: 272.0,
    Color.PINK: 322.0,
}


class Shape(Enum):
    """Outline of an object."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    CROSS = "cross"
    RING = "ring"


class Texture(Enum):
    """Pattern on an object, in shades of its one hue."""

    PLAIN = "plain"
    STRIPED = "striped"
    DOTTED = "dotted"


class Size(Enum):
    """Size of an object in words."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class Motion(Enum):
    """What an object does during a clip."""

    LEFT = "slides left"
    RIGHT = "slides right"
    UP = "rises"
    DOWN = "falls"
    STILL = "stays still"
    ROTATES = "rotates"
    GROWS = "grows"
    SHRINKS = "shrinks"
    BOUNCES = "bounces"
    ORBITS = "orbits"

    @property
    def is_directional(self) -> bool:
        """Whether the object travels across the frame."""
        return self in DIRECTIONS

    @property
    def changes_size(self) -> bool:
        """Whether the object is of another size at the end."""
        return self in (Motion.GROWS, Motion.SHRINKS)


DIRECTIONS: dict[Motion, tuple[float, float]] = {  # unit step right, down
    Motion.LEFT: (-1.0, 0.0),
    Motion.RIGHT: (1.0, 0.0),
    Motion.UP: (0.0, -1.0),
    Motion.DOWN: (0.0, 1.0),
}


class CameraMotion(Enum):
    """What the camera does during a clip."""

    STILL = "still"
    PAN_LEFT = "pans left"
    PAN_RIGHT = "pans right"
    ZOOM_IN = "zooms in"
    ZOOM_OUT = "zooms out"


class Setting(Enum):
    """The place behind the objects."""

    DAY_SKY = "day sky"
    SUNSET = "sunset"
    NIGHT = "night"
    SEA = "sea"
    HILLS = "hills"
    DESERT = "desert"
    FOREST = "forest"
    CITY = "city"
    SNOW = "snow"
    STUDIO = "studio"


@dataclass(kw_only=True, slots=True)
class ObjectSpec:
    """One object; places are shares of the frame as a camera in its middle pose sees them."""

    color: Color
    shape: Shape
    motion: Motion
    texture: Texture = Texture.PLAIN
    size: Size = Size.MEDIUM
    extent: float = 0.36  # across, as a share of the frame's height, at the start of the clip
    x: float = 0.5  # middle at the start, share of the width from the left
    y: float = 0.5  # share of the height from the top
    amount: float = 0.4  # of the motion during a clip, see `trajectory.pose`
    angle_rad: float = 0.0  # tilt at the start, clockwise

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not 0.0 < self.extent <= 2.0:
            raise ValueError(f"extent is a share of the frame's height in (0, 2], got {self.extent}")
        if self.amount < 0:
            raise ValueError(f"amount must not be negative, got {self.amount}")


@dataclass(kw_only=True, slots=True)
class SceneSpec:
    """One clip: a setting, objects (the main one first) and the work of the camera."""

    setting: Setting
    objects: list[ObjectSpec] = field(default_factory=list)
    camera: CameraMotion = CameraMotion.STILL
    is_main_behind: bool = False  # the second object hides the main one where they meet
    seed: int = 0  # of every detail of the setting and of the shade of the colours

    @property
    def main(self) -> ObjectSpec | None:
        """The object that the clip is about."""
        return self.objects[0] if self.objects else None
