"""What a rollout leaves to look at: a video (imagined beside recorded), a json record, rows for a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drivesim.files import atomic_path
from drivesim.rollout import Rollout
from drivesim.scene.types import Image
from drivesim.video import resize, side_by_side, with_label, write_video

SCALE = 2  # pictures are shown at twice their size, so that labels can be read
TABLE_COLUMNS = ("step", "time s", "steering rad", "speed m/s", "lateral m", "reward", "confidence")
MAX_TABLE_ROWS = 12


@dataclass(kw_only=True, slots=True)
class RolloutFiles:
    """Where a rollout was written."""

    video: Path
    record: Path


def write_rollout(result: Rollout, out: Path, *, rate_hz: float) -> RolloutFiles:
    """Write ``rollout.mp4`` and ``rollout.json`` into ``out``; each appears only when it is complete.

    Args:
        result: A rollout with its frames.
        out: Folder, made if needed.
        rate_hz: Frames per second of the world.
    """
    files = RolloutFiles(video=out / "rollout.mp4", record=out / "rollout.json")
    write_video(files.video, video_frames(result, rate_hz=rate_hz), rate_hz)
    with atomic_path(files.record) as path:
        path.write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
    return files


def video_frames(result: Rollout, *, rate_hz: float) -> Iterator[Image]:
    """Yield labelled pictures: the world's frame left, the recorded one of the same time right."""
    is_learned = result.env_id.startswith("WorldDreamer")
    for index, (frame, log_frame) in enumerate(zip(result.frames, result.log_frames, strict=True)):
        world = "start" if index == 0 else "imagined" if is_learned else "simulated"
        left = with_label(_enlarged(frame), f"{world} {_state_words(result, index, rate_hz)}")
        if log_frame is None:
            right = with_label(np.zeros_like(left), "the recording has ended")
        else:
            right = with_label(_enlarged(log_frame), "recorded")
        yield side_by_side(left, right)


def table_rows(result: Rollout, *, rate_hz: float) -> list[tuple[object, ...]]:
    """Return at most twelve steps, the first and the last among them, as rows under ``TABLE_COLUMNS``."""
    count = len(result.steps)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MAX_TABLE_ROWS)).round().astype(int))
    return [_row(result, int(index), rate_hz) for index in chosen]


def summary_words(result: Rollout) -> str:
    """Return the totals of a rollout in one line."""
    summary = result.summary()
    return (
        f"{summary['num_steps']} steps, {summary['progress_m']:.1f} m along the route, "
        f"reward {summary['total_reward']:.2f}, mean confidence {summary['mean_confidence']:.2f}, "
        f"ended by {summary['end_reason'] or 'the number of steps'}"
    )


def _row(result: Rollout, index: int, rate_hz: float) -> tuple[object, ...]:
    record = result.steps[index]
    lateral = record.metrics.get("lateral_error_m", {"value": 0.0, "is_valid": False})
    return (
        record.step,
        record.step / rate_hz,
        record.action["steering_rad"],
        record.speed_mps,
        float(lateral["value"]) if lateral["is_valid"] else "-",
        record.reward,
        record.confidence,
    )


def _state_words(result: Rollout, index: int, rate_hz: float) -> str:
    ego = result.steps[index - 1].ego if index else result.start
    return f"{index / rate_hz:.1f} s {ego['speed_mps']:.1f} m/s {ego['steering_rad']:+.2f} rad"


def _enlarged(frame: Image) -> Image:
    return resize(frame, frame.shape[1] * SCALE, frame.shape[0] * SCALE)
