"""LeRobot data sets: v2.1 as others write them, v3.0 as drivesim does, and both broken."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_recordings import at_instants, shown_frame, write_lerobot_v21
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import BrokenPictures, make_scene

from drivesim.errors import InputError
from drivesim.imports.lerobot import read_lerobot
from drivesim.imports.lerobot_info import read_info
from drivesim.imports.lerobot_tables import MAX_ROWS, read_columns
from drivesim.imports.lerobot_writer import LeRobotConfig, write_lerobot
from drivesim.imports.motion import motion_at
from drivesim.imports.options import ImportConfig, SpeedUnit, SteeringUnit
from drivesim.scene.types import Scene

CONFIG = ImportConfig()
SCENE = make_scene(25)
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def v21(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lerobot_v21(tmp_path_factory.mktemp("v21") / "my räder set", [SCENE, make_scene(9)])


def edit_info(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def edit_table(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    columns = pq.read_table(path).to_pydict()
    change(columns)
    pq.write_table(pa.table(columns), path)


# ---------------------------------------------------------------------------------------------- v2.1


def test_v21_motion_and_pictures(v21: Path) -> None:
    logs = read_lerobot(v21, CONFIG)
    assert [(log.name, len(log.frames)) for log in logs] == [
        ("my räder set--episode_000000", 25),
        ("my räder set--episode_000001", 9),
    ]
    log = logs[0]
    assert (log.caption, log.problems, log.camera) == (SCENE.caption, [], None)
    assert log.speed_mps is not None
    assert log.steering_rad is not None
    np.testing.assert_allclose(log.frame_times_s, SCENE.timestamps_s, atol=1e-5)
    np.testing.assert_allclose(log.speed_mps.values, at_instants(SCENE.speed_mps), atol=1e-5)
    np.testing.assert_allclose(log.steering_rad.values, at_instants(SCENE.steering_rad), atol=1e-6)
    assert [shown_frame(log.frames[index], SCENE) for index in (0, 24, 7, 8)] == [0, 24, 7, 8]
    motion = motion_at(log, SCENE.timestamps_s, CONFIG)
    np.testing.assert_allclose(motion.speed_mps[1:], SCENE.speed_mps[1:], atol=0.05)


def test_v21_units_signs_and_names(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "a", [SCENE], names=("speed", "steering"), right_positive=True)
    with pytest.raises(
        InputError, match=r"unit of 'steering' in .*vehicle is not in its name; use --steering-unit"
    ):
        read_lerobot(root, CONFIG)
    with pytest.raises(InputError, match="--speed-unit"):
        read_lerobot(root, ImportConfig(steering_unit=SteeringUnit.DEG))
    units = {"steering_unit": SteeringUnit.DEG, "speed_unit": SpeedUnit.KMH, "is_right_positive": True}
    (log,) = read_lerobot(root, ImportConfig(**units))  # type: ignore[arg-type]
    assert log.steering_rad is not None
    np.testing.assert_allclose(log.steering_rad.values, at_instants(SCENE.steering_rad), atol=1e-6)
    edit_info(root, lambda info: info["features"]["observation.state.vehicle"].update(names=["a", "b"]))
    with pytest.raises(InputError, match=r"no speed among its numbers; .* observation.state.vehicle:a, "):
        read_lerobot(root, CONFIG)
    config = ImportConfig(**units, steering_column="b", speed_column="observation.state.vehicle:1")  # type: ignore[arg-type]
    (named,) = read_lerobot(root, config)
    assert named.steering_rad is not None
    np.testing.assert_array_equal(named.steering_rad.values, log.steering_rad.values)
    with pytest.raises(InputError, match="no number 'c'"):
        read_lerobot(root, ImportConfig(steering_column="c"))


def test_v21_throttle_and_share(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "a", [SCENE], names=("throttle", "steering_normalized"))
    with pytest.raises(InputError, match="--max-speed"):
        read_lerobot(root, ImportConfig(max_steering_rad=0.5))
    with pytest.raises(InputError, match="--max-steering"):
        read_lerobot(root, ImportConfig(max_speed_mps=0.1))
    (log,) = read_lerobot(root, ImportConfig(max_speed_mps=0.1, max_steering_rad=0.5))
    assert log.speed_mps is not None
    np.testing.assert_allclose(log.speed_mps.values, at_instants(SCENE.speed_mps) * 0.36, atol=1e-5)


def test_choice_of_cameras(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "a", [make_scene(4)])
    rear = ImportConfig(camera_key="observation.images.rear")
    with pytest.raises(InputError, match=r"no usable episode: episode 0 was left out: cannot read .*rear"):
        read_lerobot(root, rear)
    with pytest.raises(InputError, match="no video 'front'; choose from observation"):
        read_lerobot(root, ImportConfig(camera_key="front"))
    edit_info(root, lambda info: info["features"].update({"observation.images.front": {"dtype": "video"}}))
    with pytest.raises(InputError, match="3 cameras; choose one with --camera-key"):
        read_lerobot(root, CONFIG)


def test_parts_that_are_missing_or_broken_are_left_out(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "a", [make_scene(6) for _ in range(4)])
    videos = root / "videos" / "chunk-000" / "observation.images.front_left"
    whole = (videos / "episode_000001.mp4").read_bytes()
    (videos / "episode_000001.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "data" / "chunk-000" / "episode_000002.parquet").write_bytes(b"")
    with (root / "meta" / "episodes.jsonl").open("a") as file:
        file.write(
            '{"episode_index": -1}\n[1]\n{"episode\n' + "[" * 50_000 + '\n{"episode_index": 7, "tasks": 1}\n'
        )
    logs = read_lerobot(root, CONFIG)
    assert [log.name[-1] for log in logs] == ["0", "3"]
    assert len(logs[0].problems) == 4
    assert "4 lines of" in logs[0].problems[0]


def test_rows_without_frame_time_or_number(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "a", [SCENE])

    def spoil(columns: dict[str, Any]) -> None:
        columns["timestamp"][3] = float("nan")
        columns["timestamp"][5] = -7.0
        columns["timestamp"][-1] = 1e9
        columns["observation.state.vehicle"][8] = [float("inf"), None]

    edit_table(root / "data" / "chunk-000" / "episode_000000.parquet", spoil)
    (log,) = read_lerobot(root, CONFIG)
    log.check()
    assert len(log.frames) == 22
    assert shown_frame(log.frames[3], SCENE) == 4
    assert log.speed_mps is not None
    assert len(log.speed_mps.values) == 22
    assert len(log.problems) == 4


# ---------------------------------------------------------------------------------------------- v3.0


def check_round_trip(scene: Scene, root: Path, episode: int) -> None:
    log = read_lerobot(root, CONFIG)[episode]
    log.check()
    assert log.problems == []
    assert (log.caption, log.place) == (scene.caption, scene.place)
    assert log.camera is not None
    assert log.camera.equals(scene.camera)
    motion = motion_at(log, scene.timestamps_s, CONFIG)
    np.testing.assert_allclose(motion.xy_m, scene.xy_m, atol=1e-6)
    np.testing.assert_allclose(motion.yaw_rad, scene.yaw_rad, atol=1e-6)
    np.testing.assert_allclose(motion.speed_mps, scene.speed_mps, atol=1e-4)
    np.testing.assert_allclose(motion.yaw_rate_radps, scene.yaw_rate_radps, atol=1e-4)
    np.testing.assert_allclose(motion.steering_rad, scene.steering_rad, atol=1e-4)
    for index in (0, len(scene) - 1, 3):
        error = np.abs(np.asarray(log.frames[index], float) - scene.frames[index])
        assert error.mean() < 3.0
        assert shown_frame(log.frames[index], scene) == index


def test_v3_round_trip(tmp_path: Path) -> None:
    scenes = [make_scene(25), make_scene(9), make_scene(14)]
    scenes[1].caption, scenes[2].drivable = "a second task", None
    config = LeRobotConfig(frames_per_file=20)
    assert write_lerobot(iter(scenes), tmp_path / "set", config=config) == 3
    assert len(list((tmp_path / "set").rglob("*.mp4"))) == 2
    for episode, scene in enumerate(scenes):
        check_round_trip(scene, tmp_path / "set", episode)


def test_v3_is_laid_out_as_lerobot_reads_it(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_lerobot([make_scene(9), make_scene(6)], root)
    info = json.loads((root / "meta" / "info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_frames"]) == ("v3.0", 6, 15)
    episodes = pd.read_parquet(root / EPISODES)
    key = "observation.images.front"
    assert episodes[f"videos/{key}/from_timestamp"].tolist() == [0.0, 1.5]
    assert episodes["dataset_to_index"].tolist() == [9, 15]
    assert episodes[f"stats/{key}/mean"][0].shape == (3,)  # of lists of lists, as LeRobot has it
    tasks = pd.read_parquet(root / "meta" / "tasks.parquet")
    assert tasks.loc[make_scene().caption].task_index == 0
    data = pd.read_parquet(root / info["data_path"].format(chunk_index=0, file_index=0))
    assert data["index"].tolist() == list(range(15))
    assert set(data.columns) | {key} == set(info["features"])
    for name, feature in info["features"].items():
        if name != key:
            stored = np.stack(data[name].to_numpy()) if feature["names"] else data[name].to_numpy()
            assert str(stored.dtype) == feature["dtype"]
            assert stored.reshape(15, -1).shape[1] == feature["shape"][0]
    assert pq.ParquetFile(root / "data" / "chunk-000" / "file-000.parquet").num_row_groups == 2
    stats = json.loads((root / "meta" / "stats.json").read_text())
    assert stats[key]["count"] == [15]
    np.testing.assert_allclose(
        stats["action"]["mean"], np.stack(data["action"].to_numpy()).mean(axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(stats["index"]["std"], [np.arange(15).std()])
    assert np.array(stats[key]["max"]).shape == (3, 1, 1)
    assert (root / info["video_path"].format(video_key=key, chunk_index=0, file_index=0)).is_file()


def test_an_episode_that_is_listed_twice_is_read_once(tmp_path: Path) -> None:
    write_lerobot([SCENE], tmp_path / "a")
    table = tmp_path / "a" / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    pq.write_table(pa.concat_tables([pq.read_table(table)] * 2), table)
    (log,) = read_lerobot(tmp_path / "a", CONFIG)
    assert log.problems == ["1 episodes are listed again; the last entry counts"]


def test_unreadable_pictures_end_an_episode(tmp_path: Path) -> None:
    scene = make_scene(20)
    scene.frames = BrokenPictures(list(scene.frames), {8, 10, 11})
    told: list[str] = []
    assert write_lerobot([scene, make_scene(5)], tmp_path / "set", on_left_out=told.append) == 3
    assert len(told) == 4
    assert "frame 9 of scene 'recorded' stands alone" in told[3]
    logs = read_lerobot(tmp_path / "set", CONFIG)
    assert [len(log.frames) for log in logs] == [8, 8, 5]
    assert shown_frame(logs[1].frames[0], scene) == 12
    assert shown_frame(logs[2].frames[0], scene) == 0


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    fast, small = make_scene(4), make_scene(4)
    fast.rate_hz = 12.0
    small.frames = [image[:64] for image in small.frames]
    for scenes, words in (
        ([], "at least one scene"),
        ([make_scene(4), fast], "12 Hz, others 6 Hz"),
        ([make_scene(4), small], "another size"),
    ):
        with pytest.raises(InputError, match=words):
            write_lerobot(scenes, tmp_path / "set")
    fast.rate_hz = 7.5
    with pytest.raises(InputError, match=r"not 7.5"):
        write_lerobot([fast], tmp_path / "set")
    assert not list(tmp_path.iterdir())
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").touch()
    with pytest.raises(InputError, match="not empty"):
        write_lerobot([make_scene(4)], tmp_path / "set")


# -------------------------------------------------------------------------------------------- broken


BROKEN_INFO: dict[str, tuple[str, str]] = {
    "truncated": ('{"codebase_version": "v3.0", ', "truncated or not JSON"),
    "deep": ("[" * 100_000, "nested too deep"),
    "list": ("[]", "not a JSON object"),
    "old": ('{"codebase_version": "v1.6", "fps": 6, "features": {}}', "of version 'v1.6'"),
    "fps": ('{"codebase_version": "v3.0", "fps": 1e999, "features": {}}', "fps is"),
    "digits": ('{"codebase_version": "v3.0", "fps": ' + "9" * 9000 + "}", "truncated or not JSON"),
    "features": ('{"codebase_version": "v3.0", "fps": 6, "features": 3}', "lists no features"),
    "nothing": ('{"codebase_version": "v3.0", "fps": 6, "features": {}}', "lists no video"),
}


@pytest.mark.parametrize(("text", "words"), BROKEN_INFO.values(), ids=BROKEN_INFO.keys())
def test_broken_info(v21: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "set" / "meta").mkdir(parents=True)
    (tmp_path / "set" / "data").mkdir()
    (tmp_path / "set" / "meta" / "info.json").write_text(text)
    with pytest.raises(InputError, match=words):
        read_lerobot(tmp_path, CONFIG)
    with pytest.raises(InputError, match="holds no LeRobot data set"):
        read_lerobot(v21 / "data", CONFIG)


@pytest.mark.parametrize(
    "template",
    [
        "../{video_key}/{chunk_index}.mp4",
        "/etc/{video_key}",
        "C:\\{video_key}",
        "{video_key.__class__}",
        "{0}",
        "{video_key!r}",
        "{other}",
        "{video_key:>999999999}",
        "a\0b",
        "",
    ],
)
def test_templates_stay_in_the_data_set(tmp_path: Path, template: str) -> None:
    root = tmp_path / "set"
    write_lerobot([make_scene(4)], root)
    edit_info(root, lambda info: info.update(video_path=template))
    with pytest.raises(InputError, match=r"info\.json: path .*(leads out|unknown field)"):
        read_lerobot(root, CONFIG)
    info = read_info(root)
    with pytest.raises(InputError, match="leads out"):
        info.path("videos/{video_key}/a.mp4", video_key="../../..")


def test_broken_list_of_episodes(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_lerobot([make_scene(4), make_scene(5)], root)
    key = "videos/observation.images.front/from_timestamp"
    whole = (root / EPISODES).read_bytes()
    edit_table(
        root / EPISODES, lambda columns: columns.update({"drivesim/camera": ["[" * 9999, '{"fx_px": 1e400}']})
    )
    logs = read_lerobot(root, CONFIG)
    assert [log.camera for log in logs] == [None, None]
    assert all("camera of the episode" in log.problems[0] for log in logs)
    edit_table(root / EPISODES, lambda columns: columns.update({key: [0.0, float("nan")]}))
    with pytest.raises(InputError, match=r"file-000\.parquet, row 2: indices or times of episode 1"):
        read_lerobot(root, CONFIG)
    edit_table(root / EPISODES, lambda columns: columns.pop(key))
    with pytest.raises(InputError, match=r"no column 'videos/observation.images.front/from_timestamp'"):
        read_lerobot(root, CONFIG)
    (root / EPISODES).write_bytes(whole[:-100])
    with pytest.raises(InputError, match="truncated or not Parquet"):
        read_lerobot(root, CONFIG)
    (root / EPISODES).unlink()
    with pytest.raises(InputError, match="holds no table"):
        read_lerobot(root, CONFIG)


def test_table_that_would_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    schema = pa.schema([("timestamp", pa.float32())])
    zeros = pa.table({"timestamp": np.zeros(1 << 20, np.float32)})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for _ in range(MAX_ROWS // (1 << 20) + 1):
            writer.write_table(zeros)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="that is no LeRobot table"):
        read_columns(path, ["timestamp"])


def test_one_frame_links_and_read_only_folders(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "Straße 1" / "set", [make_scene(1)])
    os.symlink(tmp_path, root.parent / "loop")
    folders = [path for path in root.rglob("*") if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        (log,) = read_lerobot(tmp_path, CONFIG)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert (len(log.frames), log.speed_mps) == (1, None)


def test_without_pyarrow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "drivesim.imports.lerobot_arrow")
    with pytest.raises(InputError, match=r"pip install 'drivesim\[lerobot\]'"):
        importlib.import_module("drivesim.imports.lerobot_arrow")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["meta/info.json", EPISODES, "data/chunk-000/file-000.parquet"]),
    place=st.integers(0, 100_000),
    junk=st.one_of(st.binary(max_size=12), st.sampled_from([b"1e999", b"-1", b"null", b"{}", b"\xff" * 8])),
    is_cut=st.booleans(),
)
def test_any_bytes_are_read_or_refused(
    fuzzed: Path, tmp_path_factory: pytest.TempPathFactory, name: str, place: int, junk: bytes, is_cut: bool
) -> None:
    path = fuzzed / name
    data = path.read_bytes()
    place %= len(data)
    path.write_bytes(data[:place] + junk + (b"" if is_cut else data[place + len(junk) :]))
    try:
        logs = read_lerobot(fuzzed, CONFIG)
    except InputError:
        logs = []
    finally:
        path.write_bytes(data)
    for log in logs:
        log.check()


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz") / "set"
    write_lerobot([make_scene(5), make_scene(4)], root)
    return root
