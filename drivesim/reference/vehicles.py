"""Vehicles as flat faces in metres: cars and trucks scaled to their boxes, with wheels, glass and lights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drivesim.reference.look import Color, Look, TimeOfDay, Weather
from drivesim.reference.solids import CORNERS, FULL_RANGE_M, Faces, inset, padded, placed, prism_sides, ring
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Agents


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
    speed_mps: float = 0.0  # along the heading


def agents_of(boxes: Sequence[VehicleBox]) -> Agents:
    """Return what else is on the road as everyone outside of the reference world knows it."""
    values = np.array(
        [
            (box.x_m, box.y_m, box.yaw_rad, box.speed_mps, box.length_m, box.width_m, box.height_m)
            for box in boxes
        ]
    ).reshape(-1, 7)
    return Agents(xy_m=values[:, :2], yaw_rad=values[:, 2], speed_mps=values[:, 3], size_m=values[:, 4:])


_PAINT, _GLASS, _TYRE, _TAIL, _HEAD, _TRIM, _PLATE, _SHADE, _DEEP_SHADE = range(9)


def _wheel(x: float, y: float, side: float) -> FloatArray:
    angle = np.arange(CORNERS) / CORNERS * 2 * np.pi * -side
    return np.stack(
        [x + 0.073 * np.cos(angle), np.full(CORNERS, y * side), 0.215 + 0.215 * np.sin(angle)], axis=-1
    )


def _underside(z_m: float) -> list[tuple[FloatArray, int]]:
    """Return what is below a body: soft shadow on the road, darkness, wheels seen from front and rear."""
    faces = [(ring(-0.54, 0.54, 0.60, 0.0), _SHADE), (ring(-0.51, 0.51, 0.53, 0.0), _DEEP_SHADE)]
    for x, sign in ((0.40, 1), (-0.40, -1)):
        plane = np.array(
            [[x, -0.46 * sign, 0.0], [x, 0.46 * sign, 0.0], [x, 0.46 * sign, z_m], [x, -0.46 * sign, z_m]]
        )
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
        corners.append(placed(scaled, np.array([vehicle.x_m, vehicle.y_m, vehicle.yaw_rad])))
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
        range_m=np.full(count, FULL_RANGE_M),
        owner=np.concatenate(owner) if owner else np.zeros(0, dtype=np.int64),
        owner_xy_m=np.array([(v.x_m, v.y_m) for v in vehicles], dtype=np.float64).reshape(-1, 2),
        owner_reach_m=np.array([0.25 * v.length_m for v in vehicles], dtype=np.float64),
    )


def _materials(vehicle: VehicleBox, look: Look, is_night: bool) -> FloatArray:
    tail = (
        (255.0, 36.0, 24.0)
        if vehicle.is_braking
        else ((176.0, 16.0, 14.0) if is_night else (122.0, 18.0, 18.0))
    )
    head = (255.0, 250.0, 226.0) if is_night else (214.0, 216.0, 214.0)
    glass, tyre, trim, plate = (
        (44.0, 52.0, 62.0),
        (26.0, 26.0, 28.0),
        (48.0, 48.0, 50.0),
        (214.0, 214.0, 200.0),
    )
    wet = 0.68 if look.weather is Weather.RAIN else 1.0
    shade, deep = (tuple(tone * wet * channel for channel in look.asphalt_rgb) for tone in (0.7, 0.42))
    return np.array([vehicle.color_rgb, glass, tyre, tail, head, trim, plate, shade, deep])
