"""Manifests of token sets: what was written is read, and nothing else is."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivesim.errors import InputError
from drivesim.training.token_manifest import (
    FORMAT,
    MANIFEST,
    Manifest,
    ShardRecord,
    TokenSettings,
    read_manifest,
    shard_path,
    write_manifest,
)

SETTINGS = TokenSettings(
    weights="a" * 64,
    vision="b" * 64,
    dtype="float32",
    device="cpu",
    version="v1.0-mini",
    tables="c" * 64,
    rate_hz=6.0,
    width_px=224,
    height_px=128,
    frames_per_clip=4,
    stride=2,
    clips_per_shard=2,
    imagined_share=0.5,
    validation_share=0.1,
    num_validation_clips=1,
    seed=0,
)
CLIPS = [('a "clips": scene', 0), ("scene-2", 0), ("scene-2", 2)]
SHARDS = [ShardRecord(num_clips=1, num_bytes=10, sha256="d" * 64, skipped=[(1, "it is torn")]), None]
MANIFEST_OF_THREE = Manifest(settings=SETTINGS, dataroot="/data", clips=CLIPS, shards=SHARDS)
VALUES = json.loads(json.dumps({"format": FORMAT, **asdict(MANIFEST_OF_THREE)}))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(values, path=()):
    """Yield the way to every value in a tree."""
    yield path
    inner = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    )
    for key, value in inner:
        yield from places(value, (*path, key))


def with_value(values, path, new):
    if not path:
        return new
    copy = values.copy()
    copy[path[0]] = with_value(values[path[0]], path[1:], new) if path[1:] else new
    return copy


def written(folder, values):
    (folder / MANIFEST).write_text(values if isinstance(values, str) else json.dumps(values))
    return folder


def test_what_was_written_is_read(tmp_path):
    write_manifest(tmp_path, MANIFEST_OF_THREE)
    found = read_manifest(tmp_path)
    assert found == MANIFEST_OF_THREE
    assert (found.num_clips, found.missing) == (1, [1])
    assert found.planned(1) == [("scene-2", 2)]
    assert found.scene_names() == ['a "clips": scene', "scene-2"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(list(places(VALUES))), JSON)
def test_any_changed_value_is_read_or_refused(tmp_path, path, new):
    try:
        found = read_manifest(written(tmp_path, with_value(VALUES, path, new)))
    except InputError:
        return
    assert isinstance(found, Manifest)
    assert 0 <= found.num_clips <= len(found.clips)
    assert all(shard_path(tmp_path, number).parent == tmp_path for number in range(len(found.shards)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_are_refused(tmp_path, data):
    (tmp_path / MANIFEST).write_bytes(data)
    with pytest.raises(InputError, match=MANIFEST):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("path", "new", "words"),
    [
        (("settings", "stride"), 1 << 80, "settings stride is not a number"),
        (("settings", "seed"), -1, "settings seed"),
        (("settings", "rate_hz"), float("nan"), "settings rate_hz"),
        (("settings", "frames_per_clip"), 4.0, "settings frames_per_clip"),
        (("settings", "clips_per_shard"), 0, "must be positive"),
        (("settings", "extra"), 1, "has not the entries"),
        (("clips", 1), ["scene-2", True], "clip 1"),
        (("clips",), VALUES["clips"] * 9, "2 shards where its 27 clips need 14"),
        (("shards", 0, "sha256"), "../../etc/passwd", "no SHA-256"),
        (("shards", 0, "file"), "../../etc/passwd", "has not the entries"),
        (("shards", 0, "num_clips"), 2, "2 clips and 1 skipped of 2"),
        (("shards", 0, "skipped"), [[5, "x"]], "not among its 2"),
        (("shards",), {}, "shards is not a list"),
        (("format",), "other", "its format is not"),
    ],
)
def test_values_that_make_no_sense_are_named(tmp_path, path, new, words):
    with pytest.raises(InputError, match=words):
        read_manifest(written(tmp_path, with_value(VALUES, path, new)))


def test_nesting_numbers_and_sizes_do_no_harm(tmp_path, monkeypatch):
    for text in ("[" * 200_000, '{"a":' * 200_000, f'{{"format": {"9" * 100_000}}}', '{"format": 1e999}'):
        with pytest.raises(InputError, match="make the tokens anew"):
            read_manifest(written(tmp_path, text))
    monkeypatch.setattr("drivesim.training.token_manifest.MAX_MANIFEST_BYTES", 10)
    with pytest.raises(InputError, match="larger than"):
        read_manifest(written(tmp_path, VALUES))


def test_folders_without_a_manifest_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no tokens .*drivesim tokenize"):
        read_manifest(tmp_path / "nowhere")
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(InputError, match="holds no tokens"):
        read_manifest(tmp_path)


def test_an_empty_shard_is_a_shard(tmp_path):
    torn = [(0, "torn"), (1, "torn")]
    shards = [replace(SHARDS[0], num_clips=0, skipped=torn), None]
    write_manifest(tmp_path, replace(MANIFEST_OF_THREE, shards=shards))
    assert read_manifest(tmp_path).num_clips == 0
