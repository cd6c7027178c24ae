"""The reference decoders are what they say: the same budget, a cache that changes nothing, exactly so many rounds."""

import pytest
import torch
from small_models import small_world_model

from benchmarks.decoders import comparison
from benchmarks.decoders.autoregressive import AutoregressiveDecoder, CausalLayer, causal_mask, mlp_dim_for
from benchmarks.decoders.diffusion import NUM_EVALUATIONS, DiffusionDecoder
from benchmarks.decoders.frame_decoder import Precision, num_parameters
from benchmarks.decoders.uncached import UncachedDecoder
from drivesim.world_model.stpt import STPTConfig

WINDOW = 4
NAMES = ["autoregressive", "autoregressive_same_depth", "uncached", "uncached_same_rounds", "diffusion30"]


@pytest.fixture(scope="module")
def model():
    return small_world_model(window=WINDOW)


@pytest.fixture
def history(model):
    return comparison.History.drawn(model, batch_size=2)


@pytest.mark.parametrize("make", NAMES)
def test_a_step_is_a_picture_and_moves_on(model, history, make):
    decoder = comparison.reference_decoders(model)[make]
    step = comparison.started(decoder, history)
    first, second = step(), step()
    assert first.dtype == torch.uint8
    assert first.shape == second.shape == (2, 128, 224, 3)
    assert (first != second).any()


@pytest.mark.parametrize("make", NAMES)
def test_the_same_history_gives_the_same_frame(model, history, make):
    decoder = comparison.reference_decoders(model)[make]
    pictures = [comparison.started(decoder, history)() for _ in range(2)]
    assert torch.equal(*pictures)


@pytest.mark.parametrize("sizes", [{}, {"dim": 192, "num_layers": 5, "conv_dim": 48, "window": 6}])
def test_layers_have_the_parameters_of_ours_within_five_percent(sizes):
    ours = small_world_model(**sizes)
    counts = comparison.parameters(ours, comparison.reference_decoders(ours))
    budget, _ = counts.pop(comparison.OURS)
    assert set(counts) == set(NAMES)
    for count, total in counts.values():
        assert count == pytest.approx(budget, rel=0.05)
        assert total > count


def test_a_budget_too_small_for_a_layer_is_refused():
    with pytest.raises(ValueError, match="too few"):
        mlp_dim_for(STPTConfig(), 1000)


def test_the_mlp_fills_the_budget():
    config = STPTConfig(dim=32, num_heads=2)
    layer = CausalLayer(config, mlp_dim_for(config, 20_000))
    assert 0 <= 20_000 - num_parameters(layer) < 2 * config.dim + 1


def test_a_gpt_of_the_usual_shape_is_deeper():
    ours = small_world_model(dim=192, num_layers=5, conv_dim=48)
    usual = AutoregressiveDecoder(ours.config, ours.tokenizer)
    wide = AutoregressiveDecoder(ours.config, ours.tokenizer, is_same_depth=True)
    assert (len(usual.layers), len(wide.layers)) == (9, 5)
    assert usual.layers[0].mlp[1].out_features == pytest.approx(4 * 192, rel=0.1)


def test_rounds_are_the_papers_and_ours(model):
    decoders = comparison.reference_decoders(model)
    assert decoders["uncached"].num_rounds == 10
    assert decoders["uncached_same_rounds"].num_rounds == model.config.sampler.num_decode_steps


def test_causal_mask_is_the_drawing():
    drawing = """
x.....
xx....
xxx...
xxxx..
..xxx.
..xxxx"""
    rows = [
        "".join("x" if seen else "." for seen in row)
        for row in causal_mask(torch.tensor([0, 0, 1, 1, 2, 2]), 2)
    ]
    assert rows == drawing.split()


@pytest.mark.parametrize("num_frames", [1, WINDOW, WINDOW + 2])
def test_the_key_value_cache_gives_the_logits_of_one_pass(model, num_frames):
    decoder = AutoregressiveDecoder(model.config, model.tokenizer, is_same_depth=True)
    past = torch.randint(model.tokenizer.codebook_size, (2, num_frames, model.tokenizer.num_tokens))
    twist_BTA = torch.randn(2, num_frames + 2, 2)
    decoder.observe(past, twist_BTA[:, :num_frames])
    cached, token_ids = [], past
    for t in range(num_frames, num_frames + 2):
        cached.append(decoder.next_logits(twist_BTA[:, t]))
        token_ids = torch.cat([token_ids, cached[-1].argmax(-1).unsqueeze(1)], dim=1)
    with torch.no_grad():
        whole = decoder.transformer.uncached_logits(token_ids, twist_BTA)
    torch.testing.assert_close(torch.stack(cached, dim=1), whole[:, num_frames:], rtol=1e-4, atol=1e-4)


