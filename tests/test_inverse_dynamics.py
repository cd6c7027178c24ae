from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from painted_road import drive

from drivesim.checkpoint import save_module
from drivesim.inverse_dynamics import (
    InverseDynamics,
    InverseDynamicsConfig,
    bin_loss,
    load_inverse_dynamics,
    moments,
)
from drivesim.scene.types import front_camera
from drivesim.tokenizer.vqgan import normalized
from drivesim.training.data import RecordedClips
from drivesim.training.frame_pairs import PairBatch, SpoilingConfig, blurred, draw_pairs, spoil
from drivesim.training.inverse_dynamics import (
    InverseDynamicsTrainingConfig,
    draw_told_errors,
    evaluate_pairs,
    make_task,
)
from drivesim.training.row_draws import RowDraws, rows_of

SMALL = InverseDynamicsConfig(turn_widths=[16, 16], motion_widths=[16, 16], appearance_channels=4)
UNSPOILED = SpoilingConfig(
    flip_share=0, blur_share=0, block_share=0, brightness=0, contrast=0, mismatch_share=0, ruined_share=0
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
        road=np.zeros((4, 5, 32, 56), np.int8),
        rate_hz=6.0,
        path=Path("fake"),
    )


@pytest.fixture
def pairs(clips: RecordedClips) -> PairBatch:
    return draw_pairs(clips, RowDraws(0, range(12)))


def vote(network: torch.nn.Module, start: int, biases: torch.Tensor) -> None:
    """Make a network vote for the same bins from ``start`` on, whatever it sees."""
    with torch.no_grad():
        network.trust.bias.fill_(-100.0)
        network.free[-1].bias[start : start + len(biases)] = biases


def test_the_default_networks_are_small_and_give_units() -> None:
    model = InverseDynamics()
    assert sum(p.numel() for p in model.parameters()) <= 1_000_000
    frames = torch.zeros(2, 3, 128, 224)
    assert model(frames, frames).shape == (2, 2)


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="reads frames of shape"):
        InverseDynamics(SMALL)(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="not divisible"):
        InverseDynamicsConfig(height_px=100)
    with pytest.raises(ValueError, match="num_rounds must be positive"):
        InverseDynamicsConfig(num_rounds=0)


def test_an_estimate_says_when_it_cannot_be_read(pairs: PairBatch) -> None:
    model = InverseDynamics(SMALL).eval()
    sure_of_12_mps, sure_of_no_error = 50.0 * torch.eye(25)[12], 50.0 * torch.eye(25)[12]
    vote(model.turn, 0, 50.0 * torch.eye(51)[25 + 6])
    vote(model.motion, 0, torch.cat([sure_of_12_mps, sure_of_no_error]))
    estimate = model.estimate(pairs.previous_BHWC, pairs.current_BHWC)
    assert estimate.is_readable_B.all()
    assert torch.allclose(estimate.twist_BA, torch.tensor([12.0, 0.3]), atol=1e-3)
    vote(model.motion, 0, torch.zeros(25))
    estimate = model.estimate(pairs.previous_BHWC, pairs.current_BHWC)
    assert not estimate.is_readable_B.any()
    assert estimate.std_BA.shape == estimate.twist_BA.shape == (12, 2)
    assert (estimate.std_BA[:, 0] > 6).all()  # no speed is likelier than another


def test_the_loss_is_least_for_the_votes_that_are_right() -> None:
    bins, target = torch.linspace(0, 24, 25), torch.tensor([7.25, 30.0])
    right = torch.full((2, 25), -20.0)
    right[0, 7], right[0, 8], right[1, 24] = (
        np.log(0.75),
        np.log(0.25),
        0.0,
    )  # what lies beyond goes to the end
    right.requires_grad_()
    bin_loss(right, target, bins).backward()
    assert right.grad.abs().max() < 1e-6
    mean, std = moments(right.detach(), bins)
    assert mean.tolist() == pytest.approx([7.25, 24.0], abs=1e-3)
    assert std.tolist() == pytest.approx([np.sqrt(0.75 * 0.25), 0.0], abs=1e-2)


