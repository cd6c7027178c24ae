"""Everything random that a camera sees of a place: hour, weather, colours, markings, kind of scenery.

A look is drawn once per world; `Atmosphere` is what it means for light, sky and haze.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.random import Generator

from drivesim.scene.geometry import FloatArray

Color = tuple[float, float, float]
"""Red, green, blue in 0..255."""


class TimeOfDay(Enum):
    """Hour of the day."""

    DAWN = "dawn"
    NOON = "noon"
    DUSK = "dusk"
    NIGHT = "night"


class Weather(Enum):
    """State of the sky."""

    CLEAR = "clear"
    OVERCAST = "overcast"
    HAZE = "haze"
    RAIN = "rain"


class SceneryKind(Enum):
    """What stands beside the road."""

    FOREST = "forest"
    TOWN = "town"
    OPEN = "open"
    SUBURB = "suburb"


@dataclass(kw_only=True, slots=True)
class Look:
    """One draw of all that is random about the pictures of a world; colours are those of noon."""

    time_of_day: TimeOfDay = TimeOfDay.NOON
    weather: Weather = Weather.CLEAR
    scenery: SceneryKind = SceneryKind.OPEN
    ground_rgb: Color = (96.0, 118.0, 62.0)
    patch_rgb: Color = (134.0, 126.0, 78.0)
    shoulder_rgb: Color = (140.0, 132.0, 116.0)
    asphalt_rgb: Color = (92.0, 92.0, 95.0)
    line_rgb: Color = (235.0, 235.0, 230.0)
    edge_rgb: Color = (235.0, 235.0, 230.0)
    line_width_m: float = 0.16
    stripe_length_m: float = 3.0
    stripe_gap_m: float = 6.0
    joint_spacing_m: float = 0.0  # dark joints across the lanes; 0 = none
    asphalt_margin_m: float = 0.4
    shoulder_m: float = 1.2
    density: float = 1.0  # of the scenery
    is_railed: bool = False  # guard rails along the road
    leaf_rgb: Color = (66.0, 98.0, 46.0)
    sun_azimuth_rad: float = 0.8  # global direction towards the sun
    seed: int = 0  # of everything drawn later from this look

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be painted."""
        for name in ("line_width_m", "stripe_length_m"):
            if not getattr(self, name) > 0:
                raise ValueError(f"look.{name} must be positive, got {getattr(self, name)}")
        for name in ("stripe_gap_m", "joint_spacing_m", "asphalt_margin_m", "shoulder_m", "density"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"look.{name} must not be negative, got {getattr(self, name)}")

    @property
    def words(self) -> str:
        """Return caption fragments such as ``overcast dusk, forest``."""
        sky = {Weather.HAZE: "hazy", Weather.RAIN: "rainy"}.get(self.weather, self.weather.value)
        place = {SceneryKind.OPEN: "open country"}.get(self.scenery, self.scenery.value)
        return f"{sky} {self.time_of_day.value}, {place}"


@dataclass(kw_only=True, slots=True)
class Atmosphere:
    """Light, sky and haze of a look; colours in 0..255, light as factors on colours."""

    ambient_rgb: FloatArray  # (3,) factor from the whole sky
    sun_rgb: FloatArray  # (3,) factor of a face turned to the sun
    sun_direction: FloatArray  # (3,) unit vector towards the sun, global
    sky_top_rgb: FloatArray  # (3,)
    horizon_rgb: FloatArray  # (3,)
    cloud_rgb: FloatArray  # (3,)
    cloud_cover: float  # 0..1
    haze_per_m: float  # extinction
    wetness: float  # 0..1: darker, mirroring asphalt
    has_headlights: bool
    is_sun_visible: bool

    def lit(self, rgb: FloatArray, normal: FloatArray) -> FloatArray:
        """Return (..., 3) colours as lit on faces with (..., 3) global unit normals."""
        facing = np.maximum(np.asarray(normal) @ self.sun_direction, 0.0)[..., None]
        return np.asarray(np.asarray(rgb) * (self.ambient_rgb + self.sun_rgb * facing))

    def haze(self, distance_m: FloatArray) -> FloatArray:
        """Return the share of haze colour, 0..1, in things seen at (...) distances."""
        return np.asarray(1.0 - np.exp(-self.haze_per_m * np.asarray(distance_m)))


