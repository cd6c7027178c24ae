"""How fast a run trains: frames per second, and floating-point operations as a share of the device's peak."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from drivesim.training.flops import num_parameters, peak_flop_per_s
from drivesim.training.precision import dtype_of


@dataclass(kw_only=True, slots=True, frozen=True)
class RunFacts:
    """What a speed depends on."""

    device: str
    num_processes: int
    precision: str
    num_parameters: int  # trained ones
    peak_tflop_per_s: float  # of all processes, in this precision


def facts_of_run(fabric: Any, module: nn.Module, *, precision: str) -> RunFacts:
    """Return what runs where; this measures a CPU's peak."""
    device: torch.device = fabric.device
    is_cuda = device.type == "cuda"
    return RunFacts(
        device=torch.cuda.get_device_name(device)
        if is_cuda
        else f"{device.type}, {torch.get_num_threads()} threads",
        num_processes=fabric.world_size,
        precision=precision,
        num_parameters=num_parameters(module),
        peak_tflop_per_s=fabric.world_size * peak_flop_per_s(device, dtype_of(precision)) / 1e12,
    )


class Throughput:
    """What all processes together do per second since the last reading.

    Args:
        peak_tflop_per_s: Of all their devices together.
    """

    def __init__(self, *, peak_tflop_per_s: float) -> None:
        self.peak_tflop_per_s = peak_tflop_per_s
        self.flop_per_batch: int | None = None  # of the first batch; others are taken to cost as much
        self._num_frames = self._num_batches = 0
        self._window_s = time.monotonic()

    def add(self, *, num_frames: int, num_batches: int) -> None:
        """Take in what was trained on."""
        self._num_frames += num_frames
        self._num_batches += num_batches

    def start(self) -> None:
        """Start the clock anew, as at the first step."""
        self._num_frames = self._num_batches = 0
        self._window_s = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep the time of the block out of the figures."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            self._window_s += time.monotonic() - started_s

    def read(self) -> dict[str, float]:
        """Return the figures since the last reading and start anew."""
        seconds = max(time.monotonic() - self._window_s, 1e-9)
        tflop_per_s = 1e-12 * (self.flop_per_batch or 0) * self._num_batches / seconds
        figures = {
            "frames_per_s": round(self._num_frames / seconds, 1),
            "model_tflop_per_s": float(f"{tflop_per_s:.4g}"),
            "flop_utilisation": float(f"{tflop_per_s / self.peak_tflop_per_s:.4g}"),
        }
        self.start()
        return figures
