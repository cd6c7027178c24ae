"""What readers of other formats share: names, lines, numbers, times."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivesim.errors import InputError
from drivesim.imports.foreign_files import (
    folders_where,
    log_name,
    natural_key,
    number,
    parse_json,
    path_inside,
    read_bytes,
    read_json,
    read_lines,
    read_text,
    whole_number,
)
from drivesim.imports.readings import increasing, signal, track


def test_names_are_sorted_as_people_count() -> None:
    names = ["record_10", "record_9", "a", "record_9b", "record_" + "9" * 5000, "record_²"]
    ordered = [name for name in sorted(names, key=natural_key) if len(name) < 100]
    assert ordered == ["a", "record_9", "record_9b", "record_10", "record_²"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        ("2.5", 2.5),
        ("nan", None),
        (float("inf"), None),
        (10**400, None),
        (True, None),
        (None, None),
        ([1], None),
    ],
)
def test_numbers(value: object, expected: float | None) -> None:
    assert number(value) == expected


@pytest.mark.parametrize(("value", "expected"), [(3, 3), ("3", 3), (3.5, None), (-1, None), (1e300, None)])
def test_whole_numbers(value: object, expected: int | None) -> None:
    assert whole_number(value) == expected


def test_paths_stay_inside(tmp_path: Path) -> None:
    assert path_inside(tmp_path, "a/b c.jpg") == tmp_path / "a" / "b c.jpg"
    for name in (
        "../a",
        "a/../../b",
        "/etc/passwd",
        "C:\\a",
        "\\\\host\\a",
        "a\\..\\b",
        "a\0b",
        "",
        "x" * 2000,
        7,
        None,
    ):
        assert path_inside(tmp_path, name) is None


def test_lines_and_texts(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\r\n\n" + b"x" * (5 << 20) + b"\nlast")
    assert [(number, line and line.strip()) for number, line in read_lines(path)] == [
        (1, b"one"),
        (3, None),
        (4, b"last"),
    ]
    path.write_bytes(b"\xef\xbb\xbfk\xc3\xbcste")
    assert read_text(path) == "küste"
    path.write_bytes(b"k\xfcste")
    assert read_text(path) == "küste"
    with pytest.raises(InputError, match="is larger than"):
        read_bytes(path, max_bytes=3)
    with pytest.raises(InputError, match="cannot read"):
        list(read_lines(tmp_path))


@given(st.binary(max_size=60))
def test_json_is_parsed_or_a_value_error(data: bytes) -> None:
    try:
        parse_json(data)
    except ValueError:
        return


def test_json_files(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    for text, words in (
        ("[" * 10**6, "nested too deep"),
        ("7", "is not a JSON object"),
        ('{"a": 1', "truncated or not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_json(path)


def test_folders_without_loops(tmp_path: Path) -> None:
    for name in ("b/10", "b/9", "a/9/deeper"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "here").touch()
    (tmp_path / "a" / "9" / "here").touch()
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    found = folders_where(tmp_path, lambda _, files: "here" in files)
    assert [log_name(tmp_path, folder) for folder in found] == ["a--9", "b--9", "b--10"]
    assert log_name(tmp_path, tmp_path) == tmp_path.name
    with pytest.raises(InputError, match="is not a folder"):
        folders_where(tmp_path / "b" / "9" / "here", lambda *_: True)


@given(st.lists(st.floats(allow_infinity=False, width=32), max_size=30))
def test_times_that_increase(times: list[float]) -> None:
    chosen = increasing(np.array(times, dtype=np.float64))
    kept = np.array(times)[chosen]
    assert (np.diff(chosen) > 0).all()
    assert (np.diff(kept) > 0).all()
    assert not np.isnan(kept).any()
    assert len(chosen) > 0 or all(np.isnan(times))


def test_one_wrong_time_costs_one_row() -> None:
    times_s = np.arange(20.0)
    times_s[4], times_s[9] = 1e12, -5.0
    assert increasing(times_s).tolist() == [index for index in range(20) if index not in (4, 9)]


def test_signals_and_tracks_without_what_cannot_be_true() -> None:
    times_s = np.array([0.0, 1.0, np.inf, 2.0, 2.0, 3.0])
    problems: list[str] = []
    kept = signal("speed", times_s, np.array([1.0, np.nan, 3.0, 1e300, 5.0, 6.0]), problems=problems)
    assert kept is not None
    assert (kept.times_s.tolist(), kept.values.tolist()) == ([0.0, 2.0, 3.0], [1.0, 5.0, 6.0])
    assert signal("speed", times_s, np.full(6, np.nan), problems=problems) is None
    driven = track(times_s, np.zeros((6, 2)), np.zeros(6), problems=problems)
    assert driven is not None
    assert driven.times_s.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert track(times_s, np.full((6, 2), 1e9), np.zeros(6), problems=problems) is None
    assert len(problems) == 7
