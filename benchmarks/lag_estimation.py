"""Lag and sign of recorded controls, told from the pictures: how often right, on recordings whose lag is known.

Run ``python -m benchmarks.lag_estimation --seed 900000 --num-recordings 200 --out F.json``. A recording counts as
turning if its true yaw rate varies by 0.02 rad/s or more; where nothing can be told of such a one, that counts as
wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.held_out import add_seed_option, check_seeds
from benchmarks.lag_recordings import GRAPHICS, RATES_HZ, LaggedRecording, record_lagged
from benchmarks.report import Report, Target, parsed, run_command, run_facts
from benchmarks.statistics import wilson_share
from drivesim import console
from drivesim.imports.lag import LagEstimate, estimate, evidence_of
from drivesim.imports.motion import STEERED, yaw_signals
from drivesim.imports.options import ImportConfig
from drivesim.imports.survey import survey_of

TURNING_RADPS = 0.02
TARGETS = (Target(name="right_share", limit=0.95),)


@dataclass(kw_only=True, slots=True)
class Trial:
    """A recording without its pictures, and what was told of it."""

    truth: LaggedRecording
    told: LagEstimate
    told_without_speed: LagEstimate

    @property
    def is_turning(self) -> bool:
        """Tell whether there is anything to see."""
        return self.truth.turning_radps >= TURNING_RADPS

    def is_right(self, told: LagEstimate) -> bool:
        """Tell whether lag and sign are both exact."""
        return told.lag_frames == self.truth.lag_frames and told.is_opposite == self.truth.is_opposite


def try_recording(seed: int, *, duration_s: float) -> Trial:
    """Record a road and tell its lag and sign; the camera is not known."""
    truth, config = record_lagged(seed, duration_s=duration_s), ImportConfig()
    seen, interval_s = survey_of(truth.log, config).seen, 1.0 / truth.rate_hz
    told = estimate([evidence_of(seen, yaw_signals(truth.log, config)[STEERED], interval_s=interval_s)])
    truth.log.frames, truth.log.speed_mps = [], None
    without = estimate([evidence_of(seen, yaw_signals(truth.log, config)[STEERED], interval_s=interval_s)])
    return Trial(truth=truth, told=told, told_without_speed=without)


def report_on(trials: Sequence[Trial], kind: str) -> Report:
    """Return the shares of recordings told right."""
    report = Report(title=f"lag and sign from the pictures, {kind}", targets=TARGETS)
    turning = [trial for trial in trials if trial.is_turning]
    report.add("recordings", len(trials))
    report.add("turning_recordings", len(turning), note=f"yaw rate varies by {TURNING_RADPS} rad/s or more")
    if not turning:
        return report
    right = [trial.is_right(trial.told) for trial in turning]
    report.add_estimate("right_share", wilson_share(right), note="lag exact, sign right; of those turning")
    abstained = [trial.told.lag_frames is None for trial in turning]
    report.add_estimate("abstained_share", wilson_share(abstained), note="counted as wrong above")
    signs = [trial.told.is_opposite == trial.truth.is_opposite for trial in turning]
    report.add_estimate("sign_right_share", wilson_share(signs))
    near = [
        trial.told.lag_frames is not None and abs(trial.told.lag_frames - trial.truth.lag_frames) <= 1
        for trial in turning
    ]
    report.add_estimate("within_one_picture_share", wilson_share(near))
    without = [trial.is_right(trial.told_without_speed) for trial in turning]
    report.add_estimate("right_share_speed_unknown", wilson_share(without))
    for key in GRAPHICS:
        _add_part(report, "right_share_graphics", key, [t for t in turning if t.truth.graphics == key])
    for rate_hz in RATES_HZ:
        _add_part(
            report, "right_share_hz", f"{rate_hz:g}", [t for t in turning if t.truth.rate_hz == rate_hz]
        )
    still = [trial for trial in trials if not trial.is_turning]
    if still:
        misled = [trial.told.lag_frames is not None and not trial.is_right(trial.told) for trial in still]
        report.add_estimate(
            "misled_share_hardly_turning", wilson_share(misled), note="told wrong, not abstained"
        )
    return report


def _add_part(report: Report, name: str, key: str, trials: Sequence[Trial]) -> None:
    if trials:
        report.add_estimate(name, wilson_share([t.is_right(t.told) for t in trials]), key=key)


def say_wrong(trials: Sequence[Trial]) -> None:
    """Print the turning recordings that were not told right."""
    for trial in trials:
        truth = trial.truth
        if trial.is_turning and not trial.is_right(trial.told):
            sign = "opposite" if truth.is_opposite else "right"
            console.say(
                f"{truth.log.name}, {truth.rate_hz:g} Hz, {truth.graphics}, {truth.driver}, "
                f"{truth.turning_radps:.3f} rad/s: lag {truth.lag_frames}, sign {sign}; told: {trial.told.words}"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print, write."""
    options = parse(arguments)
    kind = check_seeds(options.seed, options.num_recordings)
    trials = []
    with console.progress_bar("recording and looking", options.num_recordings) as bar:
        for seed in range(options.seed, options.seed + options.num_recordings):
            trials.append(try_recording(seed, duration_s=options.duration))
            bar.advance()
    report = report_on(trials, kind)
    report.facts = {
        "first_seed": options.seed,
        "seconds_each": options.duration,
        **run_facts(options, num_threads=1),
    }
    say_wrong(trials)
    report.show()
    report.write(options.out)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lag_estimation", description=__doc__)
    add_seed_option(parser)
    parser.add_argument("--num-recordings", type=int, default=200, help="roads to record")
    parser.add_argument("--duration", type=float, default=30.0, help="seconds of each recording")
    parser.add_argument("--out", type=Path, required=True, help="json file")
    return parsed(parser, arguments)


if __name__ == "__main__":
    run_command(main)
