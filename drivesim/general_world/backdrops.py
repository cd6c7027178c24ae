"""Settings as layers of muted colours, far to near, each wider than the frame by what a pan uncovers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from drivesim.general_world.content import Setting
from drivesim.general_world.layers import Brush, Layer, Rgb

_Painter = Callable[[Brush], None]


def backdrop(
    setting: Setting, height_px: int, width_px: int, pan_px: int, rng: np.random.Generator
) -> list[Layer]:
    """Paint a setting; every layer is ``pan_px`` wider than the frame on either side."""
    brush = Brush(height_px, width_px, pan_px, rng)
    _PAINTERS[setting](brush)
    return brush.layers


def _day_sky(brush: Brush) -> None:
    top, low = brush.varied((138, 168, 206)), brush.varied((206, 216, 226))
    brush.sky(top, low)
    for _ in range(int(brush.rng.integers(4, 8))):
        brush.cloud(brush.rng.uniform(0.05, 0.6), (242, 244, 247))
    brush.ridge(0.90, 0.05, brush.varied((150, 164, 132)), brush.varied((128, 142, 112)), 0.9)


def _sunset(brush: Brush) -> None:
    brush.sky(brush.varied((128, 118, 152)), brush.varied((240, 196, 168)), bend=0.9)
    brush.sun((250, 226, 190), y=brush.rng.uniform(0.5, 0.68), radius=0.11)
    for _ in range(int(brush.rng.integers(2, 5))):
        brush.cloud(brush.rng.uniform(0.1, 0.5), (206, 168, 170))
    brush.ridge(0.76, 0.10, (140, 112, 122), (118, 96, 108), 0.55)
    brush.ridge(0.88, 0.06, (92, 78, 90), (72, 62, 74), 0.9)


def _night(brush: Brush) -> None:
    brush.sky(brush.varied((34, 38, 54), 4), brush.varied((74, 80, 104), 5))
    brush.stars(80)
    brush.sun((226, 226, 214), y=brush.rng.uniform(0.12, 0.3), radius=0.07)
    brush.ridge(0.80, 0.10, (52, 56, 70), (44, 46, 58), 0.55)
    brush.ridge(0.91, 0.05, (38, 40, 48), (32, 33, 40), 0.9)


def _sea(brush: Brush) -> None:
    brush.sky(brush.varied((150, 176, 204)), brush.varied((216, 222, 226)))
    for _ in range(int(brush.rng.integers(2, 5))):
        brush.cloud(brush.rng.uniform(0.05, 0.3), (240, 242, 244))
    horizon = brush.rng.uniform(0.42, 0.5)
    brush.water(horizon, brush.varied((142, 166, 182)), brush.varied((98, 128, 152)))


def _hills(brush: Brush) -> None:
    brush.sky(brush.varied((176, 192, 206)), brush.varied((222, 224, 220)))
    brush.ridge(0.48, 0.16, (166, 176, 176), (180, 188, 184), 0.4)
    brush.ridge(0.62, 0.13, (142, 156, 140), (158, 168, 150), 0.6)
    brush.ridge(0.76, 0.11, (118, 136, 108), (134, 148, 118), 0.8)
    brush.ridge(0.89, 0.07, (98, 116, 86), (88, 104, 78), 1.0)


def _desert(brush: Brush) -> None:
    brush.sky(brush.varied((168, 186, 200)), brush.varied((232, 222, 204)))
    brush.sun((248, 242, 224), y=brush.rng.uniform(0.12, 0.3), radius=0.08)
    brush.ridge(0.55, 0.08, (200, 176, 146), (214, 192, 160), 0.45)
    brush.ridge(0.68, 0.13, (214, 190, 152), (190, 164, 130), 0.7)
    brush.ridge(0.85, 0.12, (226, 202, 162), (196, 168, 130), 1.0)


def _forest(brush: Brush) -> None:
    brush.sky(brush.varied((186, 198, 200)), brush.varied((222, 226, 222)))
    for y, size, rgb, nearness in (
        (0.52, 0.20, (172, 184, 178), 0.4),
        (0.66, 0.27, (136, 152, 140), 0.65),
        (0.84, 0.36, (92, 110, 94), 1.0),
    ):
        brush.conifers(y, size, rgb, nearness)


def _city(brush: Brush) -> None:
    brush.sky(brush.varied((150, 158, 182)), brush.varied((222, 208, 204)))
    brush.houses(0.42, 0.34, (168, 168, 180), (184, 184, 192), 0.45)
    brush.houses(0.60, 0.28, (112, 114, 130), (206, 194, 160), 0.75)
    brush.ridge(0.93, 0.0, (100, 102, 110), (84, 86, 94), 1.0)


def _snow(brush: Brush) -> None:
    brush.sky(brush.varied((150, 172, 200)), brush.varied((214, 222, 232)))
    brush.peaks(0.46, 0.26, (136, 146, 164), (240, 243, 248), 0.45)
    brush.ridge(0.74, 0.07, (226, 231, 238), (206, 214, 226), 0.75)
    brush.conifers(0.80, 0.14, (104, 118, 120), 0.85)
    brush.ridge(0.86, 0.05, (242, 244, 248), (216, 222, 232), 1.0)


def _studio(brush: Brush) -> None:
    wall: Rgb = [(206, 200, 190), (190, 198, 202), (200, 192, 200), (194, 200, 188)][
        int(brush.rng.integers(4))
    ]
    brush.sky(brush.varied(wall), brush.varied(wall), nearness=0.7)
    brush.panels(0.74)
    brush.floor(0.74, brush.varied((172, 154, 132)), brush.varied((140, 122, 104)))


_PAINTERS: dict[Setting, _Painter] = {
    Setting.DAY_SKY: _day_sky,
    Setting.SUNSET: _sunset,
    Setting.NIGHT: _night,
    Setting.SEA: _sea,
    Setting.HILLS: _hills,
    Setting.DESERT: _desert,
    Setting.FOREST: _forest,
    Setting.CITY: _city,
    Setting.SNOW: _snow,
    Setting.STUDIO: _studio,
}
