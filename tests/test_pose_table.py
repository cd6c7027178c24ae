"""Poses are found near where they should be, and wherever else they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recordings import edit_table

from drivesim.errors import InputError
from drivesim.scene import index_store, pose_table
from drivesim.scene.nuscenes import NuScenesDataset, open_dataset
from drivesim.scene.pose_rows import Poses
from drivesim.scene.scene_pictures import Pictures

NAME = "scene-2001"


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


def is_like(dataset: NuScenesDataset, expected: Pictures) -> bool:
    found = dataset.pictures(NAME)
    return np.array_equal(found.xy_m, expected.xy_m) and np.array_equal(found.yaw_rad, expected.yaw_rad)


def test_poses_in_the_order_of_the_rows_are_found_without_a_pass(
    dataroot: Path, expected: Pictures, cache: Path, scans: list[Path]
) -> None:
    assert is_like(open_dataset(dataroot, cache=cache), expected)
    assert scans == []
    assert not list(cache.rglob("poses-*"))


@pytest.mark.parametrize("reach", [1, 1 << 25])
def test_poses_in_another_order_take_one_pass_for_ever(
    dataroot: Path,
    expected: Pictures,
    cache: Path,
    scans: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    reach: int,
) -> None:
    """A short reach finds nothing around there, a long one whatever the order."""
    monkeypatch.setattr(pose_table, "_REACHES", (reach,) * 4)
    order = np.random.default_rng(0).permutation(32)
    edit_table(dataroot, "ego_pose", lambda rows: [rows[index % len(rows)] for index in order])
    dataset = open_dataset(dataroot, cache=cache)
    assert is_like(dataset, expected)
    assert is_like(dataset, expected)
    assert len(scans) == (reach == 1)
    assert is_like(open_dataset(dataroot, cache=cache), expected)
    assert len(scans) == len(list(cache.rglob("poses-*.npz"))) == (reach == 1)
    if reach == 1:
        edit_table(dataroot, "ego_pose", lambda rows: rows[::-1])
        assert is_like(open_dataset(dataroot, cache=cache), expected)
        assert len(scans) == 2


def test_rows_that_begin_oddly_are_found_all_the_same(
    dataroot: Path, expected: Pictures, cache: Path
) -> None:
    edit_table(
        dataroot, "ego_pose", lambda rows: [{"more": {"a": [{}]}, **row, "note": "}{"} for row in rows]
    )
    assert is_like(open_dataset(dataroot, cache=cache), expected)


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


@pytest.mark.parametrize("damage", ["truncated", "gone", "other"])
def test_a_large_table_that_is_damaged(dataroot: Path, cache: Path, damage: str) -> None:
    path = dataroot / "v1.0-mini" / "ego_pose.json"
    dataset = open_dataset(dataroot, cache=cache)
    if damage == "truncated":
        path.write_text(path.read_text()[:1500])
        words = "ego_pose.json is truncated or not JSON"
    elif damage == "gone":
        path.unlink()
        words = r"ego_pose.json cannot be read \(No such file"
    else:
        path.write_text("[" + " " * 9000 + "]")
        words = "ego_pose.json has no row"
    with pytest.raises(InputError, match=words):
        dataset.pictures(NAME)
