"""The benchmark of picture reading: its truth, its figures, its roads."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import picture_reading
from benchmarks.picture_reading import COLUMNS, Reading, car_ahead_m, main, row_of
from drivesim.errors import InputError
from drivesim.reference.vehicles import VehicleBox

WAY_M = np.stack([np.arange(41.0), np.zeros(41)], axis=-1)


@pytest.mark.parametrize(
    ("boxes", "expected_m"),
    [
        ([], None),
        ([VehicleBox(x_m=20.0, y_m=0.0, yaw_rad=0.0, length_m=4.0)], 18.0),
        ([VehicleBox(x_m=20.0, y_m=1.7, yaw_rad=0.0)], 17.6),  # reaches into the way
        ([VehicleBox(x_m=20.0, y_m=3.5, yaw_rad=0.0)], None),
        ([VehicleBox(x_m=30.0, y_m=0.0, yaw_rad=0.0), VehicleBox(x_m=15.0, y_m=0.0, yaw_rad=1.57)], 14.05),
        ([VehicleBox(x_m=-10.0, y_m=0.0, yaw_rad=0.0)], None),
    ],
)
def test_the_first_vehicle_in_the_way_counts(boxes: list[VehicleBox], expected_m: float | None) -> None:
    found_m = car_ahead_m(WAY_M, boxes, np.eye(3))
    assert found_m == (None if expected_m is None else pytest.approx(expected_m, abs=0.3))


def test_a_row_counts_what_is_seen_missed_and_made_up() -> None:
    def reading(car_m: float | None, read_m: float | None, lane_m: float = 0.1) -> Reading:
        return Reading(lane_error_m=[lane_m, 2 * lane_m], is_on_lane=lane_m < 5, car_m=car_m, read_m=read_m)

    read = [
        reading(20.0, 22.0),
        reading(10.0, None, lane_m=0.7),
        reading(50.0, 40.0),  # too far to count
        reading(None, None, lane_m=9.0),  # not keeping a lane
        reading(None, 12.0),
    ]
    row = dict(zip(COLUMNS, row_of("some", read), strict=True))
    assert row["number"] == 5
    assert row["lane 8 m (m)"] == pytest.approx(0.1)
    assert row["within 0.5 m"] == 0.75
    assert (row["cars < 30 m"], row["seen"], row["error (m)"], row["false"]) == (2, 0.5, 2.0, 0.5)


def test_roads_of_the_training_are_refused() -> None:
    with pytest.raises(InputError, match="not held out"):
        main(["--seed", "5"])


def test_one_road_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(picture_reading, "NUM_FRAMES", 5)
    main(["--seed", "890000", "--num-scenes", "1", "--weights", ""])
    assert "validation roads" in capsys.readouterr().out
