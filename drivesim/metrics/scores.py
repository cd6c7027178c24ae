"""Scores of a whole episode: pure functions over the metrics of its steps, each score (value, is_valid).

The forms of two published scores are kept, NAVSIM's PDMS and HUGSIM's HD-score; their numbers are not, see
`NOT_THEIR_NUMBERS`. `FORMULAS` says in words what is computed here, for tables and reports.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim.metrics.base import NOT_MEASURABLE, MetricResult
from drivesim.metrics.closeness import LEAST_TIME_TO_COLLISION_S
from drivesim.scene.geometry import FloatArray

LEAST_EXPERT_PROGRESS_M = 5.0  # below it progress is not counted, as in NAVSIM
ROUTE_SPEED_MPS = 10.0  # the route of an episode ends where this steady speed gets to
FAILED_ENDS = ("collision", "off_road")
EP_WEIGHT, TTC_WEIGHT, COMFORT_WEIGHT = 5.0, 5.0, 2.0

FORMULAS: dict[str, str] = {
    "PDMS-style": "NC * DAC * (5 EP + 5 TTC + 2 C) / 12, once per episode",
    "HD-style": "mean over steps of NC * DAC * (5 TTC + 2 C) / 7, times the route completion",
    "NC": "no collision: 0 if the car touched another, else 1",
    "DAC": "drivable area: 0 once more than {off_road_limit:.0%} of the footprint had left it, else 1",
    "EP": "progress along the route over what pure pursuit makes in the same time on exact geometry, without "
    f"traffic or pictures; at most 1, and 1 where pure pursuit makes less than {LEAST_EXPERT_PROGRESS_M:g} m",
    "TTC": f"1 if the time to collision never fell to {LEAST_TIME_TO_COLLISION_S:g} s, else 0; of one step in HD-style",
    "C": "share of the driven steps within all six of nuPlan's comfort limits (acceleration -4.05 to 2.40 m/s2, "
    "lateral 4.89 m/s2, yaw rate 0.95 rad/s, yaw acceleration 1.93 rad/s2, jerk 8.37 and lengthwise 4.13 m/s3)",
    "route completion": "progress over the route that was asked for: what was left of it at the start, or as far as "
    f"{ROUTE_SPEED_MPS:g} m/s get in the time, whichever is shorter; in [0, 1]",
    "off-road rate": "share of the steps with any part of the footprint outside the drivable area",
    "horizon": "after a collision or leaving the road the rest of the horizon counts: EP and route completion "
    "are those of the whole horizon, HD-style has 0 for each step not driven, and after leaving the road these steps "
    "count as off-road; an episode that ended otherwise is judged over the time that it lasted",
    "parts": "a part that could not be measured is left out of product and weights; the column parts names those "
    "that a score was computed from",
}
"""What stands for what; ``{off_road_limit}`` is the episode's own (`formula_lines` puts it in)."""

NOT_THEIR_NUMBERS = (
    "These are not NAVSIM's PDMS nor HUGSIM's HD-score: scenes, horizon, expert, thresholds and the other cars differ, "
    "so the numbers cannot be compared with published ones."
)


def formula_lines(*, off_road_limit: float) -> list[str]:
    """Return the formulas as lines of text, the sentence on whose numbers they are not last."""
    lines = [
        f"{name}: {text.format(off_road_limit=off_road_limit) if name == 'DAC' else text}"
        for name, text in FORMULAS.items()
    ]
    return [*lines, NOT_THEIR_NUMBERS]


@dataclass(kw_only=True, slots=True, frozen=True)
class Series:
    """One metric at every driven step; where ``is_valid`` is False the value must not be used."""

    values: FloatArray  # (T,)
    is_valid: NDArray[np.bool_]  # (T,)

    @property
    def valid_values(self) -> FloatArray:
        """Return the values that may be used."""
        return np.asarray(self.values[self.is_valid])


@dataclass(kw_only=True, slots=True, frozen=True)
class DrivenEpisode:
    """Everything the scores look at. Metrics are named as in ``info["metrics"]``; any of them may be missing."""

    metrics: Mapping[str, Series]  # all of one length T
    end_reason: str
    horizon: int  # steps until the time limit
    dt_s: float
    route_left_m: float  # to the goal, at the start
    expert_progress_m: FloatArray  # (horizon,) metres that pure pursuit has made after each step
    off_road_limit: float = 0.5

    def __post_init__(self) -> None:
        """Refuse series of different lengths and an expert that stops too early."""
        lengths = {len(series.values) for series in self.metrics.values()}
        if len(lengths) > 1 or max(lengths, default=0) > self.horizon:
            raise ValueError(f"series of lengths {sorted(lengths)} are no episode of {self.horizon} steps")
        if len(self.expert_progress_m) != self.horizon:
            raise ValueError(f"the expert drives {len(self.expert_progress_m)} of {self.horizon} steps")

    @property
    def num_steps(self) -> int:
        """Return the number of driven steps T."""
        return max((len(series.values) for series in self.metrics.values()), default=0)

    @property
    def num_judged(self) -> int:
        """Return the steps that the episode is judged over: the horizon after a failure, else what was driven."""
        return self.horizon if self.end_reason in FAILED_ENDS else self.num_steps

    def series(self, name: str) -> Series:
        """Return a metric's series, nothing of it valid where it was never measured."""
        empty = np.zeros(self.num_steps)
        return self.metrics.get(name, Series(values=empty, is_valid=empty.astype(bool)))


