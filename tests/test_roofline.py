"""Rates are those of the machine, counts those of the model."""

import pytest
import torch
from small_models import small_world_model
from torch import nn
from torch.nn import functional

from benchmarks import roofline
from benchmarks.imagined_step import imagined_step
from benchmarks.stages import COMMIT, CONDITIONING, DECODE, REST, ROUNDS, STAGES, StageClock
from drivesim.scene.nuscenes import embedded_dataset


@pytest.fixture(scope="module")
def model():
    return small_world_model()


@pytest.fixture(scope="module")
def camera():
    dataset = embedded_dataset()
    return dataset.load(dataset.scene_names()[0], rate_hz=6.0, width_px=224, height_px=128).camera


@pytest.fixture(scope="module")
def demands(model, camera):
    return roofline.stage_demands(model, imagined_step(model, camera, batch_size=1, inference_mode=False))


def test_rates_are_positive_and_named(monkeypatch):
    for name, value in {"LARGE": 64, "MEMORY_MB": 4, "MIN_FLOPS": 1e5, "NUM_CACHE_COPIES": 9}.items():
        monkeypatch.setattr(roofline, name, value)
    monkeypatch.setattr(roofline, "NUM_TINY_ROUNDS", 9)
    rates = roofline.measure_rates(
        nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)), rows=[4, 8]
    )
    names = {f"{dtype} {shape}" for dtype in ("fp32", "bf16") for shape in ("large", "4 rows", "8 rows")}
    assert set(rates.gemm_gflops_per_s) == names
    assert min(rates.gemm_gflops_per_s.values()) > 0
    assert min(rates.memory_gb_per_s, rates.cache_gb_per_s, rates.operation_us) > 0


def test_the_rate_counts_multiplications_and_additions(monkeypatch):
    monkeypatch.setattr(roofline, "_best_s", lambda call: (call(), 2.0)[1])
    monkeypatch.setattr(roofline, "MIN_FLOPS", 1e5)
    passes = round(1e5 / (2 * 4 * (32 * 16 + 16 * 8)))
    rate = roofline.gemm_gflops_per_s([(32, 16), (16, 8)], rows=4, dtype=torch.float32)
    assert rate == pytest.approx(passes * 2 * 4 * (32 * 16 + 16 * 8) / 2.0 / 1e9)
    assert roofline.copy_gb_per_s(1, num_copies=3) == pytest.approx(2 * 3 * 1e6 / 2.0 / 1e9)


def test_the_roof_is_the_larger_of_arithmetic_and_weights():
    rates = roofline.Rates(
        gemm_gflops_per_s={"bf16 large": 100.0, "bf16 112 rows": 50.0},
        memory_gb_per_s=10.0,
        cache_gb_per_s=40.0,
        operation_us=5.0,
    )
    demand = roofline.Demand(flops=1e9, weight_bytes=10e6, moved_bytes=80e6, num_operations=300)
    times = roofline.explained(demand, rates, peak="bf16 large", shapes="bf16 112 rows")
    assert times.roof_ms == pytest.approx(10.0)
    assert times.arithmetic_ms == pytest.approx(20.0)
    assert times.moving_ms == pytest.approx(2.0)
    assert times.operations_ms == pytest.approx(1.5)
    demand.weight_bytes = 200e6
    assert roofline.explained(demand, rates, peak="bf16 large", shapes="bf16 112 rows").roof_ms == 20.0


def test_operations_and_bytes_are_counted_views_are_free():
    weight, x = torch.randn(8, 4), torch.randn(2, 4)
    with roofline.OperationCounter([weight]) as counter, torch.no_grad():
        y = functional.linear(x, weight)
        y.unsqueeze(0).flatten()
        y.add_(1.0)
    assert counter.num_operations == 2
    assert counter.weight_bytes == 4 * weight.numel()
    assert counter.moved_bytes == 4 * (x.numel() + weight.numel() + y.numel() + 2 * y.numel())


def test_every_stage_asks_for_something(demands):
    assert set(demands) == set(STAGES)
    for stage in (CONDITIONING, ROUNDS, DECODE):
        demand = demands[stage]
        assert min(demand.flops, demand.weight_bytes, demand.moved_bytes, demand.num_operations) > 0
        assert demand.moved_bytes > demand.weight_bytes
    assert demands[REST].flops == 0


def test_a_round_more_costs_the_transformer_once_more(model, camera, demands):
    """Linear layers alone give a lower bound of the arithmetic of a round."""
    sampler = type(model.config.sampler)(num_decode_steps=model.config.sampler.num_decode_steps + 1)
    step = imagined_step(model, camera, batch_size=1, sampler=sampler, inference_mode=False)
    more = roofline.stage_demands(model, step)
    rows = model.tokenizer.num_tokens
    linear = [part.weight.numel() for part in model.stpt.layers.modules() if isinstance(part, nn.Linear)]
    prompt = sum(layer.prompt_attention.key_value.weight.numel() for layer in model.stpt.layers)
    added = more[ROUNDS].flops - demands[ROUNDS].flops
    assert added > 2 * rows * (sum(linear) - prompt)
    assert more[DECODE].flops == demands[DECODE].flops


def test_a_stage_inside_a_stage_counts_for_the_outer(model):
    clock = StageClock(model, iter(range(100)).__next__)
    inner = clock._watched(lambda: "value", COMMIT)
    outer = clock._watched(lambda: inner(), ROUNDS)
    assert outer() == "value"
    assert not clock.stages
    with clock.counting():
        outer()
    assert clock.stages == {ROUNDS: 1}
    assert clock.totals(3)[REST] == 2


def test_the_clock_survives_an_error_and_parts_that_are_not_there(model, monkeypatch):
    clock = StageClock(model)
    clock._methods.append((model, "no_such_method", COMMIT))
    monkeypatch.setattr(model, "imagine", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError), clock, clock.counting():
        model.imagine()
    assert clock.model_total > 0
    monkeypatch.undo()
    assert "imagine" not in vars(model)
