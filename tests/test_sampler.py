"""Parallel decoding: rounds, order, temperature, given tokens."""

import itertools

import pytest
import torch

from drivesim.world_model.sampler import SamplerConfig, UnmaskOrder, draw_tokens, fill_in

K, S = 16, 28


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def logits_of(seed=0, batch=2):
    return torch.randn(batch, S, K, generator=generator(seed))


@pytest.mark.parametrize("order", list(UnmaskOrder))
@pytest.mark.parametrize("rounds", [1, 2, 10, 100])
def test_every_hidden_token_is_filled_and_given_ones_stay(order, rounds):
    given = torch.randint(K, (2, S), generator=generator(1))
    is_masked = torch.zeros(2, S, dtype=torch.bool)
    is_masked[:, 5:20] = True
    before, mask_before = given.clone(), is_masked.clone()
    seen = []

    def logits_fn(ids, mask):
        seen.append(int(mask[0].sum()))
        return logits_of()

    result = fill_in(
        logits_fn, given, is_masked, SamplerConfig(num_decode_steps=rounds, order=order), generator()
    )
    assert torch.equal(given, before)
    assert torch.equal(is_masked, mask_before)
    assert torch.equal(result.token_ids_BS[~is_masked], given[~is_masked])
    assert torch.equal(result.token_ids_BS[is_masked], logits_of().argmax(-1)[is_masked])
    assert len(seen) == min(rounds, 15)
    assert all(b < a for a, b in itertools.pairwise(seen))
    assert ((result.confidence_BS > 0) & (result.confidence_BS <= 1)).all()


def test_confidence_order_fixes_the_most_probable_first():
    logits = torch.zeros(1, S, K)
    logits[0, :14, 3] = 5.0
    fixed_after_first = []

    def logits_fn(ids, mask):
        fixed_after_first.append(~mask[0])
        return logits

    fill_in(
        logits_fn,
        torch.zeros(1, S, dtype=torch.int64),
        torch.ones(1, S, dtype=torch.bool),
        SamplerConfig(num_decode_steps=4),
    )
    first = fixed_after_first[1]
    assert first.any()
    assert not first[14:].any()


def test_temperature_divides_logits():
    logits = torch.tensor([2.0, 0.0]).expand(1, 20_000, 2)
    for temperature in (0.5, 1.0, 4.0):
        share = (draw_tokens(logits, temperature, generator()) == 0).float().mean().item()
        wanted = torch.softmax(torch.tensor([2.0, 0.0]) / temperature, 0)[0].item()
        assert share == pytest.approx(wanted, abs=0.015)


def test_temperature_to_zero_is_the_argmax():
    logits = logits_of()
    assert torch.equal(draw_tokens(logits, 1e-6, generator()), draw_tokens(logits, 0.0, None))


def test_the_seed_decides_the_draw():
    def draw(seed):
        config = SamplerConfig(num_decode_steps=3, temperature=1.0, order=UnmaskOrder.RANDOM)
        ids, mask = torch.zeros(2, S, dtype=torch.int64), torch.ones(2, S, dtype=torch.bool)
        return fill_in(lambda i, m: logits_of(), ids, mask, config, generator(seed)).token_ids_BS

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


@pytest.mark.parametrize(
    "bad", [{"num_decode_steps": 0}, {"temperature": -1.0}, {"temperature": float("nan")}]
)
def test_settings_without_meaning_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SamplerConfig(**bad)


def test_the_temperature_rises_with_the_imagined_frames():
    config = SamplerConfig(temperature=0.8, temperature_rise=4)
    assert [config.at(count).temperature for count in (0, 1, 4, 600)] == pytest.approx([0, 0.2, 0.8, 0.8])
    assert SamplerConfig(temperature=0.8).at(0).temperature == 0.8
    with pytest.raises(ValueError, match="temperature_rise must be >= 0"):
        SamplerConfig(temperature_rise=-1)
