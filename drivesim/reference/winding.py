"""Endless random winding roads: a course of straights, arcs and chicanes, and the lanes laid along it.

Pure geometry on HighwayEnv's lane classes; which lanes a road has is drawn in ``roads.py``. Lateral offsets
are left-positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from highway_env.road.lane import AbstractLane, CircularLane, LineType, SineLane, StraightLane

from drivesim.scene.geometry import FloatArray, wrap_angle

_TRIES = 400
_TRAFFIC_LATERAL_ACCEL_MPS2 = 2.2


@dataclass(kw_only=True, slots=True, frozen=True)
class Piece:
    """A stretch of the course: an arc if curved, a chicane if it has an amplitude, else straight."""

    start_m: tuple[float, float]
    heading_rad: float
    length_m: float
    curvature_1pm: float = 0.0
    amplitude_m: float = 0.0

    @property
    def end_m(self) -> tuple[float, float]:
        """Return where the piece ends."""
        half = 0.5 * self.curvature_1pm * self.length_m
        chord = self.length_m * float(np.sinc(half / np.pi))
        direction = self.heading_rad + half
        dx_m, dy_m = chord * float(np.cos(direction)), chord * float(np.sin(direction))
        return self.start_m[0] + dx_m, self.start_m[1] + dy_m

    @property
    def speed_limit_mps(self) -> float:
        """Return the speed at which traffic takes this piece."""
        curvature = abs(self.curvature_1pm) + abs(self.amplitude_m) * (2 * np.pi / self.length_m) ** 2
        return float(np.clip(np.sqrt(_TRAFFIC_LATERAL_ACCEL_MPS2 / max(curvature, 1e-4)), 5.0, 15.0))


@dataclass(kw_only=True, slots=True, frozen=True)
class LaneStyle:
    """One lane of a carriageway: where it lies, its width and the paint on its left and right."""

    offset_m: float
    width_m: float
    is_forward: bool = True
    left_line: int = LineType.NONE
    right_line: int = LineType.NONE


def draw_course(
    rng: np.random.Generator, *, is_loop: bool, min_radius_m: float, half_width_m: float
) -> list[Piece]:
    """Draw a course that keeps clear of itself: a closed loop, or 430-640 m that fit into about 330 x 330 m.

    Args:
        rng: source of all chance.
        is_loop: whether the course ends where it starts.
        min_radius_m: smallest radius of its arcs.
        half_width_m: half the road, for the clearance between stretches.
    """
    for _ in range(_TRIES):
        corners = _loop_corners(rng) if is_loop else _open_corners(rng)
        pieces = _rounded(rng, corners, is_loop=is_loop, min_radius_m=min_radius_m)
        if pieces is not None and _is_clear(pieces, clearance_m=2 * half_width_m + 9.0, is_loop=is_loop):
            return pieces
    return [Piece(start_m=(0.0, 0.0), heading_rad=0.0, length_m=420.0)]


def continue_course(
    rng: np.random.Generator, *, start_m: tuple[float, float], heading_rad: float
) -> list[Piece]:
    """Draw a short gentle course of an arc and a straight that goes on from a given pose."""
    radius_m = float(rng.uniform(45.0, 140.0))
    angle_rad = float(rng.uniform(0.2, 0.8) * rng.choice([-1, 1]))
    bend_m = radius_m * abs(angle_rad)
    bend = Piece(start_m=start_m, heading_rad=heading_rad, length_m=bend_m, curvature_1pm=angle_rad / bend_m)
    straight_m = 120.0 - min(bend_m, 80.0)
    return [bend, Piece(start_m=bend.end_m, heading_rad=heading_rad + angle_rad, length_m=straight_m)]


def lay_lane(piece: Piece, style: LaneStyle, speed_limit_mps: float) -> AbstractLane:
    """Return the HighwayEnv lane that follows a piece at the offset and in the direction of ``style``."""
    # HighwayEnv names the side of negative lateral coordinates first: the right one, as y points up here.
    common = {
        "width": style.width_m,
        "line_types": [style.right_line, style.left_line],
        "speed_limit": speed_limit_mps,
    }
    if piece.curvature_1pm:
        return _lay_arc(piece, style, common)
    left = np.array([-np.sin(piece.heading_rad), np.cos(piece.heading_rad)])
    ends = [np.array(end) + left * style.offset_m for end in (piece.start_m, piece.end_m)]
    if piece.amplitude_m:
        ends = [end + left * piece.amplitude_m for end in ends]
        pulsation = 2 * np.pi / piece.length_m
        amplitude_m = piece.amplitude_m
        if not style.is_forward:
            ends.reverse()
            amplitude_m = -amplitude_m
        return SineLane(ends[0], ends[1], amplitude_m, pulsation, -np.pi / 2, **common)
    if not style.is_forward:
        ends.reverse()
    return StraightLane(ends[0], ends[1], **common)


def _lay_arc(piece: Piece, style: LaneStyle, common: dict[str, object]) -> CircularLane:
    turn = float(np.sign(piece.curvature_1pm))
    radius_m = 1 / abs(piece.curvature_1pm)
    left = np.array([-np.sin(piece.heading_rad), np.cos(piece.heading_rad)])
    center = np.array(piece.start_m) + left * turn * radius_m
    first = piece.heading_rad - turn * np.pi / 2
    phases = [first, first + piece.curvature_1pm * piece.length_m]
    if not style.is_forward:
        phases.reverse()
    is_left_turn = (turn > 0) == style.is_forward  # what HighwayEnv, with y down, calls clockwise
    return CircularLane(center, radius_m - turn * style.offset_m, *phases, clockwise=is_left_turn, **common)


def _open_corners(rng: np.random.Generator) -> FloatArray:
    """Return (N, 2) corners of an open polygon whose legs turn left and right."""
    winding = rng.uniform(0.25, 1.0)
    length_m = rng.uniform(450.0, 640.0)
    points, heading = [np.zeros(2)], rng.uniform(-np.pi, np.pi)
    total_m = 0.0
    while total_m < length_m:
        leg_m = float(rng.uniform(30.0, 110.0)) * (1.4 - 0.6 * winding)
        points.append(points[-1] + leg_m * np.array([np.cos(heading), np.sin(heading)]))
        total_m += leg_m
        heading += float(rng.choice([-1, 1]) * rng.uniform(0.1, 1.0) * winding * 2.1)
    return np.array(points)


def _loop_corners(rng: np.random.Generator) -> FloatArray:
    """Return (N, 2) corners of a star-shaped polygon, run through in a random sense."""
    count = int(rng.integers(5, 11))
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count
    reach_m = rng.uniform(50.0, 100.0) * rng.uniform(0.4, 1.3, count)
    points = np.stack([np.cos(angles), rng.uniform(0.6, 1.0) * np.sin(angles)], axis=1) * reach_m[:, None]
    return points if rng.random() < 0.5 else points[::-1].copy()


def _rounded(
    rng: np.random.Generator, corners: FloatArray, *, is_loop: bool, min_radius_m: float
) -> list[Piece] | None:
    """Round the corners with arcs; None where a corner is too sharp for ``min_radius_m``."""
    legs = np.diff(np.vstack([corners, corners[:1]]) if is_loop else corners, axis=0)
    lengths = np.hypot(legs[:, 0], legs[:, 1])
    headings = np.arctan2(legs[:, 1], legs[:, 0])
    count = len(legs)
    cuts = np.zeros(count + 1)  # tangent length at the start corner of each leg
    turns = np.zeros(count + 1)
    for corner in range(0 if is_loop else 1, count):
        turns[corner] = wrap_angle(headings[corner] - headings[corner - 1])
        half_tan = np.tan(abs(turns[corner]) / 2)
        longest_cut_m = 0.48 * min(lengths[corner], lengths[corner - 1])
        radius_limit_m = min(longest_cut_m / max(half_tan, 1e-3), 300.0)
        if abs(turns[corner]) > 2.3 or radius_limit_m < min_radius_m:
            return None
        share = rng.uniform() ** 0.6
        cuts[corner] = min_radius_m ** (1 - share) * radius_limit_m**share * half_tan
    if is_loop:
        cuts[count], turns[count] = cuts[0], turns[0]
    pieces: list[Piece] = []
    for leg in range(count):
        direction = legs[leg] / lengths[leg]
        start = corners[leg] + direction * cuts[leg]
        straight_m = float(lengths[leg] - cuts[leg] - cuts[leg + 1])
        pieces.append(_straight(rng, start, float(headings[leg]), straight_m))
        if turns[leg + 1]:
            arc_start = start + direction * straight_m
            radius_m = cuts[leg + 1] / np.tan(abs(turns[leg + 1]) / 2)
            pieces.append(
                Piece(
                    start_m=(float(arc_start[0]), float(arc_start[1])),
                    heading_rad=float(headings[leg]),
                    length_m=float(radius_m * abs(turns[leg + 1])),
                    curvature_1pm=float(np.sign(turns[leg + 1]) / radius_m),
                )
            )
    return pieces


def _straight(rng: np.random.Generator, start: FloatArray, heading_rad: float, length_m: float) -> Piece:
    amplitude_m = 0.0
    if length_m > 45.0 and rng.random() < 0.35:
        slope_limit = min(0.3, 0.035 * length_m / (2 * np.pi))
        share = float(rng.choice([-1, 1]) * rng.uniform(0.4, 1.0))
        amplitude_m = share * slope_limit * length_m / (2 * np.pi)
    return Piece(
        start_m=(float(start[0]), float(start[1])),
        heading_rad=heading_rad,
        length_m=length_m,
        amplitude_m=amplitude_m,
    )


def _is_clear(pieces: list[Piece], *, clearance_m: float, is_loop: bool) -> bool:
    """Tell whether the course is compact and keeps ``clearance_m`` to its other stretches."""
    spacing_m = 6.0
    points = []
    for piece in pieces:
        steps = np.arange(0.0, piece.length_m, spacing_m)
        half = 0.5 * piece.curvature_1pm * steps
        chord, direction = steps * np.sinc(half / np.pi), piece.heading_rad + half
        bearing = np.stack([np.cos(direction), np.sin(direction)], axis=1)
        points.append(bearing * chord[:, None] + np.array(piece.start_m))
    track = np.concatenate(points)
    total_m = sum(piece.length_m for piece in pieces)
    extent = np.ptp(track, axis=0)
    is_too_large = extent[0] * extent[1] > 1.1e5 or extent.max() > 480.0
    if is_too_large or not (230.0 if is_loop else 430.0) < total_m < 660.0:
        return False
    gap = np.hypot(*(track[:, None] - track[None]).transpose(2, 0, 1))
    apart = np.abs(np.arange(len(track))[:, None] - np.arange(len(track)))
    if is_loop:
        apart = np.minimum(apart, len(track) - apart)
    return bool((gap[apart * spacing_m > 2.2 * clearance_m + 12.0] > clearance_m).all())
