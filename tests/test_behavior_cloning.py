"""The camera driver: what it sees, what it learns from, its training command and the policy that drives with it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers import FakeWorldModel, make_scene

import drivesim  # noqa: F401  (registers the environments)
from drivesim import cli
from drivesim.behavior_cloning import (
    KIND,
    CameraDriver,
    CameraDriverConfig,
    as_input,
    load_camera_driver,
    state_of,
    view_of,
)
from drivesim.checkpoint import read_checkpoint, save_module, shipped_weights
from drivesim.dynamics import control_from_action, step
from drivesim.errors import InputError
from drivesim.reference.behavior import record
from drivesim.reference.seeds import FIRST_VALIDATION_SEED
from drivesim.reference.simulator import ReferenceWorld, WorldSpec, draw_spec
from drivesim.rollout import rollout
from drivesim.scene.route import Route
from drivesim.scene.types import Command
from drivesim.training.behavior_cloning import (
    BehaviorCloningTask,
    BehaviorCloningTrainingConfig,
    lesson_batch,
    save_camera_driver,
    spoiled,
)
from drivesim.training.lessons import (
    Lessons,
    LessonsConfig,
    StudentDriver,
    drive_lesson,
    open_or_record,
    record_lessons,
    teacher_of,
)
from drivesim.training.row_draws import RowDraws
from policies.behavior_cloning import BehaviorCloningPolicy

SMALL = CameraDriverConfig(width_px=56, height_px=48, first_row=16, channels=4, hidden=8)


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Lessons:
    config = LessonsConfig(frames_per_lesson=16, num_workers=1)
    return record_lessons(
        tmp_path_factory.mktemp("lessons") / "train", config, SMALL, num_lessons=3, first_seed=10
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "driver.safetensors"
    save_camera_driver(CameraDriver(SMALL), path)
    return path


def test_the_sky_is_not_looked_at() -> None:
    frame = np.zeros((128, 224, 3), np.uint8)
    frame[:40] = 255
    view = view_of(frame, SMALL)
    assert view.shape == (32, 56, 3)
    assert view.max() == 0
    assert as_input(torch.from_numpy(view)[None]).shape == (1, 3, 32, 56)


def test_speed_and_command_become_numbers() -> None:
    state = state_of(np.array([10.0, 20.0]), [Command.FOLLOW, Command.RIGHT], SMALL)
    assert state.tolist() == [[0.5, 1, 0, 0], [1.0, 0, 0, 1]]


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="first_row"):
        CameraDriverConfig(first_row=64)
    with pytest.raises(ValueError, match="hidden"):
        CameraDriverConfig(hidden=0)
    with pytest.raises(ValueError, match="steering_weight"):
        BehaviorCloningTrainingConfig(steering_weight=0)
    with pytest.raises(ValueError, match="890000"):
        LessonsConfig(first_seed=FIRST_VALIDATION_SEED - 5)
    with pytest.raises(ValueError, match="num_workers"):
        LessonsConfig(num_lessons=0)


def test_eight_bits_keep_what_the_driver_does(weights: Path) -> None:
    torch.manual_seed(0)
    driver, loaded = CameraDriver(SMALL).eval(), load_camera_driver(weights)
    frame = np.random.default_rng(0).integers(0, 255, (128, 224, 3), dtype=np.uint8)
    there = driver.drive(frame, speed_mps=8.0, command=Command.LEFT)
    again = loaded.drive(frame, speed_mps=8.0, command=Command.LEFT)
    assert again == pytest.approx(there, abs=0.05)
    assert abs(again[0]) <= 0.5
    assert 0 <= again[1] <= 20


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights named 'nobody'"):
        load_camera_driver("nobody")
    save_module(torch.nn.Linear(2, 2), tmp_path / "x.safetensors", kind="tokenizer", config={})
    with pytest.raises(InputError, match=KIND):
        BehaviorCloningPolicy(weights=str(tmp_path / "x.safetensors"))


def test_the_teacher_keeps_to_the_middle_of_his_lane() -> None:
    world = ReferenceWorld(WorldSpec(family="winding", seed=3))
    teacher, route = teacher_of(LessonsConfig()), Route(world.route_xy_m)
    lateral_m = []
    for _ in range(40):
        control = control_from_action(*teacher.act(world), world.ego, world.vehicle, 1 / 6)
        world.advance(step(world.ego, control, world.vehicle, 1 / 6))
        ego = world.ego
        lateral_m.append(route.project((ego.x_m, ego.y_m), ego.yaw_rad).lateral_m)
    assert max(np.abs(lateral_m[10:])) < 0.6
    assert world.ego.speed_mps < 10.5


def test_a_lesson_answers_who_drives_badly_with_the_way_back() -> None:
    config = LessonsConfig(frames_per_lesson=40)
    answers, errors = [], []
    for seed in range(20, 23):
        lesson = drive_lesson(seed, config, SMALL)
        assert lesson["pictures"].shape == (40, 32, 56, 3)
        assert set(np.unique(lesson["command"])) <= {0, 1, 2}
        is_answered = lesson["is_answered"]
        world = ReferenceWorld(draw_spec(seed))
        assert world.vehicle.max_steering_rad >= np.abs(lesson["answer"][:, 0]).max()
        assert lesson["answer"][:, 1].max() <= config.cruise_mps + 1e-5
        answers.append(lesson["answer"][is_answered, 0])
        errors.append(lesson["speed_mps"][is_answered])
    assert np.concatenate(answers).std() > 0.01
    assert np.concatenate(errors).std() > 0.5


def test_the_same_lesson_is_the_same_again() -> None:
    config = LessonsConfig(frames_per_lesson=6)
    first, second = (drive_lesson(5, config, SMALL) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_set_is_driven_once_and_fits_its_settings(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"frames_per_lesson": 4, "num_workers": 1, "path": str(tmp_path)}
    config = LessonsConfig(num_lessons=2, num_validation_lessons=1, **settings)
    counts: list[int] = []
    train = open_or_record(config, SMALL, "train", on_progress=counts.append)
    assert counts == [1, 2]
    assert train.pictures.shape == (2, 4, 32, 56, 3)
    assert len(open_or_record(config, SMALL, "train", on_progress=counts.append)) == len(train)
    assert counts == [1, 2]
    assert open_or_record(config, SMALL, "validation").pictures.shape[0] == 1
    with pytest.raises(InputError, match="name another lessons path"):
        open_or_record(LessonsConfig(num_lessons=3, **settings), SMALL, "train")
    (tmp_path / "train" / "lessons.npz").unlink()
    with pytest.raises(InputError, match="holds no lessons"):
        Lessons.open(tmp_path / "train")


def test_batches_depend_on_their_number_alone(lessons: Lessons) -> None:
    task = BehaviorCloningTask(BehaviorCloningTrainingConfig(model=SMALL), lessons, lessons)
    settings = {"batch_size": 6, "seed": 3, "rank": 0, "world_size": 1}
    late = next(task.batches(start_step=4, **settings))
    fifth = list(islice(task.batches(start_step=0, **settings), 5))[4]
    assert torch.equal(late.pictures_BHWC, fifth.pictures_BHWC)
    assert torch.equal(late.answer_BA, fifth.answer_BA)
    assert task.num_frames(late) == 6
    assert late.to("cpu").state_BV.shape == (6, 4)


def test_the_loss_falls(lessons: Lessons) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    task = BehaviorCloningTask(BehaviorCloningTrainingConfig(model=SMALL), lessons, lessons)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    batch = lesson_batch(lessons, np.arange(16), SMALL)
    losses = []
    for _ in range(25):
        terms = task.losses(task.model, batch, RowDraws(0, range(16)))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(float(terms["loss"].detach()))
    assert losses[-1] < 0.6 * losses[0]
    with torch.no_grad():
        metrics = task.evaluate(task.model.eval()).metrics
    assert set(metrics) == {"steering_error_rad", "speed_error_mps", "steering_explained"}


def test_spoiled_pictures_stay_pictures_and_differ() -> None:
    config = BehaviorCloningTrainingConfig(model=SMALL)
    picture = torch.zeros(4, 3, 32, 56)
    found = spoiled(picture, config, RowDraws(0, range(4)))
    assert found.shape == picture.shape
    assert float(found.abs().max()) <= 1
    assert len({round(float(row.mean()), 3) for row in found}) == 4
    still = BehaviorCloningTrainingConfig(model=SMALL, brightness=0, contrast=0, noise=0, blurred_share=0)
    assert torch.equal(spoiled(picture, still, RowDraws(0, range(4))), picture)


def test_a_student_drives_lessons_of_his_own(weights: Path) -> None:
    world = ReferenceWorld(draw_spec(5))
    driver = StudentDriver(load_camera_driver(weights), Route(world.route_xy_m), np.random.default_rng(0))
    steering_rad, speed_mps = driver.act(world)
    assert abs(steering_rad) <= 0.5
    assert 0 <= speed_mps <= 20
    plain = [drive_lesson(seed, LessonsConfig(frames_per_lesson=3), SMALL) for seed in range(3)]
    with_student = LessonsConfig(frames_per_lesson=3, student=str(weights))
    driven = [drive_lesson(seed, with_student, SMALL) for seed in range(3)]
    assert any(not np.array_equal(a["pictures"], b["pictures"]) for a, b in zip(plain, driven, strict=True))


def test_the_command_trains_and_writes_a_driver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [
        *("training.num_train_steps=2", "training.batch_size=2", "training.accelerator=cpu"),
        f"behavior_cloning.lessons.path={tmp_path / 'lessons'}",
        *(f"behavior_cloning.lessons.{name}" for name in ("num_lessons=1", "num_validation_lessons=1")),
        *(f"behavior_cloning.lessons.{name}" for name in ("frames_per_lesson=4", "num_workers=1")),
        *(f"behavior_cloning.model.{name}" for name in ("channels=4", "hidden=8", "width_px=56")),
    ]
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "policy", "--out", str(tmp_path / "run"), *parts])
    assert caught.value.code == 0, capsys.readouterr().err
    checkpoint = read_checkpoint(tmp_path / "run" / "policy.safetensors", kind=KIND)
    assert checkpoint.facts["task"] == "policy"
    assert checkpoint.facts["data"]["num_lessons"] == 1
    assert "path" not in checkpoint.facts["data"]
    assert load_camera_driver(checkpoint.path).config.hidden == 8


def test_the_policy_stays_within_car_and_comfort(weights: Path) -> None:
    policy = BehaviorCloningPolicy(weights=str(weights))
    assert BehaviorCloningPolicy(weights=str(weights))._driver is policy._driver
    env = gym.make("WorldDreamer-Drive-v0", scene=make_scene(12), world_model=FakeWorldModel())
    observation, info = env.reset(seed=0)
    for command in ("follow", "left", "right"):
        for speed_mps in (0.0, 8.0, 20.0):
            info["command"] = command
            info["ego"]["speed_mps"] = speed_mps
            action = policy.select_action(observation, info)
            assert env.action_space.contains(action)
            assert -6.01 / 6 <= action[1] - speed_mps <= 1.51 / 6
    info["vehicle"]["max_steering_rad"] = 1e-6
    assert abs(policy.select_action(observation, info)[0]) <= 2e-6


@pytest.mark.skipif("driver-tiny" not in shipped_weights(), reason="the weights driver-tiny are not there")
def test_the_shipped_driver_keeps_to_an_unseen_road() -> None:
    seed = FIRST_VALIDATION_SEED + 101
    scene = record(draw_spec(seed), driver="good", num_frames=5, driver_seed=seed).scene
    env = gym.make("Reference-Drive-v0", scene=scene)
    driven = rollout(env, BehaviorCloningPolicy(), seed=0, num_steps=40)
    assert driven.end_reason == ""
    assert driven.summary()["progress_m"] > 25
    assert max(record.metrics["off_road"]["value"] for record in driven.steps) == 0
