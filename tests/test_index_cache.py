"""The index of the tables is kept, found again, and made anew whenever it may be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import edit_table

from drivesim.errors import InputError
from drivesim.scene import index_cache, index_store, map_masks, table_help, table_scan
from drivesim.scene.cache_folder import CACHE_VARIABLE, default_cache, load_arrays, save_arrays
from drivesim.scene.map_masks import MapMasks, PackedMask
from drivesim.scene.nuscenes import open_dataset
from drivesim.scene.surroundings import drivable_around
from drivesim.scene.token_keys import find_keys, token_keys
from drivesim.video import write_image

NAME = "scene-2001"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(index_store, "RACY_S", -60.0)  # the tables are new, and trusted all the same
    return tmp_path / "cache é"


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "nuscenes").glob("index-*.npz"))


def test_a_second_opening_takes_the_index(
    dataroot: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_dataset(dataroot, cache=cache)
    assert not first.is_index_from_cache
    monkeypatch.setattr(index_cache, "build_index", None)
    monkeypatch.setattr(index_store, "_sha256", None)  # no table is read either
    second = open_dataset(dataroot, cache=str(cache))
    assert second.is_index_from_cache
    assert second.notes == []
    np.testing.assert_array_equal(first.load(NAME).xy_m, second.load(NAME).xy_m)
    assert first.pictures(NAME).filenames == second.pictures(NAME).filenames


def test_nothing_is_written_to_the_data_root(dataroot: Path, cache: Path) -> None:
    before = sorted(path for path in dataroot.rglob("*"))
    for path in dataroot.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    open_dataset(dataroot, cache=cache).load(NAME)
    assert sorted(path for path in dataroot.rglob("*")) == before


def test_a_moved_data_set_is_known_by_its_hashes(
    dataroot: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_dataset(dataroot, cache=cache)
    moved = dataroot.rename(dataroot.with_name("other set"))
    monkeypatch.setattr(index_cache, "build_index", None)
    assert open_dataset(moved, cache=cache).is_index_from_cache


def test_changed_tables_are_indexed_anew(dataroot: Path, cache: Path) -> None:
    assert len(open_dataset(dataroot, cache=cache).pictures(NAME)) == 25
    edit_table(dataroot, "sample_data", lambda records: records[:20] + records[21:])
    dataset = open_dataset(dataroot, cache=cache)
    assert not dataset.is_index_from_cache
    assert len(dataset.pictures(NAME)) == 24
    assert len(kept(cache)) == 2


def test_tables_that_change_under_an_open_data_set(dataroot: Path, cache: Path) -> None:
    dataset = open_dataset(dataroot, cache=cache)
    edit_table(dataroot, "sample_data", lambda records: records[20:])
    with pytest.raises(InputError, match="has changed since the data set was opened"):
        dataset.pictures(NAME)


def test_just_written_tables_are_hashed_again(dataroot: Path, tmp_path: Path) -> None:
    for _ in range(2):
        dataset = open_dataset(dataroot, cache=tmp_path / "cache")
    assert dataset.is_index_from_cache
    assert not list((tmp_path / "cache" / "nuscenes").glob("tables-*"))


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign", "text", "folder"])
def test_damaged_indexes_are_made_again(dataroot: Path, cache: Path, damage: str) -> None:
    open_dataset(dataroot, cache=cache)
    (path,) = kept(cache)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-100])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "text":
        path.write_text("not an index")
    elif damage == "foreign":
        facts = json.loads(next((cache / "nuscenes").glob("tables-*.json")).read_text())
        save_arrays(path, {"rows": np.zeros(3)}, {"version": 1, "hashes": facts["hashes"]})
    else:
        path.unlink()
        path.mkdir()
    dataset = open_dataset(dataroot, cache=cache)
    assert not dataset.is_index_from_cache
    assert len(dataset.load(NAME)) == 25
    assert open_dataset(dataroot, cache=cache).is_index_from_cache == (damage != "folder")


@pytest.mark.parametrize("words", ["[]", "{", '{"version": 1}', "[" * 100_000])
def test_a_damaged_memory_of_hashes_is_not_believed(dataroot: Path, cache: Path, words: str) -> None:
    open_dataset(dataroot, cache=cache)
    (memory,) = (cache / "nuscenes").glob("tables-*.json")
    memory.write_text(words)
    assert open_dataset(dataroot, cache=cache).is_index_from_cache  # by the hashes of the tables


def test_a_cache_that_cannot_be_written_is_said(dataroot: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    dataset = open_dataset(dataroot, cache=tmp_path / "file")
    assert len(dataset.load(NAME)) == 25
    assert any("could not be kept" in note for note in dataset.notes)


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataroot: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    open_dataset(dataroot)
    assert not (tmp_path / "mine").exists()  # small tables need none
    monkeypatch.setattr(index_cache, "CACHED_FROM_BYTES", 0)
    open_dataset(dataroot)
    assert len(kept(tmp_path / "mine")) == 1
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache().name == "drivesim"


@pytest.mark.parametrize("trouble", ["", "no python", "it fails", "false start", "truncated"])
def test_another_process_may_read_a_part(
    dataroot: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Whatever becomes of it, the result is that of one process."""
    expected = open_dataset(dataroot)
    table = dataroot / "v1.0-mini" / "sample_data.json"
    monkeypatch.setattr(table_help, "HELPED_FROM_BYTES", 0)
    monkeypatch.setattr(table_scan, "WINDOW", 3000)
    results: list[Any] = []
    plain = table_help.Help.result
    monkeypatch.setattr(table_help.Help, "result", lambda self: results.append(plain(self)) or results[-1])
    if trouble == "no python":
        monkeypatch.setattr(table_help.sys, "executable", "/no/such/python")
    elif trouble == "it fails":
        monkeypatch.setattr(table_help, "_CODE", "raise SystemExit(1)")
    elif trouble == "false start":
        start = table.read_bytes().index(b'"fileformat"', 9000)
        monkeypatch.setattr(table_help, "row_start_after", lambda path, offset: start)
    elif trouble == "truncated":
        table.write_bytes(table.read_bytes()[:-40])
        with pytest.raises(InputError, match="not JSON at row 32"):
            open_dataset(dataroot)
        return
    dataset = open_dataset(dataroot)
    assert len(results) == 1
    assert (results[0] is None) == (trouble != "")
    np.testing.assert_array_equal(dataset._index.rows, expected._index.rows)
    np.testing.assert_array_equal(dataset._index.spans, expected._index.spans)
    assert dataset._index.num_rows == expected._index.num_rows == 32


