"""Rows draw the same whichever process computes them."""

from __future__ import annotations

import pytest
import torch

from drivesim.training.row_draws import RowDraws, mixed_seed, rows_of


def test_processes_share_the_rows_of_a_batch_in_order() -> None:
    whole = rows_of(3, 8, rank=0, world_size=1)
    parts = [rows_of(3, 2, rank=rank, world_size=4) for rank in range(4)]
    assert [row for part in parts for row in part] == list(whole) == list(range(24, 32))


def test_two_small_batches_are_one_large_one() -> None:
    small = [row for number in (6, 7) for row in rows_of(number, 4, rank=0, world_size=1)]
    assert small == list(rows_of(3, 8, rank=0, world_size=1))


def test_a_row_draws_the_same_in_any_batch() -> None:
    whole, part = RowDraws(1, range(8)), RowDraws(1, range(4, 8))
    for name, arguments in (("uniform", ((3, 2),)), ("normal", ((5,),)), ("uniform", ((),))):
        of_all, of_some = (
            getattr(draws, name)(*((len(draws), *shape) for shape in arguments)) for draws in (whole, part)
        )
        assert torch.equal(of_all[4:], of_some)
    assert torch.equal(whole.whole(1000)[4:], part.whole(1000))
    assert torch.equal(whole.chance(0.5)[4:], part.chance(0.5))


def test_rows_seeds_and_purposes_differ() -> None:
    draws = [RowDraws(0, range(500)), RowDraws(1, range(500)), RowDraws(0, range(500), purpose="losses")]
    numbers = torch.stack([some.uniform((500,)) for some in draws])
    assert len(numbers.unique()) == 1500
    assert abs(float(numbers.mean()) - 0.5) < 0.03
    assert 0 <= numbers.min() <= numbers.max() < 1
    assert mixed_seed(1, 2) != mixed_seed(12)


def test_whole_numbers_stay_below_their_end() -> None:
    drawn = RowDraws(0, range(300)).whole(3, (300, 2), dtype=torch.int32)
    assert drawn.dtype == torch.int32
    assert drawn.unique().tolist() == [0, 1, 2]


def test_draws_for_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"draws for 4 rows .* shape \(3, 2\)"):
        RowDraws(0, range(4)).uniform((3, 2))
