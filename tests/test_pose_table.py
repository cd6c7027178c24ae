"""Poses are found near where they should be, and wherever else they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import edit_table

from drivesim.errors import InputError
from drivesim.scene import index_store, pose_table
from drivesim.scene.health import check_dataset
from drivesim.scene.nuscenes import NuScenesDataset, open_dataset
from drivesim.scene.pose_rows import Poses
from drivesim.scene.scene_pictures import Pictures

NAME = "scene-2001"
Change = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pose_table, "SEARCHED_FROM_BYTES", 0)
    monkeypatch.setattr(index_store, "RACY_S", -60.0)
    return tmp_path / "cache"


@pytest.fixture
def expected(dataroot: Path) -> Pictures:
    """Return the pictures as long as their poses are in order, from a pass over all poses."""
    return open_dataset(dataroot).pictures(NAME)


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the tables that were passed over as a whole."""
    passed: list[Path] = []
    plain = pose_table.scan_poses

    def scan(path: Path) -> Poses:
        passed.append(path)
        return plain(path)

    monkeypatch.setattr(pose_table, "scan_poses", scan)
    return passed


def shuffled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[index] for index in np.random.default_rng(0).permutation(len(rows))]


def is_like(dataset: NuScenesDataset, expected: Pictures) -> bool:
    found = dataset.pictures(NAME)
    return np.array_equal(found.xy_m, expected.xy_m) and np.array_equal(found.yaw_rad, expected.yaw_rad)


def test_poses_in_the_order_of_the_rows_are_found_without_a_pass(
    dataroot: Path, expected: Pictures, cache: Path, scans: list[Path]
) -> None:
    assert is_like(open_dataset(dataroot, cache=cache), expected)
    assert scans == []
    assert not list(cache.rglob("poses-*"))


@pytest.mark.parametrize("is_near", [True, False])
def test_poses_in_another_order_take_one_pass_for_ever(
    dataroot: Path,
    expected: Pictures,
    cache: Path,
    scans: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    is_near: bool,
) -> None:
    """In so short a table all of them are near, unless one looks around by a few bytes only."""
    if not is_near:
        monkeypatch.setattr(pose_table, "_REACHES", (1, 1))
    edit_table(dataroot, "ego_pose", shuffled)
    dataset = open_dataset(dataroot, cache=cache)
    assert is_like(dataset, expected)
    assert is_like(dataset, expected)
    assert len(scans) == (not is_near)
    assert is_like(open_dataset(dataroot, cache=cache), expected)
    assert len(scans) == len(list(cache.rglob("poses-*.npz"))) == (not is_near)
    if not is_near:
        edit_table(dataroot, "ego_pose", lambda rows: rows[::-1])
        assert is_like(open_dataset(dataroot, cache=cache), expected)
        assert len(scans) == 2


def test_a_long_search_is_given_up(
    dataroot: Path, expected: Pictures, cache: Path, scans: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pose_table, "MOST_SEARCHED_BYTES", 100_000)  # six looks of 16 kB
    edit_table(dataroot, "ego_pose", shuffled)
    assert is_like(open_dataset(dataroot, cache=cache), expected)
    assert len(scans) == 1


