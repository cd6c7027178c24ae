"""How well a hazard head ranks and means what it says: figures over samples of held-out roads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.page import Plot
from benchmarks.report import Curve, Report, Target
from benchmarks.statistics import Estimate, FloatArray, wilson_share
from drivesim.hazard import HazardHead, within
from drivesim.hazard_inputs import EVENTS
from drivesim.metrics.ranking import reliability, roc_auc
from drivesim.training.hazard_calibration import EARLY_STEPS, ContactRecord, contact_records
from drivesim.training.hazard_drives import Wanted
from drivesim.training.hazard_head import is_within, logits_of
from drivesim.training.hazard_samples import HazardSamples

NUM_RESAMPLES = 500
NUM_BINS = 10
BoolArray = NDArray[np.bool_]

TARGETS = (
    Target(name="collision_auc_imagined", limit=0.85),
    Target(name="off_road_auc_imagined", limit=0.9),
    Target(name="contact_false_alarm_share", limit=0.05, is_minimum=False),
)
PLOTS = tuple(
    Plot(
        title=f"{event.replace('_', '-')} within a second: said and seen",
        unit="happened (%)",
        lines={
            "true frames": f"{event}_reliability_true",
            "imagined frames": f"{event}_reliability_imagined",
            "as said": "as_said",
        },
        x_label="probability said (%)",
    )
    for event in EVENTS
)


@dataclass(kw_only=True, slots=True)
class Judged:
    """Samples with what the head said of them."""

    samples: HazardSamples
    probability: FloatArray  # (N, 2) within a second
    probability_without_map: FloatArray  # the same with the map hidden from the head
    contact: FloatArray  # (N,) now
    num_steps: int
    is_short: BoolArray  # of a drive that was shown and imagined for a short time, which the headline figures are of

    def known(self, event: int, is_chosen: BoolArray) -> tuple[BoolArray, BoolArray]:
        """Return (N,) whether an event comes within a second, and which samples count."""
        comes, is_known = is_within(self.samples, event, self.num_steps)
        return comes, is_known & is_chosen


def judge(head: HazardHead, samples: HazardSamples, *, num_short: int) -> Judged:
    """Ask the head about all samples; imagined drives below number ``num_short`` are short ones."""
    hazard = head.calibrated(logits_of(head, samples))
    hidden = head.calibrated(logits_of(head, samples, has_map=False))
    return Judged(
        samples=samples,
        probability=within(hazard).numpy().astype(np.float64),
        probability_without_map=within(hidden).numpy().astype(np.float64),
        contact=head.contact(hazard).numpy().astype(np.float64),
        num_steps=head.config.num_steps,
        is_short=(samples.depth == 0) | (samples.rollout < num_short),
    )


def bootstrap_auc(probability: FloatArray, is_event: BoolArray, roads: NDArray[np.int64]) -> Estimate:
    """Return the area under the curve with a 95 % interval from resampling whole roads."""
    _, index = np.unique(roads, return_inverse=True)
    index = index.reshape(-1)
    num_roads = int(index.max(initial=-1)) + 1
    rng = np.random.default_rng(0)
    values = []
    for _ in range(NUM_RESAMPLES if num_roads else 0):
        count = np.bincount(rng.integers(num_roads, size=num_roads), minlength=num_roads)
        values.append(roc_auc(probability, is_event, count[index]))
    finite = np.array(values)[np.isfinite(values)]
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
    return Estimate(
        value=roc_auc(probability, is_event), low=float(low), high=float(high), count=len(probability)
    )


def add_rows(report: Report, judged: Judged) -> None:
    """Add ranking, calibration and reliability of both events, of true and imagined frames."""
    samples, is_true = judged.samples, judged.samples.depth == 0
    has_map = samples.facts[:, 3] > 0
    kinds = {"true": is_true, "imagined": ~is_true & judged.is_short}
    for kind, is_kind in kinds.items():
        for index, event in enumerate(EVENTS):
            _add_event(report, judged, index, f"{event}_{{}}_{kind}", is_kind)
    _add_auc(report, judged, 0, "collision_auc_imagined_long", ~is_true & ~judged.is_short)
    blind = judged.probability_without_map
    _add_auc(report, judged, 1, "off_road_auc_true_without_map", is_true, blind)
    _add_auc(report, judged, 1, "off_road_auc_imagined_without_map", kinds["imagined"] & ~has_map, blind)
    ends = [Estimate(value=said, low=said, high=said, count=0) for said in (0.0, 100.0)]
    report.curves["as_said"] = Curve(steps=[0, 100], estimates=ends)


def _add_event(report: Report, judged: Judged, index: int, name: str, is_kind: BoolArray) -> None:
    _add_auc(report, judged, index, name.format("auc"), is_kind)
    comes, chosen = judged.known(index, is_kind)
    if not chosen.any():
        return
    found = reliability(judged.probability[chosen, index], comes[chosen], num_bins=NUM_BINS)
    report.add(name.format("ece"), found.error)
    report.add(name.format("share"), float(comes[chosen].mean()), note="share of the frames with that event")
    bins = np.clip((judged.probability[chosen, index] * NUM_BINS).astype(int), 0, NUM_BINS - 1)
    curve = Curve(steps=[], estimates=[])
    for place in np.flatnonzero(found.count):
        share = wilson_share(comes[chosen][bins == place])
        curve.steps.append(round(100 * float(found.predicted[place])))
        curve.estimates.append(
            Estimate(value=100 * share.value, low=100 * share.low, high=100 * share.high, count=share.count)
        )
    report.curves[name.format("reliability")] = curve


def _add_auc(
    report: Report,
    judged: Judged,
    index: int,
    name: str,
    is_kind: BoolArray,
    probability: FloatArray | None = None,
) -> None:
    """Add an area under the curve, where there are events and others."""
    comes, chosen = judged.known(index, is_kind)
    if comes[chosen].any() and not comes[chosen].all():
        said = (judged.probability if probability is None else probability)[chosen, index]
        report.add_estimate(name, bootstrap_auc(said, comes[chosen], judged.samples.road[chosen]))


def add_contacts(report: Report, head: HazardHead, judged: Judged) -> None:
    """Add which contacts are seen, and which are made up."""
    samples, threshold = judged.samples, head.contact_threshold
    records = contact_records(head, samples)
    is_long = samples.wanted == Wanted.BLIND.value
    quiet = contact_records(head, samples.chosen(is_long)) if is_long.any() else []
    short = contact_records(head, samples.chosen(judged.is_short))
    _add_share(
        report,
        "contact_recall_imagined",
        [r.at >= threshold for r in short if r.has_contact],
        f"imagined drives of up to a few seconds into a car: told from {EARLY_STEPS} frames before on",
    )
    _add_share(
        report,
        "contact_recall_imagined_all",
        [r.at >= threshold for r in records if r.has_contact],
        "the same, those that come upon the car after up to ten seconds too",
    )
    _add_share(
        report,
        "contact_false_alarm_share",
        [_is_false_alarm(record, threshold) for record in quiet],
        "imagined drives without contact of a driver who sees no other car, in which one is told at any step",
    )
    is_true, is_now = samples.depth == 0, samples.event[:, 0] == 0
    _add_share(report, "contact_recall_true", list(judged.contact[is_true & is_now] >= threshold), "")
    _add_share(
        report,
        "contact_false_alarm_share_true",
        list(judged.contact[is_true & (samples.event[:, 0] < 0)] >= threshold),
        "of true frames a second or more before any contact",
    )
    report.add("contact_threshold", threshold)
    report.add("collision_threshold", head.collision_threshold)


def _is_false_alarm(record: ContactRecord, threshold: float) -> bool:
    return not record.has_contact and record.before >= threshold


def _add_share(report: Report, name: str, is_hit: list[bool], note: str) -> None:
    if is_hit:
        report.add_estimate(name, wilson_share(is_hit), note=note)
