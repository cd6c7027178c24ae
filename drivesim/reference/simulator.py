"""The ground-truth world: a road, its traffic and its look, made from a seed, and a car moved through it."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drivesim.dynamics import VehicleConfig
from drivesim.errors import InputError
from drivesim.metrics.closeness import time_to_collision
from drivesim.reference.camera import FrameRenderer
from drivesim.reference.cars import TrafficCar
from drivesim.reference.layout import RoadLayout
from drivesim.reference.look import Look, draw_look
from drivesim.reference.roads import FAMILIES, build_road
from drivesim.reference.route import Route
from drivesim.reference.scenery import place_scenery
from drivesim.reference.surface import Surface, paint_surface
from drivesim.reference.traffic import Traffic
from drivesim.reference.vehicles import VehicleBox
from drivesim.scene.geometry import FloatArray, global_from_ego, transform_points, wrap_angle
from drivesim.scene.road_map import RoadMap, road_map
from drivesim.scene.types import Camera, DrivableArea, EgoState, Image, front_camera

_LOG_PREFIX = "reference"
_ROUTE_BEHIND_M = 12.0
_ROUTE_AHEAD_M = 480.0
_WINDING_SHARE = 0.6
_OTHER_SHARES = {
    "two-way": 0.08,
    "merge": 0.16,
    "intersection": 0.22,
    "roundabout": 0.18,
    "racetrack": 0.12,
    "racetrack-large": 0.1,
    "racetrack-oval": 0.07,
    "lane-keeping": 0.07,
}


@dataclass(kw_only=True, slots=True, frozen=True)
class WorldSpec:
    """All that is needed to make a world again: the kind of road and a seed."""

    family: str
    seed: int

    def __post_init__(self) -> None:
        """Refuse families that do not exist and negative seeds."""
        if self.family not in FAMILIES:
            raise InputError(f"unknown road family {self.family!r}; choose one of {', '.join(FAMILIES)}")
        if self.seed < 0:
            raise InputError(f"the seed of a world must not be negative, got {self.seed}")

    @property
    def log_name(self) -> str:
        """Return the name that a recording carries, such as ``reference-winding-900003``."""
        return f"{_LOG_PREFIX}-{self.family}-{self.seed}"

    @classmethod
    def from_log_name(cls, log_name: str) -> WorldSpec:
        """Read a spec back from the name of a recording.

        Raises:
            InputError: if the recording was not made in the reference world.
        """
        match = re.fullmatch(rf"{_LOG_PREFIX}-(.+)-(\d+)", log_name)
        if match is None:
            raise InputError(
                f"the log {log_name!r} was not recorded in the reference world; "
                "choose a scene whose log is named like 'reference-winding-900003'"
            )
        return cls(family=match[1], seed=int(match[2]))


@dataclass(kw_only=True, slots=True, frozen=True)
class SavedWorld:
    """What changes in a world while it is driven."""

    ego: EgoState
    is_collision: bool
    traffic: Traffic


def draw_spec(seed: int) -> WorldSpec:
    """Return the world of a seed: a winding road in three of five cases, else one of HighwayEnv's."""
    rng = np.random.default_rng([seed, 1])
    if rng.random() < _WINDING_SHARE:
        return WorldSpec(family="winding", seed=seed)
    families = list(_OTHER_SHARES)
    return WorldSpec(
        family=families[int(rng.choice(len(families), p=list(_OTHER_SHARES.values())))], seed=seed
    )


def look_of(spec: WorldSpec) -> Look:
    """Return the look of a world without building it."""
    return draw_look(np.random.default_rng(_seeds_of(spec)["look"]))


def _seeds_of(spec: WorldSpec) -> dict[str, np.random.SeedSequence]:
    """Return where the chance of each part of a world comes from."""
    root = np.random.SeedSequence([spec.seed, zlib.crc32(spec.family.encode())])
    return dict(zip(("road", "look", "surface", "scenery", "traffic", "start"), root.spawn(6), strict=True))


