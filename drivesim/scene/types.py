"""Types every other module speaks: Camera, EgoState, Control, Command, DrivableArea, Agents and Scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from drivesim.scene.geometry import FloatArray

Image = NDArray[np.uint8]

CAM_FROM_FORWARD = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""(3, 3) rotation ``ego_from_cam`` of a camera that looks straight ahead along the ego x axis."""


class Command(Enum):
    """What the route asks of the driver at the next junction."""

    FOLLOW = "follow"
    LEFT = "left"
    RIGHT = "right"


@dataclass(kw_only=True, slots=True, frozen=True)
class Camera:
    """A pinhole camera fixed to the car.

    ``ego_from_cam`` is a (4, 4) map; the ego origin lies on the ground below the middle of the rear axle.
    """

    width_px: int
    height_px: int
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    ego_from_cam: FloatArray  # (4, 4)

    @property
    def intrinsic(self) -> FloatArray:
        """Return the (3, 3) matrix that takes camera rays to pixels."""
        return np.array([[self.fx_px, 0, self.cx_px], [0, self.fy_px, self.cy_px], [0, 0, 1.0]])

    def equals(self, other: Camera) -> bool:
        """Tell whether another camera sees the same from the same place."""
        numbers = ("width_px", "height_px", "fx_px", "fy_px", "cx_px", "cy_px")
        is_same_size = all(getattr(self, name) == getattr(other, name) for name in numbers)
        return is_same_size and bool(np.array_equal(self.ego_from_cam, other.ego_from_cam))

    def resized(self, *, width_px: int, height_px: int) -> Camera:
        """Return the camera of the same picture scaled to another size."""
        sx, sy = width_px / self.width_px, height_px / self.height_px
        return Camera(
            width_px=width_px,
            height_px=height_px,
            fx_px=self.fx_px * sx,
            fy_px=self.fy_px * sy,
            cx_px=self.cx_px * sx,
            cy_px=self.cy_px * sy,
            ego_from_cam=self.ego_from_cam,
        )


def front_camera(
    *,
    width_px: int = 224,
    height_px: int = 128,
    focal_px: float = 160.0,
    horizon_row_px: float = 54.0,
    forward_m: float = 1.7,
    above_ground_m: float = 1.5,
) -> Camera:
    """Return the front camera of the reference world: it looks straight ahead, mounted as nuScenes' CAM_FRONT."""
    ego_from_cam = np.eye(4)
    ego_from_cam[:3, :3] = CAM_FROM_FORWARD
    ego_from_cam[:3, 3] = (forward_m, 0.0, above_ground_m)
    return Camera(
        width_px=width_px,
        height_px=height_px,
        fx_px=focal_px,
        fy_px=focal_px,
        cx_px=width_px / 2,
        cy_px=horizon_row_px,
        ego_from_cam=ego_from_cam,
    )


@dataclass(kw_only=True, slots=True, frozen=True)
class EgoState:
    """Pose and motion of the ego car: rear axle on the ground, global frame."""

    x_m: float
    y_m: float
    yaw_rad: float
    speed_mps: float
    yaw_rate_radps: float = 0.0
    accel_mps2: float = 0.0
    steering_rad: float = 0.0


@dataclass(kw_only=True, slots=True, frozen=True)
class Control:
    """What the car is told for one step: road-wheel angle (left positive) and acceleration."""

    steering_rad: float
    accel_mps2: float


FARTHEST_XY_M = 1e7  # of a place from the origin of its map


@dataclass(kw_only=True, slots=True)
class PaintedLine:
    """A line on the road, or one stripe of it."""

    xy_m: FloatArray  # (N, 2) its middle, global
    width_m: float
    share: float = 1.0  # that is painted; below 1 where it is not known where the stripes are

    def __post_init__(self) -> None:
        """Refuse what is no line."""
        if self.xy_m.ndim != 2 or self.xy_m.shape[0] < 2 or self.xy_m.shape[1] != 2:
            raise ValueError(f"a painted line has (N, 2) points, N at least 2, got {self.xy_m.shape}")
        if not (np.abs(self.xy_m) < FARTHEST_XY_M).all():
            raise ValueError(f"points of a painted line must be finite and below {FARTHEST_XY_M:.0e} m")
        if not (self.width_m > 0 and 0 < self.share <= 1):
            raise ValueError(
                f"a painted line needs width_m > 0 and share in (0, 1], got {self.width_m} and {self.share}"
            )


@dataclass(kw_only=True, slots=True)
class DrivableArea:
    """A raster of where a car may drive: row 0 is the northern edge, as in a nuScenes map mask."""

    mask: NDArray[np.bool_]  # (rows, columns); True = drivable
    resolution_m: float  # metres per cell
    origin_xy_m: FloatArray  # (2,) global position of the lower left corner
    lines: tuple[PaintedLine, ...] | None = None  # what is painted; None where that is not known

    def contains(self, xy_m: FloatArray) -> NDArray[np.bool_]:
        """Tell for (..., 2) global points whether they are drivable; outside the raster is not."""
        cells = np.floor((np.asarray(xy_m) - self.origin_xy_m) / self.resolution_m).astype(np.int64)
        rows = self.mask.shape[0] - 1 - cells[..., 1]
        columns = cells[..., 0]
        is_inside = (
            (rows >= 0) & (rows < self.mask.shape[0]) & (columns >= 0) & (columns < self.mask.shape[1])
        )
        return np.asarray(
            is_inside & self.mask[np.where(is_inside, rows, 0), np.where(is_inside, columns, 0)]
        )


