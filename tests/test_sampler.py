"""Parallel decoding: rounds, order, temperature, given tokens."""

import itertools

import pytest
import torch

from drivesim.world_model.sampler import SamplerConfig, UnmaskOrder, draw_tokens, fill_in, rounds_for

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


def agreeing(token_ids, is_masked):
    """Return logits that want every hidden token to be what most given ones are, of two codes."""
    ones = ((token_ids == 1) & ~is_masked).sum(-1, keepdim=True)
    zeros = ((token_ids == 0) & ~is_masked).sum(-1, keepdim=True)
    lean = 4.0 * (ones - zeros).sign().float()
    return torch.stack([-lean, lean], dim=-1).expand(*token_ids.shape, 2).contiguous()


def test_revisions_put_right_what_was_drawn_before_the_rest_was_known():
    ids, hidden = torch.zeros(64, 16, dtype=torch.int64), torch.ones(64, 16, dtype=torch.bool)

    def num_odd(num_revisions):
        config = SamplerConfig(temperature=1.0, num_revisions=num_revisions)
        filled = fill_in(agreeing, ids, hidden, config, generator()).token_ids_BS.sum(-1)
        return torch.minimum(filled, 16 - filled).float().mean()

    assert num_odd(0) > 5.0  # one round knows nothing of its neighbours
    assert num_odd(6) < 0.5


def test_revisions_hide_their_share_and_leave_given_tokens_alone():
    ids = torch.arange(16).repeat(2, 1)
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[:, 4:14] = True
    seen = []

    def logits_fn(token_ids, is_masked):
        seen.append(is_masked.clone())
        assert torch.equal(token_ids[~hidden], ids[~hidden])
        return torch.zeros(2, 16, 40).index_fill(2, torch.tensor([39]), 9.0)

    config = SamplerConfig(num_decode_steps=2, num_revisions=3, revised_share=0.3)
    rounds = []
    sampled = fill_in(logits_fn, ids, hidden, config, generator(), on_round=rounds.append)
    assert rounds == [1, 2, 3, 4, 5]
    assert rounds_for(10, config) == (2, 5)
    assert config.num_rounds == 5
    assert [int(mask.sum(-1).max()) for mask in seen[2:]] == [3, 3, 3]
    assert not any((mask & ~hidden).any() for mask in seen)
    assert torch.equal(sampled.token_ids_BS[~hidden], ids[~hidden])
    assert (sampled.token_ids_BS[hidden] == 39).all()
    assert (sampled.confidence_BS[~hidden] == 1).all()


def recorded(config, sharpness_S, num_rows=64):
    """Return the masks that a model is shown whose tokens are as sure as ``sharpness_S`` makes them."""
    seen = []

    def logits_fn(token_ids, is_masked):
        seen.append(is_masked.clone())
        logits = torch.zeros(num_rows, len(sharpness_S), 40)
        logits[..., 7] = sharpness_S
        return logits

    ids = torch.zeros(num_rows, len(sharpness_S), dtype=torch.int64)
    fill_in(logits_fn, ids, torch.ones_like(ids, dtype=torch.bool), config, generator())
    return seen


def test_the_share_that_is_revised_falls_evenly():
    config = SamplerConfig(num_revisions=5, revised_share=0.5, last_revised_share=0.1, temperature=1.0)
    seen = recorded(config, torch.ones(20))
    assert [set(mask.sum(-1).tolist()) for mask in seen[1:]] == [{10}, {8}, {6}, {4}, {2}]
    assert SamplerConfig(num_revisions=1, revised_share=0.5, last_revised_share=0.1).share_revised(0) == 0.5


@pytest.mark.parametrize("revises_unlikely", [False, True])
def test_unlikely_tokens_are_revised_more_often_if_asked(revises_unlikely):
    config = SamplerConfig(num_revisions=8, revised_share=0.25, revises_unlikely=revises_unlikely)
    masks = torch.stack(recorded(config, torch.tensor([9.0] * 10 + [2.0] * 10))[1:]).float()
    sure, unsure = masks[..., :10].mean(), masks[..., 10:].mean()
    assert sure + unsure == pytest.approx(0.5)
    if revises_unlikely:  # of probabilities 0.995 and 0.16
        assert unsure > 3 * sure > 0
    else:
        assert unsure == pytest.approx(float(sure), rel=0.1)


def test_nothing_hidden_is_not_revised():
    ids, hidden = torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 4, dtype=torch.bool)
    sampled = fill_in(pytest.fail, ids, hidden, SamplerConfig(num_revisions=3), generator())
    assert torch.equal(sampled.token_ids_BS, ids)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_revisions": -1},
        {"revised_share": 0.0},
        {"revised_share": 1.5},
        {"last_revised_share": 0.0},
        {"last_revised_share": 1.5},
    ],
)
def test_revisions_without_a_meaning_are_refused(settings):
    with pytest.raises(ValueError, match="revis"):
        SamplerConfig(**settings)


def test_rows_with_generators_of_their_own_are_revised_as_if_alone():
    ids, hidden = torch.zeros(3, 12, dtype=torch.int64), torch.ones(3, 12, dtype=torch.bool)
    config = SamplerConfig(num_decode_steps=2, num_revisions=2, temperature=1.0)
    together = fill_in(agreeing, ids, hidden, config, [generator(seed) for seed in range(3)])
    for row in range(3):
        alone = fill_in(agreeing, ids[:1], hidden[:1], config, [generator(row)])
        assert torch.equal(alone.token_ids_BS[0], together.token_ids_BS[row])
        assert torch.equal(alone.confidence_BS[0], together.confidence_BS[row])
