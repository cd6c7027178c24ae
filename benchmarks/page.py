"""A page of pictures beside the numbers: one html file with figures, plots and sheets in it, nothing to fetch."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.report import COLUMNS, Curve, Report, Sheet, draw_sheet
from drivesim import console
from drivesim.files import atomic_path
from drivesim.video import write_image

PLOT_INCHES = (5.6, 3.3)
PLOT_DPI = 110
JPEG_QUALITY = 85
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1500px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .15em .8em; border-bottom: 1px solid #ddd }
th { text-align: left } td.number { text-align: right; font-variant-numeric: tabular-nums }
.reached { color: #17692f } .missed { color: #a11 } .plots img { max-width: 100% } .note { color: #666 }
img.sheet { max-width: 100% }
"""


@dataclass(kw_only=True, slots=True)
class Plot:
    """Curves in one coordinate system."""

    title: str
    unit: str
    lines: Mapping[str, str]  # label -> name of a curve of the report; names that are missing are left out
    x_label: str = "steps after the last recorded frame"


@dataclass(kw_only=True, slots=True)
class Picture:
    """A sheet of labelled frames with a heading."""

    title: str
    rows: Sheet


def write_page(
    path: Path,
    report: Report,
    *,
    plots: Sequence[Plot],
    pictures: Sequence[Picture],
    sections: Sequence[str] = (),
) -> None:
    """Write the page; it appears only when it is complete."""
    text = render_page(report, plots=plots, pictures=pictures, sections=sections)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    console.say(f"wrote {path}")


def render_page(
    report: Report, *, plots: Sequence[Plot], pictures: Sequence[Picture], sections: Sequence[str] = ()
) -> str:
    """Return the page as html; ``sections`` are pieces of html of the benchmark's own, shown before the figures."""
    title = f"drivesim: {report.title}"
    drawn = [draw_plot(plot, report.curves) for plot in plots]
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>",
        facts_table(report.facts),
        *sections,
        _figures(report),
        '<h2>Curves</h2><p class="note">Bands are 95 % intervals, bootstrapped over scenes.</p>',
        '<div class="plots">',
        *[image_tag(png, "plot") for png in drawn if png],
        "</div>",
    ]
    for picture in pictures:
        jpeg = data_uri(jpeg_of(picture.rows), "image/jpeg")
        parts.append(f"<h2>{escape(picture.title)}</h2>")
        parts.append(f'<img class="sheet" alt="{escape(picture.title)}" src="{jpeg}">')
    return "\n".join([*parts, "</body></html>\n"])


def draw_plot(plot: Plot, curves: Mapping[str, Curve]) -> bytes | None:
    """Return a plot as PNG; None if the report has none of its curves."""
    lines = {label: curves[name] for label, name in plot.lines.items() if name in curves}
    if not lines:
        return None
    figure = Figure(figsize=PLOT_INCHES, layout="constrained")
    axes = figure.subplots()
    for label, curve in lines.items():
        low = [estimate.low for estimate in curve.estimates]
        high = [estimate.high for estimate in curve.estimates]
        marker = "o" if len(curve.steps) < 3 else None
        [line] = axes.plot(curve.steps, [e.value for e in curve.estimates], label=label, marker=marker)
        axes.fill_between(curve.steps, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
    axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.unit)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return png_of(figure)


def png_of(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=PLOT_DPI)
    return stream.getvalue()


def image_tag(png: bytes, alt: str) -> str:
    """Return a picture as html that holds it."""
    return f'<img alt="{escape(alt)}" src="{data_uri(png, "image/png")}">'


def jpeg_of(rows: Sheet) -> bytes:
    """Return a sheet as JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sheet.jpg"
        write_image(path, np.ascontiguousarray(draw_sheet(rows)), quality=JPEG_QUALITY)
        return path.read_bytes()


def data_uri(data: bytes, media_type: str) -> str:
    """Return a file as an address that needs no file."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def facts_table(facts: Mapping[str, object], *, title: str = "What was measured") -> str:
    """Return names and values under a heading."""
    rows = [f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in facts.items()]
    return "\n".join([f"<h2>{escape(title)}</h2><table>", *rows, "</table>"])


def _figures(report: Report) -> str:
    notes = {row.name: row.note for row in report.rows if row.note}
    lines = [
        "<h2>Figures</h2><table><tr>",
        *[f"<th>{escape(name)}</th>" for name in COLUMNS],
        "<th></th></tr>",
    ]
    for row, (label, _, interval, count, verdict) in zip(report.rows, report.cells(), strict=True):
        kind = str(verdict).rsplit(" ", maxsplit=1)[-1]
        note = escape(notes.pop(row.name, ""))
        lines.append(
            f'<tr><td>{escape(str(label))}</td><td class="number">{row.value:.3f}</td>'
            f'<td class="number">{escape(str(interval))}</td><td class="number">{escape(str(count))}</td>'
            f'<td class="{kind}">{escape(str(verdict))}</td><td class="note">{note}</td></tr>'
        )
    return "\n".join([*lines, "</table>"])
