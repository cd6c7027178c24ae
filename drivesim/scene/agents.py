"""Other road users: where they are at an instant, where they will be if they go on, and what the camera sees of them.

A world model that remembers a second forgets the car ahead when it is hidden or far. Where the cars stand when an
episode begins is known, from annotations or from the reference world; from there on they are moved along the road at
the speed they had, without looking at what the recording says later. `N` agents, `h w` rows and columns of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from drivesim.scene.geometry import FloatArray, wrap_angle
from drivesim.scene.types import Agents, Camera, EgoState, Scene

Float32Array = NDArray[np.float32]

SHOWN_M = 60.0  # agents farther away are a few pixels
KNOWN_S = 12.0  # after the instant at which they were seen; later it is a guess where agents are
MOST_BESIDE_ROUTE_M = 12.0
MOST_TURNED_RAD = 0.6  # against the route, for an agent that follows it or comes along it
NEAR_M = 0.3  # what is nearer to the camera is cut off
_EDGES = np.array([(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1])
_CORNERS = np.array([[(k & 1) - 0.5, ((k >> 1) & 1) - 0.5, (k >> 2) & 1] for k in range(8)], dtype=np.float64)
DRAWN_PX = 2  # boxes are drawn in pixels so large and averaged over cells
_FARTHEST_PX = 4000.0


def agents_before(agents: Agents, pose: FloatArray, camera: Camera) -> Agents:
    """Return those any part of which may be on the side of a pose (3,: x, y, yaw) to which a camera looks."""
    axis = camera.ego_from_cam[:2, 2]
    yaw_rad = pose[2] + np.arctan2(axis[1], axis[0])
    ahead_m = (agents.xy_m - pose[:2]) @ np.array([np.cos(yaw_rad), np.sin(yaw_rad)])
    return agents.rows(ahead_m > -np.hypot(agents.size_m[:, 0], agents.size_m[:, 1]) / 2)


@dataclass(kw_only=True, slots=True, frozen=True)
class MovingAgents:
    """Agents that go on as they went at time 0: along the route those that follow it, the others straight ahead."""

    first: Agents
    route: _Followed | None = None  # None where nobody follows one

    def known_at(self, time_s: float) -> Agents | None:
        """Return where they are after a time; None when it is longer than ``KNOWN_S``."""
        return self.at(time_s) if time_s < KNOWN_S + 1e-6 else None

    def at(self, time_s: float) -> Agents:
        """Return where they are after a time, which may be negative."""
        agents, gone_m = self.first, self.first.speed_mps * time_s
        heading_N2 = np.stack([np.cos(agents.yaw_rad), np.sin(agents.yaw_rad)], axis=1)
        xy_m, yaw_rad = agents.xy_m + heading_N2 * gone_m[:, None], agents.yaw_rad
        if self.route is not None:
            follows_N = self.route.follows_N
            yaw_rad = yaw_rad.copy()
            xy_m[follows_N], turned_rad = self.route.after(gone_m[follows_N])
            yaw_rad[follows_N] = wrap_angle(yaw_rad[follows_N] + turned_rad)
        return replace(agents, xy_m=xy_m, yaw_rad=yaw_rad)


@dataclass(kw_only=True, slots=True, frozen=True)
class _Followed:
    """The route of those F of N agents that follow it: each keeps its place beside it and its angle to it."""

    xy_m: FloatArray  # (R, 2)
    follows_N: NDArray[np.bool_]
    along_m: FloatArray  # (F,) where the nearest point of the route is
    beside_F2: FloatArray  # metres from there, along the route and to its left
    direction: FloatArray  # (F,) 1, or -1 for those that come along it

    def after(self, gone_m: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return places (F, 2) after so many metres, and how far the route has turned until there."""
        points_F2, yaw_F = _on_polyline(self.xy_m, self.along_m + self.direction * gone_m)
        _, first_yaw_F = _on_polyline(self.xy_m, self.along_m)
        cos, sin = np.cos(yaw_F), np.sin(yaw_F)
        ahead_m, left_m = self.beside_F2.T
        aside_F2 = np.stack([cos * ahead_m - sin * left_m, sin * ahead_m + cos * left_m], axis=1)
        return points_F2 + aside_F2, yaw_F - first_yaw_F


