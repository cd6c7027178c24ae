"""Solid shapes as flat faces in metres: houses, posts and rails of a scenery once, vehicles per frame.

A face has 8 corners (fewer are repeated), counter-clockwise as seen from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drivesim.reference.look import Color, Look, TimeOfDay, Weather
from drivesim.reference.scenery import PostKind, Scenery
from drivesim.scene.geometry import FloatArray

CORNERS = 8
_DECAL_RANGE_M = 70.0
_FULL_RANGE_M = 1e9


@dataclass(kw_only=True, slots=True, frozen=True)
class VehicleBox:
    """A vehicle as the camera sees it: middle of its footprint, heading, size, paint."""

    x_m: float
    y_m: float
    yaw_rad: float
    length_m: float = 4.8
    width_m: float = 1.9
    height_m: float = 1.55
    color_rgb: Color = (170.0, 30.0, 30.0)
    is_braking: bool = False


@dataclass(kw_only=True, slots=True)
class Faces:
    """Faces in global coordinates, grouped by owner; an owner's faces are painted in their order."""

    corners: FloatArray  # (F, 8, 3)
    rgb: FloatArray  # (F, 3)
    is_glowing: np.ndarray[tuple[int], np.dtype[np.bool_]]  # (F,) shines by itself
    is_two_sided: np.ndarray[tuple[int], np.dtype[np.bool_]]  # (F,)
    range_m: FloatArray  # (F,) farther away the face is left out
    owner: np.ndarray[tuple[int], np.dtype[np.int64]]  # (F,) rising
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
        self, corners: FloatArray, rgb: FloatArray, *, is_glowing: bool = False, is_two_sided: bool = False, range_m: float = _FULL_RANGE_M
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
    """Return front, left, rear, right and top of a hexahedron whose (4, 3) rings begin front right, then front left."""
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


def _placed(corners: FloatArray, pose: FloatArray) -> FloatArray:
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    x, y = corners[..., 0], corners[..., 1]
    return np.stack([pose[0] + cos * x - sin * y, pose[1] + sin * x + cos * y, corners[..., 2]], axis=-1)


def _add_house(
    mesh: _Mesh, pose: FloatArray, size: FloatArray, rgb: FloatArray, is_night: bool, rng: np.random.Generator
) -> None:
    length, width, wall_m, roof_m = (float(v) for v in size)
    mesh.begin(float(pose[0]), float(pose[1]), 0.4 * width)
    base, top = ring(-length / 2, length / 2, width / 2, 0.0), ring(-length / 2, length / 2, width / 2, wall_m)
    walls = [_placed(side, pose) for side in prism_sides(base, top)]
    for wall in walls[:4]:
        mesh.add(wall, rgb[0])
    if roof_m > 0:
        eave = ring(-length / 2 - 0.4, length / 2 + 0.4, width / 2 + 0.5, wall_m - 0.1)
        ridge = np.array([[length / 2 + 0.4, 0.0, wall_m + roof_m], [-length / 2 - 0.4, 0.0, wall_m + roof_m]])
        mesh.add(_placed(np.array([top[0], top[1], ridge[0] - [0.4, 0, 0]]), pose), rgb[0])
        mesh.add(_placed(np.array([top[2], top[3], ridge[1] + [0.4, 0, 0]]), pose), rgb[0])
        mesh.add(_placed(np.array([eave[1], eave[2], ridge[1], ridge[0]]), pose), rgb[1])
        mesh.add(_placed(np.array([eave[3], eave[0], ridge[0], ridge[1]]), pose), rgb[1])
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


