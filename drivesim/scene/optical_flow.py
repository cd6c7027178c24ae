"""How much moves in a video: dense optical flow (Farneback) between small pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from drivesim.scene.media import MediaFile, Span, timed_frames
from drivesim.scene.types import Image

_WIDTH_PX = 160
_GAP_S = 0.1  # between the pictures compared: flow of a tenth of a pixel is found, of more than 15 it is not


@dataclass(kw_only=True, slots=True, frozen=True)
class Motion:
    """How fast the picture moves during a stretch of time."""

    during: Span
    widths_per_s: float  # mean length of the flow, pixels per second / frame width


def measure_motion(media: MediaFile) -> list[Motion]:
    """Return the motion of a video piece by piece, from the first frame to the last.

    Raises:
        InputError: the file is missing or broken.
    """
    motions: list[Motion] = []
    before: tuple[float, Image] | None = None
    for time_s, frame in timed_frames(media):
        if before is not None and time_s - before[0] < _GAP_S - 1e-3:
            continue
        height_px = max(round(_WIDTH_PX * frame.height / frame.width), 8)
        grey = frame.reformat(width=_WIDTH_PX, height=height_px, format="gray", interpolation="AREA")
        now = (time_s, np.asarray(grey.to_ndarray(), dtype=np.uint8))
        if before is not None:
            speed = _mean_flow_px(before[1], now[1]) / _WIDTH_PX / (time_s - before[0])
            motions.append(Motion(during=Span(start_s=before[0], end_s=time_s), widths_per_s=speed))
        before = now
    return motions


def _mean_flow_px(before: Image, after: Image) -> float:
    if before.shape != after.shape:  # a stream that changes its size within
        return 0.0
    flow = cv2.calcOpticalFlowFarneback(
        before,
        after,
        None,
        pyr_scale=0.5,
        levels=4,
        winsize=15,
        iterations=3,
        poly_n=5,
        poly_sigma=1.2,
        flags=0,
    )
    return float(np.linalg.norm(flow, axis=-1).mean())
