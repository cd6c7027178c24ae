"""Operations are counted rightly, peaks are known or measured, bf16 is used where it is fast."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from drivesim.errors import InputError
from drivesim.training import precision
from drivesim.training.flops import known_peak_flop_per_s, measured_gemm_flop_per_s, training_flops
from drivesim.training.precision import precision_note, resolved_precision
from drivesim.training.throughput import Throughput


class Layer(nn.Module):
    """A layer that counts its calls and drops some of its input."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 32, bias=False)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return self.linear(x).sum()


def test_forward_and_backward_are_counted_and_leave_no_trace() -> None:
    layer, x = Layer(), torch.ones(8, 16, requires_grad=True)
    weight = layer.linear.weight.detach().clone()
    assert training_flops(layer, lambda: layer(x)) == 3 * 2 * 8 * 16 * 32
    assert training_flops(layer, lambda: layer(x.detach())) == 2 * 2 * 8 * 16 * 32
    assert layer.seen.item() == 0
    assert layer.linear.weight.grad is None
    assert torch.equal(layer.linear.weight, weight)


def test_fused_attention_on_the_cpu_is_counted() -> None:
    query = torch.randn(2, 3, 40, 16, requires_grad=True)
    product = 2 * 2 * 3 * 40 * 40 * 16

    def loss_fn() -> Tensor:
        return functional.scaled_dot_product_attention(query, query, query).sum()

    assert (
        training_flops(nn.Identity(), loss_fn) == (2 + 5) * product
    )  # backward computes the scores once more


@pytest.mark.parametrize(
    ("name", "tflop_per_s"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA GeForce RTX 4090", 165.0),
    ],
)
def test_peaks_of_known_accelerators(name: str, tflop_per_s: float) -> None:
    assert known_peak_flop_per_s(name) == tflop_per_s * 1e12


@pytest.mark.parametrize("name", ["NVIDIA A10G", "Tesla T4", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"])
def test_peaks_of_others_are_measured(name: str) -> None:
    assert known_peak_flop_per_s(name) is None


def test_measured_peak_is_a_rate_and_draws_no_random_numbers() -> None:
    state = torch.get_rng_state()
    assert 1e8 < measured_gemm_flop_per_s(torch.device("cpu"), torch.float32) < 1e15
    assert torch.equal(torch.get_rng_state(), state)


def test_throughput_leaves_pauses_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    speed = Throughput(peak_tflop_per_s=1e-6)
    speed.flop_per_batch = 200
    speed.add(num_frames=30, num_batches=5)
    now_s[0] += 2.0
    with speed.paused():
        now_s[0] += 50.0
    assert speed.read() == {"frames_per_s": 15.0, "model_tflop_per_s": 5e-10, "flop_utilisation": 5e-4}
    now_s[0] += 1.0
    assert speed.read()["frames_per_s"] == 0.0


def test_precision_is_bf16_where_it_is_fast_and_says_so_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "fast_dtype", lambda _: torch.bfloat16)
    assert resolved_precision("auto", "cpu") == "bf16-mixed"
    assert precision_note("auto", "bf16-mixed") == ""
    monkeypatch.setattr(precision, "fast_dtype", lambda _: torch.float32)
    assert resolved_precision("auto", "cpu") == "32-true"
    assert "no fast bfloat16" in precision_note("auto", "32-true")
    assert resolved_precision("bf16-mixed", "cpu") == "bf16-mixed"
    assert resolved_precision("32-true", "auto") == "32-true"


def test_accelerator_without_bf16_falls_back_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert resolved_precision("auto", "auto") == "32-true"
    with pytest.raises(InputError, match=r"Tesla T4 has no bfloat16.*training\.precision=auto"):
        resolved_precision("bf16-mixed", "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert resolved_precision("auto", "gpu") == "bf16-mixed"
