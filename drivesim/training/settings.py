"""The settings of a training run, the same for every model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from drivesim.training.optimizers import OptimizerKind
from drivesim.training.precision import AUTO, PRECISIONS

STRATEGIES = ("auto", "ddp", "fsdp")


@dataclass(kw_only=True, slots=True)
class TrainingConfig:
    """Settings of a run, the same for every model."""

    num_train_steps: int = 10_000
    batch_size: int = (
        16  # samples per process and batch; several processes train as one with the sum of theirs
    )
    grad_accumulation: int = 1  # batches per optimizer step
    max_minutes: float | None = None  # time budget over all resumes; the schedule then ends with it
    restart_schedule: bool = False  # a resume with other limits anneals anew, as on a much faster machine
    init: str | None = None  # weights that a new run starts from: a shipped name, a file or a run's folder
    new_modules: list[str] = field(default_factory=list)  # parts that `init` leaves as they are
    seed: int = 0
    optimizer: OptimizerKind = OptimizerKind.adamw
    learning_rate: float = 3e-4
    min_learning_rate_ratio: float = 0.05
    warmup_steps: int = 100
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    grad_clip_norm: float = 1.0  # 0 clips nothing
    ema_decay: float = 0.999
    precision: str = AUTO  # bf16-mixed where the device multiplies bf16 fast, else 32-true
    accelerator: str = "auto"
    devices: int = 1  # of each machine; every one has a process
    num_nodes: int = 1  # machines
    strategy: str = "auto"  # of several processes: ddp (also "auto") copies the model to all, fsdp divides it
    num_threads: int | None = None  # of PyTorch on the CPU; None leaves them as they are
    num_prefetch_batches: int | None = None  # None: 2 on an accelerator, 0 on the CPU
    log_every: int = 50
    evaluate_every: int = 1_000  # 0 evaluates at the end only
    checkpoint_every_s: float = 120.0

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        for name in (
            "num_train_steps",
            "batch_size",
            "grad_accumulation",
            "devices",
            "num_nodes",
            "log_every",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be 1 or more, got {getattr(self, name)}")
        for name in (
            "warmup_steps",
            "weight_decay",
            "grad_clip_norm",
            "evaluate_every",
            "checkpoint_every_s",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"training.{name} must not be negative, got {getattr(self, name)}")
        for name in ("learning_rate", "max_minutes", "num_threads"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"training.{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.min_learning_rate_ratio <= 1 or not 0 <= self.ema_decay < 1:
            raise ValueError(
                "training.min_learning_rate_ratio must lie in [0, 1] and training.ema_decay in [0, 1)"
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"training.betas must be two numbers in [0, 1), got {self.betas}")
        self._check_names()
        self._check_sharding()

    def _check_names(self) -> None:
        for name, known in (("precision", PRECISIONS), ("strategy", STRATEGIES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"training.{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )

    def _check_sharding(self) -> None:
        if not self.is_sharded:
            return
        if self.num_processes == 1:
            raise ValueError(
                "training.strategy=fsdp divides a model among several processes and there is one; "
                "raise training.devices or leave the strategy out"
            )
        if self.optimizer is OptimizerKind.muon:
            raise ValueError(
                "training.optimizer=muon needs whole matrices, which training.strategy=fsdp divides; "
                "choose training.strategy=ddp or training.optimizer=adamw"
            )

    @property
    def num_processes(self) -> int:
        """The processes of a run, on all machines."""
        return self.devices * self.num_nodes

    @property
    def is_sharded(self) -> bool:
        """Whether every process holds a part of the model only."""
        return self.strategy == "fsdp"

    def as_plain(self) -> dict[str, Any]:
        """Return the settings as plain values, for JSON and checkpoints."""
        return {
            name: value.value if isinstance(value, Enum) else value for name, value in asdict(self).items()
        }
