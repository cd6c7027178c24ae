"""Traffic -> 3D boxes as nuScenes annotates them: who is where at a key frame, and how much of it is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drivesim.reference.vehicles import VehicleBox
from drivesim.scene.geometry import (
    FloatArray,
    global_from_ego,
    quaternion_from_yaw,
    transform_points,
    wrap_angle,
)
from drivesim.scene.nuscenes_writer import VISIBILITIES
from drivesim.scene.table_files import token_of

RANGE_M = 60.0
NUM_RAYS = 720
CATEGORIES = {
    "vehicle.car": "Car or van.",
    "vehicle.truck": "Truck.",
    "movable_object.barrier": "Obstacle that stands on the road.",
}
_BARRIER_HEIGHT_M, _VAN_HEIGHT_M = 1.2, 2.7

Record = dict[str, Any]


@dataclass(kw_only=True, slots=True)
class Annotation:
    """One box at one instant."""

    instance: str  # names the same object through a recording
    box: VehicleBox
    category: str
    visibility: str  # key of VISIBILITIES


def annotate(boxes: Sequence[VehicleBox], *, xy_m: FloatArray) -> list[Annotation]:
    """Return the boxes within 60 m of a (2,) point, seen from there over the full circle."""
    counts: Counter[str] = Counter()
    near: list[tuple[str, VehicleBox]] = []
    for box in boxes:
        look = f"{box.length_m:.6f}/{box.width_m:.6f}/{box.height_m:.6f}/{box.color_rgb}"
        counts[look] += 1
        if np.hypot(box.x_m - xy_m[0], box.y_m - xy_m[1]) <= RANGE_M:
            near.append((f"{look}/{counts[look]}", box))
    shares = visible_shares([box for _, box in near], xy_m=xy_m)
    return [
        Annotation(instance=instance, box=box, category=_category(box), visibility=_visibility(share))
        for (instance, box), share in zip(near, shares, strict=True)
    ]


def visible_shares(boxes: Sequence[VehicleBox], *, xy_m: FloatArray) -> list[float]:
    """Return for each box the share of its width, seen from a (2,) point, that no nearer box hides."""
    bearings = np.arange(NUM_RAYS) * (2 * np.pi / NUM_RAYS)
    distances = [float(np.hypot(box.x_m - xy_m[0], box.y_m - xy_m[1])) for box in boxes]
    is_taken = np.zeros(NUM_RAYS, dtype=bool)
    shares = [1.0] * len(boxes)
    for index in np.argsort(distances):
        is_covered = _covered_rays(boxes[index], xy_m, bearings)
        if is_covered.any():
            shares[index] = float((is_covered & ~is_taken).sum() / is_covered.sum())
        is_taken |= is_covered
    return shares


def _covered_rays(
    box: VehicleBox, xy_m: FloatArray, bearings: FloatArray
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    half = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * [box.length_m / 2, box.width_m / 2]
    corners = transform_points(global_from_ego([box.x_m, box.y_m], box.yaw_rad), half) - xy_m
    middle = float(np.arctan2(box.y_m - xy_m[1], box.x_m - xy_m[0]))
    spread = wrap_angle(np.arctan2(corners[:, 1], corners[:, 0]) - middle)
    offset = wrap_angle(bearings - middle)
    return np.asarray((offset >= spread.min()) & (offset <= spread.max()))


def _category(box: VehicleBox) -> str:
    names = list(CATEGORIES)
    if box.height_m < _BARRIER_HEIGHT_M:
        return names[2]
    return names[0] if box.height_m < _VAN_HEIGHT_M else names[1]


def _visibility(share: float) -> str:
    return next(key for key, (_, most) in VISIBILITIES.items() if share * 100 <= most)


class AnnotationTables:
    """Collects ``instance`` and ``sample_annotation`` records of one scene, linked through time."""

    def __init__(self, scene_token: str) -> None:
        """Start without any object."""
        self._scene_token = scene_token
        self._tracks: dict[str, list[Record]] = {}
        self._categories: dict[str, str] = {}

    def add(self, sample_token: str, boxes: Sequence[VehicleBox], *, xy_m: FloatArray) -> None:
        """Annotate a key frame whose camera car is at the (2,) point."""
        for seen in annotate(boxes, xy_m=xy_m):
            box = seen.box
            track = self._tracks.setdefault(seen.instance, [])
            self._categories[seen.instance] = seen.category
            track.append(
                {
                    "token": token_of("sample_annotation", sample_token, seen.instance),
                    "sample_token": sample_token,
                    "instance_token": token_of("instance", self._scene_token, seen.instance),
                    "visibility_token": seen.visibility,
                    "attribute_tokens": [],
                    "translation": [round(box.x_m, 3), round(box.y_m, 3), round(box.height_m / 2, 3)],
                    "size": [round(size, 3) for size in (box.width_m, box.length_m, box.height_m)],
                    "rotation": np.round(quaternion_from_yaw(box.yaw_rad), 6).tolist(),
                    "prev": track[-1]["token"] if track else "",
                    "next": "",
                    "num_lidar_pts": 0,
                    "num_radar_pts": 0,
                }
            )
            if len(track) > 1:
                track[-2]["next"] = track[-1]["token"]

    def instances(self) -> list[Record]:
        """Return the ``instance`` records."""
        return [
            {
                "token": track[0]["instance_token"],
                "category_token": token_of("category", self._categories[name]),
                "nbr_annotations": len(track),
                "first_annotation_token": track[0]["token"],
                "last_annotation_token": track[-1]["token"],
            }
            for name, track in self._tracks.items()
        ]

    def annotations(self) -> list[Record]:
        """Return the ``sample_annotation`` records."""
        return [record for track in self._tracks.values() for record in track]
