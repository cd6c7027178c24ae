"""A row that cannot be used is named with its table; odd paths are no obstacle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import edit_table

from drivesim.errors import InputError
from drivesim.scene.nuscenes import open_dataset

NAME = "scene-2001"


@pytest.mark.parametrize(
    ("table", "changes", "words"),
    [
        ("sample_data", {"filename": "../../etc/passwd"}, "sample_data.json row 3: filename '../../etc/passwd' is not"),
        ("sample_data", {"filename": "/etc/passwd"}, "row 3: filename '/etc/passwd' is not"),
        ("sample_data", {"filename": "a" * 300}, "row 3: filename must be a file name of usual length, not"),
        ("sample_data", {"filename": "a/" * 3000}, "row 3: filename must be a file name of usual length, not"),
        ("ego_pose", {"translation": [1e299, 2, 0]}, "row 3: translation is more than 100000 km away"),
        ("sample_data", {"width": 0}, "row 3: width must be a number of pixels"),
        ("sample_data", {"timestamp": 0}, "by the timestamps in rows 3 and 25 of sample_data.json"),
        ("sample_data", {"timestamp": 10**400}, "row 3: timestamp must be a whole number"),
        ("sample_data", {"sample_token": "x"}, "row 3 of sample_data.json names sample 'x'"),
        ("sample_data", {"calibrated_sensor_token": "x"}, "row 3 of sample_data.json names a calibrated sensor"),
        ("sample_data", {"ego_pose_token": "x"}, "ego_pose.json has no row 'x', which row 3 of sample_data.json"),
        ("ego_pose", {"translation": [1, 2, float("nan")]}, "row 3: translation must be 3 finite numbers"),
        ("ego_pose", {"rotation": [0, 0, 0, 0]}, "ego_pose.json row 3: rotation must be a quaternion"),
        ("calibrated_sensor", {"camera_intrinsic": []}, "row 1: camera_intrinsic must be 3 x 3 finite numbers"),
        ("calibrated_sensor", {"camera_intrinsic": [[0.0] * 3] * 3}, "row 1: camera_intrinsic has no positive focal"),
        ("calibrated_sensor", {"sensor_token": "x"}, "row 1 names sensor 'x'"),
        ("scene", {"name": "scene-2002"}, "scene.json row 2 and row 1 are both named 'scene-2002'"),
        ("scene", {"description": 3}, "scene.json row 1: description must be text, not 3"),
        ("map", {"filename": "../x.png"}, "map.json row 1: filename '../x.png' is not"),
        ("map", {"log_tokens": 3}, "map.json row 1: log_tokens must be a list"),
    ],
)  # fmt: skip
def test_bad_rows_are_named(dataroot: Path, table: str, changes: dict[str, Any], words: str) -> None:
    place = 2 if table in ("sample_data", "ego_pose") else 0
    edit_table(
        dataroot, table, lambda rows: [row | changes if i == place else row for i, row in enumerate(rows)]
    )
    with pytest.raises(InputError) as caught:
        open_dataset(dataroot).load(NAME)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_can_readings_are_left_out(dataroot: Path) -> None:
    path = dataroot / "can_bus" / f"{NAME}_pose.json"
    messages = json.loads(path.read_text())
    usual = open_dataset(dataroot).load(NAME).speed_mps
    messages[7]["vel"][0] = 1e308
    path.write_text(json.dumps(messages))
    scene = open_dataset(dataroot).load(NAME)
    assert scene.signal_sources["speed"] == "pose"
    np.testing.assert_allclose(scene.speed_mps, usual, atol=0.1)
    for message in messages:
        message["vel"][0] = 1e308
    path.write_text(json.dumps(messages))
    assert open_dataset(dataroot).load(NAME).signal_sources["speed"] == "vehicle_monitor"


def test_paths_with_spaces_letters_and_links(dataroot: Path, tmp_path: Path) -> None:
    other = dataroot.rename(tmp_path / "mein Datensatz ñ 数据")
    (other / "loop").symlink_to(other / "loop")
    (other / "samples" / "again").symlink_to(other)
    (tmp_path / "link").symlink_to(other)
    assert len(open_dataset(tmp_path / "link").load(NAME).frames[3]) == 128
    with pytest.raises(InputError, match="is not a folder"):
        open_dataset(other / "loop")
    for version in ("", "..", ".", "v1.0-mini/.", str(other / "v1.0-mini"), "nothing"):
        with pytest.raises(InputError, match="has no version"):
            open_dataset(other, version)
