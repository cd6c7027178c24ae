"""Mask schedules and training masks."""

import itertools

import pytest
import torch

from drivesim.world_model.masking import MaskKind, cosine_rate, draw_mask, hidden_about, num_masked_after


@pytest.mark.parametrize("num_tokens", [1, 2, 7, 112])
@pytest.mark.parametrize("num_rounds", [1, 2, 4, 10])
def test_hidden_count_falls_every_round_and_ends_at_zero(num_tokens, num_rounds):
    num_rounds = min(num_rounds, num_tokens)
    counts = [num_tokens] + [num_masked_after(i, num_rounds, num_tokens) for i in range(num_rounds)]
    assert all(after < before for before, after in itertools.pairwise(counts))
    assert counts[-1] == 0


def test_cosine_hides_all_at_the_start_and_none_at_the_end():
    assert cosine_rate(0) == 1
    assert cosine_rate(1) == pytest.approx(0, abs=1e-12)


def test_tube_hides_the_same_tokens_in_every_frame():
    mask = draw_mask(MaskKind.TUBE, 8, 5, 112, torch.Generator().manual_seed(0))
    assert (mask == mask[:, :1]).all()
    assert mask.any(-1).all()


def test_tube_rate_has_the_cosine_mean():
    mask = draw_mask(MaskKind.TUBE, 4000, 1, 112, torch.Generator().manual_seed(0))
    assert mask.float().mean().item() == pytest.approx(2 / torch.pi, abs=0.01)


def test_next_frame_masks_hide_whole_frames_half_of_the_time():
    mask = draw_mask(MaskKind.NEXT_FRAME, 200, 10, 112, torch.Generator().manual_seed(0))
    assert mask.all(-1).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert mask.any(-1).all()


def test_per_frame_masks_differ_from_frame_to_frame():
    mask = draw_mask(MaskKind.PER_FRAME, 50, 6, 112, torch.Generator().manual_seed(0))
    assert (mask == mask[:, :1]).all(-1)[:, 1:].float().mean().item() < 0.02  # but for both wholly hidden
    assert mask.float().mean().item() == pytest.approx(2 / torch.pi, abs=0.05)


def test_mixed_masks_hide_most_frames_wholly_and_the_others_alike_or_not():
    mask = draw_mask(MaskKind.MIXED, 400, 10, 112, torch.Generator().manual_seed(0))
    is_whole = mask.all(-1)
    assert is_whole.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert mask.any(-1).all()
    clips = [frames[~whole] for frames, whole in zip(mask, is_whole, strict=True) if (~whole).sum() >= 2]
    is_tube = [bool((frames == frames[:1]).all()) for frames in clips]
    assert sum(is_tube) / len(is_tube) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("kind", list(MaskKind))
def test_every_kind_has_the_shape_and_hides_something_in_every_frame(kind):
    mask = draw_mask(kind, 3, 4, 28, torch.Generator().manual_seed(0))
    assert (mask.shape, mask.dtype) == ((3, 4, 28), torch.bool)
    assert mask.any(-1).all()


@pytest.mark.parametrize("kind", list(MaskKind))
def test_masks_follow_the_seed(kind):
    draw = lambda seed: draw_mask(kind, 2, 3, 28, torch.Generator().manual_seed(seed))  # noqa: E731
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


BOX = torch.tensor([[0.25, 0.25, 0.5, 0.5]])  # of 8 x 8 tokens: rows and columns 2 and 3


def test_what_lies_about_a_box_is_hidden_and_nothing_else():
    masks = hidden_about(BOX.expand(400, 4), (8, 8), torch.Generator().manual_seed(0)).unflatten(1, (8, 8))
    assert not masks[:, 6:].any()
    assert not masks[:, :, 6:].any()
    assert masks.any(0)[:6, :6].all()
    is_whole = masks[:, 2:4, 2:4].flatten(1).all(1)
    assert 0.5 < is_whole.float().mean() < 0.85  # half of the rows, and a few of the others
    assert masks[is_whole].flatten(1).sum(1).min() == 4  # without a margin


def test_nothing_is_hidden_about_nothing():
    assert not hidden_about(torch.full((3, 4), torch.nan), (8, 8), None).any()


def test_a_box_beyond_the_frame_hides_what_is_in_the_frame():
    mask = hidden_about(torch.tensor([[-0.5, -0.5, 0.1, 0.1]]).expand(50, 4), (8, 8), None).unflatten(
        1, (8, 8)
    )
    assert mask.any(0)[0, 0]
    assert not mask[:, 3:].any()
