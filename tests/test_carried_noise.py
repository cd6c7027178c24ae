"""Noise that moves with the picture: unit normal for ever, carried along, balanced around every token."""

from __future__ import annotations

import math

import pytest
import torch

from drivesim.world_model.carried_noise import _smooth, next_noise, no_noise, uniform_of
from drivesim.world_model.motion import Compensated
from drivesim.world_model.sampler import SamplerConfig, draw_tokens

GRID = (8, 14)
CPU = torch.device("cpu")
ALL = torch.ones(2, dtype=torch.bool)


def moved(*, right_px: float = 0.0, down_px: float = 0.0, batch: int = 2) -> Compensated:
    """A picture that moved as a whole since the frame before; what came into view was not seen."""
    flow = torch.zeros(batch, 128, 224, 2)
    flow[..., 0], flow[..., 1] = -right_px, -down_px
    rows, columns = torch.meshgrid(torch.arange(128), torch.arange(224), indexing="ij")
    is_seen = (rows >= down_px) & (columns >= right_px) & (columns < 224 + right_px)
    return Compensated(
        frames_BCHW=torch.zeros(batch, 3, 128, 224),
        is_seen_BHW=is_seen.expand(batch, -1, -1),
        flow_BHW2=flow,
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noise_stays_unit_normal_however_often_it_is_carried():
    noise, chance = no_noise(16, GRID, CPU), generator()
    is_drawn = torch.ones(16, dtype=torch.bool)
    for _ in range(40):
        noise = next_noise(noise, moved(right_px=5, down_px=2, batch=16), 0.95, chance, is_drawn)
    assert noise.mean().abs() < 0.1
    assert noise.std() == pytest.approx(1.0, abs=0.1)


def test_noise_goes_where_the_picture_goes_and_a_share_is_renewed():
    first = next_noise(no_noise(2, GRID, CPU), moved(), 0.9, generator(), ALL)
    for memory in (0.9, 0.5):
        then = next_noise(first, moved(right_px=8), memory, generator(1), ALL)
        kept, carried = then[:, :, 2:].flatten(), first[:, :, :-2].flatten()
        assert torch.corrcoef(torch.stack([kept, carried]))[0, 1] == pytest.approx(memory, abs=0.08)
        fresh = next_noise(no_noise(2, GRID, CPU), moved(), memory, generator(1), ALL)
        torch.testing.assert_close(then[:, :, :2], fresh[:, :, :2])  # was not in the picture


def test_rows_that_are_not_drawn_take_no_number_and_keep_no_noise():
    chance = [generator(0), generator(1)]
    before = chance[1].get_state()
    first = next_noise(no_noise(2, GRID, CPU), moved(), 0.9, [generator(0), generator(1)], ALL)
    half = next_noise(first, moved(), 0.9, chance, torch.tensor([True, False]))
    assert half[0].any()
    assert not half[1].any()
    assert torch.equal(chance[1].get_state(), before)
    with pytest.raises(ValueError, match="2 rows need as many generators, got 1"):
        next_noise(first, moved(), 0.9, [generator()], ALL)


def test_tokens_are_drawn_evenly_and_regions_do_not_lean_to_one_side():
    is_drawn = torch.ones(64, dtype=torch.bool)
    noise = next_noise(no_noise(64, GRID, CPU), moved(batch=64), 0.9, generator(), is_drawn)
    uniform = uniform_of(noise)
    assert uniform.shape == (64, 112)
    assert (uniform >= 0).all()
    assert (uniform < 1).all()
    counts = torch.histc(uniform, bins=10, min=0, max=1) / uniform.numel()
    assert (counts - 0.1).abs().max() < 0.02
    means = uniform.view(64, *GRID).unfold(1, 4, 4).unfold(2, 7, 7).mean(dim=(-2, -1))
    assert means.std() < torch.rand(64, 4, 28).mean(-1).std()


def test_like_probabilities_give_the_same_token_again():
    logits = torch.randn(2, 112, 30, generator=generator())
    noise = next_noise(no_noise(2, GRID, CPU), moved(), 0.95, generator(), ALL)
    then = next_noise(noise, moved(), 0.95, generator(1), ALL)
    first, second = (draw_tokens(logits, 1.0, None, uniform_BS=uniform_of(n)) for n in (noise, then))
    anew = [draw_tokens(logits, 1.0, generator(seed)) for seed in (0, 1)]
    assert (first == second).float().mean() > 2 * (anew[0] == anew[1]).float().mean()


def test_grids_of_any_size_have_noise():
    for grid in ((1, 1), (2, 3)):
        field = torch.randn(1, 4 * grid[0], 4 * grid[1], generator=generator())
        assert torch.isfinite(uniform_of(field)).all()
        assert uniform_of(field).shape == (1, grid[0] * grid[1])
        assert torch.isfinite(_smooth(field)).all()


@pytest.mark.parametrize("size", [(2, 3), (32, 56)])
def test_smooth_noise_is_the_sum_of_its_weighed_neighbours_around_the_edge(size):
    noise = torch.randn(2, *size, generator=generator())
    reach = range(-6, 7)
    weights = torch.tensor([math.exp(-0.5 * (shift / 3.0) ** 2) for shift in reach])
    weights /= weights.square().sum().sqrt()
    expected = noise
    for dim in (-2, -1):
        rolled = [expected.roll(shift, dim) for shift in reach]
        expected = torch.stack([w * part for w, part in zip(weights, rolled, strict=True)]).sum(0)
    torch.testing.assert_close(_smooth(noise), expected)


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_a_memory_that_renews_nothing_is_refused(value):
    with pytest.raises(ValueError, match=r"noise_memory must lie in \[0, 1\)"):
        SamplerConfig(noise_memory=value)


def test_noise_is_normal_all_over_a_picture_that_is_driven_into():
    """Driving on stretches the field near the car; its marginals must not shrink there."""
    rows, columns = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(224) + 0.5, indexing="ij")
    outwards = torch.stack([columns - 112, rows - 54], dim=-1)
    near = (rows - 54).clamp_min(0).unsqueeze(-1) / 74
    flow = (-0.25 * near * outwards).expand(48, -1, -1, -1)
    picture = Compensated(
        frames_BCHW=torch.zeros(48, 3, 128, 224),
        is_seen_BHW=torch.ones(48, 128, 224, dtype=torch.bool),
        flow_BHW2=flow,
    )
    noise, chance = no_noise(48, GRID, CPU), generator()
    for _ in range(30):
        noise = next_noise(noise, picture, 0.95, chance, torch.ones(48, dtype=torch.bool))
    uniform = uniform_of(noise).view(48, *GRID)
    tails = ((uniform < 0.1) | (uniform > 0.9)).float().mean(dim=(0, 2))
    assert tails.min() > 0.1
    assert tails.max() < 0.3


@pytest.mark.parametrize("grid", [GRID, (9, 15), (3, 5)])
def test_a_row_is_the_same_alone_and_in_a_batch(grid):
    picture = Compensated(
        frames_BCHW=torch.zeros(3, 3, 16 * grid[0], 16 * grid[1]),
        is_seen_BHW=torch.ones(3, 16 * grid[0], 16 * grid[1], dtype=torch.bool),
        flow_BHW2=3 * torch.randn(3, 16 * grid[0], 16 * grid[1], 2, generator=generator()),
    )
    together = alone = no_noise(3, grid, CPU)
    alone, one = alone[:1], Compensated(**{f: getattr(picture, f)[:1] for f in picture.__slots__})
    for _ in range(3):
        together = next_noise(together, picture, 0.9, [generator(i) for i in range(3)], ALL[[0, 0, 0]])
        alone = next_noise(alone, one, 0.9, [generator(0)], ALL[:1])
    assert torch.equal(together[0], alone[0])
    assert torch.equal(uniform_of(together)[0], uniform_of(alone)[0])