def test_one_pass_per_token(model, history, monkeypatch):
    decoder, passes = AutoregressiveDecoder(model.config, model.tokenizer), []
    step = comparison.started(decoder, history)
    monkeypatch.setattr(
        decoder.transformer.layers[0], "forward", lambda x, *_: passes.append(x.shape[1]) or x
    )
    step()
    assert passes == [1 + model.config.num_action_tokens] + [1] * (model.tokenizer.num_tokens - 1)


def test_the_uncached_decoder_equals_a_full_forward_pass(model, history):
    decoder = UncachedDecoder(model.config, model.tokenizer, num_rounds=1)
    is_masked = torch.zeros_like(history.token_ids_BTS, dtype=torch.bool)
    is_masked[:, -1] = True
    with torch.no_grad():
        prompt_BTLC = decoder.transformer.action_encoder(history.twist_BTA)
        whole = decoder.transformer.stpt(history.token_ids_BTS, is_masked, prompt_BTLC)
        newest = decoder.transformer.newest_logits(history.token_ids_BTS, is_masked, prompt_BTLC)
    torch.testing.assert_close(newest, whole[:, -1])
    decoder.observe(history.token_ids_BTS[:, :-1], history.twist_BTA[:, :-1])
    assert torch.equal(decoder.next_tokens(history.twist_BTA[:, -1]), newest.argmax(-1))


@pytest.mark.parametrize("num_rounds", [1, 3])
def test_the_uncached_decoder_runs_the_whole_window_in_every_round(model, history, monkeypatch, num_rounds):
    decoder = UncachedDecoder(model.config, model.tokenizer, num_rounds=num_rounds)
    layer, shapes = decoder.layers[0], []
    full = layer.full
    monkeypatch.setattr(layer, "full", lambda x, *rest: shapes.append(x.shape[:3]) or full(x, *rest))
    comparison.started(decoder, history)()
    assert shapes == [(2, WINDOW, model.tokenizer.num_tokens)] * num_rounds


def test_diffusion_takes_thirty_evaluations_and_one_pass_to_remember(model, history, monkeypatch):
    decoder = DiffusionDecoder(model.config, model.tokenizer)
    step = comparison.started(decoder, history)
    forward, levels = decoder.transformer.forward, []
    monkeypatch.setattr(
        decoder.transformer,
        "forward",
        lambda x, level, *rest: levels.append(level) or forward(x, level, *rest),
    )
    step()
    assert levels[0] == 1
    assert len(levels[:-1]) == NUM_EVALUATIONS == 30
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] == 0


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("make", NAMES)
def test_every_precision_runs_and_leaves_the_original(model, history, make, precision):
    decoder = comparison.reference_decoders(model)[make]
    other = decoder.in_precision(precision)
    assert comparison.started(other, history)().shape == (2, 128, 224, 3)
    assert next(decoder.transformer.parameters()).dtype == torch.float32
    linear = other.layers[0].mlp[1]
    if precision is Precision.INT8:
        assert linear.weight().dtype == torch.qint8
    else:
        assert linear.weight.dtype == precision.dtype


def test_the_fastest_precision_is_kept_and_missing_ones_are_left_out(model, history, monkeypatch):
    decoder = comparison.reference_decoders(model)["uncached"]
    convert = type(decoder).in_precision

    def no_int8(self, precision):
        if precision is Precision.INT8:
            raise NotImplementedError("not built in")
        return convert(self, precision)

    monkeypatch.setattr(type(decoder), "in_precision", no_int8)
    steps = comparison.steps_of("uncached", decoder, history)
    assert set(steps) == {"fp32", "bf16"}
    chosen, timings = comparison.fastest("uncached", steps, num_rounds=1)
    medians = {key: timing.median_s for key, timing in timings.items()}
    assert medians[chosen] == min(medians.values())
