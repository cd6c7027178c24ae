from pathlib import Path

import numpy as np
import pytest
import torch
from painted_road import drive

from drivesim.inverse_dynamics import InverseDynamics, InverseDynamicsConfig, compared, twist_loss
from drivesim.tokenizer.vqgan import normalized
from drivesim.training.data import RecordedClips
from drivesim.training.frame_pairs import PairBatch, SpoilingConfig, blurred, draw_pairs, spoil
from drivesim.training.inverse_dynamics import (
    InverseDynamicsTrainingConfig,
    evaluate_pairs,
    make_task,
)

SMALL = InverseDynamicsConfig(widths=[16, 16], blocks=[1, 1], unshuffle=8, head_channels=8, head_width=32)
UNSPOILED = SpoilingConfig(
    flip_share=0, blur_share=0, block_share=0, brightness=0, contrast=0, mismatch_share=0
)


@pytest.fixture(scope="module")
def clips() -> RecordedClips:
    twists = [(4.0, -0.5), (6.0, 0.5), (12.0, -0.2), (15.0, 0.2)]
    frames = np.stack([drive(v, w, num_frames=5, seed=i) for i, (v, w) in enumerate(twists)])
    twist = np.repeat(np.array(twists, dtype=np.float32)[:, None], 5, axis=1)
    zeros = np.zeros((4, 5))
    return RecordedClips(
        frames=frames,
        twist=twist,
        xy_m=np.zeros((4, 5, 2)),
        yaw_rad=zeros,
        is_collision=zeros.astype(bool),
        is_off_road=zeros.astype(bool),
        rate_hz=6.0,
        path=Path("fake"),
    )


@pytest.fixture
def pairs(clips: RecordedClips) -> PairBatch:
    return draw_pairs(clips, np.random.default_rng(0), count=12)


def test_the_default_network_is_small_and_gives_units() -> None:
    model = InverseDynamics()
    assert sum(p.numel() for p in model.parameters()) <= 1_500_000
    frames = torch.zeros(2, 3, 128, 224)
    assert model(frames, frames).shape == (2, 2)
    twist = torch.tensor([[9.0, 0.3]])
    assert torch.allclose(model.in_units(model.in_scales(twist)), twist)


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="reads frames of shape"):
        InverseDynamics(SMALL)(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="not divisible"):
        InverseDynamicsConfig(height_px=100)


def test_an_estimate_says_when_it_cannot_be_read(pairs: PairBatch) -> None:
    model = InverseDynamics(SMALL).eval()
    with torch.no_grad():
        model.head[-1].weight.zero_()
        model.head[-1].bias.copy_(torch.tensor([0.0, 0.0, -6.0, -6.0]))
    assert model.estimate(pairs.previous_BHWC, pairs.current_BHWC).is_readable_B.all()
    with torch.no_grad():
        model.head[-1].bias.copy_(torch.tensor([0.0, 0.0, -6.0, 3.0]))
    estimate = model.estimate(pairs.previous_BHWC, pairs.current_BHWC)
    assert not estimate.is_readable_B.any()
    assert estimate.std_BA.shape == estimate.twist_BA.shape == (12, 2)


def test_the_likelihood_prefers_honest_variance() -> None:
    target, mean = torch.zeros(64, 2), torch.ones(64, 2)
    honest = torch.zeros(64, 2, requires_grad=True)
    twist_loss(mean, honest, target).backward()
    assert torch.allclose(honest.grad, torch.zeros_like(honest), atol=1e-6)
    too_sure = torch.full((64, 2), -2.0, requires_grad=True)
    twist_loss(mean, too_sure, target).backward()
    assert (too_sure.grad < 0).all()  # the variance wants to grow


def test_pairs_are_neighbours_with_the_motion_into_the_later_frame(clips: RecordedClips) -> None:
    clips.twist[:, 1:, 0] += np.arange(4, dtype=np.float32)[None]
    drawn = draw_pairs(clips, np.random.default_rng(1), count=8)
    clips.twist[:, 1:, 0] -= np.arange(4, dtype=np.float32)[None]
    for previous, current, twist in zip(
        drawn.previous_BHWC.numpy(), drawn.current_BHWC.numpy(), drawn.twist_BA.numpy(), strict=True
    ):
        [(clip, time)] = [
            (i, t) for i in range(4) for t in range(1, 5) if np.array_equal(clips.frames[i, t], current)
        ]
        assert np.array_equal(clips.frames[clip, time - 1], previous)
        assert twist[0] == clips.twist[clip, time, 0] + time - 1


