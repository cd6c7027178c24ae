"""How many decoding rounds are worth their time? The gain over repeat-last per number of rounds, order, temperature."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from benchmarks.held_out import HeldOutScene, Start, last_frames
from benchmarks.open_loop import OpenLoop, future
from benchmarks.page import Plot
from benchmarks.pictures import finite_psnr, over_steps
from benchmarks.report import Report
from benchmarks.statistics import bootstrap_steps
from drivesim import console
from drivesim.errors import InputError
from drivesim.world_model.sampler import SamplerConfig, UnmaskOrder

GAIN = "psnr_gain_over_repeat_db"


def samplers_of(
    rounds: Sequence[int], orders: Sequence[UnmaskOrder], temperatures: Sequence[float]
) -> dict[str, SamplerConfig]:
    """Return by label every combination; with a single round the order means nothing and one is enough.

    Raises:
        InputError: a number of rounds below 1 or a negative temperature.
    """
    samplers = {}
    for num_rounds, order, temperature in product(rounds, orders, temperatures):
        if num_rounds == 1 and order is not orders[0]:
            continue
        label = f"rounds_{num_rounds}_{order.value}_t{temperature:g}"
        try:
            samplers[label] = SamplerConfig(num_decode_steps=num_rounds, order=order, temperature=temperature)
        except ValueError as error:
            raise InputError(f"--rounds and --temperatures: {error}") from error
    return samplers


def compare_samplers(
    open_loop: OpenLoop,
    scenes: Sequence[HeldOutScene],
    starts: Sequence[Start],
    samplers: dict[str, SamplerConfig],
    *,
    horizons: Sequence[int],
) -> Report:
    """Imagine every start under its logged actions with each sampler; report gain and frames per second."""
    target, twist_BTA = future(scenes, starts, max(horizons))
    groups = [start.scene_index for start in starts]
    repeated = np.broadcast_to(last_frames(scenes, starts)[:, None], target.shape)
    repeat_db = over_steps(finite_psnr, repeated, target)
    report = Report(title="decoding rounds")
    for label, sampler in samplers.items():
        started_s = time.perf_counter()
        imagined = replace(open_loop, sampler=sampler).imagine(scenes, starts, twist_BTA, label=label)
        elapsed_s = time.perf_counter() - started_s
        gain = over_steps(finite_psnr, imagined, target) - repeat_db
        report.add_series(f"{GAIN}_{label}", bootstrap_steps(gain, groups), named_steps=horizons)
        note = f"batches of {open_loop.batch_size}, contexts included"
        report.add(f"imagined_frames_per_s_{label}", target[:, :, 0, 0, 0].size / elapsed_s, note=note)
    return report


def show_samplers(report: Report, samplers: dict[str, SamplerConfig], horizons: Sequence[int]) -> None:
    """Print one line per sampler: the gain at each horizon and the speed."""
    values = {row.label: row.value for row in report.rows}
    cells = [
        (
            sampler.num_decode_steps,
            sampler.order.value,
            sampler.temperature,
            *[values[f"{GAIN}_{label} [{horizon}]"] for horizon in horizons],
            values[f"imagined_frames_per_s_{label}"],
        )
        for label, sampler in samplers.items()
    ]
    columns = ["rounds", "order", "temperature", *[f"dB at {h}" for h in horizons], "frames/s"]
    console.print_table("PSNR gain over repeat-last by way of decoding", columns, cells)
    console.say(", ".join(f"{name} {value}" for name, value in report.facts.items()))


def rounds_plot(report: Report) -> Plot:
    """Return a plot of all curves of the comparison."""
    lines = {name.removeprefix(f"{GAIN}_").replace("_", " "): name for name in report.curves}
    return Plot(title="Gain over repeat-last", unit="dB", lines=lines)
