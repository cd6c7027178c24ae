"""TrainConfig: everything that `drivesim train` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from drivesim.training.data import DataConfig
from drivesim.training.inverse_dynamics import InverseDynamicsTrainingConfig
from drivesim.training.settings import TrainingConfig
from drivesim.training.tokenizer import TokenizerTrainingConfig
from drivesim.training.world_model import WorldModelTrainingConfig


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """One training run; a run reads its own model's part and the two shared ones, training and data."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerTrainingConfig = field(default_factory=TokenizerTrainingConfig)
    world_model: WorldModelTrainingConfig = field(default_factory=WorldModelTrainingConfig)
    inverse_dynamics: InverseDynamicsTrainingConfig = field(default_factory=InverseDynamicsTrainingConfig)