def _add_post(mesh: _Mesh, xy: FloatArray, yaw: float, kind: PostKind, rgb: FloatArray, is_night: bool) -> None:
    mesh.begin(float(xy[0]), float(xy[1]), 0.0)
    pose = np.array([xy[0], xy[1], yaw])

    def upright(x0: float, x1: float, z0: float, z1: float, color: Color | FloatArray, *, is_glowing: bool = False) -> None:
        corners = np.array([[x0, 0.0, z0], [x1, 0.0, z0], [x1, 0.0, z1], [x0, 0.0, z1]])
        mesh.add(_placed(corners, pose), np.asarray(color), is_two_sided=True, is_glowing=is_glowing)

    if kind is PostKind.DELINEATOR:
        upright(-0.08, 0.08, 0.0, 1.0, (225.0, 225.0, 220.0))
        upright(-0.08, 0.08, 0.66, 0.86, (40.0, 40.0, 42.0))
    elif kind is PostKind.LAMP:
        upright(-0.09, 0.09, 0.0, 6.8, (112.0, 116.0, 120.0))
        upright(0.0, 1.9, 6.7, 6.85, (112.0, 116.0, 120.0))
        upright(1.3, 2.1, 6.55, 6.8, (250.0, 222.0, 160.0) if is_night else (150.0, 152.0, 154.0), is_glowing=is_night)
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
    band(0.0, 1.0, 0.48, 0.80, (176.0, 180.0, 184.0), _FULL_RANGE_M)
    band(0.0, 1.0, 0.60, 0.67, (124.0, 128.0, 132.0), 50.0)


_PAINT, _GLASS, _TYRE, _TAIL, _HEAD, _TRIM, _PLATE, _SHADE, _DEEP_SHADE = range(9)


def _wheel(x: float, y: float, side: float) -> FloatArray:
    angle = np.arange(CORNERS) / CORNERS * 2 * np.pi * -side
    return np.stack([x + 0.073 * np.cos(angle), np.full(CORNERS, y * side), 0.215 + 0.215 * np.sin(angle)], axis=-1)


def _underside(z_m: float) -> list[tuple[FloatArray, int]]:
    """Return what is below a body: soft shadow on the road, darkness, and the wheels as seen from front and rear."""
    faces = [(ring(-0.54, 0.54, 0.60, 0.0), _SHADE), (ring(-0.51, 0.51, 0.53, 0.0), _DEEP_SHADE)]
    for x, sign in ((0.40, 1), (-0.40, -1)):
        plane = np.array([[x, -0.46 * sign, 0.0], [x, 0.46 * sign, 0.0], [x, 0.46 * sign, z_m], [x, -0.46 * sign, z_m]])
        faces.append((inset(plane, 0.2, 0.8, 0.35, 1.0), _DEEP_SHADE))
        faces += [(inset(plane, u0, u0 + 0.2, 0.0, 1.0), _TYRE) for u0 in (0.0, 0.8)]
    return faces


def _car_template() -> tuple[FloatArray, list[int]]:
    """Return (F, 8, 3) faces of a car of unit length, width and height, and what each is made of."""
    faces = _underside(0.16)
    body = prism_sides(ring(-0.49, 0.49, 0.5, 0.13), ring(-0.5, 0.47, 0.48, 0.58))
    cabin = prism_sides(ring(-0.44, 0.22, 0.46, 0.58), ring(-0.32, 0.06, 0.38, 1.0))
    front, left, rear, right, bonnet = body
    faces += [(side, _PAINT) for side in (left, right, bonnet, front, rear)]
    for side in (front, rear):
        faces.append((inset(side, 0.0, 1.0, 0.0, 0.26), _TRIM))
        faces.append((inset(side, 0.36, 0.64, 0.36, 0.58), _PLATE))
    for u0 in (0.03, 0.75):
        faces.append((inset(front, u0, u0 + 0.22, 0.56, 0.86), _HEAD))
        faces.append((inset(rear, u0, u0 + 0.22, 0.52, 0.88), _TAIL))
    for x in (-0.31, 0.31):
        faces += [(_wheel(x, 0.502, 1.0), _TYRE), (_wheel(x, 0.502, -1.0), _TYRE)]
    faces += [(side, _PAINT) for side in cabin]
    faces += [(inset(side, 0.08, 0.92, 0.12, 0.86), _GLASS) for side in cabin[:4]]
    return np.array([padded(corners) for corners, _ in faces]), [role for _, role in faces]


