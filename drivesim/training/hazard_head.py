"""Training of the hazard head: states in, and for every coming step the chance that something happens there.

What is known ends with the first contact, as an episode does. Letters: see ``drivesim/hazard.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from drivesim.errors import InputError
from drivesim.hazard import HazardHead, save_hazard_head, within
from drivesim.hazard_inputs import (
    CELLS,
    EVENTS,
    NUM_CORNERS,
    YAW_RATE_CHANGES,
    HazardConfig,
    HazardInputs,
    hide_map,
)
from drivesim.metrics.ranking import reliability, roc_auc
from drivesim.reference.seeds import FIRST_HELD_OUT_SEED, FIRST_VALIDATION_SEED
from drivesim.training.hazard_samples import HazardSamples, HazardSetConfig
from drivesim.training.row_draws import RowDraws, rows_of
from drivesim.training.task import Evaluation

EVALUATION_BATCH = 256
MIRRORED_CORNERS = (1, 0, 3, 2, 4)


@dataclass(kw_only=True, slots=True)
class HazardTrainingConfig:
    """What hazard-head training needs besides the loop's own settings."""

    model: HazardConfig = field(default_factory=HazardConfig)
    samples: HazardSetConfig = field(default_factory=HazardSetConfig)
    path: str = "out/data/hazard"  # where the samples are kept
    first_seed: int = 300_000  # of the training roads; the world model saw none of these
    num_validation_drives: int = 48
    num_validation_long_drives: int = 32
    imagined_share: float = 0.5  # of a batch
    hidden_map_share: float = 0.3
    mirrored_share: float = 0.5
    cars_weight: float = 3.0  # of the loss of where other cars are, a mean over cells
    brightness: float = 0.15
    contrast: float = 0.2

    def __post_init__(self) -> None:
        """Refuse shares outside [0, 1] and roads that are kept for validation and benchmarks."""
        for name in ("imagined_share", "hidden_map_share", "mirrored_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"hazard_head.{name} is a share between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.first_seed <= FIRST_VALIDATION_SEED - self.samples.num_seeds:
            raise ValueError(
                f"hazard_head.first_seed and the {self.samples.num_seeds} seeds from there on must stay below "
                f"{FIRST_VALIDATION_SEED}, got {self.first_seed}"
            )
        if FIRST_VALIDATION_SEED + self.validation_samples.num_seeds > FIRST_HELD_OUT_SEED:
            raise ValueError("hazard_head asks for more validation drives than there are validation roads")

    @property
    def validation_samples(self) -> HazardSetConfig:
        """Return what is made of validation roads."""
        values = {name: getattr(self.samples, name) for name in self.samples.__slots__}
        sizes = {
            "num_drives": self.num_validation_drives,
            "num_long_drives": self.num_validation_long_drives,
        }
        return HazardSetConfig(**(values | sizes))


class HazardTask:
    """Random states with what came after them, half of them imagined."""

    name = "hazard-head"

    def __init__(self, config: HazardTrainingConfig, train: HazardSamples, validation: HazardSamples) -> None:
        """Build the head.

        Raises:
            InputError: training samples without true or without imagined states.
        """
        self.config, self.train, self.validation = config, train, validation
        self.head = HazardHead(config.model)
        self.model: nn.Module = self.head
        self._true, self._imagined = np.flatnonzero(train.depth == 0), np.flatnonzero(train.depth > 0)
        if not len(self._true) or not len(self._imagined):
            raise InputError(
                "the hazard samples hold no true or no imagined states; make more drives (hazard_head.samples)"
            )

    def batches(
        self, *, start_step: int, batch_size: int, seed: int, rank: int, world_size: int
    ) -> Iterator[dict[str, Tensor]]:
        """Yield endless batches; a row depends on the seed and its number alone."""
        step = start_step
        while True:
            draws = RowDraws(seed, rows_of(step, batch_size, rank=rank, world_size=world_size))
            is_imagined = draws.chance(self.config.imagined_share).numpy()
            imagined, true = (kind[draws.whole(len(kind)).numpy()] for kind in (self._imagined, self._true))
            yield batch_of(self.train, np.where(is_imagined, imagined, true))
            step += 1

    def losses(self, model: nn.Module, batch: dict[str, Tensor], draws: RowDraws) -> dict[str, Tensor]:
        """Return the named loss terms of one batch, varied by ``draws``."""
        is_mirrored_B = draws.chance(self.config.mirrored_share)
        logits_BEK, cars_BP = model(varied(inputs_of(batch), is_mirrored_B, self.config, draws))
        loss_BE = survival_loss(logits_BEK, batch["event"], batch["known"])
        cars_loss = functional.binary_cross_entropy_with_logits(
            cars_BP, torch.where(is_mirrored_B.unsqueeze(-1), mirrored_cars(batch["cars"]), batch["cars"])
        )
        terms = {f"{name}_loss": loss for name, loss in zip(EVENTS, loss_BE.mean(0), strict=True)}
        loss = loss_BE.sum(-1).mean() + self.config.cars_weight * cars_loss
        return {
            "loss": loss,
            **{name: term.detach() for name, term in (terms | {"cars_loss": cars_loss}).items()},
        }

    def num_frames(self, batch: dict[str, Tensor]) -> int:
        """Return the states in a batch."""
        return len(batch["known"])

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Measure loss, ranking and calibration on true and imagined validation states."""
        assert isinstance(model, HazardHead)
        return Evaluation(metrics=measured(model, self.validation), picture=None)


def batch_of(samples: HazardSamples, chosen: NDArray[np.int64]) -> dict[str, Tensor]:
    """Return some samples as tensors by name."""
    inputs = samples.inputs(chosen)
    return {
        "pictures": inputs.pictures_BCHW,
        "token_ids": inputs.token_ids_BS,
        "facts": inputs.facts_BF,
        "event": torch.from_numpy(samples.event[chosen]).long(),
        "known": torch.from_numpy(samples.known[chosen]).long(),
        "cars": torch.from_numpy(samples.cars[chosen]).float(),
    }


def inputs_of(batch: dict[str, Tensor]) -> HazardInputs:
    """Return what the head reads of a batch."""
    return HazardInputs(
        pictures_BCHW=batch["pictures"], token_ids_BS=batch["token_ids"], facts_BF=batch["facts"]
    )


def survival_loss(logits_BEK: Tensor, event_BE: Tensor, known_B: Tensor) -> Tensor:
    """Return the negative log-likelihood (B, E) of when events came, summed over the steps that are known.

    Args:
        logits_BEK: of the hazards.
        event_BE: steps until the event, -1 where none is known of.
        known_B: steps that are known.
    """
    steps_K = torch.arange(logits_BEK.shape[-1], device=logits_BEK.device)
    event_BE1 = event_BE.unsqueeze(-1)
    is_at_risk = (steps_K <= known_B[:, None, None]) & ((event_BE1 < 0) | (steps_K <= event_BE1))
    target_BEK = (steps_K == event_BE1).to(logits_BEK.dtype)
    loss_BEK = functional.binary_cross_entropy_with_logits(logits_BEK, target_BEK, reduction="none")
    return (loss_BEK * is_at_risk).sum(-1)


def varied(
    inputs: HazardInputs, is_mirrored_B: Tensor, config: HazardTrainingConfig, draws: RowDraws
) -> HazardInputs:
    """Return the states in another light, some mirrored, some without their map."""
    shape_B111 = (len(draws), 1, 1, 1)
    is_hidden_B1 = draws.chance(config.hidden_map_share).unsqueeze(-1)
    facts_BF = torch.where(is_hidden_B1, hide_map(inputs.facts_BF), inputs.facts_BF)
    inputs = HazardInputs(
        pictures_BCHW=inputs.pictures_BCHW, token_ids_BS=inputs.token_ids_BS, facts_BF=facts_BF
    )
    other = mirrored(inputs, config.model)
    gain_B111 = 1 + config.contrast * (2 * draws.uniform(shape_B111) - 1)
    shift_B111 = 255 * config.brightness * (2 * draws.uniform(shape_B111) - 1)
    pictures_BCHW = torch.where(
        rearrange(is_mirrored_B, "b -> b 1 1 1"), other.pictures_BCHW, inputs.pictures_BCHW
    ).float()
    is_mirrored_B1 = is_mirrored_B.unsqueeze(-1)
    return HazardInputs(
        pictures_BCHW=((pictures_BCHW - 127.5) * gain_B111 + 127.5 + shift_B111).clamp(0, 255),
        token_ids_BS=torch.where(is_mirrored_B1, other.token_ids_BS, inputs.token_ids_BS),
        facts_BF=torch.where(is_mirrored_B1, other.facts_BF, inputs.facts_BF),
    )


def mirrored(inputs: HazardInputs, config: HazardConfig) -> HazardInputs:
    """Return the states with left and right exchanged; a token stands for its mirror image, which looks much alike."""
    rows, columns = config.grid
    grid_BHW = rearrange(inputs.token_ids_BS, "b (h w) -> b h w", h=rows, w=columns)
    facts_BF = inputs.facts_BF.clone()
    facts_BF[:, 1] = -facts_BF[:, 1]
    distance = rearrange(
        facts_BF[:, 4:],
        "b (y k c) -> b y k c",
        y=len(YAW_RATE_CHANGES),
        k=config.num_steps + 1,
        c=NUM_CORNERS,
    )
    distance = distance.flip(1)[..., list(MIRRORED_CORNERS)]
    facts_BF = torch.cat([facts_BF[:, :4], rearrange(distance, "b y k c -> b (y k c)")], dim=-1)
    return HazardInputs(
        pictures_BCHW=inputs.pictures_BCHW.flip(-1),
        token_ids_BS=rearrange(grid_BHW.flip(-1), "b h w -> b (h w)"),
        facts_BF=facts_BF,
    )


def mirrored_cars(cars_BP: Tensor) -> Tensor:
    """Return the cells where cars are with left and right exchanged."""
    cells = rearrange(cars_BP, "b (ahead across) -> b ahead across", ahead=CELLS[0], across=CELLS[1])
    return rearrange(cells.flip(-1), "b ahead across -> b (ahead across)")


@torch.no_grad()
def logits_of(head: HazardHead, samples: HazardSamples, *, has_map: bool = True) -> Tensor:
    """Return the logits (N, E, K) of samples, not calibrated."""
    was_training = head.training
    head.eval()
    found = []
    for first in range(0, len(samples), EVALUATION_BATCH):
        inputs = samples.inputs(slice(first, first + EVALUATION_BATCH))
        if not has_map:
            inputs.facts_BF = hide_map(inputs.facts_BF)
        found.append(head(inputs.to(head.place.device))[0].float().cpu())
    head.train(was_training)
    return torch.cat(found)


def is_within(
    samples: HazardSamples, event: int, num_steps: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (N,) whether an event comes within the steps looked ahead, and whether that is known."""
    comes = samples.event[:, event] >= 0
    return comes, comes | (samples.known >= num_steps)


def measured(head: HazardHead, samples: HazardSamples) -> dict[str, float]:
    """Return loss, and area under the curve and calibration error of each event, of true and imagined states."""
    logits_NEK = logits_of(head, samples)
    probability = within(head.calibrated(logits_NEK)).numpy()
    loss_NE = survival_loss(
        logits_NEK, torch.from_numpy(samples.event).long(), torch.from_numpy(samples.known).long()
    )
    metrics = {"loss": float(loss_NE.sum(-1).mean())}
    kinds = {"true": samples.depth == 0, "imagined": (samples.depth > 0) & (samples.depth <= 12)}
    for index, name in enumerate(EVENTS):
        comes, is_known = is_within(samples, index, head.config.num_steps)
        for kind, is_kind in kinds.items():
            chosen = is_known & is_kind
            if chosen.any():
                metrics[f"{name}_auc_{kind}"] = roc_auc(probability[chosen, index], comes[chosen])
                metrics[f"{name}_ece_{kind}"] = reliability(probability[chosen, index], comes[chosen]).error
    return metrics


def save_trained(model: nn.Module, path: Path, *, facts: dict[str, Any]) -> None:
    """Write the trained head as a checkpoint of its own."""
    assert isinstance(model, HazardHead)
    save_hazard_head(model, path, facts=facts)
