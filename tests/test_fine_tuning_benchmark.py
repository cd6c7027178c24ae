"""The figure of fine-tuning: what is compared, and the words of its command."""

import json

import numpy as np
import pytest
from recordings import make_scene

from benchmarks import fine_tuning
from benchmarks.fine_tuning import HORIZON, Imagined, Windows, parse, report_of, sheet
from benchmarks.held_out import Start, without_labels
from drivesim.errors import InputError


def imagined(gain_db, rng, *, count=6):
    return Imagined(
        frames=rng.integers(0, 255, (count, HORIZON, 128, 224, 3), dtype=np.uint8),
        gain_db=np.full((count, HORIZON), gain_db) + 0.1 * rng.standard_normal((count, HORIZON)),
        ceiling_db=np.full(count, 20.0 + gain_db),
    )


@pytest.fixture
def windows(rng):
    scenes = [without_labels(make_scene(name=name)) for name in "ab"]
    starts = [Start(scene_index=index % 2, frame_index=5 + index) for index in range(6)]
    frames = rng.integers(0, 255, (6, HORIZON, 128, 224, 3), dtype=np.uint8)
    twist = np.zeros((6, HORIZON, 2), np.float32)
    return Windows(scenes=scenes, starts=starts, target=frames, twist=twist, repeat_db=np.zeros((6, HORIZON)))


def test_the_report_compares_window_by_window(windows, rng, tmp_path):
    report = report_of(windows, imagined(1.0, rng), imagined(3.0, rng))
    report.write(tmp_path / "r.json")
    figures = json.loads((tmp_path / "r.json").read_text())
    assert figures["psnr_gain_at_6_before"] == pytest.approx(1.0, abs=0.2)
    assert figures["psnr_gain_at_6_after"] == pytest.approx(3.0, abs=0.2)
    difference = figures["psnr_gain_at_6_after"] - figures["psnr_gain_at_6_before"]
    assert figures["improvement_db"] == pytest.approx(difference)
    low, high = figures["improvement_db_interval"]
    assert low <= figures["improvement_db"] <= high
    assert figures["targets"]["improvement_db"] == {"target": ">= 1.5", "is_reached": True}
    assert len(figures["improvement_over_steps_db_curve"]["value"]) == HORIZON


def test_the_sheet_shows_recorded_before_and_after(windows, rng):
    before, after = imagined(1.0, rng), imagined(3.0, rng)
    rows = sheet(windows, before, after)
    assert len(rows) == 3 * fine_tuning.SHEET_STARTS
    assert [row[1][0] for row in rows[:3]] == ["recorded +1", "before +1", "after +1"]
    np.testing.assert_array_equal(rows[2][3][1], after.frames[0, 5])


def test_roads_of_the_wrong_kind_are_refused(tmp_path):
    with pytest.raises(InputError, match="no training road"):
        parse(["--seed", "890000", "--out", str(tmp_path)])
    with pytest.raises(InputError, match="not held out"):
        parse(["--held-out-seed", "5", "--out", str(tmp_path)])
    with pytest.raises(InputError, match="--minutes must be positive"):
        parse(["--minutes", "0", "--out", str(tmp_path)])


def test_the_camera_that_films_is_known_to_the_import():
    config = fine_tuning.import_config()
    assert np.degrees(config.field_of_view_rad) == pytest.approx(80.6, abs=0.1)
    assert config.camera_height_m == 1.9
