"""Rigid maps and quaternions: round trips, conventions, and refusals."""

import numpy as np
import pytest

from drivesim.scene.geometry import (
    global_from_ego,
    quaternion_from_rotation,
    quaternion_from_yaw,
    rotation_from_quaternion,
    spaced,
    transform_points,
    wrap_angle,
    yaw_from_quaternion,
)


def test_angles_wrap_to_half_open_interval():
    wrapped = wrap_angle([np.pi, -np.pi, 3 * np.pi, 0.5, 7.0])
    np.testing.assert_allclose(wrapped, [-np.pi, -np.pi, -np.pi, 0.5, 7.0 - 2 * np.pi])


def test_ego_forward_is_global_heading():
    point = transform_points(global_from_ego([10.0, 5.0], np.pi / 2), [[2.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(point, [[10.0, 7.0], [9.0, 5.0]], atol=1e-12)


def test_inverse_map_brings_points_back(rng):
    matrix = global_from_ego(rng.normal(size=2), 0.7)
    points = rng.normal(size=(5, 2))
    np.testing.assert_allclose(
        transform_points(np.linalg.inv(matrix), transform_points(matrix, points)), points
    )


def test_quaternion_order_is_w_first():
    np.testing.assert_allclose(quaternion_from_yaw(np.pi), [0, 0, 0, 1], atol=1e-12)
    assert yaw_from_quaternion(quaternion_from_yaw(-1.2)) == pytest.approx(-1.2)


def test_rotation_round_trip(rng):
    for _ in range(20):
        quaternion = rng.normal(size=4)
        rotation = rotation_from_quaternion(quaternion)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        again = rotation_from_quaternion(quaternion_from_rotation(rotation))
        np.testing.assert_allclose(again, rotation, atol=1e-9)


@pytest.mark.parametrize("bad", [[0, 0, 0, 0], [1, 0, 0], [np.nan, 0, 0, 1]])
def test_impossible_quaternions_are_refused(bad):
    with pytest.raises(ValueError, match="quaternion"):
        rotation_from_quaternion(bad)


def test_spaced_measures_from_the_point_kept_before() -> None:
    points = np.array([[0.0, 0.0], [0.4, 0.0], [0.8, 0.0], [1.2, 0.0], [1.2, 0.0], [3.0, 0.0]])
    assert spaced(points, least_m=0.7)[:, 0].tolist() == [0.0, 0.8, 3.0]
    assert spaced(points[:0], least_m=0.7).shape == (0, 2)
