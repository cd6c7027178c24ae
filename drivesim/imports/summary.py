"""What an import did, in words for the console and as a record for ``import.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from drivesim import console
from drivesim.imports.lag import LagEstimate
from drivesim.imports.motion import MEASURED, STEERED, Sources
from drivesim.imports.options import Fit, ImportConfig
from drivesim.imports.remarks import Check, Loss, of_all
from drivesim.imports.stretches import LeftOut

_FITS = {Fit.CROP: "cropped to", Fit.PAD: "padded to", Fit.STRETCH: "stretched to"}
TABLE_COLUMNS = ("", "value")


@dataclass(kw_only=True, slots=True)
class RecordingSummary:
    """What one recording became."""

    name: str
    num_scenes: int
    length_s: float  # of its scenes
    recorded_s: float
    num_pictures: int
    sizes: dict[str, int]  # pictures by size
    sources: Sources
    has_calibration: bool
    estimates: dict[str, LagEstimate]  # of it alone, by where a yaw rate comes from
    left_out: LeftOut
    first_unreadable: str
    problems: list[str]

    @property
    def picture_rate_hz(self) -> float:
        """Return the pictures per second."""
        return (self.num_pictures - 1) / self.recorded_s if self.recorded_s > 0 else 0.0


@dataclass(kw_only=True, slots=True)
class ImportSummary:
    """What an import did; estimates are of the recordings as recorded, before any correction."""

    kind: str
    source: str
    given: ImportConfig
    used: ImportConfig  # with the corrections of ``--fix``
    estimates: dict[str, LagEstimate]  # by where a yaw rate comes from
    yaw_rate_source: str
    recordings: list[RecordingSummary]
    refused: list[str]  # what could not be used at all

    @property
    def advice(self) -> str:
        """Return the flags that would set lag and signs right as the pictures tell; empty where all is right."""
        flags = []
        told = self.estimates.get(self.yaw_rate_source)
        if told is not None and told.lag_frames is not None and not told.allows(self.used.lag_frames):
            flags.append(f"--lag {told.lag_frames}")
        for source, flag, is_flipped in (
            (STEERED, "flip-steering", self.used.flip_steering),
            (MEASURED, "flip-yaw-rate", self.used.flip_yaw_rate),
        ):
            found = self.estimates.get(source)
            if found is not None and found.is_opposite not in (None, is_flipped):
                flags.append(f"--{'no-' if is_flipped else ''}{flag}")
        return " ".join(flags)

    @property
    def doubts(self) -> list[str]:
        """Return what else speaks against the recorded turns, in sentences."""
        sizes = [
            f"{found.size_words} by {name}: a unit, the speed or the steering ratio is likely wrong; check "
            "--speed-unit, --steering-unit, --steering-ratio, --wheelbase and --field-of-view"
            for name, found in self.estimates.items()
            if not found.has_right_size
        ]
        return sizes + self._disagreements()

    def _disagreements(self) -> list[str]:
        """Name the recordings that, on their own, speak against what all of them say together."""
        together = self.estimates.get(self.yaw_rate_source)
        if together is None or together.lag_frames is None:
            return []
        sentences = []
        for each in self.recordings:
            alone = each.estimates.get(self.yaw_rate_source)
            if alone is None or alone.lag_frames is None:
                continue
            low, high = alone.possible_lags
            is_near = low - 1 <= together.lag_frames <= high + 1
            if not is_near or alone.is_opposite != together.is_opposite:
                sentences.append(f"{each.name} differs from the others ({alone.words}); import it on its own")
        return sentences

    def rows(self) -> list[tuple[str, str]]:
        """Return the lines of the table that is printed."""
        every = self.recordings
        used, recorded_s = self.used, sum(each.recorded_s for each in every)
        sizes = {size for each in every for size in each.sizes}
        length_s = sum(each.length_s for each in every)
        rows = [
            ("recordings", f"{len(every)}, {recorded_s / 60:.1f} min"),
            ("scenes", f"{sum(each.num_scenes for each in every)}, {length_s / 60:.1f} min"),
            ("rate", f"{_range([each.picture_rate_hz for each in every])} Hz -> {used.rate_hz:g} Hz"),
            ("size", f"{', '.join(sorted(sizes))} {_FITS[used.fit]} {used.width_px}x{used.height_px}"),
            ("camera", "calibrated" if all(each.has_calibration for each in every) else _camera_words(used)),
        ]
        for what in ("speed", "yaw_rate", "poses", "steering"):
            found = sorted({getattr(each.sources, what) for each in every})
            rows.append((f"{what.replace('_', ' ')} from", " or ".join(found)))
        rows += [(f"{name}, as seen", found.words) for name, found in self.estimates.items()]
        remarks = self.remarks()
        rows.append(("corrected by", self._corrections()))
        rows += [("left out", line) for line in remarks["left_out"] or ["nothing"]]
        rows += [("noted", line) for line in remarks["noted"]]
        if count := len(self.warnings):
            rows.append(("check", f"{console.counted(count, 'thing')}, see the warnings below"))
        return rows

    def _corrections(self) -> str:
        used = self.used
        words = [f"--lag {used.lag_frames}"] if used.lag_frames else []
        words += ["--flip-steering"] if used.flip_steering else []
        words += ["--flip-yaw-rate"] if used.flip_yaw_rate else []
        return " ".join(words) or "nothing"

    @property
    def warnings(self) -> list[str]:
        """Return everything that makes the data wrong if nobody looks at it, in sentences."""
        misfit = f"pictures and recorded turns do not fit; import again with {self.advice} (or --fix)"
        return [*([misfit] if self.advice else []), *self.doubts, *self.remarks()["check"]]

    def remarks(self) -> dict[str, list[str]]:
        """Return the sentences on what was left out, what is good to know, and what was guessed."""
        found: dict[str, list[tuple[str, str]]] = {"left_out": [], "noted": [], "check": []}
        for each in self.recordings:
            losses = [Loss(line) for line in (*each.left_out.lines, each.first_unreadable) if line]
            for line in (*losses, *each.problems):
                kind = (
                    "left_out" if isinstance(line, Loss) else "check" if isinstance(line, Check) else "noted"
                )
                found[kind].append((each.name, line))
        remarks = {kind: of_all(lines) for kind, lines in found.items()}
        remarks["left_out"] = [*self.refused, *remarks["left_out"]]
        return remarks

    def record(self) -> dict[str, Any]:
        """Return everything as values that JSON knows."""
        record = _plain(asdict(self))
        assert isinstance(record, dict)
        record["advice"], record["doubts"] = self.advice, self.doubts
        remarks = self.remarks()
        record |= {"left_out": remarks["left_out"], "noted": remarks["noted"], "check": self.warnings}
        for name, found in self.estimates.items():
            record["estimates"][name]["words"] = found.words
        return record


def _camera_words(config: ImportConfig) -> str:
    lens = "given" if config.field_of_view_rad else "assumed: 70 degrees wide (--field-of-view)"
    return f"{lens}, {config.camera_height_m:g} m above the ground"


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