def test_the_first_pose_may_be_anywhere(
    dataroot: Path, expected: Pictures, cache: Path, scans: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Poses that lie together at another end of the table are found after the first one."""
    monkeypatch.setattr(pose_table, "_REACHES", (400, 400))
    monkeypatch.setattr(pose_table, "_STRIDE", 1000)
    edit_table(
        dataroot,
        "ego_pose",
        lambda rows: [{**rows[0], "token": f"{index:032x}"} for index in range(len(rows))] + rows,
    )
    assert is_like(open_dataset(dataroot, cache=cache), expected)
    assert scans == []


@pytest.mark.parametrize(
    ("change", "num_scans"),
    [
        (lambda row, after: {"more": {"a": [{}]}, **row, "note": "}{"}, 1),
        (lambda row, after: {"z": {**row, "translation": [1.0, 2.0, 3.0]}, **row}, 1),
        (lambda row, after: {**row, "next": [after, {**after, "translation": [1.0, 2.0, 3.0]}]}, 1),
        (lambda row, after: {**row, "timestamp": [row["timestamp"], after["token"]]}, 1),
        (lambda row, after: dict(reversed(row.items())), 0),
    ],
)
def test_rows_in_rows_are_not_taken_for_rows(
    dataroot: Path, expected: Pictures, cache: Path, scans: list[Path], change: Change, num_scans: int
) -> None:
    """Not even where the table begins as usual."""
    for first in (0, 1):
        edit_table(
            dataroot,
            "ego_pose",
            lambda rows, first=first: [
                *rows[:first],
                *(
                    change(row, after)
                    for row, after in zip(rows[first:], [*rows[first + 1 :], rows[0]], strict=True)
                ),
            ],
        )
        assert is_like(open_dataset(dataroot, cache=cache), expected)
    assert len(scans) >= num_scans
    assert (len(scans) > 0) == (num_scans > 0)


@pytest.mark.parametrize("style", ["indented", "escaped", "lines"])
def test_other_ways_to_write_a_table(dataroot: Path, expected: Pictures, cache: Path, style: str) -> None:
    path = dataroot / "v1.0-mini" / "ego_pose.json"
    rows = json.loads(path.read_text())
    text = json.dumps(rows, indent=4 if style == "indented" else 0 if style == "lines" else None)
    if style == "escaped":
        for row in rows:
            text = text.replace(row["token"], f"\\u{ord(row['token'][0]):04x}{row['token'][1:]}")
    path.write_text(text)
    assert is_like(open_dataset(dataroot, cache=cache), expected)


def test_a_pose_twice_is_the_last_one(dataroot: Path, cache: Path, scans: list[Path]) -> None:
    edit_table(
        dataroot, "ego_pose", lambda rows: rows + [{**row, "translation": [7.0, 8.0, 0.0]} for row in rows]
    )
    assert open_dataset(dataroot, cache=cache).pictures(NAME).xy_m.tolist() == [[7.0, 8.0]] * 25
    assert len(scans) == 1


def test_a_pose_that_is_not_there_is_named(dataroot: Path, cache: Path, scans: list[Path]) -> None:
    edit_table(
        dataroot, "sample_data", lambda rows: [*rows[:2], rows[2] | {"ego_pose_token": "x"}, *rows[3:]]
    )
    with pytest.raises(InputError, match=r"ego_pose.json has no row 'x', which row 3 of sample_data.json"):
        open_dataset(dataroot, cache=cache).pictures(NAME)
    assert len(scans) == 1


def test_a_wrong_pose_of_a_large_table_is_named_by_its_token(dataroot: Path, cache: Path) -> None:
    edit_table(
        dataroot, "ego_pose", lambda rows: [*rows[:2], rows[2] | {"translation": ["a", 0, 0]}, *rows[3:]]
    )
    with pytest.raises(InputError, match=r"ego_pose.json row '\w+': translation must be 3 finite numbers"):
        open_dataset(dataroot, cache=cache).pictures(NAME)


def test_a_large_table_that_is_cut_is_refused_at_once(dataroot: Path, cache: Path) -> None:
    path = dataroot / "v1.0-mini" / "ego_pose.json"
    path.write_text(path.read_text()[:1500])
    with pytest.raises(InputError, match=r"ego_pose.json is truncated or not JSON"):
        open_dataset(dataroot, cache=cache)


def test_a_large_table_that_is_damaged_inside(dataroot: Path, cache: Path, scans: list[Path]) -> None:
    """Scenes whose poses are whole can be used; the health report says it all the same."""
    path = dataroot / "v1.0-mini" / "ego_pose.json"
    rows = json.loads(path.read_text())
    path.write_text(
        f"{json.dumps(rows)[:-1]}, @, {json.dumps(rows[-1])}]".replace(rows[3]["token"], "x" * 32)
    )
    dataset = open_dataset(dataroot, cache=cache)
    for _ in range(2):
        with pytest.raises(InputError, match=r"ego_pose\.json"):
            dataset.pictures(NAME)
    assert len(scans) == 1  # it is not passed over again for every scene
    path.write_text(f"{json.dumps(rows)[:-1]}, @, {json.dumps(rows[0] | {'token': 'y'})}]")
    dataset = open_dataset(dataroot, cache=cache)
    assert len(dataset.pictures(NAME)) == 25
    health = check_dataset(dataset)
    assert len(health.faults) == health.num_faults == 1
    assert "ego_pose.json" in health.faults[0]
    assert health.as_dict()["faults"] == health.faults


@pytest.mark.parametrize("damage", ["gone", "other"])
def test_a_large_table_that_changes_under_an_open_data_set(dataroot: Path, cache: Path, damage: str) -> None:
    path = dataroot / "v1.0-mini" / "ego_pose.json"
    dataset = open_dataset(dataroot, cache=cache)
    if damage == "gone":
        path.unlink()
        words = r"ego_pose.json cannot be read \(No such file"
    else:
        path.write_text("[" + " " * 9000 + "]")
        words = "ego_pose.json has no row"
    with pytest.raises(InputError, match=words):
        dataset.pictures(NAME)


def test_an_index_of_poses_that_cannot_be_kept_is_noted(
    dataroot: Path, expected: Pictures, cache: Path, scans: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pose_table, "_REACHES", (1, 1))
    edit_table(dataroot, "ego_pose", shuffled)
    dataset = open_dataset(dataroot, cache=cache)
    for path in cache.rglob("*"):
        if path.is_dir():
            shutil.rmtree(path)
            path.write_text("no folder")
    for _ in range(2):
        assert is_like(dataset, expected)
    assert sum("index of ego poses could not be kept" in note for note in dataset.notes) == 1
    assert len(scans) == 1
