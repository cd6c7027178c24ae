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
_SAME_SHAPE = 0.01


@dataclass(kw_only=True, slots=True)
class Survey:
    """What was found in N pictures."""

    is_readable: NDArray[np.bool_]  # (N,)
    first_problem: str  # of a picture that cannot be read
    sizes: Counter[tuple[int, int]]  # width and height: how many
    seen_radps: (
        FloatArray  # (N - 1,) turns between neighbours, left positive; NaN where none was looked for or seen
    )

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
    is_watched = _watched(log, config)
    is_readable, seen = np.zeros(count, dtype=bool), np.full(max(count - 1, 0), np.nan)
    sizes: Counter[tuple[int, int]] = Counter()
    first_problem = ""
    before: tuple[int, Image] | None = None
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
        size = (image.shape[1], image.shape[0])
        sizes[size] += 1
        if not is_watched[index]:
            continue
        grey = small_grey(image)
        if before is not None and before[0] == index - 1:
            step_s = float(log.frame_times_s[index] - log.frame_times_s[index - 1])
            seen[index - 1] = turn_between(before[1], grey, Lens.of(camera_of(log, size, config))) / step_s
        before = (index, grey)
    if not is_readable.any():
        raise InputError(
            f"{log.name}: none of {count} pictures can be read; {first_problem or 'there are none'}"
        )
    return Survey(is_readable=is_readable, first_problem=first_problem, sizes=sizes, seen_radps=seen)


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
