"""Captioned media are found in every layout that people have; what is missing or broken is counted or named."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from media_files import SIZE, cut_short, level, ramp, seen, write_ramp
from webdataset.tariterators import group_by_keys, tar_file_expander

from drivesim.errors import InputError
from drivesim.scene import captioned_shards
from drivesim.scene.captioned import CaptionedSource
from drivesim.scene.captioned_clips import CaptionedClip, read_clip
from drivesim.scene.captioned_files import FolderSource
from drivesim.scene.captioned_source import CaptionedSourceConfig, SourceKind, open_filter, open_source
from drivesim.scene.file_patterns import expand_braces, find_files
from drivesim.video import write_image

COLUMNS = ("videoid", "contentUrl", "duration", "page_dir", "name")


def _open(path: Path | str, **settings: object) -> CaptionedSource:
    return open_source(CaptionedSourceConfig(path=str(path), cache="", **settings))


def _items(source: CaptionedSource) -> list[tuple[str, str]]:
    return [(media.key, media.caption) for media in map(source.item, range(len(source)))]


def _read(source: CaptionedSource, index: int = 0, num_frames: int = 5) -> CaptionedClip:
    rng = np.random.default_rng(0)
    return read_clip(source, index, num_frames=num_frames, rate_hz=10, size=SIZE, rng=rng)


def _table(path: Path, rows: list[tuple[str, ...]], columns: tuple[str, ...] = COLUMNS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


# ------------------------------------------------------------------------------------------------ folders


def test_folder_with_sidecars(tmp_path: Path) -> None:
    write_ramp(tmp_path / "b" / "deep" / "B.MP4".lower())
    write_ramp(tmp_path / "a.gif")
    write_image(tmp_path / "b" / "c.d.png", ramp(1)[0])
    write_image(tmp_path / ".hidden.png", ramp(1)[0])
    write_image(tmp_path / ".thumbnails" / "a.png", ramp(1)[0])
    (tmp_path / "notes.md").write_text("no media")
    (tmp_path / "a.txt").write_bytes("\ufeffA  grün\n frog \n".encode())
    (tmp_path / "b" / "c.d.txt").write_bytes(b"gr\xfcn")
    source = _open(tmp_path)
    assert _items(source) == [("a.gif", "A grün frog"), ("b/c.d.png", "gr\ufffdn"), ("b/deep/b.mp4", "")]
    assert [source.item(index).is_image for index in range(3)] == [False, True, False]
    clips = [_read(source, index) for index in range(3)]
    assert [clip.frames.shape for clip in clips] == [(5, *SIZE, 3), (1, *SIZE, 3), (5, *SIZE, 3)]
    assert clips[0].caption == "A grün frog"
    for clip in (clips[0], clips[2]):
        assert np.diff(seen(clip.frames)).tolist() == [1] * 4


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "webp"])
def test_picture_formats(tmp_path: Path, suffix: str) -> None:
    picture = ramp(12, (50, 100))[11]
    path = tmp_path / f"a.{suffix}"
    if suffix == "webp":
        image_module = pytest.importorskip("PIL.Image")
        image_module.fromarray(picture).save(path)
    else:
        write_image(path, picture)
    frames = _read(_open(tmp_path)).frames
    assert (frames.shape, frames.dtype) == ((1, *SIZE, 3), np.uint8)
    assert np.abs(frames.astype(int) - level(11)).max() <= 2
    cut_short(path, 0.4)
    with pytest.raises(InputError, match=path.name):
        _read(_open(tmp_path))


def test_folder_without_media(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no videos or pictures"):
        _open(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        _open(tmp_path / "none")
    with pytest.raises(InputError, match="there is no folder"):
        FolderSource(tmp_path / "none")
    with pytest.raises(InputError, match="need a path"):
        _open("")


# ------------------------------------------------------------------------------------------------- WebVid


def test_webvid_rows_without_a_file_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        (str(number), "http://x", "PT00H00M04S", f"{number % 2:06d}", f"clip, {number}")
        for number in range(5)
    ]
    _table(tmp_path / "results.csv", rows)
    for number in (1, 2, 4):
        write_ramp(tmp_path / f"{number % 2:06d}" / f"{number}.mp4")
    source = _open(tmp_path)
    assert _items(source) == [
        ("000001/1.mp4", "clip, 1"),
        ("000000/2.mp4", "clip, 2"),
        ("000000/4.mp4", "clip, 4"),
    ]
    assert source.num_missing == 2
    assert "2 files" in capsys.readouterr().err
    assert _read(source, 2).caption == "clip, 4"


def test_webvid_by_path_and_in_parts(tmp_path: Path) -> None:
    for number, name in enumerate(("x/a.mp4", "x/b.mp4", "c.mp4")):
        write_ramp(tmp_path / name)
        _table(tmp_path / "tables" / f"{number}.csv", [(name, name[-5])], ("path", "name"))
    source = _open(tmp_path, csv=str(tmp_path / "tables"))
    assert _items(source) == [("x/a.mp4", "a"), ("x/b.mp4", "b"), ("c.mp4", "c")]
    assert len(_open(tmp_path, csv=str(tmp_path / "tables" / "{0,2}.csv"))) == 2
    _table(
        tmp_path / "both.csv",
        [("", "9", "x", "1"), ("c.mp4", "", "", "2"), ("", "", "", "3")],
        ("path", *COLUMNS[:1], "page_dir", "name"),
    )
    write_ramp(tmp_path / "x" / "9.mp4")
    assert _items(_open(tmp_path)) == [("x/9.mp4", "1"), ("c.mp4", "2")]


def test_webvid_caption_that_is_not_utf8(tmp_path: Path) -> None:
    write_ramp(tmp_path / "d" / "1.mp4")
    head = ",".join(COLUMNS).encode()
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + head + b'\n1,u,d,d,"Gr\xfcn\nat night"\n')
    assert _items(_open(tmp_path)) == [("d/1.mp4", "Gr\ufffdn at night")]


def test_webvid_without_what_it_needs(tmp_path: Path) -> None:
    table = _table(tmp_path / "t.csv", [("7", "u", "d", "pages", "text")])
    with pytest.raises(InputError, match=r"none of the files .*t\.csv.*pages/7\.mp4"):
        _open(tmp_path)
    _table(table, [])
    with pytest.raises(InputError, match="no rows"):
        _open(tmp_path)
    _table(table, [("7", "d")], ("videoid", "page_dir"))
    with pytest.raises(InputError, match="lacks the column name"):
        _open(tmp_path)
    _table(table, [("7", "text")], ("videoid", "name"))
    with pytest.raises(InputError, match="lacks the column page_dir"):
        _open(tmp_path)
    table.write_text("")
    with pytest.raises(InputError, match="has none"):
        _open(tmp_path)
    with pytest.raises(InputError, match=r"other\.csv"):
        _open(tmp_path, csv=str(tmp_path / "other.csv"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.csv"):
        _open(tmp_path / "empty", kind=SourceKind.WEBVID)


# ------------------------------------------------------------------------------------------------- shards


def _shard(path: Path, samples: list[dict[str, object]]) -> Path:
    with webdataset.TarWriter(str(path), encoder=False) as writer:
        for sample in samples:
            writer.write(sample)
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of two samples, and what samples also hold."""
    folder = tmp_path / "shards"
    folder.mkdir()
    video = write_ramp(tmp_path / "v.mp4").read_bytes()
    write_image(tmp_path / "i.jpg", ramp(6)[5], quality=100)
    picture = (tmp_path / "i.jpg").read_bytes()
    for number in range(3):
        first = {"__key__": f"{number}0", "mp4": video, "txt": f"video {number}".encode(), "jpg": picture}
        second = {
            "__key__": f"d.x/{number}1",
            "jpg": picture,
            "json": json.dumps({"caption": "a\nb"}).encode(),
        }
        third = {"__key__": f"{number}2", "txt": b"a caption only", "cls": b"3"}
        _shard(folder / f"s-{number:03d}.tar", [first, second, third])
    return folder


