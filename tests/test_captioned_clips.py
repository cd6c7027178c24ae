"""Clips keep their times and their place; a stream of them passes over what has none, and says so."""

from __future__ import annotations

import pickle
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from media_files import SIZE, cut_short, ramp, seen, write_audio, write_ramp, write_timed

from drivesim.errors import InputError
from drivesim.scene.captioned_clips import CaptionedClips, read_clip
from drivesim.scene.captioned_files import FolderSource
from drivesim.scene.shots import NoClipError, SkipReason
from drivesim.video import write_image, write_video


def _starts(folder: Path, num_frames: int, rate_hz: float, count: int = 20) -> list[list[int]]:
    rng = np.random.default_rng(3)
    source = FolderSource(folder)
    clips = [
        read_clip(source, 0, num_frames=num_frames, rate_hz=rate_hz, size=SIZE, rng=rng) for _ in range(count)
    ]
    return [seen(clip.frames) for clip in clips]


def test_clips_keep_their_rate_and_are_spread_over_the_video(tmp_path: Path) -> None:
    write_ramp(tmp_path / "a.mp4", 40, 10.0)
    clips = _starts(tmp_path, 5, 5.0, count=60)
    assert all(np.diff(clip).tolist() == [2] * 4 for clip in clips)
    starts = [clip[0] for clip in clips]
    assert min(starts) <= 2
    assert 29 <= max(starts) <= 31
    assert len(set(starts)) > 20


def test_whole_video_is_a_clip(tmp_path: Path) -> None:
    write_ramp(tmp_path / "a.mp4", 16, 8.0)
    assert all(clip == list(range(16)) for clip in _starts(tmp_path, 16, 8.0, count=5))
    with pytest.raises(NoClipError, match=r"a\.mp4 has the 2\.00 s .* 2\.00 s.*; choose fewer") as caught:
        _starts(tmp_path, 17, 8.0)
    assert caught.value.reason is SkipReason.SHORT


def test_clips_of_a_variable_rate(tmp_path: Path) -> None:
    """The first half has 20 frames per second, the second 4."""
    times_s = [0.05 * index for index in range(20)] + [1.0 + 0.25 * index for index in range(5)]
    write_timed(tmp_path / "a.mp4", times_s)
    shown_s = np.array(times_s)
    for clip in _starts(tmp_path, 4, 8.0):
        lengths_s = np.diff(shown_s[clip])
        assert (np.abs(lengths_s - 0.125) < 0.25).all()
        assert abs(shown_s[clip[-1]] - shown_s[clip[0]] - 0.375) < 0.25


def test_nonsense_is_refused(tmp_path: Path) -> None:
    write_ramp(tmp_path / "a.mp4")
    for num_frames, rate_hz in ((0, 8.0), (4, 0.0)):
        with pytest.raises(ValueError, match="a clip needs"):
            _starts(tmp_path, num_frames, rate_hz)


def _stream(folder: Path, seed: int = 0) -> CaptionedClips:
    return CaptionedClips(FolderSource(folder), num_frames=5, rate_hz=10.0, size=SIZE, seed=seed)


def test_stream_visits_all_in_new_orders(tmp_path: Path) -> None:
    write_image(tmp_path / "picture.png", ramp(1)[0])
    for name in "abcd":
        write_ramp(tmp_path / f"{name}.mp4")
        (tmp_path / f"{name}.txt").write_text(name)
    captions = [clip.caption for clip in islice(_stream(tmp_path), 20)]
    passes = [captions[start : start + 5] for start in range(0, 20, 5)]
    assert all(sorted(one) == ["", "a", "b", "c", "d"] for one in passes)
    assert len({tuple(one) for one in passes}) > 1
    again = list(islice(pickle.loads(pickle.dumps(_stream(tmp_path))), 20))  # as workers get it
    assert [clip.caption for clip in again] == captions
    others = list(islice(_stream(tmp_path, seed=1), 20))
    assert [clip.caption for clip in others] != captions


def test_stream_passes_over_what_has_no_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ramp(tmp_path / "good.mp4")
    for name in ("cut-1.mp4", "cut-2.mp4"):
        cut_short(write_ramp(tmp_path / name))
    write_audio(tmp_path / "sound.mp4")
    write_ramp(tmp_path / "short.mp4", 3)
    stream = _stream(tmp_path)
    assert len(list(islice(stream, 3))) == 3
    list(islice(stream, 1))
    assert 2 * stream.num_skipped[SkipReason.SHORT] <= stream.num_skipped[SkipReason.BROKEN] <= 12
    assert stream.num_skipped[SkipReason.BROKEN] >= 6
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert sum("short.mp4" in line for line in lines) == 1
    assert all(line.startswith("warning: skipped: ") for line in lines)


def test_stream_without_a_single_clip_fails(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        cut_short(write_ramp(tmp_path / name))
    write_video(tmp_path / "c.gif", ramp(2), 10.0)
    with pytest.raises(
        InputError, match=r"none of 3 items has a clip \(.*2 unreadable.*\), the last because"
    ):
        next(iter(_stream(tmp_path)))
