"""What an episode is: EpisodeConfig, and the scene it starts from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drivesim import MAX_EPISODE_STEPS
from drivesim.dynamics import VehicleConfig
from drivesim.errors import InputError, UnknownSettingError, nearest
from drivesim.rewards import RewardConfig
from drivesim.scene.nuscenes import embedded_dataset, open_dataset
from drivesim.scene.types import Scene
from drivesim.world_model.sampler import SamplerConfig, UnmaskOrder

DEFAULT_MIN_CONFIDENCE = (
    0.005  # below what drive-tiny has after twenty seconds of ordinary driving (0.006 to 0.02)
)


@dataclass(kw_only=True, slots=True)
class SamplerSettings:
    """What an episode decodes differently from its weights; None keeps the setting that came with them."""

    num_decode_steps: int | None = None
    temperature: float | None = None
    temperature_rise: int | None = None
    noise_memory: float | None = None
    order: UnmaskOrder | None = None

    def __post_init__(self) -> None:
        """Refuse values that no sampler takes."""
        sampler_with(SamplerConfig(), self)


def sampler_with(own: SamplerConfig, settings: SamplerSettings | SamplerConfig) -> SamplerConfig:
    """Return the weights' own sampler with what the settings name put in its place."""
    named = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    return dataclasses.replace(own, **{name: value for name, value in named.items() if value is not None})


@dataclass(kw_only=True, slots=True)
class EpisodeConfig:
    """What an episode is: the world, the scene it starts from, its limits and what it rewards."""

    env_id: str = "WorldDreamer-Drive-v0"
    scene: str = ""  # name of a scene; "" is the first one of the data set
    dataroot: str | None = None  # folder of a nuScenes data set; None is the embedded one
    version: str = "v1.0-mini"
    camera: str = "CAM_FRONT"  # of the data set; the shipped weights know front cameras
    horizon: int = MAX_EPISODE_STEPS  # steps until the time limit truncates; read by make_env
    context_frames: int = 4  # recorded frames before the first imagined one
    rate_hz: float = 6.0
    width_px: int = 224
    height_px: int = 128
    max_log_deviation_m: float | None = None  # truncate when further from the recorded car than this
    off_road_limit: float = 0.5  # terminate when a larger share of the car's footprint is off the road
    speed_limit_mps: float | None = None  # rewarded and measured where there is one
    min_confidence: float | None = DEFAULT_MIN_CONFIDENCE  # truncate when the model stays below it
    max_unsure_steps: int = 6  # so many steps in a row
    weights: str = "drive-tiny"  # name of shipped weights, or a path
    hazard_head: str | None = None  # None is the one made for the weights, where there is one; "" is none
    device: str = "cpu"
    is_compiled: bool = False  # torch.compile of the named weights; a minute or more, equal up to rounding
    uses_map: bool = True  # show the world model where road and markings are, where the scene has a map
    uses_agents: bool = True  # show it the other cars of the start, moved on at their speed, where annotated
    sampler: SamplerSettings = field(default_factory=SamplerSettings)  # a SamplerConfig sets all
    reward: RewardConfig = field(default_factory=RewardConfig)
    vehicle: VehicleConfig = field(default_factory=VehicleConfig)

    def __post_init__(self) -> None:
        """Refuse counts, rates and limits that make no episode."""
        for name in ("horizon", "context_frames", "rate_hz", "width_px", "height_px", "max_unsure_steps"):
            if not getattr(self, name) > 0:
                raise InputError(f"episode.{name} must be positive, got {getattr(self, name)}")
        for name in ("max_log_deviation_m", "speed_limit_mps"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise InputError(f"episode.{name} must be positive or None, got {limit}")
        if self.min_confidence is not None and not 0.0 <= self.min_confidence <= 1.0:
            raise InputError(
                f"episode.min_confidence is a probability in [0, 1] or None, got {self.min_confidence}"
            )
        if not 0.0 <= self.off_road_limit <= 1.0:
            raise InputError(f"episode.off_road_limit is a share in [0, 1], got {self.off_road_limit}")

    def with_settings(self, settings: dict[str, Any]) -> EpisodeConfig:
        """Return a copy with some fields set, as ``gym.make(id, scene=..., context_frames=...)`` names them.

        Raises:
            UnknownSettingError: a name that is no setting of an environment.
        """
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("env_id", "horizon")]
        for name in settings:
            if name == "horizon":
                raise InputError("gym.make takes max_episode_steps=..., not horizon=..., for the time limit")
            if name not in names:
                raise UnknownSettingError(
                    f"an environment has no setting {name!r}; {nearest(name, names)} "
                    f"(unexpected keyword argument {name!r})"
                )
        return dataclasses.replace(self, **settings)


def load_scene(episode: EpisodeConfig) -> Scene:
    """Read the episode's scene from its data set.

    Raises:
        InputError: no such data set or scene.
    """
    dataset = (
        embedded_dataset()
        if episode.dataroot is None
        else open_dataset(Path(episode.dataroot), episode.version)
    )
    names = dataset.scene_names()
    if not names:
        raise InputError(
            f"the data set {episode.dataroot} ({episode.version}) holds no scene; name another one"
        )
    return dataset.load(
        episode.scene or names[0],
        rate_hz=episode.rate_hz,
        width_px=episode.width_px,
        height_px=episode.height_px,
        camera=episode.camera,
    )
