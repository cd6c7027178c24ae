"""The benchmark of opening a scene: its tables look like those of nuScenes, and its figures are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scene_opening
from benchmarks.scene_tables import VERSION, TableSize, write_tables
from drivesim.errors import InputError
from drivesim.scene.nuscenes import open_dataset

SMALL = TableSize(scenes=3, samples=120, sample_data=9300, mask_px=(2600, 10_200))


def test_the_tables_are_those_of_twelve_sensors(tmp_path: Path) -> None:
    tables = write_tables(tmp_path / "set", size=SMALL)
    rows = json.loads((tmp_path / "set" / VERSION / "sample_data.json").read_text())
    assert len(rows) == SMALL.sample_data
    assert sum(row["is_key_frame"] for row in rows) == SMALL.samples * 12
    assert (tmp_path / "set" / VERSION / "ego_pose.json").read_bytes().startswith(b'[\n{\n"token": "')
    dataset = open_dataset(tables.dataroot, VERSION, cache=tmp_path / "cache")
    assert len(dataset.camera_names()) == 6
    scene = dataset.load(tables.scene)
    assert scene.problems == []
    assert scene.drivable is not None
    assert scene.drivable.contains(scene.xy_m).all()
    assert len(scene) == 118
    with pytest.raises(InputError, match="download the archive"):
        dataset.load(tables.scene, camera="CAM_BACK")


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "opening.json"
    scene_opening.main(
        ["--out", str(out), "--share", "0.002", "--work", str(tmp_path / "work"), "--rounds", "1"]
    )
    result = json.loads(out.read_text())
    assert set(result["open_s"]) == {"cold", "cold, tables on disk", "warm"}
    assert 0 < result["peak_gb"]["warm"] < 1.5
    assert result["index_mb"] > 0
    assert not list((tmp_path / "work").iterdir())
    assert "open_s" in capsys.readouterr().out


def test_bad_options(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be positive"):
        scene_opening.main(["--out", str(tmp_path / "a.json"), "--rounds", "0"])
    with pytest.raises(InputError, match="json file"):
        scene_opening.main(["--out", str(tmp_path / "a.txt")])