class ReferenceWorld:
    """A world with one car in it that is moved from outside; traffic reacts to it.

    Everything follows from the spec: two worlds of one spec, moved alike, are equal bit for bit.
    """

    def __init__(
        self,
        spec: WorldSpec,
        *,
        camera: Camera | None = None,
        vehicle: VehicleConfig | None = None,
        rate_hz: float = 6.0,
    ) -> None:
        """Build the road; the picture of the ground is painted when first needed.

        Args:
            spec: kind of road and seed.
            camera: what ``render`` draws; the front camera of 224x128 pixels if left out.
            vehicle: size of the ego car.
            rate_hz: how many times per second ``advance`` is called.
        """
        self.spec = spec
        self.camera = camera or front_camera()
        self.vehicle = vehicle or VehicleConfig()
        self.rate_hz = rate_hz
        self._seeds = _seeds_of(spec)
        self.layout: RoadLayout = build_road(spec.family, self._rng("road"))
        self.look = draw_look(self._rng("look"))
        self.route = Route(_cut_route(self.layout, self._rng("start")))
        self.reset()

    @property
    def route_xy_m(self) -> FloatArray:
        """Return the (R, 2) polyline to follow, about a metre apart; it begins a little behind the start."""
        return self.route.xy_m

    @property
    def place(self) -> str:
        """Return the name of the kind of place."""
        return f"{_LOG_PREFIX}-{self.spec.family}"

    @property
    def ego(self) -> EgoState:
        """Return where the ego car is."""
        return self._ego

    @property
    def traffic(self) -> list[VehicleBox]:
        """Return all other cars and obstacles as the camera sees them."""
        return self._traffic.boxes

    @property
    def is_collision(self) -> bool:
        """Tell whether the ego car touched another car or an obstacle during the latest step."""
        return self._is_collision

    @property
    def is_off_road(self) -> bool:
        """Tell whether a corner of the ego car is outside the drivable area."""
        return self.is_outside(self._ego)

    @cached_property
    def surface(self) -> Surface:
        """Return the painted ground."""
        return paint_surface(
            self.layout.network, offset_m=self.layout.offset_m, look=self.look, rng=self._rng("surface")
        )

    @property
    def drivable(self) -> DrivableArea:
        """Return where a car may drive."""
        return self.surface.drivable

    @cached_property
    def road_map(self) -> RoadMap:
        """Return how far every place is from the edge of the drivable area."""
        return road_map(self.drivable)

    @cached_property
    def _renderer(self) -> FrameRenderer:
        scenery = place_scenery(self.layout.network, self.drivable, self.look, self._rng("scenery"))
        return FrameRenderer(self.surface, scenery, self.look, self.camera)

    def reset(self) -> EgoState:
        """Go back to the start: the car on its lane, the first traffic around it."""
        rng = self._rng("start")
        along_m = min(_ROUTE_BEHIND_M, 0.1 * self.route.length_m)
        xy_m, yaw_rad = self.route.point_at(along_m), self.route.heading_at(along_m)
        left_m = float(np.clip(rng.normal(0.0, 0.25), -0.6, 0.6))
        speed_mps = 0.0 if rng.random() < 0.08 else float(rng.uniform(2.0, 16.0))
        bend = self.route.curvature_between(along_m, along_m + 20.0)
        speed_mps = min(speed_mps, float(np.sqrt(5.0 / max(bend, 1e-3))))
        self._ego = EgoState(
            x_m=float(xy_m[0] - np.sin(yaw_rad) * left_m),
            y_m=float(xy_m[1] + np.cos(yaw_rad) * left_m),
            yaw_rad=float(wrap_angle(yaw_rad + rng.normal(0.0, 0.02))),
            speed_mps=speed_mps,
        )
        self._is_collision = False
        self._traffic = Traffic(self.layout, vehicle=self.vehicle, rng=self._rng("traffic"))
        self._traffic.populate(self._ego)
        self.caption = self._describe()
        return self._ego

    def advance(self, ego: EgoState) -> None:
        """Move the ego car to a state one step later; traffic acts and moves meanwhile."""
        self._is_collision = self._traffic.advance(self._ego, ego, duration_s=1.0 / self.rate_hz)
        self._ego = ego

    @property
    def time_to_collision_s(self) -> float:
        """Return how soon the ego car would touch another, see ``drivesim/metrics/closeness.py``."""
        boxes = [(b.x_m, b.y_m, b.yaw_rad, b.speed_mps, b.length_m, b.width_m) for b in self.traffic]
        return time_to_collision(self._ego, self.vehicle, boxes)

    def saved(self) -> SavedWorld:
        """Return the world as it is; moving it on does not change what is returned."""
        return SavedWorld(ego=self._ego, is_collision=self._is_collision, traffic=self._traffic.copied())

    def restore(self, saved: SavedWorld) -> None:
        """Put the world where it was saved."""
        self._ego, self._is_collision = saved.ego, saved.is_collision
        self._traffic = saved.traffic.copied()

    def render(self) -> Image:
        """Return the camera's picture of this instant: (H, W, 3) RGB."""
        return self.picture(self._ego, self.traffic)

    def picture(self, ego: EgoState, vehicles: list[VehicleBox]) -> Image:
        """Return what the camera sees, or saw, from a state of the ego car with others on the road."""
        xy_m = np.array([ego.x_m, ego.y_m])
        frame: Image = self._renderer.render(xy_m=xy_m, yaw_rad=ego.yaw_rad, vehicles=vehicles)
        return frame

    def is_outside(self, ego: EgoState) -> bool:
        """Tell whether a corner of the ego car in this state is outside the drivable area."""
        return not bool(self.drivable.contains(footprint(ego, self.vehicle)).all())

    def _rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(self._seeds[purpose])

    def _describe(self) -> str:
        """Return a caption of the start: sky, road, its bend and the nearest car."""
        here = self.route.locate(np.array([self._ego.x_m, self._ego.y_m]), _ROUTE_BEHIND_M)
        turn_rad = self.route.heading_at(here.along_m + 45.0) - self.route.heading_at(here.along_m)
        parts = [self.look.words, f"{self.layout.words}{_bend_words(turn_rad)}"]
        cars = self._traffic.cars
        if cars:
            positions = np.array([car.position for car in cars])
            places = self.route.locate_ahead(positions, from_m=here.along_m, reach_m=60.0)
            nearest, place = min(zip(cars, places, strict=True), key=lambda pair: pair[1].along_m)
            if 3.0 < place.along_m - here.along_m < 55.0 and abs(place.left_m) < 9.0:
                is_oncoming = bool(np.cos(nearest.heading - self.route.heading_at(place.along_m)) < 0)
                parts.append(_car_words(nearest, left_m=place.left_m, is_oncoming=is_oncoming))
        return ", ".join(parts)