def test_the_camera_of_the_frames_can_be_named(tmp_path: Path, pairs: PairBatch) -> None:
    torch.manual_seed(0)
    save_module(InverseDynamics(SMALL), tmp_path / "idm.safetensors", kind="inverse-dynamics", config=SMALL)
    same = load_inverse_dynamics(tmp_path / "idm.safetensors", camera=front_camera())
    default = load_inverse_dynamics(tmp_path / "idm.safetensors")
    higher = load_inverse_dynamics(tmp_path / "idm.safetensors", camera=front_camera(above_ground_m=3.0))
    estimates = [
        m.estimate(pairs.previous_BHWC, pairs.current_BHWC).twist_BA for m in (default, same, higher)
    ]
    assert torch.equal(estimates[0], estimates[1])
    assert not torch.allclose(estimates[0], estimates[2])


def test_the_second_reading_starts_from_the_first_or_near_the_truth() -> None:
    config = InverseDynamicsTrainingConfig(told_share=0.5, told_error_radps=0.1)
    errors = draw_told_errors(config, RowDraws(0, range(4000)))
    told = errors[errors.isfinite()]
    assert 0.45 < len(told) / 4000 < 0.55
    assert 0.04 < float(told.std()) < 0.08


def test_mixed_precision_leaves_the_geometry_exact(pairs: PairBatch) -> None:
    model = InverseDynamics(SMALL).eval()
    frames = [normalized(frames) for frames in (pairs.previous_BHWC, pairs.current_BHWC)]
    with torch.no_grad():
        exact = model(*frames)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(*frames)
    assert torch.allclose(exact, mixed, atol=0.02)


def test_pairs_are_neighbours_with_the_motion_into_the_later_frame(clips: RecordedClips) -> None:
    clips.twist[:, 1:, 0] += np.arange(4, dtype=np.float32)[None]
    drawn = draw_pairs(clips, RowDraws(1, range(8)))
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
    config = replace(UNSPOILED, flip_share=1.0)
    spoiled = spoil(pairs, config, RowDraws(0, range(12)))
    assert torch.allclose(spoiled.previous_BCHW, normalized(pairs.previous_BHWC).flip(-1))
    assert torch.equal(spoiled.twist_BA[:, 0], pairs.twist_BA[:, 0])
    assert torch.equal(spoiled.twist_BA[:, 1], -pairs.twist_BA[:, 1])


def test_spoiling_changes_pictures_not_motion_and_repeats_by_seed(pairs: PairBatch) -> None:
    config = SpoilingConfig(flip_share=0, blur_share=1.0, block_share=1.0)
    before = pairs.previous_BHWC.clone()
    first = spoil(pairs, config, RowDraws(3, range(12)))
    second = spoil(pairs, config, RowDraws(3, range(12)))
    assert torch.equal(first.previous_BCHW, second.previous_BCHW)
    assert torch.equal(first.twist_BA, pairs.twist_BA)
    assert first.previous_BCHW.abs().max() <= 1
    assert not torch.allclose(first.previous_BCHW, normalized(before))
    assert torch.equal(pairs.previous_BHWC, before)


def test_ruined_pairs_keep_no_detail(pairs: PairBatch) -> None:
    ruined = spoil(pairs, replace(UNSPOILED, ruined_share=1.0), RowDraws(0, range(12)))
    sharp = normalized(pairs.previous_BHWC)
    assert ruined.previous_BCHW.diff(dim=2).abs().mean() < 0.3 * sharp.diff(dim=2).abs().mean()
    assert torch.equal(ruined.twist_BA, pairs.twist_BA)


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


def test_an_untrained_model_searches(clips: RecordedClips) -> None:
    pairs = draw_pairs(clips, RowDraws(0, range(16)))
    metrics = evaluate_pairs(InverseDynamics(SMALL).eval(), pairs)
    assert metrics["speed_correlation"] > 0.9
    assert metrics["yaw_rate_correlation"] > 0.9


def test_training_lowers_the_loss(clips: RecordedClips) -> None:
    torch.manual_seed(0)
    config = InverseDynamicsTrainingConfig(model=SMALL, spoiling=UNSPOILED, num_validation_pairs=16)
    task = make_task(config, clips, clips)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    batches = task.batches(start_step=0, batch_size=8, seed=0, rank=0, world_size=1)
    losses = []
    for step in range(12):
        terms = task.losses(task.model, next(batches), RowDraws(0, rows_of(step, 8, rank=0, world_size=1)))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(float(terms["loss"].detach()))
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    after = task.evaluate(task.model).metrics
    assert after["turning_sign_accuracy"] > 0.9
    assert after["blurred_speed_rms_error_mps"] > 0
