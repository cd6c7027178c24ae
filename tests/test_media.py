"""Frames come from the times asked for, whatever the format; broken files are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from media_files import SIZE, cut_short, level, ramp, seen, write_audio, write_ramp, write_timed

from drivesim.errors import InputError
from drivesim.scene.media import MediaFile, cover, frames_at, read_picture, read_span, timed_frames
from drivesim.video import write_image, write_video


def _at(path: Path, *times_s: float) -> list[int]:
    return seen(frames_at(MediaFile(path=path), times_s, SIZE))


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_frames_are_those_a_player_shows(tmp_path: Path, suffix: str) -> None:
    path = write_ramp(tmp_path / f"a{suffix}")
    span = read_span(MediaFile(path=path))
    assert (span.start_s, span.end_s) == pytest.approx((0.0, 4.0))
    assert _at(path, 0.0, 0.05, 0.0999, 0.1, 1.95, 3.9, 3.99) == [0, 0, 1, 1, 19, 39, 39]
    assert _at(path, *np.arange(0.05, 4.0, 0.1)) == list(range(40))
    assert _at(path, *(0.5 + np.arange(20) / 30)) == [5 + step // 3 for step in range(20)]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx"), ("a.webm", "libvpx-vp9")]
)
def test_variable_rate_goes_by_timestamps(tmp_path: Path, name: str, codec: str) -> None:
    path = write_timed(tmp_path / name, [0.0, 0.1, 0.2, 1.0, 1.1, 3.0, 3.05], codec=codec)
    assert read_span(MediaFile(path=path)).end_s == pytest.approx(3.08, abs=0.08)
    assert _at(path, 0.0, 0.5, 0.99, 1.0, 1.5, 2.9, 3.0, 3.06) == [0, 2, 2, 3, 4, 4, 5, 6]
    assert _at(path, 2.0, 2.5) == [4, 4]


def test_thirtieths_survive_a_clock_of_milliseconds(tmp_path: Path) -> None:
    times_s = [index / 30 for index in range(40)]
    path = write_timed(tmp_path / "a.webm", times_s, codec="libvpx")
    assert _at(path, *times_s) == list(range(40))


def test_clock_that_starts_late(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.mp4", [0.5, 0.6, 0.7])
    span = read_span(MediaFile(path=path))
    assert span.start_s == pytest.approx(0.5)
    assert 0.7 < span.end_s < 0.9
    assert _at(path, 0.0, 0.5, 0.65, 0.7) == [0, 0, 1, 2]


def test_only_what_is_needed_is_decoded(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.mp4", [0.1 * index for index in range(40)], key_every=10)
    times_s = [time_s for time_s, _ in timed_frames(MediaFile(path=path), 3.2)]
    assert 2.2 < times_s[0] <= 3.2
    for start in range(38):
        assert _at(path, 0.1 * start, 0.1 * start + 0.11) == [start, start + 1]


def test_part_of_a_file_is_read_as_the_file(tmp_path: Path) -> None:
    path, picture = write_ramp(tmp_path / "a.mp4"), tmp_path / "a.png"
    write_image(picture, ramp(6)[5])
    video, image = path.read_bytes(), picture.read_bytes()
    (tmp_path / "all").write_bytes(b"x" * 700 + video + image + b"y" * 90)
    part = MediaFile(path=tmp_path / "all", member="b.mp4", offset=700, num_bytes=len(video))
    times_s = np.arange(0.05, 4.0, 0.25).tolist()
    assert read_span(part) == read_span(MediaFile(path=path))
    assert np.array_equal(frames_at(part, times_s, SIZE), frames_at(MediaFile(path=path), times_s, SIZE))
    part = MediaFile(path=tmp_path / "all", member="b/c.png", offset=700 + len(video), num_bytes=len(image))
    assert (read_picture(part, SIZE) == level(5)).all()


@pytest.mark.parametrize("shape", [(60, 200), (200, 60), (20, 30), (32, 48), (400, 401)])
def test_cover_keeps_the_middle_undistorted(shape: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    scale = max(SIZE[0] / shape[0], SIZE[1] / shape[1])
    image = np.stack([rows, columns, rows], axis=-1).astype(np.float64)
    image[..., 0] = 128 + (rows - (shape[0] - 1) / 2) * scale
    image[..., 1] = 128 + (columns - (shape[1] - 1) / 2) * scale
    covered = cover(np.clip(image, 0, 255).astype(np.uint8), SIZE).astype(int)
    assert covered.shape == (*SIZE, 3)
    assert np.abs(covered[2:-2, SIZE[1] // 2, 0] - 128 - np.arange(-13.5, 14)).max() < 2.5
    assert np.abs(covered[SIZE[0] // 2, 2:-2, 1] - 128 - np.arange(-21.5, 22)).max() < 2.5


def test_turned_video_stands_upright(tmp_path: Path) -> None:
    """Telephones film sideways and say so in the track header."""
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:, :48] = 200
    path = tmp_path / "a.mp4"
    write_video(path, [frame] * 3, 10.0)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]  # a quarter to the right
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in quarter)
    path.write_bytes(data)
    turned = frames_at(MediaFile(path=path), [0.0], (96, 64))[0]
    assert turned[:40].mean() > 190
    assert turned[56:].mean() < 10


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.8])
@pytest.mark.parametrize("name", ["a.mp4", "end.mp4", "a.webm"])
def test_truncated_video_is_named(tmp_path: Path, name: str, share: float) -> None:
    times_s = [0.1 * index for index in range(100)]
    codec = "libvpx" if name == "a.webm" else "libx264"
    path = write_timed(tmp_path / name, times_s, codec=codec, faststart=name == "a.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=name):
        read_span(MediaFile(path=path))


def test_truncated_gif_is_named(tmp_path: Path) -> None:
    path = cut_short(write_ramp(tmp_path / "a.gif"))
    with pytest.raises(InputError, match=r"a\.gif is truncated"):
        read_span(MediaFile(path=path))


def test_unfit_files_are_named(tmp_path: Path) -> None:
    write_audio(tmp_path / "audio.mp4")
    write_audio(tmp_path / "empty.mp4", with_empty_video=True)
    (tmp_path / "text.mp4").write_text("no video" * 100)
    for name in ("audio.mp4", "empty.mp4", "text.mp4", "none.mp4"):
        media = MediaFile(path=tmp_path / name)
        with pytest.raises(InputError, match=name):
            read_span(media)
        with pytest.raises(InputError, match=name):
            frames_at(media, [0.0], SIZE)
    with pytest.raises(InputError, match=r"none\.mp4"):
        MediaFile(path=tmp_path / "none.mp4").stamp()


def test_damage_inside_is_found_when_it_is_decoded(tmp_path: Path) -> None:
    path = write_timed(tmp_path / "a.mp4", [0.1 * index for index in range(40)], key_every=10, faststart=True)
    whole = shutil.copy(path, tmp_path / "whole.mp4")
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4
    data[begin + (len(data) - begin) // 4 :] = bytes(len(data) - begin - (len(data) - begin) // 4)
    path.write_bytes(data)
    assert _at(Path(whole), 3.5) == [35]
    with pytest.raises(InputError, match=r"a\.mp4"):
        _at(path, 3.5)


def test_broken_picture_in_a_part_is_named_by_the_part(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", ramp(1)[0])
    size = cut_short(tmp_path / "a.png").stat().st_size
    part = MediaFile(path=tmp_path / "a.png", member="key.png", num_bytes=size)
    with pytest.raises(InputError, match=r"a\.png:key\.png; fetch a\.png again"):
        read_picture(part, SIZE)
