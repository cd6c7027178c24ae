"""What the hazard head sees reaches metrics, reward, info and the end of an episode."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers import FakeWorldModel, make_scene

from drivesim.hazard import HazardHead, Hazards
from envs.world_dreamer_drive import WorldDreamerDriveEnv

STRAIGHT_ON = np.float32([0.0, 8.0])


@dataclass
class Seen:
    """What the fake head says of every state."""

    collision: float = 0.0
    off_road: float = 0.0
    contact: float = 0.0
    is_outside: float = 0.0


class FakeHead(HazardHead):
    """A hazard head that sees what it is told to."""

    shows = Seen()

    def assess(self, state: Any) -> Hazards:
        count = len(state.frame_BHWC)
        return Hazards(**{name: torch.full((count,), value) for name, value in vars(self.shows).items()})


@pytest.fixture
def head() -> FakeHead:
    head = FakeHead()
    head.shows = Seen(collision=0.1, off_road=0.2)
    return head


def make(head: FakeHead, **settings: Any) -> gym.Env:
    settings = {"scene": make_scene(24), "world_model": FakeWorldModel(), **settings}
    return gym.make("WorldDreamer-Drive-v0", hazard_head=head, **settings)


def test_probabilities_are_in_info_from_the_reset_on(head: FakeHead) -> None:
    env = make(head)
    for info in (env.reset(seed=0)[1], env.step(STRAIGHT_ON)[4]):
        assert info["hazards"]["collision"] == {"value": pytest.approx(0.1), "is_valid": True}
        assert info["hazards"]["off_road"] == {"value": pytest.approx(0.2), "is_valid": True}
        assert info["metrics"]["collision"] == {"value": 0.0, "is_valid": True}
        assert info["metrics"]["time_to_collision_s"] == {"value": 3.0, "is_valid": True}


def test_contact_ends_the_episode_and_costs(head: FakeHead) -> None:
    env = make(head)
    env.reset(seed=0)
    head.shows = Seen(collision=0.9, contact=0.9)
    _, reward, terminated, truncated, info = env.step(STRAIGHT_ON)
    assert (terminated, truncated, info["end_reason"]) == (True, False, "collision")
    assert info["rewards"]["collision"] == -2.0
    assert reward < -1.0
    assert info["metrics"]["time_to_collision_s"]["value"] == 0.0


def test_where_there_is_no_map_the_picture_tells_that_the_road_was_left(head: FakeHead) -> None:
    head.shows = Seen(is_outside=0.9)
    on_map = make(head)
    on_map.reset(seed=0)
    assert on_map.step(STRAIGHT_ON)[4]["end_reason"] == ""  # the map knows better
    blind = make(head, scene=replace(make_scene(24), drivable=None))
    blind.reset(seed=0)
    _, _, terminated, _, info = blind.step(STRAIGHT_ON)
    assert terminated
    assert info["end_reason"] == "off_road"
    head.shows = Seen()
    blind.reset(seed=0)
    assert blind.step(STRAIGHT_ON)[4]["metrics"]["off_road"] == {"value": 0.0, "is_valid": True}


def test_the_head_that_was_made_for_the_weights_comes_with_them() -> None:
    env = WorldDreamerDriveEnv(scene="scene-2001")
    assert env.reset(seed=0)[1]["hazards"]["collision"]["is_valid"]
    without = WorldDreamerDriveEnv(scene="scene-2001", hazard_head="")
    info = without.reset(seed=0)[1]
    assert not info["hazards"]["collision"]["is_valid"]
    assert not info["metrics"]["collision"]["is_valid"]
