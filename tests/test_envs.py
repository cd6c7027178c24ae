"""The Gymnasium contract, and what an environment promises about log, reward and end of episodes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env, data_equivalence
from helpers import DT_S, FakeWorldModel, make_scene

import drivesim
from drivesim.dynamics import VehicleConfig
from drivesim.episode import EpisodeConfig, SamplerSettings
from drivesim.errors import InputError
from drivesim.rewards import RewardConfig
from drivesim.scene.types import Scene, front_camera
from drivesim.world_model.sampler import SamplerConfig, UnmaskOrder
from envs.drive_episode import DriveEpisodeEnv
from envs.world_dreamer_drive import WorldDreamerDriveEnv

LEARNED = "WorldDreamer-Drive-v0"
STRAIGHT_ON = np.array([0.0, 8.0], dtype=np.float32)


def make_learned(num_frames: int = 24, **kwargs: Any) -> gym.Env:
    """Return the learned environment with a fake world model over the hand-made scene."""
    kwargs = {"scene": make_scene(num_frames), "world_model": FakeWorldModel(), **kwargs}
    return gym.make(LEARNED, **kwargs)


def test_importing_drivesim_registers_both_and_stays_light() -> None:
    assert {LEARNED, "Reference-Drive-v0"} <= set(gym.registry)
    assert gym.spec(LEARNED).max_episode_steps == drivesim.MAX_EPISODE_STEPS
    heavy = "{'torch', 'cv2', 'highway_env', 'nuscenes', 'envs'}"
    code = f"import sys, drivesim; print(sorted({heavy} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_module_prefix_makes_the_environment_without_an_import() -> None:
    env = gym.make(f"drivesim:{LEARNED}", scene=make_scene(8), world_model=FakeWorldModel())
    assert isinstance(env.unwrapped, WorldDreamerDriveEnv)


def test_gymnasiums_checker_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = make_learned()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Physical units are this project's choice; RescaleAction gives the range that the checker recommends.
        warnings.filterwarnings("ignore", message=".*we recommend using a symmetric and normalized space.*")
        check_env(env.unwrapped)


def test_stable_baselines_checker_is_clean() -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", message=".*We recommend you to use a symmetric and normalized Box.*"
        )
        checker.check_env(make_learned().unwrapped, warn=True)
        warnings.resetwarnings()
        warnings.simplefilter("error")
        symmetric = np.ones(2, dtype=np.float32)
        checker.check_env(
            gym.wrappers.RescaleAction(make_learned().unwrapped, -symmetric, symmetric), warn=True
        )


def test_seeds_reproduce_a_rollout_bit_for_bit() -> None:
    envs = [make_learned(), make_learned()]
    resets = [env.reset(seed=5) for env in envs]
    assert data_equivalence(*resets, exact=True)
    envs[0].action_space.seed(5)
    for _ in range(8):
        action = envs[0].action_space.sample() * np.array([0.1, 0.5], dtype=np.float32)
        steps = [env.step(action) for env in envs]
        assert data_equivalence(*steps, exact=True)
        assert steps[0][2] is False
        assert steps[0][3] is False
    again, _ = envs[0].reset()
    assert np.array_equal(again, resets[0][0])  # the start is the recording's; only what is imagined differs
    assert not np.array_equal(envs[0].step(action)[0], envs[1].step(action)[0])


def test_numbers_at_the_boundary_are_plain_python_and_numpy() -> None:
    env = make_learned()
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(STRAIGHT_ON)
    assert type(reward) is float
    assert type(terminated) is bool
    assert type(truncated) is bool
    assert observation.dtype == np.uint8
    assert observation.shape == (128, 224, 3)
    plain = [*info["ego"].values(), *info["rewards"].values(), info["confidence"]]
    assert all(type(value) is float for value in plain)
    assert not any(isinstance(value, torch.Tensor) for value in info.values())
    assert set(info["metrics"]["collision"]) == {"value", "is_valid"}
    assert not info["metrics"]["collision"]["is_valid"]  # an imagined world cannot tell yet
    assert info["confidence"] == 0.5
    assert info["vehicle"] == dataclasses.asdict(VehicleConfig())
    assert info["dt_s"] == pytest.approx(DT_S)
    assert reward == pytest.approx(sum(info["rewards"].values()))
    low, high = RewardConfig().bounds
    assert low <= reward <= high


def test_the_model_is_told_the_mean_motion_of_each_step() -> None:
    scene, model = make_scene(24), FakeWorldModel()
    env = WorldDreamerDriveEnv(scene=scene, world_model=model)
    env.reset(seed=0)
    assert model.observed_twist is not None
    assert model.observed_twist[0, :, 0].numpy() == pytest.approx(scene.speed_mps[:4], abs=1e-5)
    before = env.ego
    _, _, _, _, info = env.step(np.array([0.1, 9.0], dtype=np.float32))
    speed, yaw_rate = model.twists[0][0].tolist()
    assert speed == pytest.approx(0.5 * (before.speed_mps + info["ego"]["speed_mps"]), abs=1e-5)
    assert yaw_rate == pytest.approx(info["ego"]["yaw_rate_radps"], abs=1e-5)
    assert yaw_rate > 0


def test_the_model_is_shown_the_map_at_the_cars_pose() -> None:
    scene, model = make_scene(24), FakeWorldModel()
    env = make_learned(scene=scene, world_model=model)
    for start_index in (3, 9):
        env.reset(seed=0, options={"start_index": start_index})
        assert model.places is not None
        wanted = [*scene.xy_m[start_index], scene.yaw_rad[start_index]]
        np.testing.assert_allclose(model.places.pose, [wanted])
        assert model.places.view()[0, 0].max() > 0


def test_a_scene_without_a_map_is_imagined_without_one_and_so_is_what_is_told_so() -> None:
    for scene, settings in (
        (dataclasses.replace(make_scene(24), drivable=None), {}),
        (make_scene(24), {"uses_map": False}),
    ):
        model = FakeWorldModel()
        make_learned(scene=scene, world_model=model, **settings).reset(seed=0)
        assert model.observed_twist is not None
        assert model.places is None


def test_log_actions_lead_along_the_log_while_it_lasts() -> None:
    env = make_learned(24, off_road_limit=1.0)
    _, info = env.reset(seed=0)
    scene = env.get_wrapper_attr("scene")
    assert info["log_index"] == 3
    num_followed = 0
    while info["is_log_valid"]:
        _, _, terminated, _, info = env.step(info["log_action"])
        num_followed += 1
        x, y = scene.xy_m[info["log_index"]]
        assert np.hypot(info["ego"]["x_m"] - x, info["ego"]["y_m"] - y) < 0.05
    assert num_followed == 20
    assert terminated
    assert info["end_reason"] == "goal"
    _, _, _, _, info = env.step(STRAIGHT_ON)
    assert not info["is_log_valid"]
    assert not info["metrics"]["log_deviation_m"]["is_valid"]
    assert info["log_action"].tolist() == [0.0, 0.0]


def test_off_road_and_collision_terminate_and_cost() -> None:
    env = make_learned(40)
    env.reset(seed=0)
    left = np.array([0.5, 8.0], dtype=np.float32)
    for _ in range(30):
        _, _, terminated, truncated, info = env.step(left)
        if terminated:
            break
    assert terminated
    assert not truncated
    assert info["end_reason"] == "off_road"
    assert info["metrics"]["off_road"]["value"] > 0.5
    assert info["rewards"]["off_road"] < -0.5


def test_drift_limit_truncates() -> None:
    env = make_learned(40, max_log_deviation_m=2.0)
    env.reset(seed=0)
    for _ in range(30):
        _, _, terminated, truncated, info = env.step(np.array([0.0, 0.0], dtype=np.float32))
        if truncated:
            break
    assert truncated
    assert not terminated
    assert info["end_reason"] == "log_deviation"
    assert info["metrics"]["log_deviation_m"]["value"] > 2.0


def test_time_limit_truncates() -> None:
    env = make_learned(24, max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(np.zeros(2, np.float32))[3] for _ in range(3)] == [False, False, True]


def test_route_ahead_is_in_the_ego_frame() -> None:
    env = make_learned(40, scene=make_scene(40, steering_rad=0.0))
    _, info = env.reset(seed=0)
    assert info["route_ahead_m"].shape == (20, 2)
    assert info["route_ahead_m"].dtype == np.float32
    assert info["route_ahead_m"] == pytest.approx(
        np.stack([np.arange(1, 21) * 2.0, np.zeros(20)], -1), abs=1e-3
    )
    _, _, _, _, info = env.step(np.array([0.3, 8.0], dtype=np.float32))
    assert (
        info["route_ahead_m"][:, 1] < 0
    ).all()  # the car points left of the route, so the route lies right


def test_start_index_moves_the_start_along_the_log() -> None:
    env = make_learned(24)
    observation, info = env.reset(seed=0, options={"start_index": 10})
    scene = env.get_wrapper_attr("scene")
    assert info["log_index"] == 10
    assert np.array_equal(observation, scene.frames[10])
    assert info["ego"]["x_m"] == pytest.approx(scene.xy_m[10, 0])
    for options in ({"start_index": 2}, {"start_index": 24}, {"start": 3}):
        with pytest.raises(InputError, match="start"):
            env.reset(options=options)


def test_order_of_calls_is_enforced() -> None:
    env = make_learned(render_mode="rgb_array").unwrapped
    for call in (lambda: env.step(STRAIGHT_ON), env.render):
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            call()
    env.reset(seed=0)
    env.close()
    env.close()
    with pytest.raises(gym.error.ClosedEnvironmentError, match="closed"):
        env.reset()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(STRAIGHT_ON)
    assert env.worlds._world_model is None


def test_a_model_that_no_longer_knows_ends_the_episode_after_some_steps() -> None:
    model = FakeWorldModel()
    env = make_learned(world_model=model, min_confidence=0.3, max_unsure_steps=3)
    env.reset(seed=0)
    for confidence in (0.5, 0.2, 0.2, 0.4, 0.2, 0.2):  # never three in a row
        model.confidence = confidence
        *_, truncated, info = env.step(STRAIGHT_ON)
        assert not truncated
        assert info["end_reason"] == ""
    *_, terminated, truncated, info = env.step(STRAIGHT_ON)
    assert (terminated, truncated, info["end_reason"]) == (False, True, "low_confidence")
    env = make_learned(world_model=model, min_confidence=None)
    env.reset(seed=0)
    assert not any(env.step(STRAIGHT_ON)[3] for _ in range(10))


def test_hazards_say_when_there_is_no_head() -> None:
    env = make_learned()
    for info in (env.reset(seed=0)[1], env.step(STRAIGHT_ON)[4]):
        assert info["hazards"] == {
            name: {"value": 0.0, "is_valid": False} for name in ("collision", "off_road")
        }
        assert not info["metrics"]["time_to_collision_s"]["is_valid"]


def test_rgb_array_is_the_observation_and_nobody_elses_memory() -> None:
    env = make_learned(render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    picture = env.render()
    assert np.array_equal(picture, observation)
    assert picture is not observation
    picture[:] = 0
    assert np.array_equal(env.render(), observation)


def test_human_mode_opens_a_window_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = make_learned(render_mode="human")
    env.reset(seed=0)
    env.step(STRAIGHT_ON)
    assert env.render() is None
    env.close()
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    env = make_learned(render_mode="human")
    with pytest.raises(InputError, match=r"no display.*rgb_array"):
        env.reset(seed=0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scene": make_scene(3)}, "has 3 frames, fewer than the context of 4"),
        ({"contxt_frames": 5}, "no setting 'contxt_frames'; did you mean context_frames"),
        ({"horizon": 5}, "max_episode_steps"),
        ({"context_frames": 2}, "need a context of 4 frames, got context_frames=2"),
        ({"world_model": FakeWorldModel(rate_hz=12.0)}, "12 frames per second"),
        ({"scene": make_scene(24, camera=front_camera(width_px=112))}, "224x128.*112x128.*set width_px=224"),
        ({"speed_limit_mps": 0.0}, "speed_limit_mps must be positive or None, got 0.0"),
        ({"min_confidence": 1.5}, "min_confidence is a probability in \\[0, 1\\] or None, got 1.5"),
        ({"max_unsure_steps": 0}, "max_unsure_steps must be positive, got 0"),
        ({"hazard_head": "no-such-head"}, "no weights named 'no-such-head'"),
        ({"render_mode": "ansi"}, "render_mode.*'ansi'"),
        ({"device": "graphics-card"}, "device 'graphics-card' cannot be used"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
    ],
)
def test_bad_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    arguments = {"scene": make_scene(24), "world_model": FakeWorldModel(), **kwargs}
    with pytest.raises(InputError, match=message):
        WorldDreamerDriveEnv(**arguments)


def test_unknown_scene_names_the_nearest() -> None:
    with pytest.raises(InputError, match="not-a-scene"):
        WorldDreamerDriveEnv(scene="not-a-scene", world_model=FakeWorldModel())


def test_settings_reach_the_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, object]]] = []

    class TwoScenes:
        def scene_names(self) -> list[str]:
            return ["first", "second"]

        def load(self, name: str, **size: object) -> Scene:
            asked.append((name, size))
            return make_scene(8)

    monkeypatch.setattr("drivesim.episode.embedded_dataset", TwoScenes)
    for scene in (None, "second"):
        WorldDreamerDriveEnv(scene=scene, world_model=FakeWorldModel())
    size = {"rate_hz": 6.0, "width_px": 224, "height_px": 128, "camera": "CAM_FRONT"}
    assert asked == [("first", size), ("second", size)]


def test_step_lasts_as_long_as_the_scenes_rate_says() -> None:
    env = make_learned().unwrapped
    assert isinstance(env, DriveEpisodeEnv)
    assert env.dt_s == pytest.approx(DT_S)
    assert env.metadata["render_fps"] == 6


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, SamplerConfig(num_decode_steps=3)),
        (
            {"sampler": SamplerSettings(order=UnmaskOrder.RANDOM)},
            SamplerConfig(num_decode_steps=3, order=UnmaskOrder.RANDOM),
        ),
        ({"sampler": SamplerConfig(temperature=0.5)}, SamplerConfig(temperature=0.5)),
    ],
)
def test_the_weights_own_the_sampler_unless_told_otherwise(
    settings: dict[str, Any], expected: SamplerConfig
) -> None:
    world_model = FakeWorldModel()
    env = make_learned(world_model=world_model, **settings)
    env.reset(seed=0)
    env.step(STRAIGHT_ON)
    assert world_model.samplers == [expected]


def test_the_time_limit_has_one_default() -> None:
    assert EpisodeConfig().horizon == gym.spec(LEARNED).max_episode_steps


def test_an_episode_goes_on_after_a_reset_that_cannot_read_a_picture() -> None:
    class TornFrames(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            if index == 9:
                raise InputError("picture 9.jpg cannot be read")
            return super().__getitem__(index)

    scene = make_scene(24)
    env = make_learned(scene=dataclasses.replace(scene, frames=TornFrames(scene.frames)))
    untouched = make_learned()
    for each in (env, untouched):
        each.reset(seed=1)
        each.step(STRAIGHT_ON)
    with pytest.raises(InputError, match=r"picture 9\.jpg"):
        env.reset(options={"start_index": 9})
    assert data_equivalence(env.step(STRAIGHT_ON), untouched.step(STRAIGHT_ON))
