"""Clips never straddle a cut and never come from slow motion, and what was found out is not found out again."""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from media_files import SIZE, level, write_timed
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.scene import shots
from drivesim.scene.captioned_clips import read_clip
from drivesim.scene.captioned_files import FolderSource
from drivesim.scene.file_facts import FileFacts
from drivesim.scene.media import MediaFile, Span
from drivesim.scene.optical_flow import measure_motion
from drivesim.scene.shots import ClipFilter, NoClipError, SkipReason
from drivesim.video import write_video

WIDTH_PX = 160


def _scenery() -> NDArray[np.uint8]:
    coarse = np.random.default_rng(1).integers(40, 220, (12, 40, 3), dtype=np.uint8)
    smooth = np.kron(coarse.astype(np.float64), np.ones((8, 8, 1)))
    for axis in (0, 1):
        smooth = sum(np.roll(smooth, shift, axis) for shift in range(-3, 4)) / 7
    return smooth.astype(np.uint8)


def _pan(path: Path, widths_per_s: float, seconds: float = 2.0, rate_hz: float = 10.0) -> Path:
    """Write a view that glides over a scenery."""
    scenery = _scenery()
    offsets = [round(index / rate_hz * widths_per_s * WIDTH_PX) for index in range(round(seconds * rate_hz))]
    write_video(path, [np.roll(scenery, -offset, axis=1)[:, :WIDTH_PX] for offset in offsets], rate_hz)
    return path


def _halves(path: Path, *lengths: int) -> Path:
    """Write shots of black and white in turn at 10 Hz."""
    frames = [
        np.full((*SIZE, 3), 30 + 190 * (shot % 2), np.uint8)
        for shot, n in enumerate(lengths)
        for _ in range(n)
    ]
    write_video(path, frames, 10.0)
    return path


def _lengths(spans: list[Span]) -> list[float]:
    return [round(span.length_s, 3) for span in spans]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_two_halves_are_two_shots(tmp_path: Path, suffix: str) -> None:
    media = MediaFile(path=_halves(tmp_path / f"a{suffix}", 12, 18))
    assert _lengths(ClipFilter().shots(media)) == [3.0]
    assert _lengths(ClipFilter(detect_cuts=True).shots(media)) == [1.2, 1.8]


def test_clips_never_straddle_cuts(tmp_path: Path) -> None:
    _halves(tmp_path / "a.mp4", 9, 2, 1, 8, 3, 14)
    source, rng, levels = FolderSource(tmp_path), np.random.default_rng(0), set()
    clip_filter = ClipFilter(detect_cuts=True)
    assert _lengths(clip_filter.shots(source.item(0).media)) == [0.9, 0.2, 0.1, 0.8, 0.3, 1.4]
    for _ in range(30):
        clip = read_clip(source, 0, num_frames=8, rate_hz=10.0, size=SIZE, rng=rng, clip_filter=clip_filter)
        assert np.ptp(clip.frames) < 8
        levels.add(int(clip.frames.mean()) > 120)
    assert levels == {False, True}
    with pytest.raises(NoClipError, match=r"no shot of .*a\.mp4"):
        read_clip(source, 0, num_frames=16, rate_hz=10.0, size=SIZE, rng=rng, clip_filter=clip_filter)


def test_cuts_of_a_variable_rate_are_at_their_times(tmp_path: Path) -> None:
    media = MediaFile(
        path=write_timed(tmp_path / "a.mp4", [0.0, 0.1, 1.5, *(2 + 0.1 * k for k in range(37)), 9.0])
    )
    assert level(40) < level(39)  # the ramp starts anew: a cut
    spans = ClipFilter(detect_cuts=True).shots(media)
    assert [round(span.start_s, 3) for span in spans] == [0.0, 9.0]


def test_without_the_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    ClipFilter()
    with pytest.raises(InputError, match=r"pip install drivesim\[general\]"):
        ClipFilter(detect_cuts=True)


@pytest.mark.parametrize("widths_per_s", [0.0, 0.02, 0.1, 0.3])
def test_motion_is_measured_in_widths_per_second(tmp_path: Path, widths_per_s: float) -> None:
    motions = measure_motion(MediaFile(path=_pan(tmp_path / "a.mp4", widths_per_s)))
    assert np.mean([motion.widths_per_s for motion in motions]) == pytest.approx(
        widths_per_s, rel=0.25, abs=0.004
    )
    assert motions[0].during.start_s == 0.0
    assert all(a.during.end_s == b.during.start_s for a, b in pairwise(motions))