_LIGHT: dict[TimeOfDay, tuple[Color, Color, float]] = {  # ambient, sun, elevation of the sun
    TimeOfDay.DAWN: ((0.50, 0.49, 0.56), (0.75, 0.52, 0.36), 0.30),
    TimeOfDay.NOON: ((0.56, 0.58, 0.62), (0.58, 0.56, 0.50), 0.95),
    TimeOfDay.DUSK: ((0.40, 0.38, 0.47), (0.72, 0.40, 0.24), 0.22),
    TimeOfDay.NIGHT: ((0.19, 0.21, 0.28), (0.02, 0.02, 0.03), 0.80),
}
_SKY: dict[TimeOfDay, tuple[Color, Color, Color]] = {  # top, horizon, cloud
    TimeOfDay.DAWN: ((118.0, 148.0, 196.0), (246.0, 208.0, 176.0), (250.0, 222.0, 208.0)),
    TimeOfDay.NOON: ((88.0, 144.0, 212.0), (196.0, 216.0, 234.0), (244.0, 246.0, 250.0)),
    TimeOfDay.DUSK: ((84.0, 92.0, 146.0), (236.0, 152.0, 96.0), (190.0, 130.0, 128.0)),
    TimeOfDay.NIGHT: ((14.0, 18.0, 36.0), (40.0, 46.0, 66.0), (30.0, 34.0, 50.0)),
}
_HAZE_PER_M = {Weather.CLEAR: 0.0035, Weather.OVERCAST: 0.006, Weather.HAZE: 0.018, Weather.RAIN: 0.011}
_COVER = {Weather.CLEAR: 0.3, Weather.OVERCAST: 0.85, Weather.HAZE: 0.35, Weather.RAIN: 1.0}
_GREYNESS = {Weather.CLEAR: 0.0, Weather.OVERCAST: 0.75, Weather.HAZE: 0.4, Weather.RAIN: 0.9}
_BRIGHTNESS = {Weather.CLEAR: 1.0, Weather.OVERCAST: 0.95, Weather.HAZE: 1.0, Weather.RAIN: 0.78}


def atmosphere(look: Look) -> Atmosphere:
    """Return light, sky and haze of a look."""
    ambient, sun, elevation_rad = _LIGHT[look.time_of_day]
    grey, bright = _GREYNESS[look.weather], _BRIGHTNESS[look.weather]
    top, horizon, cloud = (_greyed(np.array(color), grey) * bright for color in _SKY[look.time_of_day])
    is_night = look.time_of_day is TimeOfDay.NIGHT
    overcast_gain = 1.0 + (
        0.0 if is_night else 0.4 * grey
    )  # a closed sky scatters what the sun no longer gives
    across = np.cos(elevation_rad)
    return Atmosphere(
        ambient_rgb=_greyed(np.array(ambient), 0.6 * grey) * overcast_gain * bright,
        sun_rgb=np.array(sun) * (1.0 - 0.9 * grey) * bright,
        sun_direction=np.array(
            [
                across * np.cos(look.sun_azimuth_rad),
                across * np.sin(look.sun_azimuth_rad),
                np.sin(elevation_rad),
            ]
        ),
        sky_top_rgb=top * (1.0 - 0.15 * grey) + 0.15 * grey * horizon,
        horizon_rgb=horizon,
        cloud_rgb=cloud,
        cloud_cover=_COVER[look.weather],
        haze_per_m=_HAZE_PER_M[look.weather],
        wetness=1.0 if look.weather is Weather.RAIN else 0.0,
        has_headlights=is_night,
        is_sun_visible=look.weather in (Weather.CLEAR, Weather.HAZE) and elevation_rad < 0.5,
    )


def _greyed(rgb: FloatArray, share: float) -> FloatArray:
    return np.asarray(rgb * (1.0 - share) + float(rgb.mean()) * share)


