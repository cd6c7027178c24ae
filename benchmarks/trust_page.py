"""What the trust page shows besides figures: two scatter plots, the policies' table, end reasons, largest gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.page import Plot, image_tag, png_of
from benchmarks.ranking_statistics import RankingAgreement
from benchmarks.report import Target
from benchmarks.trust_disagreement import EndReasons
from benchmarks.trust_figures import CORRELATIONS, Trust
from benchmarks.trust_pairs import PARTS, SCORE, Comparison, PolicyRow, short_name
from drivesim.episode import EpisodeConfig
from drivesim.metrics.scores import formula_lines

TARGETS = (
    Target(name="num_policies", limit=10),
    Target(name="spearman", limit=0.85),
    Target(name="spearman_low", limit=0.6),
    Target(name="mmrv_share_of_range", limit=0.05, is_minimum=False),
)
REWARD_PARTS = ("progress", "lateral", "heading", "comfort", "off_road", "collision")
STEPS = "steps after the last recorded frame"
PLOTS = (
    Plot(
        title="Reward parts: mean absolute difference while both go on",
        unit="reward",
        lines={name: f"reward_gap_{name}" for name in REWARD_PARTS},
        x_label=STEPS,
    ),
    Plot(
        title="Episodes that are not over",
        unit="share",
        lines={"reference": "survival_reference", "imagined": "survival_imagined"},
        x_label=STEPS,
    ),
)
OFF_ROAD_LIMIT = EpisodeConfig().off_road_limit
SQUARE_INCHES = (5.2, 5.0)
MARKERS = "osD^v<>PX*hd"


def sections(comparison: Comparison, trust: Trust) -> list[str]:
    """Return the page's own pieces of html, first to last."""
    figures = {
        "one point per policy": policy_scatter(trust.table),
        "one point per episode": episode_scatter(comparison),
    }
    images = [image_tag(png_of(figure), title) for title, figure in figures.items()]
    return [
        f"<h2>What it means</h2><p>{escape(trust.verdict)}</p>",
        "<h2>Policies in both worlds</h2>",
        _table(POLICY_COLUMNS, [policy_cells(row) for row in trust.table]),
        f'<div class="plots">{"".join(images)}</div>',
        _table(MEASURE_COLUMNS, [measure_cells(row) for row in trust.table]),
        "<h2>Agreement part by part</h2>",
        _table(PART_COLUMNS, part_cells(trust.parts)),
        "<h2>How episodes end</h2>",
        '<p class="note">Rows: in the reference world; columns: in the imagined world.</p>',
        _table(["", *trust.reasons.reasons], _reason_cells(trust.reasons)),
        "<h2>Whom the imagined world flatters (above 0) or wrongs (below 0)</h2>",
        _gap_table("policy", comparison.gaps_by(lambda pair: pair.policy)),
        _gap_table("scene", comparison.gaps_by(lambda pair: pair.scene)),
        "<h2>What the scores are</h2>",
        *[f'<p class="note">{escape(line)}</p>' for line in formula_lines(off_road_limit=OFF_ROAD_LIMIT)],
    ]


POLICY_COLUMNS = ("policy", "reference", "imagined", "gap", "95 % interval", "rank", "same drive", "episodes")
_NAMES = {
    "hd_score": "HD-style",
    "route_completion": "route",
    "off_road_rate": "off-road",
    "time_to_collision": "TTC",
}
MEASURE_COLUMNS = ("policy: reference / imagined", *[_NAMES.get(name, name) for name in PARTS])


def policy_cells(row: PolicyRow) -> list[object]:
    """Return a policy's score in both worlds, under `POLICY_COLUMNS`; ``rank`` is reference / imagined."""
    return [
        short_name(row.policy),
        row.reference[SCORE],
        row.imagined[SCORE],
        row.imagined[SCORE] - row.reference[SCORE],
        f"{row.gap[0]:+.3f} .. {row.gap[1]:+.3f}",
        f"{row.reference_rank} / {row.imagined_rank}",
        f"{row.same_drive_share:.0%}",
        row.episodes,
    ]


def measure_cells(row: PolicyRow) -> list[object]:
    """Return the parts of a policy's score in both worlds, under `MEASURE_COLUMNS`."""
    worlds = (row.reference, row.imagined)
    both = [[f"{world[name]:.2f}" if name in world else "-" for world in worlds] for name in PARTS]
    return [short_name(row.policy), *[" / ".join(values) for values in both]]


PART_COLUMNS = ("part", *CORRELATIONS, "Spearman, 95 % interval", "MMRV / range")


def part_cells(parts: Mapping[str, RankingAgreement]) -> list[list[object]]:
    """Return a row per part, under `PART_COLUMNS`."""
    return [
        [
            name.replace("_", " "),
            *[getattr(agreement, correlation).value for correlation in CORRELATIONS],
            f"{agreement.spearman.low:.2f} .. {agreement.spearman.high:.2f}",
            agreement.mmrv_share_of_range.value,
        ]
        for name, agreement in parts.items()
    ]


def policy_scatter(table: Sequence[PolicyRow]) -> Figure:
    """Draw each policy's score in the imagined world over its score in the reference world."""
    figure, axes = _square("Score of each policy")
    for index, row in enumerate(table):
        x, y = row.reference[SCORE], row.imagined[SCORE]
        reach = [[max(y - (x + row.gap[0]), 0.0)], [max(x + row.gap[1] - y, 0.0)]]
        marker = MARKERS[index % len(MARKERS)]
        axes.errorbar(
            x, y, yerr=reach, fmt=marker, markersize=6, capsize=2, linewidth=0.8, label=short_name(row.policy)
        )
    axes.legend(fontsize=7, loc="best")
    return figure


def episode_scatter(comparison: Comparison) -> Figure:
    """Draw each episode's score in the imagined world over its score in the reference world."""
    figure, axes = _square("Score of each episode")
    for index, name in enumerate(comparison.policies):
        mine = [pair for pair in comparison.pairs if pair.policy == name and pair.is_comparable()]
        x = [pair.reference.score(SCORE) for pair in mine]
        y = [pair.imagined.score(SCORE) for pair in mine]
        axes.scatter(x, y, s=16, alpha=0.6, marker=MARKERS[index % len(MARKERS)], label=short_name(name))
    axes.legend(fontsize=7, loc="best")
    return figure


def _square(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SQUARE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999", linewidth=0.8, zorder=0)
    axes.set(title=title, xlabel="reference world", ylabel="imagined world", aspect="equal")
    axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
    axes.grid(alpha=0.3)
    return figure, axes


def _reason_cells(reasons: EndReasons) -> list[list[object]]:
    return [
        [name, *[int(count) for count in counts]]
        for name, counts in zip(reasons.reasons, reasons.counts, strict=True)
    ]


def _gap_table(heading: str, gaps: Mapping[str, float]) -> str:
    return _table((heading, "imagined minus reference"), [[name, gap] for name, gap in gaps.items()])


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    if isinstance(value, int | float):
        return f'<td class="number">{value if isinstance(value, int) else f"{value:.3f}"}</td>'
    return f"<td>{escape(str(value))}</td>"
