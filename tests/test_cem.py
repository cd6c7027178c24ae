"""Planning: the arrays say what dynamics and rewards say, and the planners heed route, gaps and hazards."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from drawn_roads import DrawnRoad

from drivesim import dynamics
from drivesim.dynamics import VehicleConfig
from drivesim.errors import InputError
from drivesim.hazard import Hazards
from drivesim.metrics.driving import DrivenStep, measure
from drivesim.rewards import RewardConfig, reward
from drivesim.scene.route import Route
from drivesim.scene.types import Control, EgoState
from drivesim.world_model.world_model import WorldModel, WorldModelConfig
from policies.cem import CemPolicy, MppiPolicy
from policies.idm import GapTracker
from policies.imagined_hazards import HazardSight
from policies.plan_search import PlanCosts, distinct, driven, knots_of, pursued, shifted
from policies.planning import CarNow, RouteAhead, drive, plan_rewards

CAR, DT_S, NUM_STEPS = VehicleConfig(), 1 / 6, 12
PICTURE = DrawnRoad().picture()


class FakeState:
    """A world in which only the last motions count."""

    def __init__(self, twist_BA: torch.Tensor, depth: int = 0) -> None:
        self.twist_BA, self.depth = twist_BA, depth

    def fork(self, count: int) -> FakeState:
        return FakeState(self.twist_BA.repeat(count, 1), self.depth)


class FakeImagining(torch.nn.Module):
    """A world model that keeps the motions it was told of."""

    rate_hz = 6.0

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[float]] = []
        self.batches: list[int] = []

    def observe(self, frames_BTHWC: torch.Tensor, twist_BTA: torch.Tensor, camera: object) -> FakeState:
        assert frames_BTHWC.shape == (1, 1, 128, 224, 3)
        return FakeState(twist_BTA[:, -1])

    def outlook(self, state: FakeState, twist_BA: torch.Tensor) -> torch.Tensor:
        self.seen.append(twist_BA[0].tolist())
        return twist_BA

    def shown(self, state: FakeState, frame_BHWC: torch.Tensor, outlook: torch.Tensor) -> FakeState:
        return FakeState(outlook)

    def imagine(self, state: FakeState, twist_BA: torch.Tensor, *, generator: torch.Generator) -> Any:
        self.batches.append(len(twist_BA))
        return type("Imagined", (), {"state": FakeState(twist_BA, state.depth + 1)})


class FakeHead:
    """Sees danger where the car drives faster than a limit in what is imagined, or as it is told."""

    collision_threshold = 0.5

    def __init__(self, *, limit_mps: float = 99.0, now: float = 0.0) -> None:
        self.limit_mps, self.now = limit_mps, now

    def assess(self, state: FakeState) -> Hazards:
        is_fast = (state.twist_BA[:, 0] > self.limit_mps).float()
        collision = is_fast if state.depth else torch.full((len(state.twist_BA),), self.now)
        return Hazards(
            collision=collision, off_road=0.0 * collision, contact=0.0 * collision, is_outside=0.0 * collision
        )


def info_of(ego: EgoState, route_m: np.ndarray) -> dict[str, Any]:
    return {
        "ego": {name: float(value) for name, value in asdict(ego).items()},
        "route_ahead_m": route_m.astype(np.float32),
        "vehicle": asdict(CAR),
        "dt_s": DT_S,
    }


def standing(speed_mps: float = 8.0, **state: float) -> EgoState:
    return EgoState(x_m=0.0, y_m=0.0, yaw_rad=0.0, speed_mps=speed_mps, **state)


def bend(curvature_1pm: float = 0.0, offset_m: float = 0.0) -> np.ndarray:
    return DrawnRoad(curvature_1pm=curvature_1pm, offset_m=offset_m).way_m()


def planner(kind: type = CemPolicy, head: FakeHead | None = None, **settings: Any) -> Any:
    return kind(world_model=FakeImagining(), hazard_head=head or FakeHead(), **settings)


def random_controls(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(-0.6, 0.6, (5, NUM_STEPS)), rng.uniform(-9, 5, (5, NUM_STEPS))], axis=-1)


def test_plans_move_as_the_bicycle_does() -> None:
    ego = standing(15.0)
    car = CarNow.of(info_of(ego, bend()))
    controls = random_controls()
    plans = drive(controls[..., 0], controls[..., 1], car)
    for row, plan in enumerate(controls):
        state = ego
        for step, (steering_rad, accel_mps2) in enumerate(plan):
            accel = float(np.clip(accel_mps2, -CAR.max_braking_mps2, CAR.max_accel_mps2))
            state = dynamics.step(state, Control(steering_rad=steering_rad, accel_mps2=accel), CAR, DT_S)
            assert plans.xy_m[row, step] == pytest.approx([state.x_m, state.y_m], abs=1e-9)
            assert plans.speed_mps[row, step] == pytest.approx(state.speed_mps)
            assert plans.yaw_rate_radps[row, step] == pytest.approx(state.yaw_rate_radps)
            assert plans.accel_mps2[row, step] == pytest.approx(state.accel_mps2)
            assert np.cos(plans.yaw_rad[row, step] - state.yaw_rad) == pytest.approx(1.0)


def test_the_rewards_of_plans_are_those_of_the_project() -> None:
    ego = standing(8.0, accel_mps2=1.0, yaw_rate_radps=0.1)
    route_m = bend(0.01, offset_m=0.3)
    car = CarNow.of(info_of(ego, route_m))
    controls = random_controls(1) * np.array([0.3, 0.3])
    plans = drive(controls[..., 0], controls[..., 1], car)
    found = plan_rewards(plans, RouteAhead(route_m).locate(plans), car, RewardConfig())
    start = route_m[0] - (route_m[1] - route_m[0])
    route = Route(np.concatenate([[2 * start - route_m[0], start], route_m]))
    for row in range(len(plans)):
        before, place = ego, route.project((0.0, 0.0), 0.0)
        for step in range(NUM_STEPS):
            control = Control(
                steering_rad=plans.steering_rad[row, step], accel_mps2=plans.accel_mps2[row, step]
            )
            after = dynamics.step(before, control, CAR, DT_S)
            now = route.project((after.x_m, after.y_m), after.yaw_rad, near_m=place.distance_m)
            metrics = measure(
                DrivenStep(
                    previous=before,
                    current=after,
                    dt_s=DT_S,
                    previous_route=place,
                    current_route=now,
                    route_length_m=route.length_m,
                    vehicle=CAR,
                )
            )
            assert found[row, step] == pytest.approx(reward(metrics, RewardConfig())[0], abs=0.02)
            before, place = after, now


def test_knots_draw_straight_lines_and_come_back() -> None:
    knots = np.array([[0.0, 1.0], [0.1, 0.0], [0.1, -1.0], [-0.1, 0.0]])
    car = CarNow.of(info_of(standing(), bend()))
    plans = driven(knots[None], car, NUM_STEPS)
    controls = np.stack([plans.steering_rad[0], plans.accel_mps2[0]], axis=-1)
    assert controls[[0, -1]] == pytest.approx(knots[[0, -1]])
    assert knots_of(controls, 4) == pytest.approx(knots)
    assert shifted(knots, 0, NUM_STEPS) == pytest.approx(knots)
    assert shifted(knots, 11, NUM_STEPS) == pytest.approx(np.tile(knots[-1], (4, 1)))


def test_pursuit_makes_a_first_guess_that_keeps_to_the_route() -> None:
    route_m = bend(0.02)
    info = info_of(standing(8.0), route_m)
    controls = pursued(info, cruise_speed_mps=9.0, num_steps=NUM_STEPS)
    plans = drive(controls[None, :, 0], controls[None, :, 1], CarNow.of(info))
    assert np.abs(RouteAhead(route_m).locate(plans).lateral_m).max() < 0.4


def test_distinct_plans_lie_apart() -> None:
    car = CarNow.of(info_of(standing(), bend()))
    knots = np.zeros((6, 4, 2))
    knots[:, :, 1] = np.array([0.0, 0.01, -2.0, -2.01, 1.0, -4.0])[:, None]
    plans = driven(knots, car, NUM_STEPS)
    assert distinct(plans, np.arange(6.0), 3) == [0, 2, 4]


def test_a_gap_ahead_makes_fast_plans_dear() -> None:
    info = info_of(standing(8.0), bend())
    car, knots = CarNow.of(info), np.zeros((2, 4, 2))
    knots[1, :, 1] = -4.0
    plans = driven(knots, car, NUM_STEPS)
    place = RouteAhead(info["route_ahead_m"]).locate(plans)
    on, braking = PlanCosts().of(plans, place, car, GapTracker())
    assert on < braking
    on, braking = PlanCosts().of(plans, place, car, GapTracker(gap_m=10.0, closing_mps=8.0))
    assert on > braking
    on, braking = PlanCosts().of(plans, place, car, GapTracker(gap_m=20.0, closing_mps=-2.0))
    assert on < braking


@pytest.mark.parametrize("kind", [CemPolicy, MppiPolicy])
def test_the_route_is_followed_quickly_and_in_comfort(kind: type) -> None:
    policy, ego, route = (
        planner(kind),
        standing(6.0),
        Route(np.stack([np.arange(90.0), np.zeros(90)], axis=-1)),
    )
    ego = replace(ego, y_m=0.5)
    place, comfort = None, []
    for _ in range(18):
        place = route.project(
            (ego.x_m, ego.y_m), ego.yaw_rad, near_m=None if place is None else place.distance_m
        )
        cos, sin = np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)
        offset = route.points_at(place.distance_m + np.arange(1, 21) * 2.0) - [ego.x_m, ego.y_m]
        action = policy.select_action(PICTURE, info_of(ego, offset @ np.array([[cos, -sin], [sin, cos]])))
        assert action.shape == (2,)
        assert action.dtype == np.float32
        before = ego
        control = dynamics.control_from_action(float(action[0]), float(action[1]), ego, CAR, DT_S)
        ego = dynamics.step(ego, control, CAR, DT_S)
        step = DrivenStep(
            previous=before, current=ego, dt_s=DT_S, previous_route=place, current_route=place,
            route_length_m=90.0, vehicle=CAR,
        )  # fmt: skip
        comfort.append(measure(step)["comfort"].value)
    assert abs(ego.y_m) < 0.35
    assert ego.speed_mps > 9.0
    assert np.mean(comfort) > 0.9


def test_equal_seeds_plan_equally() -> None:
    info = info_of(standing(), bend(0.01))
    first, same, other = (planner(seed=seed).select_action(PICTURE, info) for seed in (1, 1, 2))
    assert first.tolist() == same.tolist()
    assert first.tolist() != other.tolist()


def test_it_brakes_when_every_fast_future_is_dangerous() -> None:
    info = info_of(standing(8.0), bend())
    free = planner(head=FakeHead(now=0.1)).select_action(PICTURE, info)
    warned = planner(head=FakeHead(now=0.1, limit_mps=7.2)).select_action(PICTURE, info)
    assert free[1] > 8.0 > 7.5 > warned[1]


def test_it_brakes_for_a_car_in_the_picture() -> None:
    policy, info = planner(), info_of(standing(8.0), bend())
    speeds = [policy.select_action(DrawnRoad(car_m=12.0).picture(), info)[1] for _ in range(2)]
    assert max(speeds) < 8.0
    assert policy.world_model.batches  # something ahead is worth imagining


def test_nothing_is_imagined_where_all_is_quiet_and_plans_are_kept() -> None:
    policy, info = planner(replan_every=3), info_of(standing(8.0), bend())
    plans = []
    for _ in range(4):
        policy.select_action(PICTURE, info)
        plans.append(id(policy._plan))
    assert plans[0] == plans[1] == plans[2] != plans[3]
    assert policy.world_model.batches == []


def test_danger_brings_a_new_plan_at_once_with_braking_among_the_imagined() -> None:
    head = FakeHead()
    policy, info = planner(head=head), info_of(standing(8.0), bend())
    policy.select_action(PICTURE, info)
    head.now = 0.9
    policy.select_action(PICTURE, info)
    assert 2 <= policy.world_model.batches[0] <= policy.num_imagined
    assert len(policy.world_model.batches) == policy.imagined_steps


def test_the_model_is_told_the_motion_into_each_picture() -> None:
    model = FakeImagining()
    sight = HazardSight(model, FakeHead())  # type: ignore[arg-type]
    sight.see(PICTURE, info_of(standing(8.0), bend()))
    sight.see(PICTURE, info_of(standing(9.0, yaw_rate_radps=0.2), bend()))
    assert model.seen == [pytest.approx([8.5, 0.2])]


def test_steps_of_another_length_than_the_models_are_refused() -> None:
    info = {**info_of(standing(), bend()), "dt_s": 0.5}
    with pytest.raises(InputError, match=r"6 frames per second.*2 steps; set rate_hz=6"):
        planner().select_action(PICTURE, info)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num_samples must be a whole number of at least 1, got 0"),
        ({"num_samples": 2.5}, "num_samples must be a whole number of at least 1, got 2.5"),
        ({"num_knots": 0}, "num_knots must be a whole number of at least 1, got 0"),
        ({"collision_cost": -1.0}, "collision_cost must be a number of at least 0, got -1.0"),
        ({"replan_every": 20}, "horizon_steps=12 is too short"),
        ({"imagined_steps": 13}, "imagined_steps=13"),
    ],
)
def test_settings_that_make_no_plan_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        planner(**settings)


def test_what_narrows_a_draw_must_leave_something() -> None:
    with pytest.raises(InputError, match="num_elites must be a whole number of at least 1, got 0"):
        CemPolicy(num_elites=0)
    for temperature in (0, -0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"temperature must be a positive number, got {temperature}"):
            MppiPolicy(temperature=temperature)
    with pytest.raises(InputError, match="num_knots must be a whole number of at least 1, got 0"):
        MppiPolicy(num_knots=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"standing_gap_m": 0.0}, "costs.standing_gap_m must be a positive number, got 0.0"),
        ({"cruise_speed_mps": float("nan")}, "costs.cruise_speed_mps must be a positive number, got nan"),
        ({"closeness": -1.0}, "costs.closeness must be a number of at least 0, got -1.0"),
    ],
)
def test_costs_without_a_meaning_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PlanCosts(**settings)
    assert PlanCosts(closeness=0.0, time_gap_s=0.0).closeness == 0.0


def test_a_real_world_model_can_be_asked() -> None:
    torch.manual_seed(0)
    config = WorldModelConfig()
    model = WorldModel(config).eval().requires_grad_(False)

    class Head(FakeHead):
        def assess(self, state: Any) -> Hazards:
            quiet = torch.zeros(len(state))
            return Hazards(collision=quiet, off_road=quiet, contact=quiet, is_outside=quiet)

    sight = HazardSight(model, Head())
    sight.see(PICTURE, info_of(standing(), bend()))
    sight.see(PICTURE, info_of(standing(), bend()))
    risk = sight.imagine(np.tile([8.0, 0.1], (2, 1, 1)))
    assert risk.collision.shape == risk.off_road.shape == (2,)
