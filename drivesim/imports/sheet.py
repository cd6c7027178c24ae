"""The contact sheet of an import: recorded turns beside seen ones, over time and in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drivesim.imports.drive_log import DriveLog
from drivesim.imports.fitted_frames import FittedFrames
from drivesim.imports.survey import Survey
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Image, Scene
from drivesim.video import contact_sheet, with_label

RECORDED_RGB, SEEN_RGB = (255, 150, 40), (70, 190, 255)
_COLUMNS, _MAX_PICTURES = 5, 20
_BAR_PX, _CHART_PX, _GAP_PX = 5, 110, 4
_CHART_S = 60.0
_LETTER_PX, _LETTERS_GROW_FROM_PX = 6.6, 126  # of a label, on pictures up to that height
_LEAST_NAME = 8  # letters
_BACKGROUND, _AXIS = 24, 80
_LEAST_SCALE_RADPS = 0.1


@dataclass(kw_only=True, slots=True)
class SheetRow:
    """A recording as it was imported."""

    log: DriveLog  # with its lag and signs as corrected
    survey: Survey
    scenes: list[Scene]


def import_sheet(rows: Sequence[SheetRow]) -> Image:
    """Draw, of the recording with most scenes, its turns over time, and pictures of all recordings.

    Bars go to the left for turns to the left: orange as recorded, blue as seen in the pictures.
    """
    used = [row for row in rows if row.scenes]
    pictures = [_picture(row, scene, index) for row, scene, index in _chosen(used)]
    sheet = contact_sheet(pictures, min(_COLUMNS, len(pictures)))
    longest = max(used, key=lambda row: sum(len(scene) for scene in row.scenes))
    chart = _chart(longest, sheet.shape[1])
    gap = np.full((_GAP_PX, sheet.shape[1], 3), _BACKGROUND, dtype=np.uint8)
    return np.concatenate([chart, gap, sheet])


def _chosen(rows: Sequence[SheetRow]) -> list[tuple[SheetRow, Scene, int]]:
    """Spread the pictures over all scenes, in order of time."""
    every = [(row, scene, index) for row in rows for scene in row.scenes for index in range(1, len(scene))]
    places = np.unique(np.linspace(0, len(every) - 1, min(_MAX_PICTURES, len(every))).round().astype(int))
    return [every[place] for place in places]


def _picture(row: SheetRow, scene: Scene, index: int) -> Image:
    assert isinstance(scene.frames, FittedFrames)
    seen = row.survey.seen.at(float(row.log.frame_times_s[scene.frames.indices[index]]))
    recorded = float(scene.yaw_rate_radps[index])
    scale = max(float(np.abs(scene.yaw_rate_radps).max()), _LEAST_SCALE_RADPS)
    image = with_label(np.array(scene.frames[index]), _label(scene, index))
    _draw_bar(image, recorded / scale, 2 * _BAR_PX, RECORDED_RGB)
    _draw_bar(image, seen / scale, _BAR_PX, SEEN_RGB)
    return image


def _label(scene: Scene, index: int) -> str:
    """Return name, time and angle; a name too long for the picture loses its middle, as its ends tell most."""
    name = scene.name.encode("ascii", "replace").decode()
    told = f"{scene.timestamps_s[index]:.1f}s {np.degrees(scene.steering_rad[index]):+.1f}deg"
    height, width = scene.frames[index].shape[:2]
    letter_px = _LETTER_PX * max(1.0, height / _LETTERS_GROW_FROM_PX)
    room = max(int((width - 8) / letter_px) - len(told) - 1, _LEAST_NAME)
    if len(name) > room:
        behind = (room - 2) // 2
        name = f"{name[: room - 2 - behind]}..{name[len(name) - behind :]}"
    return f"{name} {told}"


def _draw_bar(image: Image, share: float, above_px: int, rgb: tuple[int, int, int]) -> None:
    """Draw a bar from the middle, to the left for positive shares."""
    height, width = image.shape[:2]
    rows = slice(height - above_px, height - above_px + _BAR_PX - 1)
    image[rows] = image[rows] // 3
    middle = width // 2
    if np.isfinite(share):
        end = round(middle - float(np.clip(share, -1, 1)) * (middle - 1))
        image[rows, min(end, middle) : max(end, middle) + 1] = rgb
    image[rows, middle] = 255


def _chart(row: SheetRow, width_px: int) -> Image:
    """Draw recorded and seen yaw rates of the recording's first minute, left turns upwards."""
    chart = np.full((_CHART_PX, width_px, 3), _BACKGROUND, dtype=np.uint8)
    times_s = row.log.frame_times_s
    seen = row.survey.seen
    at_s = np.linspace(times_s[0], min(times_s[-1], times_s[0] + _CHART_S), width_px)
    recorded = _recorded(row, at_s)
    is_seen = np.isfinite(seen.radps)
    curves = [(recorded, RECORDED_RGB)]
    if is_seen.sum() > 1:
        middles_s = 0.5 * (seen.start_s + seen.end_s)
        curves.insert(0, (np.interp(at_s, middles_s[is_seen], seen.radps[is_seen]), SEEN_RGB))
    scale = max(float(np.nanmax(np.abs(recorded), initial=0.0)), _LEAST_SCALE_RADPS) * 1.15
    chart[_CHART_PX // 2] = _AXIS
    for values, rgb in curves:
        _draw_curve(chart, values / scale, rgb)
    words = f"yaw rate, {at_s[-1] - at_s[0]:.0f} s: orange recorded, blue seen in the pictures"
    return with_label(chart, words)


def _recorded(row: SheetRow, at_s: FloatArray) -> FloatArray:
    """Return the yaw rates of the scenes at times of the recording; NaN between scenes."""
    values = np.full(len(at_s), np.nan)
    for scene in row.scenes:
        assert isinstance(scene.frames, FittedFrames)
        start_s = row.log.frame_times_s[scene.frames.indices[0]]
        own_s = start_s + scene.timestamps_s - 0.5 / scene.rate_hz
        is_inside = (at_s >= own_s[0]) & (at_s <= own_s[-1])
        values[is_inside] = np.interp(at_s[is_inside], own_s, scene.yaw_rate_radps)
    return values


def _draw_curve(chart: Image, values: FloatArray, rgb: tuple[int, int, int]) -> None:
    height = chart.shape[0]
    rows = np.clip((0.5 - 0.5 * values) * height, 0, height - 1)
    for column in range(len(values) - 1):
        pair = rows[column : column + 2]
        if np.isfinite(pair).all():
            chart[int(pair.min()) : int(pair.max()) + 2, column] = rgb
