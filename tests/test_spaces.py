"""Actions at the boundary: what is refused, and what is clipped."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import FakeWorldModel, make_scene

from drivesim.errors import InputError
from envs.world_dreamer_drive import WorldDreamerDriveEnv


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([np.nan, 5.0], "steering_rad = nan"),
        ([0.0, np.inf], "target_speed_mps = inf"),
        ([0.51, 5.0], r"steering_rad = 0.51 must be a number in \[-0.5, 0.5\]"),
        ([0.0, -1.0], r"target_speed_mps = -1 must be a number in \[0, 20\]"),
        ([0.0], r"shape \(2,\).*got shape \(1,\)"),
        ([[0.0, 1.0]], r"got shape \(1, 2\)"),
        ("left", "got 'left'"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(action: object, message: str) -> None:
    env = WorldDreamerDriveEnv(scene=make_scene(8), world_model=FakeWorldModel())
    env.reset(seed=0)
    before = env.ego
    with pytest.raises(InputError, match=message):
        env.step(action)
    assert env.ego == before


def test_actions_a_hair_out_of_range_are_clipped() -> None:
    env = WorldDreamerDriveEnv(scene=make_scene(8), world_model=FakeWorldModel())
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.array([0.5 + 5e-6, -5e-6]))
    assert info["ego"]["steering_rad"] == 0.5
