"""Solid shapes as flat faces in metres, and the faces of all scenery that stands still, except plants.

A face has 8 corners (fewer are repeated), counter-clockwise as seen from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.reference.look import Color, Look, TimeOfDay
from drivesim.reference.scenery import PostKind, Scenery
from drivesim.scene.geometry import FloatArray

BoolArray = NDArray[np.bool_]

CORNERS = 8
_DECAL_RANGE_M = 70.0
FULL_RANGE_M = 1e9


@dataclass(kw_only=True, slots=True)
class Faces:
    """Faces in global coordinates, grouped by owner; an owner's faces are painted in their order."""

    corners: FloatArray  # (F, 8, 3)
    rgb: FloatArray  # (F, 3)
    is_glowing: BoolArray  # (F,) shines by itself
    is_two_sided: BoolArray  # (F,)
    range_m: FloatArray  # (F,) farther away the face is left out
    owner: NDArray[np.int64]  # (F,) rising
    owner_xy_m: FloatArray  # (O, 2)
    owner_reach_m: FloatArray  # (O,) how far it stands out towards the camera


class _Mesh:
    """Collects faces of one owner after the other."""

    def __init__(self) -> None:
        self._corners: list[FloatArray] = []
        self._rgb: list[FloatArray] = []
        self._flags: list[tuple[bool, bool, float]] = []
        self._owner: list[int] = []
        self._places: list[tuple[float, float, float]] = []

    def begin(self, x_m: float, y_m: float, reach_m: float) -> None:
        """Start an owner."""
        self._places.append((x_m, y_m, reach_m))

    def add(
        self,
        corners: FloatArray,
        rgb: FloatArray,
        *,
        is_glowing: bool = False,
        is_two_sided: bool = False,
        range_m: float = FULL_RANGE_M,
    ) -> None:
        """Add one (N <= 8, 3) face to the owner begun last."""
        self._corners.append(padded(corners))
        self._rgb.append(np.asarray(rgb, dtype=np.float64))
        self._flags.append((is_glowing, is_two_sided, range_m))
        self._owner.append(len(self._places) - 1)

    def faces(self) -> Faces:
        """Return all that was added."""
        flags = np.array(self._flags, dtype=np.float64).reshape(-1, 3)
        places = np.array(self._places, dtype=np.float64).reshape(-1, 3)
        return Faces(
            corners=np.array(self._corners).reshape(-1, CORNERS, 3),
            rgb=np.array(self._rgb).reshape(-1, 3),
            is_glowing=flags[:, 0].astype(bool),
            is_two_sided=flags[:, 1].astype(bool),
            range_m=flags[:, 2],
            owner=np.array(self._owner, dtype=np.int64),
            owner_xy_m=places[:, :2],
            owner_reach_m=places[:, 2],
        )


def padded(corners: FloatArray) -> FloatArray:
    """Return (8, 3) corners, the last one repeated."""
    return np.concatenate([corners, np.repeat(corners[-1:], CORNERS - len(corners), axis=0)])


def prism_sides(bottom: FloatArray, top: FloatArray) -> list[FloatArray]:
    """Return front, left, rear, right and top between two (4, 3) rings as `ring` makes them."""
    sides = [np.array([bottom[i], bottom[(i + 1) % 4], top[(i + 1) % 4], top[i]]) for i in range(4)]
    return [*sides, top]


def ring(x0: float, x1: float, half_width: float, z: float) -> FloatArray:
    """Return the (4, 3) rectangle x0..x1 at height z: front right, front left, rear left, rear right."""
    return np.array([[x1, -half_width, z], [x1, half_width, z], [x0, half_width, z], [x0, -half_width, z]])


def inset(quad: FloatArray, u0: float, u1: float, v0: float, v1: float) -> FloatArray:
    """Return a decal on a quad: ``u`` along its lower edge, ``v`` upwards, both 0..1."""

    def point(u: float, v: float) -> FloatArray:
        return (quad[0] * (1 - u) + quad[1] * u) * (1 - v) + (quad[3] * (1 - u) + quad[2] * u) * v

    return np.array([point(u0, v0), point(u1, v0), point(u1, v1), point(u0, v1)])


def scenery_faces(scenery: Scenery, look: Look) -> Faces:
    """Build the faces of all that stands still, except plants."""
    mesh = _Mesh()
    rng = np.random.default_rng([look.seed, 2])
    is_night = look.time_of_day is TimeOfDay.NIGHT
    for pose, size, rgb in zip(scenery.house_pose, scenery.house_size_m, scenery.house_rgb, strict=True):
        _add_house(mesh, pose, size, rgb, is_night, rng)
    for xy, yaw, kind, rgb in zip(
        scenery.post_xy_m, scenery.post_yaw_rad, scenery.post_kind, scenery.post_rgb, strict=True
    ):
        _add_post(mesh, xy, float(yaw), PostKind(int(kind)), rgb, is_night)
    for ends in scenery.rail_xy_m:
        _add_rail(mesh, ends)
    return mesh.faces()


def placed(corners: FloatArray, pose: FloatArray) -> FloatArray:
    """Move (..., 3) corners to a global pose (x, y, yaw)."""
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    x, y = corners[..., 0], corners[..., 1]
    return np.stack([pose[0] + cos * x - sin * y, pose[1] + sin * x + cos * y, corners[..., 2]], axis=-1)