# ---------------------------------------------------------------------------------------------- the parts


def test_arrays_come_back_only_for_the_same_facts(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    assert save_arrays(path, {"a": np.arange(5)}, {"version": 1}) == ""
    arrays = load_arrays(path, {"version": 1})
    assert arrays is not None
    np.testing.assert_array_equal(arrays["a"], np.arange(5))
    assert load_arrays(path, {"version": 2}) is None
    assert load_arrays(tmp_path / "none.npz", {}) is None


def test_tokens_of_any_kind_have_keys() -> None:
    tokens = [b"0123456789abcdef" * 2, b"1", b"", b"ABCDEF0123456789" * 2, b"0123456789abcde " * 2]
    keys = token_keys(tokens)
    assert len({key.tobytes() for key in keys}) == len(tokens)
    np.testing.assert_array_equal(keys[0], token_keys(tokens[:1])[0])
    assert token_keys([]).shape == (0, 2)


def test_keys_are_found_even_where_halves_meet() -> None:
    def found(wanted: list[list[int]], known: list[list[int]]) -> list[int]:
        keys, asked = (np.array(rows, dtype=np.uint64).reshape(-1, 2) for rows in (known, wanted))
        order = np.argsort(keys[:, 0], kind="stable")
        return [int(order[place]) if place >= 0 else -1 for place in find_keys(asked, keys[order])]

    wanted = [[1, 3], [1, 2], [5, 5], [5, 6], [9, 9]]
    assert found(wanted, [[1, 2], [1, 3], [5, 5], [1, 2]]) == [1, 3, 2, -1, -1]
    assert found(wanted[2:], [[5, 5]]) == [0, -1, -1]
    assert found(wanted, []) == [-1] * 5


def test_large_masks_are_kept_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((600, 1002), dtype=np.uint8)
    image[100:300, 203:777] = 255
    write_image(tmp_path / "maps" / "m.png", image)
    small = MapMasks(tmp_path, tmp_path / "cache").mask("maps/m.png")
    assert isinstance(small, np.ndarray)
    monkeypatch.setattr(map_masks, "KEPT_FROM_PIXELS", 0)
    points = np.array([[50.0, 40.0]])
    for _ in range(2):
        packed = MapMasks(tmp_path, tmp_path / "cache").mask("maps/m.png")
        assert isinstance(packed, PackedMask)
        assert packed.shape == small.shape
        for part in (
            (slice(0, 300), slice(0, 501)),
            (slice(20, 90), slice(101, 333)),
            (slice(5, 5), slice(9, 3)),
        ):
            np.testing.assert_array_equal(packed[part] != 0, small[part] != 0)
        ours, whole = (drivable_around(mask, 0.2, points) for mask in (packed, small))
        assert ours is not None
        assert whole is not None
        np.testing.assert_array_equal(ours.mask, whole.mask)
        monkeypatch.setattr(map_masks, "packed_map_mask", None)  # the second time it is not decoded


def test_masks_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    write_image(tmp_path / "m.png", np.zeros((60, 60), dtype=np.uint8))
    data = (tmp_path / "m.png").read_bytes()
    cases = {
        "empty.png": b"",
        "cut.png": data[: len(data) // 2],
        "huge.png": data[:16] + b"\x7f\xff\xff\xff\x7f\xff\xff\xff" + data[24:],
        "jpeg.png": b"\xff\xd8\xff",
    }
    masks = MapMasks(tmp_path, None)
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        assert name in str(masks.mask(name))
        assert isinstance(masks.mask(name), str)
    assert "cannot be read" in str(masks.mask("none.png"))


@pytest.mark.parametrize("rest", [b"IEND", b"\0" * 8 + b"IEND"])
def test_a_mask_too_short_for_a_header_is_truncated(tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + rest)
    assert "is truncated" in str(MapMasks(tmp_path, None).mask("m.png"))
