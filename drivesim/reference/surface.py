"""The ground of a world: all lanes painted once into a bird's-eye texture with mip levels; the drivable area.

Row 0 of the texture is its northern edge (largest y), as in a map mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from highway_env.road.lane import AbstractLane, LineType
from highway_env.road.road import RoadNetwork
from numpy.random import Generator
from numpy.typing import NDArray

from drivesim.reference.look import Look, Weather
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import DrivableArea, Image, PaintedLine

MARGIN_M = 60.0
_FINEST_M = 0.1
_MAX_PIXELS = 9_000_000
_NUM_LEVELS = 6
_DRIVABLE_CELL_M = 0.2
_GROUND_CELL_M = 1.0
_SHIFT = 4  # fractional bits of the coordinates that cv2 draws


@dataclass(kw_only=True, slots=True)
class LaneEdges:
    """A lane as sampled: its two edges in global coordinates, at rising distances along it."""

    s_m: FloatArray  # (N,)
    first_xy_m: FloatArray  # (N, 2) edge at lateral -width / 2
    second_xy_m: FloatArray  # (N, 2) edge at lateral +width / 2
    width_m: float
    line_types: tuple[int, int]

    def at(self, lateral_m: float) -> FloatArray:
        """Return the (N, 2) curve at a lateral offset from the lane's middle, linear across the lane."""
        share = 0.5 + lateral_m / self.width_m
        return np.asarray(self.first_xy_m * (1.0 - share) + self.second_xy_m * share)

    def resampled(self, s_m: FloatArray, lateral_m: float) -> FloatArray:
        """Return (M, 2) points at distances ``s_m`` and a lateral offset."""
        curve = self.at(lateral_m)
        return np.stack(
            [np.interp(s_m, self.s_m, curve[:, 0]), np.interp(s_m, self.s_m, curve[:, 1])], axis=-1
        )


@dataclass(kw_only=True, slots=True)
class Surface:
    """The painted ground; ``levels[k]`` has ``resolution_m * 2**k`` metres per pixel."""

    levels: list[Image]  # each (rows, columns, 3) RGB
    resolution_m: float
    size_m: tuple[float, float]  # extent along x and y; the lower left corner is the global origin
    far_rgb: FloatArray  # (3,) colour of the ground beyond the texture
    drivable: DrivableArea

    def level_from_global(self, level: int) -> FloatArray:
        """Return the (3, 3) map from global metres to pixel indices (column, row) of a mip level."""
        scale = 1.0 / (self.resolution_m * 2**level)
        return np.array([[scale, 0.0, -0.5], [0.0, -scale, self.size_m[1] * scale - 0.5], [0.0, 0.0, 1.0]])


def sample_lanes(network: RoadNetwork, offset_m: FloatArray, *, spacing_m: float = 1.5) -> list[LaneEdges]:
    """Sample every lane of a network, moved by ``offset_m``."""
    lanes = [lane for ends in network.graph.values() for group in ends.values() for lane in group]
    return [_sample_lane(lane, np.asarray(offset_m, dtype=np.float64), spacing_m) for lane in lanes]


def _sample_lane(lane: AbstractLane, offset_m: FloatArray, spacing_m: float) -> LaneEdges:
    s_m = np.linspace(0.0, lane.length, max(2, int(np.ceil(lane.length / spacing_m)) + 1))
    first = np.array([lane.position(s, -lane.width_at(s) / 2) for s in s_m]) + offset_m
    second = np.array([lane.position(s, lane.width_at(s) / 2) for s in s_m]) + offset_m
    types = lane.line_types or (LineType.NONE, LineType.NONE)
    return LaneEdges(
        s_m=s_m,
        first_xy_m=first,
        second_xy_m=second,
        width_m=float(lane.width_at(0.0)),
        line_types=(int(types[0]), int(types[1])),
    )