def test_mirroring_negates_the_yaw_rate_only(pairs: PairBatch) -> None:
    config = SpoilingConfig(
        flip_share=1.0, blur_share=0, block_share=0, brightness=0, contrast=0, mismatch_share=0
    )
    spoiled = spoil(pairs, config, torch.Generator().manual_seed(0))
    assert torch.allclose(spoiled.previous_BCHW, normalized(pairs.previous_BHWC).flip(-1))
    assert torch.equal(spoiled.twist_BA[:, 0], pairs.twist_BA[:, 0])
    assert torch.equal(spoiled.twist_BA[:, 1], -pairs.twist_BA[:, 1])


def test_spoiling_changes_pictures_not_motion_and_repeats_by_seed(pairs: PairBatch) -> None:
    config = SpoilingConfig(flip_share=0, blur_share=1.0, block_share=1.0)
    before = pairs.previous_BHWC.clone()
    first = spoil(pairs, config, torch.Generator().manual_seed(3))
    second = spoil(pairs, config, torch.Generator().manual_seed(3))
    assert torch.equal(first.previous_BCHW, second.previous_BCHW)
    assert torch.equal(first.twist_BA, pairs.twist_BA)
    assert first.previous_BCHW.abs().max() <= 1
    assert not torch.allclose(first.previous_BCHW, normalized(before))
    assert torch.equal(pairs.previous_BHWC, before)


def test_blurring_keeps_the_mean_and_loses_detail(pairs: PairBatch) -> None:
    soft = blurred(pairs, factor=4).previous_BHWC.float()
    sharp = pairs.previous_BHWC.float()
    assert abs(float(soft.mean() - sharp.mean())) < 1
    assert soft.diff(dim=2).abs().mean() < sharp.diff(dim=2).abs().mean()


def test_batches_depend_on_seed_and_step_alone(clips: RecordedClips) -> None:
    task = make_task(InverseDynamicsTrainingConfig(model=SMALL, num_validation_pairs=4), clips, clips)
    long_run = task.batches(start_step=0, batch_size=4, seed=5, rank=0, world_size=1)
    [_, _, third] = [next(long_run) for _ in range(3)]
    resumed = next(task.batches(start_step=2, batch_size=4, seed=5, rank=0, world_size=1))
    assert torch.equal(third.previous_BHWC, resumed.previous_BHWC)
    assert torch.equal(third.twist_BA, resumed.twist_BA)
    assert task.num_frames(third) == 8


def test_reconstructions_are_mixed_into_training(clips: RecordedClips) -> None:
    config = InverseDynamicsTrainingConfig(
        model=SMALL,
        num_validation_pairs=4,
        num_reconstructed_pairs=4,
        spoiling=SpoilingConfig(reconstructed_share=1.0),
    )
    task = make_task(config, clips, clips, reconstruct_fn=torch.zeros_like)
    batch = next(task.batches(start_step=0, batch_size=4, seed=0, rank=0, world_size=1))
    assert int(batch.previous_BHWC.max()) == 0
    assert "reconstructed_speed_error_mps" in task.evaluate(task.model).metrics


def test_training_learns_the_motion(clips: RecordedClips) -> None:
    torch.manual_seed(0)
    config = InverseDynamicsTrainingConfig(model=SMALL, spoiling=UNSPOILED, num_validation_pairs=16)
    task = make_task(config, clips, clips)
    before = evaluate_pairs(task.model.inverse_dynamics, task.validation)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    batches = task.batches(start_step=0, batch_size=12, seed=0, rank=0, world_size=1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        losses = task.losses(task.model, next(batches), generator)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    after = task.evaluate(task.model).metrics
    assert after["speed_error_mps"] < 0.5 * before["speed_error_mps"]
    assert after["turning_sign_accuracy"] > 0.9
    assert after["yaw_rate_correlation"] > 0.8


def test_the_cost_volume_peaks_where_things_came_from() -> None:
    earlier = torch.nn.functional.normalize(torch.randn(1, 8, 10, 20), dim=1)
    later = earlier.roll((1, -2), (2, 3))  # everything moved one row down and two columns left
    costs = compared(earlier, later, reach_rows=2, reach_columns=3)
    assert costs.shape == (1, 5 * 7, 10, 20)
    came_from = (-1 + 2) * 7 + (2 + 3)
    inside = costs[0, :, 3:-3, 4:-4]
    assert (inside.argmax(0) == came_from).float().mean() > 0.95
    assert torch.allclose(inside[came_from], torch.ones(()))
    assert (costs[0, :, 0, :].abs().max(-1).values[:7] == 0).all()  # rows above the frame
