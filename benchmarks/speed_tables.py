"""What the speed benchmark prints: its figures by subject; the json file holds all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks.env_speed import VECTOR_CARS
from benchmarks.report import Report, Target
from drivesim import console

TARGETS = (
    Target(name="env_steps_per_s_batch1", limit=12),
    Target(name="per_env_cost_batch8_vs_batch1", limit=0.6, is_minimum=False),
    Target(name="vector_speedup_batch8", limit=1.6),
    Target(name="save_state_ms", limit=5, is_minimum=False),
    Target(name="restore_state_ms", limit=5, is_minimum=False),
    Target(name="saved_state_kb", limit=64, is_minimum=False),
    Target(name="speedup_vs_autoregressive", limit=6),
    Target(name="speedup_vs_uncached", limit=4),
    Target(name="speedup_vs_diffusion30", limit=6),
    Target(name="cost_growth_after_5000", limit=0.05, is_minimum=False),
)
HEADLINES = (
    "env_steps_per_s_batch1",
    "env_steps_per_s_batch8",
    "per_env_cost_batch8_vs_batch1",
    "vector_speedup_",
    "save",
    "restore_",
    "speedup_vs_",
    "cost_growth_after_",
    "memory_growth_mb_after_",
    "long_run_step_ms",
    "peak_memory_mb",
    "compile_speedup",
)
BATCH = f"_batch{VECTOR_CARS}"  # what names of figures of several cars end with
CURVES = ("window", "rounds", "batch", "resolution")
STAGE_COLUMNS = ("stage", "ms", "GFLOP", "roof", "share", "GEMM", "bytes", "calls")
STAGE_CAPTION = (
    "milliseconds of an env step; roof: the arithmetic at the rate of large matrices, or reading the weights from "
    "memory, whichever takes longer, and its share of what was measured. Why the rest: GEMM, the arithmetic at the "
    "rate of the model's own shapes; bytes, what operations read and write at the cache's rate; calls, the fixed "
    "cost of each."
)


def show(report: Report) -> None:
    """Print the report's figures as tables."""
    result = report.as_dict()
    if "stage_roof_ms" in result:
        _show_rates(result)
        _show_stages(result)
    if f"stage_ms{BATCH}" in result:
        _show_batch_stages(result)
        _show_memory(result)
    for suffix in ("", BATCH):
        if f"decoder_ms{suffix}" in result:
            _show_decoders(result, suffix)
    for name in CURVES:
        if f"step_ms_by_{name}" in result:
            _show_curve(name, result[f"step_ms_by_{name}"])
    is_range = ("_min", "_max")
    rows = [row for row in report.rows if row.name.startswith(HEADLINES) and not row.name.endswith(is_range)]
    replace(report, rows=rows).show()


def _show_rates(result: Mapping[str, Any]) -> None:
    rates = [
        (f"matrix products, {name}, GFLOP/s", rate) for name, rate in result["gemm_gflops_per_s"].items()
    ]
    rates += [
        ("copy in memory, read and written, GB/s", result["memory_copy_gb_per_s"]),
        ("copy within the cache, GB/s", result["cache_copy_gb_per_s"]),
        ("an operation on a few numbers, us", result["operation_us"]),
    ]
    console.print_table("what this machine can do", ["rate", "value"], rates)


def _show_stages(result: Mapping[str, Any]) -> None:
    columns = [
        result[f"stage_{name}"]
        for name in ("gflop", "roof_ms", "roof_share", "arithmetic_ms", "moving_ms", "operations_ms")
    ]
    rows = [
        (stage, milliseconds, *(column[stage] for column in columns))
        for stage, milliseconds in result["stage_ms"].items()
        if stage in columns[0]
    ]
    console.print_table("where the time goes", STAGE_COLUMNS, rows, caption=STAGE_CAPTION)


def _show_batch_stages(result: Mapping[str, Any]) -> None:
    rows = [
        (stage, one_ms, all_ms, all_ms / VECTOR_CARS, all_ms / VECTOR_CARS / one_ms if one_ms else math.nan)
        for stage, one_ms in result["stage_ms"].items()
        if (all_ms := result[f"stage_ms{BATCH}"][stage])
    ]
    rows += [_stage_sum(result)]
    console.print_table(
        f"where the time goes with {VECTOR_CARS} cars",
        ["stage", "ms, 1 car", f"ms, {VECTOR_CARS} cars", "ms per car", "ratio"],
        rows,
        caption="milliseconds of an env step; ratio: what a car costs among the others against alone",
    )


def _stage_sum(result: Mapping[str, Any]) -> tuple[str, float, float, float, float]:
    one_ms, all_ms = (sum(result[f"stage_ms{suffix}"].values()) for suffix in ("", BATCH))
    per_car_ms = all_ms / VECTOR_CARS
    return "all", one_ms, all_ms, per_car_ms, per_car_ms / one_ms


def _show_memory(result: Mapping[str, Any]) -> None:
    columns = ("resident_memory_mb", "resident_growth_mb", "peak_memory_mb")
    rows = [
        (cars, *(result[f"{column}{suffix}"] for column in columns))
        for cars, suffix in (("1", ""), (str(VECTOR_CARS), BATCH))
    ]
    console.print_table(
        "memory of the process, MB",
        ["cars", "resident", "growth", "peak"],
        rows,
        caption="after the drive; from its first counted step to its last; the largest so far",
    )


def _show_decoders(result: Mapping[str, Any], suffix: str) -> None:
    milliseconds, cars = result[f"decoder_ms{suffix}"], suffix.removeprefix("_batch") or "1"
    precisions = result["decoder_precision"][f"batch {cars}"]
    rows = [
        (
            name,
            precisions[name],
            f"{result['decoder_parameters'].get(name, 0) / 1e6:.2f}",
            median_ms,
            f"{result[f'decoder_ms{suffix}_min'][name]:.1f} .. {result[f'decoder_ms{suffix}_max'][name]:.1f}",
            median_ms / milliseconds["ours"],
        )
        for name, median_ms in milliseconds.items()
    ]
    console.print_table(
        f"decoders of one budget, {cars} car(s)",
        ["decoder", "type", "M", "ms", "min .. max", "ratio"],
        rows,
        caption="M: million parameters of the layers; ms: per frame and car",
    )


def _show_curve(name: str, milliseconds: Mapping[str, float]) -> None:
    first = next(iter(milliseconds.values()))
    rows = [(key, value, value / first) for key, value in milliseconds.items()]
    title = f"a step of the model against {name}"
    console.print_table(title, [name, "ms per car" if name == "batch" else "ms", "ratio"], rows)
