"""A run's learning curve and where it leads: `python -m benchmarks.learning_curve RUN --out F.png`.

Figure = a + b * step^-c, fitted by least squares to means over equal parts of the logarithm of the step, so that
early and late steps count alike. How far such a fit can be trusted is printed beside it: fitted to the first half
of the steps alone, how far off the end is it?
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Report, parsed, run_command, run_facts
from drivesim import console
from drivesim.errors import InputError, nearest
from drivesim.files import atomic_path
from drivesim.training.reports import LOG_NAME

Floats = NDArray[np.float64]

KINDS = ("train", "evaluation")  # lines of a log
FACTORS = (2, 4, 10)  # how many times as long
_EXPONENTS = np.geomspace(0.03, 3.0, 400)
_NUM_BINS = 60
_MIN_POINTS = 8


@dataclass(kw_only=True, slots=True)
class Curve:
    """A figure over the steps."""

    name: str
    steps: Floats  # (N,) rising
    values: Floats  # (N,)


@dataclass(kw_only=True, slots=True)
class PowerLaw:
    """``a + b * step^-c`` and how well it fits."""

    a: float
    b: float
    c: float
    residual: float  # root mean square, in units of the figure

    def at(self, steps: Floats | float) -> Floats:
        """Return the figure at some steps."""
        return np.asarray(self.a + self.b * np.asarray(steps, dtype=np.float64) ** -self.c)

    @property
    def is_at_limit(self) -> bool:
        """Tell whether a yet flatter or steeper curve would fit better, so that the limit ``a`` means little."""
        return self.c in (_EXPONENTS[0], _EXPONENTS[-1])


def read_curve(run: Path, figure: str, *, kind: str | None = None) -> Curve:
    """Read a figure from a run's log; of lines that came again after a kill the last one counts.

    Args:
        run: The run's folder.
        figure: Its name in the log.
        kind: Of the lines, one of ``KINDS``; None takes the first that has the figure. Some have the same name in both.

    Raises:
        InputError: there is no log, or it lacks the figure.
    """
    path = run / LOG_NAME
    if not path.is_file():
        raise InputError(f"there is no {LOG_NAME} in {run}; name the folder of a training run")
    points: dict[str, dict[float, float]] = {name: {} for name in KINDS}
    names: set[str] = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a kill cut this line
        if row.get("kind") in ([kind] if kind else KINDS):
            names |= row.keys() - {"step", "kind"}
            if isinstance(row.get(figure), int | float) and row["step"] > 0:
                points[row["kind"]][float(row["step"])] = float(row[figure])
    found = next((found for found in points.values() if found), None)
    if found is None:
        raise InputError(f"{path} has no figure {figure!r}; {nearest(figure, sorted(names))}")
    steps = np.array(sorted(found))
    return Curve(name=figure, steps=steps, values=np.array([found[step] for step in steps]))


def fit_power_law(curve: Curve) -> PowerLaw:
    """Fit by least squares: for every exponent the best ``a`` and ``b`` are linear, and the best exponent wins.

    Raises:
        InputError: too few points.
    """
    if len(curve.steps) < _MIN_POINTS:
        raise InputError(
            f"{curve.name} has {len(curve.steps)} points to fit, and {_MIN_POINTS} are needed; "
            "train longer, or with a smaller training.log_every"
        )
    steps, values = _binned(curve)
    best: PowerLaw | None = None
    for c in _EXPONENTS:
        design = np.stack([np.ones_like(steps), steps**-c], axis=1)
        (a, b), *_ = np.linalg.lstsq(design, values, rcond=None)
        residual = float(np.sqrt(np.mean((design @ [a, b] - values) ** 2)))
        if best is None or residual < best.residual:
            best = PowerLaw(a=float(a), b=float(b), c=float(c), residual=residual)
    assert best is not None
    return best


def without_start(curve: Curve, share: float) -> Curve:
    """Leave out the first steps, in which the learning rate warms up and no law holds."""
    is_kept = curve.steps >= share * curve.steps[-1]
    return Curve(name=curve.name, steps=curve.steps[is_kept], values=curve.values[is_kept])


def hindcast_error(curve: Curve) -> float | None:
    """Return by how much the fit to the first half of the steps misses the last tenth; None if that is too short."""
    last = curve.steps[-1]
    is_early, is_late = curve.steps <= 0.5 * last, curve.steps >= 0.9 * last
    if is_early.sum() < _MIN_POINTS:
        return None
    early = Curve(name=curve.name, steps=curve.steps[is_early], values=curve.values[is_early])
    return float(np.mean(fit_power_law(early).at(curve.steps[is_late]) - curve.values[is_late]))


def measure(
    run: Path, *, figure: str, skipped_share: float, kind: str | None = None
) -> tuple[Curve, PowerLaw, Report]:
    """Read, fit and extrapolate."""
    whole = read_curve(run, figure, kind=kind)
    curve = without_start(whole, skipped_share)
    law = fit_power_law(curve)
    report = Report(title="learning curve")
    report.facts = {
        "run": str(run),
        "figure": figure,
        "steps": int(whole.steps[-1]),
        "points": len(whole.steps),
    }
    report.add("a", law.a, note="the fit is a + b * step^-c")
    report.add("b", law.b)
    report.add("c", law.c, note="at the end of its range: do not trust a" if law.is_at_limit else "")
    report.add("residual", law.residual, note="root mean square")
    missed = hindcast_error(curve)
    if missed is not None:
        report.add(
            "hindcast_error", missed, note="the end as told by the first half of the steps, minus the end"
        )
    report.add("fitted", float(law.at(whole.steps[-1])), key="1x")
    for factor in FACTORS:
        report.add("fitted", float(law.at(factor * whole.steps[-1])), key=f"{factor}x", note="extrapolated")
    return whole, law, report


def draw(curve: Curve, law: PowerLaw, path: Path) -> bool:
    """Write the curve and its fit, drawn on as far as it is extrapolated; False if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        console.warn(f"{path} is not drawn, as matplotlib is not installed; run: pip install matplotlib")
        return False
    picture = Figure(figsize=(8, 4.5), layout="constrained")
    axes = picture.add_subplot()
    axes.plot(curve.steps, curve.values, ".", markersize=3, color="0.6", label=f"{curve.name} as logged")
    last = curve.steps[-1]
    steps = np.geomspace(curve.steps[0], FACTORS[-1] * last, 400)
    label = f"{law.a:.3g} + {law.b:.3g} step^-{law.c:.2g}, residual {law.residual:.2g}"
    axes.plot(steps[steps <= last], law.at(steps[steps <= last]), color="C0", label=label)
    axes.plot(steps[steps >= last], law.at(steps[steps >= last]), "--", color="C0", label="extrapolated")
    ends = np.array(FACTORS, dtype=np.float64) * last
    axes.plot(ends, law.at(ends), "o", color="C0")
    low, high = np.quantile(curve.values, [0.0, 0.98])
    margin = 0.1 * max(high - low, 1e-9)
    axes.set_ylim(min(low, float(law.at(ends).min())) - margin, max(high, float(law.at(ends).max())) + margin)
    axes.set(xscale="log", xlabel="step", ylabel=curve.name)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        picture.savefig(temporary, dpi=120)
    console.say(f"wrote {path}")
    return True


