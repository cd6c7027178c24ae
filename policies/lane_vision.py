"""Reads the lane out of a front camera's picture: where its middle is, which way it goes and how it bends.

The ground is laid out from above, bright lines that are darker on both sides are kept, and of all bends the one is
taken along which they add up to the sharpest lines. Two lines of a plausible distance make a lane; what the last
picture showed, moved by the car's own motion, decides between lanes and helps out where a line is missing.

Measured by `python -m benchmarks.picture_reading` on twenty validation roads (seeds 890100 on, a good driver): the
middle 8 m ahead has a median error of 0.08 m in true pictures and 0.09 m in imagined ones; within 0.5 m are 78 % and
87 %. Worst is rain (0.29 m). Roads without lines, intersections and roundabouts are beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera, Image
from policies.road_vision import camera_for, pixels_of, read_at

AHEAD_M = np.arange(5.5, 25.0, 0.75)
CELL_M = 0.1
ACROSS_M = np.arange(-100, 101) * CELL_M
HEADINGS_RAD = np.linspace(-0.3, 0.3, 25)
CURVATURES_1PM = np.array([0.0, 0.004, 0.008, 0.013, 0.019, 0.026, 0.034, 0.044, 0.056, 0.07])
CURVATURES_1PM = np.concatenate([-CURVATURES_1PM[:0:-1], CURVATURES_1PM])
WIDTHS_M = np.arange(2.8, 4.7, 0.1)
BESIDE_M = 0.4  # from the middle of a line to where it must be darker
CONTRAST_LEVELS = 4.0  # a contrast that means nothing, and
CONTRAST_SHARE = 0.12  # the same as a share of the brightness
EDGE_M = 1.0  # over which a road ends
EDGE_WEIGHT = 0.1  # of road edges beside lines in finding the bend, and
EDGE_SHARE = 0.4  # in finding the lane
MARGIN_M = 0.5  # of asphalt outside of a lane
COARSE = 2  # cells in one, when bends are compared
PRIOR = 0.05  # weight of what was expected
FAINT = 0.12  # a line's mean response from which on it counts


@dataclass(kw_only=True, slots=True, frozen=True)
class Lane:
    """The middle of a lane: ``y = offset + heading * x + curvature * x**2 / 2`` in the ego frame."""

    offset_m: float = 0.0
    heading_rad: float = 0.0
    curvature_1pm: float = 0.0
    width_m: float = 3.5
    confidence: float = 0.0  # 0: nothing was seen; 1: both lines, clearly

    def points(self, ahead_m: FloatArray) -> FloatArray:
        """Return the (N, 2) middle at distances ahead, ego frame."""
        y_m = self.offset_m + self.heading_rad * ahead_m + 0.5 * self.curvature_1pm * ahead_m**2
        return np.stack([ahead_m, y_m], axis=-1)

    def after(self, distance_m: float, turned_rad: float) -> Lane:
        """Return the same lane as seen after driving ``distance_m`` and turning by ``turned_rad``."""
        half = 0.5 * turned_rad
        dx, dy = distance_m * np.cos(half), distance_m * np.sin(half)
        y_m = self.offset_m + self.heading_rad * dx + 0.5 * self.curvature_1pm * dx**2
        return Lane(
            offset_m=float(y_m - dy),
            heading_rad=float(self.heading_rad + self.curvature_1pm * dx - turned_rad),
            curvature_1pm=self.curvature_1pm,
            width_m=self.width_m,
            confidence=self.confidence,
        )


@dataclass(kw_only=True, slots=True)
class LaneTracker:
    """Reads one picture after another."""

    camera: Camera | None = None
    gain: float = 0.6  # of a clear reading
    forgetting: float = 0.8  # of the confidence where nothing is seen
    lane: Lane = field(default_factory=Lane)

    def update(self, picture: Image, *, distance_m: float, turned_rad: float) -> Lane:
        """Return the lane in a picture, the car having moved since the last one."""
        expected = self.lane.after(distance_m, turned_rad)
        read = read_lane(picture, expected=expected, camera=self.camera)
        gain = self.gain * min(1.0, 2.0 * read.confidence) if expected.confidence > 0.0 else 1.0
        self.lane = Lane(
            offset_m=_mixed(expected.offset_m, read.offset_m, gain),
            heading_rad=_mixed(expected.heading_rad, read.heading_rad, gain),
            curvature_1pm=_mixed(expected.curvature_1pm, read.curvature_1pm, gain),
            width_m=_mixed(expected.width_m, read.width_m, 0.5 * gain),
            confidence=max(read.confidence, self.forgetting * expected.confidence),
        )
        return self.lane


def _mixed(old: float, new: float, gain: float) -> float:
    return old + gain * (new - old)


def read_lane(picture: Image, *, expected: Lane | None = None, camera: Camera | None = None) -> Lane:
    """Return the lane in a picture.

    Args:
        picture: (H, W, 3) uint8.
        expected: where it should be; where nothing is known, around the car and straight on.
        camera: of the picture; the front camera of its size if left out.
    """
    expected = expected or Lane()
    rgb = _from_above(picture, camera or camera_for(*picture.shape[:2]))
    lines, edges = _lines(rgb), _edges(rgb, expected)
    score = _concentration(lines) + EDGE_WEIGHT * _concentration(edges) - _unlikely(expected)
    heading, curvature = divmod(int(np.argmax(score)), len(CURVATURES_1PM))
    shift_m = HEADINGS_RAD[heading] * AHEAD_M + 0.5 * CURVATURES_1PM[curvature] * AHEAD_M**2
    profiles = [_profiles(cells, np.round(shift_m / CELL_M).astype(int)[None])[0] for cells in (lines, edges)]
    offset_m, width_m, confidence = _lane_between(profiles[0], profiles[1], expected)
    return Lane(
        offset_m=offset_m,
        heading_rad=float(HEADINGS_RAD[heading]),
        curvature_1pm=float(CURVATURES_1PM[curvature]),
        width_m=width_m,
        confidence=confidence,
    )


def _from_above(picture: Image, camera: Camera) -> FloatArray:
    """Return the ground as seen from above: (X, Y, 3), NaN where it is not in the picture."""
    ground_m = np.stack(np.meshgrid(AHEAD_M, ACROSS_M, indexing="ij"), axis=-1)
    return read_at(picture, pixels_of(camera, ground_m))


def _lines(rgb: FloatArray) -> FloatArray:
    """Return (X, Y) from 0 to 1: how much of a bright line there is at each place of the ground; NaN unseen."""
    light = _smooth(rgb[..., :2].mean(axis=-1), 1)
    beside = round(BESIDE_M / CELL_M)
    darker = np.fmax(np.roll(light, beside, axis=1), np.roll(light, -beside, axis=1))
    lines = np.clip((light - darker) / (CONTRAST_LEVELS + CONTRAST_SHARE * darker) - 0.5, 0.0, 1.0)
    lines[:, : beside + 1] = lines[:, -beside - 1 :] = 0.0
    return np.asarray(np.where(np.isfinite(light), lines, np.nan))


def _edges(rgb: FloatArray, expected: Lane) -> FloatArray:
    """Return (X, Y) from -1 to 1: 1 where the road ends to the left, -1 where it ends to the right; NaN unseen."""
    middle_m = expected.points(AHEAD_M)[:, 1].clip(-6.0, 6.0)
    is_lane = np.abs(ACROSS_M - middle_m[:, None]) < 1.2
    in_lane = np.where(is_lane[..., None], rgb, np.nan)
    is_seen = np.isfinite(in_lane[..., 0]).any(axis=1)
    road = np.full((len(rgb), 1, 3), np.nan)
    road[is_seen, 0] = np.nanmedian(in_lane[is_seen], axis=1)
    off = np.abs(rgb - road).max(axis=-1) / (CONTRAST_LEVELS + 2.0 * CONTRAST_SHARE * road.mean(axis=-1))
    is_road = _smooth(np.clip(2.0 - off, 0.0, 1.0), round(0.5 * EDGE_M / CELL_M))
    across = round(0.5 * EDGE_M / CELL_M)
    edges = np.roll(is_road, across, axis=1) - np.roll(is_road, -across, axis=1)
    edges[:, : 2 * across] = edges[:, -2 * across :] = 0.0
    return edges


def _smooth(values: FloatArray, reach: int) -> FloatArray:
    """Return the mean over ``reach`` cells to either side, across."""
    moved = [np.roll(values, step, axis=1) for step in range(-reach, reach + 1)]
    return np.asarray(np.mean(moved, axis=0))


@lru_cache(maxsize=1)
def _coarse_shifts() -> NDArray[np.int_]:
    """Return for each heading and curvature how many coarse cells it moves the rows of the ground: (P, X)."""
    heading, curvature = np.meshgrid(HEADINGS_RAD, CURVATURES_1PM, indexing="ij")
    moved_m = heading[..., None] * AHEAD_M + 0.5 * curvature[..., None] * AHEAD_M**2
    return np.round(moved_m / (COARSE * CELL_M)).astype(int).reshape(-1, len(AHEAD_M))


def _profiles(cells: FloatArray, shifts: NDArray[np.int_]) -> FloatArray:
    """Return the mean of cells (X, Y) along every bend (P, X), by the lateral place where it starts: (P, Y)."""
    num_across = cells.shape[1]
    is_seen = np.isfinite(cells)
    # The imaginary part counts the cells that were seen: one reading of a large array instead of two.
    counted = (np.where(is_seen, cells, 0.0) + 1j * is_seen).astype(np.complex64)
    padded = np.pad(counted, ((0, 0), (num_across, num_across)))
    columns = np.arange(num_across) + num_across + shifts.clip(-num_across, num_across)[..., None]
    starts = np.arange(len(AHEAD_M))[:, None] * padded.shape[1]
    total = padded.ravel().take(starts + columns).sum(axis=1)
    return np.asarray(total.real / np.maximum(total.imag, len(AHEAD_M) // 3), dtype=np.float64)


def _concentration(cells: FloatArray) -> FloatArray:
    """Return per bend (P,) how sharp the lines are that it adds up to, near the car first."""
    across_m = ACROSS_M[: len(ACROSS_M) // COARSE * COARSE].reshape(-1, COARSE)
    coarse = cells[:, : across_m.size].reshape(len(AHEAD_M), -1, COARSE).mean(axis=-1)
    near = np.exp(-0.5 * (across_m.mean(axis=1) / 5.0) ** 2) * COARSE
    return np.asarray(_profiles(coarse, _coarse_shifts()) ** 2 @ near)


def _unlikely(expected: Lane) -> FloatArray:
    """Return per bend (P,) what speaks against it beforehand."""
    sure = 0.6 + expected.confidence
    heading = (HEADINGS_RAD - expected.heading_rad) / 0.1
    curvature = (CURVATURES_1PM - expected.curvature_1pm) / 0.02
    return np.asarray(PRIOR * sure * (heading[:, None] ** 2 + curvature**2).reshape(-1))


def _lane_between(lines: FloatArray, edges: FloatArray, expected: Lane) -> tuple[float, float, float]:
    """Return offset, width and confidence of the lane whose two borders stand out of the profiles (Y,)."""
    middles_m = np.arange(-25, 26) * CELL_M + round(float(np.clip(expected.offset_m, -4.0, 4.0)), 1)
    borders = []
    for side in (1.0, -1.0):
        border_m = middles_m[:, None] + side * 0.5 * WIDTHS_M
        line = np.minimum(np.interp(border_m, ACROSS_M, lines), 0.5)
        edge = np.maximum(np.interp(border_m + side * MARGIN_M, ACROSS_M, side * edges), 0.0)
        borders.append(line + EDGE_SHARE * edge)
    sure = 0.6 + expected.confidence
    offset, width = (middles_m - expected.offset_m) / 1.0, (WIDTHS_M - expected.width_m) / 0.8
    score = sum(borders) - 0.12 * sure * (offset[:, None] ** 2 + width**2)
    best = np.unravel_index(int(np.argmax(score)), score.shape)
    seen = np.clip(np.array([border[best] for border in borders]) / (3.0 * FAINT), 0.0, 1.0)
    return float(middles_m[best[0]]), float(WIDTHS_M[best[1]]), float(seen.mean())