@dataclass(kw_only=True, slots=True, frozen=True)
class EpisodeScores:
    """The scores of one episode, see `FORMULAS`."""

    pdms: MetricResult = NOT_MEASURABLE
    hd_score: MetricResult = NOT_MEASURABLE
    route_completion: MetricResult = NOT_MEASURABLE
    off_road_rate: MetricResult = NOT_MEASURABLE
    collision: MetricResult = NOT_MEASURABLE  # 1 if there was one
    comfort: MetricResult = NOT_MEASURABLE  # C
    min_time_to_collision_s: MetricResult = NOT_MEASURABLE
    no_collision: MetricResult = NOT_MEASURABLE  # NC
    drivable_area: MetricResult = NOT_MEASURABLE  # DAC
    ego_progress: MetricResult = NOT_MEASURABLE  # EP
    time_to_collision: MetricResult = NOT_MEASURABLE  # TTC
    progress_m: MetricResult = NOT_MEASURABLE
    pdms_parts: str = ""  # such as "NC DAC EP TTC C"
    hd_parts: str = ""

    def results(self) -> dict[str, MetricResult]:
        """Return the scores by name."""
        return {name: value for name in SCORE_NAMES if isinstance(value := getattr(self, name), MetricResult)}

    def as_dict(self) -> dict[str, object]:
        """Return plain Python values."""
        plain: dict[str, object] = {name: result.as_dict() for name, result in self.results().items()}
        return plain | {"pdms_parts": self.pdms_parts, "hd_parts": self.hd_parts}

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> EpisodeScores:
        """Return the scores that `as_dict` made plain."""
        values = {
            name: MetricResult(**value) if isinstance(value, dict) else value for name, value in plain.items()
        }
        return cls(**values)  # type: ignore[arg-type]


SCORE_NAMES = tuple(
    field.name for field in dataclasses.fields(EpisodeScores) if not field.name.endswith("_parts")
)


def score_episode(episode: DrivenEpisode) -> EpisodeScores:
    """Return all scores; none of them is valid for an episode without a step."""
    if episode.num_steps == 0:
        return EpisodeScores()
    touched = _largest(episode.series("collision"))
    left = _largest(episode.series("off_road"))
    nearest_s = _smallest(episode.series("time_to_collision_s"))
    no_collision = _is(touched, touched.value == 0.0)
    drivable_area = _is(left, left.value <= episode.off_road_limit)
    time_to_collision = _is(nearest_s, nearest_s.value > LEAST_TIME_TO_COLLISION_S)
    comfort, ego_progress = _mean(_is_comfortable(episode)), _ego_progress(episode)
    completion = _route_completion(episode)
    pdms, pdms_parts = _gated(
        {"NC": no_collision, "DAC": drivable_area},
        {
            "EP": (EP_WEIGHT, ego_progress),
            "TTC": (TTC_WEIGHT, time_to_collision),
            "C": (COMFORT_WEIGHT, comfort),
        },
    )
    hd_score, hd_parts = _hd_score(episode, completion)
    return EpisodeScores(
        pdms=pdms,
        hd_score=hd_score,
        route_completion=completion,
        off_road_rate=_off_road_rate(episode),
        collision=_is(touched, touched.value > 0.0),
        comfort=comfort,
        min_time_to_collision_s=nearest_s,
        no_collision=no_collision,
        drivable_area=drivable_area,
        ego_progress=ego_progress,
        time_to_collision=time_to_collision,
        progress_m=_progress_m(episode),
        pdms_parts=pdms_parts,
        hd_parts=hd_parts,
    )


def _progress_m(episode: DrivenEpisode) -> MetricResult:
    steps_m = episode.series("progress_m").valid_values
    return MetricResult(value=float(steps_m.sum())) if len(steps_m) else NOT_MEASURABLE