def test_still_clips_are_dropped_and_moving_ones_kept(tmp_path: Path) -> None:
    for name, speed in (("0-still.mp4", 0.0), ("1-slow.mp4", 0.01), ("2-fast.mp4", 0.15)):
        _pan(tmp_path / name, speed)
    source, clip_filter = FolderSource(tmp_path), ClipFilter(min_motion=0.04)
    for index in range(3):
        arguments = {"num_frames": 6, "rate_hz": 10.0, "size": SIZE, "rng": np.random.default_rng(0)}
        if index == 2:
            clip = read_clip(source, index, clip_filter=clip_filter, **arguments)
            assert clip.frames.shape[0] == 6
            continue
        with pytest.raises(NoClipError, match=source.item(index).key) as caught:
            read_clip(source, index, clip_filter=clip_filter, **arguments)
        assert caught.value.reason is SkipReason.SLOW
        read_clip(source, index, **arguments)


def test_clips_come_from_where_something_moves(tmp_path: Path) -> None:
    scenery = _scenery()
    offsets = [0] * 20 + list(range(0, 60, 3)) + [60] * 20
    write_video(tmp_path / "a.mp4", [np.roll(scenery, -x, axis=1)[:, :WIDTH_PX] for x in offsets], 10.0)
    source, clip_filter, rng = FolderSource(tmp_path), ClipFilter(min_motion=0.08), np.random.default_rng(0)
    for _ in range(6):
        clip = read_clip(source, 0, num_frames=6, rate_hz=10.0, size=SIZE, rng=rng, clip_filter=clip_filter)
        assert (np.abs(np.diff(clip.frames.astype(int), axis=0)).mean(axis=(1, 2, 3)) > 1).sum() >= 2


def test_a_cut_is_no_motion(tmp_path: Path) -> None:
    still = [np.roll(_scenery(), -40 * shot, axis=1)[:, :WIDTH_PX] // (1 + shot) for shot in (0, 1)]
    write_video(tmp_path / "a.mp4", [still[index // 10] for index in range(20)], 10.0)
    media = FolderSource(tmp_path).item(0).media
    clip_filter = ClipFilter(detect_cuts=True, min_motion=0.01)
    for shot in clip_filter.shots(media):
        assert clip_filter.motion(media).mean(shot, shot) < 0.005


def _count_detections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    for name in ("detect_cuts", "measure_motion", "read_span"):
        original = getattr(shots, name)

        def counted(*arguments: object, name: str = name, original=original):
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(shots, name, counted)
    return calls


def test_facts_are_kept_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _count_detections(monkeypatch)
    media, cache = MediaFile(path=_halves(tmp_path / "a.mp4", 12, 18)), tmp_path / "cache"

    def facts(threshold: float = 27.0) -> list[float]:
        clip_filter = ClipFilter(detect_cuts=True, cut_threshold=threshold, min_motion=0.1, cache=cache)
        spans = clip_filter.shots(media)
        clip_filter.motion(media)
        return _lengths(spans)

    assert facts() == facts() == [1.2, 1.8]
    assert sorted(calls) == ["detect_cuts", "measure_motion", "read_span"]
    facts(threshold=20.0)
    assert sorted(calls) == ["detect_cuts", "detect_cuts", "measure_motion", "read_span"]
    calls.clear()
    _halves(media.path, 5, 18)
    assert facts() == [0.5, 1.8]
    assert sorted(calls) == ["detect_cuts", "measure_motion", "read_span"]
    (file,) = cache.iterdir()  # nothing half written beside it
    (entry,) = json.loads(file.read_text()).values()
    assert entry["stamp"] == [media.path.stat().st_size, media.path.stat().st_mtime_ns]
    calls.clear()
    os.utime(media.path, ns=(0, 0))
    file.write_text("damaged")
    assert facts() == [0.5, 1.8]
    assert len(calls) == 3


def test_facts_of_many_files_share_few_json_files(tmp_path: Path) -> None:
    file = tmp_path / "tar"
    file.write_bytes(b"x" * 100)
    parts = [
        MediaFile(path=file, member=f"{number}.mp4", offset=number, num_bytes=1) for number in range(100)
    ]
    for part in parts:
        FileFacts(tmp_path / "facts").get(part, "name", lambda part=part: part.member)
    for part in parts:
        assert FileFacts(tmp_path / "facts").get(part, "name", lambda: "lost") == part.member


def test_facts_that_cannot_be_kept_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    media = MediaFile(path=_halves(tmp_path / "a.mp4", 12))
    with pytest.raises(InputError, match=r"cannot write to .*file.*set cache"):
        ClipFilter(cache=tmp_path / "file" / "cache").shots(media)
    assert _lengths(ClipFilter(cache=None).shots(media)) == [1.2]
