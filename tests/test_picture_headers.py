"""What the bytes of a picture say, and JPEGs decoded at a part of their size."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from drivesim.errors import InputError
from drivesim.metrics.image import psnr
from drivesim.scene.frame_files import FrameFiles
from drivesim.scene.picture_headers import is_truncated, jpeg_size, orientation
from drivesim.video import read_image, resize, write_image


def picture(width_px, height_px, *, detail=6.0):
    """Return smooth shapes with edges and grain, as cameras see."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height_px, 0:width_px]
    base = 110 + 60 * np.sin(columns / width_px * 9) + 50 * (rows > height_px / 2)
    channels = np.stack([base, 0.8 * base, 200 - 0.5 * base], axis=-1)
    channels[height_px // 3 : height_px // 2, width_px // 4 : width_px // 3] = (220, 40, 40)
    return np.clip(channels + rng.normal(0, detail, channels.shape), 0, 255).astype(np.uint8)


def jpeg(pixels, **settings):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", **settings)
    return data.getvalue()


@pytest.mark.parametrize(
    "settings", [{}, {"progressive": True}, {"subsampling": 0}, {"comment": b"\xff\xc0" * 9}]
)
def test_the_size_stands_in_the_header(settings):
    assert jpeg_size(jpeg(picture(61, 33), **settings)) == (61, 33)


def test_fill_bytes_and_bare_markers_are_passed_over():
    data = jpeg(picture(16, 8))
    assert jpeg_size(data[:2] + b"\xff\x01\xff\xff" + data[3:]) == (16, 8)
    assert jpeg_size(b"\xff\xd8") is None
    assert jpeg_size(b"\xff\xd8not a segment") is None


@given(st.binary(max_size=80))
def test_any_bytes_are_read_without_a_crash(data):
    for start in (b"", b"\xff\xd8", b"\x89PNG", b"eXIfII*\0", b"EXIF....MM\0*"):
        size = jpeg_size(start + data)
        assert size is None or len(size) == 2
        assert orientation(start + data) >= 0
        assert is_truncated(start + data) in (True, False)


@pytest.mark.parametrize(("width_px", "height_px"), [(1600, 900), (448, 256), (900, 900), (1800, 1100)])
def test_reduced_decoding_is_near_full_decoding(tmp_path, width_px, height_px):
    write_image(tmp_path / "a.jpg", picture(width_px, height_px), quality=85)
    fast = FrameFiles([tmp_path / "a.jpg"], 224, 128)[0]
    full = resize(read_image(tmp_path / "a.jpg"), 224, 128)
    assert fast.shape == (128, 224, 3)
    assert psnr(fast[None], full[None])[0] > 40


@pytest.mark.parametrize(
    ("enough", "shape"),
    [((224, 128), (225, 400)), ((200, 112), (113, 200)), ((800, 450), (450, 800)), ((801, 450), (900, 1600))],
)
def test_never_fewer_pixels_than_are_enough(tmp_path, enough, shape):
    write_image(tmp_path / "a.jpg", picture(1600, 900, detail=0))
    assert read_image(tmp_path / "a.jpg", enough_px=enough).shape == (*shape, 3)
    assert read_image(tmp_path / "a.jpg").shape == (900, 1600, 3)


def test_pictures_held_sideways_are_turned_and_large_enough(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(jpeg(picture(900, 300), exif=exif.tobytes()))
    full = read_image(tmp_path / "a.jpg")
    assert full.shape == (900, 300, 3)
    assert read_image(tmp_path / "a.jpg", enough_px=(140, 150)).shape == (450, 150, 3)
    assert read_image(tmp_path / "a.jpg", enough_px=(400, 140)).shape == (900, 300, 3)


def test_grey_jpegs_other_formats_and_broken_files_are_as_before(tmp_path):
    (tmp_path / "grey.jpg").write_bytes(jpeg(picture(640, 480)[..., 0]))
    grey = read_image(tmp_path / "grey.jpg", enough_px=(160, 120))
    assert grey.shape == (120, 160, 3)
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    cv2.imwrite(str(tmp_path / "a.png"), picture(64, 48)[..., ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", enough_px=(8, 8)), picture(64, 48))
    data = jpeg(picture(640, 480))
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("cut.jpg", "empty.jpg"):
        with pytest.raises(InputError, match=f"{name} is truncated"):
            read_image(tmp_path / name, enough_px=(160, 120))
