"""Drawn regions in the shades of what surrounds them, and two drawings made one."""

from __future__ import annotations

import numpy as np
import pytest

from drivesim.seamless import MAX_SHIFT, joined, reconciled

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


# ------------------------------------------------------------------------------------------------ two drawings

RED, SKY, MAGENTA = (225, 30, 40), (130, 150, 185), (215, 35, 120)


def plain(*colors):
    """Return a clip of one frame per colour."""
    return np.stack([np.full((H, W, 3), color, dtype=np.uint8) for color in colors])


def test_of_two_drawings_that_agree_nothing_is_changed_and_inputs_are_not_written(frames):
    first, second, mean = frames.copy(), frames.copy(), 255 - frames
    assert np.array_equal(reconciled(first, second, mean), frames)
    assert np.array_equal(first, frames)
    assert np.array_equal(mean, 255 - frames)


def test_a_drawing_that_the_mean_shows_is_shown(frames):
    other = 255 - frames
    assert np.array_equal(reconciled(frames, other, frames), frames)
    assert np.array_equal(reconciled(frames, other, other), other)


def test_colours_lie_between_those_of_the_two_drawings():
    first, second, mean = plain(RED, RED, SKY), plain(SKY, SKY, RED), plain(MAGENTA, SKY, MAGENTA)
    result = reconciled(first, second, mean)
    assert np.array_equal(result[1], second[1])
    assert np.array_equal(result[0], result[2])  # whichever comes first
    share = (np.array(RED) - result[0]) / np.subtract(RED, SKY)
    assert 0 <= share.min() <= share.max() < 0.5  # rather red, since magenta is nearer to it
    assert np.ptp(share) < 0.02  # on the line between the two


def test_what_the_mean_is_a_little_nearer_to_is_shown_clearly():
    first, second = plain((100, 100, 100)), plain((200, 200, 200))
    shown = [
        int(reconciled(first, second, plain([level] * 3))[0, 0, 0, 0]) for level in (110, 140, 150, 160, 190)
    ]
    assert shown == [100, 130, 150, 170, 200]


def test_each_place_and_each_frame_has_a_choice_of_its_own():
    first, second = plain(RED, RED), plain(SKY, SKY)
    mean = first.copy()
    mean[0, :, W // 2 :] = SKY
    result = reconciled(first, second, mean)
    assert np.array_equal(result[1], first[1])
    assert np.array_equal(result[0, :, :8], first[0, :, :8])
    assert np.array_equal(result[0, :, -8:], second[0, :, -8:])


def test_neighbours_decide_together():
    first, second = plain((0, 0, 0)), plain((255, 255, 255))
    mean = second.copy()
    mean[0, 10:12, 14:16] = 0
    assert np.array_equal(reconciled(first, second, mean), second)  # a speck is no other thing


def test_places_where_the_two_differ_more_decide():
    first, second, mean = plain((100, 100, 100)), plain((101, 101, 101)), plain((100, 100, 100))
    second[0, 10:14, 14:18] = mean[0, 10:14, 14:18] = 200
    assert (reconciled(first, second, mean)[0, 10:14, 14:18] == 200).all()
