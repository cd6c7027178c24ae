"""The files in ``meta/`` of a LeRobot data set v3.0."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drivesim.imports.lerobot_arrow import pa, pq
from drivesim.imports.lerobot_entries import DRIVESIM
from drivesim.imports.lerobot_info import INFO_PATH, V3_DATA_PATH, V3_VIDEO_PATH
from drivesim.imports.lerobot_stats import Stats, as_json

CHUNKS_SIZE = 1000


def write_meta(
    root: Path,
    episodes: Sequence[dict[str, Any]],
    stats: Mapping[str, Stats],
    *,
    tasks: Mapping[str, int],
    features: Mapping[str, Any],
    fps: int,
) -> None:
    """Write the list of episodes, the tasks, the statistics and ``info.json``.

    Args:
        root: folder of the data set.
        episodes: rows of ``meta/episodes``.
        stats: of the whole data set, by feature.
        tasks: numbers of the tasks.
        features: of ``info.json``.
        fps: frames per second.
    """
    folder = root / "meta" / "episodes" / "chunk-000"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(episodes)), folder / "file-000.parquet")
    pq.write_table(_task_table(tasks), root / "meta" / "tasks.parquet")
    _write_json(root / "meta" / "stats.json", as_json(stats))
    info = {
        "codebase_version": "v3.0",
        "robot_type": DRIVESIM,
        "total_episodes": len(episodes),
        "total_frames": sum(episode["length"] for episode in episodes),
        "total_tasks": len(tasks),
        "chunks_size": CHUNKS_SIZE,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": V3_DATA_PATH,
        "video_path": V3_VIDEO_PATH,
        "features": features,
    }
    _write_json(root / INFO_PATH, info)


def video_feature(size: tuple[int, int], fps: int) -> dict[str, Any]:
    """Describe the videos of pictures of a (height, width)."""
    height, width = (side + side % 2 for side in size)  # the codec wants even sides
    info = {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": info,
    }


def column_features(schema: pa.Schema, names: Mapping[str, list[str]]) -> dict[str, Any]:
    """Describe the columns of the tables; ``names`` are those of the numbers in lists."""
    features = {}
    for column in schema:
        kind = str(column.type.value_type if column.name in names else column.type)
        features[column.name] = {
            "dtype": {"float": "float32", "double": "float64"}.get(kind, kind),
            "shape": [len(names.get(column.name, [""]))],
            "names": names.get(column.name),
        }
    return features


def _task_table(tasks: Mapping[str, int]) -> Any:
    """Return the tasks as pandas writes a frame whose index is the task, for that is what LeRobot reads."""
    columns = [
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {
            "name": "task",
            "field_name": "task",
            "pandas_type": "unicode",
            "numpy_type": "object",
            "metadata": None,
        },
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    schema = pa.schema(
        [("task_index", pa.int64()), ("task", pa.string())], metadata={"pandas": json.dumps(pandas)}
    )
    return pa.table({"task_index": list(tasks.values()), "task": list(tasks)}, schema=schema)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
