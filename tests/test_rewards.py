"""The reward's parts sum to it, stay within bounds, and ignore what could not be measured."""

from __future__ import annotations

import numpy as np
import pytest

from drivesim.errors import InputError
from drivesim.metrics.base import NOT_MEASURABLE, MetricResult
from drivesim.rewards import RewardConfig, reward


def metrics(**values: float) -> dict[str, MetricResult]:
    """Return a perfect step at full speed with some values replaced."""
    perfect = {
        "progress_m": 20.0 / 6.0, "lateral_error_m": 0.0, "heading_error_rad": 0.0,
        "comfort": 1.0, "off_road": 0.0, "collision": 0.0, "speed_over_limit_mps": 0.0,
    }  # fmt: skip
    return {name: MetricResult(value=value) for name, value in {**perfect, **values}.items()}


def test_a_perfect_step_earns_the_upper_bound() -> None:
    total, parts = reward(metrics(), RewardConfig())
    assert total == pytest.approx(RewardConfig().bounds[1]) == pytest.approx(1.0)
    assert set(parts) == {"progress", "lateral", "heading", "comfort", "off_road", "collision", "speeding"}


def test_the_worst_step_costs_the_lower_bound() -> None:
    worst = metrics(
        progress_m=-99,
        lateral_error_m=-99,
        heading_error_rad=3,
        comfort=0,
        off_road=1,
        collision=1,
        speed_over_limit_mps=9,
    )
    total, _ = reward(worst, RewardConfig())
    assert total == pytest.approx(RewardConfig().bounds[0]) == pytest.approx(-4.6)


def test_parts_sum_to_the_total_and_stay_in_bounds() -> None:
    rng = np.random.default_rng(0)
    low, high = RewardConfig().bounds
    for _ in range(50):
        drawn = metrics(
            progress_m=rng.normal(0, 5), lateral_error_m=rng.normal(0, 3), heading_error_rad=rng.normal(0, 1),
            comfort=rng.random(), off_road=rng.random(), collision=float(rng.integers(2)),
        )  # fmt: skip
        total, parts = reward(drawn, RewardConfig())
        assert total == pytest.approx(sum(parts.values()))
        assert low <= total <= high


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("lateral", "lateral_error_m", 1.0), ("heading", "heading_error_rad", 0.2), ("comfort", "comfort", 0.5),
     ("off_road", "off_road", 0.4), ("collision", "collision", 1.0), ("speeding", "speed_over_limit_mps", 2.0)],
)  # fmt: skip
def test_each_fault_costs_only_its_own_part(part: str, name: str, value: float) -> None:
    _, perfect = reward(metrics(), RewardConfig())
    _, parts = reward(metrics(**{name: value}), RewardConfig())
    assert parts[part] < 0
    assert {key for key in parts if parts[key] != perfect[key]} == {part}


@pytest.mark.parametrize("name", ["comfort", "off_road", "collision", "speed_over_limit_mps"])
def test_what_cannot_be_measured_neither_costs_nor_earns(name: str) -> None:
    _, parts = reward({**metrics(), name: NOT_MEASURABLE}, RewardConfig())
    assert parts["speeding" if name == "speed_over_limit_mps" else name] == 0.0


@pytest.mark.parametrize("field", [{"progress": -1.0}, {"full_lateral_m": 0.0}, {"collision": float("nan")}])
def test_weights_that_make_no_sense_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(field))):
        RewardConfig(**field)