def _truck_template() -> tuple[FloatArray, list[int]]:
    """Return (F, 8, 3) faces of a box truck or bus of unit size, and what each is made of."""
    faces = _underside(0.17)
    cab = prism_sides(ring(0.28, 0.5, 0.47, 0.1), ring(0.29, 0.48, 0.45, 0.82))
    box = prism_sides(ring(-0.5, 0.27, 0.5, 0.16), ring(-0.5, 0.27, 0.5, 1.0))
    faces += [(side, _PAINT) for side in cab]
    faces += [(inset(cab[i], 0.08, 0.92, 0.5, 0.9), _GLASS) for i in (0, 1, 3)]
    faces += [(inset(cab[0], u0, u0 + 0.2, 0.12, 0.26), _HEAD) for u0 in (0.04, 0.76)]
    for x in (-0.36, 0.36):
        for side in (1.0, -1.0):
            wheel = _wheel(x, 0.502, side)
            faces.append((wheel * [1.0, 1.0, 0.7], _TYRE))
    faces += [(side, _PAINT) for side in box]
    faces.append((inset(box[2], 0.0, 1.0, 0.0, 0.1), _TRIM))
    faces.append((inset(box[2], 0.485, 0.515, 0.12, 0.96), _TRIM))
    faces += [(inset(box[2], u0, u0 + 0.14, 0.1, 0.19), _TAIL) for u0 in (0.03, 0.83)]
    return np.array([padded(corners) for corners, _ in faces]), [role for _, role in faces]


_CAR, _TRUCK = _car_template(), _truck_template()
_TRUCK_HEIGHT_M = 2.2


def vehicle_faces(vehicles: Sequence[VehicleBox], look: Look) -> Faces:
    """Build the faces of vehicles; tail lights glow when braking, all lights glow at night."""
    is_night = look.time_of_day is TimeOfDay.NIGHT
    corners, rgb, glowing, owner = [], [], [], []
    for index, vehicle in enumerate(vehicles):
        template, roles = _TRUCK if vehicle.height_m > _TRUCK_HEIGHT_M else _CAR
        scaled = template * [vehicle.length_m, vehicle.width_m, vehicle.height_m]
        corners.append(_placed(scaled, np.array([vehicle.x_m, vehicle.y_m, vehicle.yaw_rad])))
        rgb.append(_materials(vehicle, look, is_night)[roles])
        shines = np.zeros(_DEEP_SHADE + 1, dtype=bool)
        shines[_TAIL], shines[_HEAD] = is_night or vehicle.is_braking, is_night
        glowing.append(shines[roles])
        owner.append(np.full(len(roles), index))
    count = sum(len(part) for part in corners)
    return Faces(
        corners=np.concatenate(corners) if corners else np.zeros((0, CORNERS, 3)),
        rgb=np.concatenate(rgb) if rgb else np.zeros((0, 3)),
        is_glowing=np.concatenate(glowing) if glowing else np.zeros(0, dtype=bool),
        is_two_sided=np.zeros(count, dtype=bool),
        range_m=np.full(count, _FULL_RANGE_M),
        owner=np.concatenate(owner) if owner else np.zeros(0, dtype=np.int64),
        owner_xy_m=np.array([(v.x_m, v.y_m) for v in vehicles], dtype=np.float64).reshape(-1, 2),
        owner_reach_m=np.array([0.25 * v.length_m for v in vehicles], dtype=np.float64),
    )


def _materials(vehicle: VehicleBox, look: Look, is_night: bool) -> FloatArray:
    tail = (255.0, 36.0, 24.0) if vehicle.is_braking else ((176.0, 16.0, 14.0) if is_night else (122.0, 18.0, 18.0))
    head = (255.0, 250.0, 226.0) if is_night else (214.0, 216.0, 214.0)
    glass, tyre, trim, plate = (44.0, 52.0, 62.0), (26.0, 26.0, 28.0), (48.0, 48.0, 50.0), (214.0, 214.0, 200.0)
    wet = 0.68 if look.weather is Weather.RAIN else 1.0
    shade, deep = (tuple(tone * wet * channel for channel in look.asphalt_rgb) for tone in (0.7, 0.42))
    return np.array([vehicle.color_rgb, glass, tyre, tail, head, trim, plate, shade, deep])
