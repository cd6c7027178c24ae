"""Painted lines of nuScenes' map expansion: what is read of it, what is written, and what is wrong with it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from nuscenes.map_expansion.map_api import NuScenesMap

from drivesim.errors import InputError
from drivesim.scene.map_lines import (
    DASHED_SHARE,
    EXPANSION_FOLDER,
    MapExpansions,
    expansion_of,
    read_map_lines,
)
from drivesim.scene.nuscenes import EMBEDDED_ROOT, embedded_dataset, open_dataset
from drivesim.scene.types import PaintedLine

NODES = [(0.0, 0.0), (10.0, 0.0), (20.0, 1.0), (30.0, 3.0)]


def expansion(kinds: list[str], *, is_doubled: bool = False) -> dict:
    """Return a map with one lane divider of some kinds of segments, and one road divider."""
    segments = [{"node_token": f"n{i}", "segment_type": kind} for i, kind in enumerate(kinds)]
    if is_doubled:  # as in the original files: both ends of every segment
        segments = [
            {"node_token": f"n{i + end}", "segment_type": kind}
            for i, kind in enumerate(kinds[:-1])
            for end in (0, 1)
        ]
    return {
        "node": [{"token": f"n{i}", "x": x, "y": y} for i, (x, y) in enumerate(NODES)],
        "line": [
            {"token": "l0", "node_tokens": ["n0", "n1", "n2", "n3"]},
            {"token": "l1", "node_tokens": ["n3", "n0"]},
        ],
        "lane_divider": [{"token": "a", "line_token": "l0", "lane_divider_segments": segments}],
        "road_divider": [{"token": "b", "line_token": "l1", "road_segment_token": None}],
    }


def write(path: Path, tables: object) -> Path:
    path.write_text(json.dumps(tables), encoding="utf-8")
    return path


@pytest.mark.parametrize("is_doubled", [False, True])
def test_segments_are_painted_as_their_kind_says(tmp_path, is_doubled):
    kinds = ["SINGLE_SOLID_WHITE", "NIL", "DOUBLE_DASHED_WHITE", "DOUBLE_DASHED_WHITE"]
    *parts, road = read_map_lines(write(tmp_path / "map.json", expansion(kinds, is_doubled=is_doubled)))
    assert [part.share for part in parts] == [1.0, DASHED_SHARE]
    for part, nodes in zip(parts, (NODES[:2], NODES[2:]), strict=True):
        np.testing.assert_array_equal(np.unique(part.xy_m, axis=0), nodes)
    assert road.share == 1.0
    np.testing.assert_array_equal(road.xy_m, [NODES[3], NODES[0]])


def test_a_divider_without_kinds_is_dashed(tmp_path):
    line, _ = read_map_lines(write(tmp_path / "map.json", expansion([])))
    assert line.share == DASHED_SHARE
    np.testing.assert_array_equal(line.xy_m, NODES)


def test_lines_come_back(tmp_path):
    lines = [
        PaintedLine(xy_m=np.array([[5.0, 1.0], [8.0, 1.25], [9.5, 2.0]]), width_m=0.15),
        PaintedLine(xy_m=np.array([[1.0, 1.0], [2.0, 2.0]]), width_m=0.15, share=DASHED_SHARE),
    ]
    back = read_map_lines(write(tmp_path / "map.json", expansion_of(lines, seed="a")))
    assert [line.share for line in back] == [1.0, DASHED_SHARE]
    for line, read in zip(lines, back, strict=True):
        np.testing.assert_allclose(read.xy_m, line.xy_m)
    assert read_map_lines(write(tmp_path / "none.json", expansion_of([], seed="a"))) == []


def test_a_long_line_is_written_with_few_points_and_stays_where_it_is(tmp_path):
    angle = np.linspace(0, 2, 200)
    bend = np.stack([60 * np.sin(angle), 60 * np.cos(angle)], axis=1)
    straight = bend[-1] + np.linspace(0.5, 100, 200)[:, None] * (bend[-1] - bend[-2]) / 0.6
    xy_m = np.concatenate([bend, straight])
    line = PaintedLine(xy_m=xy_m, width_m=0.15)
    (back,) = read_map_lines(write(tmp_path / "map.json", expansion_of([line], seed="a")))
    assert len(back.xy_m) < 50
    np.testing.assert_allclose(back.xy_m[[0, -1]], xy_m[[0, -1]], atol=0.006)
    fine = np.concatenate([np.linspace(a, b, 900) for a, b in zip(back.xy_m, back.xy_m[1:], strict=False)])
    assert max(np.linalg.norm(fine - point, axis=1).min() for point in xy_m[::5]) < 0.2
    assert max(np.linalg.norm(xy_m - point, axis=1).min() for point in fine[::5]) < 0.35


def test_the_devkit_opens_what_is_written(tmp_path):
    """Under the name of one of its cities, as it knows no others."""
    folder = tmp_path / EXPANSION_FOLDER
    folder.mkdir(parents=True)
    line = PaintedLine(xy_m=np.array([[5.0, 1.0], [8.0, 1.25], [9.5, 2.0]]), width_m=0.15)
    write(folder / "boston-seaport.json", expansion_of([line], seed="a"))
    opened = NuScenesMap(dataroot=str(tmp_path), map_name="boston-seaport")
    (divider,) = opened.lane_divider
    np.testing.assert_allclose(np.array(opened.extract_line(divider["line_token"]).coords), line.xy_m)


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda tables: tables.pop("node"), "KeyError"),
        (lambda tables: tables["node"][0].update(x=None), "TypeError"),
        (lambda tables: tables["node"][0].update(x=float("nan")), "finite"),
        (lambda tables: tables["node"][0].update(x=2e8), "below"),
        (lambda tables: tables["node"][0].update(x=10**400), "OverflowError"),
        (lambda tables: tables["line"][0].update(node_tokens=["gone"]), "gone"),
        (lambda tables: tables.update(lane_divider=3), "TypeError"),
        (lambda tables: tables["lane_divider"].append("?"), "AttributeError"),
    ],
)
def test_a_damaged_expansion_is_told(tmp_path, damage, word):
    tables = expansion([])
    damage(tables)
    with pytest.raises(InputError, match=rf"map expansion .*map\.json .*{word}"):
        read_map_lines(write(tmp_path / "map.json", tables))


def test_nesting_without_end_is_told(tmp_path):
    path = tmp_path / "map.json"
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(InputError, match=r"RecursionError.*remove it"):
        read_map_lines(path)


@pytest.mark.parametrize("node_tokens", [[], ["n0"]])
def test_lines_of_no_length_are_left_out(tmp_path, node_tokens):
    tables = expansion([])
    tables["line"][0]["node_tokens"] = node_tokens
    assert len(read_map_lines(write(tmp_path / "map.json", tables))) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"xy_m": np.zeros((1, 2))}, "at least 2"),
        ({"xy_m": np.array([[0.0, np.nan], [1.0, 1.0]])}, "finite"),
        ({"width_m": 0.0}, "width_m > 0"),
        ({"share": 1.5}, "1.5"),
    ],
)
def test_what_is_no_line_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        PaintedLine(**{"xy_m": np.array([[0.0, 0.0], [1.0, 1.0]]), "width_m": 0.15} | change)


@pytest.mark.parametrize("far_x", [0.0, 5.0])
def test_a_line_that_folds_back_keeps_its_length(far_x):
    line = PaintedLine(xy_m=np.array([[0.0, 0.0], [10.0, 0.0], [far_x, 0.0]]), width_m=0.15)
    assert [node["x"] for node in expansion_of([line], seed="a")["node"]] == [0.0, 10.0, far_x]


@pytest.fixture
def dataroot(tmp_path) -> Path:
    """The embedded data set, all of it linked but for the expansions."""
    root = tmp_path / "data"
    (root / "maps").mkdir(parents=True)
    for path in EMBEDDED_ROOT.iterdir():
        if path.name != "maps":
            os.symlink(path, root / path.name)
    for path in (EMBEDDED_ROOT / "maps").glob("*.png"):
        os.symlink(path, root / "maps" / path.name)
    return root


def test_the_embedded_scenes_know_their_lines():
    for name in embedded_dataset().scene_names():
        scene = embedded_dataset().load(name)
        assert not scene.problems
        assert len(scene.drivable.lines) > 3
        on_road = [scene.drivable.contains(line.xy_m).mean() for line in scene.drivable.lines]
        assert np.mean(on_road) > 0.4  # lines at the edge lie half on it


def test_without_an_expansion_the_lines_are_not_known(dataroot):
    scene = open_dataset(dataroot).load("scene-2001")
    assert scene.drivable.lines is None
    assert not scene.problems


def test_an_expansion_is_found_under_the_name_of_its_city(dataroot):
    folder = dataroot / EXPANSION_FOLDER
    folder.mkdir()
    middle = embedded_dataset().load("scene-2001").xy_m
    far = PaintedLine(xy_m=middle + 1e5, width_m=0.15)
    lines = [PaintedLine(xy_m=middle, width_m=0.15), far]
    write(folder / "reference-winding.json", expansion_of(lines, seed="a"))
    (line,) = open_dataset(dataroot).load("scene-2001").drivable.lines
    np.testing.assert_allclose(line.xy_m[[0, -1]], middle[[0, -1]], atol=0.006)


def test_a_place_with_a_name_too_long_for_a_file_can_be_driven(dataroot):
    (dataroot / EXPANSION_FOLDER).mkdir()
    drivable = embedded_dataset().load("scene-2001").drivable
    expansions = MapExpansions(dataroot)
    assert expansions.add_to(drivable, names=["x" * 5000, "y"]) == []


def test_a_scene_with_a_damaged_expansion_can_be_driven(dataroot):
    folder = dataroot / EXPANSION_FOLDER
    folder.mkdir()
    (folder / "reference-winding.json").write_text("{", encoding="utf-8")
    scene = open_dataset(dataroot).load("scene-2001")
    assert scene.drivable.lines is None
    (problem,) = scene.problems
    assert "reference-winding.json cannot be read" in problem
    assert "painted" in problem