def footprint(ego: EgoState, vehicle: VehicleConfig) -> FloatArray:
    """Return the (4, 2) corners of the car in the global frame."""
    back, front, half = (
        -vehicle.rear_overhang_m,
        vehicle.length_m - vehicle.rear_overhang_m,
        vehicle.width_m / 2,
    )
    corners = [[back, -half], [back, half], [front, half], [front, -half]]
    return transform_points(global_from_ego([ego.x_m, ego.y_m], ego.yaw_rad), corners)


def _cut_route(layout: RoadLayout, rng: np.random.Generator) -> FloatArray:
    """Return the route from a little behind a random start to its end, or some laps of a loop."""
    points = layout.route_xy_m
    wanted = int(_ROUTE_BEHIND_M + _ROUTE_AHEAD_M)
    if layout.is_loop:
        lap = points[:-1]
        first = int(rng.integers(len(lap)))
        return np.asarray(lap[(first + np.arange(wanted + 1)) % len(lap)])
    spare = len(points) - wanted
    first = int(rng.integers(max(spare, len(points) // 6, 1)))
    return np.asarray(points[first : first + wanted + 150])


def _bend_words(turn_rad: float) -> str:
    if abs(turn_rad) < 0.2:
        return " going straight on"
    side = "left" if turn_rad > 0 else "right"
    return f" bending {'sharply ' if abs(turn_rad) > 0.9 else ''}{side}"


def _car_words(car: TrafficCar, *, left_m: float, is_oncoming: bool) -> str:
    article = "an" if car.body.color[0] in "aeiou" else "a"
    name = f"{article} {car.body.color} {car.body.kind}"
    if is_oncoming:
        return f"meeting {name}"
    return f"following {name}" if abs(left_m) < 1.8 else f"beside {name}"
