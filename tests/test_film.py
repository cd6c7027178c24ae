"""Drives of the reference world in other graphics, as videos and tables."""

import csv

import numpy as np
import pytest

from drivesim.errors import InputError
from drivesim.imports.drive_log import DriveLog
from drivesim.imports.kinds import RecordingKind, reader_of
from drivesim.imports.options import ImportConfig
from drivesim.reference.film import FilmConfig, film
from drivesim.reference.restyle import Graphics, other_camera, restyled
from drivesim.scene.types import front_camera


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films") / "a b"
    done = []
    camera = other_camera(scale=1)
    config = FilmConfig(total_s=11, drive_s=6, first_seed=3, camera=camera)
    assert film(config, folder, on_progress=done.append) == 2
    return folder, done


def test_drives_fill_the_time_with_one_folder_each(films):
    folder, done = films
    assert [entry.name for entry in sorted(folder.iterdir())] == [
        "reference-filmed-3",
        "reference-filmed-4",
    ]
    assert done == [6, 11]


def test_importers_read_them(films):
    logs: list[DriveLog] = reader_of(RecordingKind("csv"))(films[0], ImportConfig())
    assert [len(log.frames) for log in logs] == [72, 60]
    log = logs[0]
    log.check()
    assert log.frames[0].shape == (128, 224, 3)
    with (films[0] / "reference-filmed-3" / "drive.csv").open() as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose(log.speed_mps.values, [float(row["speed_mps"]) for row in rows])
    speed, steering = log.speed_mps.values, log.steering_rad.values
    turning = speed * np.tan(steering) / 2.8
    assert np.abs(turning - log.yaw_rate_radps.values).mean() < 0.03


def test_they_are_not_written_over(films):
    with pytest.raises(InputError, match="not empty"):
        film(FilmConfig(total_s=5, drive_s=5), films[0])


def test_bad_lengths_and_roads_are_refused():
    with pytest.raises(InputError, match="no longer than all together"):
        FilmConfig(total_s=10, drive_s=30)
    with pytest.raises(InputError, match="949999"):
        FilmConfig(first_seed=950_000)


def picture(rng):
    return rng.integers(0, 255, (32, 48, 3), dtype=np.uint8)


def test_graphics_change_colours_and_leave_greys(rng):
    plain = Graphics(vignette=0.0, grain=0.0, gamma=1.0, levels=256)
    grey = np.full((4, 4, 3), 90, np.uint8)
    np.testing.assert_array_equal(restyled(grey, plain, rng), grey)
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 120
    assert restyled(red, plain, rng)[0, 0].argmax() != 0
    assert np.abs(restyled(red, plain, rng).astype(int) - red).max() > 50


def test_pictures_are_posterised_darker_at_the_corners_and_grainy(rng):
    flat = restyled(picture(rng), Graphics(vignette=0.0, grain=0.0, levels=4), rng)
    assert set(np.unique(flat)) <= {0, 85, 170, 255}
    white = np.full((33, 33, 3), 255, np.uint8)
    shaded = restyled(white, Graphics(grain=0.0), rng)
    assert shaded[16, 16, 0] == 255
    assert shaded[0, 0, 0] == pytest.approx(255 * (1 - 0.45 * (32 / 33) ** 2), abs=1)
    grainy = restyled(white, Graphics(vignette=0.5, grain=4.0), rng)
    assert (
        2 < (grainy[0].astype(float) - restyled(white, Graphics(vignette=0.5, grain=0.0), rng)[0]).std() < 6
    )


def test_graphics_that_make_no_picture_are_refused():
    with pytest.raises(ValueError, match="levels >= 2"):
        Graphics(levels=1)
    with pytest.raises(ValueError, match="grain >= 0"):
        Graphics(grain=-1.0)


def test_the_other_camera_differs_from_the_front_camera():
    other = other_camera(scale=1)
    assert other.fx_px < front_camera().fx_px
    assert other.cy_px == other.height_px / 2  # a phone's: nothing is known of it but its field of view
    assert other_camera().width_px == 2 * other.width_px
