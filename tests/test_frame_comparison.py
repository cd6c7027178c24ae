import pytest
import torch
from painted_road import drive, view
from torch import Tensor

from drivesim.frame_comparison import (
    FrameComparison,
    differences,
    planes,
    rotation_about_z,
    sideways_differences,
)
from drivesim.scene.types import front_camera
from drivesim.tokenizer.vqgan import normalized

SPEEDS_MPS = [0.0, 3.0, 6.0, 9.0, 12.0, 15.0]
K = len(SPEEDS_MPS)


@pytest.fixture(scope="module")
def comparison() -> FrameComparison:
    return FrameComparison(front_camera(), dt_s=1 / 6, speeds_mps=SPEEDS_MPS)


def driven(speed_mps: float, yaw_rate_radps: float, seed: int = 0) -> list[Tensor]:
    """Return the earlier and the later frame as (1, 3, H, W)."""
    frames = normalized(torch.from_numpy(drive(speed_mps, yaw_rate_radps, seed=seed)))
    return [frames[:1], frames[1:]]


def seen_from(yaw_rad: float) -> Tensor:
    """Return (1, 3, H, W)."""
    return normalized(torch.from_numpy(view(0.0, 0.0, yaw_rad)[None]))


def test_the_ground_fits_best_at_the_speed_that_was_driven(comparison: FrameComparison) -> None:
    for index, (speed, yaw_rate) in enumerate([(3.0, 0.6), (6.0, -0.4), (9.0, 0.2), (12.0, 0.0)], start=1):
        previous, current = driven(speed, yaw_rate, seed=index)
        yaw_rate_B = torch.tensor([yaw_rate])
        turned = planes(comparison.turned_back(previous, yaw_rate_B))
        found = comparison.ground_differences(turned, planes(current), yaw_rate_B)
        assert found.shape == (1, 2 * (K + 1), 32, 56)
        for kind in range(2):
            near = found[0, kind * (K + 1) : kind * (K + 1) + K, 20:].mean(dim=(1, 2))
            assert int(near.argmin()) == index, (speed, yaw_rate, kind)
            assert near.min() < 0.7 < 1.2 < near.max()
        assert (found[:, :, : comparison.first_ground_cell] == 0).all()  # the sky has no speed


def test_turning_back_undoes_a_turn_on_the_spot(comparison: FrameComparison) -> None:
    yaw_rate = 0.9
    previous = seen_from(0.1)
    current = seen_from(0.1 + yaw_rate / 6)
    turned = comparison.turned_back(previous, torch.tensor([yaw_rate]))
    is_seen = turned[:, 3:] > 0.99
    above = torch.zeros_like(is_seen)
    above[:, :, :50] = True  # the far skyline; below it the camera moved, for it sits ahead of the axle
    gap = (turned[:, :3] - current).abs()[(is_seen & above).expand_as(current)]
    unturned = (previous - current).abs()[:, :, :50]
    assert gap.mean() < 0.15 * unturned.mean()
    assert 0.75 < float(is_seen.float().mean()) < 0.95
    left = turned[:, 3, :, :20].mean()
    assert left < 0.1 < 0.9 < turned[:, 3, :, -60:].mean()  # what a left turn brings into view was not seen


def test_sideways_differences_find_a_shift_and_ignore_what_was_not_seen() -> None:
    current = seen_from(0.1)
    previous = current.roll(6, dims=-1)  # everything stood 6 pixels, 3 half pixels, further right
    found = sideways_differences(planes(previous), planes(current), reach=4, step=1)
    assert found.shape == (1, 2 * (9 + 1), 32, 56)
    assert (found[0, :9, 2:12, 8:-8].mean(dim=(1, 2)).argmin()) == 4 + 3
    assert (found[0, 10:19, 2:12, 8:-8].mean(dim=(1, 2)).argmin()) == 4 + 3
    assert (found[0, 8, :, -1] == 1).all()  # 4 half pixels right of the last cell there is nothing


def test_differences_are_relative_and_say_how_much_there_is_to_see() -> None:
    current = torch.zeros(1, 1, 3, 4, 4)
    previous = torch.ones(1, 2, 3, 4, 4)
    previous[:, 0, :2] = 0.0
    found = differences(previous, current)
    fit, misfit, amount = found[0, 0], found[0, 1], found[0, 2]
    assert (fit < 0.1).all()
    assert torch.allclose(fit + misfit, torch.tensor(2.0))
    faint = differences(previous * torch.tensor([0.05, 0.05, 1.0])[:, None, None], current)
    assert (faint[0, 2] < amount).all()
    assert (faint[0, 1] < misfit).all()
    unseen = previous.clone()
    unseen[:, :, 2] = 0.0
    assert (differences(unseen, current)[0, :2] == 1).all()


def test_rotations_turn_left() -> None:
    turned = rotation_about_z(torch.tensor([torch.pi / 2]))[0] @ torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(turned, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)
