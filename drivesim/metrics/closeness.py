"""Time to collision: how soon the car would touch another one if both went straight on as they do now.

The measure of nuPlan (devkit 1.2, ``time_to_collision_within_bound``), with what is different named in
`time_to_collision`: boxes and speeds are known, lanes are not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from drivesim.dynamics import VehicleConfig
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import EgoState

HORIZON_S = 3.0
"""nuPlan's ``time_horizon``: how far ahead the two cars are followed; the value when they do not touch."""
LEAST_TIME_TO_COLLISION_S = 0.95
"""nuPlan's ``least_min_ttc``, NAVSIM's too: a step with this or less is a violation."""
STANDING_MPS = 0.005
"""nuPlan's ``stopped_speed_threshold``: an ego car slower than this is safe, whatever comes."""
BOX_COLUMNS = ("x_m", "y_m", "yaw_rad", "speed_mps", "length_m", "width_m")
"""Columns of the other cars; x and y are the middle of the box, the speed is along its heading."""


def time_to_collision(ego: EgoState, vehicle: VehicleConfig, others: ArrayLike) -> float:
    """Return the seconds until the ego car touches another box, in [0, 3]; 3.0 if it does not within 3 s.

    Both go on with their speed along their heading, without turning. The time of first contact of the two
    moving rectangles is exact. (nuPlan projects every 0.1 s and draws the boxes out by the way of one interval, so
    as not to miss what passes in between; the results agree to one interval.)

    Which boxes count: those whose middle is ahead of the ego's rear axle. A car that comes from behind is
    that car's fault, as in nuPlan, which leaves out what lies more than 150 degrees off the heading, and what lies
    30 to 150 degrees off it unless the ego is in a junction or in several lanes. Lanes are not known here, so
    crossing traffic ahead of the rear axle always counts. Boxes that already overlap give 0. An ego car below
    ``STANDING_MPS`` is safe, even when it is touched: collisions are a metric of their own.

    Args:
        ego: pose of the rear axle and speed.
        vehicle: the ego's footprint: length, width and what reaches behind the rear axle.
        others: (N, 6) of `BOX_COLUMNS`, N may be 0.
    """
    boxes = _checked(others)
    if len(boxes) == 0 or abs(ego.speed_mps) < STANDING_MPS:
        return HORIZON_S
    cos, sin = np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)
    from_axle_m = (boxes[:, :2] - [ego.x_m, ego.y_m]) @ np.array([[cos, -sin], [sin, cos]])
    boxes, from_axle_m = (array[from_axle_m[:, 0] > 0.0] for array in (boxes, from_axle_m))
    if len(boxes) == 0:
        return HORIZON_S
    heading = np.stack([np.cos(boxes[:, 2] - ego.yaw_rad), np.sin(boxes[:, 2] - ego.yaw_rad)], axis=-1)
    middle_m = np.array([0.5 * vehicle.length_m - vehicle.rear_overhang_m, 0.0])
    contact_s = _first_contact_s(
        offset_m=from_axle_m - middle_m,
        velocity_mps=boxes[:, 3:4] * heading - [ego.speed_mps, 0.0],
        heading=heading,
        half_m=0.5 * boxes[:, 4:6],
        ego_half_m=0.5 * np.array([vehicle.length_m, vehicle.width_m]),
    )
    return float(min(contact_s.min(), HORIZON_S))


def _first_contact_s(
    *,
    offset_m: FloatArray,
    velocity_mps: FloatArray,
    heading: FloatArray,
    half_m: FloatArray,
    ego_half_m: FloatArray,
) -> FloatArray:
    """Return (N,) seconds until boxes touch the ego's, infinite where they never do; all in the ego frame.

    Two rectangles overlap when their shadows do on each of their four axes; a shadow moves evenly, so each
    axis gives an interval of time, and the rectangles overlap in what the four have in common.
    """
    left = np.stack([-heading[:, 1], heading[:, 0]], axis=-1)
    ego_axes = np.broadcast_to(np.eye(2), (len(heading), 2, 2))
    axes = np.concatenate([ego_axes, heading[:, None], left[:, None]], axis=1)  # (N, 4, 2)
    reach_m = np.abs(axes) @ ego_half_m
    reach_m += np.abs(np.einsum("nad,nd->na", axes, heading)) * half_m[:, :1]
    reach_m += np.abs(np.einsum("nad,nd->na", axes, left)) * half_m[:, 1:]
    gap_m = np.einsum("nad,nd->na", axes, offset_m)
    rate_mps = np.einsum("nad,nd->na", axes, velocity_mps)
    is_moving = np.abs(rate_mps) > 1e-12
    rate_mps = np.where(is_moving, rate_mps, 1.0)
    ends_s = np.stack([(-reach_m - gap_m) / rate_mps, (reach_m - gap_m) / rate_mps])
    is_within = np.abs(gap_m) <= reach_m
    begin_s = np.where(is_moving, ends_s.min(axis=0), np.where(is_within, -np.inf, np.inf)).max(axis=1)
    end_s = np.where(is_moving, ends_s.max(axis=0), np.where(is_within, np.inf, -np.inf)).min(axis=1)
    is_met = (begin_s <= end_s) & (end_s >= 0.0)
    return np.asarray(np.where(is_met, np.maximum(begin_s, 0.0), np.inf))


def _checked(others: ArrayLike) -> FloatArray:
    boxes = np.asarray(others, dtype=np.float64)
    if boxes.size == 0:
        return np.zeros((0, len(BOX_COLUMNS)))
    if boxes.ndim != 2 or boxes.shape[1] != len(BOX_COLUMNS):
        raise ValueError(f"other cars are rows of {BOX_COLUMNS}, got an array of shape {boxes.shape}")
    if not np.isfinite(boxes).all() or (boxes[:, 4:] <= 0).any():
        raise ValueError("other cars need finite numbers and a length and width above 0")
    return boxes
