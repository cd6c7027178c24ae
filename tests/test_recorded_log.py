"""The recorded drive as actions: smooth speeds that repeat the track, within the car's limits."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import make_scene

from drivesim.dynamics import VehicleConfig
from envs.recorded_log import RecordedLog, frame_speeds


def test_frame_speeds_repeat_the_means_without_zigzag() -> None:
    speeds = 8.0 + np.sin(0.2 * np.arange(60))
    found = frame_speeds(0.5 * (speeds[1:] + speeds[:-1]))
    assert found == pytest.approx(speeds, abs=0.02)
    noisy = frame_speeds(0.5 * (speeds[1:] + speeds[:-1]) + np.random.default_rng(0).normal(0, 0.02, 59))
    assert np.abs(noisy - speeds).max() < 0.2


def test_recorded_log_is_within_the_cars_limits() -> None:
    scene = make_scene(12)
    scene.xy_m = scene.xy_m * 4.0  # four times as fast as the car can go
    log = RecordedLog(scene, VehicleConfig())
    assert log.speeds_mps.max() <= VehicleConfig().max_speed_mps
    assert not log.has_action(11)
    assert log.xy_m(12) is None