def paint_surface(network: RoadNetwork, *, offset_m: FloatArray, look: Look, rng: Generator) -> Surface:
    """Paint all lanes of a network into a texture that begins at the global origin.

    Args:
        network: a HighwayEnv road network.
        offset_m: (2,) what to add to the network's coordinates; should leave all roads >= 40 m from the axes.
        look: colours, markings, shoulders.
        rng: draws ground patches and the wear of the asphalt.
    """
    lanes = sample_lanes(network, offset_m)
    corners = np.concatenate([np.concatenate([lane.first_xy_m, lane.second_xy_m]) for lane in lanes])
    if corners.min() < 0.0:
        raise ValueError(
            f"roads must lie at non-negative coordinates, got {corners.min(axis=0)}; raise offset_m"
        )
    extent = corners.max(axis=0) + MARGIN_M
    resolution_m = max(_FINEST_M, float(np.sqrt(extent.prod() / _MAX_PIXELS)))
    coarsest_m = resolution_m * 2 ** (
        _NUM_LEVELS - 1
    )  # whole cells of it, so that every level halves exactly
    size_x, size_y = (float(v) for v in np.ceil(extent / coarsest_m) * coarsest_m)
    drivable = _drivable_area(lanes, look, size_x, size_y)
    painter = _Painter(size_x, size_y, resolution_m, look, rng)
    painter.paint(lanes)
    levels = [cv2.GaussianBlur(painter.image, (3, 3), 0.7)]  # softens the stairs of thin lines
    for _ in range(_NUM_LEVELS - 1):
        rows, columns = levels[-1].shape[:2]
        levels.append(cv2.resize(levels[-1], (columns // 2, rows // 2), interpolation=cv2.INTER_AREA))
    return Surface(
        levels=levels,
        resolution_m=resolution_m,
        size_m=(size_x, size_y),
        far_rgb=painter.far_rgb,
        drivable=drivable,
    )


def _drivable_area(lanes: list[LaneEdges], look: Look, size_x: float, size_y: float) -> DrivableArea:
    rows, columns = int(np.ceil(size_y / _DRIVABLE_CELL_M)), int(np.ceil(size_x / _DRIVABLE_CELL_M))
    mask = np.zeros((rows, columns), np.uint8)
    for lane in lanes:
        for quad in _pixel_quads(
            lane.first_xy_m, lane.second_xy_m, rows * _DRIVABLE_CELL_M, _DRIVABLE_CELL_M
        ):
            cv2.fillConvexPoly(mask, quad, 1, cv2.LINE_8, _SHIFT)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    lines = tuple(
        PaintedLine(xy_m=(marking.first_xy_m + marking.second_xy_m) / 2, width_m=look.line_width_m)
        for lane in lanes
        for marking in _markings(lane, look)
    )
    return DrivableArea(
        mask=mask.astype(bool), resolution_m=_DRIVABLE_CELL_M, origin_xy_m=np.zeros(2), lines=lines
    )


@dataclass(kw_only=True, slots=True)
class _Marking:
    """A painted line, or one stripe of it, between two curves."""

    first_xy_m: FloatArray  # (N, 2)
    second_xy_m: FloatArray  # (N, 2)
    rgb: tuple[float, float, float]


def _markings(lane: LaneEdges, look: Look) -> Iterator[_Marking]:
    """Yield what is painted on both sides of a lane."""
    half = look.line_width_m / 2
    for side, line_type in enumerate(lane.line_types):
        lateral_m = (side - 0.5) * lane.width_m
        if line_type in (LineType.CONTINUOUS, LineType.CONTINUOUS_LINE):
            yield _Marking(
                first_xy_m=lane.at(lateral_m - half), second_xy_m=lane.at(lateral_m + half), rgb=look.edge_rgb
            )
        elif line_type == LineType.STRIPED:
            stripe_m = look.stripe_length_m * np.array([0.0, 0.5, 1.0])
            for start_m in np.arange(0.0, lane.s_m[-1], look.stripe_length_m + look.stripe_gap_m):
                s_m = np.clip(start_m + stripe_m, 0.0, lane.s_m[-1])
                yield _Marking(
                    first_xy_m=lane.resampled(s_m, lateral_m - half),
                    second_xy_m=lane.resampled(s_m, lateral_m + half),
                    rgb=look.line_rgb,
                )


def _pixel_quads(
    first_xy_m: FloatArray, second_xy_m: FloatArray, size_y_m: float, resolution_m: float
) -> NDArray[np.int32]:
    """Return (N - 1, 4, 2) quads between two curves, in cv2's fixed-point pixel coordinates."""
    quads = np.stack([first_xy_m[:-1], first_xy_m[1:], second_xy_m[1:], second_xy_m[:-1]], axis=1)
    quads = np.stack([quads[..., 0], size_y_m - quads[..., 1]], axis=-1) / resolution_m - 0.5
    return np.round(quads * (1 << _SHIFT)).astype(np.int32)


class _Painter:
    """Holds the texture while it is painted, ground first, markings last."""

    def __init__(self, size_x: float, size_y: float, resolution_m: float, look: Look, rng: Generator) -> None:
        self._size_y, self._resolution_m, self._look, self._rng = size_y, resolution_m, look, rng
        wet = 0.68 if look.weather is Weather.RAIN else 1.0
        self._asphalt = np.array(look.asphalt_rgb) * wet
        self._shoulder = np.array(look.shoulder_rgb) * (0.8 if wet < 1.0 else 1.0)
        ground, patch = np.array(look.ground_rgb), np.array(look.patch_rgb)
        self.far_rgb = 0.7 * ground + 0.3 * patch
        coarse = _ground(size_x, size_y, ground=ground, patch=patch, far=self.far_rgb, rng=rng)
        shape = (round(size_x / resolution_m), round(size_y / resolution_m))
        self.image: Image = cv2.resize(coarse, shape, interpolation=cv2.INTER_LINEAR)

    def paint(self, lanes: list[LaneEdges]) -> None:
        """Paint shoulders, asphalt, wear and markings of all lanes, in this order."""
        margin_m = self._look.asphalt_margin_m
        for lane in lanes:
            half = lane.width_m / 2 + margin_m + self._look.shoulder_m
            self._ribbon(lane, -half, half, self._shoulder[None])
        for lane in lanes:
            half = lane.width_m / 2 + margin_m
            self._ribbon(lane, -half, half, self._asphalt[None])
        for lane in lanes:
            self._wear(lane)
        for lane in lanes:
            for marking in _markings(lane, self._look):
                quads = _pixel_quads(
                    marking.first_xy_m, marking.second_xy_m, self._size_y, self._resolution_m
                )
                self._fill(quads, np.tile(marking.rgb, (len(marking.first_xy_m), 1)))

    def _ribbon(self, lane: LaneEdges, from_m: float, to_m: float, rgb: FloatArray) -> None:
        """Paint the strip between two lateral offsets; (1 or N, 3) colours along the lane."""
        quads = _pixel_quads(lane.at(from_m), lane.at(to_m), self._size_y, self._resolution_m)
        self._fill(quads, np.broadcast_to(rgb, (len(lane.s_m), 3)))

    def _fill(self, quads: NDArray[np.int32], rgb: FloatArray) -> None:
        for quad, color in zip(quads, rgb.tolist(), strict=False):
            cv2.fillConvexPoly(self.image, quad, color, cv2.LINE_AA, _SHIFT)

    def _wear(self, lane: LaneEdges) -> None:
        """Paint slow changes of tone, wheel tracks, repaired patches and joints."""
        tone = _smooth_noise_1d(len(lane.s_m), self._rng)[:, None]
        half = lane.width_m / 2
        self._ribbon(lane, -half, half, self._asphalt * (1.0 + 0.07 * tone))
        for track_m in (-0.85, 0.85):
            self._ribbon(lane, track_m - 0.3, track_m + 0.3, self._asphalt * (0.9 + 0.07 * tone))
        length_m = float(lane.s_m[-1])
        for _ in range(self._rng.poisson(length_m / 45.0)):
            start_m, patch_m = self._rng.uniform(0.0, length_m), self._rng.uniform(2.0, 7.0)
            s_m = np.clip(np.linspace(start_m, start_m + patch_m, 4), 0.0, length_m)
            left_m = self._rng.uniform(-half, half - 1.0)
            right_m = min(half, left_m + self._rng.uniform(1.0, 2.5))
            self._strip(lane, s_m, left_m, right_m, self._asphalt * self._rng.choice([0.72, 0.8, 1.2]))
        if self._look.joint_spacing_m > 0:
            for start_m in np.arange(0.0, length_m - 0.3, self._look.joint_spacing_m):
                self._strip(lane, np.array([start_m, start_m + 0.25]), -half, half, self._asphalt * 0.7)

    def _strip(self, lane: LaneEdges, s_m: FloatArray, from_m: float, to_m: float, rgb: FloatArray) -> None:
        first, second = lane.resampled(s_m, from_m), lane.resampled(s_m, to_m)
        self._fill(_pixel_quads(first, second, self._size_y, self._resolution_m), np.tile(rgb, (len(s_m), 1)))


def _ground(
    size_x: float, size_y: float, *, ground: FloatArray, patch: FloatArray, far: FloatArray, rng: Generator
) -> Image:
    """Return the bare ground at one metre per pixel: soft patches that fade to ``far`` at the rim."""
    rows, columns = round(size_y / _GROUND_CELL_M), round(size_x / _GROUND_CELL_M)
    fields = _smooth_noise_2d(rows, columns, 26.0, rng)
    mottle = _smooth_noise_2d(rows, columns, 5.0, rng)
    share = 1.0 / (1.0 + np.exp(-6.0 * (fields + 0.35 * mottle - 0.25)))
    image = ground + (patch - ground) * share[..., None]
    image = image * (1.0 + 0.10 * mottle + 0.06 * _smooth_noise_2d(rows, columns, 60.0, rng))[..., None]
    rim = np.minimum.outer(_ramp(rows), _ramp(columns))[..., None]
    return np.asarray(np.clip(far + (image - far) * rim, 0.0, 255.0), dtype=np.uint8)


def _ramp(count: int) -> FloatArray:
    cells = np.arange(count) + 0.5
    return np.clip(np.minimum(cells, count - cells) / 20.0, 0.0, 1.0)


def _smooth_noise_2d(rows: int, columns: int, cell: float, rng: Generator) -> FloatArray:
    """Return smooth noise of about unit size whose bumps are ``cell`` pixels wide."""
    coarse = rng.normal(size=(int(rows / cell) + 3, int(columns / cell) + 3)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC), dtype=np.float64)


def _smooth_noise_1d(count: int, rng: Generator) -> FloatArray:
    knots = rng.normal(size=count // 6 + 3)
    return np.interp(np.linspace(0, len(knots) - 1, count), np.arange(len(knots)), knots)
