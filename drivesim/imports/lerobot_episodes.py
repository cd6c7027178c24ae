"""Episodes of a LeRobot data set: ``meta/episodes.jsonl`` of v2.x, the tables in ``meta/episodes/`` of v3.x."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drivesim.errors import InputError
from drivesim.imports.foreign_files import number, parse_json, read_lines, short, whole_number
from drivesim.imports.lerobot_info import Info
from drivesim.imports.lerobot_tables import read_columns
from drivesim.imports.remarks import Loss
from drivesim.scene.types import Camera

CAMERA_COLUMN, PLACE_COLUMN = "drivesim/camera", "drivesim/place"
_MAX_EPISODES = 1_000_000


@dataclass(kw_only=True, slots=True)
class Episode:
    """Where an episode is, and what is said of it."""

    index: int
    task: str
    data: Path
    video: Path
    video_start_s: float = 0.0
    place: str = "lerobot"
    camera: str = ""  # JSON


def episodes_of(info: Info, video_key: str, problems: list[str]) -> Iterator[Episode]:
    """Yield the episodes that the files in ``meta/`` list.

    Raises:
        InputError: there is no list, or it is broken.
    """
    if info.major == 2:
        yield from _episodes_v2(info, video_key, problems)
        return
    paths = sorted((info.root / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise InputError(f"{info.root / 'meta' / 'episodes'} holds no table; fetch the data set again")
    for path in paths:
        yield from _episodes_v3(info, video_key, path)


def _episodes_v2(info: Info, video_key: str, problems: list[str]) -> Iterator[Episode]:
    path = info.root / "meta" / "episodes.jsonl"
    num_broken = 0
    for line_number, line in read_lines(path):
        if line_number > _MAX_EPISODES:
            raise InputError(f"{path} has more than {_MAX_EPISODES} lines; that is no list of episodes")
        try:
            facts = parse_json(line) if line is not None else None
        except ValueError:
            facts = None
        facts = facts if isinstance(facts, dict) else {}
        index = whole_number(facts.get("episode_index"))
        if index is None:
            num_broken += 1
            continue
        tasks = facts.get("tasks")
        task = tasks[0] if isinstance(tasks, list) and tasks else ""
        chunk = index // info.chunks_size
        yield Episode(
            index=index,
            task=task if isinstance(task, str) else "",
            data=info.path(info.data_path, episode_index=index, episode_chunk=chunk),
            video=info.path(info.video_path, episode_index=index, episode_chunk=chunk, video_key=video_key),
        )
    if num_broken:
        problems.append(Loss(f"{num_broken} lines of {path} name no episode; left out"))


def _episodes_v3(info: Info, video_key: str, path: Path) -> Iterator[Episode]:
    files = {
        name: (f"{prefix}/chunk_index", f"{prefix}/file_index")
        for name, prefix in (("data", "data"), ("video", f"videos/{video_key}"))
    }
    start_name = f"videos/{video_key}/from_timestamp"
    texts = ("tasks", PLACE_COLUMN, CAMERA_COLUMN)
    table = read_columns(path, ["episode_index", *files["data"], *files["video"], start_name, *texts])
    if len(table) > _MAX_EPISODES:
        raise InputError(f"{path} has {len(table)} rows; that is no list of episodes")
    indices = table.whole("episode_index")
    places = {name: [table.whole(column) for column in columns] for name, columns in files.items()}
    starts_s = table.numbers(start_name)
    tasks, where, cameras = (table.texts(name) for name in texts)
    for row, index in enumerate(indices.tolist()):
        data, video = ((int(chunk[row]), int(file[row])) for chunk, file in (places["data"], places["video"]))
        if min(index, *data, *video) < 0 or not 0 <= starts_s[row] < 1e7:
            raise InputError(
                f"{path}, row {row + 1}: indices or times of episode {index} are missing; fetch it again"
            )
        yield Episode(
            index=index,
            task=tasks[row],
            data=info.path(info.data_path, chunk_index=data[0], file_index=data[1]),
            video=info.path(info.video_path, video_key=video_key, chunk_index=video[0], file_index=video[1]),
            video_start_s=float(starts_s[row]),
            place=where[row] or "lerobot",
            camera=cameras[row],
        )


def camera_of(text: str, problems: list[str]) -> Camera | None:
    """Return the camera that drivesim's export wrote down; None if there is none."""
    if not text:
        return None
    names = ("width_px", "height_px", "fx_px", "fy_px", "cx_px", "cy_px")
    try:
        facts = parse_json(text)
        sizes = [number(facts[name]) for name in names]
        matrix = np.array(facts["ego_from_cam"], dtype=np.float64)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        problems.append(
            Loss(f"the camera of the episode cannot be read ({short(error)}); it is done without")
        )
        return None
    values = [value for value in sizes if value is not None and 0 < value < 1e6]
    if len(values) != len(names) or matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        problems.append(Loss("the camera of the episode is none; it is done without"))
        return None
    width, height, fx, fy, cx, cy = values
    return Camera(
        width_px=int(width),
        height_px=int(height),
        fx_px=fx,
        fy_px=fy,
        cx_px=cx,
        cy_px=cy,
        ego_from_cam=matrix,
    )


def camera_text(camera: Camera) -> str:
    """Return a camera as JSON, as :func:`read_lerobot` finds it again."""
    facts = {
        name: getattr(camera, name) for name in ("width_px", "height_px", "fx_px", "fy_px", "cx_px", "cy_px")
    }
    return json.dumps({**facts, "ego_from_cam": camera.ego_from_cam.tolist()}, allow_nan=False)