def test_shards_are_read_as_webdataset_wrote_them(shards: Path) -> None:
    source = _open(shards)
    assert _items(source)[:3] == [
        ("s-000.tar:00", "video 0"),
        ("s-000.tar:d.x/01", "a b"),
        ("s-001.tar:10", "video 1"),
    ]
    keys = []
    for path in sorted(shards.iterdir()):
        with path.open("rb") as file:
            samples = group_by_keys(tar_file_expander([{"url": path.name, "stream": file}]))
            keys += [f"{path.name}:{sample['__key__']}" for sample in samples if "jpg" in sample]
    assert keys == [key for key, _ in _items(source)]
    clip, picture = _read(source, 4), _read(source, 1)
    assert np.diff(seen(clip.frames)).tolist() == [1] * 4
    assert picture.frames.shape == (1, *SIZE, 3)
    assert np.abs(picture.frames.astype(int) - level(5)).max() <= 1


def test_shards_by_pattern(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patterns = {"s-00[01].tar": 4, "*.tar": 6, "s-{000..002}.tar": 6, "s-00{0,2}.tar": 4, "s-001.tar": 2}
    assert {pattern: len(_open(shards / pattern)) for pattern in patterns} == patterns
    assert not capsys.readouterr().err
    source = _open(shards / "s-{000..009}.tar")
    assert (len(source), source.num_missing) == (6, 7)
    assert "7 shards" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"no file .*t-000\.tar"):
        _open(shards / "t-{000..009}.tar")
    assert list(expand_braces("{a,b}-{09..10}{x}")) == ["a-09{x}", "a-10{x}", "b-09{x}", "b-10{x}"]
    assert list(expand_braces("{2..0}")) == ["2", "1", "0"]
    assert find_files(str(shards), ".tar").num_missing == 0