def _binned(curve: Curve) -> tuple[Floats, Floats]:
    """Return mean logarithmic step and mean value in equal parts of the logarithm; empty parts are left out."""
    logs = np.log(curve.steps)
    edges = np.linspace(logs[0], logs[-1], _NUM_BINS + 1)
    bins = np.clip(np.searchsorted(edges, logs, side="right") - 1, 0, _NUM_BINS - 1)
    counts = np.bincount(bins, minlength=_NUM_BINS)
    is_filled = counts > 0
    steps = np.bincount(bins, weights=logs, minlength=_NUM_BINS)[is_filled] / counts[is_filled]
    values = np.bincount(bins, weights=curve.values, minlength=_NUM_BINS)[is_filled] / counts[is_filled]
    return np.exp(steps), values


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, fit, print, draw."""
    options = parse(arguments)
    if options.out.suffix.lower() != ".png":
        raise InputError(f"--out {options.out} must end in .png; the figures go into a .json beside it")
    if not 0.0 <= options.skip < 1.0:
        raise InputError(f"--skip is a share of the steps in [0, 1), got {options.skip}")
    curve, law, report = measure(
        options.run, figure=options.figure, skipped_share=options.skip, kind=options.kind
    )
    report.facts |= run_facts(options)
    report.show()
    report.write(options.out.with_suffix(".json"))
    draw(curve, law, options.out)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning_curve", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("--figure", default="loss", help="what to fit: any figure of its log.jsonl")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        help="lines that have it; by default those of training before those of evaluations",
    )
    parser.add_argument("--skip", type=float, default=0.05, help="share of the steps left out at the start")
    parser.add_argument(
        "--out", type=Path, required=True, help="png file; the figures go into a json beside it"
    )
    return parsed(parser, arguments)


if __name__ == "__main__":
    run_command(main)
