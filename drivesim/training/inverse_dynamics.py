"""Training of the inverse dynamics model: frame pairs in, likelihood out, and how well motion is read.

The model must read motion from imagined pictures, so training pairs are blurred, made blocky, brightened and,
with a tokenizer, replaced by its reconstructions. A few pairs do not belong together: they teach the model to
say that it cannot read the motion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drivesim.checkpoint import save_module
from drivesim.inverse_dynamics import InverseDynamics, InverseDynamicsConfig, twist_loss
from drivesim.tokenizer.vqgan import normalized, to_uint8
from drivesim.training.data import RecordedClips
from drivesim.training.frame_pairs import (
    PairBatch,
    ReconstructFn,
    SpoilingConfig,
    blurred,
    draw_pairs,
    reconstructed,
    replace_some,
    spoil,
)
from drivesim.training.task import Evaluation
from drivesim.world_model.pretrained import load_tokenizer

TURNING_RADPS = 0.1  # the sign of turning is judged where the true yaw rate is above this


@dataclass(kw_only=True, slots=True)
class InverseDynamicsTrainingConfig:
    """What IDM training needs besides the loop's own settings."""

    model: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    spoiling: SpoilingConfig = field(default_factory=SpoilingConfig)
    tokenizer: str | None = None  # weights whose reconstructions are mixed in: a shipped name or a file
    num_reconstructed_pairs: int = 1536  # made once, when a tokenizer is given
    num_validation_pairs: int = 768


class InverseDynamicsModule(nn.Module):
    """The IDM with its loss as one module: spoiled pairs in, loss terms out."""

    def __init__(self, config: InverseDynamicsConfig) -> None:
        super().__init__()
        self.inverse_dynamics = InverseDynamics(config)

    def forward(self, previous_BCHW: Tensor, current_BCHW: Tensor, twist_BA: Tensor) -> dict[str, Tensor]:
        """Return the likelihood loss and the mean absolute errors in m/s and rad/s."""
        idm = self.inverse_dynamics
        mean_BA, log_variance_BA = idm.normalised(previous_BCHW, current_BCHW)
        error_A = (idm.in_units(mean_BA.detach()) - twist_BA).abs().mean(dim=0)
        loss = twist_loss(mean_BA, log_variance_BA, idm.in_scales(twist_BA))
        return {"loss": loss, "speed_error_mps": error_A[0], "yaw_rate_error_radps": error_A[1]}


class InverseDynamicsTask:
    """Random neighbouring frames of recorded clips, spoiled as a world model would."""

    name = "inverse-dynamics"

    def __init__(
        self,
        config: InverseDynamicsTrainingConfig,
        train: RecordedClips,
        validation: RecordedClips,
        reconstruct_fn: ReconstructFn | None = None,
    ) -> None:
        """Build the model, the validation pairs and, with ``reconstruct_fn``, reconstructed pairs."""
        self.config, self.train = config, train
        self.model: nn.Module = InverseDynamicsModule(config.model)
        self.validation = draw_pairs(validation, np.random.default_rng(0), count=config.num_validation_pairs)
        self.reconstructed: PairBatch | None = None
        self.validation_reconstructed: PairBatch | None = None
        if reconstruct_fn is not None:
            pairs = draw_pairs(train, np.random.default_rng(1), count=config.num_reconstructed_pairs)
            self.reconstructed = reconstructed(pairs, reconstruct_fn)
            self.validation_reconstructed = reconstructed(self.validation, reconstruct_fn)

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[PairBatch]:
        """Yield endless batches; the one of a step depends on seed, step and rank alone."""
        step = start_step
        while True:
            rng = np.random.default_rng([seed, step, rank, world_size])
            batch = draw_pairs(self.train, rng, count=batch_size)
            if self.reconstructed is not None:
                replace_some(batch, self.reconstructed, rng, self.config.spoiling.reconstructed_share)
            yield batch
            step += 1

    def losses(self, model: nn.Module, batch: PairBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the named loss terms of one batch, spoiled with the generator's randomness."""
        pairs = spoil(batch, self.config.spoiling, generator)
        terms: dict[str, Tensor] = model(pairs.previous_BCHW, pairs.current_BCHW, pairs.twist_BA)
        return terms

    def num_frames(self, batch: PairBatch) -> int:
        """Return the frames in a batch."""
        return 2 * len(batch.twist_BA)

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Measure clean, blurred and, if there are any, reconstructed validation pairs."""
        idm: InverseDynamics = model.inverse_dynamics  # type: ignore[assignment]
        metrics = evaluate_pairs(idm, self.validation)
        sets = {"blurred": blurred(self.validation, factor=4), "reconstructed": self.validation_reconstructed}
        for name, pairs in sets.items():
            if pairs is not None:
                metrics |= {f"{name}_{key}": value for key, value in evaluate_pairs(idm, pairs).items()}
        return Evaluation(metrics=metrics, picture=None)


def make_task(
    config: InverseDynamicsTrainingConfig,
    train: RecordedClips,
    validation: RecordedClips,
    reconstruct_fn: ReconstructFn | None = None,
) -> InverseDynamicsTask:
    """Return the training task of the IDM.

    Args:
        config: Model and degradations.
        train: Clips to learn from.
        validation: Clips of other roads.
        reconstruct_fn: A tokenizer's encode and decode on uint8 `[B, H, W, 3]`; by default that of
            ``config.tokenizer``, if one is named there.
    """
    if reconstruct_fn is None and config.tokenizer is not None:
        tokenizer = load_tokenizer(config.tokenizer)

        def reconstruct_fn(frames_BHWC: Tensor) -> Tensor:
            return to_uint8(tokenizer.reconstruct(normalized(frames_BHWC)))

    return InverseDynamicsTask(config, train, validation, reconstruct_fn)


def save_inverse_dynamics(model: nn.Module, path: Path, *, facts: dict[str, Any] | None = None) -> None:
    """Write the trained IDM of a training module as a checkpoint of its own."""
    idm: InverseDynamics = model.inverse_dynamics  # type: ignore[assignment]
    save_module(idm, path, kind="inverse-dynamics", config=idm.config, facts=facts)


def evaluate_pairs(idm: InverseDynamics, pairs: PairBatch, *, batch_size: int = 64) -> dict[str, float]:
    """Return mean absolute errors, correlation and sign agreement of the yaw rate, and the readable share."""
    was_training = idm.training
    idm.eval()
    estimates = [
        idm.estimate(previous, current)
        for previous, current in zip(
            pairs.previous_BHWC.split(batch_size), pairs.current_BHWC.split(batch_size), strict=True
        )
    ]
    idm.train(was_training)
    found_BA = torch.cat([estimate.twist_BA for estimate in estimates]).cpu().double()
    true_BA = pairs.twist_BA.double()
    speed_error, yaw_rate_error = (found_BA - true_BA).abs().mean(dim=0).tolist()
    is_turning_B = true_BA[:, 1].abs() > TURNING_RADPS
    is_same_sign_B = (found_BA[:, 1] > 0) == (true_BA[:, 1] > 0)
    correlation = torch.corrcoef(torch.stack([found_BA[:, 1], true_BA[:, 1]]))[0, 1]
    metrics = {
        "speed_error_mps": speed_error,
        "yaw_rate_error_radps": yaw_rate_error,
        "yaw_rate_correlation": float(correlation),
        "readable_share": float(torch.cat([e.is_readable_B for e in estimates]).float().mean()),
    }
    if bool(is_turning_B.any()):
        metrics["turning_sign_accuracy"] = float(is_same_sign_B[is_turning_B].float().mean())
    return metrics
