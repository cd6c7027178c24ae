"""Pictures and videos survive the disk; what cannot be read is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recordings import pictures

from drivesim import video
from drivesim.errors import InputError


def test_png_is_exact_and_jpeg_is_close(tmp_path: Path) -> None:
    image = pictures(1)[0]
    image[:, :60] = (200, 30, 10)
    video.write_image(tmp_path / "a.png", image)
    video.write_image(tmp_path / "a.jpg", image, quality=95)
    assert np.array_equal(video.read_image(tmp_path / "a.png"), image)
    assert np.abs(video.read_image(tmp_path / "a.jpg").astype(int) - image).mean() < 3


def test_quality_costs_bytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for quality in (30, 90):
        video.write_image(tmp_path / f"{quality}.jpg", noise, quality=quality)
    assert (tmp_path / "30.jpg").stat().st_size < (tmp_path / "90.jpg").stat().st_size


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_image_is_named(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    video.write_image(path, pictures(1)[0])
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=path.name):
        video.read_image(path)


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jpg"):
        video.read_image(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"cannot be decoded.* convert it to JPEG, PNG"):
        video.read_image(tmp_path / "text.jpg")
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match="truncated after 0 bytes; fetch"):
        video.read_image(tmp_path / "empty.png")
    with pytest.raises(InputError, match=r"\.jpg or \.png"):
        video.write_image(tmp_path / "a.bmp", pictures(1)[0])
    with pytest.raises(ValueError, match="uint8"):
        video.write_image(tmp_path / "a.png", np.zeros((4, 4, 3)))


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize("size", [(128, 224), (65, 99)])
def test_video_round_trip(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    frames = [frame[: size[0], : size[1]] for frame in pictures(9)]
    path = tmp_path / f"drive{suffix}"
    video.write_video(path, iter(frames), 6.0)
    read = video.read_video(path)
    assert len(read.frames) == 9
    assert read.rate_hz == pytest.approx(6.0, rel=0.05)
    assert np.abs(read.frames[5][: size[0], : size[1]].astype(int) - frames[5]).mean() < 8
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_failed_video_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="all frames"):
        video.write_video(tmp_path / "a.mp4", [pictures(1)[0], pictures(1)[0][:50]], 6.0)
    for path, frames, rate in (("a.mp4", [], 6.0), ("a.avi", pictures(1), 6.0), ("a.gif", pictures(1), 0.0)):
        with pytest.raises(InputError, match="cannot write"):
            video.write_video(tmp_path / path, frames, rate)
    assert not list(tmp_path.iterdir())


def test_unreadable_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    for name in ("a.mp4", "b.mp4"):
        with pytest.raises(InputError, match=name):
            video.read_video(tmp_path / name)


def test_pictures_are_drawn_on_across_a_mask():
    ramp = np.broadcast_to(np.linspace(0, 250, 64)[None, :, None], (2, 48, 64, 3)).astype(np.uint8)
    mask = np.zeros((2, 48, 64), dtype=bool)
    mask[:, 15:30, 20:40] = True
    holed = np.where(mask[..., None], 255, ramp)
    filled = video.drawn_across(holed, mask)
    assert np.array_equal(filled[~mask], ramp[~mask])
    assert np.abs(filled.astype(int) - ramp).mean() < 0.1 * np.abs(holed.astype(int) - ramp).mean()
    assert not video.drawn_across(holed, np.ones_like(mask)).any()


def test_compositions_place_every_picture() -> None:
    frames = [np.full((4, 6, 3), 10 * index, dtype=np.uint8) for index in range(5)]
    sheet = video.contact_sheet(frames, 2, gap_px=1)
    assert sheet.shape == (3 * 5 - 1, 2 * 7 - 1, 3)
    assert (sheet[5:9, 7:13] == 30).all()
    pair = video.side_by_side(frames[1], None, frames[2], gap_px=0)
    assert pair.shape == (4, 18, 3)
    assert (pair[:, 12:] == 20).all()
    with pytest.raises(ValueError, match="at least one"):
        video.side_by_side(None)
    with pytest.raises(ValueError, match="columns"):
        video.contact_sheet([], 3)


def test_label_changes_a_copy() -> None:
    image = pictures(1)[0]
    before = image.copy()
    assert (video.with_label(image, "step 3") != image).any()
    assert np.array_equal(image, before)


def test_resize() -> None:
    image = pictures(1)[0]
    assert video.resize(image, 224, 128) is image
    assert video.resize(image, 112, 64).shape == (64, 112, 3)
    assert np.abs(video.resize(image, 112, 64).mean() - image.mean()) < 1
    assert video.resize(image, 448, 256).shape == (256, 448, 3)


def test_films_of_the_same_pictures_are_the_same_files(tmp_path: Path, rng: np.random.Generator) -> None:
    frames = np.repeat(rng.integers(0, 255, (8, 16, 28, 3), dtype=np.uint8), 8, axis=1).repeat(8, axis=2)
    files = []
    for count in range(4):
        elsewhere = rng.random(1000 * count)  # so that memory is laid out anew
        video.write_video(tmp_path / "film.mp4", [frame.copy() for frame in frames], 6.0)
        files.append((tmp_path / "film.mp4").read_bytes())
        del elsewhere
    assert len(set(files)) == 1
    video.write_video(tmp_path / "film.mp4", frames, 6.0, crf=40)
    assert len((tmp_path / "film.mp4").read_bytes()) < len(files[0])
