"""Scores of episodes made by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivesim.metrics.scores import (
    FORMULAS,
    NOT_THEIR_NUMBERS,
    SCORE_NAMES,
    DrivenEpisode,
    EpisodeScores,
    Series,
    formula_lines,
    score_episode,
)

HORIZON = 10


def series(values, *, is_valid=True) -> Series:
    array = np.asarray(values, dtype=np.float64)
    return Series(values=array, is_valid=np.broadcast_to(np.asarray(is_valid), array.shape).copy())


def episode(num_steps=HORIZON, *, end_reason="time_limit", expert_m=20.0, route_left_m=100.0, **metrics):
    """Return a calm drive of 1.5 m per step that misses nothing, but for what is named."""
    usual = {
        "progress_m": np.full(num_steps, 1.5),
        "off_road": np.zeros(num_steps),
        "collision": np.zeros(num_steps),
        "comfort": np.ones(num_steps),
        "time_to_collision_s": np.full(num_steps, 3.0),
    }
    chosen = {name: values for name, values in (usual | metrics).items() if values is not None}
    return DrivenEpisode(
        metrics={name: v if isinstance(v, Series) else series(v) for name, v in chosen.items()},
        end_reason=end_reason,
        horizon=HORIZON,
        dt_s=0.2,
        route_left_m=route_left_m,
        expert_progress_m=np.linspace(expert_m / HORIZON, expert_m, HORIZON),
    )


def values_of(scores: EpisodeScores) -> dict[str, float | None]:
    return {name: result.value if result.is_valid else None for name, result in scores.results().items()}


def at_last(num_steps: int, value: float, *, usual: float = 0.0) -> np.ndarray:
    return np.append(np.full(num_steps - 1, usual), value)


def test_a_calm_drive_by_hand():
    scores = score_episode(episode())
    assert values_of(scores) == pytest.approx(
        {
            "pdms": (5 * 0.75 + 5 + 2) / 12,
            "hd_score": 0.75,
            "route_completion": 0.75,  # 15 m of the 20 m that 10 m/s make in 2 s
            "off_road_rate": 0.0,
            "collision": 0.0,
            "comfort": 1.0,
            "min_time_to_collision_s": 3.0,
            "no_collision": 1.0,
            "drivable_area": 1.0,
            "ego_progress": 0.75,
            "time_to_collision": 1.0,
            "progress_m": 15.0,
        }
    )
    assert scores.pdms_parts == "NC DAC EP TTC C"
    assert scores.hd_parts == "NC DAC TTC C"


def test_a_collision_ends_all_credit_of_the_episode_and_of_the_steps_not_driven():
    scores = score_episode(episode(5, end_reason="collision", collision=at_last(5, 1.0)))
    found = values_of(scores)
    assert found["pdms"] == found["no_collision"] == 0.0
    assert found["collision"] == 1.0
    assert found["ego_progress"] == pytest.approx(7.5 / 20.0)  # the expert's whole horizon
    assert found["route_completion"] == pytest.approx(7.5 / 20.0)
    assert found["hd_score"] == pytest.approx(4 / 10 * 7.5 / 20.0)  # four good steps of ten
    assert found["off_road_rate"] == 0.0


def test_leaving_the_road_counts_as_off_road_until_the_horizon():
    off_road = np.array([0.0, 0.2, 0.4, 0.6])
    found = values_of(score_episode(episode(4, end_reason="off_road", off_road=off_road)))
    assert found["pdms"] == found["drivable_area"] == 0.0
    assert found["off_road_rate"] == pytest.approx((3 + 6) / 10)
    assert found["hd_score"] == pytest.approx(3 / 10 * 6.0 / 20.0)


def test_touching_the_verge_is_not_leaving_the_road():
    found = values_of(score_episode(episode(off_road=np.full(HORIZON, 0.5))))
    assert found["drivable_area"] == 1.0
    assert found["off_road_rate"] == 1.0


def test_what_the_world_gave_up_is_judged_over_the_time_it_lasted():
    found = values_of(score_episode(episode(4, end_reason="low_confidence")))
    assert found["ego_progress"] == found["route_completion"] == found["hd_score"] == pytest.approx(0.75)


def test_the_goal_is_all_of_a_short_route():
    found = values_of(score_episode(episode(8, end_reason="goal", route_left_m=12.0, expert_m=12.0)))
    assert found["ego_progress"] == found["route_completion"] == found["pdms"] == 1.0


def test_a_short_time_to_collision_costs_its_part_once_and_its_step_only():
    nearest_s = at_last(HORIZON, 0.95, usual=3.0)
    found = values_of(score_episode(episode(time_to_collision_s=nearest_s)))
    assert found["min_time_to_collision_s"] == pytest.approx(0.95)
    assert found["pdms"] == pytest.approx((5 * 0.75 + 2) / 12)
    assert found["hd_score"] == pytest.approx(0.75 * (9 + 2 / 7) / 10)
    assert values_of(score_episode(episode(time_to_collision_s=nearest_s + 0.01)))["time_to_collision"] == 1.0


def test_comfort_is_the_share_of_steps_that_keep_every_limit():
    comfort = np.where(np.arange(HORIZON) < 4, 5 / 6, 1.0)
    found = values_of(score_episode(episode(comfort=comfort)))
    assert found["comfort"] == pytest.approx(0.6)
    assert found["pdms"] == pytest.approx((5 * 0.75 + 5 + 2 * 0.6) / 12)


def test_progress_counts_only_where_pure_pursuit_moves():
    standing = np.zeros(HORIZON)
    assert values_of(score_episode(episode(progress_m=standing, expert_m=4.9)))["ego_progress"] == 1.0
    assert values_of(score_episode(episode(progress_m=standing, expert_m=5.1)))["ego_progress"] == 0.0
    backwards = np.full(HORIZON, -1.0)
    assert values_of(score_episode(episode(progress_m=backwards)))["ego_progress"] == 0.0
    fast = np.full(HORIZON, 9.0)
    assert values_of(score_episode(episode(progress_m=fast)))["ego_progress"] == 1.0
    assert values_of(score_episode(episode(route_left_m=0.0)))["route_completion"] == 1.0


def test_what_is_not_measured_is_left_out_and_named():
    blind = series(np.zeros(HORIZON), is_valid=False)
    scores = score_episode(episode(collision=blind, time_to_collision_s=None))
    found = values_of(scores)
    assert found["collision"] is found["no_collision"] is found["time_to_collision"] is None
    assert scores.pdms_parts == "DAC EP C"
    assert found["pdms"] == pytest.approx((5 * 0.75 + 2) / 7)
    assert scores.hd_parts == "DAC C"
    assert found["hd_score"] == pytest.approx(0.75)
    nothing = score_episode(episode(off_road=None, collision=None, comfort=None, time_to_collision_s=None))
    assert nothing.pdms_parts == "EP"
    assert not nothing.hd_score.is_valid
    assert not nothing.off_road_rate.is_valid


def test_steps_that_could_not_be_measured_do_not_count():
    is_valid = np.arange(HORIZON) % 2 == 0
    off_road = series(np.where(is_valid, 0.1, 0.9), is_valid=is_valid)
    found = values_of(score_episode(episode(off_road=off_road)))
    assert found["off_road_rate"] == found["drivable_area"] == 1.0


def test_no_step_no_score():
    empty = episode(0)
    assert all(not result.is_valid for result in score_episode(empty).results().values())
    assert empty.num_judged == 0
    with pytest.raises(ValueError, match="no episode of 10 steps"):
        episode(3, off_road=np.zeros(4))
    with pytest.raises(ValueError, match="no episode of 10 steps"):
        episode(11)


def test_scores_survive_json():
    scores = score_episode(episode(collision=None))
    assert EpisodeScores.from_dict(scores.as_dict()) == scores
    assert set(scores.as_dict()) == {*SCORE_NAMES, "pdms_parts", "hd_parts"}


def test_formulas_say_what_they_are_not():
    lines = formula_lines(off_road_limit=0.25)
    assert lines[-1] == NOT_THEIR_NUMBERS
    assert any(line.startswith("DAC") and "25%" in line for line in lines)
    assert any("0.95 s" in line for line in lines)
    assert len(lines) == len(FORMULAS) + 1


@given(
    st.integers(1, HORIZON),
    st.sampled_from(["time_limit", "goal", "collision", "off_road", "low_confidence"]),
    st.randoms(use_true_random=False),
)
def test_scores_lie_between_0_and_1(num_steps, end_reason, random):
    def drawn(high):
        return np.array([random.uniform(0, high) for _ in range(num_steps)])

    found = values_of(
        score_episode(
            episode(
                num_steps,
                end_reason=end_reason,
                progress_m=drawn(8.0) - 2.0,
                off_road=drawn(1.0),
                collision=np.round(drawn(0.6)),
                comfort=np.round(drawn(1.0)),
                time_to_collision_s=drawn(3.0),
            )
        )
    )
    for name in SCORE_NAMES:
        if name not in ("progress_m", "min_time_to_collision_s"):
            assert 0.0 <= found[name] <= 1.0
