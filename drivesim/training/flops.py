"""Floating-point operations: how many a step takes, and how many the device could do in that time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

# Dense bf16 products with float32 sums, from the makers' data sheets; the first name that fits counts.
_PEAK_BF16_TFLOP_PER_S = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
_GEMM_SIZES = {"cpu": 1024, "cuda": 8192}
_NUM_GEMMS = 4


def known_peak_flop_per_s(device_name: str) -> float | None:
    """Return the bf16 peak of an accelerator by its name; None if it is not in the table or a slice of one."""
    if "MIG" in device_name:
        return None
    for name, tflop_per_s in _PEAK_BF16_TFLOP_PER_S.items():
        if re.search(rf"\b{name}\b", device_name):
            return 1e12 * tflop_per_s
    return None


def measured_gemm_flop_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Return the rate of a large square matrix product, the best of a few, after one to warm up."""
    size = _GEMM_SIZES.get(device.type, 2048)
    matrix = torch.full((size, size), 1.0 / size, device=device, dtype=dtype)
    seconds = []
    for _ in range(_NUM_GEMMS):
        started_s = time.perf_counter()
        product = matrix @ matrix
        product[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - started_s)
    return 2.0 * size**3 / min(seconds[1:])


def peak_flop_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Return what ``device`` can do in the training precision: the data sheet's figure, else a measured one."""
    if device.type == "cuda" and dtype is torch.bfloat16:
        known = known_peak_flop_per_s(torch.cuda.get_device_name(device))
        if known is not None:
            return known
    return measured_gemm_flop_per_s(device, dtype)


def training_flops(module: nn.Module, loss_fn: Callable[[], Tensor]) -> int:
    """Return the operations of a loss and its backward pass, and leave the module as it was.

    Counted are matrix products, convolutions and attention, as usual; a multiply-add is two operations. This is
    a pass of its own since under the counter autograd adds up gradients in another order, which would let the
    last bits of a step depend on whether it is counted.
    """
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with FlopCounterMode(display=False, custom_mapping=_cpu_attention()) as counter:
        loss_fn().backward()
    module.zero_grad(set_to_none=True)
    for name, buffer in module.named_buffers():
        buffer.copy_(buffers[name])
    return counter.get_total_flops()


def num_parameters(module: nn.Module) -> int:
    """Return how many parameters are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _cpu_attention() -> dict[Any, Any]:
    """Return formulas for the CPU's fused attention, which PyTorch's own table lacks."""

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(gradient, query, key, value)

    aten = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
