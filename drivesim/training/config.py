"""TrainConfig: everything that `drivesim train` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from drivesim.scene.captioned_source import CaptionedSourceConfig
from drivesim.training.behavior_cloning import BehaviorCloningTrainingConfig
from drivesim.training.captioned_makers import GeneralDataConfig
from drivesim.training.clip_pool import PoolConfig
from drivesim.training.data import DataConfig
from drivesim.training.fine_tuning_config import FineTuningConfig
from drivesim.training.hazard_head import HazardTrainingConfig
from drivesim.training.imagination import ImaginationTrainingConfig
from drivesim.training.inverse_dynamics import InverseDynamicsTrainingConfig
from drivesim.training.motion_field import MotionFieldTrainingConfig
from drivesim.training.scene_source import SceneSourceConfig
from drivesim.training.settings import TrainingConfig
from drivesim.training.stream import StreamConfig
from drivesim.training.token_shards import TokenSetConfig
from drivesim.training.tokenizer import TokenizerTrainingConfig
from drivesim.training.video_model import VideoTrainingConfig
from drivesim.training.world_model import WorldModelTrainingConfig
from drivesim.world_model.world_model import WorldModelConfig


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """One training run; a run reads its own model's part and the two shared ones, training and data."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)  # with data.source=stream
    pool: PoolConfig = field(default_factory=PoolConfig)  # with data.source=stream
    scenes: SceneSourceConfig = field(default_factory=SceneSourceConfig)  # with data.source=scenes
    tokens: TokenSetConfig = field(default_factory=TokenSetConfig)  # with data.source=tokens
    general: GeneralDataConfig = field(default_factory=GeneralDataConfig)  # with data.source=general
    captions: CaptionedSourceConfig = field(
        default_factory=CaptionedSourceConfig
    )  # files in place of that world
    fine_tuning: FineTuningConfig = field(default_factory=FineTuningConfig)  # with data=FOLDER
    tokenizer: TokenizerTrainingConfig = field(default_factory=TokenizerTrainingConfig)
    motion_field: MotionFieldTrainingConfig = field(default_factory=MotionFieldTrainingConfig)
    world_model: WorldModelTrainingConfig = field(default_factory=WorldModelTrainingConfig)
    imagination: ImaginationTrainingConfig = field(default_factory=ImaginationTrainingConfig)
    video_model: VideoTrainingConfig = field(default_factory=VideoTrainingConfig)
    inverse_dynamics: InverseDynamicsTrainingConfig = field(default_factory=InverseDynamicsTrainingConfig)
    hazard_head: HazardTrainingConfig = field(default_factory=HazardTrainingConfig)
    behavior_cloning: BehaviorCloningTrainingConfig = field(default_factory=BehaviorCloningTrainingConfig)

    def __post_init__(self) -> None:
        """Refuse settings of the world model that follow from its tokenizer."""
        model, default = self.world_model.model, WorldModelConfig()
        if model.vqgan != default.vqgan:
            raise ValueError(
                "world_model.model.vqgan cannot be set: the tokenizer comes from the weights in "
                "world_model.init; train others with `drivesim train tokenizer tokenizer.vqgan...`"
            )
        if model.stpt.guide_dim != default.stpt.guide_dim:
            raise ValueError(
                "world_model.model.stpt.guide_dim cannot be set: it follows from the tokenizer; leave it out"
            )
