"""The look of a frame's tokens: what counts, what does not, and which way the gradient points."""

import pytest
import torch

from drivesim.training.picture_loss import edge_distance
from drivesim.training.token_look import CodeLooks, token_look

GRID, STRIDE, NUM_CODES = (6, 4), 16, 4
GREYS = torch.tensor([-0.9, -0.3, 0.3, 0.9])  # what each code shows


def frames_of(token_ids: torch.Tensor) -> torch.Tensor:
    """Return frames (B, 3, H, W) of which every token is one flat grey."""
    grey = GREYS[token_ids].view(-1, 1, *GRID)
    return grey.repeat_interleave(STRIDE, 2).repeat_interleave(STRIDE, 3).expand(-1, 3, -1, -1)


@pytest.fixture
def looks() -> CodeLooks:
    """Return looks of codes that were seen in a few frames."""
    torch.manual_seed(0)
    token_ids = torch.randint(NUM_CODES, (40, GRID[0] * GRID[1]))
    looks = CodeLooks(NUM_CODES)
    for part in token_ids.split(10):
        looks.see(part, token_look(frames_of(part), STRIDE))
    return looks


def sure_of(token_ids: torch.Tensor) -> torch.Tensor:
    return 50.0 * torch.nn.functional.one_hot(token_ids, NUM_CODES).float()


def test_look_of_tokens_holds_colours_squares_and_edges():
    frames = torch.full((1, 3, 32, 32), 0.5)
    frames[:, 0, :, 16:] = -0.5  # red falls by 1 at the border between two tokens
    look = token_look(frames, 16)
    assert look.shape == (1, 4, 7)
    torch.testing.assert_close(look[0, 1, :3], torch.tensor([-0.5, 0.5, 0.5]))
    torch.testing.assert_close(look[0, :, 3:6], torch.full((4, 3), 0.25))
    torch.testing.assert_close(look[0, :, 6], torch.tensor([1 / 48, 0.0, 1 / 48, 0.0]))


def test_what_is_drawn_as_recorded_is_not_far_and_a_darker_frame_is(looks):
    token_ids = torch.randint(NUM_CODES, (8, GRID[0] * GRID[1]))
    assert looks.distance(sure_of(token_ids), token_ids, GRID) < 1e-6
    assert looks.distance(sure_of((token_ids - 1).clamp_min(0)), token_ids, GRID) > 0.1


def test_where_in_a_band_a_token_stands_is_not_judged_but_in_which_band(looks):
    token_ids = torch.arange(GRID[0] * GRID[1]).view(1, -1) * NUM_CODES // (GRID[0] * GRID[1])
    rows = token_ids.view(1, *GRID)
    within, across = rows.flip(2).flatten(1), rows.flip(1).flatten(1)
    assert looks.distance(sure_of(within), token_ids, GRID) < 1e-6
    assert looks.distance(sure_of(across), token_ids, GRID) > 0.5


def test_fog_is_far_from_a_picture_of_the_same_mean(looks):
    """The squares tell them apart: half of the tokens black and half white is no grey."""
    size = GRID[0] * GRID[1]
    checked = torch.tensor([0, 3]).repeat(size // 2).view(1, -1)
    grey = torch.tensor([1, 2]).repeat(size // 2).view(1, -1)
    assert looks.distance(sure_of(grey), checked, GRID) > 0.5
    unsure = torch.full((1, size, NUM_CODES), -50.0)
    unsure[..., [0, 3]] = 0.0  # either, by chance: as good as the picture itself
    assert looks.distance(unsure, checked, GRID) < 1e-6


def test_the_gradient_asks_for_lighter_tokens_where_the_frame_is_too_dark(looks):
    size = GRID[0] * GRID[1]
    logits = torch.zeros(1, size, NUM_CODES, requires_grad=True)
    looks.distance(logits, torch.full((1, size), 3), GRID).backward()
    assert (logits.grad[..., 3] < 0).all()
    assert (logits.grad[..., 0] > logits.grad[..., 3]).all()


def test_codes_never_seen_look_like_the_mean():
    looks = CodeLooks(NUM_CODES)
    token_ids = torch.tensor([[0] * 12 + [3] * 12])
    looks.see(token_ids, token_look(frames_of(token_ids), STRIDE))
    assert looks.distance(sure_of(torch.full((1, 24), 2)), torch.full((1, 24), 1), GRID) < 1e-6
    middle = torch.tensor([[0, 3] * 12])
    assert looks.distance(sure_of(torch.full((1, 24), 2)), middle, GRID) < 1e-2
    assert looks.distance(sure_of(torch.full((1, 24), 3)), middle, GRID) > 0.1


def test_what_codes_do_not_tell_is_not_asked_for():
    """A dark drive whose codes usually show a lighter picture must not pull towards other codes."""
    torch.manual_seed(0)
    looks, token_ids = CodeLooks(NUM_CODES), torch.randint(NUM_CODES, (20, GRID[0] * GRID[1]))
    looks.see(token_ids, token_look(frames_of(token_ids), STRIDE))
    dark = torch.randint(NUM_CODES, (1, GRID[0] * GRID[1]))
    looks.see(dark, token_look(frames_of(dark) - 0.3, STRIDE))
    assert looks.distance(sure_of(dark), dark, GRID) < 1e-6


@pytest.mark.parametrize("grid", [(1, 4), (2, 3), (7, 2)])
def test_grids_of_any_height_are_judged(grid):
    looks, token_ids = CodeLooks(NUM_CODES), torch.randint(NUM_CODES, (2, grid[0] * grid[1]))
    looks.see(token_ids, torch.randn(2, grid[0] * grid[1], 7))
    assert torch.isfinite(looks.distance(torch.randn(2, grid[0] * grid[1], NUM_CODES), token_ids, grid))


def test_edges_are_compared_cell_by_cell_by_their_strength_alone():
    torch.manual_seed(0)
    noise = torch.randn(1, 3, 32, 32)
    soft = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    assert edge_distance(noise, noise) == 0
    assert edge_distance(soft, noise) > 0.3
    assert edge_distance(noise, soft) == edge_distance(soft, noise)
    assert edge_distance(-noise + 0.5, noise) < 1e-6  # light and sign do not matter
    assert edge_distance(noise.roll(16, -1), noise) > 0.01  # but where they are does
