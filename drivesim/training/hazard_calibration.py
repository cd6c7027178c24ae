"""What a trained hazard head is told on validation roads: how its logits become probabilities, and where it decides."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.hazard import HazardHead, within
from drivesim.scene.geometry import FloatArray
from drivesim.training.hazard_drives import Wanted
from drivesim.training.hazard_head import is_within, logits_of, measured, survival_loss
from drivesim.training.hazard_samples import HazardSamples

MAX_FALSE_ALARM_SHARE = 0.06  # of imagined drives without contact, near misses among them
LEAST_CONTACT_THRESHOLD = 0.05
EARLY_STEPS = 2  # a contact that is seen so many steps too early is seen
LARGEST_SCALE = 3.0


@dataclass(kw_only=True, slots=True)
class ContactRecord:
    """What the head said of one imagined drive: the highest probability of contact in two parts of it."""

    has_contact: bool  # the drive ended in one
    before: float  # while no contact was near
    at: float  # from ``EARLY_STEPS`` before the contact on; 0 where there was none


def calibrate(head: HazardHead, samples: HazardSamples) -> HazardHead:
    """Give the head its calibration and thresholds, found on validation samples; returns the same head."""
    short = samples.chosen((samples.depth == 0) | (samples.wanted != Wanted.BLIND.value))
    logits_NEK = logits_of(head, short)
    fits = [_fit(logits_NEK[:, event], short.event[:, event], short.known) for event in (0, 1)]
    head.config = replace(
        head.config,
        logit_scale=[scale for scale, _ in fits],
        logit_shift=[shift for _, shift in fits],
    )
    head.config = replace(
        head.config,
        contact_threshold=contact_threshold(contact_records(head, samples)),
        collision_threshold=_collision_threshold(head, short),
    )
    return head


def _fit(logits_NK: Tensor, event_N: NDArray[np.int8], known_N: NDArray[np.int8]) -> tuple[float, float]:
    """Return scale and shift of the logits under which the samples are most likely (Platt scaling)."""
    event_N1 = torch.from_numpy(event_N).long().unsqueeze(-1)
    known = torch.from_numpy(known_N).long()
    log_scale, shift = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_scale, shift], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = survival_loss((logits_NK * log_scale.exp() + shift).unsqueeze(1), event_N1, known).mean()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    scale = float(log_scale.detach().exp().clamp(1 / LARGEST_SCALE, LARGEST_SCALE))
    return scale, float(shift.detach())


def contact_records(head: HazardHead, samples: HazardSamples) -> list[ContactRecord]:
    """Return what the head says of contact in each imagined drive."""
    imagined = samples.chosen(samples.rollout >= 0)
    contact_N = head.contact(head.calibrated(logits_of(head, imagined))).numpy()
    records = []
    for rollout in np.unique(imagined.rollout):
        is_this = imagined.rollout == rollout
        order = np.argsort(imagined.depth[is_this], kind="stable")
        contact, event = contact_N[is_this][order], imagined.event[is_this, 0][order]
        is_near = (event >= 0) & (event <= EARLY_STEPS)
        is_ahead = (event >= 0).any()
        records.append(
            ContactRecord(
                has_contact=bool((event == 0).any()),
                before=float(contact[~is_near].max(initial=0.0)),
                at=float(contact[is_near].max(initial=0.0)) if is_ahead else 0.0,
            )
        )
    return records


def contact_threshold(records: list[ContactRecord]) -> float:
    """Return the lowest threshold at which few drives without contact raise a false alarm."""
    quiet = [record.before for record in records if not record.has_contact]
    quiet = quiet or [record.before for record in records]
    limit = float(np.quantile(quiet, 1 - MAX_FALSE_ALARM_SHARE, method="higher"))
    return float(np.clip(limit + 1e-3, LEAST_CONTACT_THRESHOLD, 0.99))


def _collision_threshold(head: HazardHead, samples: HazardSamples) -> float:
    """Return the probability of collision that best tells drives that collide within a second (largest F1)."""
    probability = within(head.calibrated(logits_of(head, samples)))[:, 0].numpy()
    comes, is_known = is_within(samples, 0, head.config.num_steps)
    return best_f1_threshold(probability[is_known], comes[is_known])


def best_f1_threshold(probability: FloatArray, is_event: NDArray[np.bool_]) -> float:
    """Return the threshold with the largest harmonic mean of precision and recall."""
    candidates = np.linspace(0.05, 0.95, 91)
    scores = []
    for threshold in candidates:
        is_told = probability >= threshold
        hits = float((is_told & is_event).sum())
        scores.append(2 * hits / max(float(is_told.sum() + is_event.sum()), 1.0))
    return float(candidates[int(np.argmax(scores))])


def final_metrics(head: HazardHead, samples: HazardSamples) -> dict[str, float]:
    """Return the figures of a calibrated head: ranking and calibration, and contacts seen and made up."""
    records = contact_records(head, samples)
    metrics = measured(head, samples)
    metrics["contact_threshold"] = head.contact_threshold
    metrics["collision_threshold"] = head.collision_threshold
    with_contact = [record for record in records if record.has_contact]
    quiet = [record for record in records if not record.has_contact]
    if with_contact:
        metrics["contact_recall"] = float(np.mean([r.at >= head.contact_threshold for r in with_contact]))
    if quiet:
        metrics["false_alarm_share"] = float(np.mean([r.before >= head.contact_threshold for r in quiet]))
    return metrics
