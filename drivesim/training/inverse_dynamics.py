"""Training of the inverse dynamics model: frame pairs in, likelihood out, and how well motion is read.

The model must read motion from imagined pictures, so training pairs are blurred, made blocky, brightened and,
with a tokenizer, replaced by its reconstructions. A few pairs do not belong together: they teach the model to
say that it cannot read the motion.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from drivesim.checkpoint import save_module
from drivesim.inverse_dynamics import InverseDynamics, InverseDynamicsConfig, bin_loss, moments
from drivesim.scene.types import Camera
from drivesim.tokenizer.vqgan import normalized, to_uint8
from drivesim.training.data import ClipSource, RecordedClips
from drivesim.training.frame_pairs import (
    PairBatch,
    ReconstructFn,
    SpoilingConfig,
    blurred,
    draw_pairs,
    mismatch_some,
    reconstructed,
    replace_some,
    spoil,
)
from drivesim.training.row_draws import RowDraws, rows_of
from drivesim.training.task import Evaluation
from drivesim.world_model.pretrained import load_tokenizer

SPEED_ERROR_WEIGHT = 0.2
TURNING_RADPS = 0.1  # the sign of turning is judged where the true yaw rate is above this


@dataclass(kw_only=True, slots=True)
class InverseDynamicsTrainingConfig:
    """What IDM training needs besides the loop's own settings."""

    model: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    spoiling: SpoilingConfig = field(default_factory=SpoilingConfig)
    tokenizer: str | None = None  # weights whose reconstructions are mixed in: a shipped name or a file
    num_reconstructed_pairs: int = 1536  # made once, when a tokenizer is given
    num_validation_pairs: int = 768
    told_share: float = 0.5  # of the pairs whose second reading starts from the truth and an error
    told_error_radps: float = 0.08  # largest standard deviation of that error


class InverseDynamicsModule(nn.Module):
    """The IDM with its loss as one module: spoiled pairs in, loss terms out."""

    def __init__(self, config: InverseDynamicsConfig, *, camera: Camera | None = None) -> None:
        super().__init__()
        self.inverse_dynamics = InverseDynamics(config, camera=camera)

    def forward(
        self, previous_BCHW: Tensor, current_BCHW: Tensor, twist_BA: Tensor, told_error_B: Tensor
    ) -> dict[str, Tensor]:
        """Return cross-entropies of all readings, and the mean absolute errors in m/s and rad/s.

        The second reading looks about the truth plus ``told_error_B`` or, where that is not finite, about the first.
        """
        idm, (speed_B, yaw_rate_B) = self.inverse_dynamics, twist_BA.unbind(-1)
        turn_BY = idm.turn_votes(previous_BCHW, current_BCHW)
        first_B = moments(turn_BY.detach(), idm.yaw_rates_Y)[0]
        about_B = torch.where(told_error_B.isfinite(), yaw_rate_B + told_error_B, first_B)
        votes = idm.motion_votes(previous_BCHW, current_BCHW, about_B)
        read_speed_B = moments(votes.speed_BV, idm.speeds_V)[0]
        read_error_B = moments(votes.yaw_rate_error_BD, idm.yaw_rate_errors_D)[0]
        terms = {
            "turn_loss": bin_loss(turn_BY, yaw_rate_B, idm.yaw_rates_Y),
            "speed_loss": bin_loss(votes.speed_BV, speed_B, idm.speeds_V),
            "yaw_rate_loss": bin_loss(votes.yaw_rate_error_BD, yaw_rate_B - about_B, idm.yaw_rate_errors_D),
        }
        loss = 0.5 * terms["turn_loss"] + terms["speed_loss"] + 0.5 * terms["yaw_rate_loss"]
        return {
            "loss": loss + SPEED_ERROR_WEIGHT * functional.smooth_l1_loss(read_speed_B, speed_B),
            **{name: term.detach() for name, term in terms.items()},
            "speed_error_mps": (read_speed_B.detach() - speed_B).abs().mean(),
            "yaw_rate_error_radps": (about_B + read_error_B.detach() - yaw_rate_B).abs().mean(),
        }