def moving(agents: Agents, route_xy_m: FloatArray | None) -> MovingAgents:
    """Return agents that go on.

    Args:
        agents: at time 0.
        route_xy_m: (R, 2) a polyline; an agent beside it, and turned as it is or against it, goes along it.
    """
    if route_xy_m is None or len(route_xy_m) < 2 or not len(agents):
        return MovingAgents(first=agents)
    legs = np.diff(route_xy_m, axis=0)
    lengths = np.hypot(*legs.T)
    heading_R = np.arctan2(legs[:, 1], legs[:, 0])
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    offset_NR2 = agents.xy_m[:, None] - route_xy_m[None, :-1]
    unit_R2 = legs / np.maximum(lengths, 1e-9)[:, None]
    least, most = np.zeros(len(legs)), lengths.copy()
    least[0], most[-1] = -np.inf, np.inf  # the route goes on straight at both ends
    ahead_NR = np.clip((offset_NR2 * unit_R2).sum(-1), least, most)
    distance_NR = np.hypot(*np.moveaxis(offset_NR2 - ahead_NR[..., None] * unit_R2, -1, 0))
    turned_NR = np.abs(wrap_angle(agents.yaw_rad[:, None] - heading_R))
    is_along_NR = (turned_NR < MOST_TURNED_RAD) | (turned_NR > np.pi - MOST_TURNED_RAD)
    distance_NR = np.where(is_along_NR, distance_NR, np.inf)
    leg_N, rows = distance_NR.argmin(axis=1), np.arange(len(agents))
    follows_N = distance_NR[rows, leg_N] < MOST_BESIDE_ROUTE_M
    leg_F, along_m = leg_N[follows_N], (starts[leg_N] + ahead_NR[rows, leg_N])[follows_N]
    if not len(leg_F):
        return MovingAgents(first=agents)
    points_F2, yaw_F = _on_polyline(route_xy_m, along_m)
    rest_F2 = agents.xy_m[follows_N] - points_F2
    cos, sin = np.cos(yaw_F), np.sin(yaw_F)
    beside_F2 = np.stack(
        [cos * rest_F2[:, 0] + sin * rest_F2[:, 1], cos * rest_F2[:, 1] - sin * rest_F2[:, 0]], axis=1
    )
    followed = _Followed(
        xy_m=route_xy_m,
        follows_N=follows_N,
        along_m=along_m,
        beside_F2=beside_F2,
        direction=np.where(turned_NR[rows, leg_N][follows_N] < np.pi / 2, 1.0, -1.0),
    )
    return MovingAgents(first=agents, route=followed)


def moving_before(
    agents: Agents | None, ego: EgoState, camera: Camera, route_xy_m: FloatArray | None
) -> MovingAgents | None:
    """Return those before a camera, going on, see :func:`moving`; None where nothing is known."""
    if agents is None:
        return None
    pose = np.array([ego.x_m, ego.y_m, ego.yaw_rad])
    return moving(agents_before(agents, pose, camera), route_xy_m)


def agents_at(scene: Scene, index: int) -> MovingAgents | None:
    """Return those before a scene's camera at a frame, going on from there."""
    agents = None if scene.agents is None else scene.agents[index]
    return moving_before(agents, scene.ego_state(index), scene.camera, scene.route_xy_m)


