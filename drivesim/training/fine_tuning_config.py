"""FineTuningConfig: how shipped weights are fitted to recordings of another world."""

from __future__ import annotations

from dataclasses import dataclass, field

from drivesim.training.optimizers import OptimizerKind


@dataclass(kw_only=True, slots=True)
class StageConfig:
    """One stage of fine-tuning; it takes the place of what ``training`` says of the same things."""

    share: float  # of the time, in proportion to the other stages; 0 leaves the stage out
    learning_rate: float
    batch_size: int
    optimizer: OptimizerKind = OptimizerKind.adamw
    ema_decay: float = 0.99
    warmup_steps: int = 30
    evaluate_every: int = 100  # steps

    def __post_init__(self) -> None:
        """Refuse a negative share and evaluations that never come; `TrainingConfig` checks the rest."""
        if not self.share >= 0 or self.evaluate_every < 1:
            raise ValueError(
                f"a stage needs share >= 0 and evaluate_every >= 1, got {self.share} and {self.evaluate_every}"
            )


def _tokenizer() -> StageConfig:
    return StageConfig(share=0.0, learning_rate=3e-4, batch_size=8)


def _motion_field() -> StageConfig:
    return StageConfig(share=0.15, learning_rate=1e-3, batch_size=16, ema_decay=0.98)


def _imagination() -> StageConfig:
    return StageConfig(share=0.85, learning_rate=2.5e-4, batch_size=6, optimizer=OptimizerKind.muon)


@dataclass(kw_only=True, slots=True)
class FineTuningConfig:
    """Fine-tuning of a whole world model: ``data=FOLDER init=NAME`` on the command line set the first two."""

    data: str = ""  # a nuScenes-schema data set, such as `drivesim data import` leaves
    init: str = "drive-tiny"  # the world model to begin with: a shipped name or a file
    version: str = ""  # of the data set; empty: the only one there is
    scenes: list[str] = field(default_factory=list)  # empty: all
    max_minutes: float = 10.0  # where training.max_minutes says nothing
    held_out_share: float = 0.15  # of the frames, the last ones by time
    gap_s: float = 1.0  # left out before them where a scene is cut
    min_length_s: float = 20.0  # of driving, with less of which nothing is tried
    frames_per_clip: int = 36  # to learn from, at most; shorter where the scenes are
    num_windows: int = 96  # held-out windows of the fidelity table, at most
    num_checked_windows: int = 24  # of these, in the check during training
    patience: int = 3  # evaluations in a row without a new best one, after which a stage ends
    tokenizer: StageConfig = field(default_factory=_tokenizer)
    motion_field: StageConfig = field(default_factory=_motion_field)
    imagination: StageConfig = field(default_factory=_imagination)

    def __post_init__(self) -> None:
        """Refuse empty splits, clips and checks."""
        if not 0 < self.held_out_share < 0.5:
            raise ValueError(
                f"fine_tuning.held_out_share must lie inside (0, 0.5), got {self.held_out_share}"
            )
        for name in ("max_minutes", "num_windows", "num_checked_windows", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"fine_tuning.{name} must be positive, got {getattr(self, name)}")
        for name in ("gap_s", "min_length_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"fine_tuning.{name} must not be negative, got {getattr(self, name)}")
        if self.frames_per_clip < 8:
            raise ValueError(f"fine_tuning.frames_per_clip must be at least 8, got {self.frames_per_clip}")
        if self.total_share <= 0:
            raise ValueError("fine_tuning needs a stage with a share above 0")

    @property
    def total_share(self) -> float:
        """Return the sum of the stages' shares."""
        return self.tokenizer.share + self.motion_field.share + self.imagination.share