@dataclass(kw_only=True, slots=True, frozen=True)
class Agents:
    """Other road users at one instant, as boxes that stand on the ground; N of them."""

    xy_m: FloatArray  # (N, 2) middles, global
    yaw_rad: FloatArray  # (N,)
    speed_mps: FloatArray  # (N,) along the heading
    size_m: FloatArray  # (N, 3) length, width, height

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        count = len(self.xy_m)
        shapes = (self.xy_m.shape, self.yaw_rad.shape, self.speed_mps.shape, self.size_m.shape)
        if shapes != ((count, 2), (count,), (count,), (count, 3)):
            raise ValueError(f"agents need (N, 2), (N,), (N,) and (N, 3) arrays, got {shapes}")

    def __len__(self) -> int:
        """Return N."""
        return len(self.xy_m)

    def rows(self, chosen: NDArray[np.bool_]) -> Agents:
        """Return those that are chosen (N,)."""
        return Agents(
            xy_m=self.xy_m[chosen],
            yaw_rad=self.yaw_rad[chosen],
            speed_mps=self.speed_mps[chosen],
            size_m=self.size_m[chosen],
        )


@dataclass(kw_only=True, slots=True)
class Scene:
    """One recording at a steady frame rate: pictures, ego motion, and what is known of the place.

    ``speed_mps[t]`` and ``yaw_rate_radps[t]`` are the motion that leads INTO frame ``t`` (mean over the interval
    from frame ``t - 1``); index 0 repeats the motion at the first instant. ``steering_rad`` is the road-wheel angle.
    """

    name: str
    place: str  # nuScenes `log.location`
    caption: str
    log_name: str  # nuScenes `log.logfile`; names the world of a reference recording
    rate_hz: float
    timestamps_s: FloatArray  # (T,) seconds from the first frame
    frames: Sequence[Image]  # T pictures (H, W, 3) RGB uint8, read when indexed
    camera: Camera  # of the pictures as delivered
    xy_m: FloatArray  # (T, 2) global rear axle
    yaw_rad: FloatArray  # (T,)
    speed_mps: FloatArray  # (T,)
    yaw_rate_radps: FloatArray  # (T,)
    steering_rad: FloatArray  # (T,)
    motion_source: str  # "can", "ego_pose" or "log"
    route_xy_m: FloatArray | None = None  # (R, 2) polyline to follow, at least as long as the recording
    drivable: DrivableArea | None = None
    problems: list[str] = field(default_factory=list)  # what the loader had to repair or do without
    signal_sources: dict[str, str] = field(default_factory=dict)  # of speed, yaw rate, steering, where told
    steering_ratio: float | None = None  # steering wheel per driven angle, where it could be measured
    agents: Sequence[Agents | None] | None = None  # T, read when indexed; None where nobody annotated them

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.timestamps_s)

    def ego_state(self, index: int) -> EgoState:
        """Return the recorded ego state at frame ``index``."""
        accel_mps2 = 0.0
        if 0 < index < len(self):
            accel_mps2 = float(self.speed_mps[index] - self.speed_mps[index - 1]) * self.rate_hz
        return EgoState(
            x_m=float(self.xy_m[index, 0]),
            y_m=float(self.xy_m[index, 1]),
            yaw_rad=float(self.yaw_rad[index]),
            speed_mps=float(self.speed_mps[index]),
            yaw_rate_radps=float(self.yaw_rate_radps[index]),
            accel_mps2=accel_mps2,
            steering_rad=float(self.steering_rad[index]),
        )

    def validate(self) -> None:
        """Raise ValueError if the arrays disagree in length or hold NaN."""
        count = len(self.timestamps_s)
        if len(self.frames) != count:
            raise ValueError(f"scene {self.name!r} has {count} timestamps but {len(self.frames)} frames")
        if self.agents is not None and len(self.agents) != count:
            raise ValueError(f"scene {self.name!r} has {count} timestamps but agents at {len(self.agents)}")
        for label in ("xy_m", "yaw_rad", "speed_mps", "yaw_rate_radps", "steering_rad"):
            values: FloatArray = getattr(self, label)
            if len(values) != count:
                raise ValueError(f"scene {self.name!r}: {label} has {len(values)} entries for {count} frames")
            if not np.isfinite(values).all():
                raise ValueError(f"scene {self.name!r}: {label} holds values that are not finite")
        if count > 1 and not (np.diff(self.timestamps_s) > 0).all():
            raise ValueError(f"scene {self.name!r}: timestamps do not increase")