def _on_polyline(xy_m: FloatArray, along_m: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return points (N, 2) and headings (N,) at distances along a polyline, which goes on straight at both ends."""
    legs = np.diff(xy_m, axis=0)
    lengths = np.hypot(*legs.T)
    ends = np.cumsum(lengths)
    leg_N = np.clip(np.searchsorted(ends, along_m), 0, len(legs) - 1)
    rest_m = along_m - (ends[leg_N] - lengths[leg_N])
    unit_N2 = legs[leg_N] / np.maximum(lengths[leg_N], 1e-9)[:, None]
    return xy_m[leg_N] + unit_N2 * rest_m[:, None], np.arctan2(legs[leg_N, 1], legs[leg_N, 0])


def agent_cover(agents: Agents, camera: Camera, pose: FloatArray, *, cell_px: int) -> Float32Array:
    """Return the share (h, w) of each cell of a picture that the boxes of agents cover.

    Args:
        agents: N of them; those farther away than ``SHOWN_M`` are left out.
        camera: that sees them, upright boxes on flat ground.
        pose: (3,) of the ego: x and y in metres and yaw in radians, global.
        cell_px: side of a cell, a multiple of ``DRAWN_PX`` that divides the picture.
    """
    fine = cell_px // DRAWN_PX
    rows, columns = camera.height_px // DRAWN_PX, camera.width_px // DRAWN_PX
    raster = np.zeros((rows, columns), np.float32)
    is_near_N = np.hypot(*(agents.xy_m - pose[:2]).T) <= SHOWN_M
    for outline in _outlines(agents.rows(is_near_N), camera, pose):
        points = np.clip(outline, -_FARTHEST_PX, _FARTHEST_PX).astype(np.float32)
        hull = cv2.convexHull(points / DRAWN_PX)[:, 0]
        (left, top), (right, bottom) = np.floor(hull.min(axis=0) - 1), np.ceil(hull.max(axis=0) + 1)
        window = (slice(max(int(top), 0), max(int(bottom), 0)), slice(max(int(left), 0), max(int(right), 0)))
        part = raster[window]
        np.maximum(part, _cover(hull, part.shape, (window[0].start, window[1].start)), out=part)
    return raster.reshape(rows // fine, fine, columns // fine, fine).mean(axis=(1, 3))


def _cover(hull: Float32Array, shape: tuple[int, ...], first: tuple[int, int]) -> Float32Array:
    """Return about which share of each pixel (rows, columns) of a window lies in a convex outline (K, 2)."""
    along = np.roll(hull, -1, axis=0) - hull
    inward = along[:, ::-1] * [-1.0, 1.0] / np.maximum(np.hypot(*along.T), 1e-6)[:, None]
    to_middle = hull.mean(axis=0) - hull[0]
    if along[0, 0] * to_middle[1] < along[0, 1] * to_middle[0]:
        inward = -inward
    y = np.arange(first[0], first[0] + shape[0]) + 0.5
    x = np.arange(first[1], first[1] + shape[1]) + 0.5
    depth = (
        inward[:, 0, None, None] * (x[None, None] - hull[:, 0, None, None])
        + inward[:, 1, None, None] * (y[None, :, None] - hull[:, 1, None, None])
    ).min(axis=0, initial=1.0)
    return np.asarray(np.clip(depth + 0.5, 0.0, 1.0), dtype=np.float32)


def _outlines(agents: Agents, camera: Camera, pose: FloatArray) -> Sequence[FloatArray]:
    """Return for each agent that is before the camera the pixels (K, 2) between which its box is seen."""
    if not len(agents):
        return []
    cos, sin = np.cos(agents.yaw_rad)[:, None], np.sin(agents.yaw_rad)[:, None]
    local_N83 = _CORNERS * agents.size_m[:, None]
    x = agents.xy_m[:, :1] - pose[0] + cos * local_N83[..., 0] - sin * local_N83[..., 1]
    y = agents.xy_m[:, 1:] - pose[1] + sin * local_N83[..., 0] + cos * local_N83[..., 1]
    ego_cos, ego_sin = np.cos(pose[2]), np.sin(pose[2])
    ego_N83 = np.stack([ego_cos * x + ego_sin * y, ego_cos * y - ego_sin * x, local_N83[..., 2]], axis=-1)
    cam_N83 = (ego_N83 - camera.ego_from_cam[:3, 3]) @ camera.ego_from_cam[:3, :3]
    is_near_N8 = cam_N83[..., 2] < NEAR_M
    depth_N8 = np.maximum(cam_N83[..., 2], NEAR_M)
    u_N8 = camera.cx_px + camera.fx_px * cam_N83[..., 0] / depth_N8
    is_beside_N = (u_N8.max(axis=1) < 0) | (u_N8.min(axis=1) > camera.width_px)
    is_seen_N = np.where(is_near_N8.any(axis=1), ~is_near_N8.all(axis=1), ~is_beside_N)
    return [
        _outline(cam_N83[index], is_near_N8[index], camera.intrinsic) for index in np.flatnonzero(is_seen_N)
    ]


def _outline(corners: FloatArray, is_near: NDArray[np.bool_], intrinsic: FloatArray) -> FloatArray:
    """Return the pixels (K, 2) of a box's corners (8, 3) before the camera, and of where its edges come too near."""
    points = corners[~is_near]
    if is_near.any():
        first, second = corners[_EDGES[:, 0]], corners[_EDGES[:, 1]]
        is_cut = is_near[_EDGES[:, 0]] != is_near[_EDGES[:, 1]]
        first, second = first[is_cut], second[is_cut]
        share = (NEAR_M - first[:, 2:]) / (second[:, 2:] - first[:, 2:])
        points = np.concatenate([points, first + share * (second - first)])
    pixels = points @ intrinsic.T
    return np.asarray(pixels[:, :2] / pixels[:, 2:])
