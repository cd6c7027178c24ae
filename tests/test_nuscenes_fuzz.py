"""Whatever the tables of a data set are changed to: its scenes are those that json.loads gives, or an InputError."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivesim.errors import InputError
from drivesim.scene import table_scan
from drivesim.scene.dataroot import NEEDED_TABLES
from drivesim.scene.nuscenes import NuScenesDataset, open_dataset


@pytest.fixture(scope="module")
def original(exported: Path) -> dict[str, bytes]:
    return {
        table: (exported / "v1.0-mini" / f"{table}.json").read_bytes()
        for table in (*NEEDED_TABLES, "log", "map")
    }


@pytest.fixture(scope="module")
def mutated(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set without pictures, whose tables are overwritten."""
    folder = tmp_path_factory.mktemp("mutated")
    for name in ("samples", "maps", "can_bus"):
        os.symlink(exported / name, folder / name)
    (folder / "v1.0-mini").mkdir()
    return folder


def told(dataset: NuScenesDataset) -> Any:
    return {
        name: [
            (time, file, *xy)
            for pictures in [dataset.pictures(name)]
            for time, file, xy in zip(
                pictures.times_us.tolist(), pictures.filenames, pictures.xy_m.tolist(), strict=True
            )
        ]
        for name in dataset.scene_names()
    }


def expected(tables: dict[str, bytes]) -> Any:
    """Tell the same in the plainest way."""
    rows = {table: json.loads(data) for table, data in tables.items()}
    by_token = {table: {row["token"]: row for row in records} for table, records in rows.items()}
    result = {}
    for scene in rows["scene"]:
        chosen: dict[int, Any] = {}
        for row in rows["sample_data"]:
            sensor = by_token["calibrated_sensor"][row["calibrated_sensor_token"]]["sensor_token"]
            is_front = by_token["sensor"][sensor]["channel"] == "CAM_FRONT"
            is_own = by_token["sample"][row["sample_token"]]["scene_token"] == scene["token"]
            if is_front and is_own and by_token["sensor"][sensor]["modality"] == "camera":
                chosen.setdefault(int(row["timestamp"]), row)
        poses = {
            time: by_token["ego_pose"][row["ego_pose_token"]]["translation"] for time, row in chosen.items()
        }
        result[scene["name"]] = [
            (time, chosen[time]["filename"], *poses[time][:2]) for time in sorted(chosen)
        ]
    return result


PIECES = st.one_of(
    st.sampled_from([b"", b"1e999", b"NaN", b"-1", b"null", b"true", b'"', b"{", b"}", b"[", b"]", b",", b":"]),
    st.sampled_from([b"\xff", b"\xef\xbb\xbf"]),
    st.sampled_from([b"9" * 400, b"[" * 2000, b"../", b"\\u00e9", b"CAM_FRONT", b'"token":"x",']),
    st.binary(min_size=1, max_size=3),
)  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.sampled_from([*NEEDED_TABLES, "sample_data", "ego_pose", "log", "map"]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), PIECES), min_size=1, max_size=2),
    is_pretty=st.booleans(),
    window=st.sampled_from([300, 1 << 22]),
)
def test_fuzz_tables_give_the_scenes_of_json_or_an_input_error(
    mutated: Path, original: dict[str, bytes], table: str, edits: Any, is_pretty: bool, window: int
) -> None:
    tables = dict(original)
    data = json.dumps(json.loads(tables[table]), indent=0).encode() if is_pretty else tables[table]
    for place, cut, piece in edits:
        at = round(place * len(data))
        data = data[:at] + piece + data[at + cut :]
    tables[table] = data
    for name, content in tables.items():
        (mutated / "v1.0-mini" / f"{name}.json").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_scan, "WINDOW", window)
        try:
            dataset = open_dataset(mutated)
            found = told(dataset)
        except InputError:
            return
        assert found == expected(tables)
        for name in dataset.scene_names():
            with suppress(InputError):
                dataset.load(name)
