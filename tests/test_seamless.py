"""Drawn regions in the shades of what surrounds them."""

from __future__ import annotations

import numpy as np
import pytest

from drivesim.seamless import MAX_SHIFT, joined

H, W = 24, 32


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(60, 190, (3, H, W, 3), dtype=np.uint8)


def hole(frames=3):
    mask = np.zeros((frames, H, W), dtype=bool)
    mask[:, 5:17, 8:25] = True
    return mask


def test_what_is_outside_stays_and_inputs_are_not_written(frames):
    drawn, mask = 255 - frames, hole()
    before = frames.copy(), drawn.copy()
    result = joined(frames, drawn, mask)
    assert (result.shape, result.dtype) == (frames.shape, np.uint8)
    assert np.array_equal(result[~mask], frames[~mask])
    assert np.array_equal(frames, before[0])
    assert np.array_equal(drawn, before[1])


@pytest.mark.parametrize("shift", [-30, -1, 0, 20])
def test_another_shade_of_the_whole_is_taken_back(frames, shift):
    drawn = (frames.astype(int) + np.array([shift, 0, -shift])).astype(np.uint8)
    assert np.array_equal(joined(frames, drawn, hole()), frames)


def test_a_shade_that_changes_over_the_frame_is_taken_back(frames):
    slope = np.linspace(-20, 20, W)[None, None, :, None] + np.linspace(0, 10, H)[None, :, None, None]
    drawn = np.round(frames + slope).astype(np.uint8)
    assert np.abs(joined(frames, drawn, hole()).astype(int) - frames).max() <= 1


def test_a_membrane_is_the_mean_of_its_neighbours():
    frames, mask = np.full((1, H, W, 3), 100, np.uint8), hole(1)
    drawn = np.full_like(frames, 100)
    drawn[:, :, : W // 2] = 60  # the left half is too dark, by less than what is another thing
    level = joined(frames, drawn, mask).astype(float)[0, ..., 0] - drawn[0, ..., 0]
    inner = np.zeros((H, W), dtype=bool)
    inner[6:16, 9:24] = True
    neighbours = sum(np.roll(level, step, axis) for axis in (0, 1) for step in (1, -1)) / 4
    assert np.abs(level - neighbours)[inner].max() <= 1
    assert (level[10, 9], level[10, 23]) == (pytest.approx(40, abs=4), pytest.approx(0, abs=4))


def test_things_that_end_at_the_border_do_not_shine_across(frames):
    drawn = frames.copy()
    frames = frames.copy()
    drawn[:], frames[:] = 0, 250
    assert (joined(frames, drawn, hole())[hole()] == MAX_SHIFT).all()


def test_each_frame_has_its_own_mask(frames):
    mask = hole()
    mask[1] = np.roll(mask[1], 6, axis=1)
    mask[2] = False
    drawn = (frames + 10).astype(np.uint8)
    result = joined(frames, drawn, mask)
    alone = [joined(frames[[t]], drawn[[t]], mask[[t]])[0] for t in range(3)]
    assert np.array_equal(result, np.stack(alone))
    assert np.array_equal(result[2], frames[2])


def test_masks_at_the_edge_and_over_all(frames):
    mask = np.ones((3, H, W), dtype=bool)
    mask[0, :, W // 2 :] = False
    mask[1] = False
    mask[1, [0, -1, 5], [0, -1, 5]] = True
    drawn = (frames + 10).astype(np.uint8)
    result = joined(frames, drawn, mask)
    assert np.array_equal(result[:2], frames[:2])
    assert np.array_equal(result[2], drawn[2])  # nothing is known of its shade
