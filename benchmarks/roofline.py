"""How fast this machine could be: rates of matrix products and copies, and what a step asks of them.

A stage cannot take less time than its arithmetic at the rate of large matrix products, nor less than reading its
weights from memory: the larger of the two is its roof. Why it stays below it is said by three times that add up: the
arithmetic at the rate of matrices of the model's own shapes, the bytes that operations hand to each other at the
rate of a copy in the cache, and the fixed cost of every operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.imagined_step import imagined_step
from benchmarks.report import Report
from benchmarks.stages import StageClock
from benchmarks.timing import seconds_of
from drivesim.scene.types import Camera
from drivesim.tokenizer.convolution import plain_convolutions
from drivesim.world_model.world_model import WorldModel

LARGE = 2048  # rows and columns of a large matrix
MEMORY_MB, CACHE_MB = 256, 0.25
NUM_CACHE_COPIES = 2000
MIN_FLOPS = 2e9  # of a sample of the matrix rate
NUM_TINY_ROUNDS, TINY_OPERATIONS = 500, 4
REPEATS = 5
BATCH = 8  # the larger number of frames whose rows are measured


@dataclass(kw_only=True, slots=True)
class Rates:
    """What this machine reaches."""

    gemm_gflops_per_s: dict[str, float]  # by name of type and shape, such as "bf16 large"
    memory_gb_per_s: float  # read and written by a copy that no cache holds
    cache_gb_per_s: float  # the same by a copy that stays in the cache
    operation_us: float  # one operation on next to nothing


@dataclass(kw_only=True, slots=True)
class Demand:
    """What a stage asks for."""

    flops: float = 0.0
    weight_bytes: float = 0.0  # parameters, counted at every use
    moved_bytes: float = 0.0  # inputs and outputs of all operations
    num_operations: float = 0.0


@dataclass(kw_only=True, slots=True)
class Explanation:
    """The times that follow for a stage."""

    roof_ms: float
    arithmetic_ms: float
    moving_ms: float
    operations_ms: float


def explained(demand: Demand, rates: Rates, *, peak: str, shapes: str) -> Explanation:
    """Return the times of a stage; ``peak`` and ``shapes`` name the matrix rates of its type."""
    gemm = rates.gemm_gflops_per_s
    return Explanation(
        roof_ms=max(demand.flops / gemm[peak] / 1e6, demand.weight_bytes / rates.memory_gb_per_s / 1e6),
        arithmetic_ms=demand.flops / gemm[shapes] / 1e6,
        moving_ms=demand.moved_bytes / rates.cache_gb_per_s / 1e6,
        operations_ms=demand.num_operations * rates.operation_us / 1e3,
    )


class OperationCounter(TorchDispatchMode):
    """Counts operations that compute something, and the bytes they read and write; views are free."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.num_operations, self.moved_bytes, self.weight_bytes = 0, 0, 0
        self._weights = {tensor.untyped_storage().data_ptr() for tensor in weights}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and count it."""
        result = func(*args, **(kwargs or {}))
        inputs, outputs = list(_tensors(args)), list(_tensors(result))
        homes = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        is_view = outputs and all(tensor.untyped_storage().data_ptr() in homes for tensor in outputs)
        if not is_view or func._schema.is_mutable:
            self.num_operations += 1
            self.moved_bytes += sum(map(_num_bytes, inputs + outputs))
            self.weight_bytes += sum(
                _num_bytes(t) for t in inputs if t.untyped_storage().data_ptr() in self._weights
            )
        return result


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _num_bytes(tensor: Tensor) -> int:
    """Return the bytes behind a tensor; an expanded one has fewer than its elements."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def stage_demands(model: WorldModel, step: Callable[[], object]) -> dict[str, Demand]:
    """Return what every stage of one step of the model asks for; the step runs four times."""
    flop_counter = FlopCounterMode(display=False)
    flops = _counted(model, step, flop_counter, flop_counter.get_total_flops)
    counter = OperationCounter(model.parameters())
    weight_bytes = _counted(model, step, counter, lambda: counter.weight_bytes)
    moved_bytes = _counted(model, step, counter, lambda: counter.moved_bytes)
    num_operations = _counted(model, step, counter, lambda: counter.num_operations)
    return {
        stage: Demand(
            flops=flops[stage],
            weight_bytes=weight_bytes[stage],
            moved_bytes=moved_bytes[stage],
            num_operations=num_operations[stage],
        )
        for stage in flops
    }


def _counted(
    model: WorldModel,
    step: Callable[[], object],
    mode: AbstractContextManager[object],
    read: Callable[[], float],
) -> dict[str, float]:
    with StageClock(model, read) as clock, torch.no_grad(), plain_convolutions(), mode:
        before = read()
        with clock.counting():
            step()
        return clock.totals(read() - before)


