"""One look at every picture of a log: which can be read, how large they are, and what turns are seen in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.imports.drive_log import DriveLog
from drivesim.imports.fitted_frames import assumed_camera
from drivesim.imports.motion import yaw_signals
from drivesim.imports.options import ImportConfig
from drivesim.scene.geometry import FloatArray
from drivesim.scene.seen_turn import Lens, small_grey, turn_between
from drivesim.scene.types import Camera, Image

MAX_COMPARED = 3000
"""Pictures in which turns are looked for; of longer logs those where the recorded turns vary most."""
_BLOCK = 250
_LEAST_STEP_S = (
    0.075  # between pictures compared: what moves by less than a tenth of a pixel is not followed well
)
_SAME_SHAPE = 0.01


@dataclass(kw_only=True, slots=True)
class SeenTurns:
    """Mean yaw rates seen in M intervals between pictures, in order of time."""

    start_s: FloatArray  # (M,)
    end_s: FloatArray  # (M,)
    radps: FloatArray  # (M,) left positive; NaN where too little could be followed

    def at(self, time_s: float) -> float:
        """Return the yaw rate in the interval that holds a time, its end included; NaN without one."""
        place = int(np.searchsorted(self.end_s, time_s - 1e-6))
        is_inside = place < len(self.end_s) and self.start_s[place] <= time_s
        return float(self.radps[place]) if is_inside else float("nan")


@dataclass(kw_only=True, slots=True)
class Survey:
    """What was found in N pictures."""

    is_readable: NDArray[np.bool_]  # (N,)
    first_problem: str  # of a picture that cannot be read
    sizes: Counter[tuple[int, int]]  # width and height: how many
    seen: SeenTurns

    @property
    def common_size(self) -> tuple[int, int]:
        """Return the commonest width and height."""
        return self.sizes.most_common(1)[0][0]


def survey_of(
    log: DriveLog, config: ImportConfig, *, on_progress: Callable[[int], None] | None = None
) -> Survey:
    """Read every picture of a log once.

    Args:
        log: the recording, as its reader left it.
        config: the camera, where the log has none.
        on_progress: called with the number of pictures read.

    Raises:
        InputError: none of them can be read.
    """
    count = len(log.frames)
    watch = _Watch(log, config)
    is_readable = np.zeros(count, dtype=bool)
    sizes: Counter[tuple[int, int]] = Counter()
    first_problem = ""
    for index in range(count):
        try:
            image = log.frames[index]
        except InputError as error:
            first_problem = first_problem or str(error)
            continue
        finally:
            if on_progress is not None:
                on_progress(index + 1)
        is_readable[index] = True
        sizes[image.shape[1], image.shape[0]] += 1
        watch.show(index, image)
    if not is_readable.any():
        raise InputError(
            f"{log.name}: none of {count} pictures can be read; {first_problem or 'there are none'}"
        )
    return Survey(is_readable=is_readable, first_problem=first_problem, sizes=sizes, seen=watch.seen())


class _Watch:
    """Looks for turns between pictures that lie far enough apart in time."""

    def __init__(self, log: DriveLog, config: ImportConfig) -> None:
        self._log, self._config = log, config
        self._is_watched = _watched(log, config)
        self._before: tuple[float, Image] | None = None
        self._rows: list[tuple[float, float, float]] = []

    def show(self, index: int, image: Image) -> None:
        """Compare a picture with the one before that was compared, unless they are too close or too far apart."""
        if not self._is_watched[index]:
            self._before = None
            return
        time_s = float(self._log.frame_times_s[index])
        step_s = np.inf if self._before is None else time_s - self._before[0]
        if step_s < _LEAST_STEP_S:
            return
        grey = small_grey(image)
        if self._before is not None and step_s <= self._config.max_gap_s:
            lens = Lens.of(camera_of(self._log, (image.shape[1], image.shape[0]), self._config))
            turn = turn_between(self._before[1], grey, lens)
            self._rows.append((self._before[0], time_s, turn / step_s))
        self._before = (time_s, grey)

    def seen(self) -> SeenTurns:
        """Return what was seen so far."""
        start_s, end_s, radps = np.array(self._rows, dtype=np.float64).reshape(-1, 3).T
        return SeenTurns(start_s=start_s, end_s=end_s, radps=radps)


def _watched(log: DriveLog, config: ImportConfig) -> NDArray[np.bool_]:
    """Choose the pictures in which turns are looked for, in whole blocks."""
    count = len(log.frames)
    signals = yaw_signals(log, config)
    if count <= MAX_COMPARED or not signals:
        return np.arange(count) < MAX_COMPARED
    recorded = next(iter(signals.values()))
    at_pictures = np.interp(log.frame_times_s, recorded.times_s, recorded.values)
    starts = range(0, count, _BLOCK)
    spread = [float(at_pictures[start : start + _BLOCK].std()) for start in starts]
    is_watched = np.zeros(count, dtype=bool)
    for block in np.argsort(spread)[::-1][: MAX_COMPARED // _BLOCK]:
        is_watched[block * _BLOCK : (block + 1) * _BLOCK] = True
    return is_watched


def camera_of(log: DriveLog, size: tuple[int, int], config: ImportConfig) -> Camera:
    """Return the camera of pictures of a width and height: the log's where it has one, else the configured one."""
    if log.camera is None or config.field_of_view_rad is not None:
        assumed = assumed_camera(*size, config)
        return assumed if log.camera is None else replace(assumed, ego_from_cam=log.camera.ego_from_cam)
    return log.camera.resized(width_px=size[0], height_px=size[1])


def is_camera_off(log: DriveLog, survey: Survey) -> bool:
    """Tell whether the log's camera is of pictures of another shape than the commonest."""
    if log.camera is None:
        return False
    width, height = survey.common_size
    own = log.camera.width_px / log.camera.height_px
    return abs(width / height / own - 1.0) > _SAME_SHAPE