_GROUNDS: dict[SceneryKind, list[tuple[Color, Color]]] = {  # ground, patches
    SceneryKind.FOREST: [
        ((84.0, 98.0, 56.0), (108.0, 96.0, 66.0)),
        ((74.0, 92.0, 58.0), (96.0, 108.0, 62.0)),
    ],
    SceneryKind.TOWN: [
        ((128.0, 126.0, 118.0), (104.0, 118.0, 82.0)),
        ((116.0, 112.0, 108.0), (140.0, 132.0, 118.0)),
    ],
    SceneryKind.OPEN: [
        ((104.0, 126.0, 66.0), (152.0, 142.0, 84.0)),
        ((164.0, 144.0, 102.0), (136.0, 120.0, 84.0)),
        ((122.0, 132.0, 72.0), (92.0, 116.0, 60.0)),
        ((214.0, 218.0, 226.0), (188.0, 190.0, 190.0)),
    ],
    SceneryKind.SUBURB: [
        ((100.0, 128.0, 68.0), (120.0, 136.0, 78.0)),
        ((112.0, 122.0, 78.0), (134.0, 126.0, 92.0)),
    ],
}
_STRIPES = [(3.0, 6.0), (3.0, 9.0), (4.0, 8.0), (2.5, 4.5), (6.0, 6.0)]  # length, gap in metres


def draw_look(rng: Generator) -> Look:
    """Draw a look: half at noon, a fifth at night, every weather and scenery often enough to learn."""
    scenery = list(SceneryKind)[int(rng.choice(4, p=[0.3, 0.2, 0.25, 0.25]))]
    grounds = _GROUNDS[scenery]
    ground, patch = grounds[int(rng.integers(len(grounds)))]
    is_paved = scenery is SceneryKind.TOWN or (scenery is SceneryKind.SUBURB and rng.random() < 0.5)
    stripe_length_m, stripe_gap_m = _STRIPES[int(rng.integers(len(_STRIPES)))]
    line = _varied((232.0, 232.0, 226.0), 12.0, rng)
    grey = float(rng.uniform(66.0, 124.0))
    return Look(
        time_of_day=list(TimeOfDay)[int(rng.choice(4, p=[0.15, 0.5, 0.15, 0.2]))],
        weather=list(Weather)[int(rng.choice(4, p=[0.45, 0.25, 0.12, 0.18]))],
        scenery=scenery,
        ground_rgb=_varied(ground, 8.0, rng),
        patch_rgb=_varied(patch, 8.0, rng),
        shoulder_rgb=_varied((170.0, 166.0, 158.0) if is_paved else (142.0, 130.0, 108.0), 12.0, rng),
        asphalt_rgb=_varied((grey, grey, grey + 3.0), 3.0, rng),
        line_rgb=line,
        edge_rgb=_varied((226.0, 178.0, 60.0), 10.0, rng) if rng.random() < 0.2 else line,
        line_width_m=float(rng.uniform(0.14, 0.24)),
        stripe_length_m=stripe_length_m,
        stripe_gap_m=stripe_gap_m,
        joint_spacing_m=float(rng.uniform(8.0, 16.0)) if rng.random() < 0.4 else 0.0,
        asphalt_margin_m=float(rng.uniform(0.25, 0.8)),
        shoulder_m=float(rng.uniform(1.8, 2.8) if is_paved else rng.uniform(0.5, 1.8)),
        density=float(rng.uniform(0.5, 1.2)),
        is_railed=bool(scenery in (SceneryKind.FOREST, SceneryKind.OPEN) and rng.random() < 0.35),
        leaf_rgb=_varied((70.0, 102.0, 50.0) if rng.random() < 0.75 else (146.0, 104.0, 48.0), 10.0, rng),
        sun_azimuth_rad=float(rng.uniform(-np.pi, np.pi)),
        seed=int(rng.integers(2**31)),
    )


def _varied(rgb: Color, spread: float, rng: Generator) -> Color:
    red, green, blue = np.clip(
        np.array(rgb) + rng.uniform(-spread, spread) + rng.normal(0, spread / 4, 3), 8.0, 250.0
    )
    return float(red), float(green), float(blue)