def add_stages(report: Report, model: WorldModel, camera: Camera, stage_ms: Mapping[str, float]) -> None:
    """Add the stages' milliseconds, what they ask for, and what this machine would need for that."""
    dtype = "bf16" if next(model.parameters()).dtype == torch.bfloat16 else "fp32"
    rows = model.tokenizer.num_tokens
    rates = measure_rates(model.stpt.layers, rows=(rows, BATCH * rows))
    demands = stage_demands(model, imagined_step(model, camera, batch_size=1, inference_mode=False))
    for stage, milliseconds in stage_ms.items():
        report.add(
            "stage_ms", milliseconds, key=stage, note="per env step, one car; 0: folded into another stage"
        )
    _add_rates(report, rates)
    for stage, demand in demands.items():
        if stage_ms[stage]:
            times = explained(demand, rates, peak=f"{dtype} large", shapes=f"{dtype} {rows} rows")
            _add_demand(report, stage, demand, times, stage_ms[stage])


def _add_rates(report: Report, rates: Rates) -> None:
    for key, rate in rates.gemm_gflops_per_s.items():
        report.add("gemm_gflops_per_s", rate, key=key, note="large matrices; rows of the model's own layers")
    report.add("memory_copy_gb_per_s", rates.memory_gb_per_s, note="read and written")
    report.add("cache_copy_gb_per_s", rates.cache_gb_per_s, note="the same within the cache")
    report.add("operation_us", rates.operation_us, note="an operation on a few numbers")


def _add_demand(report: Report, stage: str, demand: Demand, times: Explanation, measured_ms: float) -> None:
    report.add("stage_gflop", demand.flops / 1e9, key=stage, note="multiplications and additions")
    report.add("stage_gflops_per_s", demand.flops / measured_ms / 1e6, key=stage)
    report.add("stage_weight_mb", demand.weight_bytes / 1e6, key=stage, note="parameters, at every use")
    report.add("stage_moved_mb", demand.moved_bytes / 1e6, key=stage, note="read and written by operations")
    report.add("stage_operations", demand.num_operations, key=stage)
    report.add("stage_roof_ms", times.roof_ms, key=stage, note="arithmetic or weights, whatever takes longer")
    report.add("stage_roof_share", times.roof_ms / measured_ms, key=stage, note="1 is the roof")
    report.add("stage_arithmetic_ms", times.arithmetic_ms, key=stage)
    report.add("stage_moving_ms", times.moving_ms, key=stage)
    report.add("stage_operations_ms", times.operations_ms, key=stage)


def measure_rates(layers: nn.Module, *, rows: Iterable[int]) -> Rates:
    """Measure the machine; ``layers`` give the shapes and ``rows`` the tokens of the model's matrix products."""
    linear = [part.weight.shape for part in layers.modules() if isinstance(part, nn.Linear)]
    gemm = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        gemm[f"{name} large"] = gemm_gflops_per_s([(LARGE, LARGE)], rows=LARGE, dtype=dtype)
        for count in rows:
            gemm[f"{name} {count} rows"] = gemm_gflops_per_s(
                [(shape[0], shape[1]) for shape in linear], rows=count, dtype=dtype
            )
    return Rates(
        gemm_gflops_per_s=gemm,
        memory_gb_per_s=copy_gb_per_s(MEMORY_MB),
        cache_gb_per_s=copy_gb_per_s(CACHE_MB, num_copies=NUM_CACHE_COPIES),
        operation_us=operation_us(),
    )


@torch.inference_mode()
def gemm_gflops_per_s(shapes: list[tuple[int, int]], *, rows: int, dtype: torch.dtype) -> float:
    """Return the rate of products of ``rows`` rows with weights of (outputs, inputs), one after another."""
    weights = [torch.randn(shape).to(dtype) for shape in shapes]
    inputs = {columns: torch.randn(rows, columns).to(dtype) for _, columns in shapes}
    flops = sum(2 * rows * outputs * columns for outputs, columns in shapes)
    passes = max(1, round(MIN_FLOPS / flops))

    def multiply() -> None:
        for _ in range(passes):
            for weight in weights:
                functional.linear(inputs[weight.shape[1]], weight)

    return passes * flops / _best_s(multiply) / 1e9


@torch.inference_mode()
def copy_gb_per_s(size_mb: float, *, num_copies: int = 2) -> float:
    """Return the bytes per second, read and written, of copying ``size_mb`` megabytes."""
    source = torch.zeros(int(size_mb * 1e6), dtype=torch.uint8)
    target = torch.empty_like(source)

    def copy() -> None:
        for _ in range(num_copies):
            target.copy_(source)

    return 2 * num_copies * source.numel() / _best_s(copy) / 1e9


@torch.inference_mode()
def operation_us() -> float:
    """Return the microseconds of an operation on a few numbers, the mean over some that transformers consist of."""
    x, weight = torch.randn(4, 8), torch.randn(8, 8)
    count = NUM_TINY_ROUNDS

    def operate() -> None:
        for _ in range(count):
            y = functional.linear(x, weight)
            y = functional.layer_norm(y, (8,))
            y = torch.cat([y, x], dim=-1)
            y = y + y

    return _best_s(operate) / count / TINY_OPERATIONS * 1e6


def _best_s(call: Callable[[], object]) -> float:
    """Return the fastest of a few calls after one to warm up: a rate is what the machine can do."""
    call()
    return min(seconds_of(call) for _ in range(REPEATS))