def _ego_progress(episode: DrivenEpisode) -> MetricResult:
    """Return EP, NAVSIM's ego progress with pure pursuit in the place of its planner."""
    progress_m = _progress_m(episode)
    if not progress_m.is_valid:
        return NOT_MEASURABLE
    expert_m = float(episode.expert_progress_m[episode.num_judged - 1])
    if expert_m < LEAST_EXPERT_PROGRESS_M:
        return MetricResult(value=1.0)
    return MetricResult(value=float(np.clip(progress_m.value / expert_m, 0.0, 1.0)))


def _route_completion(episode: DrivenEpisode) -> MetricResult:
    progress_m = _progress_m(episode)
    if not progress_m.is_valid:
        return NOT_MEASURABLE
    asked_m = min(episode.route_left_m, ROUTE_SPEED_MPS * episode.num_judged * episode.dt_s)
    if asked_m <= 0.0:  # it began at the goal
        return MetricResult(value=1.0)
    return MetricResult(value=float(np.clip(progress_m.value / asked_m, 0.0, 1.0)))


def _off_road_rate(episode: DrivenEpisode) -> MetricResult:
    series = episode.series("off_road")
    if not series.is_valid.any():
        return NOT_MEASURABLE
    num_outside, num_steps = int((series.valid_values > 0.0).sum()), int(series.is_valid.sum())
    num_missing = episode.num_judged - episode.num_steps
    if episode.end_reason == "off_road":
        num_outside += num_missing
    return MetricResult(value=num_outside / (num_steps + num_missing))


def _hd_score(episode: DrivenEpisode, completion: MetricResult) -> tuple[MetricResult, str]:
    """Return HUGSIM's form of score, and the parts that were measured at any step."""
    collision, off_road = episode.series("collision"), episode.series("off_road")
    nearest_s, comfort = episode.series("time_to_collision_s"), _is_comfortable(episode)
    scores, names = [], dict.fromkeys(("NC", "DAC", "TTC", "C"), False)
    for step in range(episode.num_steps):
        no_collision = _at(collision, step, collision.values[step] == 0.0)
        inside = _at(off_road, step, off_road.values[step] <= episode.off_road_limit)
        has_time = _at(nearest_s, step, nearest_s.values[step] > LEAST_TIME_TO_COLLISION_S)
        is_calm = _at(comfort, step, comfort.values[step])
        score, parts = _gated(
            {"NC": no_collision, "DAC": inside},
            {"TTC": (TTC_WEIGHT, has_time), "C": (COMFORT_WEIGHT, is_calm)},
        )
        names |= dict.fromkeys(parts.split(), True)
        if score.is_valid:
            scores.append(score.value)
    if not scores or not completion.is_valid:
        return NOT_MEASURABLE, ""
    num_missing = episode.num_judged - episode.num_steps
    mean = sum(scores) / (len(scores) + num_missing)
    return MetricResult(value=mean * completion.value), " ".join(name for name, has in names.items() if has)


def _gated(
    gates: Mapping[str, MetricResult], parts: Mapping[str, tuple[float, MetricResult]]
) -> tuple[MetricResult, str]:
    """Return the product of the gates times the weighted mean of the parts, and the names of what was measured."""
    weighed = {name: pair for name, pair in parts.items() if pair[1].is_valid}
    if not weighed:
        return NOT_MEASURABLE, ""
    open_gates = {name: gate for name, gate in gates.items() if gate.is_valid}
    product = float(np.prod([gate.value for gate in open_gates.values()]))
    total = sum(weight for weight, _ in weighed.values())
    mean = sum(weight * part.value for weight, part in weighed.values()) / total
    return MetricResult(value=product * mean), " ".join([*open_gates, *weighed])


def _is_comfortable(episode: DrivenEpisode) -> Series:
    """Return 1 for each step that keeps every limit; the metric itself is the share of limits kept."""
    series = episode.series("comfort")
    return Series(values=(series.values >= 1.0).astype(np.float64), is_valid=series.is_valid)


def _at(series: Series, step: int, value: float | np.bool_) -> MetricResult:
    return MetricResult(value=float(value)) if series.is_valid[step] else NOT_MEASURABLE


def _is(measured: MetricResult, value: bool) -> MetricResult:
    return MetricResult(value=float(value)) if measured.is_valid else NOT_MEASURABLE


def _largest(series: Series) -> MetricResult:
    return MetricResult(value=float(series.valid_values.max())) if series.is_valid.any() else NOT_MEASURABLE


def _smallest(series: Series) -> MetricResult:
    return MetricResult(value=float(series.valid_values.min())) if series.is_valid.any() else NOT_MEASURABLE


def _mean(series: Series) -> MetricResult:
    return MetricResult(value=float(series.valid_values.mean())) if series.is_valid.any() else NOT_MEASURABLE