class InverseDynamicsTask:
    """Random neighbouring frames of recorded clips, spoiled as a world model would."""

    name = "inverse-dynamics"

    def __init__(
        self,
        config: InverseDynamicsTrainingConfig,
        train: ClipSource,
        validation: RecordedClips,
        reconstruct_fn: ReconstructFn | None = None,
        camera: Camera | None = None,
    ) -> None:
        """Build the model for a camera, by default the front one, and the pairs that are fixed."""
        self.config, self.train = config, train
        self.model: nn.Module = InverseDynamicsModule(config.model, camera=camera)
        self.validation = draw_pairs(
            validation, RowDraws(0, range(config.num_validation_pairs), purpose="validation")
        )
        self.reconstructed: PairBatch | None = None
        self.validation_reconstructed: PairBatch | None = None
        if reconstruct_fn is not None:
            held = train.per_step(start_step=0, seed=0, rank=0, world_size=1)
            draws = RowDraws(1, range(config.num_reconstructed_pairs), purpose="reconstructed")
            pairs = draw_pairs(next(held), draws)
            if isinstance(held, Generator):
                held.close()  # a stream's processes end with it
            self.reconstructed = reconstructed(pairs, reconstruct_fn)
            self.validation_reconstructed = reconstructed(self.validation, reconstruct_fn)

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[PairBatch]:
        """Yield endless batches; a row depends on the seed and its number alone."""
        held = self.train.per_step(start_step=start_step, seed=seed, rank=rank, world_size=world_size)
        for step, clips in enumerate(held, start=start_step):
            draws = RowDraws(seed, rows_of(step, batch_size, rank=rank, world_size=world_size))
            batch = draw_pairs(clips, draws)
            if self.reconstructed is not None:
                replace_some(batch, self.reconstructed, draws, self.config.spoiling.reconstructed_share)
            mismatch_some(batch, clips, draws, self.config.spoiling.mismatch_share)
            yield batch

    def losses(self, model: nn.Module, batch: PairBatch, draws: RowDraws) -> dict[str, Tensor]:
        """Return the named loss terms of one batch, spoiled by ``draws``."""
        pairs = spoil(batch, self.config.spoiling, draws)
        told_error_B = draw_told_errors(self.config, draws).to(pairs.twist_BA)
        terms: dict[str, Tensor] = model(
            pairs.previous_BCHW, pairs.current_BCHW, pairs.twist_BA, told_error_B
        )
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


def draw_told_errors(config: InverseDynamicsTrainingConfig, draws: RowDraws) -> Tensor:
    """Return for every row the error of the yaw rate that the second reading starts from; infinite where told none.

    They reach from tiny ones, as in the last round, to those of a poor first reading.
    """
    is_told_B = draws.chance(config.told_share)
    spread_B = config.told_error_radps * draws.uniform((len(draws),))
    error_B = spread_B * draws.normal((len(draws),))
    return error_B.where(is_told_B, torch.inf)


def make_task(
    config: InverseDynamicsTrainingConfig,
    train: ClipSource,
    validation: RecordedClips,
    reconstruct_fn: ReconstructFn | None = None,
    camera: Camera | None = None,
) -> InverseDynamicsTask:
    """Return the training task of the IDM.

    Args:
        config: Model and degradations.
        train: Clips to learn from.
        validation: Clips of other roads.
        reconstruct_fn: A tokenizer's encode and decode on uint8 `[B, H, W, 3]`; by default that of
            ``config.tokenizer``, if one is named there.
        camera: That took the clips; the front camera if left out.
    """
    if reconstruct_fn is None and config.tokenizer is not None:
        tokenizer = load_tokenizer(config.tokenizer)

        def reconstruct_fn(frames_BHWC: Tensor) -> Tensor:
            return to_uint8(tokenizer.reconstruct(normalized(frames_BHWC)))

    return InverseDynamicsTask(config, train, validation, reconstruct_fn, camera)


def save_inverse_dynamics(model: nn.Module, path: Path, *, facts: dict[str, Any] | None = None) -> None:
    """Write the trained IDM of a training module as a checkpoint of its own."""
    idm: InverseDynamics = model.inverse_dynamics  # type: ignore[assignment]
    save_module(idm, path, kind="inverse-dynamics", config=idm.config, facts=facts)


def evaluate_pairs(idm: InverseDynamics, pairs: PairBatch, *, batch_size: int = 64) -> dict[str, float]:
    """Return errors and correlations of speed and yaw rate, sign agreement of turns, and the readable share."""
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
    speed_correlation, correlation = (
        float(torch.corrcoef(torch.stack([found_BA[:, k], true_BA[:, k]]))[0, 1]) for k in (0, 1)
    )
    metrics = {
        "speed_error_mps": speed_error,
        "speed_rms_error_mps": float((found_BA - true_BA)[:, 0].square().mean().sqrt()),
        "speed_correlation": speed_correlation,
        "yaw_rate_error_radps": yaw_rate_error,
        "yaw_rate_correlation": correlation,
        "readable_share": float(torch.cat([e.is_readable_B for e in estimates]).float().mean()),
    }
    if bool(is_turning_B.any()):
        metrics["turning_sign_accuracy"] = float(is_same_sign_B[is_turning_B].float().mean())
    return metrics