def test_damaged_shards(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(shards / "s-000.tar") as tar:
        begin = tar.getmember("d.x/01.jpg").offset_data
    (shards / "s-000.tar").write_bytes((shards / "s-000.tar").read_bytes()[: begin + 99])
    (shards / "s-001.tar").write_bytes(b"nothing" * 200)
    with tarfile.open(shards / "s-002.tar", "w:gz") as tar:
        tar.add(tmp_path / "i.jpg", "a.jpg")
    source = _open(shards)
    assert _items(source) == [("s-000.tar:00", "video 0")]
    warnings = capsys.readouterr().err
    for name in ("s-000.tar is truncated", "s-001.tar", "s-002.tar"):
        assert name in warnings
    (shards / "s-000.tar").unlink()
    with pytest.raises(InputError, match=r"none of 2 shards.*s-001\.tar.*not compressed"):
        _open(shards)
    with pytest.raises(InputError, match=r"shards holds .*e\.tar has no mp4"):
        _open(_shard(tmp_path / "e.tar", [{"__key__": "a", "txt": b"text"}]))


def test_broken_samples_are_named(tmp_path: Path) -> None:
    video = cut_short(write_ramp(tmp_path / "v.mp4")).read_bytes()
    captions = [b"{", b'{"title": "t"}', b'"text"', b'{"caption": null}']
    samples = [{"__key__": str(number), "mp4": video, "json": text} for number, text in enumerate(captions)]
    source = _open(_shard(tmp_path / "s.tar", samples))
    for index, message in enumerate((r"0\.json is no JSON", r"1\.json has no caption or text, but title")):
        with pytest.raises(InputError, match=message):
            source.item(index)
    assert [source.item(index).caption for index in (2, 3)] == ["text", ""]
    with pytest.raises(InputError, match=r"s\.tar:2\.mp4 is truncated"):
        _read(source, 2)


def test_index_of_shards_is_kept(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CaptionedSourceConfig(path=str(shards), cache=str(tmp_path / "cache"))
    before = _items(open_source(config))
    indexed: list[str] = []
    make = captioned_shards._member_table
    monkeypatch.setattr(
        captioned_shards, "_member_table", lambda shard: indexed.append(shard.name) or make(shard)
    )
    assert _items(open_source(config)) == before
    assert not indexed
    _shard(shards / "s-001.tar", [{"__key__": "new", "mp4": (tmp_path / "v.mp4").read_bytes()}])
    assert ("s-001.tar:new", "") in _items(open_source(config))
    assert indexed == ["s-001.tar"]


# --------------------------------------------------------------------------------------------- settings


def test_layout_is_detected_unless_it_is_named(shards: Path, tmp_path: Path) -> None:
    write_ramp(shards / "1.mp4")
    _table(shards / "t.csv", [("1.mp4", "one")], ("path", "name"))
    with pytest.raises(InputError, match="say which"):
        _open(shards)
    assert len(_open(shards, kind=SourceKind.SHARDS)) == 6
    assert _items(_open(shards, kind=SourceKind.WEBVID)) == [("1.mp4", "one")]
    assert _items(_open(shards, csv=str(shards / "t.csv"))) == [("1.mp4", "one")]
    assert _items(_open(shards, kind=SourceKind.FOLDER)) == [("1.mp4", "")]


def test_settings_are_checked() -> None:
    for settings in ({"cut_threshold": 0.0}, {"min_motion": -1.0}, {"min_motion": float("nan")}):
        with pytest.raises(ValueError, match="cut_threshold"):
            CaptionedSourceConfig(**settings)
    with pytest.raises(ValueError, match="kind=webvid"):
        CaptionedSourceConfig(kind=SourceKind.SHARDS, csv="t.csv")
    open_filter(CaptionedSourceConfig(detect_cuts=True))
