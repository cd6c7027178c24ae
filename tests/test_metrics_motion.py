import numpy as np
import pytest
from painted_road import drive

from drivesim.metrics.motion import (
    MotionConfig,
    RoadMotion,
    horizontal_shift_px,
    shift_correlation,
    turning_px,
)
from drivesim.scene.types import front_camera

CAMERA = front_camera()


@pytest.mark.parametrize("yaw_rate_radps", [-0.8, -0.3, -0.1, 0.1, 0.3, 0.8])
@pytest.mark.parametrize("speed_mps", [4.0, 12.0])
def test_turning_has_the_sign_and_size_of_the_yaw_rate(speed_mps: float, yaw_rate_radps: float) -> None:
    frames = drive(speed_mps, yaw_rate_radps, num_frames=4)
    expected_px = CAMERA.fx_px * yaw_rate_radps / 6
    assert turning_px(frames, camera=CAMERA) == pytest.approx(expected_px, abs=0.25 * abs(expected_px) + 1)


def test_a_mirrored_picture_turns_the_other_way() -> None:
    frames = drive(8.0, 0.4, num_frames=3)
    turned = turning_px(frames, camera=CAMERA)
    assert turning_px(frames[:, :, ::-1], camera=CAMERA) == pytest.approx(-turned, abs=0.5)


def test_equal_frames_do_not_turn() -> None:
    frame = drive(0.0, 0.0, num_frames=1)[0]
    assert horizontal_shift_px(frame, frame, camera=CAMERA) == pytest.approx(0.0, abs=1e-6)


def test_a_blank_picture_gives_a_finite_answer() -> None:
    blank = np.full((128, 224, 3), 90, dtype=np.uint8)
    curve = shift_correlation(blank, blank, camera=CAMERA, config=MotionConfig())
    assert np.isfinite(curve).all()
    assert np.isfinite(RoadMotion(CAMERA, rate_hz=6.0).speed_mps(np.stack([blank, blank])))


@pytest.mark.parametrize("yaw_rate_radps", [0.0, 0.3])
@pytest.mark.parametrize("speed_mps", [0.0, 4.0, 8.0, 12.0, 18.0])
def test_road_motion_reads_the_speed(speed_mps: float, yaw_rate_radps: float) -> None:
    frames = drive(speed_mps, yaw_rate_radps, num_frames=2)
    assert RoadMotion(CAMERA, rate_hz=6.0).speed_mps(frames) == pytest.approx(speed_mps, abs=1.0)
