"""The report of a closed-loop run: one html file with table, plots, films and worst moments; it fetches nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from benchmarks.closed_loop_episodes import EpisodeResult, World
from benchmarks.closed_loop_figures import (
    COLUMNS,
    CURVES,
    END_HEADINGS,
    PolicyFigures,
    ScoreColumn,
    curve_of,
    estimate_words,
)
from benchmarks.page import PLOT_INCHES, STYLE, data_uri, facts_table, jpeg_of, png_of
from drivesim.files import atomic_path
from drivesim.metrics.scores import FAILED_ENDS, FORMULAS, NOT_THEIR_NUMBERS
from drivesim.scene.types import Image
from drivesim.video import contact_sheet, with_label, write_video

MAX_FILM_SCENES = 8
FILM_COLUMNS = 4
FILM_CRF = 30
FILM_HOLD_FRAMES = 4  # that the last picture stands
NUM_WORST, NUM_WORST_PER_POLICY = 8, 2
STRIP_STEPS = (-12, -9, -6, -4, -2, -1, 0)  # relative to the worst moment
PAGE_STYLE = """
video { max-width: 100%; background: #181818 } figure { margin: 1em 0 } figcaption { color: #666 }
td, th { padding: .15em .5em; font-size: 13px } .failed { color: #a11 }
.plots img { max-width: 49%; vertical-align: top }
"""


def write_page(
    path: Path,
    results: Sequence[EpisodeResult],
    figures: Sequence[PolicyFigures],
    *,
    title: str,
    horizon: int,
    off_road_limit: float,
    facts: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write the page; it appears only when it is complete.

    Args:
        path: of the html file.
        results: all episodes.
        figures: of every policy, in the order of the table.
        title: of the page.
        horizon: steps of an episode.
        off_road_limit: of the formulas.
        facts: tables of names and values by heading, shown last.
    """
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">',
        f"<title>{escape(title)}</title><style>{STYLE}{PAGE_STYLE}</style></head><body><h1>{escape(title)}</h1>",
        _table(figures),
        _failures(results),
        _formulas(off_road_limit),
        *_plots(results, figures, horizon),
        *_films(results, figures),
        *_worst_moments(results),
        *[facts_table(rows, title=heading) for heading, rows in facts.items()],
        "</body></html>\n",
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")


# ---------------------------------------------------------------------------------------- table and words


def _table(figures: Sequence[PolicyFigures]) -> str:
    headings = ["policy", *[column.heading for column in COLUMNS], *END_HEADINGS]
    rows = []
    for one in figures:
        cells = [f"<td>{escape(estimate_words(one.estimates.get(column.name)))}</td>" for column in COLUMNS]
        rows.append(
            f"<tr><td>{escape(one.policy)}</td>{''.join(cells)}<td>{one.num_episodes}</td>"
            f"<td>{one.num_failed}</td><td>{escape(one.end_words())}</td></tr>"
        )
    head = "".join(f"<th>{escape(name)}</th>" for name in headings)
    note = "Means over episodes; 95 % intervals, bootstrapped over scenes. Failed episodes count in no mean."
    return "\n".join([f"<h2>Scores</h2><table><tr>{head}</tr>", *rows, f'</table><p class="note">{note}</p>'])


def _failures(results: Sequence[EpisodeResult]) -> str:
    rows = [
        f'<li class="failed">{escape(result.job.id)}: {escape(result.failure)}</li>'
        for result in results
        if result.is_failed
    ]
    return "\n".join(["<h2>Failed episodes</h2><ul>", *rows, "</ul>"]) if rows else ""


def _formulas(off_road_limit: float) -> str:
    texts = FORMULAS | {"DAC": FORMULAS["DAC"].format(off_road_limit=off_road_limit)}
    rows = [f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in texts.items()]
    sentence = f"<p><b>{escape(NOT_THEIR_NUMBERS)}</b></p>"
    return "\n".join(["<h2>How the scores are made</h2>", sentence, "<table>", *rows, "</table>"])


# ---------------------------------------------------------------------------------------------------- plots


def _plots(results: Sequence[EpisodeResult], figures: Sequence[PolicyFigures], horizon: int) -> list[str]:
    drawn = [score_plot(results, figures, column) for column in COLUMNS]
    lines = {
        curve: {one.policy: curve_of(_of_policy(results, one.policy), curve, horizon) for one in figures}
        for curve in CURVES
        if results[0].world is World.WORLDDREAMER or not curve.is_imagined
    }
    rate_hz = results[0].rate_hz
    drawn += [curve_plot(curve.title, curve.unit, rows, rate_hz) for curve, rows in lines.items()]
    images = [f'<img alt="plot" src="{data_uri(png, "image/png")}">' for png in drawn if png is not None]
    note = "Large marks are means with 95 % intervals over scenes, small ones are episodes."
    return [f'<h2>Plots</h2><p class="note">{note}</p><div class="plots">', *images, "</div>"]


def score_plot(
    results: Sequence[EpisodeResult], figures: Sequence[PolicyFigures], column: ScoreColumn
) -> bytes | None:
    """Return one score of all policies as PNG: means, intervals and episodes; None if nobody has it."""
    shown = [
        (row, one.estimates[column.name]) for row, one in enumerate(figures) if column.name in one.estimates
    ]
    if not shown:
        return None
    figure = Figure(figsize=(PLOT_INCHES[0], 1.2 + 0.27 * len(figures)), layout="constrained")
    axes, rng = figure.subplots(), np.random.default_rng(0)
    for row, one in enumerate(figures):
        scores = [result.scores.results()[column.name] for result in _of_policy(results, one.policy)]
        values = [score.value for score in scores if score.is_valid]
        jitter = rng.uniform(-0.25, 0.25, len(values))
        axes.scatter(values, row + jitter, s=7, color="#888", alpha=0.5, linewidths=0)
    for row, estimate in shown:
        axes.plot([estimate.low, estimate.high], [row, row], color="#1f5fa8", linewidth=2)
        axes.plot(estimate.value, row, "o", color="#1f5fa8", markersize=5)
    axes.set_yticks(range(len(figures)), [one.policy[-28:] for one in figures], fontsize=8)
    axes.invert_yaxis()
    axes.set(title=column.heading, xlabel=column.note, xlim=(-0.03, 1.03))
    axes.grid(alpha=0.3, axis="x")
    return png_of(figure)


def curve_plot(
    title: str, unit: str, lines: Mapping[str, np.ndarray[Any, Any]], rate_hz: float
) -> bytes | None:
    """Return curves over time as PNG; None if there is not a number in them."""
    if all(np.isnan(values).all() for values in lines.values()):
        return None
    figure = Figure(figsize=(PLOT_INCHES[0] * 1.25, PLOT_INCHES[1]), layout="constrained")
    axes, colours = figure.subplots(), colormaps["tab20"]
    for index, (label, values) in enumerate(lines.items()):
        time_s = np.arange(1, len(values) + 1) / rate_hz
        style = "-" if index < colours.N else "--"
        axes.plot(time_s, values, style, color=colours(index % colours.N), label=label[-28:], linewidth=1.4)
    axes.set(title=title, xlabel="s", ylabel=unit)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    return png_of(figure)


def _of_policy(results: Sequence[EpisodeResult], policy: str) -> list[EpisodeResult]:
    return [result for result in results if result.job.policy == policy]


# ---------------------------------------------------------------------------------------------------- films


def _films(results: Sequence[EpisodeResult], figures: Sequence[PolicyFigures]) -> list[str]:
    parts = []
    for one in figures:
        shown = _one_per_scene([result for result in _of_policy(results, one.policy) if result.video])
        if shown:
            film = data_uri(film_of(shown), "video/mp4")
            parts += [
                f"<figure><figcaption>{escape(one.policy)}</figcaption>",
                f'<video controls muted loop playsinline preload="auto" src="{film}"></video></figure>',
            ]
    return ["<h2>Films</h2>", *parts] if parts else []


def _one_per_scene(results: Sequence[EpisodeResult]) -> list[EpisodeResult]:
    by_scene: dict[str, EpisodeResult] = {}
    for result in results:
        by_scene.setdefault(result.job.scene, result)
    return list(by_scene.values())[:MAX_FILM_SCENES]


def film_of(results: Sequence[EpisodeResult]) -> bytes:
    """Return one mp4 of episodes side by side; those that are over stand still, with the reason."""
    clips = [result.frames() for result in results]
    length = max(len(clip) for clip in clips) + FILM_HOLD_FRAMES

    def picture(index: int) -> Image:
        tiles = [_tile(result, clip, index) for result, clip in zip(results, clips, strict=True)]
        return contact_sheet(tiles, min(FILM_COLUMNS, len(tiles)))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_video(path, (picture(index) for index in range(length)), results[0].rate_hz, crf=FILM_CRF)
        return path.read_bytes()


def _tile(result: EpisodeResult, clip: Image, index: int) -> Image:
    last = len(clip) - 1
    words = f"{result.job.scene} {min(index, last) / result.rate_hz:.1f} s"
    return with_label(clip[min(index, last)], f"{words} {result.end_reason}" if index >= last else words)


# -------------------------------------------------------------------------------------------- worst moments


def _worst_moments(results: Sequence[EpisodeResult]) -> list[str]:
    parts = []
    for result in worst_episodes(results):
        step = worst_step(result)
        words = f"{result.job.policy} on {result.job.scene}, seed {result.job.seed}: {_what_happened(result, step)}"
        parts.append(f"<figure><figcaption>{escape(words)}</figcaption>")
        jpeg = data_uri(jpeg_of([_strip(result, step)]), "image/jpeg")
        parts.append(f'<img class="sheet" alt="{escape(words)}" src="{jpeg}"></figure>')
    return ["<h2>Worst moments</h2>", *parts] if parts else []


def worst_episodes(results: Sequence[EpisodeResult]) -> list[EpisodeResult]:
    """Return the episodes of the lowest scores, few of each policy; failed ones have none."""
    shown = [
        result for result in results if result.video and result.num_steps and result.scores.pdms.is_valid
    ]
    chosen: list[EpisodeResult] = []
    for result in sorted(shown, key=lambda one: (one.scores.pdms.value, one.scores.hd_score.value)):
        if len(_of_policy(chosen, result.job.policy)) < NUM_WORST_PER_POLICY and len(chosen) < NUM_WORST:
            chosen.append(result)
    return chosen


def worst_step(result: EpisodeResult) -> int:
    """Return the index of the step at which it went wrong: the crash, else the step of the lowest reward."""
    if result.end_reason in FAILED_ENDS:
        return result.num_steps - 1
    return int(np.argmin(result.arrays["reward"]))


def _what_happened(result: EpisodeResult, step: int) -> str:
    at = f"{(step + 1) / result.rate_hz:.1f} s"
    score = f"PDMS-style {result.scores.pdms.value:.2f}"
    if result.end_reason in FAILED_ENDS:
        return f"{result.end_reason} after {at}, {score}"
    return f"lowest reward {float(result.arrays['reward'][step]):.2f} after {at}, {score}"


def _strip(result: EpisodeResult, step: int) -> list[tuple[str, Image]]:
    """Return labelled pictures before and at a step; picture ``i`` was shown after step ``i``, counted from 1."""
    frames, moment = result.frames(), step + 1
    indices = sorted({max(moment + offset, 0) for offset in STRIP_STEPS})
    return [(f"{index / result.rate_hz:.1f} s", frames[index]) for index in indices]