def _add_house(
    mesh: _Mesh, pose: FloatArray, size: FloatArray, rgb: FloatArray, is_night: bool, rng: np.random.Generator
) -> None:
    length, width, wall_m, roof_m = (float(v) for v in size)
    mesh.begin(float(pose[0]), float(pose[1]), 0.4 * width)
    base, top = (
        ring(-length / 2, length / 2, width / 2, 0.0),
        ring(-length / 2, length / 2, width / 2, wall_m),
    )
    walls = [placed(side, pose) for side in prism_sides(base, top)]
    for wall in walls[:4]:
        mesh.add(wall, rgb[0])
    if roof_m > 0:
        eave = ring(-length / 2 - 0.4, length / 2 + 0.4, width / 2 + 0.5, wall_m - 0.1)
        ridge = np.array(
            [[length / 2 + 0.4, 0.0, wall_m + roof_m], [-length / 2 - 0.4, 0.0, wall_m + roof_m]]
        )
        mesh.add(placed(np.array([top[0], top[1], ridge[0] - [0.4, 0, 0]]), pose), rgb[0])
        mesh.add(placed(np.array([top[2], top[3], ridge[1] + [0.4, 0, 0]]), pose), rgb[0])
        mesh.add(placed(np.array([eave[1], eave[2], ridge[1], ridge[0]]), pose), rgb[1])
        mesh.add(placed(np.array([eave[3], eave[0], ridge[0], ridge[1]]), pose), rgb[1])
    floors = max(1, int(wall_m / 3.2))
    for wall, span_m in zip(walls[:4], (width, length, width, length), strict=True):
        columns = max(2, int(span_m / 3.2))
        for floor in range(floors):
            v0 = (floor + 0.32) / floors
            for column in range(columns):
                is_lit = is_night and rng.random() < 0.4
                u0 = (column + 0.28) / columns
                pane = inset(wall, u0, u0 + 0.44 / columns, v0, v0 + 0.46 / floors)
                glass = np.array([228.0, 186.0, 104.0]) if is_lit else np.array([62.0, 72.0, 86.0])
                mesh.add(pane, glass, is_glowing=is_lit, range_m=_DECAL_RANGE_M)


def _add_post(
    mesh: _Mesh, xy: FloatArray, yaw: float, kind: PostKind, rgb: FloatArray, is_night: bool
) -> None:
    mesh.begin(float(xy[0]), float(xy[1]), 0.0)
    pose = np.array([xy[0], xy[1], yaw])

    def upright(
        x0: float, x1: float, z0: float, z1: float, color: Color | FloatArray, *, is_glowing: bool = False
    ) -> None:
        corners = np.array([[x0, 0.0, z0], [x1, 0.0, z0], [x1, 0.0, z1], [x0, 0.0, z1]])
        mesh.add(placed(corners, pose), np.asarray(color), is_two_sided=True, is_glowing=is_glowing)

    if kind is PostKind.DELINEATOR:
        upright(-0.08, 0.08, 0.0, 1.0, (225.0, 225.0, 220.0))
        upright(-0.08, 0.08, 0.66, 0.86, (40.0, 40.0, 42.0))
    elif kind is PostKind.LAMP:
        upright(-0.09, 0.09, 0.0, 6.8, (112.0, 116.0, 120.0))
        upright(0.0, 1.9, 6.7, 6.85, (112.0, 116.0, 120.0))
        upright(
            1.3,
            2.1,
            6.55,
            6.8,
            (250.0, 222.0, 160.0) if is_night else (150.0, 152.0, 154.0),
            is_glowing=is_night,
        )
    elif kind is PostKind.UTILITY:
        upright(-0.13, 0.13, 0.0, 8.0, (98.0, 78.0, 60.0))
        upright(-1.1, 1.1, 7.2, 7.4, (90.0, 72.0, 56.0))
    else:
        upright(-0.05, 0.05, 0.0, 2.9, (136.0, 138.0, 140.0))
        upright(-0.5, 0.5, 2.0, 3.0, (236.0, 236.0, 232.0))
        upright(-0.42, 0.42, 2.08, 2.92, rgb)


def _add_rail(mesh: _Mesh, ends: FloatArray) -> None:
    middle = ends.mean(axis=0)
    mesh.begin(float(middle[0]), float(middle[1]), 0.0)

    def band(share0: float, share1: float, z0: float, z1: float, color: Color, range_m: float) -> None:
        first, second = (ends[0] * (1 - share) + ends[1] * share for share in (share0, share1))
        corners = np.array([[*first, z0], [*second, z0], [*second, z1], [*first, z1]])
        mesh.add(corners, np.array(color), is_two_sided=True, range_m=range_m)

    band(0.47, 0.53, 0.0, 0.5, (110.0, 112.0, 114.0), 50.0)
    band(0.0, 1.0, 0.48, 0.80, (176.0, 180.0, 184.0), FULL_RANGE_M)
    band(0.0, 1.0, 0.60, 0.67, (124.0, 128.0, 132.0), 50.0)
