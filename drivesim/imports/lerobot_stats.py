"""Statistics of the features of a LeRobot data set: per episode, and put together for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Image

Stats = dict[str, FloatArray]  # min, max, mean, std and count of one feature
_PIXEL_STEP = 4  # of the pixels along either side, those that are looked at


def number_stats(values: NDArray[np.generic]) -> Stats:
    """Return the statistics of (M,) or (M, A) numbers, over the rows."""
    rows = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    return {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": rows.mean(axis=0),
        "std": rows.std(axis=0),
        "count": np.array([len(rows)], dtype=np.int64),
    }


@dataclass(slots=True)
class PictureStats:
    """Statistics per channel, of values from 0 to 1, in the shape (3, 1, 1) that LeRobot gives them."""

    frames: list[Stats] = field(default_factory=list)

    def add(self, image: Image) -> None:
        """Look at a frame."""
        self.frames.append(number_stats(image[::_PIXEL_STEP, ::_PIXEL_STEP].reshape(-1, 3) / 255.0))

    def stats(self) -> Stats:
        """Return the statistics of the frames so far; the count is that of frames."""
        together = combined(self.frames)
        shaped = {name: values.reshape(3, 1, 1) for name, values in together.items() if name != "count"}
        return {**shaped, "count": np.array([len(self.frames)], dtype=np.int64)}


def combined(parts: Iterable[Stats]) -> Stats:
    """Return the statistics of several sets of rows together."""
    parts = list(parts)
    counts = np.array([int(part["count"][0]) for part in parts])
    shares = (counts / counts.sum()).reshape(-1, *[1] * parts[0]["mean"].ndim)
    means, stds = np.stack([part["mean"] for part in parts]), np.stack([part["std"] for part in parts])
    mean = (shares * means).sum(axis=0)
    variance = (shares * (stds**2 + (means - mean) ** 2)).sum(axis=0)
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([int(counts.sum())], dtype=np.int64),
    }


def as_json(stats: Mapping[str, Stats]) -> dict[str, Any]:
    """Return what ``meta/stats.json`` holds."""
    return {key: {name: values.tolist() for name, values in part.items()} for key, part in stats.items()}


def as_columns(stats: Mapping[str, Stats]) -> dict[str, Any]:
    """Return the cells that a row of ``meta/episodes`` holds, by their columns."""
    return {
        f"stats/{key}/{name}": values.tolist() for key, part in stats.items() for name, values in part.items()
    }
